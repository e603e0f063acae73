"""Stages of `gpu_smoke.py` and `gpu_figures.py`: `harness` runs them, `items` is their side, the others are what they do."""
