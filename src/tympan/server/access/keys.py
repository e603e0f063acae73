"""API keys as the operator writes them: one per line, with an optional name and limits.

sha256:2c26b46b68ffc68ff99b453c1d3041… name=acme streams=20 minutes_per_day=600
"""

from __future__ import annotations

import hashlib
import hmac
import logging
import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import msgspec

from tympan.config import KeySettings
from tympan.errors import ConfigError

logger = logging.getLogger(__name__)

HASH_PREFIX = "sha256:"
_HASH = re.compile(rf"{HASH_PREFIX}[0-9a-f]{{64}}")
_NAME = re.compile(r"[A-Za-z0-9._-]{1,64}")
_ID_DIGITS = 16
_SETTING_PREFIX = "key_"  # the setting key_streams is the limit `streams` of a line
_LIMITS = [name.removeprefix(_SETTING_PREFIX) for name in KeySettings.__struct_fields__]


_Stamp = tuple[int, int, int, int, int]
"""Device, inode, times of change and size: a file that replaces another may have the same size and time."""


@dataclass(frozen=True, slots=True)
class Key:
    """A configured API key.

    Attributes:
        hash: Its SHA-256 hash, with the prefix.
        name: Its name in metrics; empty if it has none.
        limits: Its limits.
    """

    hash: str
    name: str
    limits: KeySettings

    @property
    def id(self) -> str:
        """The part of the hash by which tokens refer to the key; too short to recover the key from."""
        return self.hash.removeprefix(HASH_PREFIX)[:_ID_DIGITS]


def hash_of(key: str) -> str:
    """Return the hash of a key; a hash is returned unchanged.

    Keys are long and random (`tympan key`), so they need no slow hash function.
    """
    if _HASH.fullmatch(key):
        return key
    return HASH_PREFIX + hashlib.sha256(key.encode()).hexdigest()


def find_hash(key: str | None, hashes: Iterable[str]) -> str | None:
    """Return the one of the hashes that is the key's, or `None`; the time does not depend on which one it is."""
    presented = HASH_PREFIX + hashlib.sha256((key or "").encode()).hexdigest()
    found = None
    for hash in hashes:
        if hmac.compare_digest(presented, hash):
            found = hash
    return found


def parse_key(line: str, limits: KeySettings, where: str) -> Key:
    """Parse a key or its hash, followed by options such as `name=acme streams=20`.

    Args:
        line: The text to parse.
        limits: Limits that apply where the line has none of its own.
        where: A description of the line for error messages.

    Raises:
        ConfigError: The line is invalid. The message contains no part of the key.
    """
    key, *words = line.split() or [""]
    if not key or (key.startswith(HASH_PREFIX) and not _HASH.fullmatch(key)):
        raise ConfigError(f"{where}: expected a key, or {HASH_PREFIX} and 64 hexadecimal digits")
    name, own_limits = "", {}
    for number, word in enumerate(words, 2):
        option, _, value = word.partition("=")
        if option == "name" and _NAME.fullmatch(value):
            name = value
        elif option in _LIMITS and value:
            own_limits[_SETTING_PREFIX + option] = value
        else:  # the word may be part of a key that contains a space, so the message does not show it
            raise ConfigError(f"{where}: word {number} is not an option; expected name=…, {'=…, '.join(_LIMITS)}=…")
    try:
        merged = msgspec.convert({**msgspec.structs.asdict(limits), **own_limits}, KeySettings, strict=False)
    except msgspec.ValidationError as error:
        problem, _, path = str(error).partition(f" - at `$.{_SETTING_PREFIX}")
        raise ConfigError(f"{where}: invalid {path.rstrip('`')}: {problem[0].lower()}{problem[1:]}") from None
    return Key(hash_of(key), name, merged)


class KeyFile:
    """A file with one key per line; empty lines and lines that begin with `#` are ignored."""

    def __init__(self, path: Path, limits: KeySettings) -> None:
        """Read the file.

        Raises:
            ConfigError: The file cannot be read, or a line is invalid.
        """
        self._path = path
        self._limits = limits
        self.keys: list[Key] = []
        self._loaded_stamp: _Stamp | None = None
        self._seen_stamp: _Stamp | None = None
        self._logged_error = ""
        try:
            self._read()
        except (OSError, UnicodeDecodeError) as error:
            raise ConfigError(f"cannot read the keys in {path}: {error}") from None

    def refresh(self) -> bool:
        """Reload the file if it has changed since it was read and not since the last call.

        A file that is being written may lack keys, whose streams would be closed; it is read once it has settled. The
        previous keys are kept while the file is invalid.

        Returns:
            Whether the keys were reloaded.
        """
        try:
            previous, self._seen_stamp = self._seen_stamp, self._stamp()
            if self._seen_stamp == self._loaded_stamp or self._seen_stamp != previous:
                return False
            self._read()
        except (OSError, UnicodeDecodeError, ConfigError) as error:
            if str(error) != self._logged_error:
                logger.error("cannot reload the API keys: %s", error)
            self._logged_error = str(error)
            return False
        logger.info("reloaded the API keys: %d in the file", len(self.keys))
        self._logged_error = ""
        return True

    def _read(self) -> None:
        stamp = self._stamp()
        lines = [line.strip() for line in self._path.read_text(encoding="utf-8").splitlines()]
        self._loaded_stamp = stamp
        self.keys = [
            parse_key(line, self._limits, f"line {number} of {self._path}")
            for number, line in enumerate(lines, 1)
            if line and not line.startswith("#")
        ]

    def _stamp(self) -> _Stamp:
        status = self._path.stat()
        return status.st_dev, status.st_ino, status.st_ctime_ns, status.st_mtime_ns, status.st_size
