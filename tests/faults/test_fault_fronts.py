"""One of several front processes is lost: the others continue, and its clients resume or open a new stream there."""

from __future__ import annotations

import json
import signal
import time
from contextlib import ExitStack, suppress
from pathlib import Path

import httpx2 as httpx
import psutil
import pytest
from support.faults.callers import Crowd, none_lost, until
from support.faults.process import ServerProcess
from support.faults.server import embedded_server
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.sync.client import connect

from tympan.server.fronts.folder import PREFIX

pytestmark = [pytest.mark.fault, pytest.mark.timeout(120)]

EMBEDDED_RATE = 16_000
ALL_SERVE = "2 front processes serve"


SERVE = """
import sys
from tympan.cli.main import main
from tympan.engine.batching import restarts
from tympan.server.fronts import process
process.HANG_SECONDS = 3
restarts.RESTART_SECONDS = (0.0,)
sys.exit(main(["serve", *sys.argv[1:]]))
"""


def fronts_of(children: list[psutil.Process]) -> list[psutil.Process]:
    """Return the front processes, without the decoders that they have forked."""
    fronts = []
    for child in children:
        with suppress(psutil.NoSuchProcess):  # or a zombie
            if "tympan.server.fronts.front" in child.cmdline():
                fronts.append(child)
    return [child for child in fronts if child.ppid() not in {each.pid for each in fronts}]


async def test_front_is_lost(tmp_path: Path) -> None:
    """No word is lost or repeated, and about half of the clients notice nothing."""
    crowd = Crowd.of(12, seconds=10)
    with embedded_server(tmp_path / "log", max_streams=24, fronts=2) as server:
        await until(lambda: ALL_SERVE in server.log)
        calls = crowd.start(server.url, EMBEDDED_RATE)
        await crowd.wait_for_words()
        crowd.mark_fault()
        victim, other = fronts_of(server.children())
        victim.kill()
        await calls
        await until(lambda: len(fronts_of(server.children())) == 2)
        assert other in fronts_of(server.children())
        assert not server.exits
    assert none_lost(crowd.figures("one of two front processes killed"))
    assert 0 < len([caller for caller in crowd.callers if caller.close_codes]) < len(crowd.callers)


def test_front_hangs(tmp_path: Path) -> None:
    """The supervisor takes clients of a front that hangs away from it, by killing it."""
    with ServerProcess(tmp_path / "log", ("-c", SERVE), wait_for=ALL_SERVE, model="scripted", fronts=2) as server:
        hung = fronts_of(server.children())[0]
        hung.send_signal(signal.SIGSTOP)
        server.until(lambda: "has not answered for 3 s and is killed" in server.log)
        server.until(lambda: len(fronts_of(server.children())) == 2 and hung not in fronts_of(server.children()))
        assert server.get("/ready").status_code == 200


def test_front_that_fails_again_and_again(tmp_path: Path) -> None:
    """After five restarts in a row the server ends, so that its own supervisor can act."""
    with ServerProcess(tmp_path / "log", ("-c", SERVE), wait_for=ALL_SERVE, model="scripted", fronts=2) as server:
        number = 0
        while server.process.poll() is None:
            fronts = sorted(fronts_of(server.children()), key=lambda each: each.create_time())
            victim = fronts[number and -1]  # one front at first, then its successors
            number += 1
            victim.kill()
            psutil.wait_procs([victim], 10)
            server.until(lambda: len(fronts_of(server.children())) == 2 or server.process.poll() is not None)
        assert server.process.wait(30) == 1
        assert number == 6
    assert "failed again after 5 restarts in a row: restart the server" in server.log


def test_front_that_fails_now_and_then(tmp_path: Path) -> None:
    """Failures after a good run do not add up."""
    serve = SERVE.replace("restarts.RESTART", "restarts.GOOD_RUN_SECONDS = 0.0\nrestarts.RESTART")
    with ServerProcess(tmp_path / "log", ("-c", serve), wait_for=ALL_SERVE, model="scripted", fronts=2) as server:
        server.until(lambda: server.log.count("serves model") == 2)
        for number in range(7):
            victim = max(fronts_of(server.children()), key=lambda each: each.create_time())
            victim.kill()
            server.until(lambda count=number + 3: server.log.count("serves model") == count)
        assert server.get("/ready").status_code == 200


def test_limits_of_a_key_after_the_loss_of_fronts(tmp_path: Path) -> None:
    """What lost fronts have reserved is free, in the engine and in the ledger."""
    settings = {"model": "scripted", "fronts": 2, "max_streams": 4, "key_streams": 4, "address_connections": 6}
    with ServerProcess(tmp_path / "log", ("-c", SERVE), wait_for=ALL_SERVE, **settings) as server:
        for number in (1, 2):
            with ExitStack() as stack:
                for _ in range(4):
                    stack.enter_context(connect(server.url()))
                with pytest.raises(InvalidStatus):
                    connect(server.url())
                for victim in fronts_of(server.children()):
                    victim.kill()
            server.until(lambda count=2 * number + 2: server.log.count("serves model") == count)
            server.until(lambda: server.get("/health").json()["active"] == 0)


def test_killed_supervisor_leaves_nothing(tmp_path: Path) -> None:
    """Its processes end with it, and the next supervisor removes its folder of sockets, but not that of another one."""
    settings = {"environment": {"TMPDIR": str(tmp_path)}, "wait_for": ALL_SERVE, "model": "scripted", "fronts": 2}
    with (
        ServerProcess(tmp_path / "log", **settings) as server,
        ServerProcess(tmp_path / "other", **settings) as other,
    ):
        folders = set(tmp_path.glob(f"{PREFIX}*"))
        assert len(folders) == 2
        children = server.children()
        server.process.kill()
        _, left = psutil.wait_procs(children, 10)
        for child in left:
            child.kill()
        assert not left
        with ServerProcess(tmp_path / "next", **settings):
            kept = folders & set(tmp_path.glob(f"{PREFIX}*"))
            assert len(kept) == 1
            assert other.get("/ready").status_code == 200
            assert {path.parent for path in kept.pop().rglob("engine-1")} < folders


def test_second_signal_ends_drain_of_fronts(tmp_path: Path) -> None:
    settings = {"model": "scripted:5000", "fronts": 2, "grace_seconds": 300}
    with (
        ServerProcess(tmp_path / "log", wait_for=ALL_SERVE, **settings) as server,
        ExitStack() as stack,
    ):
        for _ in range(8):
            stack.enter_context(connect(server.url())).send(bytes(3840 * 20))
        server.process.send_signal(signal.SIGTERM)
        server.until(lambda: server.get("/ready").status_code == 503)
        time.sleep(1)
        assert server.process.poll() is None
        server.process.send_signal(signal.SIGTERM)
        assert server.process.wait(20) == -signal.SIGTERM


def test_signal_to_all_processes_of_the_service(tmp_path: Path) -> None:
    """As systemd sends it: fronts follow the supervisor only, and every stream gets its last words."""
    with (
        ServerProcess(tmp_path / "log", wait_for=ALL_SERVE, model="scripted", fronts=2) as server,
        ExitStack() as stack,
    ):
        streams = [stack.enter_context(connect(server.url())) for _ in range(8)]
        for stream in streams:
            stream.send(bytes(3840 * 50))
            stream.recv(timeout=20)  # the server has read all of it
        for process in [*server.children(), server.process]:
            process.send_signal(signal.SIGTERM)
        for stream in streams:
            texts = []
            with pytest.raises(ConnectionClosed):
                while True:
                    texts.append(json.loads(stream.recv(timeout=20)))
            assert stream.close_code == 1012
            assert len([each for each in texts if each["type"] == "word"]) == 9, "and one before"
        assert server.process.wait(30) == -signal.SIGTERM


def test_health_and_signal_while_the_model_loads(tmp_path: Path) -> None:
    """`/health` answers within 50 ms whatever the engine process does; the least of several, on a busy machine."""
    command = ("-m", "support.faults.serve", "load")
    with ServerProcess(tmp_path / "log", command, wait_for="", fronts=2) as server:
        server.until(lambda: len(server.children()) == 3 and answers(server))
        seconds = []
        with httpx.Client(base_url=f"http://127.0.0.1:{server.port}") as client:
            for _ in range(20):
                began = time.monotonic()
                assert client.get("/health").status_code == 200
                seconds.append(time.monotonic() - began)
        assert min(seconds) < 0.05
        assert server.get("/ready").status_code == 503
        children = server.children()
        server.process.send_signal(signal.SIGTERM)
        assert server.process.wait(20) == -signal.SIGTERM
        _, left = psutil.wait_procs(children, 10)
        assert not left


def answers(server: ServerProcess) -> bool:
    with suppress(httpx.TransportError):
        return server.get("/health").status_code == 200
    return False
