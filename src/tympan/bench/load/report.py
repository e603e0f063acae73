"""The figures of a load, as JSON values and as a table."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from tympan.bench.load.expected import Expected
from tympan.bench.load.score import Outcome, plain_words, word_errors
from tympan.bench.load.spec import LoadSpec
from tympan.bench.load.speech import Speech
from tympan.bench.load.workers import process_count

PERCENTS: Final = (50, 95, 99)
TITLES: Final[Mapping[str, str]] = {
    "handshake": "handshake",
    "first_word": "first word",
    "word_delay": "word delay",
    "added": "added delay",
    "flush": "flush",
    "finish": "end",
    "lag": "lag",
    "late": "sent late",
}
LATE_MS: Final = 20.0

Figures = dict[str, Any]


def figures(spec: LoadSpec, speech: Speech, expected: Expected, outcome: Outcome) -> Figures:
    """Return all figures as JSON values: times in milliseconds, None for what was not measured."""
    series = dict(outcome.series)
    lag_from = "server" if len(series["lag"]) else "words"
    if lag_from == "words":
        series["lag"] = series["added"]
    result: Figures = {
        "url": spec.base_url,
        "model": expected.model,
        "protocol": spec.protocol,
        "streams": spec.streams,
        "seconds": spec.seconds,
        "ramp_seconds": spec.ramp,
        "session_seconds": round(spec.session_chunks * spec.chunk_seconds, 3),
        "flush_every": spec.flush_every,
        "chunk_ms": spec.chunk_ms,
        "seed": spec.seed,
        "processes": process_count(spec.streams),
        "sessions": outcome.sessions,
        "audio_seconds": round(outcome.audio_seconds, 1),
        "expected_words": outcome.expected_words,
        "words": outcome.words,
        "lost": outcome.lost,
        "repeated": outcome.repeated,
        "changed": outcome.changed,
        "errors": outcome.errors.total(),
        "error_kinds": dict(outcome.errors),
        "error_details": {kind: detail for kind, detail in outcome.details.items() if detail},
        **_error_rates(spec, speech, expected, outcome),
        "lag_from": lag_from,
    }
    for name in TITLES:
        seconds = series[name][:, 1]
        result |= {f"{name}_ms_p{percent}": milliseconds(seconds, percent) for percent in PERCENTS}
        result[f"{name}_ms_max"] = milliseconds(seconds, 100)
        result[f"{name}_count"] = len(seconds)
    cpu = 1000 * outcome.cpu_seconds / max(outcome.audio_seconds, 1e-9)
    result["client_cpu_ms_per_stream_second"] = round(cpu, 3)
    return result


def _error_rates(spec: LoadSpec, speech: Speech, expected: Expected, outcome: Outcome) -> Figures:
    """Return the word error rate against the text, if there is one, else against the expected words.

    `reference_wer` is that of the stream that ran alone.
    """
    if speech.text is None:
        wrong = outcome.lost + outcome.repeated + outcome.changed
        against = "script" if expected.model == "scripted" else "reference"
        wer = round(wrong / outcome.expected_words, 4) if outcome.expected_words else None
        return {"wer": wer, "wer_against": against, "reference_wer": None}
    passes = int(spec.session_chunks * spec.chunk_seconds / speech.seconds + 1e-6)
    within = int((expected.ends < passes * speech.seconds + 1e-6).sum())
    said = plain_words(speech.text) * passes
    alone = word_errors(said, plain_words(" ".join(expected.texts[:within])))
    return {
        "wer": round(outcome.word_errors / outcome.said_words, 4) if outcome.said_words else None,
        "wer_against": "text",
        "reference_wer": round(alone / len(said), 4) if said else None,
    }


def milliseconds(seconds: npt.NDArray[np.float32], percent: float) -> float | None:
    """Return the nearest-rank percentile of ``seconds`` in milliseconds; None if there are none."""
    if not len(seconds):
        return None
    return round(1000 * float(np.percentile(seconds, percent, method="inverted_cdf")), 2)


def table(result: Figures) -> str:
    """Return the figures as a table for a terminal."""
    header = "".join(f"{title:>11}" for title in (*(f"p{percent}" for percent in PERCENTS), "max", "count"))
    lines = [headline(result), verdict(result), f"{'milliseconds':<14}{header}"]
    for name, title in TITLES.items():
        if not result[f"{name}_count"]:
            continue
        values = [result[f"{name}_ms_p{percent}"] for percent in PERCENTS] + [result[f"{name}_ms_max"]]
        cells = "".join(f"{value:>11.1f}" for value in values)
        lines.append(f"{title:<14}{cells}{result[f'{name}_count']:>11,}")
    details = {kind: f" ({detail})" for kind, detail in result["error_details"].items()}
    lines += [f"  {kind}: {count}{details.get(kind, '')}" for kind, count in result["error_kinds"].items()]
    lines.append(f"load generator: {result['client_cpu_ms_per_stream_second']} ms of CPU per stream and second")
    if (result["late_ms_p99"] or 0.0) > LATE_MS:
        lines.append("the load generator sent audio late, so delays include its own: run it on a less busy machine")
    return "\n".join(lines)


def headline(result: Figures) -> str:
    return (
        f"{result['streams']:,} streams of {result['model']} at {result['url']} ({result['protocol']}), all "
        f"open for {result['seconds']:g} s, {result['chunk_ms']} ms per message"
    )


def verdict(result: Figures) -> str:
    wer = "-" if result["wer"] is None else f"{result['wer']:.4f}"
    alone = "" if result["reference_wer"] is None else f", {result['reference_wer']:.4f} for one stream alone"
    return (
        f"{result['expected_words']:,} words: {result['lost']} lost, {result['repeated']} repeated, "
        f"{result['changed']} changed; {result['errors']} errors in {result['sessions']:,} sessions; word error rate "
        f"{wer} (against the {result['wer_against']}{alone})"
    )
