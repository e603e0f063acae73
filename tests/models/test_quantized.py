"""Low-bit linear layers, compared with the dequantized weight in float64 for every kernel."""

from __future__ import annotations

from collections.abc import Callable
from typing import get_args

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from tympan.models.layers.quantized import DenseLinear, WeightType, linear_for, replace_linears
from tympan.models.layers.quantized_int4 import (
    GROUP,
    Int4Linear,
    PackedInt4Kernel,
    PlainInt4Kernel,
    choose_int4_kernel,
    packed_int4_available,
    quantize_groups,
)
from tympan.models.layers.quantized_int8 import (
    Int8Kernel,
    Int8Linear,
    OnednnKernel,
    PackedKernel,
    PlainKernel,
    choose_kernel,
    fastest_kernel,
    onednn_is_exact,
    packed_available,
    quantize_channels,
    split_rows,
)

KernelType = Callable[..., Int8Kernel]  # the two protocols differ in dtypes only

INT8_KERNELS: list[KernelType] = [OnednnKernel, PackedKernel, PlainKernel]
INT4_KERNELS: list[KernelType] = [PackedInt4Kernel, PlainInt4Kernel]
KERNELS = INT8_KERNELS + INT4_KERNELS
SHAPES = [(192, 128), (64, 256), (320, 704)]  # [out, in]
ODD_SHAPES = [(6, 64), (33, 48), (1, 1), (100, 176)]


def random(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def relative_error(found: Tensor, expected: Tensor) -> float:
    return float((found.double() - expected.double()).norm() / expected.double().norm())


def skip_where_missing(kernel: KernelType) -> None:
    """Skip the test if this version of PyTorch or this processor does not support the kernel."""
    offered: dict[KernelType, Callable[[], bool]]
    offered = {OnednnKernel: onednn_is_exact, PackedKernel: packed_available, PackedInt4Kernel: packed_int4_available}
    if kernel in offered and not offered[kernel]():
        pytest.skip(f"{kernel} is not available here")


def dequantized_int8(weight: Tensor) -> Tensor:
    levels, scale = quantize_channels(weight)
    return levels.double() * scale.double()[:, None]


def dequantized_int4(weight: Tensor) -> Tensor:
    codes, scale, offset = quantize_groups(weight)
    groups = codes.double().view(len(codes), -1, GROUP)
    wide = (groups - 8) * scale.double()[..., None] + offset.double()[..., None]
    return wide.flatten(1)


def layer_on(kernel: KernelType, weight: Tensor) -> Int8Linear | Int4Linear:
    out_features, in_features = weight.shape
    if kernel in INT4_KERNELS:
        return Int4Linear(kernel(*quantize_groups(weight)), in_features, out_features)
    return Int8Linear(kernel(*quantize_channels(weight)), in_features, out_features)


class TestRounding:
    def test_int8_error(self) -> None:
        weight = random(48, 100)
        weight[3] = 0
        levels, scale = quantize_channels(weight)
        assert levels.dtype == torch.int8
        assert int(levels.min()) >= -127
        assert torch.all((dequantized_int8(weight) - weight).abs() <= 0.501 * scale[:, None])
        assert torch.equal(dequantized_int8(weight)[3], torch.zeros(100, dtype=torch.float64))

    def test_int4_error(self) -> None:
        weight = random(48, 4 * GROUP) + 0.3
        weight[3] = 0
        _, scale, _ = quantize_groups(weight)
        # Rounding scale and offset to bf16 moves the ends of the range by up to about 1/16 of a level.
        bound = 0.7 * scale.double().repeat_interleave(GROUP, dim=1)
        assert torch.all((dequantized_int4(weight) - weight).abs() <= bound)
        assert torch.equal(dequantized_int4(weight)[3], torch.zeros(4 * GROUP, dtype=torch.float64))

    @given(st.integers(1, 5), st.integers(1, 70), st.integers(-12, 12), st.integers(0, 99))
    @settings(deadline=None, max_examples=50)
    def test_split_rows(self, rows: int, features: int, exponent: int, seed: int) -> None:
        x = random(rows, features, seed=seed) * 10.0**exponent
        pieces, largest = split_rows(x)
        low, high = (pieces[:rows].double() - 128, pieces[rows : 2 * rows].double() - 128)
        step = largest.double() / 32639
        assert torch.all((step * (256 * high + low) - x).abs() <= 0.51 * step)


class TestKernels:
    @pytest.mark.parametrize("shape", SHAPES)
    @pytest.mark.parametrize("kernel", KERNELS)
    def test_equals_dequantized_weight(self, kernel: KernelType, shape: tuple[int, int]) -> None:
        skip_where_missing(kernel)
        weight, x = random(*shape), random(5, shape[1], seed=1)
        plain = dequantized_int8(weight) if kernel in INT8_KERNELS else dequantized_int4(weight)
        found = layer_on(kernel, weight)(x)
        rounding = 5e-3 if kernel not in (OnednnKernel, PlainKernel) else 1e-4  # bf16 activations, or 16 bits and more
        assert relative_error(found, x.double() @ plain.T) < rounding

    @pytest.mark.parametrize("kernel", KERNELS)
    def test_rows_are_independent(self, kernel: KernelType) -> None:
        skip_where_missing(kernel)
        layer = layer_on(kernel, random(320, 704))
        x = random(17, 704, seed=2) * torch.logspace(-6, 6, 17)[:, None]
        alone = torch.cat([layer(row[None]) for row in x])
        for start, end in [(0, 17), (0, 2), (1, 4), (2, 6), (3, 11), (9, 17)]:
            assert torch.equal(layer(x[start:end]), alone[start:end])

    @pytest.mark.parametrize("kernel", KERNELS)
    def test_nan_stays_in_its_row(self, kernel: KernelType) -> None:
        skip_where_missing(kernel)
        layer = layer_on(kernel, random(192, 128))
        x = random(3, 128, seed=3)
        expected = layer(x)
        x[1, 5] = float("nan")
        found = layer(x)
        assert torch.equal(found[[0, 2]], expected[[0, 2]])
        assert bool(found[1].isnan().all())

    @pytest.mark.parametrize("kernel", KERNELS)
    def test_strided_input(self, kernel: KernelType) -> None:
        skip_where_missing(kernel)
        layer = layer_on(kernel, random(192, 128))
        x = random(3, 128, seed=8)
        assert torch.equal(layer(x.T.contiguous().T), layer(x))
        assert torch.equal(layer(x.repeat_interleave(2, dim=1)[:, ::2]), layer(x))

    @pytest.mark.parametrize("kernel", INT8_KERNELS)
    def test_zeros(self, kernel: KernelType) -> None:
        skip_where_missing(kernel)
        assert torch.equal(layer_on(kernel, random(64, 256))(torch.zeros(2, 256)), torch.zeros(2, 64))

    def test_outlier(self) -> None:
        skip_where_missing(OnednnKernel)
        weight, x = random(192, 512), random(1, 512, seed=4)
        weight[:, 7] = 0
        x[0, 7] = 100.0  # 8 bits would round everything else to a step of 0.8
        found = layer_on(OnednnKernel, weight)(x)
        assert relative_error(found, x.double() @ dequantized_int8(weight).T) < 5e-3

    def test_integer_sums_do_not_saturate(self) -> None:
        skip_where_missing(OnednnKernel)
        kernel = OnednnKernel(torch.full((64, 5632), 127, dtype=torch.int8), torch.full((64,), 32639.0))
        largest = torch.tensor([[0], [255]], dtype=torch.uint8).expand(2, 5632)  # -128 and 127
        expected = torch.tensor([[-128.0], [127.0]]).expand(2, 64) * 127 * 5632
        torch.testing.assert_close(kernel.multiply(largest.contiguous()), expected, rtol=1e-6, atol=0)


class TestChoice:
    def test_plain_kernel_on_other_devices(self) -> None:
        levels = torch.empty(64, 64, dtype=torch.int8, device="meta")
        assert choose_kernel(levels) is PlainKernel
        assert choose_int4_kernel(levels) is PlainInt4Kernel

    @pytest.mark.parametrize("kernel", INT8_KERNELS)
    def test_choice_follows_measurement(self, monkeypatch: pytest.MonkeyPatch, kernel: KernelType) -> None:
        monkeypatch.setattr("tympan.models.layers.quantized_int8.fastest_kernel", lambda: kernel)
        assert choose_kernel(torch.zeros(64, 64, dtype=torch.int8)) is kernel

    def test_packed_kernel_needs_whole_blocks(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("tympan.models.layers.quantized_int8.fastest_kernel", lambda: PackedKernel)
        assert choose_kernel(torch.zeros(6, 64, dtype=torch.int8)) is PlainKernel
        assert choose_kernel(torch.zeros(64, 100, dtype=torch.int8)) is PlainKernel

    @pytest.mark.parametrize("inexact", [False, True])
    def test_inexact_kernel_is_not_measured(self, monkeypatch: pytest.MonkeyPatch, inexact: bool) -> None:
        skip_where_missing(OnednnKernel)
        measured: list[list[str]] = []

        def last(contenders: dict[str, object], margin: float) -> str:
            measured.append(list(contenders))
            return "plain"

        monkeypatch.setattr("tympan.models.layers.quantized_int8.fastest", last)
        monkeypatch.setattr("tympan.models.layers.quantized_int8.onednn_is_exact", lambda: not inexact)
        fastest_kernel.cache_clear()
        try:
            assert fastest_kernel() is PlainKernel
        finally:
            fastest_kernel.cache_clear()
        assert ("onednn" in measured[0]) is not inexact
        assert measured[0][-1] == "plain"

    def test_missing_operators(self, monkeypatch: pytest.MonkeyPatch) -> None:
        weight, x = random(192, 128), random(3, 128, seed=5)
        expected = {kind: linear_for(weight, kind)(x) for kind in ("int8", "int4")}

        def missing(*_: object) -> None:
            raise NotImplementedError("Could not run this operator with arguments from the 'CPU' backend")

        monkeypatch.setattr(torch.ops.onednn, "qlinear_prepack", missing)
        monkeypatch.setattr(torch, "_weight_int8pack_mm", missing)
        monkeypatch.setattr(torch.ops.aten, "_convert_weight_to_int4pack_for_cpu", missing)
        probes = (onednn_is_exact, packed_available, packed_int4_available, fastest_kernel)
        try:
            for probe in probes:
                probe.cache_clear()
            layers = {kind: linear_for(weight, kind) for kind in ("int8", "int4")}
        finally:
            for probe in probes:
                probe.cache_clear()
        assert isinstance(layers["int8"].kernel, PlainKernel)
        assert isinstance(layers["int4"].kernel, PlainInt4Kernel)
        assert relative_error(layers["int8"](x), expected["int8"]) < 5e-3
        assert relative_error(layers["int4"](x), expected["int4"]) < 1e-2


class TestLayers:
    @pytest.mark.parametrize("shape", SHAPES + ODD_SHAPES)
    @pytest.mark.parametrize(
        ("kind", "bound"), [("f32", 1e-5), ("bf16", 0.01), ("f16", 2e-3), ("int8", 0.02), ("int4", 0.15)]
    )
    def test_error(self, kind: WeightType, bound: float, shape: tuple[int, int]) -> None:
        weight, x = random(*shape), random(4, shape[1], seed=6)
        assert relative_error(linear_for(weight, kind)(x), x.double() @ weight.double().T) < bound

    @pytest.mark.parametrize("kind", get_args(WeightType))
    @pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
    def test_keeps_dtype_and_leading_dimensions(self, kind: WeightType, dtype: torch.dtype) -> None:
        layer = linear_for(random(64, 96).to(dtype), kind)
        x = random(3, 2, 96, seed=7).to(dtype)
        out = layer(x)
        assert out.shape == (3, 2, 64)
        assert out.dtype == dtype
        torch.testing.assert_close(out[1], layer(x[1]))

    def test_size_bytes(self) -> None:
        weight = random(192, 128)
        sizes = {kind: linear_for(weight, kind).size_bytes for kind in get_args(WeightType)}
        count = weight.numel()
        assert sizes["f32"] == 4 * count
        assert sizes["bf16"] == sizes["f16"] == 2 * count
        assert sizes["int8"] == count + 4 * 192
        assert sizes["int4"] == count * 5 // 8

    def test_size_bytes_of_kernels(self) -> None:
        weight = random(192, 128)
        int4 = layer_on(PackedInt4Kernel, weight) if packed_int4_available() else layer_on(PlainInt4Kernel, weight)
        held = sum(t.nbytes for t in vars(int4.kernel).values() if isinstance(t, Tensor))
        assert held == (int4.size_bytes if packed_int4_available() else int4.size_bytes + weight.numel() // GROUP * 4)
        plain = layer_on(PlainKernel, weight)
        assert sum(t.nbytes for t in vars(plain.kernel).values()) == plain.size_bytes

    @pytest.mark.parametrize("kind", ["f32", "int8", "int4"])
    def test_replace_linears(self, kind: WeightType) -> None:
        model = nn.Sequential(nn.Linear(64, 96, bias=False), nn.Sequential(nn.GELU(), nn.Linear(96, 32, bias=False)))
        x = random(2, 64, seed=9)
        with torch.no_grad():
            expected = model(x)
            replace_linears(model, kind)
            assert relative_error(model(x), expected) < 0.2
        assert not any(isinstance(layer, nn.Linear) for layer in model.modules())
        assert model.state_dict() == {}

    def test_dense_types(self) -> None:
        assert isinstance(linear_for(random(4, 4), "f16"), DenseLinear)
