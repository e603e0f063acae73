"""The engine for each `--model`. An engine's module is imported only if the engine is used."""

from __future__ import annotations

from tympan.config import ModelSettings
from tympan.engine.base import Engine
from tympan.engine.catalogue import check_name
from tympan.errors import missing_package


def create_engine(settings: ModelSettings, most_streams: int | None = None) -> Engine:
    """Return the engine for `settings.model`, not started.

    Args:
        settings: The model, device and data types.
        most_streams: Most streams that the platform sends to this process. Unlike `settings.max_streams` it is no
            promise: an engine that carries fewer in real time admits fewer.

    Raises:
        ModelError: The name is unknown.
        MissingPackageError: The model needs a package that is not installed.
    """
    match settings.model:
        case model if model == "embedded" or model.startswith("whisper:"):
            from tympan.engine.embedded.engine import EmbeddedEngine

            return EmbeddedEngine(settings, most_streams)
        case model if model.partition(":")[0] == "scripted":
            from tympan.engine.scripted import ScriptedEngine

            return ScriptedEngine(settings, most_streams)
    check_name(settings.model)
    try:
        from tympan.engine.kyutai.engine import create_kyutai_engine
    except ModuleNotFoundError as error:
        raise missing_package(f"the model {settings.model}", error.name, "torch") from None
    return create_kyutai_engine(settings, most_streams=most_streams)
