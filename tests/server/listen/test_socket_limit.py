"""The number of open sockets is limited, and sockets without a request make room."""

from __future__ import annotations

import socket
import time
from collections import Counter
from contextlib import ExitStack

import httpx2 as httpx
from hypothesis import given
from hypothesis import strategies as st
from support.server import LiveServer
from websockets.sync.client import connect

from tympan.server.listen.socket_limit import SocketLimit


class Peer:
    """A socket that the limit counts."""

    def __init__(self, address: str = "") -> None:
        self.address = address
        self.evicted = False

    def evict(self) -> None:
        self.evicted = True


def test_idle_socket_makes_room() -> None:
    sockets = SocketLimit(2)
    first, second, third = Peer(), Peer(), Peer()
    for peer in (first, second):
        sockets.add(peer)
        sockets.set_idle(peer, idle=True)
    sockets.set_idle(first, idle=False)  # a request has arrived
    sockets.add(third)
    assert [peer.evicted for peer in (first, second, third)] == [False, True, False]


def test_new_socket_is_refused_if_none_is_idle() -> None:
    sockets = SocketLimit(1)
    first, second = Peer(), Peer()
    sockets.add(first)
    upgraded = Peer()
    sockets.replace(first, upgraded)
    sockets.add(second)
    assert (second.evicted, sockets.open) == (True, 1)
    sockets.remove(upgraded)
    assert sockets.open == 0


@given(st.lists(st.tuples(st.sampled_from("abc"), st.booleans(), st.booleans()), max_size=40))
def test_limits_hold(opened: list[tuple[str, bool, bool]]) -> None:
    """For any order of opened, idle and closed sockets, neither limit is exceeded and no count is left over."""
    sockets = SocketLimit(5, most_per_address=3)
    peers: list[Peer] = []
    for address, idle, closed in opened:
        peer = Peer(address)
        sockets.add(peer)
        sockets.set_idle(peer, idle=idle)
        peers.append(peer)
        if closed and peers:
            sockets.remove(peers.pop(0))
        here = Counter(each.address for each in peers if not each.evicted)
        assert here.total() == sockets.open <= 5
        assert max(here.values(), default=0) <= 3
    for peer in peers:
        sockets.remove(peer)
    assert sockets.open == 0


def test_address_limit_of_a_server() -> None:
    with LiveServer(address_connections=4) as server, ExitStack() as stack:
        streams = [stack.enter_context(connect(server.url())) for _ in range(4)]
        with socket.create_connection(("127.0.0.1", server.port)) as fifth:
            fifth.settimeout(10)
            assert fifth.recv(1) == b""
        streams[0].close()
        deadline = time.monotonic() + 10
        while True:
            try:
                text = httpx.get(server.http("/metrics")).text
                break
            except httpx.TransportError:
                assert time.monotonic() < deadline
        assert 'tympan_refused_total{reason="connections"}' in text
        assert "tympan_connections 4.0" in text, "three streams and this request"
