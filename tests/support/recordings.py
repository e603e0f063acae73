"""A folder that may be recorded in, and what is found there."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from contextlib import nullcontext, suppress
from pathlib import Path
from typing import Any

import av
import numpy as np
import numpy.typing as npt


def consented(folder: Path) -> Path:
    """Made, or made fit."""
    folder.mkdir(exist_ok=True)
    folder.chmod(0o700)
    (folder / "CONSENT").write_text("Everybody who speaks in these tests is a recording already.\n")
    return folder


def names(folder: Path) -> list[str]:
    """Of the files, CONSENT aside, ids shortened to `*`."""
    return sorted("*" + path.name[36:] for path in folder.iterdir() if path.name != "CONSENT")


def audio_of(file: Path, *, cut: bool = False) -> npt.NDArray[np.int16]:
    """`[n, channels]`; of a file that was `cut` off, what comes before the cut."""
    frames: list[npt.NDArray[Any]] = []
    with av.open(str(file)) as container, suppress(av.InvalidDataError) if cut else nullcontext():
        channels = container.streams.audio[0].channels
        frames.extend(frame.to_ndarray() for frame in container.decode(audio=0))  # up to where it raises
    assert all(frame.dtype == np.int16 for frame in frames)
    return np.concatenate([np.zeros((0, channels), np.int16), *(frame.reshape(-1, channels) for frame in frames)])


def lines_of(file: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in file.read_text().splitlines()]


def wait_until(done: Callable[[], bool], seconds: float = 10.0) -> None:
    deadline = time.monotonic() + seconds
    while not done():
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.02)
