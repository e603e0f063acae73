"""`tympan serve`: the server, until it is told to stop."""

from __future__ import annotations

import argparse
import asyncio
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path

from tympan.cli.settings import add_settings, config_from
from tympan.config import Config
from tympan.errors import MissingPackageError


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--config", type=Path, metavar="FILE", help="settings in TOML (or TYMPAN_CONFIG)")
    add_settings(parser)


def run(arguments: argparse.Namespace) -> int:
    with asyncio.Runner(loop_factory=_fastest_loop()) as runner:
        return runner.run(_serve(config_from(arguments)))


async def _serve(config: Config) -> int:
    try:
        from tympan.server.app import create_app
        from tympan.server.runner import Runner
    except ModuleNotFoundError as error:
        raise MissingPackageError(f"serving needs the package {error.name}: pip install 'tympan[server]'") from None
    from tympan.engine.registry import create_engine

    engine = create_engine(config.model)
    await engine.start()  # before the port is bound: a model that cannot be had is one sentence, not a trace
    try:
        await Runner(create_app(config, engine), config).run_until_told()
    finally:
        await engine.stop()
    return 0


def _fastest_loop() -> Callable[[], asyncio.AbstractEventLoop] | None:
    """uvloop where there is one (it does not exist for Windows), else asyncio's own."""
    if find_spec("uvloop") is None:
        return None
    import uvloop

    return uvloop.new_event_loop
