"""The operator's API keys as they are written: one on a line, with a name and limits of its own if it is to have any.

sha256:2c26b46b68ffc68ff99b453c1d3041… name=acme streams=20 minutes_per_day=600
"""

from __future__ import annotations

import hashlib
import logging
import re
from dataclasses import dataclass
from pathlib import Path

import msgspec

from tympan.config import KeySettings
from tympan.errors import ConfigError

logger = logging.getLogger(__name__)

HASHED = "sha256:"
_IS_HASH = re.compile(rf"{HASHED}[0-9a-f]{{64}}")
_IS_NAME = re.compile(r"[A-Za-z0-9._-]{1,64}")
_ID_DIGITS = 16
_PREFIX = "key_"  # of the settings that a line has for one key
_LIMITS = [name.removeprefix(_PREFIX) for name in KeySettings.__struct_fields__]


@dataclass(frozen=True, slots=True)
class Key:
    """What a server keeps of a key. `name` is for metrics, and empty if it has none."""

    hash: str
    name: str
    limits: KeySettings

    @property
    def id(self) -> str:
        """What a token carries of its key: enough to know it by, of no use to guess it."""
        return self.hash.removeprefix(HASHED)[:_ID_DIGITS]


def hash_of(key: str) -> str:
    """What is kept of a key. Keys are long and random (`tympan key`), so no slow hash is needed."""
    if _IS_HASH.fullmatch(key):
        return key
    return HASHED + hashlib.sha256(key.encode()).hexdigest()


def parse_key(line: str, limits: KeySettings, where: str) -> Key:
    """A key or its hash, then words such as `name=acme streams=20`; `limits` are for what the line does not say.

    Raises `ConfigError`, which shows `where` and no part of the key.
    """
    key, *words = line.split() or [""]
    if not key or (key.startswith(HASHED) and not _IS_HASH.fullmatch(key)):
        raise ConfigError(f"{where} is neither a key nor {HASHED} and 64 hexadecimal digits")
    name, own = "", {}
    for number, word in enumerate(words, 2):
        what, _, value = word.partition("=")
        if what == "name" and _IS_NAME.fullmatch(value):
            name = value
        elif what in _LIMITS and value:
            own[_PREFIX + what] = value
        else:  # which may be a part of a key with a space in it, and is not shown
            raise ConfigError(f"{where}: word {number} is none of name=…, {'=…, '.join(_LIMITS)}=…")
    try:
        own_limits = msgspec.convert({**msgspec.structs.asdict(limits), **own}, KeySettings, strict=False)
    except msgspec.ValidationError as error:
        problem, _, path = str(error).partition(f" - at `$.{_PREFIX}")
        raise ConfigError(f"{where}: {path.rstrip('`')} is wrong: {problem[0].lower()}{problem[1:]}") from None
    return Key(hash_of(key), name, own_limits)


class KeyFile:
    """Keys one on a line; empty lines and those that begin with # do not count."""

    def __init__(self, path: Path, limits: KeySettings) -> None:
        self._path = path
        self._limits = limits
        self.keys: list[Key] = []
        self._seen: tuple[int, int] | None = None
        self._told = ""
        try:
            self._read()
        except (OSError, UnicodeDecodeError) as error:
            raise ConfigError(f"cannot read the keys in {path}: {error}") from None

    def refresh(self) -> bool:
        """Read it again if it has changed: whether it has. While it cannot be read, the keys that were in it stay."""
        trouble = ""
        try:
            if self._stamp() == self._seen:
                return False
            self._read()
        except (OSError, UnicodeDecodeError, ConfigError) as error:
            trouble = str(error)
            if trouble != self._told:
                logger.error("cannot read the API keys again: %s", trouble)
        else:
            logger.info("read the API keys again: there are %d", len(self.keys))
        self._told = trouble
        return not trouble

    def _read(self) -> None:
        stamp = self._stamp()
        lines = [line.strip() for line in self._path.read_text(encoding="utf-8").splitlines()]
        self._seen = stamp
        self.keys = [
            parse_key(line, self._limits, f"line {number} of {self._path}")
            for number, line in enumerate(lines, 1)
            if line and not line.startswith("#")
        ]

    def _stamp(self) -> tuple[int, int]:
        status = self._path.stat()
        return status.st_mtime_ns, status.st_size
