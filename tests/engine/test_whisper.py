"""Whisper tiny.en, streamed: words, times, what is no English, and the model's files. Needs no network."""

from __future__ import annotations

import json
import shutil
from itertools import pairwise
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import soxr
from huggingface_hub import constants
from pytest_audioeval.samples.registry import SampleRegistry
from support.clients import TEXT, speech
from support.listener import hear
from support.speech import clip, word_error_rate

from tympan.config import ModelSettings
from tympan.engine.embedded.engine import EmbeddedEngine
from tympan.engine.embedded.whisper import files
from tympan.engine.embedded.whisper.files import TINY_EN, languages_of, locate_model, verify
from tympan.engine.embedded.whisper.model import Whisper
from tympan.engine.embedded.whisper.recognizer import SAMPLE_RATE, WhisperRecognizer
from tympan.errors import MissingPackageError, ModelError
from tympan.messages import EngineEvent, Partial, Progress, Samples, Word
from tympan.models.cpu import graph

MODEL = "embedded"
FRAME_SAMPLES = 1_280
pytestmark = pytest.mark.timeout(180)  # a busy core takes as long as the speech, and longer

CLIPS = ("counting", "hello_world", "quick_brown_fox")


@pytest.fixture(scope="module")
def recognizer() -> WhisperRecognizer:
    """The recognizer of a worker process, in this one, whose sessions share ONNX Runtime's threads (models/cpu)."""

    class SharedThreads(onnxruntime.SessionOptions):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            self.use_per_session_threads = False

    graph._start_threads()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(onnxruntime, "SessionOptions", SharedThreads)
        return WhisperRecognizer(Whisper(locate_model(MODEL)))


@pytest.fixture(scope="module")
def counting(recognizer: WhisperRecognizer) -> list[EngineEvent]:
    """Return the events of "one two three … ten", which has no pause."""
    return recognize(recognizer, clip("counting").at(SAMPLE_RATE))


def recognize(recognizer: WhisperRecognizer, samples: Samples, waiting: int = 0) -> list[EngineEvent]:
    """Return the events of a whole stream."""
    events = recognizer.reset()
    for pcm in frames(samples):
        events += recognizer.push(pcm, waiting)
    return events + recognizer.flush()


def frames(samples: Samples) -> list[bytes]:
    padded = np.pad(samples, (0, -len(samples) % FRAME_SAMPLES)).reshape(-1, FRAME_SAMPLES)
    return [np.round(np.clip(frame, -1, 1) * 32_767).astype("<i2").tobytes() for frame in padded]


def words_of(events: list[EngineEvent]) -> list[Word]:
    return [event for event in events if isinstance(event, Word)]


def text_of(events: list[EngineEvent]) -> str:
    return " ".join(word.text for word in words_of(events))


@pytest.mark.parametrize("name", CLIPS)
@pytest.mark.parametrize("waiting", [0, 20])
def test_word_error_rate(recognizer: WhisperRecognizer, name: str, waiting: int) -> None:
    events = recognize(recognizer, clip(name).at(SAMPLE_RATE), waiting)
    assert word_error_rate(clip(name).text, text_of(events)) == 0


@pytest.mark.parametrize("offset", [397, 1_003])
def test_cuts_of_frames_change_no_word(recognizer: WhisperRecognizer, offset: int) -> None:
    samples = np.pad(clip("counting").at(SAMPLE_RATE), (offset, 0))
    assert word_error_rate(clip("counting").text, text_of(recognize(recognizer, samples))) == 0


def test_words_are_released_while_the_speaker_talks(counting: list[EngineEvent]) -> None:
    """On the clock of the audio; the time of the decoding, which the machine adds, is not in it."""
    clock, behind = 0.0, []
    for event in counting:
        if isinstance(event, Progress):
            clock = event.time
        elif isinstance(event, Word):
            behind.append(clock - event.end)
    assert behind[0] < 1.2
    assert max(behind) < 1.5


def test_word_times(counting: list[EngineEvent]) -> None:
    """The words of the two halves are on their sides of the breath between them; those beside it have some room.

    A busy machine recognizes fewer windows, in which a word may start some tenths of a second later.
    """
    words = words_of(counting)
    starts = [word.start for word in words]
    assert len(starts) == 10
    assert starts == sorted(starts)
    assert starts[3] < 1.25 < starts[6]
    assert abs(starts[4] - 1.25) < 0.5 > abs(starts[5] - 1.25)
    assert 0.0 <= words[0].start < 0.4
    assert 2.0 < words[-1].end <= 3.0
    assert all(0 <= word.confidence <= 1 for word in words)


def test_partials_are_shown_and_withdrawn(recognizer: WhisperRecognizer) -> None:
    events = recognize(recognizer, clip("hello_world").at(SAMPLE_RATE))
    partials = [event.text for event in events if isinstance(event, Partial)]
    assert "hello" in partials[0].lower()
    assert partials[-1] == ""


@pytest.mark.parametrize("count", [20, 30])
def test_flush_releases_words_at_once(recognizer: WhisperRecognizer, count: int) -> None:
    """After 1.6 s and in the middle of the sentence."""
    events = recognizer.reset()
    for pcm in frames(clip("counting").at(SAMPLE_RATE))[:count]:
        events += recognizer.push(pcm)
    before = len(words_of(events))
    released = [*words_of(events), *words_of(recognizer.flush())]
    assert len(released) > before
    words = " ".join(word.text for word in released).lower().replace(",", "").split()
    assert words[:5] == ["one", "two", "three", "four", "five"]
    assert recognizer.flush() == []


@pytest.mark.parametrize(("count", "waiting"), [(8, 20), (18, 0)])
def test_flush_within_a_word_loses_none(recognizer: WhisperRecognizer, count: int, waiting: int) -> None:
    """As the flush at the end of a turn, which waits behind newer audio if the engine is behind."""
    events = recognizer.reset()
    for index, pcm in enumerate(frames(clip("counting").at(SAMPLE_RATE))):
        events += recognizer.push(pcm, waiting)
        if index == count:
            events += recognizer.flush()
    assert word_error_rate(clip("counting").text, text_of(events + recognizer.flush())) == 0


def test_numbers_at_8_khz(recognizer: WhisperRecognizer) -> None:
    """The model prefers the digits that it must not generate, so it seems to be uncertain of numbers."""
    spoken = soxr.resample(speech(8_000, pause_seconds=1.0), 8_000, SAMPLE_RATE)
    assert word_error_rate(TEXT, text_of(recognize(recognizer, np.asarray(spoken, np.float32)))) <= 0.1


def test_silence_and_noise_give_no_words(recognizer: WhisperRecognizer) -> None:
    random = np.random.default_rng(1)
    times = np.arange(10 * SAMPLE_RATE) / SAMPLE_RATE
    chord = sum(0.1 * np.sin(2 * np.pi * pitch * times) for pitch in (220.0, 277.2, 329.6)) * (1 - times % 0.5)
    for sound in (np.zeros(len(times)), random.normal(0, 0.05, len(times)), chord):
        events = recognize(recognizer, np.asarray(sound, np.float32))
        assert [event for event in events if not isinstance(event, Progress)] == []


@pytest.mark.parametrize("waiting", [0, 20])
def test_french_gives_no_invented_words(recognizer: WhisperRecognizer, waiting: int) -> None:
    names = ("fr_pangrama", "fr_comptage", "fr_bonjour_monde") if waiting else ("fr_comptage",)
    french = np.concatenate([getattr(SampleRegistry(), name).audio_numpy() for name in names])
    assert text_of(recognize(recognizer, french, waiting)) == ""


def test_pauses(recognizer: WhisperRecognizer) -> None:
    """The pause probability is the share of the horizon that was silent, and returns to 0 with speech."""
    spoken, silence = clip("hello_world").at(SAMPLE_RATE), np.zeros(2 * SAMPLE_RATE, np.float32)
    events = recognize(recognizer, np.concatenate([spoken, silence, spoken]))

    pauses = [(event.time, event.pauses) for event in events if isinstance(event, Progress)]
    longest = next(values for time, values in pauses if time > 3.0)
    assert longest[:2] == (1.0, 1.0)
    assert longest[3] < 1.0
    assert min(values[2] for time, values in pauses if time > 3.2) == 0.0
    assert [word.text.lower().strip(".,!") for word in words_of(events)] == ["hello", "world"] * 2
    assert words_of(events)[2].start > 3.1  # the window begins 0.3 s earlier, and the alignment puts the word there


def test_long_speech_without_pause(recognizer: WhisperRecognizer) -> None:
    """A window that becomes too long is shortened without loss or repetition of words."""
    names = ("counting", "quick_brown_fox", "hello_world", "counting", "quick_brown_fox")
    events = recognize(recognizer, np.concatenate([without_silence(clip(name).at(SAMPLE_RATE)) for name in names]), 6)
    said = " ".join(clip(name).text for name in names)
    assert word_error_rate(said, text_of(events)) <= 0.1
    assert all(earlier.end <= later.start for earlier, later in pairwise(words_of(events)))


def without_silence(samples: Samples) -> Samples:
    loud = np.flatnonzero(np.abs(samples) > 0.01)
    return samples[loud[0] : loud[-1]]


async def test_engine_of_a_folder(tmp_path: Path) -> None:
    """Two processes serve a copy of the model, and a stream that waits in the queue has every word."""
    folder = shutil.copytree(locate_model(MODEL), tmp_path / "model")
    engine = EmbeddedEngine(ModelSettings(model=f"whisper:{folder}", max_streams=2))
    assert engine.info.languages == ()
    await engine.start()
    assert (engine.info.engine, engine.info.languages, engine.info.model) == ("whisper", ("en",), f"whisper:{folder}")
    listener = await hear(engine, clip("counting").at(SAMPLE_RATE))
    await engine.stop()
    assert word_error_rate(clip("counting").text, " ".join(word.text for word in listener.words)) == 0


def test_weights_are_verified(tmp_path: Path) -> None:
    verify(locate_model(MODEL) / files.WEIGHTS)
    damaged = tmp_path / files.WEIGHTS
    damaged.write_bytes(b"other weights")
    with pytest.raises(ModelError, match=r"model\.bin is damaged or not Whisper tiny\.en: its SHA-256 is "):
        verify(damaged)


def test_damaged_package_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The package's weights are verified on every start."""
    package = tmp_path / files.WEIGHTS_PACKAGE
    (package / "model").mkdir(parents=True)
    (package / "__init__.py").touch()
    for name in (*files.REQUIRED, files.WEIGHTS):
        (package / "model" / name).write_text("{}")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(ModelError, match="damaged"):
        locate_model(MODEL)


def test_without_the_package_the_hub_is_asked_at_the_pinned_revision(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(files, "WEIGHTS_PACKAGE", "no_such_package")
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(ModelError, match="0d3d19a32d3338f10357c0889762bd8d64bbdeba is not in the local cache"):
        locate_model(MODEL)


def test_names_of_the_embedded_model() -> None:
    assert locate_model("embedded") == locate_model(f"whisper:{TINY_EN}")


@pytest.mark.parametrize("name", ["", "huge", "tiny.de", "base/", "../none"])
def test_unknown_model_lists_what_is_expected(name: str) -> None:
    with pytest.raises(ModelError, match=rf"no model whisper:{name}: expected tiny, base, .* or a folder"):
        locate_model(f"whisper:{name}")


def test_folder_without_a_model(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"has no file config\.json"):
        locate_model(f"whisper:{tmp_path}")


def test_languages(tmp_path: Path) -> None:
    assert languages_of(locate_model(MODEL)) == ("en",)
    texts = {50_257: "endoftext", 50_259: "en", 50_265: "fr", 50_357: "yue", 50_359: "transcribe"}
    tokens = [{"id": number, "content": f"<|{text}|>"} for number, text in texts.items()]
    (tmp_path / "tokenizer.json").write_text(json.dumps({"added_tokens": tokens}))
    assert languages_of(tmp_path) == ("en", "fr", "yue")
    (tmp_path / "tokenizer.json").write_text("[]")
    with pytest.raises(ModelError, match="is not the tokenizer of a Whisper model"):
        languages_of(tmp_path)


def test_missing_package_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(MissingPackageError, match=r"embedded needs the package faster-whisper.*\[embedded\]"):
        EmbeddedEngine(ModelSettings(model=MODEL)).load()
