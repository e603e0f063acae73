"""Which engine serves which `--model`; the module is imported only when it is chosen."""

from __future__ import annotations

from tympan.config import ModelSettings
from tympan.engine.base import Engine
from tympan.errors import ModelError


def create_engine(settings: ModelSettings) -> Engine:
    """The engine for `settings.model`, not started yet. Raises `ModelError` for a model that no engine knows."""
    match settings.model:
        case "embedded":
            from tympan.engine.embedded.engine import EmbeddedEngine

            return EmbeddedEngine(settings)
        case "scripted":
            from tympan.engine.scripted import ScriptedEngine

            return ScriptedEngine(settings)
    raise ModelError(f"no engine serves the model {settings.model!r}; the models are: embedded, scripted")
