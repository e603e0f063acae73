"""The decoder-only language model: audio codes of a frame and the previous text token in, the next text token out.

It models delayed streams: Zeghidour et al. 2025 (arXiv:2509.08753). Position 0, with the initial token on every input,
is the same for all streams. It is computed once, kept in the state, and copied to a slot with the first frame of a
stream. Frame ``i`` runs at position ``i + 1`` as soon as it arrives.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from tympan.models import kernels
from tympan.models.config import LMConfig
from tympan.models.layers.attention import LARGEST_FP8, Ring, as_indexable, reset_positions
from tympan.models.layers.transformer import GatedFeedForward, RMSNorm, Transformer
from tympan.models.sampling import sample_token, token_probability


@dataclass(frozen=True)
class LMOutput:
    """Result of one step.

    Attributes:
        token: ``[B]`` int64, the text token.
        probability: ``[B]`` float32, softmax probability of the token.
        pauses: ``[B, heads]`` float32, probability of a pause for each horizon.
        logits: ``[B, V]`` float32.
    """

    token: Tensor
    probability: Tensor
    pauses: Tensor
    logits: Tensor


@dataclass(frozen=True)
class InitialStep:
    """Result of position 0, shared by all streams: ``keys`` and ``values [layers, H, D]``, ``logits [1, V]``."""

    keys: Tensor
    values: Tensor
    logits: Tensor


@dataclass
class LMState:
    """State of the language model for every slot.

    Attributes:
        position: ``[slots]`` int64, frames processed so far. At 0 everything else in the slot but its seed is ignored.
        token: ``[slots]`` int64, the last text token.
        seed: ``[slots]`` int64, seed of the sampling for temperatures above 0, or `RETRY_SEED`.
        ring: Keys and values.
        start: Position 0, which all streams share.
        frequency: ``[D / 2]`` float32, rotary frequencies.
    """

    position: Tensor
    token: Tensor
    seed: Tensor
    ring: Ring
    start: InitialStep
    frequency: Tensor

    def reset(self, rows: Tensor, begin: Tensor | None = None, seeds: Tensor | None = None) -> None:
        """Start new streams.

        Args:
            rows: ``[n]`` int64, slots.
            begin: As for :func:`reset_positions`.
            seeds: ``[n]`` int64; -1 keeps the seed of the slot.
        """
        reset_positions(self.position, rows, begin)
        if seeds is not None:
            self.seed.index_copy_(0, rows, torch.where(seeds == -1, self.seed.index_select(0, rows), seeds))


class LM(nn.Module):
    """The language model.

    Args:
        config: The architecture.
        temperature: Sampling temperature; 0 is greedy.

    Attributes:
        compute_dtype: Data type of activations; None for that of the embedding.
    """

    def __init__(self, config: LMConfig, *, temperature: float = 0.0) -> None:
        super().__init__()
        self.config = config
        self.codebooks = config.codebooks
        self.temperature = temperature
        self.compute_dtype: torch.dtype | None = None
        dimension = config.transformer.dimension
        rows = self.codebooks * (config.audio_card + 1) + config.text_card + 1
        # One table for all inputs, the text's rows last: one gather and one sum per step.
        self.embedding = nn.Parameter(torch.zeros(rows, dimension))
        self.transformer = Transformer(config.transformer, RMSNorm, GatedFeedForward)
        self.out_norm = RMSNorm(dimension)
        self.text_linear = nn.Linear(dimension, config.text_card, bias=False)
        heads = config.pause_heads  # all of them in one matrix
        self.pause_linear = nn.Linear(dimension, heads * config.pause_classes, bias=False) if heads else None

    def init_state(
        self, slots: int, *, cache_dtype: torch.dtype | None = None, scales: Tensor | None = None
    ) -> LMState:
        """Return the state of ``slots`` new streams, on the device of the weights.

        Args:
            slots: Number of streams.
            cache_dtype: Data type of cached keys and values; by default that of the embedding.
            scales: ``[2, layers, H]`` float32 for a cache of 8-bit floats, from :meth:`measure_scales`.
        """
        device = self.embedding.device
        dtype = self.embedding.dtype if cache_dtype is None else cache_dtype
        counters = torch.zeros(3, slots, dtype=torch.int64, device=device)
        frequency = self.transformer.init_frequency(device)
        return LMState(
            position=counters[0],
            token=counters[1],
            seed=counters[2],
            ring=self._init_ring(slots, dtype, scales),
            start=self._run_position_zero(frequency, dtype, scales),
            frequency=frequency,
        )

    def _init_ring(self, slots: int, dtype: torch.dtype, scales: Tensor | None) -> Ring:
        ring = self.transformer.init_ring(slots, device=self.embedding.device, dtype=dtype)
        if scales is not None:
            ring.scales = scales
        return ring

    @torch.inference_mode()
    def measure_scales(self, codes: Tensor) -> Tensor:
        """Measure the scales of a cache of 8-bit floats on one stream.

        The largest key (value) of each head maps to a quarter of the type's range, which costs a float no precision.
        Values above four times that are clamped.

        Args:
            codes: ``[frames, K]`` int64.

        Returns:
            ``[2, layers, H]`` float32, of keys and of values.
        """
        state = self.init_state(1, cache_dtype=torch.float32)
        rows = torch.zeros(1, dtype=torch.int64, device=codes.device)
        for frame in codes:
            self.step(frame[None], state, rows)
        cached = torch.stack((state.ring.keys[:, 0], state.ring.values[:, 0]))[..., : len(codes) + 1, :]
        return (cached.abs().amax(dim=(-2, -1)) * (4 / LARGEST_FP8)).clamp(min=1e-6)

    @torch.inference_mode()
    def step(self, codes: Tensor, state: LMState, rows: Tensor) -> LMOutput:
        """Predict the text token that follows one more frame of each stream, and advance the state.

        Args:
            codes: ``[B, K]`` int64.
            state: The state; only the slots ``rows`` are read and written.
            rows: ``[B]`` int64, distinct slots.
        """
        frames = state.position.index_select(0, rows)
        seed = state.seed.index_select(0, rows)
        previous = self._start_streams(frames, seed, state, rows)
        position = frames + 1
        hidden = self._hidden(self._embed(codes, previous), state.ring, state.frequency, rows, position)
        logits = self.text_linear(hidden).float()
        token, probability = self._select_token(logits, seed, position)
        state.token.index_copy_(0, rows, token)
        state.position.index_copy_(0, rows, position)
        return LMOutput(token, probability, self._pauses(hidden), logits)

    def _select_token(self, logits: Tensor, seed: Tensor, position: Tensor) -> tuple[Tensor, Tensor]:
        """Return the next token ``[B]`` int64 and its probability ``[B]`` float32, which is NaN for invalid logits."""
        if kernels.usable(logits.device):
            from tympan.models.kernels.fused import choose_token

            return choose_token(logits, seed, position, self.temperature)
        token = sample_token(logits, self.temperature, seed, position)
        return token, token_probability(token, logits)

    def _start_streams(self, frames: Tensor, seed: Tensor, state: LMState, rows: Tensor) -> Tensor:
        """Write position 0 for rows at their first frame, and return the previous token of every row, ``[B]`` int64."""
        fresh = frames == 0
        if frames.device.type == "cpu" and not fresh.any():  # on a GPU this test would wait for the device
            return state.token.index_select(0, rows)
        ring, start = state.ring, state.start
        if kernels.usable(frames.device):
            from tympan.models.kernels.fused import store_initial_step

            store_initial_step(frames, rows, ring.keys, ring.values, start.keys, start.values)
        else:
            for cache, new in ((ring.keys, start.keys), (ring.values, start.values)):
                first_entry = as_indexable(cache)[:, :, :, 0]  # [layers, slots, H, D]
                kept = first_entry.index_select(1, rows)
                first_entry.index_copy_(1, rows, torch.where(fresh[:, None, None], as_indexable(new)[:, None], kept))
        first, _ = self._select_token(start.logits.expand(len(seed), -1), seed, torch.zeros_like(seed))
        return torch.where(fresh, first, state.token.index_select(0, rows))

    def _hidden(self, x: Tensor, ring: Ring, frequency: Tensor, rows: Tensor, position: Tensor) -> Tensor:
        """Run the inputs ``x [B, dimension]`` at one position per row, and return the normalized output."""
        x = self.transformer(x[:, None], ring, frequency, rows, position[:, None])
        out: Tensor = self.out_norm(x)[:, 0]
        return out

    def _embed(self, codes: Tensor, text: Tensor) -> Tensor:
        """Sum the embeddings of ``codes [B, K]`` and ``text [B]``: ``[B, dimension]``."""
        card = self.config.audio_card + 1
        if kernels.usable(codes.device):
            from tympan.models.kernels.fused import sum_embeddings

            return sum_embeddings(codes, text, self.embedding, card, self.compute_dtype or self.embedding.dtype)
        offsets = torch.arange(self.codebooks, device=codes.device) * card
        text_row = text[:, None] + self.codebooks * card
        indices = torch.cat((codes + offsets, text_row), dim=1)
        total = functional.embedding_bag(indices, self.embedding, mode="sum")
        return total.to(self.compute_dtype or total.dtype)

    def _pauses(self, hidden: Tensor) -> Tensor:
        """Return the probability of class 0 of each pause head, ``[B, heads]`` float32."""
        config = self.config
        if self.pause_linear is None:
            return torch.zeros(hidden.shape[0], 0, device=hidden.device)
        scores = self.pause_linear(hidden).float()
        scores = scores.view(-1, config.pause_heads, config.pause_classes)
        return torch.softmax(scores, dim=-1)[..., 0]

    @torch.no_grad()
    def _run_position_zero(self, frequency: Tensor, dtype: torch.dtype, scales: Tensor | None) -> InitialStep:
        config, device = self.config, self.embedding.device
        ring = self._init_ring(1, dtype, scales)
        codes = torch.full((1, self.codebooks), config.audio_card, device=device)
        text = torch.full((1,), config.text_card, device=device)
        zero = torch.zeros(1, dtype=torch.int64, device=device)
        hidden = self._hidden(self._embed(codes, text), ring, frequency, zero, zero)
        logits = self.text_linear(hidden).float()
        return InitialStep(ring.keys[:, 0, :, 0].clone(), ring.values[:, 0, :, 0].clone(), logits)
