"""Stages of `gpu_smoke.py` and `gpu_figures.py`: `harness` runs them, the other modules are what they do."""
