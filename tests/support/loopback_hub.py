"""A hub on the loopback interface: metadata, a redirect to a file server without tokens, ranges, and every failure."""

from __future__ import annotations

import hashlib
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import TracebackType
from typing import Self
from urllib.parse import unquote

COMMIT = "c" * 40
CHUNK = 1 << 14


@dataclass(frozen=True)
class Content:
    """A file: its first bytes, then zeros up to its size."""

    start: bytes
    size: int
    etag: str

    @staticmethod
    def of(data: bytes) -> Content:
        """Return a file with the checksums of the hub: that of a Git blob for small files, SHA-256 for large ones."""
        blob = hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest()
        return Content(data, len(data), hashlib.sha256(data).hexdigest() if len(data) > 10_000 else blob)

    def read(self, start: int, end: int) -> bytes:
        data = self.start[start:end]
        return data + bytes(end - start - len(data))


@dataclass
class Failure:
    """A response with an error instead of a file.

    Attributes:
        status: HTTP status.
        headers: Headers, such as `X-Error-Code`.
        times: How many requests get it.
        with_token_only: Whether requests without a token succeed.
    """

    status: int
    headers: dict[str, str] = field(default_factory=dict)
    times: int = 1_000_000
    with_token_only: bool = False


class LoopbackHub:
    """Context manager around the server.

    Attributes:
        files: Files by name.
        failure: What metadata requests get in place of an answer.
        cut_every: Bytes of a response after which the connection is closed; None for never.
        hold_at: Number of bytes of all files at which sending stops, until `release` is set.
        sent: Bytes sent, by file.
        ranges: First byte of every request for content, by file in the order of the requests.
        leaked_tokens: Requests for content that carried a token.
    """

    def __init__(self, files: dict[str, Content], repository: str = "kyutai/test") -> None:
        self.files = files
        self.repository = repository
        self.failure: Failure | None = None
        self.content_failure: Failure | None = None
        self.cut_every: int | None = None
        self.hold_at: int | None = None
        self.release = threading.Event()
        self.held = threading.Event()
        self.ignores_ranges = False
        self.sent: Counter[str] = Counter()
        self.ranges: list[tuple[str, int]] = []
        self.leaked_tokens = 0

    def __enter__(self) -> Self:
        hub = self

        class Handler(_Handler):
            pass

        Handler.hub = hub
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True)
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.release.set()
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._server.server_address[1]}"

    @property
    def file_server(self) -> str:
        """Another host name for the same server, so that a client must not send its token there."""
        return f"http://localhost:{self._server.server_address[1]}/content"

    def environment(self, home: Path, **changes: str) -> dict[str, str]:
        """Return the environment variables of a client whose cache is in `home`."""
        return {"HF_ENDPOINT": self.url, "HF_HOME": str(home), "HF_HUB_DISABLE_TELEMETRY": "1", **changes}

    @contextmanager
    def sending(self, name: str) -> Iterator[None]:
        """Wait while sending is held."""
        if self.hold_at is not None and sum(self.sent.values()) >= self.hold_at:
            self.held.set()
            self.release.wait(60)
        yield


class _Handler(BaseHTTPRequestHandler):
    hub: LoopbackHub
    protocol_version = "HTTP/1.1"

    def do_HEAD(self) -> None:
        self._answer(with_body=False)

    def do_GET(self) -> None:
        self._answer(with_body=True)

    def log_message(self, format: str, *arguments: object) -> None:
        """Print nothing."""

    def _answer(self, *, with_body: bool) -> None:
        hub, self.path = self.hub, unquote(self.path)
        if self.path == "/":
            self._head(200, {"Content-Length": "0"})
        elif self.path.startswith("/content/"):
            hub.leaked_tokens += "Authorization" in self.headers
            self._content(self.path.removeprefix("/content/"), with_body=with_body)
        elif (failure := self._failure("failure")) is not None:
            self._head(failure.status, {"Content-Length": "0", **failure.headers})
        else:
            self._metadata()

    def _failure(self, kind: str) -> Failure | None:
        failure: Failure | None = getattr(self.hub, kind)
        if failure is None or failure.times == 0 or (failure.with_token_only and "Authorization" not in self.headers):
            return None
        failure.times -= 1
        return failure

    def _metadata(self) -> None:
        hub = self.hub
        prefix = f"/{hub.repository}/resolve/"
        _, _, name = self.path.removeprefix(prefix).partition("/")
        headers = {"X-Repo-Commit": COMMIT, "Content-Length": "0"}
        if not self.path.startswith(prefix):
            self._head(401, {**headers, "X-Error-Code": "RepoNotFound"})
        elif name not in hub.files:
            self._head(404, {**headers, "X-Error-Code": "EntryNotFound"})
        else:
            content = hub.files[name]
            linked = {"X-Linked-Etag": f'"{content.etag}"', "X-Linked-Size": str(content.size)}
            self._head(302, {**headers, **linked, "Location": f"{hub.file_server}/{name}"})

    def _content(self, name: str, *, with_body: bool) -> None:
        hub, content = self.hub, self.hub.files[name]
        if (failure := self._failure("content_failure")) is not None:
            self._head(failure.status, {"Content-Length": "0", **failure.headers})
            return
        start, end = 0, content.size
        requested = self.headers.get("Range", "")
        if requested and not hub.ignores_ranges:
            first, _, last = requested.removeprefix("bytes=").partition("-")
            start, end = int(first), min(content.size, int(last) + 1 if last else content.size)
        hub.ranges.append((name, start))
        status = 206 if requested and not hub.ignores_ranges else 200
        span = {"Content-Range": f"bytes {start}-{end - 1}/{content.size}"} if status == 206 else {}
        self._head(status, {"Content-Length": str(end - start), "ETag": f'"{content.etag}"', **span})
        limit = end if hub.cut_every is None else min(end, start + hub.cut_every)
        try:
            while with_body and start < limit:
                with hub.sending(name):
                    data = content.read(start, min(limit, start + CHUNK))
                    self.wfile.write(data)
                    hub.sent[name] += len(data)
                    start += len(data)
        except OSError:
            self.close_connection = True
        if start < end:
            self.close_connection = True

    def _head(self, status: int, headers: dict[str, str]) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()
