"""Measuring: what a machine carries. `engine` needs torch and nothing of the server."""
