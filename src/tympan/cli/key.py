"""`tympan key`: create an API key, and its hash for the server."""

from __future__ import annotations

import argparse
import secrets

from tympan.config import KeySettings
from tympan.errors import missing_package

KEY_BYTES = 32


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--name", metavar="NAME", help="Name of the key in metrics, added to its hash.")


def run(arguments: argparse.Namespace) -> int:
    try:
        from tympan.server.access.keys import hash_of, parse_key
    except ModuleNotFoundError as error:
        raise missing_package("this command", error.name, "server") from None
    key = secrets.token_urlsafe(KEY_BYTES)
    line = hash_of(key) if arguments.name is None else f"{hash_of(key)} name={arguments.name}"
    parse_key(line, KeySettings(), "--name")
    print(f"{key}\n{line}")
    return 0
