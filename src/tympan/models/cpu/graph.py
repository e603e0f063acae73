"""Construction of ONNX graphs, and their execution on one thread pool for the whole process."""

from __future__ import annotations

import functools
import threading
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import onnx
import onnxruntime
import torch
from onnx import TensorProto, helper
from torch import Tensor, nn

from tympan.models.cpu.threads import thread_count

Array = np.ndarray[Any, np.dtype[Any]]

_MICROSOFT = "com.microsoft"  # the domain of ONNX Runtime's own operators
_OPSETS = (("", 23), (_MICROSOFT, 1))
_IR_VERSION = 11
_TYPES = {
    torch.float32: TensorProto.FLOAT,
    torch.float16: TensorProto.FLOAT16,
    torch.int64: TensorProto.INT64,
    torch.bool: TensorProto.BOOL,
}
_END = np.iinfo(np.int64).max
_START_LOCK = threading.Lock()


class Graph:
    """A graph under construction. Its values are identified by their names."""

    def __init__(self) -> None:
        self._nodes: list[onnx.NodeProto] = []
        self._inputs: list[onnx.ValueInfoProto] = []
        self._small: list[TensorProto] = []
        self._weights: dict[str, Array] = {}
        self._names = 0

    def _name(self) -> str:
        self._names += 1
        return f"v{self._names}"

    def input(self, *shape: int | str, dtype: torch.dtype = torch.float32) -> str:
        """Add an input; a string in ``shape`` names a size that may differ between calls."""
        name = self._name()
        self._inputs.append(helper.make_tensor_value_info(name, _TYPES[dtype], shape))
        return name

    def weight(self, value: Tensor | Array) -> str:
        """Add a weight. The graph refers to its memory until the session is created, which may reorder a copy."""
        name = self._name()
        self._weights[name] = value.detach().contiguous().numpy() if isinstance(value, Tensor) else value
        return name

    def constant(self, value: Sequence[int] | float) -> str:
        """Add a small constant: int64 integers or a float32 scalar."""
        name = self._name()
        array = np.array(value, np.float32 if isinstance(value, float) else np.int64)
        self._small.append(onnx.numpy_helper.from_array(array, name))
        return name

    def op(self, kind: str, *inputs: str, **attributes: Any) -> str:
        """Add an operator of the ONNX standard with one output, and return the name of that."""
        return self._add(kind, inputs, 1, "", attributes)[0]

    def own_op(self, kind: str, *inputs: str, **attributes: Any) -> str:
        """Add an operator of ONNX Runtime's own domain with one output."""
        return self._add(kind, inputs, 1, _MICROSOFT, attributes)[0]

    def split(self, x: str, axis: int, sizes: Sequence[int]) -> list[str]:
        """Split ``x`` along ``axis``."""
        return self._add("Split", (x, self.constant(sizes)), len(sizes), "", {"axis": axis})

    def halves(self, x: str) -> list[str]:
        """Split the rows of ``x``, an even number, in two halves."""
        return self._add("Split", (x,), 2, "", {"axis": 0, "num_outputs": 2})

    def slice(self, x: str, axis: int, start: int, end: int | None = None) -> str:
        """Return ``x[start:end]`` along ``axis``."""
        bounds = (self.constant([value]) for value in (start, _END if end is None else end, axis))
        return self.op("Slice", x, *bounds)

    def widened(self, x: str, dtype: torch.dtype) -> str:
        """Convert ``x`` of ``dtype`` to float32."""
        return x if dtype == torch.float32 else self.op("Cast", x, to=TensorProto.FLOAT)

    def reshape(self, x: str, *shape: int) -> str:
        """Reshape ``x``; 0 keeps a size and -1 is the remaining one."""
        return self.op("Reshape", x, self.constant(shape))

    def _add(
        self, kind: str, inputs: Sequence[str], outputs: int, domain: str, attributes: Mapping[str, Any]
    ) -> list[str]:
        names = [self._name() for _ in range(outputs)]
        self._nodes.append(helper.make_node(kind, inputs, names, domain=domain, **attributes))
        return names

    def compile(self, *outputs: str) -> Session:
        """Return a session that computes ``outputs``."""
        stored = [_external(name, value) for name, value in self._weights.items()]
        typed = [helper.make_empty_tensor_value_info(name) for name in outputs]
        body = helper.make_graph(self._nodes, "step", self._inputs, typed, [*self._small, *stored])
        opsets = [helper.make_opsetid(domain, number) for domain, number in _OPSETS]
        model = helper.make_model(body, opset_imports=opsets, ir_version=_IR_VERSION)
        return Session(model.SerializeToString(), [value.name for value in self._inputs], outputs, self._weights)


def _external(name: str, value: Array) -> TensorProto:
    """Return an initializer without data; a session gets that from memory."""
    dtype = helper.np_dtype_to_tensor_dtype(value.dtype)
    tensor = TensorProto(name=name, dims=value.shape, data_type=dtype, data_location=TensorProto.EXTERNAL)
    tensor.external_data.add(key="location", value="memory")
    return tensor


class Session:
    """A graph that is ready to run.

    Attributes:
        size_bytes: Memory of the weights.
    """

    def __init__(
        self, model: bytes, inputs: Sequence[str], outputs: Sequence[str], weights: Mapping[str, Array]
    ) -> None:
        with _START_LOCK:  # graphs are compiled in several threads
            _start_threads()
        options = onnxruntime.SessionOptions()
        options.use_per_session_threads = False
        values = [onnxruntime.OrtValue.ortvalue_from_numpy(value) for value in weights.values()]
        if values:
            options.add_external_initializers(list(weights), values)
        self._session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
        self.size_bytes = sum(value.nbytes for value in weights.values())
        self._inputs = tuple(inputs)
        self._outputs = list(outputs)

    def run(self, *inputs: Array) -> list[Array]:
        """Return the outputs for ``inputs``, in the order in which the graph's inputs were added.

        Contiguous arrays are passed without a copy.
        """
        results: list[Array] = self._session.run(self._outputs, dict(zip(self._inputs, inputs, strict=True)))
        return results


class SessionModule(nn.Module):
    """A module whose weights are in sessions."""

    def __init__(self, sessions: Sequence[Session]) -> None:
        super().__init__()
        self.size_bytes = sum(session.size_bytes for session in sessions)


@functools.cache
def _start_threads() -> None:
    """Create the threads that all sessions share."""
    onnxruntime.set_global_thread_pool_sizes(thread_count(), 1)
