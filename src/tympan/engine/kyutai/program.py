"""One step of codec and language model over buffers at fixed addresses.

A step reads all its input from the buffers, and all its work happens on the device; even the start of a stream is a
number in a buffer. The same calls therefore run eagerly on a CPU and can be recorded once and replayed on a GPU
(`graphs`).
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from tympan.engine.batching.scheduler import KEPT_FRAMES
from tympan.models.layers.attention import Ring
from tympan.models.lm import LM
from tympan.models.mimi import MimiEncoder
from tympan.transcript.tokenizer import Tokenizer

CONTINUE = -1  # in `control`, for a stream that does not start in this step


@dataclass(frozen=True)
class LoadedModel:
    """Codec and language model on their device, and the tokenizer.

    Attributes:
        cache_dtype: Data type of the KV cache.
        cache_scales: Scales of an fp8 cache, ``[2, layers, heads]`` float32.
    """

    mimi: MimiEncoder
    lm: LM
    tokenizer: Tokenizer
    device: torch.device
    cache_dtype: torch.dtype
    cache_scales: Tensor | None = None


class StepProgram:
    """State of ``slots`` streams, and buffers for a step of up to ``rows`` of them.

    The codec stores the codes of a row. The language model reads the codes that the row names, from the row's slot:
    those just stored or, in a replayed row, those of an earlier frame. For a replayed row the codec runs in a spare
    slot, where its result is not used.

    Attributes:
        frames: ``[rows, frame_samples]`` float32.
        control: ``[rows, 5]`` int64. The row's slot; the frame number that a new stream starts at (normally 0) or
            `CONTINUE`; the seed of a new stream, `CONTINUE`, or `RETRY_SEED`; the codec's slot; the index of the codes
            in the slot.
        results: ``[rows, 3 + pause heads]`` float32. Text token, which a float represents exactly; its probability;
            root mean square of the frame; P(pause) of each head.
    """

    def __init__(self, model: LoadedModel, slots: int, rows: int) -> None:
        self.model = model
        self._mimi_state = model.mimi.init_state(slots)
        self._lm_state = model.lm.init_state(slots, cache_dtype=model.cache_dtype, scales=model.cache_scales)
        device = model.device
        self._codes = torch.zeros(slots * KEPT_FRAMES, model.lm.codebooks, dtype=torch.int16, device=device)
        self.frames = torch.zeros(rows, model.mimi.frame_samples, device=device)
        self.control = torch.zeros(rows, 5, dtype=torch.int64, device=device)
        self.results = torch.zeros(rows, 3 + model.lm.config.pause_heads, device=device)

    @property
    def ring(self) -> Ring:
        """KV cache of the language model."""
        return self._lm_state.ring

    def run(self, rows: int, codec_rows: int | None = None) -> None:
        """Run the first ``rows`` rows of the buffers, and the codec for the first ``codec_rows`` of them or all."""
        self.predict(*self.encode(rows, codec_rows))

    @torch.inference_mode()
    def encode(self, rows: int, codec_rows: int | None = None) -> tuple[Tensor, Tensor]:
        """Run the codec's half of a step; return codes ``[rows, codebooks]`` and slots ``[rows]``, both int64."""
        slots, begin, seeds, codec_slots, places = self.control[:rows].t().contiguous()
        self._lm_state.reset(slots, begin, seeds)
        count = rows if codec_rows is None else codec_rows
        if count:
            self._store_codes(self.frames[:count], slots[:count], begin[:count], codec_slots[:count], places[:count])
        return self._codes.index_select(0, slots * KEPT_FRAMES + places).to(torch.int64), slots

    def _store_codes(self, frames: Tensor, slots: Tensor, begin: Tensor, codec_slots: Tensor, places: Tensor) -> None:
        # In the spare slot the codec starts anew in every step.
        self._mimi_state.reset(codec_slots, begin.masked_fill(codec_slots != slots, 0))
        codes = self.model.mimi.encode(frames, self._mimi_state, codec_slots)
        self._codes.index_copy_(0, codec_slots * KEPT_FRAMES + places, codes.to(torch.int16))
        self.results[: len(frames), 2] = torch.linalg.vector_norm(frames, dim=1) / frames.shape[1] ** 0.5

    @torch.inference_mode()
    def predict(self, codes: Tensor, slots: Tensor) -> None:
        """Run the language model's half of a step, on the results of `encode`."""
        output = self.model.lm.step(codes, self._lm_state, slots)
        results = self.results[: len(slots)]
        results[:, 0] = output.token
        results[:, 1] = output.probability
        results[:, 3:] = output.pauses
