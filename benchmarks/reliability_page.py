"""The text of docs/reliability.md, made from the kept results only."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

Result = Mapping[str, Any]

HEAD = """# Reliability

Load, fault and fuzz tests of the service, with their results. One command runs all of them and writes this page
from the files in `benchmarks/results/reliability`:

```sh
python benchmarks/reliability.py             # --render only writes the page from the kept files
```
"""

FAULT_NOTES = """
The longest time without a word is the longest that any client waited, counted from its last word before the fault.
Without a fault, words are 0.4 s apart.

Clients send **marks** through the SDK at the pace of speech. A mark is 80 ms of a constant level that encodes the
stream and the number of the word, so the words are a function of the audio, in whichever session it arrives. The
server is a separate process under a supervisor that restarts it. Everything is real except for the model: a batched
engine whose runner decodes marks, or the embedded engine with a stand-in for faster-whisper.

- *Killed* processes get SIGKILL. The SDK opens new sessions on the next process and sends the audio that gave no
  words again. A killed client frees its slots at once, or, if its stream is resumable, one second after
  `resume_seconds` (2 in the test).
- *Hung* processes are stopped with SIGSTOP, killed after `engine_seconds` (2 in the test) and restarted. A thread
  that hangs in native code cannot be killed: the server closes the streams with an error and exits with code 1.
- *Packets dropped*: the link between two network namespaces is down.
- *Gone for good*: no packet passes on the old connections, and neither side closes them. The SDK sends a ping after
  `QUIET_SECONDS` (1 in the test instead of 20) and waits as long for the answer.
- *Out of memory*: a step allocates more memory than there is and raises. Every stream gets 1011, the engine is
  created again, and the SDK continues. A *start* that runs out of memory prints one error message and exits with
  code 2.
- *Disk full*: eight streams are recorded on a file system of 1 MiB, which is full within seconds. Recording stops
  with one line in the log, the server stays ready, and it records again when there is room.
- *Clock*: the server's wall clock jumps an hour ahead, then two hours back (in its process only).

Each mark spans two messages, so that a server that receives SIGTERM has words that are cut in two. It announces its
last words with `restarting`; the SDK discards them, and the next server receives the whole word.
"""


def load(figures: Result) -> str:
    delays = [shown([figures[f"{name}_ms_p{percent}"] for percent in (50, 95, 99)]) for name in ("added", "flush")]
    wrong = f"{figures['lost']} lost, {figures['repeated']} repeated, {figures['changed']} changed"
    broke = f"{figures['errors'] or 'no'} session{'s' if figures['errors'] > 1 else ''} broke"
    rows = {
        "words": f"{figures['words']:,}: {wrong}; {broke}",
        "memory of the server, first and last tenth of the time": (
            f"{figures['server_mib_first']} and {figures['server_mib_last']} MiB"
        ),
        "added to the model's own delay, p50 / p95 / p99": f"{delays[0]} ms",
        "flush to answer, p50 / p95 / p99": f"{delays[1]} ms",
        "CPU of the server / of the clients, per second of a stream": (
            f"{figures['server_cpu_ms_per_stream_second']} / {figures['client_cpu_ms_per_stream_second']} ms"
        ),
    }
    title = f"{figures['streams']} live streams for {figures['seconds']:g} s, native protocol, scripted engine"
    others = f"Other programs used {figures['others_cores']} cores meanwhile. When they use more, words arrive later."
    return f"{table([title, ''], rows.items())}\n\n{others}"


def front(figures: Result) -> str:
    milliseconds = figures["ms_per_stream_second"]
    return (
        f"{milliseconds['tympan']} ms of CPU per second of a stream, {figures['ratio']} times a bare FastAPI handler "
        f"that only receives ({milliseconds['bare']} ms); {figures['streams']} streams."
    )


def faults(figures: Result) -> str:
    lines = [line for line in figures["lines"] if "fault" in line]
    columns = ("fault", "streams", "words", "lost", "repeated", "errors", "seconds_without_words")
    heads = [*columns[:-1], "longest time without a word, s"]
    rows = [[shown(line[name]) for name in columns] for line in lines]
    skipped = f" {figures['skipped']} were skipped here." if figures["skipped"] else ""
    return f"{table(heads, rows)}\n\n{figures['passed']} tests passed.{skipped}\n{FAULT_NOTES}".rstrip()


def fuzz(figures: Result) -> str:
    counts = ", ".join(f"{name} {count:,}" for name, count in figures["frames"].items())
    return (
        f"Generated frames of every protocol, against the real connection, session and engine: {counts}. Invalid input "
        "never causes an internal error: each connection ends with a documented close code, its slots are freed, and "
        "no internal error is logged."
    )


def abuse(figures: Result) -> str:
    return (
        "Frames on raw sockets, generated requests to every HTTP route, half-open connections, slow headers and "
        "decompression bombs in uploads, while the stream of another client continues undisturbed: "
        f"{figures['passed']} tests passed."
    )


def hostile(figures: Result) -> str:
    (line,) = (each for each in figures["lines"] if "files" in each)
    ends = ", ".join(f"{end}: {count}" for end, count in line["ends"].items())
    return (
        f"{line['files']:,} generated containers (FLAC, Ogg, MP4, WebM, MP3, WAV, AAC, AIFF: tags, tracks, tables, "
        "nesting, lengths that lie, boxes that do not end, flipped and spliced bytes) through uploads and live "
        f"streams: no crash, no connection left, {line['grown']:.2f} times the memory, longest time without an answer "
        f"to a ping {line['stall_ms']} ms (ends: {ends}). With the tests of costly messages, floods of flushes, "
        f"half-sent forms and idle sockets, {figures['passed']} tests passed."
    )


def churn(figures: Result) -> str:
    ends = ", ".join(f"{end} {count:,}" for end, count in figures["ended"].items())
    attacks = ", ".join(f"{attack.replace('_', ' ')} {count:,}" for attack, count in figures["attacks"].items())
    left = {name: value for name, value in figures["gauges"].items() if value}
    rows = {
        "streams, by end": ends,
        "attacks": attacks,
        "memory of all processes, first and last fifth of the time after the first 10 minutes": (
            f"{figures['memory_first_mib']} and {figures['memory_last_mib']} MiB"
        ),
        "memory after the end": f"{figures['memory_after_mib']} MiB",
        "gauges after the end": "all zero" if not left else str(left),
        "time to answer a ping, 99.9th percentile and longest": (
            f"{figures['stall_p999_ms']} and {figures['longest_stall_ms']} ms"
        ),
    }
    minutes = round(figures["seconds"] / 60)
    head = f"{figures['streams']} clients and {figures['attackers']} attackers for {minutes} min, `{figures['model']}`"
    return table([head, ""], rows.items())


def connections(figures: Result) -> str:
    return (
        "A proxy cuts connections at random moments, within a message, during a flush and after the end. Every word "
        f"arrives once, with its time: {figures['passed']} tests passed. `tests/browser/test_page.py` does the same "
        "with the page in Chromium. [How clients resume](protocols/native.md#when-the-connection-is-lost)."
    )


def day(figures: Result) -> str:
    (line,) = figures["lines"]
    return (
        f"{line['hours']} hours of 8 kHz telephone audio through decoder, resampler, session, scheduler and words, in "
        f"simulated time, with {line['flushes']} flushes. The clock of the stream matches the frames to the end, all "
        f"{line['words']:,} words are in their places, and memory grows by {line['grown_mib']} MiB after the first "
        "hour. Two hours through the real engine in a busy batch equal the same two hours alone "
        "(`tests/engine/test_two_hours.py`)."
    )


SECTIONS: Mapping[str, tuple[str, Callable[[Result], str]]] = {
    "load": ("Load", load),
    "front": ("CPU time of the server without its model", front),
    "faults": ("Faults", faults),
    "connections": ("Lost connections", connections),
    "fuzz": ("Fuzzing", fuzz),
    "abuse": ("Abuse", abuse),
    "hostile": ("Hostile files and messages", hostile),
    "churn": ("Churn", churn),
    "churn_model": ("Churn with a model", churn),
    "day": ("A day of audio on one stream", day),
}


def page(results: Mapping[str, Result], commands: Mapping[str, str]) -> str:
    """Return the page for the kept `results`; `commands` measure the sections that have no result yet."""
    parts = [HEAD]
    for name, (title, text) in SECTIONS.items():
        result = results.get(name)
        command = commands[name] if result is None else result["command"]
        parts.append(f"## {title}\n\n```sh\n{command}\n```\n\n{_body(result, text)}\n")
    return "\n".join(parts)


def _body(result: Result | None, text: Callable[[Result], str]) -> str:
    if result is None:
        return "Not measured yet."
    if "figures" not in result:
        return f"**The last run failed** ({result['date']}, commit `{result['commit']}`)."
    versions = ", ".join(f"{name} {number}" for name, number in result["versions"].items())
    facts = [result["machine"], f"{result['date']}, commit `{result['commit']}`", versions]
    if result["took_seconds"] is not None:
        facts.append(f"took {result['took_seconds']:g} s")
    return f"{text(result['figures'])}\n\n*{'; '.join(facts)}.*"


def table(heads: list[str], rows: Any) -> str:
    lines = [heads, ["---"] * len(heads), *rows]
    return "\n".join("| " + " | ".join(cells) + " |" for cells in lines)


def shown(value: object) -> str:
    if isinstance(value, list):
        return " / ".join("–" if each is None else f"{each:g}" for each in value)
    if value is None:
        return "–"
    return f"{value:,}" if isinstance(value, int) else str(value)
