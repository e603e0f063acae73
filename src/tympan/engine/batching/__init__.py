"""Continuous batching of many streams on one model: scheduler, engine thread and stall guard. Needs no torch."""
