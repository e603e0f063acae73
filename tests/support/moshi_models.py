"""Random models of the moshi package, their checkpoints in Kyutai's layout, and their results as the reference.

Weights are scaled so that codes, tokens and pauses change with the audio.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from moshi.models import LMGen, LMModel, loaders
from moshi.models.compression import MimiModel
from moshi.utils.compile import no_compile
from safetensors.torch import save_file
from torch import Tensor, nn

from support.model_speech import speech


@dataclass(frozen=True)
class Shape:
    """Sizes of one random model."""

    seed: int
    full_codec: bool = False
    heads: int = 4
    context: int = 40
    codebooks: int = 8
    published_names: bool = True

    @staticmethod
    def of(seed: int, full_codec: bool = False) -> Shape:
        """Return sizes that depend on the seed."""
        rng = np.random.default_rng(seed)
        return Shape(
            seed=seed,
            full_codec=full_codec,
            heads=int(rng.choice([0, 4])) if seed else 4,
            context=int(rng.integers(15, 70)),
            codebooks=32 if full_codec else int(rng.choice([4, 8, 16])),
            published_names=bool(seed % 2 == 0),
        )


def mimi_config(shape: Shape) -> dict[str, Any]:
    """Return moshi's configuration of the codec; a small codec also has frames of 1920 samples."""
    config: dict[str, Any] = json.loads(json.dumps(loaders._mimi_config))
    if shape.full_codec:
        return config
    rng = np.random.default_rng(shape.seed + 1000)
    dimension = int(rng.choice([32, 64]))
    config["seanet"] |= {"dimension": dimension, "n_filters": int(rng.choice([4, 8]))}
    config["transformer"] |= {
        "d_model": dimension,
        "num_heads": int(rng.choice([2, 4])),
        "num_layers": int(rng.integers(1, 4)),
        "context": int(rng.choice([25, 50, 100, 250])),
        "dim_feedforward": 4 * dimension,
        "input_dimension": dimension,
        "output_dimensions": [dimension],
    }
    config["quantizer"] |= {
        "dimension": 32,
        "n_q": shape.codebooks,
        "bins": int(rng.choice([128, 256, 512])),
        "input_dimension": dimension,
        "output_dimension": dimension,
    }
    return config


def scale_weights(module: nn.Module, seed: int, gain: float = 1.2) -> None:
    """Draw every parameter from a normal distribution."""
    generator = torch.Generator().manual_seed(seed)
    for name, parameter in module.named_parameters():
        draw = torch.randn(parameter.shape, generator=generator)
        if "layer_scale" in name:
            value = 0.4 + 0.1 * draw
        elif "norm" in name and not name.endswith("bias"):
            value = 1 + 0.2 * draw
        elif parameter.dim() == 1:
            value = 0.1 * draw
        elif "emb" in name:
            value = 0.5 * draw
        else:
            value = gain * draw / np.sqrt(np.prod(parameter.shape[1:]))
        parameter.data.copy_(value)


def spread_codebooks(codebooks: list[Any], residual: Tensor, seed: int, total: str, usage: str) -> None:
    """Center the centroids of each codebook of a stack on the residuals at its stage."""
    generator = torch.Generator().manual_seed(seed)
    for codebook in codebooks:
        sums, counts = getattr(codebook, total), getattr(codebook, usage)
        centroids = residual.mean(0) + residual.std(0) * torch.randn(sums.shape, generator=generator)
        counts.copy_(0.5 + 3 * torch.rand(counts.shape, generator=generator))
        sums.copy_(centroids * counts[:, None])
        codebook._embedding = codebook._embed = None
        residual = residual - centroids[torch.cdist(residual, centroids).argmin(-1)]


@torch.no_grad()
def moshi_mimi(shape: Shape) -> MimiModel:
    """Return a random codec."""
    config = mimi_config(shape)
    mimi = loaders.get_mimi(None, config, num_codebooks=config["quantizer"]["n_q"])
    scale_weights(mimi, shape.seed)
    latent = mimi.encode_to_latent(speech(100, seed=12_345).view(1, 1, -1), quantize=False)
    for rvq in (mimi.quantizer.rvq_first, mimi.quantizer.rvq_rest):
        codebooks = [layer._codebook for layer in rvq.vq.layers]
        spread_codebooks(codebooks, rvq.input_proj(latent)[0].t(), shape.seed, "embedding_sum", "cluster_usage")
    return mimi


def lm_config(shape: Shape, card: int) -> dict[str, Any]:
    """Return moshi's configuration of the language model."""
    rng = np.random.default_rng(shape.seed + 2000)
    return {
        "dim": int(rng.choice([64, 96, 128])),
        "num_layers": int(rng.integers(2, 5)),
        "num_heads": int(rng.choice([2, 4])),
        "hidden_scale": float(rng.choice([4, 4.125])),
        "context": shape.context,
        "max_period": float(rng.choice([10_000.0, 100_000.0])),
        "n_q": shape.codebooks,
        "dep_q": 0,
        "card": card,
        "text_card": int(rng.integers(100, 600)),
        "existing_text_padding_id": 3,
        "delays": [0] * (shape.codebooks + 1),
        "gating": "silu",
        "norm": "rms_norm_f32",
        "positional_embedding": "rope",
        "causal": True,
        "depformer_dim": 64,
        "depformer_multi_linear": bool(shape.seed % 3),
        "extra_heads_num_heads": shape.heads,
        "extra_heads_dim": 6,
    }


def moshi_lm(shape: Shape, card: int) -> LMModel:
    """Return a random language model."""
    lm = LMModel(**lm_config(shape, card)).eval()
    scale_weights(lm, shape.seed + 1, gain=1.5)
    return lm


def write_kyutai(folder: Path, shape: Shape, mimi: MimiModel, lm: LMModel) -> None:
    """Write a checkpoint as in Kyutai's repositories (the ``-candle`` ones if the model has pause heads)."""
    config = lm_config(shape, lm.card)
    config |= {
        "moshi_name": "model.safetensors",
        "mimi_name": "mimi.safetensors",
        "tokenizer_name": "tokenizer.model",
        "model_type": "stt",
        "lm_gen_config": {"temp": 0.0, "temp_text": 0.0, "top_k": 250, "top_k_text": 50},
        "stt_config": {"audio_delay_seconds": 0.5, "audio_silence_prefix_seconds": 0.0},
        "fuser": None,
    }
    if not shape.full_codec:
        config["mimi_config_name"] = "mimi_config.json"
        (folder / "mimi_config.json").write_text(json.dumps(mimi_config(shape)))
    (folder / "config.json").write_text(json.dumps(config))
    save_file(_names(lm.state_dict(), shape.published_names), folder / "model.safetensors")
    save_file(_names(mimi.state_dict(), shape.published_names), folder / "mimi.safetensors")


def _names(tensors: dict[str, Tensor], published: bool) -> dict[str, Tensor]:
    """Rename tensors as in published files, or keep moshi's names in memory."""
    if not published:
        return {name: tensor.clone() for name, tensor in tensors.items()}
    return {
        name.replace("in_projs.0.weight", "in_proj_weight").replace("out_projs.0", "out_proj"): tensor.clone()
        for name, tensor in tensors.items()
    }


@dataclass(frozen=True)
class Reference:
    """Results of a stream: codes ``[T, K]``, one token per frame, pauses ``[T, heads]``."""

    codes: Tensor
    tokens: list[int]
    pauses: Tensor


@torch.no_grad()
def run_moshi(mimi: MimiModel, lm: LMModel, frames: Tensor) -> Reference:
    """Run frame by frame; the first frame is repeated, because moshi replaces its codes by the initial tokens."""
    generator = LMGen(lm, use_sampling=False, temp=0.0, temp_text=0.0)
    codes, tokens, pauses = [], [], []
    # Compiling the norms takes longer than these tests, and logs a warning.
    with no_compile(), mimi.streaming(1), generator.streaming(1):
        for index, frame in enumerate(frames):
            code = mimi.encode(frame[None, None])
            if index == 0:
                generator.step(code)
            result = generator.step_with_extra_heads(code)
            assert result is not None
            out, heads = result
            codes.append(code[0, :, 0].clone())
            tokens.append(int(out[0, 0, 0]))
            pauses.append(torch.tensor([float(head[0, 0, 0]) for head in heads]))
    return Reference(torch.stack(codes), tokens, torch.stack(pauses))
