"""A stand-in for the part of Modal that a container uses: inputs, frames of WebSockets, outputs."""

from __future__ import annotations

import asyncio
import json
import time
from collections import defaultdict
from collections.abc import AsyncIterator
from typing import Any

from google.protobuf.empty_pb2 import Empty
from modal._serialization import deserialize_data_format, serialize, serialize_data_format
from modal_proto import api_pb2

from support.modal_plane import ControlPlane

SECONDS_TO_ANSWER = 120  # on a busy machine


class Worker(ControlPlane):
    """A control plane that serves one container, and calls of the real `modal run`."""

    def __init__(self) -> None:
        super().__init__()
        self._inputs: asyncio.Queue[Any] = asyncio.Queue()
        self._outputs: asyncio.Queue[Any] = asyncio.Queue()
        self._frames_in: dict[str, asyncio.Queue[Any]] = defaultdict(asyncio.Queue)
        self.frames_out: dict[str, asyncio.Queue[Any]] = defaultdict(asyncio.Queue)

    async def connect(self, path: str, query: str = "") -> PlatformSocket:
        """Open a WebSocket to the method `web`."""
        call = f"fc-{len(self.frames_out)}"
        socket = PlatformSocket(self, call)
        function_input = api_pb2.FunctionInput(
            args=serialize(((_scope(path, query),), {})), data_format=api_pb2.DATA_FORMAT_PICKLE, method_name="web"
        )
        self._put(
            self._inputs, api_pb2.FunctionGetInputsItem(input_id=call, function_call_id=call, input=function_input)
        )
        await socket.pass_on({"type": "websocket.connect"})
        answer = await socket.next()
        assert answer["type"] == "websocket.accept", answer
        return socket

    def scale_down(self) -> None:
        """Ask the container to stop once it has no inputs left."""
        self._put(self._inputs, api_pb2.FunctionGetInputsItem(kill_switch=True))

    def pass_in(self, call: str, message: dict[str, Any]) -> None:
        self._put(self._frames_in[call], message)

    def until_called(self, name: str) -> None:
        """Wait for the first request of this name."""
        deadline = time.monotonic() + SECONDS_TO_ANSWER
        while not self.requests(name):
            assert time.monotonic() < deadline, f"{name} was not called: {[call for call, _ in self.calls]}"
            time.sleep(0.05)

    def _put(self, target: asyncio.Queue[Any], item: Any) -> None:
        self.loop.call_soon_threadsafe(target.put_nowait, item)

    # --- Requests of the container ---------------------------------------------------------------------------------

    async def _FunctionGetInputs(self, request: Any, id: int) -> Any:
        return api_pb2.FunctionGetInputsResponse(inputs=[await self._inputs.get()])

    async def _FunctionCallGetDataIn(self, request: Any, id: int) -> AsyncIterator[Any]:
        index = 0
        while True:
            message = await self._frames_in[request.function_call_id].get()
            index += 1
            data = serialize_data_format(message, api_pb2.DATA_FORMAT_ASGI)
            yield api_pb2.DataChunk(data_format=api_pb2.DATA_FORMAT_ASGI, index=index, data=data)

    def _FunctionCallPutDataOut(self, request: Any, id: int) -> Any:
        for chunk in request.data_chunks:
            message = deserialize_data_format(chunk.data, chunk.data_format, None)
            self.frames_out[request.function_call_id].put_nowait(message)
        return Empty()

    def _FunctionPutOutputs(self, request: Any, id: int) -> Any:
        for output in request.outputs:
            self._outputs.put_nowait(output)
        return Empty()

    # --- Requests of `modal run` -------------------------------------------------------------------------------------

    def _FunctionMap(self, request: Any, id: int) -> Any:
        (item,) = request.pipelined_inputs
        self._inputs.put_nowait(
            api_pb2.FunctionGetInputsItem(input_id="in-1", function_call_id="fc-1", input=item.input)
        )
        accepted = api_pb2.FunctionPutInputsResponseItem(idx=item.idx, input_id="in-1")
        return api_pb2.FunctionMapResponse(function_call_id="fc-1", pipelined_inputs=[accepted])

    async def _AppGetLogs(self, request: Any, id: int) -> AsyncIterator[Any]:
        await asyncio.sleep(0.2)  # the client asks again at once
        yield api_pb2.TaskLogsBatch()

    async def _FunctionGetOutputs(self, request: Any, id: int) -> Any:
        output = await self._outputs.get()
        item = api_pb2.FunctionGetOutputsItem(result=output.result, data_format=output.data_format, input_id="in-1")
        return api_pb2.FunctionGetOutputsResponse(outputs=[item], last_entry_id="1")


class PlatformSocket:
    """The client's end of a WebSocket that the platform forwards frame by frame."""

    def __init__(self, worker: Worker, call: str) -> None:
        self._worker = worker
        self._call = call
        self._frames = worker.frames_out[call]

    async def send(self, message: str | bytes) -> None:
        kind = "text" if isinstance(message, str) else "bytes"
        await self.pass_on({"type": "websocket.receive", kind: message})

    async def pass_on(self, message: dict[str, Any]) -> None:
        self._worker.pass_in(self._call, message)

    async def next(self) -> dict[str, Any]:
        """Return the app's next message.

        Raises:
            TimeoutError: There is none.
        """
        # In the worker's event loop and not in threads, of which two cores have fewer than a test has streams.
        waiting = asyncio.run_coroutine_threadsafe(self._frames.get(), self._worker.loop)
        frame: dict[str, Any] = await asyncio.wait_for(asyncio.wrap_future(waiting), SECONDS_TO_ANSWER)
        return frame

    async def everything(self) -> tuple[list[dict[str, Any]], int]:
        """Return all messages until the app closes the connection, and the close code."""
        messages = []
        while (frame := await self.next())["type"] == "websocket.send":
            messages.append(json.loads(frame["text"]))
        assert frame["type"] == "websocket.close", frame
        return messages, frame["code"]


def _scope(path: str, query: str) -> dict[str, Any]:
    return {
        "type": "websocket",
        "asgi": {"version": "3.0"},
        "http_version": "1.1",
        "scheme": "wss",
        "path": path,
        "raw_path": path.encode(),
        "root_path": "",
        "query_string": query.encode(),
        "headers": [(b"host", b"tympan.modal.run")],
        "subprotocols": [],
        "client": ("127.0.0.1", 1),
        "server": ("tympan.modal.run", 443),
        "extensions": {"websocket.http.response": {}},
    }
