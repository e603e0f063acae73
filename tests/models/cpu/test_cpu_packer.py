"""Packed weights are written by the first start and mapped by later ones."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest
import torch

from tympan.models.checkpoints.load import open_checkpoint
from tympan.models.cpu import packer
from tympan.models.cpu.linear import WeightType
from tympan.models.cpu.networks import run_lm_on_cpu


def logits(kind: WeightType, folder: Path | None) -> torch.Tensor:
    lm = open_checkpoint("random:tiny").lm(dtype=torch.bfloat16)
    run_lm_on_cpu(lm, kind, folder)
    return lm.step(torch.ones(1, 8, dtype=torch.int64), lm.init_state(1), torch.tensor([0])).logits


@pytest.mark.parametrize("kind", ["int8", "int4"])
def test_later_start_uses_files(tmp_path: Path, kind: WeightType, monkeypatch: pytest.MonkeyPatch) -> None:
    expected = logits(kind, None)
    folder = tmp_path / "packed" / "key"
    assert torch.equal(logits(kind, folder), expected)
    assert [path.name for path in folder.parent.iterdir()] == ["key"]

    def fail(*arguments: object) -> None:
        raise AssertionError("a weight was quantized again")

    monkeypatch.setattr(packer, "pack", fail)
    assert torch.equal(logits(kind, folder), expected)


def test_unreadable_files_are_made_again(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    folder = tmp_path / "key"
    expected = logits("int8", folder)
    (folder / "text_linear" / "scale.npy").write_bytes(b"no array")
    with caplog.at_level(logging.WARNING):
        assert torch.equal(logits("int8", folder), expected)
    assert "cannot be read, and are made again" in caplog.text
    assert not folder.exists()
    assert torch.equal(logits("int8", folder), expected)
    assert folder.is_dir()


def test_folder_that_cannot_be_written(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "file").write_text("")
    with caplog.at_level(logging.WARNING):
        assert torch.equal(logits("int8", tmp_path / "file" / "key"), logits("int8", None))
    assert caplog.text.count("cannot be written") == 1


def test_old_folders_are_deleted(tmp_path: Path) -> None:
    for name in "abcd":
        logits("int8", tmp_path / name)
    assert len(list(tmp_path.iterdir())) == packer._KEPT_FOLDERS
    assert (tmp_path / "d").is_dir()


def test_floats_are_not_stored(tmp_path: Path) -> None:
    logits("f32", tmp_path / "key")
    assert not list(tmp_path.iterdir())
