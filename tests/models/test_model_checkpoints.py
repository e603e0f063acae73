"""Loading of every layout, and the error for every kind of invalid checkpoint."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from support.moshi_models import Shape, mimi_config, moshi_lm, moshi_mimi, write_kyutai
from support.transformers_models import transformers_model, write_transformers

from tympan.errors import ModelError
from tympan.models.checkpoints import tensors
from tympan.models.checkpoints.checkpoint import Checkpoint, describe
from tympan.models.checkpoints.hub import Repository
from tympan.models.checkpoints.load import open_checkpoint

SHAPE = Shape(seed=0, context=20, codebooks=4)
Corrupt = Callable[[Path], None]


@pytest.fixture(scope="module")
def kyutai(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("kyutai")
    mimi = moshi_mimi(SHAPE)
    write_kyutai(folder, SHAPE, mimi, moshi_lm(SHAPE, mimi.cardinality))
    (folder / "tokenizer.model").write_bytes(b"")
    return folder


@pytest.fixture(scope="module")
def transformers(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("transformers")
    write_transformers(folder, transformers_model(SHAPE))
    return folder


@pytest.fixture
def folder(kyutai: Path, tmp_path: Path) -> Path:
    """A copy of a valid checkpoint in Kyutai's layout."""
    return Path(shutil.copytree(kyutai, tmp_path / "model"))


def load(folder: Path) -> Checkpoint:
    checkpoint = open_checkpoint(str(folder))
    checkpoint.lm(dtype=torch.float32)
    checkpoint.mimi()
    checkpoint.tokenizer_file()
    return checkpoint


def edit_config(folder: Path, name: str = "config.json", **changes: Any) -> None:
    values = json.loads((folder / name).read_text())
    (folder / name).write_text(json.dumps(values | changes))


def edit_tensors(folder: Path, name: str, change: Callable[[dict[str, torch.Tensor]], object]) -> None:
    tensors = load_file(folder / name)
    change(tensors)
    save_file(tensors, folder / name)


def cut(folder: Path, name: str, size: int) -> None:
    path = folder / name
    path.write_bytes(path.read_bytes()[:size])


HEAD = "extra_heads.3.weight"
NORM = "transformer.layers.0.norm1.alpha"
INVALID: dict[str, tuple[Corrupt, str]] = {
    "missing tensor": (
        lambda f: edit_tensors(f, "model.safetensors", lambda t: t.pop(NORM)),
        rf"model\.safetensors: the tensor {NORM} \[1, 1, \d+\] is missing",
    ),
    "extra tensor": (
        lambda f: edit_tensors(f, "model.safetensors", lambda t: t.update(surprise=torch.ones(2, 3))),
        r"model\.safetensors: unexpected tensor surprise \[2, 3\]",
    ),
    "extra codec tensor": (
        lambda f: edit_tensors(f, "mimi.safetensors", lambda t: t.update({"encoder.model.99.bias": torch.ones(1)})),
        r"mimi\.safetensors: unexpected tensor encoder\.model\.99\.bias \[1\]",
    ),
    "wrong shape": (
        lambda f: edit_tensors(f, "model.safetensors", lambda t: t.update({NORM: torch.ones(1, 1, 7)})),
        rf"model\.safetensors: {NORM} has the shape \[1, 1, 7\], expected \[1, 1, \d+\]",
    ),
    "wrong type": (
        lambda f: edit_tensors(f, "model.safetensors", lambda t: t.update({NORM: t[NORM].to(torch.int8)})),
        rf"model\.safetensors: {NORM} has the type I8, expected BF16, F16 or F32",
    ),
    "heads without configuration": (
        lambda f: edit_config(f, extra_heads_num_heads=0),
        r"the weights contain 4 pause heads \(extra_heads\), but config\.json has extra_heads_num_heads = 0",
    ),
    "configuration without heads": (
        lambda f: edit_tensors(f, "model.safetensors", lambda t: t.pop(HEAD)),
        r"the weights contain 3 pause heads",
    ),
    "truncated weights": (lambda f: cut(f, "model.safetensors", 20_000), r"model\.safetensors is truncated: .* 20000"),
    "truncated header": (lambda f: cut(f, "mimi.safetensors", 500), r"mimi\.safetensors is truncated: .* 500"),
    "empty weights": (lambda f: cut(f, "model.safetensors", 0), r"model\.safetensors is not a safetensors file"),
    "another format": (
        lambda f: torch.save({"a": torch.ones(3)}, f / "model.safetensors"),
        r"model\.safetensors is not a safetensors file",
    ),
    "missing weights": (lambda f: (f / "model.safetensors").unlink(), r"has no file model\.safetensors"),
    "missing codec": (lambda f: (f / "mimi.safetensors").unlink(), r"has no file mimi\.safetensors"),
    "missing configuration": (lambda f: (f / "config.json").unlink(), r"has no file config\.json"),
    "no tokenizer": (lambda f: (f / "tokenizer.model").unlink(), r"no tokenizer: the file tokenizer\.model is missing"),
    "unknown key": (
        lambda f: edit_config(f, new_feature=True),
        r"config\.json: unknown configuration key 'new_feature'",
    ),
    "missing key": (
        lambda f: (f / "config.json").write_text('{"dim": 64}'),
        r"config\.json: the key 'num_layers' is missing",
    ),
    "unsupported value": (
        lambda f: edit_config(f, gating="relu"),
        r"config\.json: invalid gating 'relu': expected 'silu', the only supported value",
    ),
    "delays": (
        lambda f: edit_config(f, delays=[0, 0, 1, 0, 0]),
        r"config\.json: invalid delays \[0, 0, 1, 0, 0\]: expected \[0, 0, 0, 0, 0\]",
    ),
    "wrong kind of value": (lambda f: edit_config(f, dim="64"), r"config\.json: invalid dim '64': expected an integer"),
    "not JSON": (lambda f: (f / "config.json").write_text("{"), r"config\.json cannot be read as JSON"),
    "codec with another vocabulary": (
        lambda f: edit_config(f, "mimi_config.json", quantizer=mimi_config(SHAPE)["quantizer"] | {"bins": 64}),
        r"the codec has 64 codes per codebook, but the language model has \d+",
    ),
    "codec with too few codebooks": (
        lambda f: edit_config(f, "mimi_config.json", quantizer=mimi_config(SHAPE)["quantizer"] | {"n_q": 2}),
        r"the codec has 2 codebooks, but the language model needs 4",
    ),
    "codec with an unknown key": (
        lambda f: edit_config(f, "mimi_config.json", surprise=1),
        r"mimi_config\.json: unknown configuration key 'surprise'",
    ),
}


@pytest.mark.parametrize("name", INVALID)
def test_invalid_checkpoint(folder: Path, name: str) -> None:
    corrupt, expected = INVALID[name]
    load(folder)
    corrupt(folder)
    with pytest.raises(ModelError, match=expected) as caught:
        load(folder)
    assert "\n" not in str(caught.value)


def test_kyutai_layout(kyutai: Path) -> None:
    checkpoint = load(kyutai)
    assert checkpoint.layout == "kyutai"
    assert checkpoint.config.lm.pause_heads == 4
    assert checkpoint.config.delay_seconds == 0.5
    assert checkpoint.tokenizer_file() == kyutai / "tokenizer.model"


def test_transformers_layout(transformers: Path) -> None:
    checkpoint = load(transformers)
    assert checkpoint.layout == "transformers"
    assert checkpoint.config.lm.pause_heads == 0
    assert checkpoint.config.delay_seconds == 2.5
    assert checkpoint.config.silence_prefix_seconds == 1.0
    assert checkpoint.tokenizer_file() == transformers / "tokenizer.json"


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32])
def test_element_types(folder: Path, dtype: torch.dtype) -> None:
    edit_tensors(folder, "model.safetensors", lambda t: t.update({name: x.to(dtype) for name, x in t.items()}))
    lm = open_checkpoint(str(folder)).lm(dtype=dtype)
    assert {parameter.dtype for parameter in lm.parameters()} == {dtype}
    state, rows = lm.init_state(1), torch.tensor([0])
    output = lm.step(torch.zeros(1, 4, dtype=torch.int64), state, rows)
    assert state.ring.keys.dtype == dtype
    assert output.logits.dtype == output.pauses.dtype == torch.float32
    assert output.logits.isfinite().all()


@pytest.mark.parametrize("layout", ["kyutai", "transformers"])
def test_in_memory(layout: str, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    checkpoint = open_checkpoint(str(request.getfixturevalue(layout)))
    expected = [*checkpoint.lm().parameters(), *checkpoint.mimi().parameters()]
    held = checkpoint.in_memory()
    monkeypatch.setattr(tensors, "safe_open", lambda *arguments, **options: pytest.fail("a file was read again"))
    found = [*held.lm().parameters(), *held.mimi().parameters()]
    assert all(torch.equal(ours, theirs) for ours, theirs in zip(found, expected, strict=True))


def test_describe_reads_no_weights(folder: Path) -> None:
    lm = open_checkpoint(str(folder)).lm()
    state = lm.init_state(1)
    (folder / "model.safetensors").unlink()
    (folder / "mimi.safetensors").unlink()
    description = describe(open_checkpoint(str(folder)))
    assert description.lm_bytes == sum(parameter.nbytes for parameter in lm.parameters())
    assert description.lm_stream_bytes == state.ring.keys.nbytes + state.ring.values.nbytes
    assert description.pause_heads == 4
    assert description.delay_seconds == 0.5


@pytest.mark.parametrize("name", ["nowhere", "a/b/c", "./kyutai/stt", "kyutai/"])
def test_invalid_name(name: str) -> None:
    with pytest.raises(ModelError, match=r"is neither a local folder nor a repository .*--model embedded"):
        open_checkpoint(name)


def test_no_network(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    expected = r"HF_HUB_OFFLINE is set, and config\.json of kyutai/stt-1b-en_fr-candle@abc is not .*--model embedded"
    with pytest.raises(ModelError, match=expected) as caught:
        open_checkpoint("kyutai/stt-1b-en_fr-candle@abc")
    assert "\n" not in str(caught.value)


def test_cached_repository(kyutai: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    cached = tmp_path / "models--some--model"
    (cached / "refs").mkdir(parents=True)
    (cached / "refs" / "main").write_text("0123")
    shutil.copytree(kyutai, cached / "snapshots" / "0123")
    monkeypatch.setattr("huggingface_hub.file_download.HF_HUB_CACHE", str(tmp_path), raising=False)
    checkpoint = open_checkpoint("some/model")
    assert checkpoint.config.lm.codebooks == 4
    assert Repository("some/model", "v1").revision == "v1"
