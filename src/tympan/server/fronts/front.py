"""A front process: the server of one process, with the engine and the counts of the whole server."""

from __future__ import annotations

import asyncio
import logging
import logging.config
import os
import socket
import sys
from collections.abc import Callable
from typing import TYPE_CHECKING

import msgspec

from tympan.child_process import end_with_parent, ignore_stop_signals
from tympan.config import Config
from tympan.engine.remote.engine import RemoteEngine
from tympan.errors import TympanError
from tympan.server.access.front import Front, ledger_address
from tympan.server.access.ledger_client import LedgerClient
from tympan.server.engine_process import engine_sockets
from tympan.server.event_loop import fastest_loop
from tympan.server.listen.listener import raise_file_limit
from tympan.server.observability.logs import log_config
from tympan.server.observability.stderr_writer import stderr_handler

if TYPE_CHECKING:
    from tympan.server.uvicorn_server import UvicornServer

logger = logging.getLogger(__name__)

FAILED_TO_START = 2  # exit code; a restart does not help


class Specification(msgspec.Struct, frozen=True):
    """What a front process needs to know; the first line of its standard input, since settings contain secrets.

    Attributes:
        number: Its number, from 1.
        config: All settings.
        folder: Folder of the processes' sockets.
        listener: Descriptor of the socket to accept clients from.
    """

    number: int
    config: Config
    folder: str
    listener: int


def main() -> None:
    """Serve until the supervisor says on standard input to stop, or is gone."""
    ignore_stop_signals()
    end_with_parent()
    specification = msgspec.json.decode(sys.stdin.buffer.readline(), type=Specification)
    logging.config.dictConfig(log_config(specification.config.server, f"front {specification.number}"))
    raise_file_limit()
    code = 0
    try:
        with asyncio.Runner(loop_factory=fastest_loop()) as runner:
            fatal_error = runner.run(_serve(specification))
        if fatal_error:
            logger.critical("%s", fatal_error)
            code = 1
    except TympanError as error:
        logger.critical("%s", error)
        code = FAILED_TO_START
    stderr_handler().wait()
    os._exit(code)


async def _serve(specification: Specification) -> str:
    """Serve, and return the fatal error that ends the process; empty after a stop."""
    config, folder = specification.config, specification.folder
    engine = RemoteEngine(sockets=engine_sockets(config, folder))
    try:
        front = Front(specification.number, folder, LedgerClient(ledger_address(folder)))
    except OSError as error:  # it removes its sockets when it ends while the model loads
        logger.info("front process %d ends: the supervisor is gone (%s)", specification.number, error.strerror)
        return ""
    listener = socket.socket(fileno=specification.listener)
    try:
        make_server, _ = await asyncio.gather(asyncio.to_thread(_import_server), engine.start())
        server = make_server(config, engine, front)
        _follow_input(server)
        return await server.serve_until_stopped(listener)
    finally:
        await engine.stop()


def _follow_input(server: UvicornServer) -> None:
    """Stop the server for each byte on standard input, and at its end: the supervisor is gone.

    Signals cannot say it: one that arrives twice, from systemd and from the supervisor, would cut the shutdown short.
    """
    loop, stdin = asyncio.get_running_loop(), sys.stdin.fileno()

    def stop() -> None:
        received = os.read(stdin, 16)
        if not received:
            loop.remove_reader(stdin)
        if received or not server.should_exit:
            server.stop()

    loop.add_reader(stdin, stop)


def _import_server() -> Callable[[Config, RemoteEngine, Front], UvicornServer]:
    """Import the web framework, which takes a second."""
    from tympan.server.app import create_app
    from tympan.server.uvicorn_server import UvicornServer

    return lambda config, engine, front: UvicornServer(create_app(config, engine, front), config)


if __name__ == "__main__":
    main()
