"""Write a `random:` model to a folder in Kyutai's layout, to time loading files instead of drawing weights."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from tympan.models.checkpoints import names
from tympan.models.checkpoints.load import open_checkpoint
from tympan.models.checkpoints.names import Row
from tympan.models.config import MimiConfig, ModelConfig
from tympan.transcript.tokenizer import SyntheticTokenizer


def write_checkpoint(model: str, folder: Path) -> None:
    """Write the weights of ``random:…`` as Kyutai publishes a model, with the language model in bf16.

    Raises:
        ModelError: There is no such random model.
    """
    checkpoint = open_checkpoint(model)
    config = checkpoint.config
    (folder / "config.json").write_text(json.dumps(_lm_config(config)), encoding="utf-8")
    (folder / "mimi.json").write_text(json.dumps(_mimi_config(config.mimi)), encoding="utf-8")
    lm = checkpoint.lm(dtype=torch.bfloat16)
    save_file(dict(_tensors(lm, names.kyutai_lm(config.lm))), folder / "model.safetensors")
    save_file(dict(_tensors(checkpoint.mimi(), names.kyutai_mimi(config.mimi))), folder / "mimi.safetensors")
    tokenizer = SyntheticTokenizer(config.lm.text_card)
    pieces = {tokenizer.piece(token) or f"<{token}>": token for token in range(tokenizer.size)}
    vocabulary = {"model": {"vocab": pieces}}
    (folder / "tokenizer.json").write_text(json.dumps(vocabulary), encoding="utf-8")


def _tensors(module: nn.Module, rows: Iterator[Row]) -> Iterator[tuple[str, Tensor]]:
    """Yield the tensors, by name, from which ``rows`` would build the parameters of ``module``."""
    for row in rows:
        if row.target.endswith("half_norms"):
            continue  # made from the same tensors as the centroids
        value = module.get_parameter(row.target)
        for source, tensor in zip(row.sources, _parts(row, value), strict=True):
            yield source.names[0], tensor.contiguous().clone()


def _parts(row: Row, value: Tensor) -> list[Tensor]:
    """Invert ``row.build``: scales and usages become ones, three dimensions are transposed, all else is split."""
    shapes = [source.shape for source in row.sources]
    if row.target.endswith("centroids"):
        return [tensor for centroids in value for tensor in (centroids, torch.ones(len(centroids)))]
    if len(shapes) == 2 and shapes[1] == shapes[0][:1]:
        return [value, torch.ones(shapes[1])]
    if len(shapes[0]) == 3:
        first, second, third = shapes[0]
        return [value.view(first, third, second).transpose(1, 2)]
    sizes = [math.prod(shape) for shape in shapes]
    pieces = value.reshape(-1).split(sizes)  # type: ignore[no-untyped-call]
    return [piece.view(shape) for piece, shape in zip(pieces, shapes, strict=True)]


def _lm_config(config: ModelConfig) -> dict[str, Any]:
    lm, transformer = config.lm, config.lm.transformer
    return {
        "model_type": "stt",
        "dim": transformer.dimension,
        "num_layers": transformer.layers,
        "num_heads": transformer.heads,
        "hidden_scale": 1.5 * transformer.hidden / transformer.dimension,
        "context": transformer.context,
        "max_period": transformer.max_period,
        "n_q": lm.codebooks,
        "card": lm.audio_card,
        "text_card": lm.text_card,
        "extra_heads_num_heads": lm.pause_heads,
        "extra_heads_dim": lm.pause_classes,
        "dep_q": 0,
        "delays": [0] * (lm.codebooks + 1),
        "stt_config": {
            "audio_delay_seconds": config.delay_seconds,
            "audio_silence_prefix_seconds": config.silence_prefix_seconds,
        },
        "mimi_name": "mimi.safetensors",
        "mimi_config_name": "mimi.json",
        "tokenizer_name": "tokenizer.json",
    }


def _mimi_config(config: MimiConfig) -> dict[str, Any]:
    seanet, transformer, quantizer = config.seanet, config.transformer, config.quantizer
    return {
        "channels": 1,
        "sample_rate": config.sample_rate,
        "frame_rate": config.frame_rate,
        "seanet": {
            "dimension": seanet.dimension,
            "n_filters": seanet.filters,
            "ratios": list(reversed(seanet.strides)),
            "kernel_size": seanet.kernel,
            "last_kernel_size": seanet.last_kernel,
            "residual_kernel_size": seanet.residual_kernel,
            "compress": seanet.compress,
        },
        "transformer": {
            "d_model": transformer.dimension,
            "num_layers": transformer.layers,
            "num_heads": transformer.heads,
            "dim_feedforward": transformer.hidden,
            "context": transformer.context,
            "max_period": transformer.max_period,
        },
        "quantizer": {"n_q": quantizer.codebooks, "bins": quantizer.bins, "dimension": quantizer.dimension},
    }
