"""Folders of recordings, and the files in them."""

from __future__ import annotations

import json
from contextlib import nullcontext, suppress
from pathlib import Path
from typing import Any

import av
import numpy as np
import numpy.typing as npt


def consented(folder: Path) -> Path:
    """Create the folder, or make it suitable for recordings."""
    folder.mkdir(exist_ok=True)
    folder.chmod(0o700)
    (folder / "CONSENT").write_text("All speech in these tests is itself a recording.\n")
    return folder


def names(folder: Path) -> list[str]:
    """Return the names of all files but CONSENT, with ids replaced by `*`."""
    return sorted("*" + path.name[36:] for path in folder.iterdir() if path.name != "CONSENT")


def audio_of(file: Path, *, cut: bool = False) -> npt.NDArray[np.int16]:
    """Return samples of shape `[n, channels]`; a `cut` file is read up to its cut."""
    frames: list[npt.NDArray[Any]] = []
    with av.open(str(file)) as container, suppress(av.InvalidDataError) if cut else nullcontext():
        channels = container.streams.audio[0].channels
        frames.extend(frame.to_ndarray() for frame in container.decode(audio=0))  # appends until it raises
    assert all(frame.dtype == np.int16 for frame in frames)
    return np.concatenate([np.zeros((0, channels), np.int16), *(frame.reshape(-1, channels) for frame in frames)])


def lines_of(file: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in file.read_text().splitlines()]
