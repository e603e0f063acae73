"""Measure one live stream through the real server: how far the words are behind audio sent in real time.

    python benchmarks/live_stream.py [--seconds 72] [serve's own options, such as --model random:1b --dtype int8]

Starts `tympan serve` on a free port and speaks the English clips of `pytest-audioeval` over and over, in frames of
80 ms. The last line is JSON.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import threading
import time

import numpy as np
import soxr
from pytest_audioeval.samples.registry import SampleRegistry
from websockets.sync.client import ClientConnection, connect

FRAME_BYTES = 3840  # 80 ms at 24 kHz


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=72.0)
    options, serve_options = parser.parse_known_args()
    pcm = speech(options.seconds)
    command = [sys.executable, "-m", "tympan", "serve", "--port", "0", *serve_options]
    started = time.perf_counter()
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as server:
        assert server.stderr is not None
        line = next(line for line in server.stderr if "http://" in line)
        ready = time.perf_counter() - started
        with connect(f"ws://127.0.0.1:{int(line.rpartition(':')[2])}/v1/stream?events=lag,word") as socket:
            report = converse(socket, pcm)
        server.terminate()
    print(line.partition("serves ")[2].strip())
    print(json.dumps({"ready_seconds": round(ready, 1), **report}))


def speech(seconds: float) -> bytes:
    """Return English clips with a second of silence between them, 16-bit at 24 kHz."""
    clips = [sample.audio_numpy() for sample in SampleRegistry().all() if sample.lang == "en"]
    spoken = np.concatenate([np.concatenate([clip, np.zeros(16_000, np.float32)]) for clip in clips])
    samples = np.resize(soxr.resample(spoken, 16_000, 24_000), int(seconds * 24_000))
    return (np.clip(samples, -1, 1) * 32767).astype("<i2").tobytes()


def converse(socket: ClientConnection, pcm: bytes) -> dict[str, object]:
    """Return the figures; `behind` is audio received but not transcribed, once per second."""
    speaker = threading.Thread(target=speak, args=(socket, pcm))
    began = time.perf_counter()
    speaker.start()
    messages = [json.loads(message) for message in socket]
    closed = time.perf_counter() - began
    speaker.join()
    behind = [message["behind"] for message in messages if message["type"] == "lag"]
    return {
        "audio_seconds": round(len(pcm) / 48_000, 1),
        "words": sum(message["type"] == "word" for message in messages),
        "behind_p50": sorted(behind)[len(behind) // 2],
        "behind_max": max(behind),
        "end_to_close_seconds": round(closed - len(pcm) / 48_000, 2),
    }


def speak(socket: ClientConnection, pcm: bytes) -> None:
    began = time.perf_counter()
    for start in range(0, len(pcm), FRAME_BYTES):
        time.sleep(max(0.0, began + start / 48_000 - time.perf_counter()))
        socket.send(pcm[start : start + FRAME_BYTES])
    socket.send("EOS")


if __name__ == "__main__":
    main()
