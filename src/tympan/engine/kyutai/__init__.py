"""Kyutai's models on a device: runner, step program, CUDA graphs, placement, memory."""
