"""`tympan transcribe --format tokens`: the text token and the pause probabilities of every frame."""

from __future__ import annotations

import json
from collections.abc import Sequence

import msgspec
from msgspec.structs import asdict

from tympan.audio.files import decode_file
from tympan.config import Config
from tympan.errors import ConfigError, missing_package
from tympan.messages import Word
from tympan.session.local import transcribe

WITHOUT_TOKENS = ("embedded", "scripted", "whisper")


async def print_tokens(config: Config, files: Sequence[str]) -> None:
    """Print one line of JSON per file; entry `i` of `tokens` is predicted at position `i + 1`."""
    if config.model.model.partition(":")[0] in WITHOUT_TOKENS:
        raise ConfigError(f"the model {config.model.model} has no tokens; use one of Kyutai's models, or random:tiny")
    try:
        from tympan.engine.kyutai.engine import create_kyutai_engine
    except ModuleNotFoundError as error:
        raise missing_package("this command", error.name, "torch") from None

    tokens: list[int] = []
    pauses: list[list[float]] = []

    def trace(token: int, probabilities: Sequence[float]) -> None:
        tokens.append(token)
        pauses.append([round(probability, 6) for probability in probabilities])

    # A restart of the model's state would repeat tokens.
    engine = create_kyutai_engine(msgspec.structs.replace(config.model, stall_seconds=0.0), trace)
    await engine.start()
    try:
        for file in files:
            tokens.clear()
            pauses.clear()
            events = transcribe(engine, decode_file(file, engine.info.sample_rate), config.turns, config.limits)
            words = [asdict(event) async for event in events if isinstance(event, Word)]
            print(json.dumps({"file": str(file), "tokens": tokens, "pauses": pauses, "words": words}))
    finally:
        await engine.stop()
