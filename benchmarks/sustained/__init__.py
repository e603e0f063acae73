"""The number of live streams that an engine carries in real time, compared with the moshi package."""
