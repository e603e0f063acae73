"""Rules of the house that a machine can check."""

from __future__ import annotations

import ast
import inspect
import re
from pathlib import Path

import pytest

from tympan import errors

ROOT = Path(__file__).parent.parent
SOURCES = sorted((ROOT / "src").rglob("*.py"))
LONGEST_FILE = 300
LONGEST_FUNCTION = 60


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(ROOT / "src")))
def test_files_and_functions_are_short_and_explained(path: Path) -> None:
    text = path.read_text()
    tree = ast.parse(text)
    assert len(text.splitlines()) <= LONGEST_FILE
    long = [
        f"{node.name}: {node.end_lineno - node.lineno + 1} lines"
        for node in ast.walk(tree)
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        and node.end_lineno is not None
        and node.end_lineno - node.lineno + 1 > LONGEST_FUNCTION
    ]
    assert not long
    assert not text or ast.get_docstring(tree), "a module says what it is for"
    assert not re.search(r"\b(TODO|FIXME|HACK|XXX)\b", text)


def test_the_error_tree_is_drawn_as_it_is() -> None:
    drawn = set(re.findall(r"(\w+Error)\b", errors.__doc__ or ""))
    defined = {name for name, kind in vars(errors).items() if inspect.isclass(kind) and issubclass(kind, Exception)}
    assert drawn == defined
    codes = [kind.code for name, kind in vars(errors).items() if name in defined]
    assert len(codes) == len(set(codes))
