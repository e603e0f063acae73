"""Measuring: what a machine carries, and what a running server does. `engine` needs torch and nothing of the server."""
