"""Deepgram's live API, Flux and their messages."""
