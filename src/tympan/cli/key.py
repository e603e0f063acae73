"""`tympan key`: a new API key, and the hash of it that a server needs to know."""

from __future__ import annotations

import argparse
import secrets

from tympan.errors import MissingPackageError

KEY_BYTES = 32


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """There is nothing to choose."""


def run(arguments: argparse.Namespace) -> int:
    try:
        from tympan.server.auth import hash_of
    except ModuleNotFoundError as error:
        raise MissingPackageError(f"this needs the package {error.name}: pip install 'tympan[server]'") from None
    key = secrets.token_urlsafe(KEY_BYTES)
    print(f"{key}\n{hash_of(key)}")
    return 0
