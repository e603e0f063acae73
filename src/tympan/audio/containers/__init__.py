"""Containers and compressed audio: FLAC, Ogg, WAV and what libav decodes."""
