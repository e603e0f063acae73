"""Deepgram's live API and Flux, with the parameters and messages that the file API shares."""
