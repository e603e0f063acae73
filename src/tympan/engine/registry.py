"""Which engine serves which `--model`; the module is imported only when it is chosen."""

from __future__ import annotations

from tympan.config import ModelSettings
from tympan.engine.base import Engine
from tympan.errors import missing_package


def create_engine(settings: ModelSettings, most_streams: int | None = None) -> Engine:
    """The engine for `settings.model`, not started yet. Raises `MissingPackageError`.

    most_streams: what a platform sends at most. Unlike `settings.max_streams` it is no promise: an engine that finds
    that it carries fewer, admits fewer.
    """
    match settings.model:
        case "embedded":
            from tympan.engine.embedded.engine import EmbeddedEngine

            return EmbeddedEngine(settings, most_streams)
        case model if model.partition(":")[0] == "scripted":
            from tympan.engine.scripted import ScriptedEngine

            return ScriptedEngine(settings, most_streams)
    try:
        from tympan.engine.kyutai.engine import create_kyutai_engine
    except ModuleNotFoundError as error:
        raise missing_package(f"the model {settings.model}", error.name, "torch") from None
    return create_kyutai_engine(settings, most_streams=most_streams)
