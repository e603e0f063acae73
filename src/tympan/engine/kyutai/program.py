"""One step of both networks over buffers that stay where they are.

Everything a step needs is in the buffers and everything it does happens on the device: a stream starts anew because a
number says so, not because Python does something. So the very same calls run eagerly on a CPU, and can be recorded
once and replayed on a GPU (`graphs`).
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from tympan.engine.batching.scheduler import REPLAY_FRAMES
from tympan.models.layers.attention import Ring
from tympan.models.lm import LM
from tympan.models.mimi import MimiEncoder
from tympan.transcript.tokenizer import Tokenizer

CONTINUE = -1  # in the place of the frame to begin at, and of the seed


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

    frames: ``[rows, frame_samples]`` float32.
    control: ``[rows, 5]`` int64: the row's slot; the frame at which a new stream begins in it (0) or `CONTINUE`; the
    seed of a new stream or `CONTINUE`; the codec's slot; the place among the kept codes of what the row runs on.
    results: ``[rows, 3 + pause heads]`` float32: text token, its probability, root mean square of the frame,
    P(pause) for each head; a float holds every token exactly.

    The codec leaves the codes of a row at its place, and the language model takes up what lies there in the row's slot:
    the same, or, where the codec ran in another slot, those of an earlier frame.
    """

    def __init__(self, model: LoadedModel, slots: int, rows: int) -> None:
        self.model = model
        self._mimi_state = model.mimi.init_state(slots)
        self._lm_state = model.lm.init_state(slots, cache_dtype=model.cache_dtype, scales=model.cache_scales)
        device = model.device
        self._codes = torch.zeros(slots * REPLAY_FRAMES, model.lm.codebooks, dtype=torch.int16, device=device)
        self.frames = torch.zeros(rows, model.mimi.frame_samples, device=device)
        self.control = torch.zeros(rows, 5, dtype=torch.int64, device=device)
        self.results = torch.zeros(rows, 3 + model.lm.config.pause_heads, device=device)

    @property
    def ring(self) -> Ring:
        """The language model's keys and values, for measuring."""
        return self._lm_state.ring

    def run(self, rows: int, heard: int | None = None) -> None:
        """The first ``rows`` rows of the buffers; all, or the first ``heard`` of them, through the codec."""
        self.predict(*self.encode(rows, heard))

    @torch.inference_mode()
    def encode(self, rows: int, heard: int | None = None) -> tuple[Tensor, Tensor]:
        """The codec's half of a step: codes ``[rows, codebooks]`` and slots ``[rows]``, both int64 on the device."""
        slots, begin, seeds, codec_slots, places = self.control[:rows].t().contiguous()
        self._lm_state.reset(slots, begin, seeds)
        heard = rows if heard is None else heard
        if heard:
            self._hear(self.frames[:heard], slots[:heard], begin[:heard], codec_slots[:heard], places[:heard])
        return self._codes.index_select(0, slots * REPLAY_FRAMES + places).to(torch.int64), slots

    def _hear(self, frames: Tensor, slots: Tensor, begin: Tensor, codec_slots: Tensor, places: Tensor) -> None:
        """Run the codec, and keep the codes. Where its slot is not the row's, it begins anew: nothing comes of it."""
        self._mimi_state.reset(codec_slots, begin.masked_fill(codec_slots != slots, 0))
        codes = self.model.mimi.encode(frames, self._mimi_state, codec_slots)
        self._codes.index_copy_(0, codec_slots * REPLAY_FRAMES + places, codes.to(torch.int16))
        self.results[: len(frames), 2] = torch.linalg.vector_norm(frames, dim=1) / frames.shape[1] ** 0.5

    @torch.inference_mode()
    def predict(self, codes: Tensor, slots: Tensor) -> None:
        """The language model's half of a step."""
        output = self.model.lm.step(codes, self._lm_state, slots)
        results = self.results[: len(slots)]
        results[:, 0] = output.token
        results[:, 1] = output.probability
        results[:, 3:] = output.pauses
