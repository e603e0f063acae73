"""The attention kernels, compared with the plain PyTorch of `models/layers/attention.py`."""

from __future__ import annotations

from collections.abc import Mapping

import pytest
import torch
from torch import Tensor

from tympan.engine.kyutai import tuning
from tympan.engine.kyutai.tuning import Calls
from tympan.models.kernels import attention
from tympan.models.kernels.attention import AttentionConfig, ring_attention, split_count
from tympan.models.kernels.ring_write import rotate_and_write
from tympan.models.layers.attention import FP8, Ring, from_cache, make_window, to_cache, update_and_attend
from tympan.models.layers.rope import Rotation, frequencies, rotation

HEADS, WIDTH = 4, 16
TYPES = [torch.float32, torch.bfloat16, torch.float16, FP8]
# The interpreter truncates to bf16: errors are up to one unit in the last place instead of half of one.
WRITE_ERROR = {torch.float32: 1e-6, torch.bfloat16: 2**-7, torch.float16: 2**-10, FP8: 1e-6}


def filled_ring(slots: int, capacity: int, dtype: torch.dtype, heads: int = HEADS, width: int = WIDTH) -> Ring:
    """Return a ring with random values in every entry."""
    ring = Ring.empty(1, slots, heads, capacity, width, device=torch.device("cpu"), dtype=dtype)
    if ring.scales is not None:
        ring.scales.copy_(2.0 ** torch.randint(-8, -4, ring.scales.shape))
    for kind, cache in enumerate((ring.keys, ring.values)):
        scale = None if ring.scales is None else ring.scales[kind, 0]
        cache[0] = to_cache(torch.randn(cache.shape[1:]), dtype, scale)
    return ring


def copy_of(ring: Ring) -> Ring:
    return Ring(ring.keys.clone(), ring.values.clone(), ring.scales)


def step_positions(last: list[int], steps: int) -> Tensor:
    return torch.tensor(last)[:, None] - steps + 1 + torch.arange(steps)


def by_kernels(projected: Tensor, ring: Ring, rows: Tensor, positions: Tensor, turn: Rotation, splits: int) -> Tensor:
    keys, values = ring.keys[0], ring.values[0]
    scales = None if ring.scales is None else ring.scales[:, 0]
    query = rotate_and_write(projected, turn.cos, turn.sin, rows, positions, keys, values, scales)
    return ring_attention(query, rows, positions, keys, values, scales, config=AttentionConfig(8, 4, 1), splits=splits)


def check(ring: Ring, last: list[int], rows: list[int], steps: int, splits: int, dtype: torch.dtype) -> None:
    """Compare the outputs of one call and the rings after it."""
    heads, _, width = ring.keys.shape[2:]
    projected = torch.randn(len(rows), steps, 3, heads, width).to(dtype)
    positions, slots = step_positions(last, steps), torch.tensor(rows)
    turn = rotation(positions, frequencies(width, 10_000.0))
    if ring.keys.dtype == FP8:  # the interpreter rounds some values incorrectly, so use values that need no rounding
        projected = projected.to(FP8).to(dtype).clamp(-1, 1)
        turn = Rotation(torch.ones_like(turn.cos), torch.zeros_like(turn.sin))
    plain = copy_of(ring)
    expected = update_and_attend(projected, plain, 0, make_window(slots, positions, plain), turn)
    found = by_kernels(projected, ring, slots, positions, turn, splits).flatten(-2)
    error = WRITE_ERROR[ring.keys.dtype]
    for kind, (one, other) in enumerate(((ring.keys, plain.keys), (ring.values, plain.values))):
        scale = None if ring.scales is None else ring.scales[kind, 0]
        torch.testing.assert_close(
            from_cache(one[0], scale).float(), from_cache(other[0], scale).float(), rtol=error, atol=error * 1e-2
        )
    torch.testing.assert_close(found.float(), expected.float(), rtol=3 * error, atol=3 * error)


@pytest.mark.parametrize("dtype", TYPES, ids=str)
@pytest.mark.parametrize("steps", [1, 2])
@pytest.mark.parametrize("splits", [1, 2, 8])
def test_ragged_lengths_and_wrapped_rings(dtype: torch.dtype, steps: int, splits: int) -> None:
    """First steps, a ring almost full, just full, just wrapped and long wrapped, with slots in any order."""
    torch.manual_seed(steps)
    capacity = 50
    last = [steps - 1, steps, 7, capacity - 2, capacity - 1, capacity, capacity + 1, 123_456]
    rows = [3, 0, 8, 5, 1, 7, 2, 9]
    computed = torch.float32 if dtype == FP8 else dtype
    check(filled_ring(10, capacity, dtype), last, rows, steps, splits, computed)


@pytest.mark.parametrize("last", [0, 5, 749, 1500])
def test_one_row_of_1b(last: int) -> None:
    check(filled_ring(2, 750, torch.float32, heads=1, width=128), [last], [1], 1, 8, torch.float32)


def test_largest_batch() -> None:
    torch.manual_seed(0)
    count = 256
    last = torch.randint(0, 40, (count,)).tolist()
    ring = filled_ring(count + 1, 9, torch.float32, heads=1)
    check(ring, last, torch.randperm(count + 1)[:count].tolist(), 1, 1, torch.float32)


@pytest.mark.parametrize("steps", [1, 2])
def test_unwritten_memory_is_not_read(steps: int) -> None:
    ring = filled_ring(3, 20, torch.float32)
    for cache in (ring.keys, ring.values):
        cache[0, 2] = torch.nan
    clean = copy_of(ring)
    for cache in (clean.keys, clean.values):
        cache[0, 2] = 0.0
    projected, rows = torch.randn(1, steps, 3, HEADS, WIDTH), torch.tensor([2])
    positions = step_positions([steps - 1], steps)
    turn = rotation(positions, frequencies(WIDTH, 10_000.0))
    assert torch.equal(*(by_kernels(projected, each, rows, positions, turn, 2) for each in (ring, clean)))


def test_rows_are_independent() -> None:
    torch.manual_seed(0)
    ring, projected = filled_ring(6, 30, torch.float32), torch.randn(6, 1, 3, HEADS, WIDTH)
    rows, positions = torch.arange(6).flip(0), step_positions([3, 29, 30, 31, 77, 0], 1)
    turn = rotation(positions, frequencies(WIDTH, 10_000.0))
    together = by_kernels(projected, copy_of(ring), rows, positions, turn, 2)
    for row in range(6):
        one = slice(row, row + 1)
        turn_of_row = Rotation(turn.cos[one].contiguous(), turn.sin[one].contiguous())
        alone = by_kernels(projected[one], copy_of(ring), rows[one], positions[one], turn_of_row, 2)
        assert torch.equal(together[one], alone)


def test_split_count() -> None:
    assert split_count(16, 750, 32, on=132) == 16
    assert split_count(512 * 16, 750, 32, on=132) == 1
    assert split_count(16, 50, 64, on=132) == 1


def test_select_fastest_config(monkeypatch: pytest.MonkeyPatch) -> None:
    """Configurations that do not run on this GPU are left out; the selected one becomes the default."""
    monkeypatch.setattr(attention, "_selected", {})
    configs = (
        AttentionConfig(8, 4, 1),
        AttentionConfig(16, 4, 1),
        AttentionConfig(3, 4, 1),
    )  # a tile of 3 entries is no power of two
    monkeypatch.setattr(attention, "CONFIGS", configs)
    timed: list[str] = []

    def last(contenders: Mapping[str, Calls], *, margin: float) -> str:
        timed.extend(contenders)
        return timed[-1]

    monkeypatch.setattr(tuning, "fastest", last)
    ring = filled_ring(3, 20, torch.float32)
    kept = copy_of(ring)
    assert attention.selected_config(1, WIDTH, torch.float32) == configs[0]
    tuning.select_read_config(ring, 2, torch.float32)
    assert timed == ["0", "1"]
    assert attention.selected_config(1, WIDTH, torch.float32) == configs[1]
    assert attention.selected_config(2, WIDTH, torch.float32) == configs[0], "only for one query per row"
    torch.testing.assert_close((ring.keys, ring.values), (kept.keys, kept.values), rtol=0, atol=0, equal_nan=True)
