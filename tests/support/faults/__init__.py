"""Servers and clients for the tests of faults: audio whose words are known, callers, and a supervised server."""
