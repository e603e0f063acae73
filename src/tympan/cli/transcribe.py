"""`tympan transcribe`: write files as text, subtitles or JSON, with a server or an engine in this process."""

from __future__ import annotations

import argparse
import asyncio
import sys
from collections import deque
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import AsyncExitStack, aclosing
from pathlib import Path

from msgspec.structs import replace

from tympan.audio.files import AudioInput
from tympan.cli.options import add_settings, add_token, config_from, token_from
from tympan.cli.terminal import FileProgress, start_engine
from tympan.client.files import from_server
from tympan.config import Config
from tympan.errors import AudioError, ConfigError, ServerError
from tympan.messages import Event, Segment, Warning
from tympan.transcript.output import FORMATS, format_of, targets, write_file, write_output
from tympan.transcript.transcript import TranscriptBuilder

Recognize = Callable[[AudioInput], AsyncGenerator[Event, None]]
"""Yields the events of one input: `Ready` first, `Complete` last."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "files", nargs="+", metavar="FILE", help="Audio or video file, http(s) URL, or - for standard input."
    )
    parser.add_argument(
        "--url", help="Server to use, such as ws://localhost:8000; by default this machine transcribes."
    )
    add_token(parser)
    parser.add_argument(
        "--format",
        choices=[*FORMATS, "tokens"],
        help="Output format (default: that of the suffix of --output, or text).",
    )
    parser.add_argument(
        "--output", metavar="PATH", help="File to write, such as talk.srt, or folder for one file per input."
    )
    parser.add_argument("--force", action="store_true", help="Overwrite files that exist.")
    parser.add_argument(
        "--track",
        type=int,
        metavar="N",
        help="Number of the audio track, from 1 (default: the one flagged as default).",
    )
    add_settings(parser, ["model"], config=True)


def run(arguments: argparse.Namespace) -> int:
    if arguments.url and "model" in arguments:
        raise ConfigError(
            "--model selects a model on this machine, but --url uses the server's model: leave one of them out"
        )
    if arguments.format == "tokens":
        return _print_tokens(arguments)
    output = None if arguments.output is None else Path(arguments.output)
    arguments.format = arguments.format or format_of(output)
    pairs = targets(arguments.files, output, arguments.format, force=arguments.force)
    return asyncio.run(_transcribe_all(arguments, pairs))


def _print_tokens(arguments: argparse.Namespace) -> int:
    """Print the model's tokens, for the comparison of models."""
    if arguments.url or arguments.output:
        raise ConfigError("--format tokens prints the tokens of a model on this machine: leave out --url and --output")
    from tympan.cli.tokens import print_tokens

    asyncio.run(print_tokens(_one_stream(config_from(arguments)), arguments.files))
    return 0


def _one_stream(config: Config) -> Config:
    """Return the configuration with one slot, which needs no calibration."""
    model = replace(config.model, max_streams=config.model.max_streams or 1)
    return replace(config, model=model)


async def _transcribe_all(arguments: argparse.Namespace, pairs: Sequence[tuple[str, Path | None]]) -> int:
    """Transcribe one file after the other; one that fails does not stop the others."""
    failed = False
    async with AsyncExitStack() as stack:
        recognize = await _recognizer(arguments, stack)
        for file, target in pairs:
            try:
                await _transcribe(recognize, file, target, arguments)
            except AudioError as error:
                failed = True
                print(f"tympan: {error}", file=sys.stderr)
            except ServerError as error:
                if error.close_code is None:  # unreachable or refused: it would be the same for the next file
                    raise
                failed = True
                print(f"tympan: {file}: {error}", file=sys.stderr)
    return 1 if failed else 0


async def _recognizer(arguments: argparse.Namespace, stack: AsyncExitStack) -> Recognize:
    if arguments.url:
        token = token_from(arguments)
        return lambda audio: from_server(audio, arguments.url, token)
    config = _one_stream(config_from(arguments))
    from tympan.engine.registry import create_engine
    from tympan.session.local import transcribe

    engine = create_engine(config.model)
    await start_engine(engine)
    stack.push_async_callback(engine.stop)
    info = engine.info

    async def recognize(audio: AudioInput) -> AsyncGenerator[Event, None]:
        yield info.ready("local")
        blocks = audio.blocks(info.sample_rate)
        async for event in transcribe(engine, blocks, config.turns, config.limits):
            yield event

    return recognize


async def _transcribe(recognize: Recognize, file: str, target: Path | None, arguments: argparse.Namespace) -> None:
    transcript = TranscriptBuilder(file)
    streams_text = target is None and arguments.format == "text"
    warnings: deque[Warning] = deque()  # of the decoder, which runs in a thread
    audio = AudioInput(file, track=arguments.track, report=warnings.append)
    with await asyncio.to_thread(audio.open), FileProgress(Path(file).name) as progress:
        async with aclosing(recognize(audio)) as events:
            async for event in events:
                transcript.on_event(event)
                if isinstance(event, Segment) and streams_text:
                    progress.show(event.text)
                if isinstance(event, Warning):
                    warnings.append(event)
                while warnings:
                    progress.warn(f"tympan: {file}: {_advice(warnings.popleft())}")
                progress.update(transcript.duration, len(transcript.words), audio.duration_seconds)
    if streams_text:
        return
    output = FORMATS[arguments.format].write(transcript.transcript)
    if target is None:
        write_output(output)
    else:
        write_file(output, target, force=arguments.force)


def _advice(warning: Warning) -> str:
    return warning.message + ("; --track N selects another one" if warning.code == "audio_track" else "")
