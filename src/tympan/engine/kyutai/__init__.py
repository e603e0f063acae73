"""Kyutai's models on a device: loading, placement, capacity, step program, CUDA graphs."""
