"""Engine processes of a server: which ones there are, and what each of them runs."""

from __future__ import annotations

import asyncio
import logging.config
import os
import socket
import sys

import msgspec
from msgspec.structs import replace

from tympan.child_process import end_with_parent, ignore_stop_signals
from tympan.config import Config, ModelSettings, ServerSettings, visible_gpus
from tympan.engine.base import Engine
from tympan.engine.registry import create_engine
from tympan.engine.remote.engine import RemoteEngine
from tympan.engine.remote.host import EngineHost
from tympan.server.observability.logs import log_config
from tympan.server.observability.stderr_writer import stderr_handler

SMALL_MODELS = ("embedded", "scripted", "whisper")  # scripted costs nothing, the others have processes of their own


class Specification(msgspec.Struct, frozen=True):
    """What an engine process runs: the argument of its command."""

    name: str
    model: ModelSettings
    server: ServerSettings
    engine_seconds: int


def make_engine(config: Config) -> Engine:
    """Return the engine of a server: in processes of its own, or in this process."""
    count = config.model.engine_processes
    if count is None:
        is_small = config.model.model.partition(":")[0] in SMALL_MODELS
        count = 0 if is_small or sys.platform == "win32" else 1
    if not count:
        return create_engine(config.model)
    gpus = visible_gpus() if config.model.device != "cpu" else ()
    commands = []
    for number in range(count):
        environment = {}
        if count > 1 and config.model.device != "cpu":
            environment["CUDA_VISIBLE_DEVICES"] = gpus[number] if number < len(gpus) else str(number)
        commands.append((("-m", __name__, _specification(config, number, count)), environment))
    return RemoteEngine(commands)


def _specification(config: Config, number: int, count: int) -> str:
    """Return the specification of one of `count` processes, which share the streams."""
    model, most = config.model, config.model.max_streams
    if most is not None:
        model = replace(model, max_streams=max(1, most // count + (number < most % count)))
    server = ServerSettings(log_level=config.server.log_level, log_format=config.server.log_format)
    specification = Specification(f"engine {number + 1}", model, server, config.limits.engine_seconds)
    return msgspec.json.encode(specification).decode()


def main() -> None:
    """Run the engine of a specification for the server at the other end of standard input."""
    ignore_stop_signals()
    end_with_parent()
    specification = msgspec.json.decode(sys.argv[1], type=Specification)
    logging.config.dictConfig(log_config(specification.server, specification.name))
    host = EngineHost(lambda: create_engine(specification.model), specification.engine_seconds, _end)
    asyncio.run(host.serve(socket.socket(fileno=0)))


def _end() -> None:
    """End this process at once: the interpreter's shutdown may wait for a thread that hangs in a library."""
    stderr_handler().wait()
    os._exit(1)


if __name__ == "__main__":
    main()
