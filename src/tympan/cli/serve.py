"""`tympan serve`: the server, until it is told to stop."""

from __future__ import annotations

import argparse
import asyncio
import logging.config
import os
import sys
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

from tympan.cli.settings import add_settings, config_from
from tympan.config import Config
from tympan.engine.base import Engine
from tympan.engine.registry import create_engine
from tympan.errors import MissingPackageError
from tympan.server.listen.listener import listen
from tympan.server.listen.startup import StartupServer
from tympan.server.observability.logs import log_config

if TYPE_CHECKING:
    from tympan.server.uvicorn_server import UvicornServer


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--config", type=Path, metavar="FILE", help="settings in TOML (or TYMPAN_CONFIG)")
    add_settings(parser, sections=("model", "server", "limits", "turns", "recording"))


def run(arguments: argparse.Namespace) -> int:
    with asyncio.Runner(loop_factory=_fastest_loop()) as runner:
        lost = runner.run(_serve(config_from(arguments)))
    if lost:
        print(f"tympan: {lost}: start it again", file=sys.stderr, flush=True)
        os._exit(1)  # the interpreter's own end may wait for a thread that hangs in a library
    return 0


async def _serve(config: Config) -> str:
    """Why only a new process helps; empty after a signal."""
    logging.config.dictConfig(log_config(config.server))
    engine = create_engine(config.model)
    with listen(config.server) as listener:
        try:
            async with StartupServer(listener, config.server, engine):
                # Both take a second or two. The server starts no engine: a model that cannot be had is one sentence,
                # not a trace.
                runner, _ = await asyncio.gather(_make_runner(config, engine), engine.start())
            return await runner.serve_until_stopped(listener)
        finally:
            await engine.stop()


async def _make_runner(config: Config, engine: Engine) -> UvicornServer:
    """Raises `MissingPackageError` and `ConfigError`."""
    make_runner = await asyncio.to_thread(_import_server)
    return make_runner(config, engine)


def _import_server() -> Callable[[Config, Engine], UvicornServer]:
    """The web framework, which only serving needs. Raises `MissingPackageError`."""
    try:
        from tympan.server.app import create_app
        from tympan.server.uvicorn_server import UvicornServer
    except ModuleNotFoundError as error:
        raise MissingPackageError(f"serving needs the package {error.name}: pip install 'tympan[server]'") from None
    return lambda config, engine: UvicornServer(create_app(config, engine), config)


def _fastest_loop() -> Callable[[], asyncio.AbstractEventLoop] | None:
    """uvloop where there is one (it does not exist for Windows), else asyncio's own."""
    if find_spec("uvloop") is None:
        return None
    import uvloop

    return uvloop.new_event_loop
