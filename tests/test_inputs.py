"""Every input of the table through the command line, an upload and a live socket: the same samples or message."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

import httpx2 as httpx
import numpy as np
import pytest
from support.audio_encoding import voice
from support.inputs import INPUTS, Input, list_of_formats
from support.server import LiveServer
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import connect

from tympan.audio.files import AudioInput
from tympan.audio.samples import as_float
from tympan.cli.main import main
from tympan.messages import Event, Pcm, Samples, Warning
from tympan.session.listener import Observer

DECODER_WARNINGS = ("antiphase", "audio_track", "wav_length")
WINDOW_SECONDS = 0.05
CODEC_DELAY_SECONDS = 0.11  # that an encoder adds and no header declares
PAUSE_WINDOWS = 5
DOCS = Path(__file__).parent.parent / "docs" / "files.md"


@dataclass
class Result:
    """What one way of sending an input leads to: samples `[n]`, and the decoder's warnings; or an error message."""

    blocks: list[Samples] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    seconds: float = 0.0
    error: str = ""

    @property
    def samples(self) -> Samples:
        return np.concatenate([np.zeros(0, np.float32), *self.blocks])

    def add_warning(self, warning: Warning) -> None:
        if warning.code in DECODER_WARNINGS:
            self.warnings.append(warning.code)


class Capture(Observer):
    """Keeps the samples and warnings of one session of the server."""

    def __init__(self) -> None:
        self.result = Result()

    def on_audio(self, samples: Pcm) -> None:
        self.result.blocks.append(as_float(samples)[:, 0])

    def on_event(self, event: Event, channel: int) -> None:
        if isinstance(event, Warning):
            self.result.add_warning(event)


class Captures:
    """Takes the place of the server's recordings and traces."""

    def __init__(self) -> None:
        self.latest = Capture()

    def __bool__(self) -> bool:
        return True

    def begin(self, *_: object) -> list[Observer]:
        self.latest = Capture()
        return [self.latest]

    async def stop(self) -> None:
        pass


class CapturingServer(LiveServer):
    """A server that captures what it decodes."""

    captures: Captures
    client: httpx.Client

    def __enter__(self) -> CapturingServer:
        super().__enter__()
        self.captures = Captures()
        self.service.observers = self.captures  # type: ignore[assignment]
        return self


@pytest.fixture(scope="module")
def server() -> Iterator[CapturingServer]:
    with CapturingServer(step_ms=0) as server, httpx.Client(timeout=30) as client:
        server.client = client
        yield server


def through_command_line(path: Path, capsys: pytest.CaptureFixture[str]) -> Result:
    """Decode the file as `transcribe` does, then run the command itself."""
    result = Result()
    if main(["transcribe", "--model", "scripted:0", "--format", "json", str(path)]) == 0:
        output = capsys.readouterr()
        result.seconds = json.loads(output.out)["duration"]
        warnings: list[Warning] = []
        with AudioInput(path, report=warnings.append) as audio:
            result.blocks = list(audio.blocks(24_000))
        for warning in warnings:
            result.add_warning(warning)
            assert f"tympan: {path}: {warning.message}" in output.err
    else:
        result.error = capsys.readouterr().err.removeprefix(f"tympan: {path}: ").strip()
    return result


def through_upload(server: CapturingServer, data: bytes) -> Result:
    answer = server.client.post(
        server.http("/v1/audio/transcriptions"),
        files={"file": ("talk", data)},
        data={"response_format": "verbose_json"},
    )
    if answer.status_code != 200:
        return Result(error=answer.json()["error"]["message"])
    result = server.captures.latest.result
    result.seconds = answer.json()["duration"]
    return result


def through_socket(server: CapturingServer, data: bytes) -> Result:
    error, seconds = "", 0.0
    with connect(server.url(encoding="auto", events="all")) as socket:
        with suppress(ConnectionClosed):  # after an error
            for start in range(0, len(data), 10_000):
                socket.send(data[start : start + 10_000])
            socket.send("EOS")
        with suppress(ConnectionClosed):
            while True:
                message = json.loads(socket.recv(timeout=30))
                error = message["message"] if message["type"] == "error" else error
                seconds = message["audio_seconds"] if message["type"] == "complete" else seconds
    if error:
        return Result(error=error)
    result = server.captures.latest.result
    result.seconds = seconds
    return result


def sounds(samples: Samples) -> list[tuple[float, float]]:
    """Return start and end, in seconds, of what is not silent; pauses of up to a quarter of a second are ignored."""
    width = round(WINDOW_SECONDS * 24_000)
    windows = samples[: len(samples) // width * width].reshape(-1, width)
    found: list[list[int]] = []
    for number in np.flatnonzero(np.sqrt(np.square(windows).mean(axis=1)) > 0.01):
        if found and number - found[-1][1] <= PAUSE_WINDOWS:
            found[-1][1] = int(number) + 1
        else:
            found.append([int(number), int(number) + 1])
    return [(start * WINDOW_SECONDS, end * WINDOW_SECONDS) for start, end in found]


def rms(samples: Samples) -> float:
    return float(np.sqrt(np.square(samples).mean()))


def check(expected: Input, result: Result) -> None:
    assert expected.error in result.error
    assert bool(expected.error) == bool(result.error)
    assert tuple(result.warnings) == expected.warnings
    if not expected.error:
        heard = sounds(result.samples)
        assert len(heard) == len(expected.sounds)
        np.testing.assert_allclose(
            np.reshape(heard, (-1, 2)), np.reshape(expected.sounds, (-1, 2)), atol=CODEC_DELAY_SECONDS
        )
        for start, end in expected.sounds:  # bytes in the wrong order are as long, but loud noise
            level = rms(result.samples[round((start + 0.2) * 24_000) : round((end - 0.1) * 24_000)])
            assert 0.6 < level / rms(voice(1.0, 24_000)) < 1.4
        assert result.seconds == pytest.approx(len(result.samples) / 24_000, abs=1e-3)


@pytest.mark.parametrize("name", INPUTS)
def test_input(server: CapturingServer, name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    expected = INPUTS[name]
    data = expected.make()
    path = tmp_path / f"talk{expected.local}"
    path.write_bytes(data)
    local = through_command_line(path, capsys)
    check(expected, local)
    if expected.local:
        return
    for result in (through_upload(server, data), through_socket(server, data)):
        check(expected, result)
        np.testing.assert_array_equal(result.samples, local.samples)
        assert result.error == local.error


def test_list_of_formats() -> None:
    """If this fails, replace the table in the page by the output of `list_of_formats`."""
    assert list_of_formats() in DOCS.read_text(encoding="utf-8")
