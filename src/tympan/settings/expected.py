"""What a setting expects, in words, from its type and bounds."""

from __future__ import annotations

import re
from types import NoneType, UnionType
from typing import Annotated, Any, Final, Union, get_args, get_origin

from msgspec import Meta

_CHOICES: Final = re.compile(r"\^\((\w+(?:\|\w+)*)\)\$")


def choices_of(annotation: Any) -> list[str]:
    """Return the words that a setting accepts; empty if it accepts more than a few."""
    _, bounds = _parts(annotation)
    found = next((_CHOICES.fullmatch(meta.pattern) for meta in bounds if meta.pattern), None)
    return found[1].split("|") if found else []


def expected_text(annotation: Any) -> str:
    """Return what a setting expects, such as "a whole number from 0 to 65535"."""
    kind, bounds = _parts(annotation)
    if choices := choices_of(annotation):
        return " or ".join((", ".join(choices[:-1]), choices[-1]) if len(choices) > 1 else choices)
    pattern = next((meta.pattern for meta in bounds if meta.pattern), None)
    if kind is str:
        return f"a text that matches {pattern}" if pattern else "a text"
    if kind is bool:
        return "true or false"
    if get_origin(kind) is tuple:
        return "a list of texts"
    return ("a whole number" if kind is int else "a number") + _range_text(bounds)


def _range_text(bounds: list[Meta]) -> str:
    def bound(name: str) -> Any:
        return next((value for meta in bounds if (value := getattr(meta, name)) is not None), None)

    least, most, above = bound("ge"), bound("le"), bound("gt")
    if least is not None and most is not None:
        return f" from {least} to {most}"
    if least is not None:
        return f" of at least {least}"
    return "" if above is None else f" above {above}"


def _parts(annotation: Any) -> tuple[Any, list[Meta]]:
    """Return the type without None, and the bounds at every level."""
    bounds: list[Meta] = []
    while True:
        origin = get_origin(annotation)
        if origin is Annotated:
            bounds += [meta for meta in annotation.__metadata__ if isinstance(meta, Meta)]
            annotation = annotation.__origin__
        elif origin in (Union, UnionType):
            annotation = next(part for part in get_args(annotation) if part is not NoneType)
        else:
            return annotation, bounds
