"""The Wyoming protocol of Home Assistant on a port of its own: JSON lines over TCP, without keys and without TLS."""
