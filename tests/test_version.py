"""Sources that are not installed, as in a container that mounts them, still say something."""

from __future__ import annotations

from importlib import metadata

import pytest

import tympan
from tympan.version import version


def test_version_of_the_distribution() -> None:
    assert version() == metadata.version("tympan") == tympan.__version__


def test_version_without_a_distribution(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(name: str) -> str:
        raise metadata.PackageNotFoundError(name)

    monkeypatch.setattr(metadata, "version", missing)
    assert version() == "0+unknown"
