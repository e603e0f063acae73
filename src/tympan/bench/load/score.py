"""Comparison of what arrived with what was expected: missing, repeated and changed words, and delays.

Words are compared as sequences (`difflib`), so they need no identity. Between the longest common blocks, words are
**changed** as far as both sides have some, **lost** if only the expectation has them, and **repeated** if only the
session has them.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field, fields
from difflib import SequenceMatcher

import numpy as np
import numpy.typing as npt

from tympan.bench.load.caller import Record
from tympan.bench.load.expected import Expected
from tympan.bench.load.spec import LoadSpec
from tympan.bench.load.speech import Speech

Floats = npt.NDArray[np.float64]
Indices = npt.NDArray[np.int64]

STEADY = ("word_delay", "added", "flush", "lag", "late")
"""Series of which only values that were due while all streams were open count. A value is placed by when it was due:
placed by its arrival, a slow server's late values would not count."""
RARE = ("handshake", "first_word", "finish")
"""Series of which all values count."""


@dataclass(frozen=True)
class Comparison:
    """Differences between two sequences of words; `pairs` `[n, 2]` has the positions of equal words in both."""

    lost: int
    repeated: int
    changed: int
    pairs: Indices


def compare(expected: Sequence[str], received: Sequence[str], due: int | None = None) -> Comparison:
    """Compare two sequences of words.

    Args:
        expected: The expected words.
        received: The words of a session.
        due: Number of expected words to judge, for a session that was cut short: later ones may be there or not.
    """
    judged = len(expected) + 1 if due is None else due
    if list(expected) == list(received):
        return Comparison(0, 0, 0, np.repeat(np.arange(len(received))[:, None], 2, axis=1))
    lost = repeated = changed = 0
    pairs: list[Indices] = [np.empty((0, 2), np.int64)]
    matcher = SequenceMatcher(None, expected, received, autojunk=False)
    for kind, first, last, received_first, received_last in matcher.get_opcodes():
        if kind == "equal":
            pairs.append(np.stack((np.arange(first, last), np.arange(received_first, received_last)), axis=1))
            continue
        both = min(last - first, received_last - received_first)
        repeated += received_last - received_first - both if first < judged else 0
        changed += max(0, min(first + both, judged) - first)
        lost += max(0, min(last, judged) - (first + both))
    return Comparison(lost, repeated, changed, np.concatenate(pairs))


def plain_words(text: str) -> list[str]:
    """Return the words in lower case, without punctuation, as a word error rate counts them."""
    return re.findall(r"\w+(?:'\w+)*", text.lower().replace("’", "'"))


def word_errors(reference: Sequence[str], received: Sequence[str]) -> int:
    """Return the edit distance in words: insertions, deletions and substitutions."""
    above = list(range(len(received) + 1))
    for row, word in enumerate(reference, start=1):
        left, line = row, [row]
        for column, other in enumerate(received, start=1):
            left = min(above[column] + 1, left + 1, above[column - 1] + (word != other))
            line.append(left)
        above = line
    return above[-1]


@dataclass
class Outcome:
    """The result of some streams.

    Attributes:
        said_words: Words of the text in whole passes through the audio; `word_errors` are counted against them.
        errors: Sessions that did not end well, by kind.
        details: One server message for each kind of error.
        series: Float32 `[n, 2]` by name: a moment in seconds since the start, and a duration in seconds.
    """

    sessions: int = 0
    expected_words: int = 0
    words: int = 0
    lost: int = 0
    repeated: int = 0
    changed: int = 0
    said_words: int = 0
    word_errors: int = 0
    audio_seconds: float = 0.0
    cpu_seconds: float = 0.0
    errors: Counter[str] = field(default_factory=Counter)
    details: dict[str, str] = field(default_factory=dict)
    series: dict[str, npt.NDArray[np.float32]] = field(default_factory=dict)

    def merge(self, other: Outcome) -> None:
        """Add the outcome of another process."""
        for count in fields(self):
            if count.name not in ("details", "series"):
                setattr(self, count.name, getattr(self, count.name) + getattr(other, count.name))
        self.details = other.details | self.details
        for name, rows in other.series.items():
            self.series[name] = np.concatenate((self.series[name], rows)) if name in self.series else rows


class Scorer:
    """Accumulates the records of sessions into an `Outcome`."""

    def __init__(self, spec: LoadSpec, speech: Speech, expected: Expected, start: float) -> None:
        self._spec = spec
        self._speech = speech
        self._expected = expected
        self._start = start
        self._flush_times = np.sort([*speech.flush_points(spec.flush_every, spec.session_chunks)]) * spec.chunk_seconds
        self._series: dict[str, list[Floats]] = {name: [] for name in (*STEADY, *RARE)}
        self._word_errors_cache: dict[tuple[int, tuple[str, ...]], int] = {}
        self._outcome = Outcome()

    def add(self, record: Record) -> None:
        outcome = self._outcome
        outcome.sessions += 1
        if record.error is not None:
            outcome.errors[record.error] += 1
            outcome.details.setdefault(record.error, record.detail)
        if record.handshake_seconds is None:
            return
        sent = record.sent_chunks * self._spec.chunk_seconds
        outcome.audio_seconds += sent
        possible, due = self._word_counts(record, sent)
        compared = compare(self._expected.texts[:possible], record.texts, due)
        outcome.expected_words += possible if due is None else due
        outcome.words += len(record.texts)
        outcome.lost += compared.lost
        outcome.repeated += compared.repeated
        outcome.changed += compared.changed
        if record.finished:
            self._count_word_errors(sent, record.texts, compared.pairs)
        self._add_delays(record, compared.pairs, sent)

    def _word_counts(self, record: Record, sent: float) -> tuple[int, int | None]:
        """Return how many of the expected words the session may have, and how many it must have (None for all)."""
        expected = self._expected
        if record.finished and record.sent_chunks == self._spec.session_chunks:
            return len(expected.texts), None
        possible = int((expected.starts < sent - 1e-6).sum())
        return possible, min(possible, int((expected.released < sent - expected.held_seconds + 1e-6).sum()))

    def _count_word_errors(self, sent: float, received: list[str], pairs: Indices) -> None:
        """Count the errors against the text, in the whole passes through the audio."""
        passes = int(sent / self._speech.seconds + 1e-6)
        if self._speech.text is None or not passes:
            return
        within = int((self._expected.ends < passes * self._speech.seconds + 1e-6).sum())
        beyond = pairs[pairs[:, 0] >= within, 1]
        key = (passes, tuple(received[: int(beyond[0]) if len(beyond) else len(received)]))
        said = plain_words(self._speech.text) * passes
        if key not in self._word_errors_cache:
            self._word_errors_cache[key] = word_errors(said, plain_words(" ".join(key[1])))
        self._outcome.said_words += len(said)
        self._outcome.word_errors += self._word_errors_cache[key]

    def _add_delays(self, record: Record, pairs: Indices, sent: float) -> None:
        arrivals = np.array(record.arrivals, np.float64)
        regular = pairs[~self._released_early(sent)[pairs[:, 0]]]
        words, arrived = regular[:, 0], arrivals[regular[:, 1]]
        for name, positions in (("word_delay", self._expected.ends), ("added", self._expected.released)):
            moments = self._due_time(record, positions[words])
            self._append(name, moments, arrived - moments)
        self._append("first_word", arrivals[:1], arrivals[:1] - record.began)
        self._append("handshake", [record.dialled], [record.handshake_seconds or 0.0])
        self._append("flush", [at for at, _ in record.flushes], [seconds for _, seconds in record.flushes])
        self._append("lag", [at for at, _ in record.lags], [seconds for _, seconds in record.lags])
        chunks = np.arange(1, len(record.late_seconds) + 1)
        self._append("late", record.began + chunks * self._spec.chunk_seconds, record.late_seconds)
        if record.finish_seconds is not None:
            self._append("finish", [record.began], [record.finish_seconds])

    def _released_early(self, sent: float) -> npt.NDArray[np.bool_]:
        """Return which words a flush or the end releases before the model would: those that it interrupts."""
        flushes = np.append(self._flush_times[self._flush_times < sent], sent)
        following = flushes[np.minimum(np.searchsorted(flushes, self._expected.starts + 1e-6), len(flushes) - 1)]
        early: npt.NDArray[np.bool_] = self._expected.released > following - 1e-6
        return early

    def _due_time(self, record: Record, positions: Floats) -> Floats:
        """Return when the last sample before each position (seconds of audio) was due to be sent."""
        chunk = self._spec.chunk_seconds
        return record.began + chunk * np.ceil(positions / chunk - 1e-6)

    def _append(self, name: str, at: npt.ArrayLike, seconds: npt.ArrayLike) -> None:
        rows = np.stack((np.asarray(at, np.float64) - self._start, np.asarray(seconds, np.float64)), axis=1)
        if name in STEADY:
            begin = self._spec.ramp
            rows = rows[(rows[:, 0] >= begin) & (rows[:, 0] <= begin + self._spec.seconds)]
        self._series[name].append(rows)

    def outcome(self, cpu_seconds: float) -> Outcome:
        """Return the outcome; ``cpu_seconds`` is the CPU time that the streams took."""
        self._outcome.cpu_seconds = cpu_seconds
        self._outcome.series = {
            name: np.concatenate([np.empty((0, 2)), *rows]).astype(np.float32) for name, rows in self._series.items()
        }
        return self._outcome
