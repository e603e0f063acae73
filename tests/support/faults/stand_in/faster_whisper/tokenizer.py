"""The tokenizer of the stand-in."""

from __future__ import annotations

from faster_whisper import PROMPT, decode


class Tokenizer:
    eot = 0
    sot_sequence = PROMPT[:1]
    no_timestamps = PROMPT[1]
    language_code = "en"
    decode = staticmethod(decode)

    def __init__(self, *options: object) -> None:
        """Take and ignore the arguments of the real one."""
