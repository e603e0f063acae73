"""The choice follows the measurements, here by a clock that the contenders move themselves."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import chain, repeat

import pytest
import torch

from tympan.models.layers import conv, linear
from tympan.models.layers.conv import StreamingConv
from tympan.models.layers.fastest import fastest
from tympan.models.layers.linear import Linear, Product, Way, fastest_way, packing_runs


class Clock:
    """A clock, and contenders that take the given seconds, turn by turn."""

    def __init__(self) -> None:
        self.now = 0.0
        self.calls: list[str] = []

    def contender(self, name: str, *seconds: float) -> list[Callable[[], object]]:
        turns: Iterator[float] = chain(seconds, repeat(seconds[-1]))

        def call() -> None:
            self.calls.append(name)
            self.now += next(turns)

        return [call]

    def __call__(self) -> float:
        return self.now


@pytest.mark.parametrize(("first", "second", "chosen"), [(1.0, 2.0, "a"), (2.0, 1.0, "b"), (1.1, 1.0, "a")])
def test_the_fastest_is_chosen_unless_an_earlier_one_is_nearly_as_fast(
    first: float, second: float, chosen: str
) -> None:
    clock = Clock()
    contenders = {"a": clock.contender("a", first), "b": clock.contender("b", second)}
    assert fastest(contenders, margin=1.2, clock=clock) == chosen


def test_a_slow_start_and_a_disturbed_turn_do_not_count() -> None:
    clock = Clock()
    contenders = {"a": clock.contender("a", 90.0, 1.0, 7.0, 1.0), "b": clock.contender("b", 2.0)}
    assert fastest(contenders, margin=1.0, clock=clock) == "a"


def test_a_hopeless_contender_is_not_tried_again() -> None:
    clock = Clock()
    contenders = {"a": clock.contender("a", 100.0), "b": clock.contender("b", 1.0)}
    assert fastest(contenders, margin=1.2, clock=clock) == "b"
    assert clock.calls.count("a") == 2
    assert clock.calls.count("b") > 5


def test_a_lone_contender_is_not_measured() -> None:
    clock = Clock()
    assert fastest({"a": clock.contender("a", 1.0)}, margin=1.0, clock=clock) == "a"
    assert not clock.calls


@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("rows", [1, 2, 9, 40])
@pytest.mark.parametrize("way", ["plain", "swapped", "packed"])
def test_every_way_computes_the_same(way: Way, rows: int, bias: bool) -> None:
    if way == "packed" and not packing_runs():
        pytest.skip("oneDNN's product does not run here")
    x, weight, offset = torch.randn(rows, 96), torch.randn(160, 96), torch.randn(160)
    found = Product(weight, offset if bias else None, may_copy=True).by(way, x)
    expected = x.double() @ weight.double().t() + (offset.double() if bias else 0)
    assert found.is_contiguous()
    torch.testing.assert_close(found.double(), expected, rtol=1e-5, atol=1e-4)


def test_a_layer_goes_the_way_that_was_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[tuple[int, int, int, bool]] = []

    def choose(*key: int) -> str:
        asked.append(key)  # type: ignore[arg-type]
        return "swapped"

    monkeypatch.setattr(linear, "fastest_way", choose)
    layer, x = Linear(32, 48), torch.randn(3, 5, 32)
    with torch.no_grad():
        torch.testing.assert_close(layer(x), x @ layer.weight.t() + layer.bias)
    assert asked == [(16, 48, 32, False)]  # fifteen rows are measured as sixteen


def test_small_weights_and_missing_operators_need_no_measurement(monkeypatch: pytest.MonkeyPatch) -> None:
    assert fastest_way(1, 64, 64, True) == "plain"
    monkeypatch.setattr(torch.ops.mkldnn, "_reorder_linear_weight", None)
    packing_runs.cache_clear()
    fastest_way.cache_clear()
    try:
        assert not packing_runs()
        assert fastest_way(64, 256, 256, True) == "plain"
    finally:
        packing_runs.cache_clear()
        fastest_way.cache_clear()


@pytest.mark.parametrize("way", ["windows", "convolution"])
@pytest.mark.parametrize(("kernel", "stride"), [(7, 1), (3, 1), (8, 4), (1, 1)])
def test_a_convolution_is_the_same_either_way(way: conv.Way, kernel: int, stride: int) -> None:
    layer = StreamingConv(5, 6, kernel, stride)
    with torch.no_grad():
        layer.weight.normal_()
        x = torch.randn(3, layer.context_steps + 4 * stride, 5)
        found = layer.by(way, x)
        windows = x.unfold(1, kernel, stride).transpose(2, 3).flatten(2).double()
        expected = windows @ layer.weight.double().t() + layer.bias.double()  # type: ignore[union-attr]
    assert found.is_contiguous()
    torch.testing.assert_close(found.double(), expected, rtol=1e-5, atol=1e-5)
