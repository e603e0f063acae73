"""Networks that stall, cut connections or drop packets, for less and for more than `resume_seconds`."""

from __future__ import annotations

import asyncio
import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.faults.callers import Crowd, none_lost
from support.faults.server import marks_server
from support.proxy import Proxy

from tympan.client import transport

pytestmark = [pytest.mark.fault, pytest.mark.timeout(90)]

RESUME_SECONDS = 3
OUTAGES = [2.0, 6.0]
NAMESPACE, OUTSIDE, INSIDE = (f"ty{os.getpid()}{end}" for end in ("", "o", "i"))
NETWORK = f"10.213.{os.getpid() % 256}"


@pytest.mark.parametrize("seconds", OUTAGES)
@pytest.mark.parametrize("kind", ["stalled", "cut"])
async def test_network_stalled_or_cut(tmp_path: Path, kind: str, seconds: float) -> None:
    """A stalled network keeps connections but passes no data; a cut one also refuses new connections."""
    crowd = Crowd.of(20, seconds=8)
    with marks_server(tmp_path / "log", resume_seconds=RESUME_SECONDS) as server:
        async with Proxy(server.port) as proxy:
            calls = crowd.start(proxy.url)
            await crowd.wait_for_words()
            crowd.mark_fault()
            if kind == "stalled":
                proxy.flowing.clear()
            else:
                proxy.is_up = False
                proxy.cut()
            await asyncio.sleep(seconds)
            proxy.flowing.set()
            proxy.is_up = True
            await calls
    assert none_lost(crowd.figures(f"network {kind} for {seconds:g} s"))
    assert bool(crowd.close_codes()) == (kind == "cut")


async def test_network_gone_for_good(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The old connections pass no data and are never closed, as when a phone changes its network."""
    monkeypatch.setattr(transport, "QUIET_SECONDS", 1.0)  # instead of 20
    crowd = Crowd.of(20, seconds=8)
    with marks_server(tmp_path / "log", resume_seconds=RESUME_SECONDS) as server:
        async with Proxy(server.port) as proxy:
            calls = crowd.start(proxy.url)
            await crowd.wait_for_words()
            crowd.mark_fault()
            proxy.flowing.clear()
            proxy.flowing = asyncio.Event()
            proxy.flowing.set()
            await calls
    assert none_lost(crowd.figures("network gone for good"))
    assert crowd.close_codes() == {1006: 20}


@pytest.fixture
def namespace() -> Iterator[None]:
    """A network namespace for the server, linked to the default one."""
    if os.geteuid() != 0 or shutil.which("ip") is None:
        pytest.skip("network namespaces need root and `ip`")
    commands = [
        f"ip netns add {NAMESPACE}",
        f"ip link add {OUTSIDE} type veth peer name {INSIDE} netns {NAMESPACE}",
        f"ip addr add {NETWORK}.1/30 dev {OUTSIDE}",
        f"ip -n {NAMESPACE} addr add {NETWORK}.2/30 dev {INSIDE}",
        f"ip link set {OUTSIDE} up",
        f"ip -n {NAMESPACE} link set {INSIDE} up",
        f"ip -n {NAMESPACE} link set lo up",
    ]
    try:
        for command in commands:
            done = subprocess.run(command.split(), capture_output=True, text=True, check=False)
            if done.returncode:
                pytest.skip(f"no network namespace here: {done.stderr.strip()}")
        yield
    finally:
        # The link disappears some time after its namespace; the next test must not find it.
        for command in (f"ip link del {OUTSIDE}", f"ip netns del {NAMESPACE}"):
            subprocess.run(command.split(), capture_output=True, check=False)


@pytest.mark.usefixtures("namespace")
@pytest.mark.parametrize("seconds", OUTAGES)
async def test_packets_dropped(tmp_path: Path, seconds: float) -> None:
    """The link goes down and comes up again."""
    crowd = Crowd.of(20, seconds=8)
    prefix = ["ip", "netns", "exec", NAMESPACE]
    settings = {"host": f"{NETWORK}.2", "prefix": prefix, "resume_seconds": RESUME_SECONDS}
    with marks_server(tmp_path / "log", **settings) as server:
        calls = crowd.start(server.url)
        await crowd.wait_for_words()
        crowd.mark_fault()
        _set_link("down")
        await asyncio.sleep(seconds)
        _set_link("up")
        await calls
    assert none_lost(crowd.figures(f"packets dropped for {seconds:g} s"))


def _set_link(state: str) -> None:
    subprocess.run(["ip", "-n", NAMESPACE, "link", "set", INSIDE, state], check=True)
