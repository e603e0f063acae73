"""`tympan key`: a new API key, and the hash of it that a server needs to know."""

from __future__ import annotations

import argparse
import secrets

from tympan.config import KeySettings
from tympan.errors import MissingPackageError

KEY_BYTES = 32


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--name", metavar="NAME", help="the key's name in metrics, written beside its hash")


def run(arguments: argparse.Namespace) -> int:
    try:
        from tympan.server.access.keys import hash_of, parse_key
    except ModuleNotFoundError as error:
        raise MissingPackageError(f"this needs the package {error.name}: pip install 'tympan[server]'") from None
    key = secrets.token_urlsafe(KEY_BYTES)
    line = hash_of(key) if arguments.name is None else f"{hash_of(key)} name={arguments.name}"
    parse_key(line, KeySettings(), "--name")
    print(f"{key}\n{line}")
    return 0
