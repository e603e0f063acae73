"""Benchmarks of this machine's engine (`engine`, which needs torch but no server) and of a running server (`load`)."""
