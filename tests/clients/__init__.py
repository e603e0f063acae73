"""Vendors' own packages against the server; `make test-clients` runs these tests."""
