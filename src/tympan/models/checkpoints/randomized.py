"""``random:`` models: the published architectures with seeded random weights, for sizing and for tests.

Weights are drawn so that signals keep their magnitude through the layers, and codebooks are centered on the codec's
output for a synthetic voice. Codes, tokens and pauses therefore vary with the audio as in a trained model, but the
words are meaningless.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Self

import torch
from torch import Tensor, nn

from tympan.errors import ModelError
from tympan.models.checkpoints.checkpoint import Checkpoint, Layout
from tympan.models.checkpoints.download import Report, no_report
from tympan.models.checkpoints.tensors import set_parameter
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

# Longer output vectors make the tokens that separate words as frequent as in a trained model.
_SEPARATOR_GAIN = 2.5


@dataclass(frozen=True)
class RandomCheckpoint(Checkpoint):
    """A model without files; equal seeds give equal weights on every machine."""

    seed: int = 0
    layout: Layout = field(default="random", kw_only=True)

    def prepare(self, report: Report = no_report) -> None:
        """Do nothing: there are no files."""

    def in_memory(self) -> Self:
        """Return the same checkpoint, which has no files to read."""
        return self

    def fingerprint(self) -> str | None:
        """Return None."""
        return None

    def tokenizer_file(self) -> Path | None:
        """Return None."""
        return None

    def _load_lm(self, lm: LM, device: torch.device, dtype: torch.dtype) -> None:
        separators = (lm.config.padding_token, lm.config.end_padding_token)
        randomize(lm, self.seed, device=device, dtype=dtype, separators=separators)

    def _load_mimi(self, mimi: MimiEncoder, device: torch.device) -> None:
        randomize(mimi, self.seed + 1, device=torch.device("cpu"), dtype=torch.float32)
        spread_codebooks(mimi, self.seed + 2)
        mimi.to(device)


def open_random(model: str) -> RandomCheckpoint:
    """Open ``random:1b``, ``random:2.6b`` or ``random:tiny``, optionally followed by ``@seed``.

    Raises:
        ModelError: There is no such model.
    """
    preset, _, seed = model.removeprefix("random:").partition("@")
    if preset not in PRESETS or not (seed or "0").isdecimal():
        choices = ", ".join(f"random:{name}" for name in PRESETS)
        raise ModelError(f"there is no model {model}; expected {choices}, optionally with @SEED")
    return RandomCheckpoint(model, PRESETS[preset], int(seed or "0"))


def randomize(
    module: nn.Module, seed: int, *, device: torch.device, dtype: torch.dtype, separators: Sequence[int] = ()
) -> None:
    """Draw every weight of ``module`` from a uniform distribution that keeps the magnitude of signals.

    Args:
        module: A network on the meta device.
        seed: Seed of the generator.
        device: Device of the weights.
        dtype: Data type of the weights.
        separators: Rows of ``text_linear`` whose tokens should be more frequent than others.
    """
    generator = torch.Generator().manual_seed(seed)
    for name, parameter in list(module.named_parameters()):
        value = torch.empty(parameter.shape)  # float32, because the values would depend on the dtype
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
    """Center the centroids of each codebook on the residuals of a synthetic voice at its stage."""
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
    """Return gliding harmonics in syllables with pauses, ``[samples]`` float32 between -1 and 1."""
    time = torch.arange(samples) / sample_rate
    pitch = 120 + 40 * torch.sin(2 * math.pi * 0.7 * time)
    phase = 2 * math.pi * torch.cumsum(pitch / sample_rate, dim=0)
    tilt = torch.rand(12, generator=generator)
    voice = sum((tilt[n] / (n + 1) * torch.sin((n + 1) * phase) for n in range(12)), torch.zeros(samples))
    syllables = torch.sin(2 * math.pi * 3 * time).clamp(min=0) * (torch.sin(2 * math.pi * 0.5 * time) > -0.5)
    hiss = 0.01 * torch.randn(samples, generator=generator)
    return (0.3 * voice * syllables + hiss).clamp(-1, 1)
