"""Devices for recorded steps that need no GPU."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map_only


class EagerDevice:
    """Runs the work at every replay, and logs the numbers of rows."""

    def __init__(self) -> None:
        self.recorded: list[int] = []
        self.replayed: list[int] = []

    def record(self, run: Callable[[], None]) -> Callable[[], None]:
        rows: int = run.args[0]  # type: ignore[attr-defined]
        self.recorded.append(rows)
        run()

        def replay() -> None:
            self.replayed.append(rows)
            run()

        return replay

    def record_event(self) -> Callable[[], None]:
        return lambda: None


class CapturingDevice:
    """Records as a GPU does: nothing is computed meanwhile, and results are undefined until the first replay."""

    def record(self, run: Callable[[], None]) -> Callable[[], None]:
        run()  # as `CudaDevice` does, before it captures
        capture = _Capture()
        with capture:
            run()
        return capture.replay

    def record_event(self) -> Callable[[], None]:
        return lambda: None


_READS = {"_local_scalar_dense", "item", "is_nonzero", "equal"}


class _Capture(TorchDispatchMode):
    """Captures operators that compute or write; views are made at once."""

    def __init__(self) -> None:
        super().__init__()
        self._calls: list[tuple[Any, tuple[Any, ...], dict[str, Any], list[Tensor]]] = []

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        schema = func._schema
        if schema.is_mutable:
            self._calls.append((func, args, kwargs, []))
            written = next(
                index for index, argument in enumerate(schema.arguments) if argument.is_out or _writes(argument)
            )
            return args[written] if written < len(args) else kwargs[schema.arguments[written].name]
        if func._opname in _READS:  # the CPU's path may read a value; the GPU's must not
            return func(*args, **kwargs)
        if func.is_view:
            view = func(*args, **kwargs)
            if {_memory(part) for part in _tensors(view)} <= {_memory(part) for part in _tensors((args, kwargs))}:
                return view  # and not a copy, which `reshape` may return
        shapes = func(*tree_map_only(Tensor, _without_values, args), **tree_map_only(Tensor, _without_values, kwargs))
        result = tree_map_only(Tensor, _poisoned, shapes)
        self._calls.append((func, args, kwargs, _tensors(result)))
        return result

    def replay(self) -> None:
        with torch.inference_mode():
            for func, args, kwargs, results in self._calls:
                computed = func(*args, **kwargs)
                if results:
                    for into, value in zip(results, _tensors(computed), strict=True):
                        if into.shape == value.shape:  # an operator may also return work space of any size
                            into.copy_(value)


def _writes(argument: Any) -> bool:
    return argument.alias_info is not None and argument.alias_info.is_write


def _tensors(tree: Any) -> list[Tensor]:
    return [leaf for leaf in tree_leaves(tree) if isinstance(leaf, Tensor)]


def _memory(tensor: Tensor) -> int:
    return tensor.untyped_storage().data_ptr()


def _without_values(tensor: Tensor) -> Tensor:
    return torch.empty_strided(tensor.shape, tensor.stride(), dtype=tensor.dtype, device="meta")


def _poisoned(tensor: Tensor) -> Tensor:
    """Return a tensor of the same shape with values that no correct program reads: NaN, or an index out of range."""
    poison = torch.nan if tensor.is_floating_point() else tensor.dtype == torch.bool or torch.iinfo(tensor.dtype).max
    return torch.empty_strided(tensor.shape, tensor.stride(), dtype=tensor.dtype).fill_(poison)
