"""Metrics, logs, traces and recordings."""
