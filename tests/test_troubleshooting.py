"""The table of errors in the documentation has every error, with its code, statuses and docstring."""

from __future__ import annotations

import inspect
import re
from pathlib import Path

from tympan import errors
from tympan.protocols.errors import CLOSE_CODES, HTTP_STATUSES

PAGE = Path(__file__).parent.parent / "docs" / "troubleshooting.md"
ROW = re.compile(r"^\| `(\w+)` \| `(\w+)` \|([^|]*)\| ([^|]+) \| ([^|]+) \|$", re.MULTILINE)


def tree() -> dict[str, type[errors.TympanError]]:
    return {
        name: kind
        for name, kind in vars(errors).items()
        if inspect.isclass(kind) and kind.__module__ == errors.__name__
    }


def test_table_of_errors_is_that_of_the_code() -> None:
    rows = {name: (code, meaning.strip()) for name, code, _, meaning, _ in ROW.findall(PAGE.read_text())}
    expected = {name: (kind.code, first_line(kind)) for name, kind in tree().items()}
    expected["TympanError"] = ("internal", "The base class of all errors.")
    assert rows == expected


def test_statuses_and_close_codes_are_those_of_the_protocols() -> None:
    for name, _, numbers, _, action in ROW.findall(PAGE.read_text()):
        kind = tree()[name]
        allowed = {status_of(kind), close_code_of(kind)}
        assert {int(number) for number in re.findall(r"\d+", numbers)} <= allowed, name
        assert len(action.split()) > 2


def first_line(kind: type) -> str:
    return (inspect.getdoc(kind) or "").partition("\n")[0]


def status_of(kind: type) -> int:
    return next((HTTP_STATUSES[base] for base in kind.__mro__ if base in HTTP_STATUSES), 500)


def close_code_of(kind: type) -> int:
    return next((CLOSE_CODES[base] for base in kind.__mro__ if base in CLOSE_CODES), 1011)
