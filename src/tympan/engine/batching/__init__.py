"""The batching engine without a model: scheduler, engine thread, stall guard. Needs no torch."""
