"""Strict reading of JSON configurations.

A key that is unknown, or a value that our modules do not implement, is an error that names it. Whoever adds a feature
to a checkpoint should hear from us, not get different words.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from tympan.errors import ModelError

_MISSING = object()


class Fields:
    """The keys of one JSON object, each to be taken, checked or set aside before :meth:`finish`."""

    def __init__(self, values: dict[str, Any], where: str) -> None:
        self._values = dict(values)
        self._where = where

    @staticmethod
    def read(path: Path) -> Fields:
        """The object in a JSON file."""
        try:
            values = json.loads(path.read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise ModelError(f"{path} cannot be read as JSON: {error}") from None
        if not isinstance(values, dict):
            raise ModelError(f"{path} should hold a JSON object")
        return Fields(values, str(path))

    def has(self, key: str) -> bool:
        return key in self._values

    def integer(self, key: str, default: object = _MISSING) -> int:
        value = self._take(key, default)
        if isinstance(value, bool) or not isinstance(value, int):
            raise self._wrong(key, "a whole number", value)
        return value

    def number(self, key: str, default: object = _MISSING) -> float:
        value = self._take(key, default)
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise self._wrong(key, "a number", value)
        return float(value)

    def text(self, key: str, default: object = _MISSING) -> str:
        value = self._take(key, default)
        if not isinstance(value, str):
            raise self._wrong(key, "a string", value)
        return value

    def integers(self, key: str, default: object = _MISSING) -> list[int]:
        value = self._take(key, default)
        if not isinstance(value, list) or not all(isinstance(item, int) for item in value):
            raise self._wrong(key, "a list of whole numbers", value)
        return list(value)

    def nested(self, key: str) -> Fields:
        """The object under ``key``; an empty one when it is absent or null."""
        value = self._take(key, {}) or {}
        if not isinstance(value, dict):
            raise self._wrong(key, "an object", value)
        return Fields(value, f"{self._where}: {key}")

    def only(self, key: str, *allowed: object) -> None:
        """``key`` may be absent, or have one of the values we implement."""
        if key in self._values:
            value = self._values.pop(key)
            if value not in allowed:
                raise self._wrong(key, f"{allowed[0]!r}, the only value that is implemented", value)

    def set_aside(self, *keys: str, prefixes: tuple[str, ...] = ()) -> None:
        """Keys that say nothing about the network we run."""
        for key in [key for key in self._values if key in keys or key.startswith(prefixes)]:
            del self._values[key]

    def finish(self) -> None:
        """Raise ModelError when a key was neither taken nor set aside."""
        if self._values:
            raise ModelError(f"{self._where}: unknown configuration key {sorted(self._values)[0]!r}")

    def _take(self, key: str, default: object) -> Any:
        value = self._values.pop(key, default)
        if value is _MISSING:
            raise ModelError(f"{self._where}: the key {key!r} is missing")
        return value

    def _wrong(self, key: str, expected: str, found: object) -> ModelError:
        return ModelError(f"{self._where}: {key} should be {expected}, but is {found!r}")
