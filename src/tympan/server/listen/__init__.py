"""Sockets: the listener, TLS, HTTP and WebSocket connections, the server that answers during start-up."""
