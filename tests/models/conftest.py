"""Limits torch to one thread, so that tests do not compete for cores; a hub with a small checkpoint."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from random_checkpoint import write_checkpoint
from support.hub_client import use_hub
from support.loopback_hub import Content, LoopbackHub


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="session")
def contents(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Content]:
    """The files of `random:tiny` as a published checkpoint."""
    folder = tmp_path_factory.mktemp("published")
    write_checkpoint("random:tiny", folder)
    return {file.name: Content.of(file.read_bytes()) for file in folder.iterdir()}


@pytest.fixture
def hub(contents: dict[str, Content], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[LoopbackHub]:
    """A hub with this checkpoint; huggingface_hub of this process uses it, with an empty cache in `tmp_path`."""
    with LoopbackHub(dict(contents)) as server:
        use_hub(monkeypatch, server.url, tmp_path / "cache")
        yield server
