"""``random:`` models: the exact architectures with seeded random weights, for sizing and tests without a download.

Weights are drawn so that signals keep their size through the layers, and codebooks are spread around what the codec
makes of a synthetic voice: codes, tokens and pauses vary with the audio, as with a trained model, and mean nothing.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from tympan.errors import ModelError
from tympan.models.checkpoints.checkpoint import Layout, check_codebooks
from tympan.models.checkpoints.weights import set_parameter
from tympan.models.config import LMConfig, MimiConfig, ModelConfig, QuantizerConfig, SeanetConfig, TransformerConfig
from tympan.models.lm import LM
from tympan.models.mimi import MimiEncoder

_TINY_MIMI = MimiConfig(
    seanet=SeanetConfig(dimension=32, filters=4),
    transformer=TransformerConfig(dimension=32, layers=2, heads=2, hidden=64, context=50, max_period=10_000.0),
    quantizer=QuantizerConfig(codebooks=8, bins=64, dimension=16),
)

PRESETS: dict[str, ModelConfig] = {
    "1b": ModelConfig(
        LMConfig(
            TransformerConfig(dimension=2048, layers=16, heads=16, hidden=5632, context=750, max_period=100_000.0),
            text_card=8000,
            pause_heads=4,
        ),
        MimiConfig(),
        delay_seconds=0.5,
    ),
    "2.6b": ModelConfig(
        LMConfig(
            TransformerConfig(dimension=2048, layers=48, heads=32, hidden=5632, context=375, max_period=100_000.0),
            text_card=4000,
        ),
        MimiConfig(),
        delay_seconds=2.5,
        silence_prefix_seconds=1.0,
    ),
    "tiny": ModelConfig(
        LMConfig(
            TransformerConfig(dimension=64, layers=2, heads=4, hidden=176, context=100, max_period=100_000.0),
            codebooks=8,
            audio_card=64,
            text_card=256,
            pause_heads=4,
        ),
        _TINY_MIMI,
        delay_seconds=0.5,
    ),
}

# The ids that separate words should come often, as in a trained model: they get longer output vectors.
_SEPARATOR_GAIN = 2.5


@dataclass(frozen=True)
class RandomCheckpoint:
    """A model without files; equal seeds give equal weights on every machine."""

    name: str
    config: ModelConfig
    seed: int = 0
    layout: Layout = "random"

    def in_memory(self) -> RandomCheckpoint:
        """There are no files to read."""
        return self

    def tokenizer_file(self) -> Path | None:
        return None

    def lm(
        self,
        *,
        device: str | torch.device = "cpu",
        dtype: torch.dtype = torch.bfloat16,
        codebooks: int | None = None,
        temperature: float = 0.0,
    ) -> LM:
        config = self.config.lm
        with torch.device("meta"):
            lm = LM(config, codebooks=check_codebooks(codebooks, self.config), temperature=temperature)
        separators = (config.padding_token, config.end_padding_token)
        randomize(lm, self.seed, device=torch.device(device), dtype=dtype, separators=separators)
        return lm

    def mimi(self, *, device: str | torch.device = "cpu", codebooks: int | None = None) -> MimiEncoder:
        with torch.device("meta"):
            mimi = MimiEncoder(self.config.mimi, check_codebooks(codebooks, self.config))
        randomize(mimi, self.seed + 1, device=torch.device("cpu"), dtype=torch.float32)
        spread_codebooks(mimi, self.seed + 2)
        return mimi.to(device)


def open_random(model: str) -> RandomCheckpoint:
    """``random:1b``, ``random:2.6b`` or ``random:tiny``, with ``@seed`` for another seed than 0."""
    preset, _, seed = model.removeprefix("random:").partition("@")
    if preset not in PRESETS or not (seed or "0").isdecimal():
        choices = ", ".join(f"random:{name}" for name in PRESETS)
        raise ModelError(f"there is no model {model}; random models are {choices}, each with @SEED at will")
    return RandomCheckpoint(model, PRESETS[preset], int(seed or "0"))


def randomize(
    module: nn.Module, seed: int, *, device: torch.device, dtype: torch.dtype, separators: Sequence[int] = ()
) -> None:
    """Draw every weight of ``module`` (built on the meta device): uniform, of a size that keeps signals' size.

    separators: rows of ``text_linear`` that win more often than others.
    """
    generator = torch.Generator().manual_seed(seed)
    for name, parameter in list(module.named_parameters()):
        value = torch.empty(parameter.shape)  # float32: drawn as another type, the values would be others
        if "norm" in name.split(".")[-2:][0] and name.endswith("weight"):
            value.fill_(1.0)
        elif name.endswith("bias"):
            value.zero_()
        else:
            width = parameter.shape[-1] if parameter.dim() > 1 else 1
            limit = math.sqrt(3.0) * (0.5 if name == "embedding" else 1.2 / math.sqrt(width))
            value.uniform_(-limit, limit, generator=generator)
        if name == "text_linear.weight":
            value[list(separators)] *= _SEPARATOR_GAIN
        set_parameter(module, name, value.to(device=device, dtype=dtype))


@torch.no_grad()
def spread_codebooks(mimi: MimiEncoder, seed: int, frames: int = 32) -> None:
    """Put each codebook's centroids around what is left to quantize of a synthetic voice at its stage."""
    generator = torch.Generator().manual_seed(seed)
    state, rows = mimi.init_state(1), torch.zeros(1, dtype=torch.int64)
    voice = synthetic_voice(frames * mimi.frame_samples, mimi.config.sample_rate, generator)
    latents = torch.cat([mimi.latent(frame[None], state, rows).clone() for frame in voice.view(frames, -1)])
    for stack in (mimi.quantizer.semantic, mimi.quantizer.acoustic):
        residual: Tensor = stack.input_proj(latents)
        for centroids, half_norms in zip(stack.centroids, stack.half_norms, strict=True):
            noise = torch.randn(centroids.shape, generator=generator)
            centroids.copy_(residual.mean(dim=0) + noise * residual.std(dim=0))
            half_norms.copy_(centroids.square().sum(dim=-1) / 2)
            code = torch.addmm(half_norms, residual, centroids.t(), alpha=-1.0).argmin(dim=-1)
            residual = residual - centroids[code]


def synthetic_voice(samples: int, sample_rate: int, generator: torch.Generator) -> Tensor:
    """Gliding harmonics in syllables with pauses, ``[samples]`` float32 in -1..1."""
    time = torch.arange(samples) / sample_rate
    pitch = 120 + 40 * torch.sin(2 * math.pi * 0.7 * time)
    phase = 2 * math.pi * torch.cumsum(pitch / sample_rate, dim=0)
    tilt = torch.rand(12, generator=generator)
    voice = sum((tilt[n] / (n + 1) * torch.sin((n + 1) * phase) for n in range(12)), torch.zeros(samples))
    syllables = torch.sin(2 * math.pi * 3 * time).clamp(min=0) * (torch.sin(2 * math.pi * 0.5 * time) > -0.5)
    hiss = 0.01 * torch.randn(samples, generator=generator)
    return (0.3 * voice * syllables + hiss).clamp(-1, 1)
