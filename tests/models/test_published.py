"""The published checkpoints in full size, with payloads of zeros: every tensor, and every deviation from the header."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from support.published import HEADERS, MIMI, MIMI_NAME, Header, Shapes, config, write_published

from tympan.errors import ModelError
from tympan.models.checkpoints import tensors
from tympan.models.checkpoints.load import open_checkpoint
from tympan.models.checkpoints.published import PUBLISHED

SIZES = {model.repository: {file.name: file.size_bytes for file in model.files} for model in PUBLISHED}
REPOSITORIES = {"1b": "kyutai/stt-1b-en_fr-candle", "2.6b": "kyutai/stt-2.6b-en"}


@pytest.mark.parametrize("model", HEADERS)
def test_headers_are_those_of_the_published_files(model: str, tmp_path: Path) -> None:
    sizes = SIZES[REPOSITORIES[model]]
    assert HEADERS[model].size == sizes["model.safetensors"]
    assert MIMI.size == sizes[MIMI_NAME]
    assert len(config(model)) == sizes["config.json"]
    assert (len(HEADERS["1b"].shapes), len(HEADERS["2.6b"].shapes), len(MIMI.shapes)) == (135, 323, 318)
    write_published(tmp_path, model)
    assert set(tensors.TensorFiles([tmp_path / "model.safetensors"]).entries) == set(HEADERS[model].shapes)


@pytest.mark.parametrize("model", ["1b", pytest.param("2.6b", marks=pytest.mark.long)])
@pytest.mark.timeout(120)
def test_all_tensors_load_at_full_size(model: str, tmp_path: Path) -> None:
    """The matrices are views of the mapped file, so a model of gigabytes needs little memory."""
    write_published(tmp_path, model)
    checkpoint = open_checkpoint(str(tmp_path))
    checkpoint.prepare()
    lm = checkpoint.lm()
    expected = {"1b": (4, 0.5, 0.0), "2.6b": (0, 2.5, 1.0)}[model]
    config = checkpoint.config
    assert (config.lm.pause_heads, config.delay_seconds, config.silence_prefix_seconds) == expected
    parameters = sum(parameter.numel() for parameter in lm.parameters())
    elements = sum(torch.Size(shape).numel() for shape in HEADERS[model].shapes.values())
    assert parameters == elements
    assert {parameter.dtype for parameter in lm.parameters()} == {torch.bfloat16}
    assert not lm.transformer.layers[-1].feed_forward.linear_out.weight.any()
    mimi = checkpoint.mimi()
    assert {parameter.dtype for parameter in mimi.parameters()} == {torch.float32}


NORM = "transformer.layers.7.norm1.alpha"


def changed(header: Header, change: Callable[[Shapes], object], dtype: str | None = None) -> Header:
    shapes = dict(header.shapes)
    change(shapes)
    return replace(header, shapes=shapes, dtype=dtype or header.dtype)


DEVIATIONS: dict[str, tuple[str, Callable[[Header], Header], str]] = {
    "missing": ("1b", lambda h: changed(h, lambda s: s.pop(NORM)), rf"the tensor {NORM} \[1, 1, 2048\] is missing"),
    "renamed": (
        "1b",
        lambda h: changed(h, lambda s: s.update({"text_embedding.weight": s.pop("text_emb.weight")})),
        r"the tensor text_emb\.weight \[8001, 2048\] is missing",
    ),
    "unexpected": (
        "1b",
        lambda h: changed(h, lambda s: s.update({"condition_provider.bias": (7,)})),
        r"unexpected tensor condition_provider\.bias \[7\]",
    ),
    "shape": (
        "2.6b",
        lambda h: changed(h, lambda s: s.update({"text_linear.weight": (4001, 2048)})),
        r"text_linear\.weight has the shape \[4001, 2048\], expected \[4000, 2048\]",
    ),
    "type": ("1b", lambda h: changed(h, lambda s: None, "I8"), r"has the type I8, expected BF16, F16 or F32"),
    "heads": (
        "1b",
        lambda h: changed(h, lambda s: s.pop("extra_heads.3.weight")),
        r"the weights contain 3 pause heads",
    ),
}


@pytest.mark.parametrize("name", DEVIATIONS)
def test_deviation_is_found_in_the_header(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model, change, expected = DEVIATIONS[name]
    write_published(tmp_path, model)
    open_checkpoint(str(tmp_path)).prepare()
    change(HEADERS[model]).write(tmp_path / "model.safetensors")
    monkeypatch.setattr(tensors, "safe_open", lambda *arguments, **options: pytest.fail("weights were read"))
    with pytest.raises(ModelError, match=expected):
        open_checkpoint(str(tmp_path)).prepare()


def test_deviation_of_the_codec_is_found_in_the_header(tmp_path: Path) -> None:
    write_published(tmp_path, "1b")
    changed(MIMI, lambda s: s.pop("downsample.conv.conv.conv.weight")).write(tmp_path / MIMI_NAME)
    with pytest.raises(ModelError, match=r"mimi.*: the tensor downsample\.conv\.conv\.conv\.weight .* is missing"):
        open_checkpoint(str(tmp_path)).prepare()


def test_truncated_file_is_found_by_its_size(tmp_path: Path) -> None:
    write_published(tmp_path, "1b")
    with (tmp_path / "model.safetensors").open("r+b") as file:
        file.truncate(HEADERS["1b"].size - 1)
    with pytest.raises(ModelError, match=r"is truncated: expected 1978522200 bytes, found 1978522199"):
        open_checkpoint(str(tmp_path)).prepare()


ACCEPTED: dict[str, dict[str, object]] = {
    "text_card_out": {"text_card_out": 8000},
    "names without a value": {"mimi_config_name": None, "moshi_name": None},
    "fuser without conditions": {"fuser": {"sum": [], "cross": []}},
    "additional key of the scripts": {"stt_config": {"audio_delay_seconds": 0.5, "trained_on": "speech"}},
}


@pytest.mark.parametrize("name", ACCEPTED)
def test_variation_that_changes_no_output_is_accepted(name: str, tmp_path: Path) -> None:
    write_published(tmp_path, "1b")
    values = json.loads(config("1b")) | ACCEPTED[name]
    (tmp_path / "config.json").write_text(json.dumps(values))
    checkpoint = open_checkpoint(str(tmp_path))
    checkpoint.prepare()
    assert checkpoint.config.delay_seconds == 0.5


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("text_card_out", 8001),
        ("fuser", {"sum": ["speaker"]}),
        ("fuser", {"prepend": [], "mix": []}),
        ("stt_config", {"audio_silence_suffix_seconds": 1.0}),
        ("conditioners", {"speaker": {}}),
        ("new_feature", 1),
    ],
)
def test_variation_that_could_change_the_output_is_refused(key: str, value: object, tmp_path: Path) -> None:
    write_published(tmp_path, "1b")
    (tmp_path / "config.json").write_text(json.dumps(json.loads(config("1b")) | {key: value}))
    with pytest.raises(ModelError, match=r"unknown configuration key|expected"):
        open_checkpoint(str(tmp_path))


def test_heads_that_the_configuration_does_not_mention_are_not_used(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    write_published(tmp_path, "1b")
    values = {name: value for name, value in json.loads(config("1b")).items() if not name.startswith("extra_heads")}
    (tmp_path / "config.json").write_text(json.dumps(values))
    checkpoint = open_checkpoint(str(tmp_path))
    checkpoint.prepare()
    assert checkpoint.lm().config.pause_heads == 0
    assert "config.json does not mention the pause heads of the weights" in caplog.text
