"""The script depends on the number of frames only."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.listener import hear

from tympan.config import ModelSettings
from tympan.engine.scripted import INFO, ScriptedEngine, scripted_words


@pytest.mark.parametrize("frames", [0, 1, 4, 5, 10, 49, 74, 75, 76, 200])
async def test_stream_follows_script(frames: int) -> None:
    engine = ScriptedEngine(ModelSettings(model="scripted:0"))
    await engine.start()
    listener = await hear(engine, np.zeros(frames * INFO.frame_samples, np.float32))
    assert listener.words == scripted_words(frames)
    await engine.stop()


@given(st.integers(0, 2000), st.integers(0, 2000))
@settings(deadline=None)
def test_longer_stream_extends_shorter_one(frames: int, more: int) -> None:
    short, long = scripted_words(frames), scripted_words(frames + more)
    assert long[: max(0, len(short) - 1)] == short[:-1]  # the last word may be cut
    assert [word.text for word in long[: len(short)]] == [word.text for word in short]
