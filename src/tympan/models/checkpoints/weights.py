"""Filling our modules from checkpoint files: every tensor used, or named in the error."""

from __future__ import annotations

import re
from collections.abc import Iterable

import torch
from torch import Tensor, nn

from tympan.errors import ModelError
from tympan.models.checkpoints.names import Row
from tympan.models.checkpoints.tensors import TensorFiles


def fill(
    module: nn.Module, rows: Iterable[Row], files: TensorFiles, *, device: torch.device, dtype: torch.dtype
) -> None:
    """Give every parameter of ``module`` (built on the meta device) its weights from ``files``.

    Raises ModelError for a tensor that is missing or of another shape.
    """
    for row in rows:
        tensors = [files.take(source.names, source.shape) for source in row.sources]
        set_parameter(module, row.target, row.build(tensors).to(device=device, dtype=dtype).contiguous())
    forgotten = [name for name, parameter in module.named_parameters() if parameter.is_meta]
    assert not forgotten, forgotten


def set_parameter(module: nn.Module, name: str, value: Tensor) -> None:
    """Replace the parameter called ``name`` by ``value``, frozen."""
    path, _, leaf = name.rpartition(".")
    owner = module.get_submodule(path)
    current = getattr(owner, leaf)
    assert current.shape == value.shape, (name, current.shape, value.shape)
    setattr(owner, leaf, nn.Parameter(value, requires_grad=False))


def refuse_unused(files: TensorFiles, ignored: Iterable[str]) -> None:
    """Raise ModelError when ``files`` hold a tensor that nobody asked for and no pattern of ``ignored`` matches."""
    pattern = re.compile("|".join(f"(?:{part})" for part in ignored) or r"(?!)")
    extra = [name for name in files.unasked() if not pattern.match(name)]
    if extra:
        first = files.entries[extra[0]]
        more = f" (and {len(extra) - 1} more)" if len(extra) > 1 else ""
        raise ModelError(
            f"{first.file}: the tensor {extra[0]} {list(first.shape)} has no place in this architecture{more}"
        )
