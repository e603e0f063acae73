"""An engine in processes of its own, which a server feeds over sockets and restarts without losing a stream."""
