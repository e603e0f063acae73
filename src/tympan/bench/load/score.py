"""Arrivals against expectations: which words are missing, which came twice, and how late the others were.

Words are compared as a sequence, so no word has to say which one it is. Of the longest common blocks (`difflib`), what
lies between them is **changed** (as many other words), **lost** (expected, not there) or **repeated** (there, not
expected at that place: said twice, or never said).
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field, fields
from difflib import SequenceMatcher

import numpy as np
import numpy.typing as npt

from tympan.bench.load.expected import Expected
from tympan.bench.load.plan import Plan
from tympan.bench.load.session import Record
from tympan.bench.load.speech import Speech

Floats = npt.NDArray[np.float64]
Indices = npt.NDArray[np.int64]

STEADY = ("word_delay", "added", "flush", "lag", "late")
"""Series of which only what was due while all streams were open counts: by when it was due, or a server that is behind
would be spared what it tells too late. The others are rare: all of them count."""
RARE = ("handshake", "first_word", "finish")


@dataclass(frozen=True)
class Comparison:
    """`pairs` `[n, 2]`: positions of the same word in what was expected and in what was heard."""

    lost: int
    repeated: int
    changed: int
    pairs: Indices


def compare(expected: Sequence[str], heard: Sequence[str], due: int | None = None) -> Comparison:
    """With `due`, only so many words are judged: where a session was cut short, others may come after them or not."""
    judged = len(expected) + 1 if due is None else due
    if list(expected) == list(heard):
        return Comparison(0, 0, 0, np.repeat(np.arange(len(heard))[:, None], 2, axis=1))
    lost = repeated = changed = 0
    pairs: list[Indices] = [np.empty((0, 2), np.int64)]
    matcher = SequenceMatcher(None, expected, heard, autojunk=False)
    for kind, first, last, heard_first, heard_last in matcher.get_opcodes():
        if kind == "equal":
            pairs.append(np.stack((np.arange(first, last), np.arange(heard_first, heard_last)), axis=1))
            continue
        both = min(last - first, heard_last - heard_first)
        repeated += heard_last - heard_first - both if first < judged else 0
        changed += max(0, min(first + both, judged) - first)
        lost += max(0, min(last, judged) - (first + both))
    return Comparison(lost, repeated, changed, np.concatenate(pairs))


def plain_words(text: str) -> list[str]:
    """Words in lower case, without punctuation: what an error rate counts."""
    return re.findall(r"\w+(?:'\w+)*", text.lower().replace("’", "'"))


def word_errors(said: Sequence[str], heard: Sequence[str]) -> int:
    """The fewest words to insert, leave out or change that make one of the other."""
    above = list(range(len(heard) + 1))
    for row, word in enumerate(said, start=1):
        left, line = row, [row]
        for column, other in enumerate(heard, start=1):
            left = min(above[column] + 1, left + 1, above[column - 1] + (word != other))
            line.append(left)
        above = line
    return above[-1]


@dataclass
class Outcome:
    """What some streams came to; `merge` adds those of another process.

    `series`: float32 `[n, 2]` by name, each row a moment (seconds since the start) and what was measured (seconds).
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
        for count in fields(self):
            if count.name not in ("details", "series"):
                setattr(self, count.name, getattr(self, count.name) + getattr(other, count.name))
        self.details = other.details | self.details
        for name, rows in other.series.items():
            self.series[name] = np.concatenate((self.series[name], rows)) if name in self.series else rows


class Scorer:
    """Takes the records of sessions one by one."""

    def __init__(self, plan: Plan, speech: Speech, expected: Expected, start: float) -> None:
        self._plan = plan
        self._speech = speech
        self._expected = expected
        self._start = start
        self._flushed_at = np.sort([*speech.flush_points(plan.flush_every, plan.session_chunks)]) * plan.chunk_seconds
        self._rows: dict[str, list[Floats]] = {name: [] for name in (*STEADY, *RARE)}
        self._errors_of: dict[tuple[int, tuple[str, ...]], int] = {}
        self._outcome = Outcome()

    def add(self, record: Record) -> None:
        outcome = self._outcome
        outcome.sessions += 1
        if record.error is not None:
            outcome.errors[record.error] += 1
            outcome.details.setdefault(record.error, record.detail)
        if record.handshake_seconds is None:
            return
        sent = record.sent_chunks * self._plan.chunk_seconds
        outcome.audio_seconds += sent
        possible, due = self._words_in(record, sent)
        compared = compare(self._expected.texts[:possible], record.texts, due)
        outcome.expected_words += possible if due is None else due
        outcome.words += len(record.texts)
        outcome.lost += compared.lost
        outcome.repeated += compared.repeated
        outcome.changed += compared.changed
        if record.finished:
            self._count_word_errors(sent, record.texts, compared.pairs)
        self._time(record, compared.pairs, sent)

    def _words_in(self, record: Record, sent: float) -> tuple[int, int | None]:
        """How many of the expected words this session may have; how many it must have, where that is not all."""
        expected = self._expected
        if record.finished and record.sent_chunks == self._plan.session_chunks:
            return len(expected.texts), None
        possible = int((expected.starts < sent - 1e-6).sum())
        return possible, min(possible, int((expected.released < sent - expected.held_seconds + 1e-6).sum()))

    def _count_word_errors(self, sent: float, heard: list[str], pairs: Indices) -> None:
        """Against the text, in the passes through the audio that were whole."""
        passes = int(sent / self._speech.seconds + 1e-6)
        if self._speech.text is None or not passes:
            return
        within = int((self._expected.ends < passes * self._speech.seconds + 1e-6).sum())
        beyond = pairs[pairs[:, 0] >= within, 1]
        key = (passes, tuple(heard[: int(beyond[0]) if len(beyond) else len(heard)]))
        said = plain_words(self._speech.text) * passes
        if key not in self._errors_of:
            self._errors_of[key] = word_errors(said, plain_words(" ".join(key[1])))
        self._outcome.said_words += len(said)
        self._outcome.word_errors += self._errors_of[key]

    def _time(self, record: Record, pairs: Indices, sent: float) -> None:
        arrivals = np.array(record.arrivals, np.float64)
        usual = pairs[~self._hastened(sent)[pairs[:, 0]]]
        due, came = usual[:, 0], arrivals[usual[:, 1]]
        for name, positions in (("word_delay", self._expected.ends), ("added", self._expected.released)):
            moments = self._sent_at(record, positions[due])
            self._note(name, moments, came - moments)
        self._note("first_word", arrivals[:1], arrivals[:1] - record.began)
        self._note("handshake", [record.dialled], [record.handshake_seconds or 0.0])
        self._note("flush", [at for at, _ in record.flushes], [seconds for _, seconds in record.flushes])
        self._note("lag", [at for at, _ in record.lags], [seconds for _, seconds in record.lags])
        chunks = np.arange(1, len(record.late_seconds) + 1)
        self._note("late", record.began + chunks * self._plan.chunk_seconds, record.late_seconds)
        if record.finish_seconds is not None:
            self._note("finish", [record.began], [record.finish_seconds])

    def _hastened(self, sent: float) -> npt.NDArray[np.bool_]:
        """Words that a flush or the end brings out before the model would: begun before it, to be released after it."""
        flushes = np.append(self._flushed_at[self._flushed_at < sent], sent)
        following = flushes[np.minimum(np.searchsorted(flushes, self._expected.starts + 1e-6), len(flushes) - 1)]
        hastened: npt.NDArray[np.bool_] = self._expected.released > following - 1e-6
        return hastened

    def _sent_at(self, record: Record, positions: Floats) -> Floats:
        """When the last sample before each position (seconds of audio) was due to be sent."""
        chunk = self._plan.chunk_seconds
        return record.began + chunk * np.ceil(positions / chunk - 1e-6)

    def _note(self, name: str, at: npt.ArrayLike, seconds: npt.ArrayLike) -> None:
        rows = np.stack((np.asarray(at, np.float64) - self._start, np.asarray(seconds, np.float64)), axis=1)
        if name in STEADY:
            begin = self._plan.ramp
            rows = rows[(rows[:, 0] >= begin) & (rows[:, 0] <= begin + self._plan.seconds)]
        self._rows[name].append(rows)

    def outcome(self, cpu_seconds: float) -> Outcome:
        self._outcome.cpu_seconds = cpu_seconds
        self._outcome.series = {
            name: np.concatenate([np.empty((0, 2)), *rows]).astype(np.float32) for name, rows in self._rows.items()
        }
        return self._outcome
