"""Which engine serves which `--model`; the module is imported only when it is chosen."""

from __future__ import annotations

from tympan.config import ModelSettings
from tympan.engine.base import Engine
from tympan.errors import MissingPackageError


def create_engine(settings: ModelSettings) -> Engine:
    """The engine for `settings.model`, not started yet. Raises `MissingPackageError`."""
    match settings.model:
        case "embedded":
            from tympan.engine.embedded.engine import EmbeddedEngine

            return EmbeddedEngine(settings)
        case "scripted":
            from tympan.engine.scripted import ScriptedEngine

            return ScriptedEngine(settings)
    try:
        from tympan.engine.kyutai import create_kyutai_engine
    except ModuleNotFoundError as error:
        raise MissingPackageError(
            f"the model {settings.model} needs the package {error.name}: pip install 'tympan[torch]'; "
            "--model embedded does without"
        ) from None
    return create_kyutai_engine(settings)
