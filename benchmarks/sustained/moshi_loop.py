"""The number of streams that the `moshi` package's own streaming loop carries with the same language model.

The loop has a fixed batch and runs every row in every step. It carries a batch if the 99th percentile of its step is
within the 80 ms of a frame, without headroom. The codec's weights are random, which does not change its cost.
"""

from __future__ import annotations

import gc
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from importlib.metadata import version
from typing import Any

import numpy as np
import torch
from torch import Tensor

from sustained.live import BUDGET_MS
from tympan.bench.measure import percentile
from tympan.models.checkpoints.names import kyutai_lm
from tympan.models.config import LMConfig
from tympan.models.lm import LM

WARM_UP_STEPS = 8
STEPS = 40
_FINEST = 16  # streams


class MoshiLoop:
    """The model of the `moshi` package with the weights of a language model, and its own codec.

    Args:
        lm: The language model, in a floating point type.
        device: Device of ``lm``.

    Raises:
        ModuleNotFoundError: The package is missing.
    """

    def __init__(self, lm: LM, device: torch.device) -> None:
        from moshi.models import LMGen, loaders

        self.version = version("moshi")
        self._device, self._card = device, lm.config.audio_card
        self._mimi = loaders.get_mimi(None, device=device, num_codebooks=lm.codebooks)
        reference = build_moshi(lm, device)
        self._generator = LMGen(reference, use_sampling=False, temp=0.0, temp_text=0.0, check=False)

    def step_ms_p99(self, batch: int) -> float:
        """Return the 99th percentile of a step's milliseconds; infinity if the batch does not fit into the memory."""
        try:
            with _streaming(self._mimi, self._generator, batch):
                times = _time_steps(self._mimi, self._generator, self._card, batch, self._device)
            return round(1000 * percentile(times, 99), 2)
        except torch.OutOfMemoryError:
            return float("inf")
        finally:
            gc.collect()
            if self._device.type == "cuda":
                torch.cuda.empty_cache()


def moshi_streams(lm: LM, device: torch.device, most: int) -> tuple[int, float]:
    """Return the largest batch, up to ``most``, and its step's 99th percentile in ms; 0 if one row is too slow.

    Raises:
        ModuleNotFoundError: The package is missing.
    """
    return largest_batch(MoshiLoop(lm, device).step_ms_p99, most)


def largest_batch(step_ms: Callable[[int], float], most: int) -> tuple[int, float]:
    """Return the largest batch, up to ``most``, that is carried, and its step's milliseconds."""
    found: dict[int, float] = {}
    batch: int | None = 1
    while batch is not None:
        found[batch] = step_ms(batch)
        batch = next_batch(found, most)
    largest = carried(found)
    return largest, round(found.get(largest, 0.0), 2)


def carried(found: Mapping[int, float]) -> int:
    """Return the largest batch whose step, in milliseconds, is within the time of a frame; 0 if there is none."""
    return max((batch for batch, milliseconds in found.items() if milliseconds < BUDGET_MS), default=0)


def next_batch(found: Mapping[int, float], most: int) -> int | None:
    """Return the batch to try next: twice the largest, then halves of the gap down to `_FINEST`; None at the end."""
    fits = carried(found)
    too_many = min((batch for batch, milliseconds in found.items() if milliseconds >= BUDGET_MS), default=None)
    if too_many is None:
        return 2 * fits if 2 * fits <= most else None
    if not fits:
        return too_many // 2 or None
    return (fits + too_many) // 2 if too_many - fits > _FINEST else None


def build_moshi(lm: LM, device: torch.device) -> Any:
    """Return the model of the `moshi` package with the weights of ``lm``."""
    from moshi.models import LMModel

    config, transformer = lm.config, lm.config.transformer
    reference = LMModel(
        dim=transformer.dimension,
        num_layers=transformer.layers,
        num_heads=transformer.heads,
        hidden_scale=1.5 * transformer.hidden / transformer.dimension,
        context=transformer.context,
        max_period=transformer.max_period,
        n_q=lm.codebooks,
        dep_q=0,
        card=config.audio_card,
        text_card=config.text_card,
        existing_text_padding_id=config.padding_token,
        delays=[0] * (lm.codebooks + 1),
        gating="silu",
        norm="rms_norm_f32",
        positional_embedding="rope",
        causal=True,
        depformer_dim=64,
        extra_heads_num_heads=config.pause_heads,
        extra_heads_dim=config.pause_classes,
        device=device,
        dtype=lm.embedding.dtype,
    )
    # The other parameters belong to parts that speech to text does not run.
    loaded = reference.load_state_dict(dict(moshi_weights(lm, config)), strict=False)
    assert not loaded.unexpected_keys
    assert all("depformer" in name for name in loaded.missing_keys)
    return reference.eval()


def moshi_weights(lm: LM, config: LMConfig) -> Iterator[tuple[str, Tensor]]:
    """Yield the parameters of ``lm`` under moshi's names: the inverse of the table that reads its files."""
    for row in kyutai_lm(config):
        whole = lm.get_parameter(row.target).detach()
        parts = torch.split(whole, [source.shape[0] for source in row.sources]) if len(row.sources) > 1 else [whole]
        for source, part in zip(row.sources, parts, strict=True):
            yield source.names[-1], part.view(source.shape)


@contextmanager
def _streaming(mimi: Any, generator: Any, batch: int) -> Iterator[None]:
    with torch.no_grad(), mimi.streaming(batch), generator.streaming(batch):
        yield


def _time_steps(mimi: Any, generator: Any, card: int, batch: int, device: torch.device) -> list[float]:
    """Return the seconds from frames on the host to tokens and pauses on the host, for each of `STEPS` steps."""
    frames = torch.from_numpy(np.random.default_rng(0).standard_normal((batch, 1, 1920)).astype(np.float32) * 0.1)
    times = []
    for _ in range(WARM_UP_STEPS + STEPS):
        start = time.perf_counter()
        codes = mimi.encode(frames.to(device))
        if card < mimi.cardinality:
            codes = codes % card
        output = generator.step_with_extra_heads(codes)
        if output is not None:
            tokens, pauses = output
            _ = tokens[:, 0].tolist(), [head[..., 0].tolist() for head in pauses]
        times.append(time.perf_counter() - start)
    return times[WARM_UP_STEPS:]
