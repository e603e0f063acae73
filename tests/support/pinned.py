"""A model pinned to a commit, as a deployment wants it; there is no such commit."""

from __future__ import annotations

PINNED = "kyutai/stt-1b-en_fr-candle@" + "0123456789abcdef" * 2 + "01234567"
