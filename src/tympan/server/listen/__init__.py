"""Listening socket, TLS, HTTP and WebSocket connections, and the server that responds during start-up."""
