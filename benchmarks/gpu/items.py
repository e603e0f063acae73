"""Items of a stage: run one after the other, checked against their limits, and written as soon as they exist."""

from __future__ import annotations

import json
import math
import os
import signal
import sys
import time
import traceback
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TextIO

Values = Mapping[str, Any]

CUDA_LOST = 70  # exit status after an error that leaves the process without the GPU
_CUDA_ERRORS = ("CUDA error", "Triton Error [CUDA]", "CUBLAS_STATUS", "CUDNN_STATUS", "cudaError")


@dataclass(frozen=True)
class Limit:
    """A limit of a value: at most or at least ``bound``."""

    kind: str
    bound: float

    def met(self, value: object) -> bool:
        if not isinstance(value, int | float) or not math.isfinite(value):
            return False
        return value <= self.bound if self.kind == "at most" else value >= self.bound


def at_most(bound: float) -> Limit:
    return Limit("at most", bound)


def at_least(bound: float) -> Limit:
    return Limit("at least", bound)


@dataclass(frozen=True)
class Item:
    """One measurement or check.

    Attributes:
        run: Returns the values.
        limits: Limits of values by name; a missing value misses its limit.
        skip: Reason not to run it; empty to run it.
        shown: Names of the values in the summary.
        setup: Whether later items need the state that it leaves in the process. A process that continues after a
            failure runs it again, and records it only if it fails.
    """

    name: str
    run: Callable[[], Values]
    limits: Mapping[str, Limit] = field(default_factory=dict)
    skip: str = ""
    shown: tuple[str, ...] = ()
    setup: bool = False


def skipped(name: str, why: str) -> Item:
    """Return an item that is recorded and not run."""
    return Item(name, dict, skip=why)


@dataclass(frozen=True)
class Context:
    """The parameters of a stage.

    Attributes:
        model: A model such as ``random:1b``.
        scratch: Folder for this machine's checkpoint.
        ends: When the stage must end, on the monotonic clock.
    """

    model: str
    device: str
    quick: bool
    scratch: Path
    ends: float
    options: Mapping[str, str]
    commit: str | None = None
    command: str = ""

    @property
    def cuda(self) -> bool:
        return self.device == "cuda"

    @property
    def folder(self) -> Path:
        """The folder of the drawn checkpoint of ``model``."""
        return self.scratch / self.model.replace(":", "-")

    @property
    def checkpoint(self) -> str:
        """The checkpoint's folder, or the model's name if it has not been drawn."""
        return str(self.folder) if self.folder.is_dir() else self.model

    def left(self) -> float:
        """Return the seconds that the stage has left."""
        return self.ends - time.monotonic()


def run_items(items: Iterable[Item], out: TextIO, *, only: str = "", after: str = "", fail: str = "") -> int:
    """Run the items, and return the exit status.

    Args:
        items: Those of one stage.
        out: Receives one line of JSON when an item begins and one when it ends.
        only: The name of the one item to run, if any.
        after: The name of the item after which to go on, if any.
        fail: A failure to make on purpose, in the place of what would follow the first item.
    """
    waiting, needs, count = bool(after or only), "", 0
    for item in items:
        if waiting and item.name != only:
            if item.name == after:
                waiting, needs = False, item.name if item.setup else ""
            elif item.setup:
                needs = _set_up(item, out) or needs
            continue
        if fail and count == 1:
            item = Item(item.name, lambda: make_failure(fail, out))  # noqa: PLW2901
        if needs:
            item = skipped(item.name, f"it needs {needs!r}, which failed")  # noqa: PLW2901
        _write(out, {"begin": item.name})
        record, lost = _run(item)
        _write(out, record)
        count += 1
        if lost:
            return CUDA_LOST
        if only:
            break
    if fail and count < 2:  # the stage has only one item
        _write(out, {"begin": "a failure on purpose"})
        record, _ = _run(Item("a failure on purpose", lambda: make_failure(fail, out)))
        _write(out, record)
    _write(out, {"done": count})
    return 0


def _set_up(item: Item, out: TextIO) -> str:
    """Run an item again for the state that it leaves; record it and return its name if it fails."""
    record, _ = _run(item)
    if "failed" not in record:
        return ""
    _write(out, {"begin": item.name})
    _write(out, record)
    return item.name


def _run(item: Item) -> tuple[dict[str, Any], bool]:
    """Return the record, and whether the process has lost the GPU."""
    record: dict[str, Any] = {"item": item.name}
    if item.skip:
        return {**record, "skipped": item.skip}, False
    start, lost = time.monotonic(), False
    try:
        values = dict(item.run())
        missed = [
            f"{name} is {values.get(name)}, expected {limit.kind} {limit.bound:g}"
            for name, limit in item.limits.items()
            if not limit.met(values.get(name))
        ]
        record |= {"ok": not missed, "values": _plain(values), "missed": missed}
        record["limits"] = {name: f"{limit.kind} {limit.bound:g}" for name, limit in item.limits.items()}
        record["shown"] = {name: _plain(values[name]) for name in item.shown if name in values}
    except Exception as error:
        lost = is_cuda_error(error)
        text = f"{type(error).__name__}: {error}"
        memory = isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError"
        record |= {"ok": False, "failed": f"out of memory: {text}" if memory else text}
        record["traceback"] = traceback.format_exc()
        traceback.print_exc()
        if lost:
            record["cuda_error"] = True
    record["seconds"] = round(time.monotonic() - start, 2)
    return record, lost


def is_cuda_error(error: BaseException) -> bool:
    """Return whether the GPU can no longer be used from this process. Memory that ran out does not count."""
    if type(error).__name__ == "OutOfMemoryError":
        return False
    return type(error).__name__ == "AcceleratorError" or any(text in str(error) for text in _CUDA_ERRORS)


def make_failure(kind: str, out: TextIO) -> Values:
    """Fail on purpose, to test that the other results are kept."""
    print(f"failing on purpose: {kind}", file=sys.stderr, flush=True)
    if kind == "exit":
        os._exit(3)
    elif kind == "exception":
        raise RuntimeError("an exception on purpose")
    elif kind == "segfault":
        os.kill(os.getpid(), signal.SIGSEGV)
    elif kind == "timeout":
        time.sleep(3600)
    elif kind == "garbage":
        out.write("this is not JSON\n")
        out.flush()
        os._exit(0)
    elif kind == "oom":
        out_of_memory = type("OutOfMemoryError", (RuntimeError,), {})  # torch's, whose import takes seconds
        raise out_of_memory("memory that runs out on purpose")
    elif kind == "kill":
        os.kill(os.getpid(), signal.SIGKILL)
    elif kind == "cuda":
        raise RuntimeError("CUDA error: an illegal memory access on purpose")
    raise ValueError(f"unknown failure {kind!r}: expected one of {', '.join(FAILURES)}")


FAILURES = ("exit", "exception", "segfault", "timeout", "garbage", "oom", "kill", "cuda")


def _plain(value: Any) -> Any:
    """Return ``value`` as JSON can hold it: numbers that are not finite as text."""
    if isinstance(value, Mapping):
        return {str(key): _plain(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(each) for each in value]
    if isinstance(value, float):
        return value if math.isfinite(value) else str(value)
    return value if isinstance(value, int | str) or value is None else str(value)


def _write(out: TextIO, message: Mapping[str, Any]) -> None:
    out.write(json.dumps(message) + "\n")
    out.flush()
