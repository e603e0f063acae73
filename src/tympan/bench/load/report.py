"""What a load came to: figures for programs, a table for people."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from tympan.bench.load.expected import Expected
from tympan.bench.load.plan import Plan
from tympan.bench.load.score import Outcome, plain_words, word_errors
from tympan.bench.load.speech import Speech
from tympan.bench.load.workers import processes_for

PERCENTS: Final = (50, 95, 99)
TITLES: Final[Mapping[str, str]] = {
    "handshake": "handshake",
    "first_word": "first word",
    "word_delay": "word delay",
    "added": "of it added",
    "flush": "flush",
    "finish": "end",
    "lag": "lag",
    "late": "sent late",
}
LATE_MS: Final = 20.0

Figures = dict[str, Any]


def figures(plan: Plan, speech: Speech, expected: Expected, outcome: Outcome) -> Figures:
    """Everything as JSON's types; times in milliseconds, None where nothing was measured."""
    series = dict(outcome.series)
    lag_from = "server" if len(series["lag"]) else "words"
    if lag_from == "words":
        series["lag"] = series["added"]
    result: Figures = {
        "url": plan.base_url,
        "model": expected.model,
        "protocol": plan.protocol,
        "streams": plan.streams,
        "seconds": plan.seconds,
        "ramp_seconds": plan.ramp,
        "session_seconds": round(plan.session_chunks * plan.chunk_seconds, 3),
        "flush_every": plan.flush_every,
        "chunk_ms": plan.chunk_ms,
        "seed": plan.seed,
        "processes": processes_for(plan.streams),
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
        **_error_rates(plan, speech, expected, outcome),
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


def _error_rates(plan: Plan, speech: Speech, expected: Expected, outcome: Outcome) -> Figures:
    """Against the text if there is one (`reference_wer`: of one stream alone), else against what was expected."""
    if speech.text is None:
        wrong = outcome.lost + outcome.repeated + outcome.changed
        against = "script" if expected.model == "scripted" else "reference"
        wer = round(wrong / outcome.expected_words, 4) if outcome.expected_words else None
        return {"wer": wer, "wer_against": against, "reference_wer": None}
    passes = int(plan.session_chunks * plan.chunk_seconds / speech.seconds + 1e-6)
    within = int((expected.ends < passes * speech.seconds + 1e-6).sum())
    said = plain_words(speech.text) * passes
    alone = word_errors(said, plain_words(" ".join(expected.texts[:within])))
    return {
        "wer": round(outcome.word_errors / outcome.said_words, 4) if outcome.said_words else None,
        "wer_against": "text",
        "reference_wer": round(alone / len(said), 4) if said else None,
    }


def milliseconds(seconds: npt.NDArray[np.float32], percent: float) -> float | None:
    """The one that `percent` of them do not exceed; None of none."""
    if not len(seconds):
        return None
    return round(1000 * float(np.percentile(seconds, percent, method="inverted_cdf")), 2)


def table(result: Figures) -> str:
    """The same for people."""
    header = "".join(f"{title:>11}" for title in ("", *(f"p{percent}" for percent in PERCENTS), "max", "of"))
    lines = [
        headline(result),
        verdict(result),
        f"{'milliseconds':<14}{header[11:]}",
    ]
    for name, title in TITLES.items():
        if not result[f"{name}_count"]:
            continue
        values = [result[f"{name}_ms_p{percent}"] for percent in PERCENTS] + [result[f"{name}_ms_max"]]
        cells = "".join(f"{value:>11.1f}" for value in values)
        lines.append(f"{title:<14}{cells}{result[f'{name}_count']:>11,}")
    lines += [f"  {kind}: {count}{_detail(result, kind)}" for kind, count in result["error_kinds"].items()]
    lines.append(f"this tool: {result['client_cpu_ms_per_stream_second']} ms of CPU per second of a stream")
    if (result["late_ms_p99"] or 0.0) > LATE_MS:
        lines.append(
            "it sent late itself, and delays hold that too: let it run on another machine, or with less beside it"
        )
    return "\n".join(lines)


def headline(result: Figures) -> str:
    return (
        f"{result['streams']:,} streams of {result['model']} at {result['url']} ({result['protocol']}), all of them "
        f"open for {result['seconds']:g} s, {result['chunk_ms']} ms a message"
    )


def verdict(result: Figures) -> str:
    wer = "-" if result["wer"] is None else f"{result['wer']:.4f}"
    alone = "" if result["reference_wer"] is None else f", {result['reference_wer']:.4f} for one stream alone"
    return (
        f"{result['expected_words']:,} words: {result['lost']} lost, {result['repeated']} repeated, "
        f"{result['changed']} changed; {result['errors']} errors in {result['sessions']:,} sessions; word error rate "
        f"{wer} (against the {result['wer_against']}{alone})"
    )


def _detail(result: Figures, kind: str) -> str:
    detail = result["error_details"].get(kind)
    return f" ({detail})" if detail else ""
