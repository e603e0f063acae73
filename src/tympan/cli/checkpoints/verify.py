"""`tympan verify [MODEL]`: check the files of a model, its words and its speed on this machine."""

from __future__ import annotations

import argparse
import asyncio
import re
from collections.abc import Sequence
from typing import TYPE_CHECKING, Final

from msgspec.structs import replace

from tympan.cli.options import add_settings, config_from
from tympan.config import Config
from tympan.errors import ConfigError, ModelError, missing_package
from tympan.messages import Word

if TYPE_CHECKING:
    from tympan.models.checkpoints.load import StoredCheckpoint
    from tympan.models.checkpoints.published import PublishedModel

LARGEST_ERROR: Final = 0.15
"""Share of words, or of tokens, that may differ from the reference."""
WITHOUT_FILES: Final = ("embedded", "scripted")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("name", nargs="?", metavar="MODEL", help="Model (default: that of the settings).")
    parser.add_argument(
        "--clip",
        metavar="FILE",
        help="Audio file to transcribe. Without --text it must be the clip 1272-128104-0000 of LibriSpeech, whose "
        "tokens by the 2.6B are known.",
    )
    parser.add_argument("--text", help="What is said in the clip.")
    add_settings(parser, ["model"], config=True)


def run(arguments: argparse.Namespace) -> int:
    config = config_from(arguments)
    if arguments.name:
        config = replace(config, model=replace(config.model, model=arguments.name))
    if config.model.model.partition(":")[0] in WITHOUT_FILES:
        raise ConfigError(f"the model {config.model.model} has no files to verify: give a model of Kyutai's")
    if arguments.text and not arguments.clip:
        raise ConfigError("--text is what is said in --clip: give both")
    try:
        files = _check_files(config.model.model)
        line = asyncio.run(_check_words(config, arguments.clip, arguments.text))
    except ModuleNotFoundError as error:
        raise missing_package("this command", error.name, "torch") from None
    print(f"{config.model.model} verified: {line}; {files}")
    return 0


def _check_files(model: str) -> str:
    """Download what is missing, and compare all files with the published ones; returns the result in words."""
    from tympan.cli.checkpoints.progress import DownloadProgress
    from tympan.models.checkpoints.load import open_stored

    if model.startswith("random:"):
        return "random weights, no files"
    checkpoint = open_stored(model)
    with DownloadProgress() as progress:
        checkpoint.prepare(progress.report)
    return compare_files(checkpoint)


def compare_files(checkpoint: StoredCheckpoint) -> str:
    """Compare size and SHA-256 of all files with the published ones, and with the names of the hub's cache.

    Returns:
        Whether the files are the published ones.

    Raises:
        ModelError: A file is damaged.
    """
    from tympan.models.checkpoints.download import sha256, size_text

    paths = checkpoint.paths()
    found = {name: (path.stat().st_size, sha256(path)) for name, path in paths.items()}
    for name, path in paths.items():
        etag = path.readlink().name if path.is_symlink() else ""  # in the hub's cache, the content's hash
        if re.fullmatch(r"[0-9a-f]{64}", etag) and etag != found[name][1]:
            raise ModelError(f"{path} is damaged: its SHA-256 is {found[name][1]}; remove {path.resolve()}, {AGAIN}")
    published = _published(checkpoint, found)
    total = size_text(sum(size for size, _ in found.values()))
    if published is None:
        return f"{len(found)} files, {total}, of a revision that Tympan does not know"
    for file in published.files:
        if file.name in found and found[file.name] != (file.size_bytes, file.sha256):
            size, digest = found[file.name]
            raise ModelError(
                f"{paths[file.name]} differs from {published.repository}@{published.revision[:12]}: expected "
                f"{file.size_bytes} bytes with SHA-256 {file.sha256}, found {size} bytes with {digest}; "
                f"remove it, {AGAIN}"
            )
    return f"{len(found)} files, {total}, identical to {published.repository}@{published.revision[:12]}"


AGAIN: Final = "and run the same command again"


def _published(checkpoint: StoredCheckpoint, found: dict[str, tuple[int, str]]) -> PublishedModel | None:
    """Return the published model whose configuration the checkpoint has."""
    from tympan.models.checkpoints import published

    digest = found["config.json"][1]
    return next((model for model in published.PUBLISHED if model.files[0].sha256 == digest), None)


async def _check_words(config: Config, clip: str | None, text: str | None) -> str:
    """Start the engine, transcribe the clip, and return speed and words as text.

    Raises:
        ModelError: The words differ from the reference.
    """
    from tympan.audio.files import decode_file
    from tympan.engine.kyutai.engine import create_kyutai_engine
    from tympan.models.checkpoints.published import LIBRISPEECH_CLIP, LIBRISPEECH_TOKENS_2_6B
    from tympan.session.local import transcribe

    tokens: list[int] = []
    settings = replace(config.model, stall_seconds=0.0)  # a restart of the model's state would repeat tokens
    engine = create_kyutai_engine(settings, lambda token, pauses: tokens.append(token))
    await engine.start()
    try:
        speed = f"{engine.capacity} streams in real time, {engine.info.delay_seconds:g} s delay"
        if clip is None:
            return f"{speed}, words not checked (give --clip and --text)"
        tokens.clear()
        events = transcribe(engine, decode_file(clip, engine.info.sample_rate), config.turns, config.limits)
        words = [event.text async for event in events if isinstance(event, Word)]
    finally:
        await engine.stop()
    if text is not None:
        return f"{speed}, {_compare(_plain(text), _plain(' '.join(words)), 'words')}"
    if engine.info.delay_seconds != 2.5:
        raise ConfigError("the tokens of a clip are known for the 2.6B only: give --text with what is said in the clip")
    spoken = [token for token in tokens if token not in (0, 3)]
    return f"{speed}, {_compare(LIBRISPEECH_TOKENS_2_6B, spoken, f'tokens of LibriSpeech {LIBRISPEECH_CLIP}')}"


def _compare(expected: Sequence[object], found: Sequence[object], what: str) -> str:
    """Return the share of items that are right; raises ModelError if too many differ."""
    errors = edit_distance(expected, found)
    share = errors / max(len(expected), 1)
    if share > LARGEST_ERROR:
        raise ModelError(
            f"{errors} errors in {len(expected)} {what}, at most {LARGEST_ERROR:.0%} are expected; "
            f"found: {' '.join(map(str, found)) or 'nothing'}"
        )
    return f"{errors} errors in {len(expected)} {what}"


def edit_distance(expected: Sequence[object], found: Sequence[object]) -> int:
    """Return the number of insertions, deletions and substitutions between two sequences."""
    row = list(range(len(found) + 1))
    for i, wanted in enumerate(expected, 1):
        previous, row[0] = row[0], i
        for j, item in enumerate(found, 1):
            previous, row[j] = row[j], min(row[j] + 1, row[j - 1] + 1, previous + (wanted != item))
    return row[-1]


def _plain(text: str) -> list[str]:
    return re.findall(r"[\w']+", text.lower())
