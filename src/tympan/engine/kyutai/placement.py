"""Device and data types of the model: the meaning of `auto` on this machine, and what the machine does not support."""

from __future__ import annotations

import warnings
from dataclasses import dataclass

import torch

from tympan.config import ModelSettings
from tympan.errors import ConfigError
from tympan.models import kernels
from tympan.models.layers.attention import FP8

FLOATS = {"f32": torch.float32, "bf16": torch.bfloat16, "f16": torch.float16}
CACHES = {**FLOATS, "fp8": FP8}
CPU_KINDS = ("f32", "int8", "int4")  # types of weights that ONNX Runtime multiplies
_FP8_CAPABILITY = (8, 9)


@dataclass(frozen=True)
class Placement:
    """Device and data types of a model.

    Attributes:
        device: The device.
        kind: Type of the weights: a key of `FLOATS`, `int8`, `int4` or `fp8`.
        wide: Data type of the embeddings, which are not quantized.
        cache: Data type of the KV cache.
    """

    device: torch.device
    kind: str
    wide: torch.dtype
    cache: torch.dtype

    @property
    def cache_name(self) -> str:
        """Name of the KV cache's data type, as in the settings."""
        return next(name for name, dtype in CACHES.items() if dtype == self.cache)


def place(settings: ModelSettings) -> Placement:
    """Resolve `auto` in the settings, and raise `ConfigError` for what this machine does not support."""
    device = _device(settings.device)
    on_cuda, on_gpu = device.type == "cuda", device.type != "cpu"
    if on_cuda:
        half = "bf16" if torch.cuda.is_bf16_supported(including_emulation=False) else "f16"
    else:
        half = "f16" if on_gpu else "bf16"  # every Apple GPU computes in f16
    kind = settings.dtype if settings.dtype != "auto" else half if on_gpu else "int8"
    fp8 = on_cuda and torch.cuda.get_device_capability() >= _FP8_CAPABILITY
    if on_gpu and kind in ("int8", "int4"):
        instead = f"--dtype {half} or --dtype fp8" if fp8 else f"--dtype {half}"
        raise ConfigError(f"{kind} weights run on a CPU only; use {instead}, or --device cpu")
    if kind == "fp8" and not fp8:
        raise ConfigError(f"8-bit float weights need a GPU of compute capability 8.9 or later; use --dtype {half}")
    if settings.kv_dtype == "fp8" and on_gpu and not fp8:
        raise ConfigError(f"an 8-bit float cache needs a GPU of compute capability 8.9 or later; use --kv-dtype {half}")
    wide = FLOATS.get(kind, FLOATS[half])
    # On a CPU, converting a smaller cache takes longer than reading a larger one.
    cache = wide if on_gpu or kind in FLOATS else FLOATS["f32"]
    if settings.kv_dtype != "auto":
        cache = CACHES[settings.kv_dtype]
    return Placement(device, kind, wide, cache)


def _device(name: str) -> torch.device:
    """Return the device of the setting; `auto` never selects an Apple GPU, on which the model has not been tested."""
    cuda = torch.cuda.is_available()
    if name == "cuda" and not cuda:
        raise ConfigError("--device cuda: this machine has no CUDA device that PyTorch can use; use --device cpu")
    if name == "mps" and not torch.backends.mps.is_available():
        raise ConfigError("--device mps: this machine has no Apple GPU that PyTorch can use; use --device cpu")
    if name == "auto":
        name = "cuda" if cuda else "cpu"
    return torch.device(name)


def prepare(device: torch.device) -> None:
    """Set up PyTorch for steps on ``device``, before the first step and before a CUDA graph is recorded.

    Float32 products keep full precision, which Mimi's codes depend on; some containers allow TF32 through
    `TORCH_ALLOW_TF32_CUBLAS_OVERRIDE`. Convolutions need no setting, because none of them uses cuDNN on a GPU.
    """
    with warnings.catch_warnings():
        # PyTorch 2.9 deprecates this function; PyTorch 2.8 does not have its replacement, and mixing the two raises.
        warnings.simplefilter("ignore")
        torch.set_float32_matmul_precision("highest")
    kernels.usable(device)  # tries Triton now, and not in the first step
