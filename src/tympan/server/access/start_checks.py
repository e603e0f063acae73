"""Warnings and errors at the start: secrets that are short or readable by others, a server that is open to all."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from ipaddress import ip_address
from pathlib import Path
from typing import Final

from tympan.config import ServerSettings
from tympan.errors import ConfigError

MIN_SECRET_BYTES: Final = 32  # of text; below the 256 bits of the signature, the secret could be guessed offline


def read_token_secret(settings: ServerSettings) -> str:
    """Return the secret that signs tokens; empty if none is configured.

    Raises:
        ConfigError: The file cannot be read, or the secret is too short.
    """
    secret, source = settings.token_secret, "token_secret"
    if settings.token_secret_file is not None:
        if secret:
            raise ConfigError("token_secret and token_secret_file are both set: expected one of them")
        source = settings.token_secret_file
        secret = _read(Path(source))
    elif not secret:
        return ""
    size = len(secret.encode())
    if size < MIN_SECRET_BYTES:
        advice = "the first line that `tympan key` prints is long enough"
        raise ConfigError(f"the secret in {source} has {size} bytes: expected at least {MIN_SECRET_BYTES}; {advice}")
    return secret


def readable_secrets(settings: ServerSettings) -> Iterator[str]:
    """Yield a sentence for each file with secrets that every user of this machine can read or write.

    They are warnings, because an orchestrator may mount secrets in this way into a container without other users.
    """
    if os.name == "nt":  # its mode bits do not describe who has access
        return
    for name in (settings.api_keys_file, settings.token_secret_file, settings.tls_key):
        if name is None:
            continue
        try:
            mode = Path(name).stat().st_mode
        except OSError:  # where the file is needed, it is reported as missing
            continue
        if mode & stat.S_IRWXO:
            yield (
                f"every user of this machine has access to {name} (mode {stat.S_IMODE(mode):04o}): run chmod o= "
                f"{name}, or set defaultMode: 0440 for a secret that Kubernetes mounts"
            )


def open_to_network(settings: ServerSettings, address: str) -> Iterator[str]:
    """Yield a sentence if the server needs no keys and `address`, where it listens, is not this machine's own."""
    if settings.asks_for_keys or ip_address(address.partition("%")[0]).is_loopback:
        return
    yield (
        f"there are no API keys, so everyone who can reach {address} over the network can use this server: set "
        "TYMPAN_API_KEYS or api_keys_file (`tympan key` creates a key), or listen on 127.0.0.1"
    )


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"cannot read the token secret in {path}: {error}") from None
