"""Measure the embedded recognizer: word error rate, start time, time per frame and memory.

    python benchmarks/embedded.py [FILE.flac …]

Each audio file has its text in a `.txt` beside it; by default, the English clips of `pytest-audioeval` are used. The
script starts the real server, sends the files through a WebSocket as fast as the server reads them, and reads its
memory. The last line is JSON.
"""

from __future__ import annotations

import argparse
import json
import re
import statistics
import subprocess
import sys
import time
from importlib.util import find_spec
from pathlib import Path

import jiwer
import numpy as np
import psutil
from websockets.sync.client import connect

from tympan.audio.files import decode_file
from tympan.engine.embedded.recognizer import FRAME_SAMPLES, SAMPLE_RATE, Recognizer


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("files", nargs="*", type=Path)
    files = parser.parse_args().files or clips()
    report = {**measure_server(files), **measure_frames(files)}
    for name, value in report.items():
        print(f"{name:24} {value}")
    print(json.dumps(report))


def clips() -> list[Path]:
    spec = find_spec("pytest_audioeval")
    assert spec is not None, "pip install pytest-audioeval, or name files"
    assert spec.submodule_search_locations is not None
    return sorted(Path(next(iter(spec.submodule_search_locations))).glob("samples/audio/en/*.wav"))


def measure_server(files: list[Path]) -> dict[str, object]:
    """Return the start time, the memory and the word error rates of the real server process."""
    started = time.perf_counter()
    command = [sys.executable, "-m", "tympan", "serve", "--model", "embedded", "--port", "0"]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as server:
        assert server.stderr is not None
        line = next(line for line in server.stderr if "http://" in line)
        ready = time.perf_counter() - started
        url = f"ws://127.0.0.1:{int(line.rpartition(':')[2])}/v1/stream"
        rates = {file.stem: word_error_rate(file, transcribe(url, file)) for file in files}
        family = [psutil.Process(server.pid), *psutil.Process(server.pid).children(recursive=True)]
        memory = [process.memory_info().rss / 2**20 for process in family]
        server.terminate()
    return {
        "ready_seconds": round(ready, 2),
        "server_mib": round(memory[0]),
        "workers_mib": [round(size) for size in memory[1:]],
        "word_error_rate": rates,
    }


def transcribe(url: str, file: Path) -> str:
    with connect(url) as socket:
        for block in decode_file(file, 24_000):
            socket.send((np.clip(block, -1, 1) * 32767).astype("<i2").tobytes())
        socket.send("EOS")
        return "".join(json.loads(message).get("text", "") for message in socket)


def word_error_rate(file: Path, heard: str) -> float:
    said = file.with_suffix(".txt").read_text()
    return round(float(jiwer.wer(plain(said), plain(heard) or "-")), 3)


def plain(text: str) -> str:
    return " ".join(re.findall(r"[a-z']+", text.lower().replace("-", " ")))


def measure_frames(files: list[Path]) -> dict[str, object]:
    """Return the milliseconds per frame of 80 ms of one recognizer in this process."""
    recognizer = Recognizer()
    times = []
    for file in files:
        samples = np.concatenate(list(decode_file(file, SAMPLE_RATE)))
        pcm = (np.clip(samples, -1, 1) * 32767).astype("<i2")
        for start in range(0, len(pcm) - FRAME_SAMPLES, FRAME_SAMPLES):
            began = time.perf_counter()
            recognizer.push(pcm[start : start + FRAME_SAMPLES].tobytes())
            times.append(1000 * (time.perf_counter() - began))
        recognizer.reset()
    cuts = statistics.quantiles(times, n=100)
    return {"frame_ms_p50": round(cuts[49], 1), "frame_ms_p99": round(cuts[98], 1)}


if __name__ == "__main__":
    main()
