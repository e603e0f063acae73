"""What each of several fronts may keep in memory."""

from __future__ import annotations

import socket
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tympan.audio.containers.launcher import UNDECODED_BYTES, launcher
from tympan.config import Config, LimitSettings, ModelSettings, ServerSettings
from tympan.engine.registry import create_engine
from tympan.server.access.front import Front, ledger_address
from tympan.server.access.ledger_client import LedgerClient
from tympan.server.service import BUFFERED_BYTES, Service
from tympan.server.spool import WAITING_BYTES

MakeService = Callable[[int, int], Service]


@pytest.fixture
def service_of(tmp_path: Path) -> Iterator[MakeService]:
    """Return the service of one of so many fronts, with a limit of uploads in bytes."""
    clients: list[LedgerClient] = []
    with socket.socket(socket.AF_UNIX) as ledger:
        ledger.bind(ledger_address(str(tmp_path)))
        ledger.listen()

        def make(fronts: int, upload_bytes: int) -> Service:
            limits, server = LimitSettings(upload_bytes=upload_bytes), ServerSettings(fronts=fronts)
            config = Config(model=ModelSettings(model="scripted"), limits=limits, server=server)
            if fronts == 1:
                return Service(config, create_engine(config.model))
            clients.append(LedgerClient(ledger_address(str(tmp_path))))
            return Service(config, create_engine(config.model), Front(1, str(tmp_path), clients[-1]))

        yield make
        for client in clients:
            client._socket.close()
    launcher().undecoded.most_bytes = UNDECODED_BYTES  # of this process


@pytest.mark.parametrize("fronts", [1, 4])
def test_each_front_has_its_share(service_of: MakeService, fronts: int) -> None:
    service = service_of(fronts, 25 << 20)
    assert service.buffered.most_bytes == BUFFERED_BYTES // fronts
    assert service.spool.waiting.most_bytes == WAITING_BYTES // fronts
    assert launcher().undecoded.most_bytes == UNDECODED_BYTES // fronts


def test_each_front_takes_the_largest_upload(service_of: MakeService) -> None:
    service = service_of(16, 100 << 20)
    assert service.buffered.most_bytes == launcher().undecoded.most_bytes == 100 << 20
