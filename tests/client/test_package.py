"""The public names of `tympan`, and what it costs to import them."""

from __future__ import annotations

import inspect
import subprocess
import sys
from collections.abc import Iterator
from types import FunctionType, ModuleType

import pytest

import tympan
from tympan import errors, messages


def test_all() -> None:
    assert tympan.__all__ == sorted(tympan.__all__)
    assert dir(tympan) == tympan.__all__
    public = {
        name
        for name, value in vars(tympan).items()
        if not name.startswith("_") and not isinstance(value, ModuleType) and name not in IMPLEMENTATION
    }
    assert public <= set(tympan.__all__)
    for name in tympan.__all__:
        assert getattr(tympan, name) is not None
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        tympan.nothing  # noqa: B018


IMPLEMENTATION = {"annotations", "import_module", "metadata", "TYPE_CHECKING"}


def documented() -> Iterator[tuple[str, str | None]]:
    """Every public function, class, method and property with its own docstring."""
    for name in tympan.__all__:
        value = getattr(tympan, name)
        if inspect.isfunction(value):
            yield name, value.__doc__
        if not inspect.isclass(value):
            continue
        yield name, value.__dict__.get("__doc__")
        for member, attribute in vars(value).items():
            if not member.startswith("_") and isinstance(attribute, FunctionType | property | classmethod):
                yield f"{name}.{member}", attribute.__doc__


def test_every_public_name_and_method_has_a_docstring() -> None:
    found = dict(documented())
    assert {"connect", "transcribe", "Stream.send", "SyncStream.send", "Microphone.stop", "Transcript.text"} <= set(
        found
    )
    missing = [name for name, text in found.items() if not text or text.startswith(f"{name}(")]
    assert missing == []


def test_errors_and_events_are_public() -> None:
    tree = {
        name for name, value in vars(errors).items() if isinstance(value, type) and value.__module__ == errors.__name__
    }
    events = {event.__name__ for event in messages.Event.__args__}
    assert tree | events | {"Event"} <= set(tympan.__all__)


def modules_after(code: str) -> set[str]:
    code = f"import sys, tympan; {code}; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    return {name.split(".")[0] for name in done.stdout.split()}


def test_import_is_lazy() -> None:
    assert not modules_after("pass") & {"torch", "fastapi", "av", "numpy", "websockets", "msgspec", "rich"}


def test_client_dependencies() -> None:
    loaded = modules_after("tympan.connect; tympan.connect_sync; tympan.Microphone; tympan.ServerError")
    assert "websockets" in loaded
    assert not loaded & {"torch", "fastapi", "starlette", "uvicorn", "av", "soxr", "sounddevice", "rich"}
