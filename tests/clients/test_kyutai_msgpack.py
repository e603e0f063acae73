"""Messages packed with the `msgpack` package, with the options of each of Kyutai's clients."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
from support.kyutai_wire import audio, closed_union
from support.server import LiveServer
from support.speech import clip, word_error_rate
from websockets.sync.client import connect

msgpack = pytest.importorskip("msgpack")
pytestmark = pytest.mark.clients

FRAME = 1_920


@pytest.fixture(scope="module")
def embedded() -> Iterator[LiveServer]:
    with LiveServer(model="embedded") as server:
        yield server


def pack_like_file_script(fields: dict[str, Any]) -> bytes:
    packed: bytes = msgpack.packb(fields, use_single_float=True)
    return packed


def pack_like_unmute(fields: dict[str, Any]) -> bytes:
    packed: bytes = msgpack.packb(fields, use_bin_type=True, use_single_float=True)
    return packed


def pack_without_options(fields: dict[str, Any]) -> bytes:
    packed: bytes = msgpack.packb(fields)
    return packed


@pytest.mark.parametrize("pack", [pack_like_file_script, pack_like_unmute, pack_without_options])
def test_speech_and_marker(embedded: LiveServer, pack: Callable[[dict[str, Any]], bytes]) -> None:
    speech = clip("one_to_five")
    samples = np.concatenate((speech.at(24_000), np.zeros(24_000, np.float32)))
    words, stops, steps = [], [], 0
    with connect(embedded.url("/api/asr-streaming")) as socket:
        for start in range(0, len(samples), FRAME):
            socket.send(pack({"type": "Audio", "pcm": samples[start : start + FRAME].tolist()}))
        socket.send(pack({"type": "Marker", "id": 3}))
        for packed in socket:
            fields = msgpack.unpackb(packed)
            closed_union.validate_python(fields)
            steps += fields["type"] == "Step"
            if fields["type"] == "Word":
                words.append(fields["text"])
            elif fields["type"] == "EndWord":
                stops.append(fields["stop_time"])
            elif fields["type"] == "Marker":
                assert fields["id"] == 3
                break
    assert word_error_rate(speech.text, " ".join(words)) <= 0.1
    assert stops == sorted(stops)
    assert stops[-1] <= len(samples) / 24_000
    assert len(samples) // FRAME - steps in (0, 1)


def test_kyutai_wire_packs_like_msgpack() -> None:
    samples = np.linspace(-1, 1, FRAME, dtype=np.float32)
    assert audio(samples) == pack_like_file_script({"type": "Audio", "pcm": samples.tolist()})
    assert audio(samples, 0xCB) == pack_without_options({"type": "Audio", "pcm": samples.tolist()})
