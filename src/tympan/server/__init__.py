"""The server: sockets, access, sessions, HTTP routes, observability."""
