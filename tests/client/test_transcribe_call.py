"""`tympan.transcribe`: files and arrays, with a server and without one."""

from __future__ import annotations

from collections.abc import Iterator
from importlib.resources import files
from pathlib import Path

import numpy as np
import pytest
from support.ports import free_port
from support.server import LiveServer
from support.speech import clip, word_error_rate

import tympan
from tympan.engine.scripted import scripted_words

SPOKEN = Path(str(files("pytest_audioeval") / "samples" / "audio" / "en" / "counting.wav"))
HUM = np.full(12 * 8_000, 0.001, np.float32)


@pytest.fixture(scope="module")
def server() -> Iterator[str]:
    with LiveServer(model="embedded", max_streams=1) as live:
        yield live.url("")


@pytest.mark.parametrize("audio", [SPOKEN, str(SPOKEN)], ids=["path", "text"])
def test_file_with_a_server(audio: str | Path, server: str) -> None:
    transcript = tympan.transcribe(audio, url=server)
    assert word_error_rate(clip("counting").text, transcript.text) < 0.25
    assert transcript.duration == pytest.approx(len(clip("counting").samples) / 16_000, abs=0.05)
    assert transcript.file == str(SPOKEN)
    assert transcript.segments


@pytest.mark.parametrize("scale", [1.0, 32767], ids=["float32", "int16"])
def test_array_with_a_server(scale: float, server: str) -> None:
    samples = clip("counting").samples
    array = samples if scale == 1.0 else (samples * scale).astype(np.int16)
    transcript = tympan.transcribe(array, url=server, sample_rate=16_000)
    assert word_error_rate(clip("counting").text, transcript.text) < 0.25


def test_this_machine() -> None:
    transcript = tympan.transcribe(SPOKEN, model="embedded")
    assert (transcript.model, bool(transcript.words)) == ("embedded", True)
    assert word_error_rate(clip("counting").text, transcript.text) < 0.25


@pytest.mark.parametrize("scale", [1.0, 32767], ids=["float32", "int16"])
def test_array_on_this_machine(scale: float, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TYMPAN_MODEL", "scripted")
    array = HUM if scale == 1.0 else (HUM * scale).astype(np.int16)
    transcript = tympan.transcribe(array, sample_rate=8_000)
    assert transcript.words == scripted_words(150)
    assert transcript.duration == pytest.approx(12.0, abs=0.01)


async def test_where_an_event_loop_runs() -> None:
    assert tympan.transcribe(HUM, sample_rate=8_000, model="scripted").words == scripted_words(150)


def test_errors() -> None:
    with pytest.raises(tympan.AudioError, match=r"nothing\.wav: cannot be read"):
        tympan.transcribe("nothing.wav", model="scripted")
    with pytest.raises(tympan.ServerError, match="cannot reach"):
        tympan.transcribe(SPOKEN, url=f"ws://127.0.0.1:{free_port()}")
    with pytest.raises(tympan.ModelError, match=r"did you mean embedded\?"):
        tympan.transcribe(SPOKEN, model="embeded")
    with pytest.raises(tympan.ParameterError, match="leave one of them out"):
        tympan.transcribe(SPOKEN, url="ws://127.0.0.1:1", model="embedded")
    with pytest.raises(tympan.ParameterError, match="sample_rate is required for an array"):
        tympan.transcribe(HUM)
    with pytest.raises(tympan.ParameterError, match=r"invalid samples int32 \[5\]"):
        tympan.transcribe(np.zeros(5, np.int32), sample_rate=8_000)  # type: ignore[arg-type]
