"""Several front processes are one service: capacity, limits, metrics, tokens and resumed streams are shared."""

from __future__ import annotations

import asyncio
import json
import re
import signal
import ssl
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, suppress
from pathlib import Path

import httpx2 as httpx
import psutil
import pytest
import trustme
from support.faults.process import ServerProcess
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidStatus

from tympan.engine.scripted import scripted_words

pytestmark = pytest.mark.timeout(90)

EVENTS = "/v1/stream?events=ready,word&resume=yes"
FRAME = bytes(3840)
FREE_KEY, LIMITED_KEY, METRICS_KEY = "free-key-000000000000", "limited-key-000000000", "metrics-key-00000000"
LIMITED = "streams=2 upload_bytes_per_minute=100000"
CAPACITY = 8
ALL_SERVE = "2 front processes serve"
MANY = 60  # attempts after which both fronts have had one: all but impossible otherwise


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    folder = tmp_path_factory.mktemp("fronts")
    (folder / "keys").write_text(f"{FREE_KEY} name=free\n{LIMITED_KEY} name=limited {LIMITED}\n")
    (folder / "keys").chmod(0o600)
    settings = {
        "model": "scripted",
        "fronts": 2,
        "max_streams": CAPACITY,
        "api_keys_file": folder / "keys",
        "metrics_key": METRICS_KEY,
        "address_connections": 12,
        "log_format": "json",
    }
    with ServerProcess(folder / "log", wait_for=ALL_SERVE, environment={"TMPDIR": str(folder)}, **settings) as server:
        yield server


def headers(key: str = FREE_KEY) -> dict[str, str]:
    return {"Authorization": f"Bearer {key}"}


async def dial(server: ServerProcess, path: str, key: str, tls: ssl.SSLContext | None) -> ClientConnection:
    url = server.url(path)
    return await connect(url if tls is None else url.replace("ws:", "wss:"), additional_headers=headers(key), ssl=tls)


class Stream:
    """A stream that can be resumed.

    Attributes:
        front: The front process that keeps it.
        words: The words received.
    """

    def __init__(self, socket: ClientConnection, ready: dict[str, str]) -> None:
        self.socket = socket
        self.token = ready["resume"]
        self.front = int(self.token.partition(".")[0])
        self.received = 1
        self.words: list[str] = []

    @classmethod
    async def open(cls, server: ServerProcess, key: str = FREE_KEY, tls: ssl.SSLContext | None = None) -> Stream:
        socket = await dial(server, EVENTS, key, tls)
        return cls(socket, json.loads(await socket.recv()))

    async def resume(self, server: ServerProcess, tls: ssl.SSLContext | None = None) -> int:
        """Lose the connection and resume the stream; return how many bytes the server has of it."""
        self.socket.transport.abort()
        path = f"/v1/stream?resume={self.token}&received={self.received}"
        self.socket = await dial(server, path, FREE_KEY, tls)
        return int(json.loads(await self.socket.recv())["audio_bytes"])

    async def finish(self) -> int:
        """Receive the remaining words, and return the close code."""
        await self.socket.send("EOS")
        return await self.read()

    async def read(self) -> int:
        with suppress(ConnectionClosed):
            await self.read_until("nothing")
        return self.socket.close_code or 0

    async def read_until(self, kind: str) -> None:
        """Receive messages up to the first one of a type."""
        received = ""
        while received != kind:
            fields = json.loads(await self.socket.recv())
            self.received += 1
            received = fields["type"]
            if received == "word":
                self.words.append(fields["text"])


@pytest.fixture
async def streams(server: ServerProcess) -> AsyncIterator[AsyncExitStack]:
    """Closes streams at the end, and waits until no slot is in use."""
    async with AsyncExitStack() as stack:
        yield stack
    await until_idle(server)


async def until_idle(server: ServerProcess) -> None:
    async with asyncio.timeout(30):
        while (await get(server, "/health")).json()["active"]:
            await asyncio.sleep(0.05)


async def opened(
    stack: AsyncExitStack, server: ServerProcess, count: int, fronts: int = 1, key: str = FREE_KEY
) -> list[Stream]:
    """Open streams, at least one at each of this many fronts; those that are too many end with 1001."""
    kept: list[Stream] = []
    for _ in range(MANY):
        stream = await Stream.open(server, key)
        seen = {each.front for each in kept}
        if len(kept) + fronts - len(seen) >= count and stream.front in seen:
            await stream.socket.close(1001)  # the last places are for other fronts
            await asyncio.sleep(0.05)
            continue
        kept.append(stream)
        stack.push_async_callback(stream.socket.close)
        if len(kept) == count:
            assert len({each.front for each in kept}) >= fronts
            return kept
    raise AssertionError("all connections reach the same front")


async def get(server: ServerProcess, path: str, **arguments: str) -> httpx.Response:
    async with httpx.AsyncClient() as client:
        return await client.get(f"http://127.0.0.1:{server.port}{path}", timeout=10, **arguments)


async def post(server: ServerProcess, path: str, key: str, content: bytes) -> httpx.Response:
    async with httpx.AsyncClient() as client:
        url = f"http://127.0.0.1:{server.port}{path}"
        return await client.post(url, content=content, headers=headers(key), timeout=20)


async def metric(server: ServerProcess, sample: str) -> float:
    async with httpx.AsyncClient(headers=headers(METRICS_KEY)) as client:
        text = (await client.get(f"http://127.0.0.1:{server.port}/metrics", timeout=10)).text
    found = re.findall(rf"^{re.escape(sample)} (\S+)$", text, re.MULTILINE)
    return float(found[0]) if found else 0.0


async def refused(server: ServerProcess, key: str = FREE_KEY) -> tuple[int, str]:
    """Return the status and the body of the answer to a client that is not admitted."""
    with pytest.raises(InvalidStatus) as error:
        await connect(server.url(), additional_headers=headers(key))
    return error.value.response.status_code, (error.value.response.body or b"").decode()


async def test_capacity_is_that_of_the_engine(server: ServerProcess, streams: AsyncExitStack) -> None:
    await opened(streams, server, CAPACITY, fronts=2)
    for _ in range(6):
        status, body = await refused(server)
        assert (status, f"all {CAPACITY} streams are taken" in body) == (503, True)
        health = (await get(server, "/health")).json()
        assert (health["capacity"], health["active"]) == (CAPACITY, CAPACITY)


async def test_metrics_are_those_of_all_processes(server: ServerProcess, streams: AsyncExitStack) -> None:
    ended = 'tympan_sessions_total{code="1000",protocol="native"}'
    before, steps = await metric(server, ended), await metric(server, "tympan_step_seconds_count")
    for stream in await opened(streams, server, 6, fronts=2):
        await stream.socket.send(FRAME * 20)
        assert await metric(server, "tympan_active_streams") > 0
        assert await stream.finish() == 1000
    async with asyncio.timeout(30):  # a session is counted once its connection has ended at the server too
        while await metric(server, ended) < before + 6:
            await asyncio.sleep(0.05)
    for _ in range(6):
        assert await metric(server, ended) == before + 6
        assert await metric(server, "tympan_capacity_streams") == CAPACITY
    assert await metric(server, "tympan_step_seconds_count") > steps


async def test_limits_of_a_key_hold_for_all_fronts(server: ServerProcess, streams: AsyncExitStack) -> None:
    first, _ = await opened(streams, server, 2, fronts=2, key=LIMITED_KEY)
    for _ in range(6):
        status, body = await refused(server, LIMITED_KEY)
        assert (status, "2 concurrent streams" in body) == (429, True)
        assert await metric(server, 'tympan_key_streams{key="limited"}') == 2
    assert await first.finish() == 1000
    await opened(streams, server, 1, key=LIMITED_KEY)


async def test_bytes_of_files_count_for_all_fronts(server: ServerProcess) -> None:
    """Each front reports once a second."""
    path = "/v1/listen?encoding=linear16&sample_rate=24000"

    async def statuses(count: int, size: int) -> set[int]:
        return {(await post(server, path, LIMITED_KEY, bytes(size))).status_code for _ in range(count)}

    assert await statuses(16, 1200) == {200}
    assert await statuses(1, 75_000) == {200}
    for _ in range(5):  # of 100,000 bytes the front without the large file receives at most 19,200 and 5 * 9,600
        if await statuses(8, 1200) == {429}:
            break
        await asyncio.sleep(2)
    else:
        raise AssertionError("a front accepts files although both together have received too many bytes")
    await until_idle(server)


async def test_short_lived_token_is_valid_at_all_fronts(server: ServerProcess, streams: AsyncExitStack) -> None:
    token = (await post(server, "/v1/auth/grant", FREE_KEY, b"{}")).json()["access_token"]
    await opened(streams, server, 2, fronts=2, key=token)


async def test_connections_of_an_address_count_for_all_fronts(server: ServerProcess) -> None:
    await asyncio.sleep(0.2)
    sockets = [await asyncio.open_connection("127.0.0.1", server.port) for _ in range(24)]
    await asyncio.sleep(0.5)
    is_open = [not reader.at_eof() for reader, _ in sockets]
    for _, writer in sockets:
        writer.close()
    assert sum(is_open) <= 12
    assert sum(is_open) >= 10, "connections of the tests before may still be open"
    await asyncio.sleep(0.2)
    await until_idle(server)


def holder(server: ServerProcess, socket: ClientConnection) -> int:
    """Return the front process that has accepted a connection."""
    port = socket.local_address[1]
    for process in psutil.Process(server.process.pid).children():
        if any(each.raddr and each.raddr.port == port for each in process.net_connections()):
            return process.pid
    raise AssertionError("nobody has the connection")


async def resume_through_another_front(server: ServerProcess, stream: Stream, tls: ssl.SSLContext | None = None) -> int:
    """Resume a stream until another front has accepted its connection; return the frames sent."""
    first = holder(server, stream.socket)
    for attempt in range(1, MANY):
        await stream.socket.send(FRAME * 10)
        await asyncio.sleep(0.05)
        had = await stream.resume(server, tls)
        await stream.socket.send(bytes(attempt * 10 * len(FRAME) - had))
        if attempt > 1 and holder(server, stream.socket) != first:
            return 10 * attempt
    raise AssertionError("all connections reach the same front")


async def test_stream_is_resumed_through_any_front(server: ServerProcess, streams: AsyncExitStack) -> None:
    """Whichever front has accepted a connection, the stream continues where it is."""
    stream, *_ = await opened(streams, server, 1)
    frames = await resume_through_another_front(server, stream)
    assert await stream.finish() == 1000
    assert stream.words == [word.text for word in scripted_words(frames)]


async def test_resumed_stream_gets_its_last_words_through_another_front(tmp_path: Path) -> None:
    """With TLS, whose state is in the process that has accepted the connection, and while all fronts stop."""
    authority = trustme.CA()
    authority.issue_cert("127.0.0.1").private_key_and_cert_chain_pem.write_to_path(tmp_path / "both.pem")
    (tmp_path / "both.pem").chmod(0o600)
    tls = ssl.create_default_context()
    authority.configure_trust(tls)
    settings = {"model": "scripted", "fronts": 2, "tls_certificate": tmp_path / "both.pem"}
    with ServerProcess(tmp_path / "log", wait_for=ALL_SERVE, **settings) as server:
        stream = await Stream.open(server, tls=tls)
        frames = await resume_through_another_front(server, stream, tls)
        await stream.socket.send('{"type": "flush"}')
        await stream.read_until("flushed")  # the server has read all of it
        server.process.send_signal(signal.SIGTERM)
        assert await stream.read() == 1012
        assert stream.words == [word.text for word in scripted_words(frames)]
        assert await asyncio.to_thread(server.process.wait, 30) == -signal.SIGTERM


async def test_token_of_no_front(server: ServerProcess) -> None:
    for token in ("1.unknown", "2.unknown", "99.unknown", "unknown", "1", "../1.x"):
        async with connect(server.url(f"/v1/stream?resume={token}&received=1"), additional_headers=headers()) as socket:
            assert json.loads(await socket.recv())["code"] == "cannot_resume"


def test_log_names_the_process(server: ServerProcess) -> None:
    lines = [json.loads(line) for line in server.log.splitlines()]
    processes = {line.get("process") for line in lines}
    assert processes >= {None, "front 1", "front 2"}
    assert all("process" in line for line in lines if line["logger"] == "tympan.server.uvicorn_server")


def test_stop(tmp_path: Path) -> None:
    """The streams of all fronts get their last words, then everything ends."""

    async def run(server: ServerProcess) -> None:
        async with AsyncExitStack() as stack:
            calls = await opened(stack, server, 6, fronts=2)
            for call in calls:
                await call.socket.send(FRAME * 50)
                await call.read_until("word")  # the server has read all of it
            server.process.send_signal(signal.SIGTERM)
            assert await asyncio.gather(*(call.read() for call in calls)) == [1012] * 6
            for call in calls:
                assert call.words == [word.text for word in scripted_words(50)]

    with ServerProcess(tmp_path / "log", wait_for=ALL_SERVE, model="scripted", fronts=2) as server:
        children = server.children()
        assert len(children) >= 3
        asyncio.run(run(server))
        assert server.process.wait(30) == -signal.SIGTERM
        psutil.wait_procs(children, 10)
        assert not any(child.is_running() for child in children)
        assert "Traceback" not in server.log


@pytest.mark.parametrize(
    ("settings", "reason"),
    [
        ({"engine_processes": 0}, "set engine_processes to 1"),
        ({"api_keys_file": "/no/such/file"}, "/no/such/file"),
        ({"model": "scripted:x"}, "scripted:x"),
    ],
)
def test_server_that_cannot_start(tmp_path: Path, settings: dict[str, object], reason: str) -> None:
    with ServerProcess(tmp_path / "log", wait_for="", **{"model": "scripted", "fronts": 2, **settings}) as server:
        assert server.process.wait(30) == 2
    assert reason in server.log
    assert "Traceback" not in server.log
