"""`tympan pull MODEL`: download a model before it is needed, for images and machines without a network."""

from __future__ import annotations

import argparse
import os
import shutil
from pathlib import Path

from tympan.config import ModelSettings
from tympan.errors import OutputError, missing_package


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "model",
        nargs="?",
        default=ModelSettings().model,
        metavar="MODEL",
        help="Repository of the form org/name[@revision] (default: %(default)s).",
    )
    parser.add_argument(
        "--folder",
        type=Path,
        metavar="FOLDER",
        help="Folder to put the files into as well, which --model accepts on a machine without a network.",
    )


def run(arguments: argparse.Namespace) -> int:
    try:
        from tympan.cli.checkpoints.progress import DownloadProgress
        from tympan.models.checkpoints.download import size_text
        from tympan.models.checkpoints.load import open_stored
        from tympan.transcript.tokenizer import load_tokenizer
    except ModuleNotFoundError as error:
        raise missing_package("this command", error.name, "torch") from None
    checkpoint = open_stored(arguments.model)
    load_tokenizer(checkpoint.tokenizer_file(), checkpoint.config.lm.text_card)
    with DownloadProgress() as progress:
        checkpoint.prepare(progress.report)
    paths = checkpoint.paths()
    if arguments.folder is not None:
        copy_files(paths, arguments.folder)
    folder = arguments.folder or paths["config.json"].parent
    size = sum(path.stat().st_size for path in paths.values())
    print(f"{arguments.model}: {len(paths)} files, {size_text(size)}, in {folder}")
    return 0


def copy_files(paths: dict[str, Path], folder: Path) -> None:
    """Put files into a folder, as links to the same content where the file system allows it.

    Args:
        paths: Paths of the files by name.
        folder: The folder, which need not exist.

    Raises:
        OutputError: The folder cannot be written.
    """
    try:
        for name, path in paths.items():
            target = folder / name
            target.parent.mkdir(parents=True, exist_ok=True)
            target.unlink(missing_ok=True)
            try:
                os.link(path.resolve(), target)
            except OSError:
                shutil.copyfile(path, target)
    except OSError as error:
        raise OutputError(f"cannot write to {folder}: {error.strerror}") from None
