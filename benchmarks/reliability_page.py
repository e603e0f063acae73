"""The text of docs/reliability.md, from the results that are kept and from nothing else."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

Result = Mapping[str, Any]

HEAD = """# Reliability

What has been tried on the service, with what came of it. All of this page is made by one command, from the files in
`benchmarks/results/reliability`:

```sh
python benchmarks/reliability.py             # measures all of it; --render makes the page alone
```
"""

FAULT_NOTES = """
Callers speak **marks** through the SDK at the pace of speech: 80 ms of one level that says which caller's which word
it is, so that words are a function of the audio, whatever session hears it. The server is a process of its own, under
something that starts it again when it ends. All of it is real but the model: a batched engine whose runner hears
marks, or the embedded engine with a stand-in for PocketSphinx.

- *Killed* is SIGKILL. The SDK opens new sessions on the next process and sends again what brought no words. A client
  that is killed gives its slots back at once; after `resume_seconds` (2 in the test) and a second if it asked for a
  way back.
- *Hung*: a process that is stopped (SIGSTOP) is killed after `engine_seconds` (2 in the test) and started again. A
  thread that hangs in native code cannot be: the streams are told, and the server's process ends with exit code 1.
- *Packets dropped*: the wire between two network namespaces is down. *Gone for good*: nothing passes on the old
  connections, and nobody ends them; the SDK then asks after `QUIET_SECONDS` (1 in the test, in place of 20), and
  waits once more as long.
- *Out of memory*: a step wants more than there is, and raises. Every stream gets 1011, the engine is made anew, the
  SDK goes on. A *start* that runs out of memory is one sentence and exit code 2.
- *Disk full*: eight streams are recorded on a file system of 1 MiB, which is full within seconds. Recording stops with
  one line in the log, the server stays ready, and it records again when there is room.
- *Clock*: the server's wall clock jumps an hour ahead, then two back (in its process; the machine's is left alone).

The longest that a caller was told nothing counts from the last word before the fault. 0.4 s are between any two
words.

A message ends in the middle of every mark, so that a server that is told to stop (SIGTERM) finds words cut in two. It
says so before its last words (`restarting`); the SDK drops them, and the next server hears the whole word.
"""


def load(figures: Result) -> str:
    delays = [shown([figures[f"{name}_ms_p{percent}"] for percent in (50, 95, 99)]) for name in ("added", "flush")]
    wrong = f"{figures['lost']} lost, {figures['repeated']} repeated, {figures['changed']} changed"
    broke = f"{figures['errors'] or 'no'} session{'s' if figures['errors'] > 1 else ''} broke"
    rows = {
        "words": f"{figures['words']:,}: {wrong}; {broke}",
        "the server's memory, first and last tenth": (
            f"{figures['server_mib_first']} and {figures['server_mib_last']} MiB"
        ),
        "added to the model's own delay, p50 / p95 / p99": f"{delays[0]} ms",
        "flush to answer, p50 / p95 / p99": f"{delays[1]} ms",
        "CPU of the server / of the callers, per second of a stream": (
            f"{figures['server_cpu_ms_per_stream_second']} / {figures['client_cpu_ms_per_stream_second']} ms"
        ),
    }
    title = f"{figures['streams']} live streams for {figures['seconds']:g} s, native protocol, scripted engine"
    others = (
        f"Other programs kept {figures['others_cores']} cores busy meanwhile. When they take more, words come later."
    )
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
    heads = [*columns[:-1], "longest without a word, s"]
    rows = [[shown(line[name]) for name in columns] for line in lines]
    skipped = f" {figures['skipped']} were skipped here." if figures["skipped"] else ""
    return f"{table(heads, rows)}\n\n{figures['passed']} tests passed.{skipped}\n{FAULT_NOTES}".rstrip()


def fuzz(figures: Result) -> str:
    counts = ", ".join(f"{name} {count:,}" for name, count in figures["frames"].items())
    return (
        f"Generated frames of every protocol, against the real connection, session and engine: {counts}. Nothing that "
        "a client sends is more than its own mistake: the connection ends with a code of the table, the slots are "
        "free, nothing is logged as our fault."
    )


def abuse(figures: Result) -> str:
    return (
        "Frames on raw sockets, generated requests to every HTTP route, half-open connections, slow headers, bombs in "
        f"uploads; a bystander's stream goes on through all of it: {figures['passed']} tests passed."
    )


def connections(figures: Result) -> str:
    return (
        "A proxy cuts connections at random moments, mid-message, in a flush, after the end: every word comes once, "
        f"with its time; {figures['passed']} tests passed. In Chromium `tests/browser/test_page.py` does the same with "
        "the page. [How](protocols/native.md#when-the-connection-is-lost)."
    )


def day(figures: Result) -> str:
    (line,) = figures["lines"]
    return (
        f"{line['hours']} hours of 8 kHz telephone audio through decoder, resampler, session, scheduler and words, in "
        f"simulated time, with {line['flushes']} flushes: the clock is that of the frames to the end, "
        f"{line['words']:,} words, every one in its place, and {line['grown_mib']} MiB more memory after the first "
        "hour. Two hours through the real engine, in a busy batch, equal the same two hours alone "
        "(`tests/engine/test_two_hours.py`)."
    )


SECTIONS: Mapping[str, tuple[str, Callable[[Result], str]]] = {
    "load": ("Many streams for ten minutes", load),
    "front": ("What a stream costs the server beside its model", front),
    "faults": ("Faults", faults),
    "connections": ("Connections that break", connections),
    "fuzz": ("Frames that mean nothing", fuzz),
    "abuse": ("Peers that mean harm", abuse),
    "day": ("A day through one slot", day),
}


def page(results: Mapping[str, Result], commands: Mapping[str, str]) -> str:
    """`results` as they are kept, `commands` by the same names: what measures a section that nobody has measured."""
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
