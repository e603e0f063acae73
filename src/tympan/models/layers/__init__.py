"""Layers of the networks, with streaming state."""
