"""Record `tests/golden/*/*.jsonl`: conversations with the real server and the scripted engine.

PYTHONPATH=src:tests python tests/golden/record.py [protocol …]
"""

from __future__ import annotations

import base64
import json
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any
from unittest.mock import patch

import numpy as np
from support.golden import GOLDEN, Recorder
from support.kyutai_wire import audio, decode, message
from support.server import LiveServer
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import ClientConnection, connect

from tympan.server import app

FRAME = bytes(2 * 1920)
CYCLE_FRAMES = 75  # of the scripted engine: ten words, then two seconds of pause
EAGER_FRAMES = 63  # of a cycle, after which the pause is long enough for an eager end of turn


@contextmanager
def recorded(name: str, path: str, **query: object) -> Iterator[tuple[LiveServer, ClientConnection]]:
    """Open a connection to `path` and record its conversation as `<protocol>/<name>.jsonl`."""
    make = app.PROTOCOLS[path]
    file = GOLDEN / make.name / f"{name}.jsonl"  # type: ignore[attr-defined]
    with (
        patch.dict(app.PROTOCOLS, {path: partial(Recorder, file, make)}),
        LiveServer(step_ms=0) as server,
        connect(server.url(path, **query), max_queue=None) as socket,
    ):
        yield server, socket
        read_to_the_end(socket)


def send_json(socket: ClientConnection, **fields: Any) -> None:
    socket.send(json.dumps(fields))


def send_frames(socket: ClientConnection, count: int) -> None:
    for _ in range(count):
        socket.send(FRAME)


def wait_for(socket: ClientConnection, text: str) -> None:
    while text not in str(socket.recv(timeout=10)):
        pass


def read_to_the_end(socket: ClientConnection) -> None:
    try:
        while True:
            socket.recv(timeout=0.5)
    except (ConnectionClosed, TimeoutError):
        pass


def kyutai() -> None:
    path = "/api/asr-streaming"

    def frames(socket: ClientConnection, count: int) -> None:
        for _ in range(count):
            socket.send(audio(np.zeros(1920, np.float32)))

    def wait(socket: ClientConnection, type: str) -> None:
        while decode(socket.recv(timeout=10))["type"] != type:
            pass

    with recorded("words_and_a_marker", path) as (_, socket):
        frames(socket, 25)
        socket.send(message(type="Marker", id=1))
        wait(socket, "Marker")
    with recorded("equal_markers_and_init", path) as (_, socket):
        for _ in range(2):
            frames(socket, 8)
            socket.send(message(type="Marker", id=-7))
            wait(socket, "Marker")
        socket.send(message(type="Init"))
        frames(socket, 8)
        socket.send(message(type="Marker", id=300))
        wait(socket, "Marker")
    with recorded("a_bad_message", path) as (_, socket):
        frames(socket, 3)
        socket.send(message(type="Audio", pcm="loud"))
    with recorded("a_restart", path) as (server, socket):
        frames(socket, 12)
        wait(socket, "Step")
        server.terminate()


def native() -> None:
    with recorded("the_simple_form", "/v1/stream") as (_, socket):
        send_frames(socket, 30)
        socket.send("EOS")
    with recorded("everything_and_a_flush", "/v1/stream", events="all") as (_, socket):
        send_frames(socket, 20)
        send_json(socket, type="flush", id=7)
        wait_for(socket, "flushed")
        send_frames(socket, 70)
        send_json(socket, type="finish")
    with recorded("two_channels", "/v1/stream", channels=2) as (_, socket):
        send_frames(socket, 40)
        socket.send("EOS")
    with recorded("a_bad_message", "/v1/stream") as (_, socket):
        socket.send("hello?")


def deepgram() -> None:
    live = {"encoding": "linear16", "sample_rate": 24_000}
    interims = {**live, "interim_results": "true"}
    with recorded("interims_and_endpoints", "/v1/listen", **interims, vad_events="true") as (_, socket):
        send_frames(socket, CYCLE_FRAMES)
        wait_for(socket, '"speech_final":true')
        send_frames(socket, 20)
        send_json(socket, type="CloseStream")
    with recorded("utterances_end", "/v1/listen", **interims, utterance_end_ms=1000) as (_, socket):
        send_frames(socket, CYCLE_FRAMES)
        send_json(socket, type="CloseStream")
    with recorded("finalize_twice", "/v1/listen", **live, endpointing="false") as (_, socket):
        send_frames(socket, 12)
        send_json(socket, type="Finalize")
        send_json(socket, type="KeepAlive")
        send_json(socket, type="Finalize")
        send_json(socket, type="Configure", keyterms=["tympan"])
        send_json(socket, type="CloseStream")
    with recorded("a_bad_message", "/v1/listen", **live) as (_, socket):
        send_frames(socket, 3)
        socket.send("[]")


def flux() -> None:
    live = {"encoding": "linear16", "sample_rate": 24_000, "model": "flux-general-en"}
    with recorded("eager_and_real_ends", "/v2/listen", **live, eager_eot_threshold=0.4) as (_, socket):
        for _ in range(2):
            send_frames(socket, EAGER_FRAMES)
            wait_for(socket, '"EagerEndOfTurn"')
            send_frames(socket, CYCLE_FRAMES - EAGER_FRAMES)
            wait_for(socket, '"EndOfTurn"')
        send_json(socket, type="CloseStream")
    with recorded("forced_ends_and_thresholds", "/v2/listen", **live) as (_, socket):
        send_json(socket, type="Configure", thresholds={"eot_threshold": 0.8})
        send_json(socket, type="Configure", thresholds={"eot_threshold": 8})
        send_frames(socket, 12)
        send_json(socket, type="ForceEndTurn")
        send_json(socket, type="ForceEndTurn")
        send_json(socket, type="CloseStream")
    with recorded("a_bad_message", "/v2/listen", **live) as (_, socket):
        socket.send("no JSON")


def openai() -> None:
    path, buffer = "/v1/realtime", "input_audio_buffer"

    def append(socket: ClientConnection, frames: int) -> None:
        for _ in range(frames):
            send_json(socket, type=f"{buffer}.append", audio=base64.b64encode(FRAME).decode())

    def update(socket: ClientConnection, turn_detection: object) -> None:
        audio = {"input": {"format": {"type": "audio/pcm", "rate": 24_000}, "turn_detection": turn_detection}}
        send_json(socket, type="session.update", session={"type": "transcription", "audio": audio})

    for name, detection in (
        ("server_vad", {"type": "server_vad", "silence_duration_ms": 600}),
        ("semantic_vad", {"type": "semantic_vad", "eagerness": "high"}),
    ):
        with recorded(name, path, intent="transcription") as (_, socket):
            update(socket, detection)
            append(socket, CYCLE_FRAMES)
            wait_for(socket, "completed")
            append(socket, 20)
    with recorded("commits_and_a_clear", path) as (_, socket):
        update(socket, None)
        append(socket, 12)
        send_json(socket, type=f"{buffer}.commit")
        send_json(socket, type=f"{buffer}.commit")
        append(socket, 6)
        send_json(socket, type=f"{buffer}.clear")
        wait_for(socket, "cleared")
    with recorded("vllm", path) as (_, socket):
        send_json(socket, type="session.update", model="kyutai/stt-1b-en_fr")
        append(socket, 12)
        send_json(socket, type=f"{buffer}.commit")
        append(socket, 12)
        send_json(socket, type=f"{buffer}.commit", final=True)
        wait_for(socket, "transcription.done")
    with recorded("a_bad_message", path) as (_, socket):
        socket.send("no JSON")


def gradium() -> None:
    path = "/api/speech/asr"
    with recorded("a_flush_and_an_end", path) as (_, socket):
        send_json(socket, type="setup", model_name="default", input_format="pcm", json_config={"language": "en"})
        for _ in range(15):
            send_json(socket, type="audio", audio=base64.b64encode(FRAME).decode())
        send_json(socket, type="flush", flush_id="a string")
        wait_for(socket, "flushed")
        send_json(socket, type="end_of_stream")
    with recorded("telephone_audio", path) as (_, socket):
        send_json(socket, type="setup", input_format="ulaw_8000")
        send_json(socket, type="audio", audio=base64.b64encode(bytes(4000)).decode())
        send_json(socket, type="end_of_stream")
    with recorded("no_setup", path) as (_, socket):
        send_json(socket, type="audio", audio="")


ALL: dict[str, Callable[[], None]] = {each.__name__: each for each in (native, kyutai, gradium, openai, deepgram, flux)}


if __name__ == "__main__":
    for protocol in sys.argv[1:] or ALL:
        ALL[protocol]()
