"""Measure `--model embedded` and `whisper:NAME`: word error rates, invented words, latency, CPU time, memory and start.

    python benchmarks/whisper.py [--model embedded] [--seconds 40] [--clips FOLDER]

Starts the real server. The English clips of `pytest-audioeval`, or the `.flac` and `.wav` files of a folder, each with
its text in a `.txt` beside it, are sent as fast as the server reads them. Live streams speak these clips over and over
in frames of 80 ms. CPU time is that of the server and its workers. Latencies are measured with the clock and, for a
busy machine, simulated: one recognizer gets a frame every 80 ms and is busy for the CPU time that it takes. The last
line is JSON.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import re
import statistics
import subprocess
import sys
import time
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path

import jiwer
import numpy as np
import psutil
import soxr
from pytest_audioeval.samples.registry import SampleRegistry
from websockets.asyncio.client import connect
from websockets.sync.client import connect as connect_sync

from tympan.audio.files import decode_file
from tympan.engine.embedded.whisper.files import locate_model
from tympan.engine.embedded.whisper.model import Whisper
from tympan.engine.embedded.whisper.recognizer import WhisperRecognizer
from tympan.messages import Partial, Samples, Word

SAMPLE_RATE = 24_000
FRAME_SAMPLES = 1_920
FRAME_SECONDS = 0.08
PAUSE = np.zeros(SAMPLE_RATE, np.float32)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="embedded")
    parser.add_argument("--seconds", type=float, default=40.0, help="duration of each live stream")
    parser.add_argument("--clips", type=Path, help="folder of files with texts")
    options = parser.parse_args()
    files = clips() if options.clips is None else sorted(file for file in options.clips.iterdir() if has_text(file))
    started = time.perf_counter()
    command = [sys.executable, "-m", "tympan", "serve", "--model", options.model, "--port", "0"]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        line = next(line for line in process.stderr if "http://" in line)
        ready = round(time.perf_counter() - started, 2)
        server = Server(process.pid, f"ws://127.0.0.1:{int(line.rpartition(':')[2])}/v1/stream")
        start = {"ready_seconds": ready, "start_cpu_seconds": round(server.cpu_seconds(), 2)}
        report = {"load": round(psutil.getloadavg()[0], 1), **start, **measure(server, files, options)}
        process.terminate()
    for name, value in report.items():
        print(f"{name:24} {value}")
    print(json.dumps(report))


def has_text(file: Path) -> bool:
    return file.suffix in {".flac", ".wav"} and file.with_suffix(".txt").exists()


def clips() -> list[Path]:
    """Return the English clips of `pytest-audioeval`."""
    spec = find_spec("pytest_audioeval")
    assert spec is not None, "pip install pytest-audioeval, or name a folder"
    assert spec.submodule_search_locations is not None
    return sorted(Path(next(iter(spec.submodule_search_locations))).glob("samples/audio/en/*.wav"))


def transcribe(url: str, file: Path) -> str:
    """Send a file as fast as the server reads it; return the text."""
    with connect_sync(url) as socket:
        for block in decode_file(file, SAMPLE_RATE):
            socket.send((np.clip(block, -1, 1) * 32_767).astype("<i2").tobytes())
        socket.send("EOS")
        return "".join(json.loads(message).get("text", "") for message in socket)


def word_error_rate(file: Path, heard: str) -> float:
    said = file.with_suffix(".txt").read_text()
    return round(float(jiwer.wer(plain(said), plain(heard) or "-")), 3)


def plain(text: str) -> str:
    return " ".join(re.findall(r"[a-z']+", text.lower().replace("-", " ")))


def measure(server: Server, files: Sequence[Path], options: argparse.Namespace) -> dict[str, object]:
    """Return the figures of a running server."""
    rates = {file.stem: word_error_rate(file, transcribe(server.url, file)) for file in files}
    samples = {file.stem: np.concatenate(list(decode_file(file, SAMPLE_RATE))) for file in files}
    speech = np.concatenate([part for clip in samples.values() for part in (clip, PAUSE)])
    report: dict[str, object] = {
        "word_error_rate": rates,
        "mean_word_error_rate": round(statistics.mean(rates.values()), 3),
        "invented_words": {name: server.words(sound) for name, sound in no_english().items()},
    }
    frames = int(options.seconds * SAMPLE_RATE)
    live = np.resize(speech, frames)
    for name, sounds in (
        ("one stream of speech", [live]),
        ("one stream of silence", [np.zeros(frames, np.float32)]),
        ("two streams of speech", [live, np.roll(live, -SAMPLE_RATE)]),
    ):
        report[name] = server.speak(sounds)
    resampled = np.asarray(soxr.resample(live, SAMPLE_RATE, 16_000), np.float32)
    return {**report, "memory_mib": server.memory(), "simulated": simulate(options.model, resampled)}


def simulate(model: str, samples: Samples) -> dict[str, float]:
    """Return the latencies of a stream at 16 kHz that has a core of its own, from CPU times."""
    recognizer, latencies, free = WhisperRecognizer(Whisper(locate_model(model))), Latencies(), 0.0
    frames = np.pad(samples, (0, -len(samples) % 1_280)).reshape(-1, 1_280)
    for index, frame in enumerate(frames):
        pcm = np.round(np.clip(frame, -1, 1) * 32_767).astype("<i2").tobytes()
        begin = max(free, (index + 1) * FRAME_SECONDS)
        waiting = max(0, min(len(frames), int(begin / FRAME_SECONDS)) - index - 1)
        before = time.process_time()
        events = recognizer.push(pcm, waiting)
        free = begin + time.process_time() - before
        for event in events:
            if isinstance(event, Word):
                latencies.word(free, event.end)
            elif isinstance(event, Partial):
                latencies.partial(free, event.text, event.start)
    return latencies.report()


class Latencies:
    """Seconds from the end of each word, and from the start of each phrase, to what arrives of it."""

    def __init__(self) -> None:
        self._words: list[float] = []
        self._phrases: list[float] = []
        self._shown = False

    @property
    def words(self) -> int:
        return len(self._words)

    def word(self, now: float, end: float) -> None:
        self._words.append(now - end)
        self._shown = True

    def partial(self, now: float, text: str, start: float) -> None:
        if text and not self._shown:
            self._phrases.append(now - start)
        self._shown = bool(text)

    def report(self) -> dict[str, float]:
        report = {}
        for name, behind in (("first_partial", self._phrases), ("word", self._words)):
            if len(behind) > 1:
                cuts = statistics.quantiles(behind, n=20)
                report[f"{name}_p50"], report[f"{name}_p95"] = round(cuts[9], 2), round(cuts[18], 2)
        return report

    def __add__(self, other: Latencies) -> Latencies:
        both = Latencies()
        both._words, both._phrases = self._words + other._words, self._phrases + other._phrases
        return both


def no_english() -> dict[str, Samples]:
    """Return a minute each of silence, notes like music, noise, and French."""
    random = np.random.default_rng(1)
    times = np.arange(60 * SAMPLE_RATE) / SAMPLE_RATE
    pitches = np.repeat(random.choice([220.0, 247.0, 277.2, 293.7, 329.6, 370.0, 415.3], 120), SAMPLE_RATE // 2)
    notes = sum(np.sin(2 * np.pi * pitches * times * overtone) / overtone for overtone in range(1, 6))
    music = 0.1 * notes * np.exp(-4 * (times % 0.5))
    clips = [sample.audio_numpy() for sample in SampleRegistry().all() if sample.lang == "fr"]
    spoken = soxr.resample(np.concatenate([np.pad(clip, (0, 12_000)) for clip in clips]), 16_000, SAMPLE_RATE)
    sounds = {
        "silence": np.zeros(len(times)),
        "music": music,
        "noise": random.normal(0, 0.05, len(times)),
        "french": np.resize(spoken, len(times)),
    }
    return {name: sound.astype(np.float32) for name, sound in sounds.items()}


class Server:
    """A running server: sends it audio, and measures its processes."""

    def __init__(self, pid: int, url: str) -> None:
        self.url = url
        self._server = psutil.Process(pid)

    def memory(self) -> list[int]:
        """Return the MiB of the server and of each worker."""
        return [round(process.memory_info().rss / 2**20) for process in self._processes()]

    def words(self, samples: Samples) -> int:
        """Return the number of words of a stream that is sent at the pace of the server."""
        return asyncio.run(self._stream(samples, live=False)).words

    def speak(self, sounds: Sequence[Samples]) -> dict[str, object]:
        """Send streams in real time; return their latencies and CPU time."""

        async def run() -> list[Latencies]:
            return await asyncio.gather(*(self._stream(sound, live=True) for sound in sounds))

        before = self.cpu_seconds()
        latencies = sum(asyncio.run(run()), Latencies())
        used = (self.cpu_seconds() - before) / (len(sounds[0]) / SAMPLE_RATE) / len(sounds)
        return {"cpu_seconds_per_second": round(used, 3), **latencies.report()}

    def _processes(self) -> list[psutil.Process]:
        return [self._server, *self._server.children(recursive=True)]

    def cpu_seconds(self) -> float:
        return sum(sum(process.cpu_times()[:2]) for process in self._processes())

    async def _stream(self, samples: Samples, *, live: bool) -> Latencies:
        pcm = (np.clip(samples, -1, 1) * 32_767).astype("<i2")
        latencies = Latencies()
        async with connect(f"{self.url}?events=word,partial") as socket:
            began = time.perf_counter()

            async def send() -> None:
                for start in range(0, len(pcm), FRAME_SAMPLES):
                    if live:
                        await asyncio.sleep(began + (start + FRAME_SAMPLES) / SAMPLE_RATE - time.perf_counter())
                    await socket.send(pcm[start : start + FRAME_SAMPLES].tobytes())
                await socket.send("EOS")

            sending = asyncio.create_task(send())
            async for text in socket:
                message, now = json.loads(text), time.perf_counter() - began
                if message["type"] == "word":
                    latencies.word(now, message["end"])
                elif message["type"] == "partial":
                    latencies.partial(now, message["text"], message["start"])
            await sending
        return latencies


if __name__ == "__main__":
    main()
