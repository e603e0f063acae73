"""The models that `--model` knows by name: what they are, and what this machine lacks to run them."""

from __future__ import annotations

import re
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path
from typing import Final

from tympan.errors import ModelError, closest


@dataclass(frozen=True, slots=True)
class CatalogueEntry:
    """One model.

    Attributes:
        name: The value of `--model`.
        text: What it is.
        extra: The extra of Tympan's distribution that contains its packages; empty for none.
        repository: The repository on the hub that contains its files; empty for none.
        weights: The file of its weights in that repository.
        download: The size of the download.
    """

    name: str
    text: str
    extra: str = ""
    repository: str = ""
    weights: str = ""
    download: str = ""


def _kyutai(name: str, text: str, download: str) -> CatalogueEntry:
    return CatalogueEntry(name, text, "torch", name, "model.safetensors", download)


def _whisper(size: str, text: str, download: str) -> CatalogueEntry:
    repository = f"Systran/faster-whisper-{size}"
    return CatalogueEntry(f"whisper:{size}", text, "embedded", repository, "model.bin", download)


CATALOGUE: Final = (
    _kyutai("kyutai/stt-1b-en_fr-candle", "English and French, 0.5 s of delay, predicts pauses", "2.4 GB"),
    _kyutai("kyutai/stt-2.6b-en", "English, 2.5 s of delay, fewer errors", "5.6 GB"),
    CatalogueEntry("embedded", "the built-in recognizer: Whisper tiny.en on the CPU, English", "embedded"),
    _whisper("base", "Whisper on the CPU, many languages", "145 MB"),
    _whisper("small", "the same, fewer errors", "484 MB"),
    _whisper("large-v3", "the same, fewest errors, slow on a CPU", "3.1 GB"),
    CatalogueEntry("random:1b", "random weights of the architecture, for sizing", "torch"),
    CatalogueEntry("random:2.6b", "random weights of the architecture, for sizing", "torch"),
    CatalogueEntry("random:tiny", "a small random model, for tests", "torch"),
    CatalogueEntry("scripted", "fixed words whatever the audio, for tests and load"),
)

KINDS: Final = ("embedded", "random", "scripted", "whisper")
"""What names outside the hub begin with, up to a colon."""


def check_name(model: str) -> None:
    """Raise `ModelError` for a name that is neither in the catalogue nor that of a folder or repository."""
    if "/" in model or model.partition(":")[0] in KINDS or Path(model).expanduser().is_dir():
        return
    nearest = closest(model, [entry.name for entry in CATALOGUE])
    raise ModelError(
        f"unknown model {model!r}: expected a name that `tympan models` lists, a folder, or org/name[@revision] on the "
        f"hub{nearest}"
    )


def state_of(entry: CatalogueEntry) -> str:
    """Return "ready", or what is missing: packages or a download."""
    if entry.extra and (missing := missing_packages(entry.extra)):
        return f"needs the extra {entry.extra} ({', '.join(missing)})"
    if not entry.repository or _is_cached(entry):
        return "ready"
    return f"needs a download of {entry.download}"


def missing_packages(extra: str) -> list[str]:
    """Return the packages of an extra that are not installed; those for other platforms are ignored."""
    if not _is_installed("tympan"):  # the sources run without a distribution that names the extras
        return []
    missing = []
    for requirement in distribution("tympan").requires or ():
        text, _, marker = requirement.partition(";")
        if not re.fullmatch(rf"\s*extra == ['\"]{extra}['\"]\s*", marker):
            continue
        if nested := re.match(r"tympan\[(\w+)\]", text):
            missing += missing_packages(nested[1])
        elif (name := re.match(r"[\w.-]+", text)) and not _is_installed(name[0]):
            missing.append(name[0])
    return missing


def _is_installed(package: str) -> bool:
    try:
        distribution(package)
    except PackageNotFoundError:
        return False
    return True


def _is_cached(entry: CatalogueEntry) -> bool:
    """Return whether the cache of the hub has the weights."""
    try:
        from huggingface_hub import try_to_load_from_cache
    except ImportError:
        return False
    return isinstance(try_to_load_from_cache(entry.repository, entry.weights), str)
