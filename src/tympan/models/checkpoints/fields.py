"""Strict reading of JSON configurations.

An unknown key, or a value that the networks do not implement, is an error that names the key. A new feature of a
checkpoint would otherwise silently change the transcripts.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar

from tympan.errors import ModelError

logger = logging.getLogger(__name__)

_MISSING = object()
T = TypeVar("T")


class Fields:
    """The keys of one JSON object, each of which must be read, checked or ignored before :meth:`finish`.

    The methods that return a value raise ModelError if the key is missing without a default, or has another type.
    """

    def __init__(self, values: dict[str, Any], where: str) -> None:
        self._values = dict(values)
        self._where = where

    @staticmethod
    def read(path: Path) -> Fields:
        """Read the object in a JSON file; raises ModelError if it cannot be read or is not an object."""
        try:
            values = json.loads(path.read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise ModelError(f"{path} cannot be read as JSON: {error}") from None
        if not isinstance(values, dict):
            raise ModelError(f"{path}: expected a JSON object, found {type(values).__name__}")
        return Fields(values, str(path))

    def has(self, key: str) -> bool:
        """Return whether ``key`` is present and has not been read."""
        return key in self._values

    def integer(self, key: str, default: object = _MISSING) -> int:
        """Return an integer."""
        return self._take(key, default, int, "an integer")

    def number(self, key: str, default: object = _MISSING) -> float:
        """Return an integer or floating-point number."""
        return float(self._take(key, default, (int, float), "a number"))

    def text(self, key: str, default: object = _MISSING) -> str:
        """Return a string."""
        return self._take(key, default, str, "a string")

    def optional_text(self, key: str, default: str = "") -> str:
        """Return a string, or ``default`` if the key is absent or null."""
        if self._values.get(key) is None:
            self._values[key] = default
        return self.text(key)

    def integers(self, key: str, default: object = _MISSING) -> list[int]:
        """Return a list of integers."""
        value = self._take(key, default, list, "a list of integers")
        if not all(isinstance(item, int) for item in value):
            raise self._invalid(key, "a list of integers", value)
        return list(value)

    def nested(self, key: str) -> Fields:
        """Return the object under ``key``, empty if it is absent or null."""
        if not self._values.get(key):
            self._values[key] = {}
        return Fields(self._take(key, _MISSING, dict, "an object"), f"{self._where}: {key}")

    def only(self, key: str, *allowed: object) -> None:
        """Raise ModelError if ``key`` is present with a value that is not among ``allowed``."""
        if key in self._values:
            value = self._values.pop(key)
            if value not in allowed:
                raise self._invalid(key, f"{allowed[0]!r}, the only supported value", value)

    def only_each(self, allowed: Mapping[str, tuple[object, ...]]) -> None:
        """Call :meth:`only` for each key of ``allowed``."""
        for key, values in allowed.items():
            self.only(key, *values)

    def ignore(self, *keys: str, prefixes: tuple[str, ...] = ()) -> None:
        """Drop keys that do not concern the networks."""
        for key in [key for key in self._values if key in keys or key.startswith(prefixes)]:
            del self._values[key]

    def ignore_rest(self, *, refused_prefix: str) -> None:
        """Drop all other keys and log their names; raises ModelError if one begins with ``refused_prefix``."""
        others = {key: value for key, value in self._values.items() if not key.startswith(refused_prefix)}
        for key in others:
            del self._values[key]
        if others:
            logger.info("%s: ignoring the unknown keys %s", self._where, ", ".join(sorted(others)))
        self.finish()

    def finish(self) -> None:
        """Raise ModelError if a key has been neither read nor ignored."""
        if self._values:
            raise ModelError(f"{self._where}: unknown configuration key {sorted(self._values)[0]!r}")

    def _take(self, key: str, default: object, kind: type[T] | tuple[type[T], ...], expected: str) -> T:
        value = self._values.pop(key, default)
        if value is _MISSING:
            raise ModelError(f"{self._where}: the key {key!r} is missing")
        if isinstance(value, bool) or not isinstance(value, kind):
            raise self._invalid(key, expected, value)
        return value

    def _invalid(self, key: str, expected: str, found: object) -> ModelError:
        return ModelError(f"{self._where}: invalid {key} {found!r}: expected {expected}")
