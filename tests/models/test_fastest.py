"""Selection of the fastest candidate, with a clock that the candidates advance."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import chain, repeat

import pytest
import torch

from tympan.models.layers import conv, linear
from tympan.models.layers.conv import StreamingConv
from tympan.models.layers.fastest import fastest
from tympan.models.layers.linear import CpuProduct, Linear, Variant, fastest_variant, packed_available


class Clock:
    """A clock, and candidates that take the given seconds in successive rounds."""

    def __init__(self) -> None:
        self.now = 0.0
        self.calls: list[str] = []

    def candidate(self, name: str, *seconds: float) -> list[Callable[[], object]]:
        durations: Iterator[float] = chain(seconds, repeat(seconds[-1]))

        def call() -> None:
            self.calls.append(name)
            self.now += next(durations)

        return [call]

    def __call__(self) -> float:
        return self.now


@pytest.mark.parametrize(("first", "second", "chosen"), [(1.0, 2.0, "a"), (2.0, 1.0, "b"), (1.1, 1.0, "a")])
def test_margin_prefers_earlier_candidate(first: float, second: float, chosen: str) -> None:
    clock = Clock()
    candidates = {"a": clock.candidate("a", first), "b": clock.candidate("b", second)}
    assert fastest(candidates, margin=1.2, clock=clock) == chosen


def test_slow_rounds_are_ignored() -> None:
    clock = Clock()
    candidates = {"a": clock.candidate("a", 90.0, 1.0, 7.0, 1.0), "b": clock.candidate("b", 2.0)}
    assert fastest(candidates, margin=1.0, clock=clock) == "a"


def test_slow_candidate_is_dropped() -> None:
    clock = Clock()
    candidates = {"a": clock.candidate("a", 100.0), "b": clock.candidate("b", 1.0)}
    assert fastest(candidates, margin=1.2, clock=clock) == "b"
    assert clock.calls.count("a") == 2
    assert clock.calls.count("b") > 5


def test_single_candidate_is_not_timed() -> None:
    clock = Clock()
    assert fastest({"a": clock.candidate("a", 1.0)}, margin=1.0, clock=clock) == "a"
    assert not clock.calls


@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("rows", [1, 2, 9, 40])
@pytest.mark.parametrize("variant", ["plain", "swapped", "packed"])
def test_product_variants(variant: Variant, rows: int, bias: bool) -> None:
    if variant == "packed" and not packed_available():
        pytest.skip("oneDNN's product does not run here")
    x, weight, offset = torch.randn(rows, 96), torch.randn(160, 96), torch.randn(160)
    found = CpuProduct(weight, offset if bias else None, may_copy=True).run(variant, x)
    expected = x.double() @ weight.double().t() + (offset.double() if bias else 0)
    assert found.is_contiguous()
    torch.testing.assert_close(found.double(), expected, rtol=1e-5, atol=1e-4)


def test_linear_uses_fastest_variant(monkeypatch: pytest.MonkeyPatch) -> None:
    shapes: list[tuple[int, int, int, bool]] = []

    def choose(*key: int) -> str:
        shapes.append(key)  # type: ignore[arg-type]
        return "swapped"

    monkeypatch.setattr(linear, "fastest_variant", choose)
    layer, x = Linear(32, 48), torch.randn(3, 5, 32)
    with torch.no_grad():
        torch.testing.assert_close(layer(x), x @ layer.weight.t() + layer.bias)
    assert shapes == [(16, 48, 32, False)]  # fifteen rows are measured as sixteen


def test_plain_variant_is_not_timed(monkeypatch: pytest.MonkeyPatch) -> None:
    assert fastest_variant(1, 64, 64, True) == "plain"
    monkeypatch.setattr(torch.ops.mkldnn, "_reorder_linear_weight", None)
    packed_available.cache_clear()
    fastest_variant.cache_clear()
    try:
        assert not packed_available()
        assert fastest_variant(64, 256, 256, True) == "plain"
    finally:
        packed_available.cache_clear()
        fastest_variant.cache_clear()


@pytest.mark.parametrize("variant", ["windows", "convolution"])
@pytest.mark.parametrize(("kernel", "stride"), [(7, 1), (3, 1), (8, 4), (1, 1)])
def test_convolution_variants(variant: conv.Variant, kernel: int, stride: int) -> None:
    layer = StreamingConv(5, 6, kernel, stride)
    with torch.no_grad():
        layer.weight.normal_()
        x = torch.randn(3, layer.context_steps + 4 * stride, 5)
        found = layer.run(variant, x)
        windows = x.unfold(1, kernel, stride).transpose(2, 3).flatten(2).double()
        expected = windows @ layer.weight.double().t() + layer.bias.double()  # type: ignore[union-attr]
    assert found.is_contiguous()
    torch.testing.assert_close(found.double(), expected, rtol=1e-5, atol=1e-5)
