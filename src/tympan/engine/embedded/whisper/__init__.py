"""Whisper on the CPU, streamed: `files` finds and verifies a model, `voice` finds speech, `model` recognizes a window.

`recognizer` divides a stream into windows of speech and decides which words of a window are final.
"""
