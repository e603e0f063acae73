"""The `moshi` package's own streaming loop on the same language model: how many streams it carries.

Its loop has a fixed batch and runs every row in every step. It carries a batch while the 99th percentile of its step is
within the 80 ms that a frame lasts; no headroom is asked of it. The codec's weights are its own random ones: they cost
what others cost.
"""

from __future__ import annotations

import gc
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import Tensor

from tympan.bench.live import BUDGET_MS
from tympan.bench.measure import percentile
from tympan.models.config import LMConfig
from tympan.models.lm import LM
from tympan.models.names import kyutai_lm

WARM_UP_STEPS = 8
STEPS = 40
_FINEST = 16  # streams


def moshi_streams(lm: LM, device: torch.device, most: int) -> tuple[int, float]:
    """The largest batch, up to `most`, and its step's 99th percentile in milliseconds; 0 where one row is too slow.

    `lm` in a floating point type. Raises `ModuleNotFoundError` where the package is missing.
    """
    from moshi.models import LMGen, loaders

    reference = build_moshi(lm, device)
    mimi = loaders.get_mimi(None, device=device, num_codebooks=lm.codebooks)
    generator = LMGen(reference, use_sampling=False, temp=0.0, temp_text=0.0, check=False)

    def step_ms(batch: int) -> float:
        try:
            with _streaming(mimi, generator, batch):
                return 1000 * percentile(_time_steps(mimi, generator, lm.config.audio_card, batch, device), 99)
        except torch.OutOfMemoryError:
            return float("inf")
        finally:
            gc.collect()
            if device.type == "cuda":
                torch.cuda.empty_cache()

    return largest_batch(step_ms, most)


def largest_batch(step_ms: Callable[[int], float], most: int) -> tuple[int, float]:
    """By doubling, then by halving the gap down to `_FINEST`."""
    fits, fits_ms, too_many = 0, 0.0, most + 1
    batch = 1
    while batch <= most and too_many > most:
        milliseconds = step_ms(batch)
        if milliseconds < BUDGET_MS:
            fits, fits_ms = batch, milliseconds
            batch *= 2
        else:
            too_many = batch
    while too_many - fits > _FINEST and fits:
        batch = (fits + too_many) // 2
        milliseconds = step_ms(batch)
        if milliseconds < BUDGET_MS:
            fits, fits_ms = batch, milliseconds
        else:
            too_many = batch
    return fits, round(fits_ms, 2)


def build_moshi(lm: LM, device: torch.device) -> Any:
    """moshi's model with the weights of `lm`."""
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
    # The rest belongs to a part that speech to text does not run.
    loaded = reference.load_state_dict(dict(moshi_weights(lm, config)), strict=False)
    assert not loaded.unexpected_keys
    assert all("depformer" in name for name in loaded.missing_keys)
    return reference.eval()


def moshi_weights(lm: LM, config: LMConfig) -> Iterator[tuple[str, Tensor]]:
    """The parameters of `lm` under moshi's names: the table that reads its files, read from right to left."""
    for row in kyutai_lm(config, lm.codebooks):
        whole = lm.get_parameter(row.target).detach()
        parts = torch.split(whole, [source.shape[0] for source in row.sources]) if len(row.sources) > 1 else [whole]
        for source, part in zip(row.sources, parts, strict=True):
            yield source.names[-1], part.view(source.shape)


@contextmanager
def _streaming(mimi: Any, generator: Any, batch: int) -> Iterator[None]:
    with torch.no_grad(), mimi.streaming(batch), generator.streaming(batch):
        yield


def _time_steps(mimi: Any, generator: Any, card: int, batch: int, device: torch.device) -> list[float]:
    """Seconds from frames on the host to tokens and pauses on the host, for each of `STEPS` steps."""
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
