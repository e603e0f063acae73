"""Requests that the model cannot fulfil, such as key terms or a language that it does not know.

They are accepted, because clients send them by default. The answers do not claim them: they are left out of settings
that a protocol returns, or listed where it has a field for warnings. The server logs them once per session.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Final

ANY_LANGUAGE: Final = ("", "auto", "multi")
_OFF: Final = ("", "false", "0", "no", "none", "null")


def is_requested(value: object) -> bool:
    """Return whether a value requests something: a parameter may say that it does not want it."""
    return value.strip().lower() not in _OFF if isinstance(value, str) else bool(value)


def requested(given: Mapping[str, object], names: Iterable[str]) -> Sequence[str]:
    """Return the names of the values that request something."""
    return [name for name in names if is_requested(given.get(name))]


def knows_language(languages: Sequence[str], code: object) -> bool:
    """Return whether a model with these languages transcribes the language of a code such as `en` or `en-US`."""
    name = str(code or "").strip().lower()
    return name in ANY_LANGUAGE or name.replace("_", "-").partition("-")[0] in languages


def sentence(names: Iterable[str]) -> str:
    """Return the sentence that reports the names."""
    return f"the model does not support {', '.join(names)}; the transcript is the same without"
