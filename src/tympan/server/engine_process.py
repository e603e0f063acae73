"""Engine processes of a server: which ones there are, and what each of them runs."""

from __future__ import annotations

import asyncio
import logging
import logging.config
import os
import socket
import sys

import msgspec
from msgspec.structs import replace

from tympan.child_process import end_with_parent, ignore_stop_signals
from tympan.config import Config, ModelSettings, ServerSettings, visible_gpus
from tympan.engine.base import Engine, describe_startup
from tympan.engine.catalogue import check_name
from tympan.engine.registry import create_engine
from tympan.engine.remote.engine import RemoteEngine
from tympan.engine.remote.host import EngineHost
from tympan.errors import ConfigError
from tympan.server.event_loop import fastest_loop
from tympan.server.observability.logs import log_config
from tympan.server.observability.stderr_writer import stderr_handler

logger = logging.getLogger(__name__)

PROGRESS_SECONDS = 10.0

SMALL_MODELS = ("embedded", "scripted", "whisper")  # scripted costs nothing, the others have processes of their own


class Specification(msgspec.Struct, frozen=True):
    """What an engine process runs: the argument of its command."""

    name: str
    model: ModelSettings
    server: ServerSettings
    engine_seconds: int
    socket: str = ""  # for front processes


def make_engine(config: Config) -> Engine:
    """Return the engine of a server: in processes of its own, or in this process."""
    return make_remote_engine(config) if _count(config) else create_engine(config.model)


def make_remote_engine(config: Config, folder: str = "") -> RemoteEngine:
    """Return an engine in processes of its own.

    Args:
        config: All settings.
        folder: Where the processes have sockets for front processes; empty for none.

    Raises:
        ConfigError: There is a folder, and the settings require the engine in the server's process.
        ModelError: The name of the model is unknown.
    """
    check_name(config.model.model)
    count = _count(config)
    if not count:
        raise ConfigError("several front processes need an engine in a process of its own: set engine_processes to 1")
    paths = engine_sockets(config, folder) if folder else [""] * count
    gpus = visible_gpus() if config.model.device != "cpu" else ()
    commands = []
    for number in range(count):
        environment = {}
        if count > 1 and config.model.device != "cpu":
            environment["CUDA_VISIBLE_DEVICES"] = gpus[number] if number < len(gpus) else str(number)
        commands.append((("-m", __name__, _specification(config, number, count, paths[number])), environment))
    return RemoteEngine(commands)


def engine_sockets(config: Config, folder: str) -> list[str]:
    """Return the paths of the sockets that the engine processes have for front processes."""
    return [f"{folder}/engine-{number}" for number in range(1, _count(config) + 1)]


async def start_engine(engine: Engine) -> None:
    """Start the engine, and log its stage while that takes long; there is no limit, as a download may take hours."""
    loop = asyncio.get_running_loop()
    began = loop.time()
    starting = asyncio.ensure_future(engine.start())
    while not (await asyncio.wait((starting,), timeout=PROGRESS_SECONDS))[0]:
        logger.info("%s (%.0f s so far)", describe_startup(engine), loop.time() - began)
    await starting


def _count(config: Config) -> int:
    """Return the number of engine processes; 0 for an engine in the server's process."""
    count = config.model.engine_processes
    if count is not None:
        return count
    if config.server.fronts > 1:
        return 1
    is_small = config.model.model.partition(":")[0] in SMALL_MODELS
    return 0 if is_small or sys.platform == "win32" else 1


def _specification(config: Config, number: int, count: int, path: str) -> str:
    """Return the specification of one of `count` processes, which share the streams."""
    model, most = config.model, config.model.max_streams
    if most is not None:
        model = replace(model, max_streams=max(1, most // count + (number < most % count)))
    server = ServerSettings(log_level=config.server.log_level, log_format=config.server.log_format)
    specification = Specification(f"engine {number + 1}", model, server, config.limits.engine_seconds, path)
    return msgspec.json.encode(specification).decode()


def main() -> None:
    """Run the engine of a specification for the server at the other end of standard input."""
    ignore_stop_signals()
    end_with_parent()
    specification = msgspec.json.decode(sys.argv[1], type=Specification)
    logging.config.dictConfig(log_config(specification.server, specification.name))
    host = EngineHost(
        lambda: create_engine(specification.model), specification.engine_seconds, _end, specification.socket
    )
    with asyncio.Runner(loop_factory=fastest_loop()) as runner:
        runner.run(host.serve(socket.socket(fileno=0)))


def _end() -> None:
    """End this process at once: the interpreter's shutdown may wait for a thread that hangs in a library."""
    stderr_handler().wait()
    os._exit(1)


if __name__ == "__main__":
    main()
