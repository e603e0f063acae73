"""The suppressed tokens of the stand-in: none."""

from __future__ import annotations


def get_suppressed_tokens(tokenizer: object, tokens: list[int]) -> tuple[int, ...]:
    return ()
