"""Conversations with the real server, played back."""

from __future__ import annotations

from pathlib import Path

import pytest
from support.golden import GOLDEN, replay

from tympan.protocols.kyutai import KyutaiProtocol

RECORDINGS = sorted((GOLDEN / "kyutai").glob("*.jsonl"))


@pytest.mark.parametrize("path", RECORDINGS, ids=lambda path: path.stem)
def test_a_conversation_goes_as_it_went(path: Path) -> None:
    assert replay(path, KyutaiProtocol) > 5


def test_there_are_conversations() -> None:
    assert len(RECORDINGS) >= 3
