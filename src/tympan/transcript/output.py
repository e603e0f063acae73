"""Writes transcripts to files and to standard output."""

from __future__ import annotations

import os
import sys
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final
from urllib.parse import unquote, urlsplit

from tympan.errors import ConfigError, OutputError
from tympan.transcript.subtitles import to_srt, to_vtt
from tympan.transcript.transcript import Transcript, to_json, to_text


@dataclass(frozen=True, slots=True)
class Format:
    """An output format; `lists` says whether the output of several files can be concatenated."""

    suffix: str
    write: Callable[[Transcript], str]
    lists: bool


FORMATS: Final = {
    "text": Format(".txt", to_text, lists=True),
    "json": Format(".json", to_json, lists=True),
    "srt": Format(".srt", to_srt, lists=False),
    "vtt": Format(".vtt", to_vtt, lists=False),
}


def format_of(output: Path | None) -> str:
    """Return the format that the name of an output file selects; text by default."""
    suffix = output.suffix.lower() if output is not None else ""
    return next((name for name, each in FORMATS.items() if each.suffix == suffix), "text")


def targets(
    inputs: Sequence[str], output: Path | None, format_name: str, *, force: bool
) -> list[tuple[str, Path | None]]:
    """Return each input with the file to write: None for standard output.

    `output` is a file if it has the suffix of a format or is one already, and a folder otherwise. The files in a folder
    are named `talk.srt` for `talk.mp3`, or `talk.mp3.srt` if two inputs are named `talk`.

    Raises:
        ConfigError: A file exists, or two inputs would be written to the same one.
    """
    if output is None:
        if len(inputs) > 1 and not FORMATS[format_name].lists:
            raise ConfigError(f"several files as {format_name} need --output DIR")
        return [(name, None) for name in inputs]
    if _is_file(output):
        if len(inputs) > 1:
            raise ConfigError(f"several files need a folder as --output, but {output} is a file")
        pairs = [(inputs[0], output)]
    else:
        suffix = FORMATS[format_name].suffix
        names = [Path(_file_name(name)) for name in inputs]
        stems = Counter(name.stem for name in names)
        pairs = [
            (each, output / ((name.stem if stems[name.stem] == 1 else name.name) + suffix))
            for each, name in zip(inputs, names, strict=True)
        ]
    twice = [path.name for path, count in Counter(path for _, path in pairs).items() if count > 1]
    if twice:
        raise ConfigError(f"two inputs would both be written to {twice[0]}: transcribe them into different folders")
    for name, path in pairs:
        _check_target(name, path, force=force)
    return list(pairs)


def write_file(text: str, target: Path, *, force: bool) -> None:
    """Write a file as UTF-8: completely or not at all.

    Raises:
        OutputError: It cannot be written, for example since the disk is full, or it exists and `force` is not set.
    """
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(f"the folder {target.parent} cannot be created: {_reason(error)}") from error
    try:
        if target.exists() and not target.is_file():  # a device or a pipe
            target.write_text(text, encoding="utf-8", errors="backslashreplace")
            return
        if target.is_file() and not force:
            raise OutputError(f"{target} exists: use --force to overwrite it")
        target = target.resolve()
        part = target.with_name(f".{target.name}.{os.getpid()}.part")
        try:
            part.write_text(text, encoding="utf-8", errors="backslashreplace")
            part.replace(target)
        except OSError:
            with suppress(OSError):
                part.unlink()
            raise
    except OSError as error:
        raise OutputError(f"{target} cannot be written: {_reason(error)}") from error


def write_output(text: str) -> None:
    """Write to standard output at once.

    Raises:
        BrokenPipeError: The reader has closed the pipe.
        OutputError: It cannot be written, for example since a disk is full.
    """
    try:
        sys.stdout.write(text)
        sys.stdout.flush()
    except BrokenPipeError:
        raise
    except OSError as error:
        raise OutputError(f"standard output cannot be written: {_reason(error)}") from error


def _is_file(output: Path) -> bool:
    if output.is_dir():
        return False
    return output.exists() or any(output.suffix.lower() == each.suffix for each in FORMATS.values())


def _file_name(name: str) -> str:
    """Return the file name of an input: `stdin` for `-`, the last part of the path of a URL."""
    if name == "-":
        return "stdin"
    if "://" in name:
        parts = urlsplit(name)
        return Path(unquote(parts.path)).name or parts.hostname or "audio"
    return name


def _check_target(name: str, target: Path, *, force: bool) -> None:
    if not target.is_file():
        return
    if Path(name).exists() and target.samefile(name):
        raise ConfigError(f"{target} is the input: choose another --output")
    if not force:
        raise ConfigError(f"{target} exists: use --force to overwrite it")


def _reason(error: OSError) -> str:
    return (error.strerror or str(error)).lower()
