"""`tympan serve`: run the server until a signal arrives."""

from __future__ import annotations

import argparse
import asyncio
import logging.config
import os
import sys
from collections.abc import Callable, Sequence
from importlib.util import find_spec
from typing import TYPE_CHECKING, Final

from tympan.cli.options import add_settings, config_from
from tympan.config import Config, settings
from tympan.engine.base import Engine
from tympan.engine.registry import create_engine
from tympan.errors import missing_package
from tympan.server.access.keys import HASH_PREFIX
from tympan.server.listen.listener import listen
from tympan.server.listen.startup import StartupServer
from tympan.server.observability.logs import log_config

if TYPE_CHECKING:
    from tympan.server.uvicorn_server import UvicornServer


VISIBLE_SECRETS: Final = {
    "api_keys": "--api-keys-file or TYMPAN_API_KEYS, or the key's hash, which `tympan key` prints",
    "metrics_keys": "TYMPAN_METRICS_KEYS, or the key's hash, which `tympan key` prints",
    "token_secret": "--token-secret-file or TYMPAN_TOKEN_SECRET",
}
"""Settings whose options show a secret in the list of processes, and what to use in their place."""

logger = logging.getLogger(__name__)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_settings(parser, ("model", "server", "limits", "keys", "turns", "recording"), config=True)


def run(arguments: argparse.Namespace) -> int:
    with asyncio.Runner(loop_factory=_fastest_loop()) as runner:
        fatal_error = runner.run(_serve(config_from(arguments), _visible_secrets(arguments)))
    if fatal_error:
        print(f"tympan: {fatal_error}: restart the server", file=sys.stderr, flush=True)
        os._exit(1)  # the interpreter's shutdown may wait for a thread that hangs in a library
    return 0


def _visible_secrets(arguments: argparse.Namespace) -> list[str]:
    """Return a sentence for each option that shows a secret to other users of the machine; hashes are not secret."""
    flags = {setting.name: setting.flag for setting in settings()}
    sentences = []
    for name, alternative in VISIBLE_SECRETS.items():
        given = getattr(arguments, name, [])
        values = [given] if isinstance(given, str) else given
        if not all(value.startswith(HASH_PREFIX) for value in values):
            sentences.append(f"every user of this machine can see {flags[name]} in `ps`: use {alternative}")
    return sentences


async def _serve(config: Config, warnings: Sequence[str]) -> str:
    """Serve, and return the fatal error that requires a new process; empty after a signal."""
    logging.config.dictConfig(log_config(config.server))
    for warning in warnings:
        logger.warning("%s", warning)
    engine = create_engine(config.model)
    with listen(config.server) as listener:
        try:
            async with StartupServer(listener, config.server, engine):
                # Both take seconds. The engine is started here and not by the application, so that its errors are one
                # sentence and not a traceback.
                runner, _ = await asyncio.gather(_make_runner(config, engine), engine.start())
            return await runner.serve_until_stopped(listener)
        finally:
            await engine.stop()


async def _make_runner(config: Config, engine: Engine) -> UvicornServer:
    make_runner = await asyncio.to_thread(_import_server)
    return make_runner(config, engine)


def _import_server() -> Callable[[Config, Engine], UvicornServer]:
    """Import the web framework, which takes a second."""
    try:
        from tympan.server.app import create_app
        from tympan.server.uvicorn_server import UvicornServer
    except ModuleNotFoundError as error:
        raise missing_package("serving", error.name, "server") from None
    return lambda config, engine: UvicornServer(create_app(config, engine), config)


def _fastest_loop() -> Callable[[], asyncio.AbstractEventLoop] | None:
    """Return uvloop's event loop if it is installed (there is none for Windows), else None."""
    if find_spec("uvloop") is None:
        return None
    import uvloop

    return uvloop.new_event_loop
