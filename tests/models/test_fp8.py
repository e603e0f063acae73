"""Linear layers of 8-bit floats: accuracy, independence of rows, and number of kernels per call."""

from __future__ import annotations

import functools
import sys
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode, _disable_current_modes

from tympan.models import kernels
from tympan.models.layers import fp8
from tympan.models.layers.fp8 import Fp8Linear, multiply_scaled, multiply_then_scale, product_for, to_fp8

CPU = torch.device("cpu")
LAUNCHES_NOTHING = {"t", "view", "reshape", "_unsafe_view", "detach", "empty"}
ONE_SCALE = functools.partial(multiply_then_scale, one=torch.ones(()))


@pytest.fixture(autouse=True)
def fresh_trial() -> Iterator[None]:
    product_for.cache_clear()
    yield
    product_for.cache_clear()


def layer_and_input(rows: int = 5, seed: int = 0) -> tuple[Fp8Linear, Tensor, Tensor]:
    """Return a layer from 64 to 48, an input whose rows differ by orders of magnitude, and the product in float64."""
    torch.manual_seed(seed)
    weight, x = torch.randn(48, 64), torch.randn(rows, 64) * torch.logspace(-3, 3, rows)[:, None]
    return Fp8Linear(weight), x, x.double() @ weight.double().T


class Launches(TorchDispatchMode):
    """Counts the operators that would launch a kernel."""

    def __init__(self) -> None:
        super().__init__()
        self.names: list[str] = []

    def __torch_dispatch__(self, function: Any, types: Any, arguments: Any = (), options: Any = None) -> Any:
        name = function.__name__.partition(".")[0]
        if name not in LAUNCHES_NOTHING:
            self.names.append(name)
        return function(*arguments, **(options or {}))


@pytest.mark.parametrize(("dtype", "most"), [(torch.bfloat16, 2), (torch.float32, 3)])
def test_number_of_launches(monkeypatch: pytest.MonkeyPatch, dtype: torch.dtype, most: int) -> None:
    """One kernel quantizes and one multiplies; a third one converts the result unless the input is bf16."""
    layer, x, expected = layer_and_input()
    launches = Launches()

    def quantize_rows(x: Tensor, smallest: float, largest: float) -> tuple[Tensor, Tensor]:
        launches.names.append("_quantize_rows")
        with _disable_current_modes():
            return to_fp8(x)

    stand_in = SimpleNamespace(quantize_rows=quantize_rows)
    monkeypatch.setitem(sys.modules, "tympan.models.kernels.fused", stand_in)  # type: ignore[arg-type]
    monkeypatch.setattr(kernels, "fused", stand_in, raising=False)
    monkeypatch.setattr(kernels, "usable", lambda device: True)
    x = x.to(dtype)
    with launches:
        found = layer(x)
    assert len(launches.names) <= most, launches.names
    assert found.dtype == dtype
    assert ((found.double() - expected).norm(dim=1) < 0.06 * expected.norm(dim=1)).all()


@pytest.mark.parametrize("product", [multiply_scaled, ONE_SCALE], ids=["scaled", "then scaled"])
def test_products_equal_dequantized_weight(monkeypatch: pytest.MonkeyPatch, product: fp8.ScaledProduct) -> None:
    if product is multiply_scaled and product_for(CPU) is not multiply_scaled:
        pytest.skip("this PyTorch has no product with a scale per row on a CPU")
    monkeypatch.setattr(fp8, "product_for", lambda device: product)
    layer, x, _ = layer_and_input()
    rows, scale = to_fp8(x)
    expected = (rows.double() * scale) @ (layer.weight.double() * layer.scale.t()).t()
    assert ((layer(x).double() - expected).norm(dim=1) < 5e-3 * expected.norm(dim=1)).all()


@pytest.mark.parametrize("product", [multiply_scaled, ONE_SCALE], ids=["scaled", "then scaled"])
def test_rows_are_independent(monkeypatch: pytest.MonkeyPatch, product: fp8.ScaledProduct) -> None:
    monkeypatch.setattr(fp8, "product_for", lambda device: product)
    layer, x, _ = layer_and_input()
    x[1], x[3, 5] = 0, float("nan")
    together = layer(x)
    assert not together[1].any()
    assert together[3].isnan().all()
    for row in (0, 2, 4):
        torch.testing.assert_close(together[row], layer(x[row : row + 1])[0], rtol=2**-7, atol=0)


class TestChoice:
    def test_product_fails(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """The call raises: cuBLAS finds no algorithm, or PyTorch rejects the arguments."""
        for error in (RuntimeError("CUDA error: CUBLAS_STATUS_NOT_SUPPORTED"), ValueError("only sm_90")):

            def refuse(*arguments: object, error: Exception = error) -> Tensor:
                raise error

            monkeypatch.setattr(fp8, "multiply_scaled", refuse)
            product_for.cache_clear()
            layer, x, expected = layer_and_input()
            assert ((layer(x).double() - expected).norm(dim=1) < 0.06 * expected.norm(dim=1)).all()

    def test_product_is_wrong(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(fp8, "multiply_scaled", lambda rows, columns, *scales: rows.float() @ columns.float())
        layer, x, expected = layer_and_input()
        assert ((layer(x).double() - expected).norm(dim=1) < 0.06 * expected.norm(dim=1)).all()

    def test_one_trial_per_device(self) -> None:
        assert product_for(CPU) is product_for(torch.device("cpu"))
