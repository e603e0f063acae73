"""`tympan bench load` against real servers on real connections: words, delays and errors are counted correctly."""

from __future__ import annotations

import asyncio
import json
import time
import wave
from array import array
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from msgspec import structs
from support.server import LiveServer
from support.speech import clip

from tympan.bench.load.caller import Record
from tympan.bench.load.dialects import DIALECTS
from tympan.bench.load.expected import Expected, expect
from tympan.bench.load.report import figures, milliseconds
from tympan.bench.load.score import Scorer, compare, word_errors
from tympan.bench.load.spec import LoadSpec
from tympan.bench.load.speech import Speech, noise, read_speech
from tympan.bench.load.workers import run_streams, start_offsets
from tympan.cli.main import main
from tympan.config import ModelSettings
from tympan.engine.base import Deliver
from tympan.engine.scripted import ScriptedEngine, ScriptedStream
from tympan.errors import ConfigError
from tympan.messages import EngineEvent, Word
from tympan.server.app import PROTOCOLS

KEY = "a-key"
LOUD_THEN_QUIET = Speech((np.full(1920, 9000, "<i2").tobytes(),) * 9 + (bytes(3840),), 0.08, 24_000)


@pytest.fixture(scope="module")
def server() -> Iterator[LiveServer]:
    with LiveServer(api_keys=(KEY,), host="127.0.0.1") as live:
        yield live


async def measure(plan: LoadSpec, speech: Speech | None = None) -> dict[str, Any]:
    """Run a load in this process and return its figures."""
    speech = speech or noise(plan.dialect.sample_rate, plan.chunk_seconds)
    expected = await expect(plan, speech)
    outcome = await run_streams(plan, speech, expected, range(plan.streams), time.monotonic())
    return figures(plan, speech, expected, outcome)


async def test_protocols_count_each_word_once(server: LiveServer) -> None:
    loads = [LoadSpec(server.url(""), name, streams=2, seconds=3.0, flush_every=1.5, token=KEY) for name in DIALECTS]
    loads.append(LoadSpec(server.url(""), streams=2, seconds=3.0, session_seconds=1.4, chunk_ms=20, token=KEY))
    for load, result in zip(loads, await asyncio.gather(*map(measure, loads)), strict=True):
        counts = {name: result[name] for name in ("lost", "repeated", "changed", "error_kinds", "wer")}
        assert counts == {"lost": 0, "repeated": 0, "changed": 0, "error_kinds": {}, "wer": 0.0}, load
        assert result["words"] >= result["expected_words"] >= 14
        assert result["sessions"] == (4 if load.session_seconds else 2)
        assert result["finish_count"] == result["first_word_count"] == result["handshake_count"] == result["sessions"]
        assert result["lag_from"] == ("server" if load.protocol in ("native", "kyutai") else "words")
        assert (result["flush_count"] > 0) is (load.session_seconds is None)
        # The script releases a word 480 ms after its end; at 16 kHz resampling holds a frame back for a frame more.
        assert 480 < result["word_delay_ms_p50"] < (780 if load.protocol == "vllm" else 700)
        assert result["word_delay_ms_p50"] - result["added_ms_p50"] == pytest.approx(480, abs=1)


class FaultyEngine(ScriptedEngine):
    """Loses word 2, repeats word 4 and changes word 6; or delivers every event `late_seconds` later."""

    def __init__(self, late_seconds: float = 0.0) -> None:
        super().__init__(ModelSettings(model="scripted"))
        self._late_seconds = late_seconds

    def open(self, deliver: Deliver, *, live: bool = True) -> ScriptedStream:
        if self._late_seconds:
            loop = asyncio.get_running_loop()
            return super().open(lambda events: (loop.call_later(self._late_seconds, deliver, events), None)[1])
        return super().open(lambda events: deliver([each for event in events for each in self._break_word(event)]))

    @staticmethod
    def _break_word(event: EngineEvent) -> Sequence[EngineEvent]:
        if not isinstance(event, Word):
            return (event,)
        return {"word2": (), "word4": (event, event), "word6": (structs.replace(event, text="other"),)}.get(
            event.text, (event,)
        )


async def test_faulty_servers_are_detected() -> None:
    """One server loses, repeats and changes words in every protocol; another delivers all of them late."""
    with LiveServer(FaultyEngine()) as faulty, LiveServer(FaultyEngine(late_seconds=0.3)) as slow:
        loads = [LoadSpec(faulty.url(""), name, streams=2, seconds=3.5, flush_every=1.5) for name in DIALECTS]
        *wrong, late = await asyncio.gather(*map(measure, [*loads, replace(loads[0], url=slow.url(""))]))
    for load, result in zip(loads, wrong, strict=True):
        assert (result["lost"], result["repeated"], result["changed"]) == (2, 2, 2), load
        assert result["wer"] == round(6 / result["expected_words"], 4)
    assert (late["lost"], late["repeated"], late["changed"]) == (0, 0, 0)
    assert 780 < late["word_delay_ms_p50"] < 900
    for name in ("added", "flush", "finish"):
        assert 300 < late[f"{name}_ms_p50"] < 420, name


async def test_refusals_and_restarts_are_counted() -> None:
    with LiveServer(max_streams=2) as small:
        load = asyncio.create_task(measure(LoadSpec(small.url(""), streams=3, seconds=2.5)))
        await asyncio.sleep(1.2)
        small.terminate()
        result = await load
    assert result["error_kinds"]["closed with 1012"] == 2
    assert result["error_kinds"]["refused with HTTP status 503"] >= 1
    assert result["errors"] >= 4, "and retries failed"
    assert (result["lost"], result["repeated"]) == (0, 0)
    assert result["words"] >= 4, "those of the second before the restart"


async def test_speech_is_compared_with_a_single_stream(tmp_path: Path) -> None:
    """The transcript beside the audio has an extra word, so the error rate is not zero."""
    said = clip("counting")
    with wave.open(str(tmp_path / "numbers.wav"), "wb") as writer:
        writer.setparams((1, 2, 16_000, 0, "NONE", ""))
        writer.writeframes(said.pcm(16_000))
    (tmp_path / "numbers.txt").write_text(f"{said.text} zebra")
    speech = read_speech(tmp_path / "numbers.wav", 24_000, 0.08)
    with LiveServer(model="embedded", max_streams=2) as server:
        load = LoadSpec(server.url(""), "deepgram", streams=1, seconds=speech.seconds + 0.1, ramp_seconds=0.0)
        result = await measure(load, speech)
        with pytest.raises(ConfigError, match=r"--audio"):
            await measure(load)
    # Punctuation and case depend on where the recognizer cuts its windows, and so on the pace: words may be changed.
    assert (result["lost"], result["repeated"], result["errors"]) == (0, 0, 0)
    assert result["words"] == result["expected_words"] > 5
    assert result["wer_against"] == "text"
    assert 0.0 < result["wer"] <= 0.2
    assert 0.0 < result["reference_wer"] <= 0.2


def test_command_prints_json_and_writes_a_report(server: LiveServer, tmp_path: Path, capfd: Any) -> None:
    report = tmp_path / "load.html"
    command = ["bench", "load", server.url(""), "--streams", "3", "--duration", "1.5", "--report", str(report)]
    assert main([*command, "--token", KEY]) == 0
    result = json.loads(capfd.readouterr().out.splitlines()[-1])
    assert result["words"] == result["expected_words"] == 3 * 4
    assert result.keys() >= {"streams", "lost", "repeated", "errors", "wer", "flush_ms_p50", "flush_ms_p99"}
    assert result.keys() >= {f"word_delay_ms_p{percent}" for percent in (50, 95, 99)}
    page = report.read_text()
    assert "0 lost, 0 repeated" in page
    assert "data:image/png;base64," in page


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["http//x"], "invalid server URL"),
        (["ws://127.0.0.1:port"], "invalid server URL"),
        (["ws://127.0.0.1:1"], "cannot reach 127.0.0.1:1"),
        (["ws://127.0.0.1:1", "--protocol", "morse"], "invalid --protocol 'morse': expected native, "),
        (["ws://127.0.0.1:1", "--streams", "0"], "--streams takes at least 1"),
        (["ws://127.0.0.1:1", "--report", "/nowhere/load.png"], "the folder does not exist"),
        (["ws://127.0.0.1:1", "--report", "load.pdf"], "a name that ends in .html or .png"),
        (["ws://127.0.0.1:1", "--audio", "nothing.wav"], "cannot be read"),
    ],
)
def test_wrong_usage_is_one_sentence(arguments: list[str], says: str, capfd: Any) -> None:
    assert main(["bench", "load", *arguments]) == 2
    assert says in capfd.readouterr().err


def test_every_protocol_has_a_dialect() -> None:
    paths = {dialect.path.partition("?")[0] for dialect in DIALECTS.values()}
    aliases = {"/v1/transcribe", "/v1/listen/stream"}
    assert paths == PROTOCOLS.keys() - aliases


# --- Without a server ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("heard", "lost", "repeated", "changed"),
    [
        ("abcde", 0, 0, 0),
        ("abde", 1, 0, 0),
        ("abbcde", 0, 1, 0),
        ("abxde", 0, 0, 1),
        ("abdce", 1, 1, 0),
        ("", 5, 0, 0),
        ("abcdef", 0, 1, 0),
        ("bcdea", 1, 1, 0),
    ],
)
def test_compare(heard: str, lost: int, repeated: int, changed: int) -> None:
    compared = compare("abcde", heard)
    assert (compared.lost, compared.repeated, compared.changed) == (lost, repeated, changed)


def test_compare_ignores_words_that_are_not_due() -> None:
    assert compare("abcd", "ab", due=2).lost == 0
    assert compare("abcd", "ab", due=3).lost == 1
    assert compare("abcd", "abxy", due=2).repeated == compare("abcd", "abxy", due=2).changed == 0
    assert compare("abcd", "aabcd", due=2).repeated == 1


@pytest.mark.parametrize(
    ("said", "heard", "errors"),
    [("a b c", "a b c", 0), ("a b c", "a x c d", 2), ("a b c", "", 3), ("", "a", 1), ("a b c d", "b c d e", 2)],
)
def test_word_errors(said: str, heard: str, errors: int) -> None:
    assert word_errors(said.split(), heard.split()) == errors


def test_delays() -> None:
    """A hundred words, one a second, each a millisecond later than the previous one; flushes release two early."""
    words = [Word(f"w{number}", number + 0.5, number + 1.0, 1.0) for number in range(100)]
    expected = Expected.from_words("some", words, [word.end + 0.4 for word in words])
    plan = LoadSpec("ws://x", seconds=101.0, ramp_seconds=0.0, flush_every=50.0)
    flushes = LOUD_THEN_QUIET.flush_points(plan.flush_every, plan.session_chunks)
    assert sorted(flush * 0.08 for flush in flushes) == pytest.approx([25.6, 75.2]), "in w25 and w74"
    # Positions of a whole second lie within the chunk that ends at the next multiple of 80 ms.
    ends = [1000.0 + 0.08 * np.ceil(word.end / 0.08 - 1e-6) for word in words]
    record = Record(
        dialled=999.9,
        handshake_seconds=0.1,
        began=1000.0,
        sent_chunks=plan.session_chunks,
        finished=True,
        texts=[word.text for word in words],
        arrivals=array("d", [end + 0.4 + number / 1000 for number, end in enumerate(ends, start=1)]),
    )
    scorer = Scorer(plan, LOUD_THEN_QUIET, expected, start=1000.0)
    scorer.add(record)
    result = figures(plan, LOUD_THEN_QUIET, expected, scorer.outcome(cpu_seconds=0.0))
    assert result["word_delay_count"] == result["added_count"] == 98
    for percent, number in ((50, 50), (95, 96), (99, 100)):  # without the 26th and the 75th
        assert result[f"word_delay_ms_p{percent}"] == pytest.approx(400 + number, abs=0.1)
    assert result["added_ms_p50"] == pytest.approx(50, abs=0.1)
    assert result["handshake_ms_p50"] == pytest.approx(100, abs=0.1)
    assert result["lag_from"] == "words"
    assert result["flush_ms_p99"] is None


def test_percentiles_are_nearest_ranks() -> None:
    seconds = np.arange(1, 101, dtype=np.float32) / 1000
    assert [milliseconds(seconds, percent) for percent in (50, 95, 99, 100)] == [50.0, 95.0, 99.0, 100.0]


def test_start_offsets_depend_on_the_seed() -> None:
    plan = LoadSpec("ws://x", streams=100)
    offsets = start_offsets(plan)
    assert offsets == start_offsets(plan) != start_offsets(replace(plan, seed=1))
    assert offsets == sorted(offsets)
    assert 0 <= offsets[0] < offsets[-1] < plan.ramp == 2.0
    assert np.std([offset % 0.08 for offset in offsets]) > 0.015


def test_flushes_are_at_quiet_moments() -> None:
    points = LOUD_THEN_QUIET.flush_points(1.6, 100)
    assert len(points) == 4
    assert all(point % 10 == 0 for point in points)
    assert not LOUD_THEN_QUIET.flush_points(0, 100)
