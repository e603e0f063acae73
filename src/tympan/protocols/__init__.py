"""Wire protocols: what clients send and receive, without I/O. `base` defines the interface."""
