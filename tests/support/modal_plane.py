"""A stand-in for Modal's control plane on loopback: records every call of the real client, with minimal replies."""

from __future__ import annotations

import asyncio
import socket
import threading
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

from grpclib.const import Handler
from grpclib.server import Server, Stream
from modal_proto import api_grpc, api_pb2

BUILDER_VERSION = "2026.10"


class ControlPlane:
    """A server on loopback: `plane.port` is its port, `plane.calls` the name and the request of every call."""

    def __init__(self) -> None:
        self.calls: list[tuple[str, Any]] = []
        self._ids = 0
        self.loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self.loop.run_forever, name="modal-plane")

    def __enter__(self) -> ControlPlane:
        self._thread.start()
        asyncio.run_coroutine_threadsafe(self._listen(), self.loop).result(10)
        return self

    async def _listen(self) -> None:
        listener = socket.create_server(("127.0.0.1", 0))
        self.port = listener.getsockname()[1]
        self._server = Server([_Recorder(self)])  # uses the running loop
        await self._server.start(sock=listener)

    def __exit__(self, *error: object) -> None:
        self.loop.call_soon_threadsafe(self._server.close)
        asyncio.run_coroutine_threadsafe(self._server.wait_closed(), self.loop).result(10)
        self.loop.call_soon_threadsafe(self.loop.stop)
        self._thread.join(10)
        self.loop.close()

    def requests(self, name: str) -> list[Any]:
        return [request for call, request in self.calls if call == name]

    def environment(self) -> dict[str, str]:
        """Return the variables that make the real client use this server."""
        return {
            "MODAL_SERVER_URL": f"http://127.0.0.1:{self.port}",
            "MODAL_TOKEN_ID": "ak-test",
            "MODAL_TOKEN_SECRET": "as-test",
            "MODAL_CONFIG_PATH": "/nonexistent",
            "MODAL_DISABLE_API_PROXY": "1",
        }

    def answer(self, name: str, request: Any, empty: Any) -> Any:
        """Return the reply to a call, an awaitable of it, or a stream of replies; empty unless the client needs ids."""
        self._ids += 1
        answer = getattr(self, f"_{name}", None)
        return empty if answer is None else answer(request, self._ids)

    def _AppCreate(self, request: Any, id: int) -> Any:
        return api_pb2.AppCreateResponse(app_id=f"ap-{id}", app_page_url="http://localhost/app")

    def _EnvironmentGetOrCreate(self, request: Any, id: int) -> Any:
        settings = api_pb2.EnvironmentSettings(image_builder_version=BUILDER_VERSION)
        metadata = api_pb2.EnvironmentMetadata(name="main", settings=settings)
        return api_pb2.EnvironmentGetOrCreateResponse(environment_id=f"en-{id}", metadata=metadata)

    def _SecretGetOrCreate(self, request: Any, id: int) -> Any:
        return api_pb2.SecretGetOrCreateResponse(secret_id=f"st-{id}")

    def _MountGetOrCreate(self, request: Any, id: int) -> Any:
        metadata = api_pb2.MountHandleMetadata(content_checksum_sha256_hex="0")
        return api_pb2.MountGetOrCreateResponse(mount_id=f"mo-{id}", handle_metadata=metadata)

    def _ImageGetOrCreate(self, request: Any, id: int) -> Any:
        result = api_pb2.GenericResult(status=api_pb2.GenericResult.GENERIC_STATUS_SUCCESS)
        return api_pb2.ImageGetOrCreateResponse(image_id=f"im-{id}", result=result)

    def _FunctionPrecreate(self, request: Any, id: int) -> Any:
        handle = self._handle(request.function_name, id, request.HasField("webhook_config"))
        return api_pb2.FunctionPrecreateResponse(function_id=f"fu-{id}", handle_metadata=handle)

    def _FunctionCreate(self, request: Any, id: int) -> Any:
        function = request.function
        if not function.function_name:
            function = request.function_data.ranked_functions[0].function
        is_web = function.is_server or function.HasField("webhook_config")
        data = api_pb2.FunctionData()
        data.ranked_functions.add(rank=0, function=function)
        return api_pb2.FunctionCreateResponse(
            function_id=request.existing_function_id or f"fu-{id}",
            function=function,
            function_data=data,
            handle_metadata=self._handle(function.function_name, id, is_web, function.method_definitions),
        )

    def _ClassCreate(self, request: Any, id: int) -> Any:
        return api_pb2.ClassCreateResponse(class_id=f"cs-{id}", handle_metadata=api_pb2.ClassHandleMetadata())

    def _AppPublish(self, request: Any, id: int) -> Any:
        return api_pb2.AppPublishResponse(url="http://localhost/app")

    def _handle(self, name: str, id: int, is_web: bool, methods: Any = ()) -> Any:
        handle = api_pb2.FunctionHandleMetadata(
            function_name=name,
            function_type=api_pb2.Function.FUNCTION_TYPE_FUNCTION,
            definition_id=f"de-{id}",
            web_url="http://localhost/web" if is_web else "",
        )
        for method in methods:
            handle.method_handle_metadata[method].CopyFrom(
                api_pb2.FunctionHandleMetadata(function_name=method, definition_id=f"de-{id}-{method}")
            )
        return handle


class _Recorder(api_grpc.ModalClientBase):
    """Every method of the service; each records its call."""

    def __init__(self, plane: ControlPlane) -> None:
        self._plane = plane

    def __mapping__(self) -> dict[str, Handler]:
        return {
            path: handler._replace(func=self._record(path.rpartition("/")[2], handler.reply_type))
            for path, handler in super().__mapping__().items()
        }

    def _record(self, name: str, reply: Any) -> Callable[[Stream[Any, Any]], Awaitable[None]]:
        async def respond(stream: Stream[Any, Any]) -> None:
            request = await stream.recv_message()
            self._plane.calls.append((name, request))
            answer = self._plane.answer(name, request, reply())
            if isinstance(answer, AsyncIterator):
                async for message in answer:
                    await stream.send_message(message)
            else:
                await stream.send_message(await answer if isinstance(answer, Awaitable) else answer)

        return respond


_Recorder.__abstractmethods__ = frozenset()  # `_record` implements all of them
