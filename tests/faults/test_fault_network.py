"""Networks that stall, are cut, and drop what passes, for shorter and for longer than a lost stream is kept."""

from __future__ import annotations

import asyncio
import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from fault_callers import Crowd, none_lost
from fault_server import marks_server
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
    """Stalled: connections stay, and nothing passes. Cut: they are gone, and new ones are cut at once."""
    crowd = Crowd.of(20, seconds=8)
    with marks_server(tmp_path / "log", resume_seconds=RESUME_SECONDS) as server:
        async with Proxy(server.port) as proxy:
            talking = crowd.start(proxy.url)
            await crowd.until_heard()
            crowd.broken()
            if kind == "stalled":
                proxy.flowing.clear()
            else:
                proxy.is_up = False
                proxy.cut()
            await asyncio.sleep(seconds)
            proxy.flowing.set()
            proxy.is_up = True
            await talking
    assert none_lost(crowd.figures(f"network {kind} for {seconds:g} s"))
    assert bool(crowd.ends()) == (kind == "cut")


async def test_network_gone_for_good(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As where a telephone changes its network: nobody ends the old connections, and nothing passes on them."""
    monkeypatch.setattr(transport, "QUIET_SECONDS", 1.0)  # in place of 20
    crowd = Crowd.of(20, seconds=8)
    with marks_server(tmp_path / "log", resume_seconds=RESUME_SECONDS) as server:
        async with Proxy(server.port) as proxy:
            talking = crowd.start(proxy.url)
            await crowd.until_heard()
            crowd.broken()
            proxy.flowing.clear()
            proxy.flowing = asyncio.Event()
            proxy.flowing.set()
            await talking
    assert none_lost(crowd.figures("network gone for good"))
    assert crowd.ends() == {1006: 20}


@pytest.fixture
def namespace() -> Iterator[None]:
    """A network of its own for the server, with one wire to ours."""
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
        # The wire goes with its namespace, but some time later: the next test could find it there still.
        for command in (f"ip link del {OUTSIDE}", f"ip netns del {NAMESPACE}"):
            subprocess.run(command.split(), capture_output=True, check=False)


@pytest.mark.usefixtures("namespace")
@pytest.mark.parametrize("seconds", OUTAGES)
async def test_packets_dropped(tmp_path: Path, seconds: float) -> None:
    """The wire between two kernels is down, and up again."""
    crowd = Crowd.of(20, seconds=8)
    within = ["ip", "netns", "exec", NAMESPACE]
    settings = {"host": f"{NETWORK}.2", "within": within, "resume_seconds": RESUME_SECONDS}
    with marks_server(tmp_path / "log", **settings) as server:
        talking = crowd.start(server.url)
        await crowd.until_heard()
        crowd.broken()
        _set_wire("down")
        await asyncio.sleep(seconds)
        _set_wire("up")
        await talking
    assert none_lost(crowd.figures(f"packets dropped for {seconds:g} s"))


def _set_wire(state: str) -> None:
    subprocess.run(["ip", "-n", NAMESPACE, "link", "set", INSIDE, state], check=True)
