"""Stages of `gpu_smoke.py` and `gpu_figures.py`; `harness` runs them, and the other modules implement them."""
