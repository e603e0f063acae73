"""Kyutai's models on a device: loading, placement, memory, calibration, step program, CUDA graphs."""
