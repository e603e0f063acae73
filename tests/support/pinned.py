"""The name of a model at a commit, as deployments require it. The commit does not exist."""

from __future__ import annotations

PINNED = "kyutai/stt-1b-en_fr-candle@" + "0123456789abcdef" * 2 + "01234567"
