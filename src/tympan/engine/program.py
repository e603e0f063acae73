"""One step of both networks over buffers that stay where they are.

Everything a step needs is in the buffers and everything it does happens on the device: a stream starts anew because a
number says so, not because Python does something. So the very same calls run eagerly on a CPU, and can be recorded
once and replayed on a GPU (`graphs`).
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from tympan.models.attention import Ring
from tympan.models.lm import LM
from tympan.models.mimi import MimiEncoder
from tympan.transcript.tokenizer import Tokenizer

CONTINUE = -1  # in the place of the frame to begin at


@dataclass(frozen=True)
class LoadedModel:
    """The two models on their device, and what turns tokens into text.

    cache_scales: for a cache of 8-bit floats, ``[2, layers, heads]`` float32.
    """

    mimi: MimiEncoder
    lm: LM
    tokenizer: Tokenizer
    device: torch.device
    cache_dtype: torch.dtype
    cache_scales: Tensor | None = None


class StepProgram:
    """The state of ``slots`` streams, and buffers for a step of up to ``rows`` of them.

    frames: ``[rows, frame_samples]`` float32. control: ``[rows, 3]`` int64: the row's slot, the frame at which a new
    stream begins in it (0) or `CONTINUE`, and the seed of a new stream. results: ``[rows, 2 + pause heads]`` float32:
    text token, its probability, P(pause) for each head; a float holds every token exactly.
    """

    def __init__(self, model: LoadedModel, slots: int, rows: int) -> None:
        self.model = model
        self._mimi_state = model.mimi.init_state(slots)
        self._lm_state = model.lm.init_state(slots, cache_dtype=model.cache_dtype, scales=model.cache_scales)
        device = model.device
        self.frames = torch.zeros(rows, model.mimi.frame_samples, device=device)
        self.control = torch.zeros(rows, 3, dtype=torch.int64, device=device)
        self.results = torch.zeros(rows, 2 + model.lm.config.pause_heads, device=device)

    @property
    def ring(self) -> Ring:
        """The language model's keys and values, for measuring."""
        return self._lm_state.ring

    def run(self, rows: int) -> None:
        """The first ``rows`` rows of the buffers."""
        self.predict(*self.encode(rows))

    @torch.inference_mode()
    def encode(self, rows: int) -> tuple[Tensor, Tensor]:
        """The codec's half of a step: codes ``[rows, codebooks]`` and slots ``[rows]``, both int64 on the device."""
        slots, begin, seeds = self.control[:rows].t().contiguous()
        self._mimi_state.reset(slots, begin)
        self._lm_state.reset(slots, begin, seeds)
        return self.model.mimi.encode(self.frames[:rows], self._mimi_state, slots), slots

    @torch.inference_mode()
    def predict(self, codes: Tensor, slots: Tensor) -> None:
        """The language model's half of a step."""
        output = self.model.lm.step(codes, self._lm_state, slots)
        results = self.results[: len(slots)]
        results[:, 0] = output.token
        results[:, 1] = output.probability
        results[:, 2:] = output.pauses
