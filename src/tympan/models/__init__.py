"""Kyutai's speech-to-text networks in plain PyTorch: inference only, streaming, state as a value."""
