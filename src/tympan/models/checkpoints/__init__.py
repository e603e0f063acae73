"""Checkpoints: from the name of a model to its configuration, tokenizer and weights."""
