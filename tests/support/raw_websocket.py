"""A WebSocket client that sends and receives single frames, valid or not."""

from __future__ import annotations

import base64
import os
import socket
import struct
from types import TracebackType
from typing import Final, Self

TEXT, BINARY, CONTINUATION, CLOSE, PING, PONG = 1, 2, 0, 8, 9, 10
HEADERS: Final = {
    "Host": "localhost",
    "Upgrade": "websocket",
    "Connection": "Upgrade",
    "Sec-WebSocket-Version": "13",
}


class RawClient:
    """Opens a connection; `status` and `body` are the answer to the upgrade.

    Args:
        port: The port of a server on this machine.
        path: Path and query of the request.
        lines: Header lines; by default those of a valid opening request.
    """

    def __init__(self, port: int, path: str = "/v1/stream", lines: list[str] | None = None, **headers: str) -> None:
        self.socket = socket.create_connection(("127.0.0.1", port), timeout=15)
        if lines is None:
            key = base64.b64encode(os.urandom(16)).decode()
            given = {name.replace("_", "-"): value for name, value in headers.items()}
            lines = [f"{name}: {value}" for name, value in {**HEADERS, "Sec-WebSocket-Key": key, **given}.items()]
        self.socket.sendall("\r\n".join([f"GET {path} HTTP/1.1", *lines, "", ""]).encode())
        self._reader = self.socket.makefile("rb")
        self.status = int(self._reader.readline().split()[1])
        self.headers: dict[str, str] = {}
        while (line := self._reader.readline().decode("latin-1").strip()) != "":
            name, _, value = line.partition(":")
            self.headers[name.lower()] = value.strip()
        self.body = b"" if self.status == 101 else self._reader.read(int(self.headers.get("content-length", 0)))

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._reader.close()
        self.socket.close()

    def send(self, kind: int, payload: bytes = b"") -> None:
        """Send one masked frame."""
        size = len(payload)
        length = bytes([0x80 | size]) if size < 126 else b"\xfe" + struct.pack(">H", size)
        self.socket.sendall(bytes([0x80 | kind]) + length + bytes(4) + payload)

    def receive(self) -> tuple[int, bytes]:
        """Return the type and the payload of the next frame."""
        first, second = self._reader.read(2)
        size = second & 0x7F
        if size == 126:
            (size,) = struct.unpack(">H", self._reader.read(2))
        elif size == 127:
            (size,) = struct.unpack(">Q", self._reader.read(8))
        return first & 0x0F, self._reader.read(size)

    def close_frame(self) -> bytes:
        """Return the payload of the server's close frame, after the messages before it."""
        while (frame := self.receive())[0] != CLOSE:
            pass
        return frame[1]

    def is_closed(self) -> bool:
        """Return whether the server closes the TCP connection without another frame."""
        return self._reader.read(1) == b""
