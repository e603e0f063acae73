"""Owns the device: the weights, every slot's state, the input buffer. Takes rows, gives Python numbers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from tympan.engine.base import EngineInfo
from tympan.engine.scheduler import Row
from tympan.engine.step import StepResult
from tympan.models.lm import LM
from tympan.models.mimi import MimiEncoder
from tympan.transcript.tokenizer import Tokenizer


@dataclass(frozen=True)
class LoadedModel:
    """The two models on their device, and what turns tokens into text."""

    mimi: MimiEncoder
    lm: LM
    tokenizer: Tokenizer
    device: torch.device
    cache_dtype: torch.dtype


class KyutaiRunner:
    """Codec and language model for `slots` streams, run eagerly, one frame of each row per step."""

    def __init__(self, model: LoadedModel, info: EngineInfo, slots: int, seed: int = 0) -> None:
        self.info = info
        self.slots = slots
        self.tokenizer = model.tokenizer
        self._model = model
        self._mimi_state = model.mimi.init_state(slots)
        self._lm_state = model.lm.init_state(slots, cache_dtype=model.cache_dtype)
        self._frames = np.zeros((slots, info.frame_samples), np.float32)
        self._next_seed = seed

    def step(self, rows: Sequence[Row]) -> StepResult:
        codes, indices = self.encode(rows)
        return self.predict(codes, indices)

    @torch.inference_mode()
    def encode(self, rows: Sequence[Row]) -> tuple[torch.Tensor, torch.Tensor]:
        """The codec's half of a step: codes `[B, codebooks]` and slot indices `[B]`, both int64 on the device."""
        device = self._model.device
        for place, row in enumerate(rows):
            self._frames[place] = 0.0 if row.frame is None else row.frame
        indices = torch.tensor([row.slot.index for row in rows], device=device)
        self._reset([row.slot.index for row in rows if row.fresh])
        frames = torch.from_numpy(self._frames[: len(rows)]).to(device)
        return self._model.mimi.encode(frames, self._mimi_state, indices), indices

    @torch.inference_mode()
    def predict(self, codes: torch.Tensor, indices: torch.Tensor) -> StepResult:
        """The language model's half of a step."""
        output = self._model.lm.step(codes, self._lm_state, indices)
        return StepResult(output.token.tolist(), output.probability.tolist(), output.pauses.tolist())

    def pretend_seconds(self, seconds: float) -> None:
        """Move every slot to a later position, so that a measurement sees full rings."""
        frames = int(seconds / self.info.frame_seconds)
        self._mimi_state.position.fill_(frames)
        self._lm_state.position.fill_(frames)

    def _reset(self, fresh: Sequence[int]) -> None:
        """New streams start at position 0, each with a seed of its own."""
        if not fresh:
            return
        rows = torch.tensor(fresh, device=self._model.device)
        self._mimi_state.reset(rows)
        self._lm_state.reset(rows)
        seeds = torch.arange(self._next_seed, self._next_seed + len(fresh), device=self._model.device)
        self._lm_state.seed.index_copy_(0, rows, seeds)
        self._next_seed += len(fresh)
