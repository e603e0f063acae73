"""`tympan serve`: run the server until a signal arrives."""

from __future__ import annotations

import argparse
import asyncio
import logging
import logging.config
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Final

from tympan.cli.options import add_settings, config_from
from tympan.config import Config, ignored_variables, settings
from tympan.engine.base import Engine
from tympan.errors import missing_package
from tympan.server.access.keys import HASH_PREFIX
from tympan.server.engine_process import make_engine, start_engine
from tympan.server.event_loop import fastest_loop
from tympan.server.listen.listener import listen, raise_file_limit
from tympan.server.listen.startup import StartupServer
from tympan.server.observability.logs import log_config
from tympan.server.signals import StopSignals, end_server

if TYPE_CHECKING:
    from tympan.server.uvicorn_server import UvicornServer

logger = logging.getLogger(__name__)

VISIBLE_SECRETS: Final = {
    "api_keys": "--api-keys-file or TYMPAN_API_KEYS, or the key's hash, which `tympan key` prints",
    "metrics_keys": "TYMPAN_METRICS_KEYS, or the key's hash, which `tympan key` prints",
    "token_secret": "--token-secret-file or TYMPAN_TOKEN_SECRET",
}
"""Settings whose options show a secret in the list of processes, and what to use in their place."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_settings(parser, ("model", "server", "limits", "keys", "turns", "recording"), config=True)


def run(arguments: argparse.Namespace) -> int:
    raise_file_limit()
    with StopSignals() as signals, asyncio.Runner(loop_factory=fastest_loop()) as runner:
        runner.run(_serve(config_from(arguments), signals, _visible_secrets(arguments)))
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


async def _serve(config: Config, signals: StopSignals, warnings: Sequence[str]) -> None:
    """Serve until a signal arrives or a fatal error requires a new process, then end the process."""
    logging.config.dictConfig(log_config(config.server))
    for warning in warnings:
        logger.warning("%s", warning)
    if ignored := ignored_variables():
        logger.info("these variables, as Kubernetes sets them for a Service, are no settings: %s", ", ".join(ignored))
    if config.server.fronts > 1:
        await _supervise(config, signals)
        return
    engine = make_engine(config)
    with listen(config.server) as listener:
        try:
            async with StartupServer(listener, config.server, engine):
                # Both take seconds. The engine is started here and not by the application, so that its errors are one
                # sentence and not a traceback.
                runner, _ = await asyncio.gather(_make_runner(config, engine), start_engine(engine))
            signals.forward(runner.stop)
            fatal_error = await runner.serve_until_stopped(listener)
        finally:
            await engine.stop()
    end_server(fatal_error, signals)


async def _supervise(config: Config, signals: StopSignals) -> None:
    """Serve in several front processes."""
    try:
        from tympan.server.fronts.supervisor import supervise
    except ModuleNotFoundError as error:
        raise missing_package("serving", error.name, "server") from None
    await supervise(config, signals)


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
