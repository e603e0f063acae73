"""One client's conversation with the engine: commands in, events out."""
