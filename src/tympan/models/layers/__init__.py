"""Layers of the networks, with streaming state, in every data type."""
