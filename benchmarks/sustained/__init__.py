"""How many live streams an engine carries in real time, and what the moshi package carries beside it."""
