"""Measure the decoding of one audio message of a Kyutai client: 1920 floats, 80 ms of audio.

    python benchmarks/msgpack_audio.py

The protocol is compared with decoding to a Python list of floats. Each figure is the median of many runs, which
alternate. The last line is JSON.
"""

from __future__ import annotations

import json
import statistics
import time
from collections.abc import Callable

import msgspec
import numpy as np

from tympan.messages import Audio
from tympan.protocols.base import Request, ServerInfo
from tympan.protocols.kyutai import KyutaiProtocol

SAMPLES = 1_920
ROUNDS, RUNS = 200, 10


class ListFrame(msgspec.Struct):
    type: str
    pcm: list[float]


def messages() -> dict[str, bytes]:
    """Return the same audio as 32-bit floats, which the clients send, and as 64-bit floats."""
    samples = np.random.default_rng(0).uniform(-1, 1, SAMPLES).astype(np.float32)
    items = np.empty(SAMPLES, [("tag", "u1"), ("value", ">f4")])
    items["tag"], items["value"] = 0xCA, samples
    head = b"\x82\xa4type\xa5Audio\xa3pcm\xdc" + SAMPLES.to_bytes(2, "big")
    return {
        "single": head + items.tobytes(),
        "double": msgspec.msgpack.encode({"type": "Audio", "pcm": samples.tolist()}),
    }


def through_a_list(message: bytes) -> bytes:
    frame = msgspec.msgpack.decode(message, type=ListFrame)
    return np.array(frame.pcm, np.float32).astype("<f4").tobytes()


def through_the_protocol(message: bytes) -> bytes:
    (audio,) = PROTOCOL.receive(message)
    assert isinstance(audio, Audio)
    return audio.data


PROTOCOL = KyutaiProtocol(
    Request("/", {}, {}), ServerInfo("m", "e", 24_000, SAMPLES, 0.5, (0.5, 1.0, 2.0, 3.0), ("en",))
)
WAYS: dict[str, Callable[[bytes], bytes]] = {"list": through_a_list, "view": through_the_protocol}


def microseconds(way: Callable[[bytes], bytes], message: bytes) -> float:
    started = time.perf_counter()
    for _ in range(RUNS):
        way(message)
    return (time.perf_counter() - started) / RUNS * 1e6


def main() -> None:
    report: dict[str, float] = {}
    for kind, message in messages().items():
        assert through_a_list(message) == through_the_protocol(message)
        times: dict[str, list[float]] = {name: [] for name in WAYS}
        for _ in range(ROUNDS):
            for name, way in WAYS.items():
                times[name].append(microseconds(way, message))
        for name in WAYS:
            report[f"{kind}_{name}_us"] = round(statistics.median(times[name]), 1)
        report[f"{kind}_ratio"] = round(report[f"{kind}_list_us"] / report[f"{kind}_view_us"], 1)
    for name, value in report.items():
        print(f"{name:16} {value}")
    print(json.dumps(report))


if __name__ == "__main__":
    main()
