"""`tympan transcribe`: write files as text, subtitles or JSON, with a server or an engine in this process."""

from __future__ import annotations

import argparse
import asyncio
import sys
from collections import Counter
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import AsyncExitStack, aclosing
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from msgspec.structs import replace

from tympan.audio.files import decode_file, duration_seconds
from tympan.cli.options import add_settings, add_token, config_from, token_from
from tympan.cli.terminal import FileProgress
from tympan.client.stream import connect
from tympan.config import Config
from tympan.errors import AudioError, ConfigError, ServerError
from tympan.messages import Event, Segment
from tympan.transcript.subtitles import to_srt, to_vtt
from tympan.transcript.transcript import Transcript, TranscriptBuilder, to_json, to_text

Recognize = Callable[[Path], AsyncGenerator[Event, None]]
"""Yields the events of one file: `Ready` first, `Complete` last."""


@dataclass(frozen=True, slots=True)
class Format:
    """An output format; `lists` says whether the output of several files can be concatenated."""

    suffix: str
    write: Callable[[Transcript], str]
    lists: bool


FORMATS: Final = {
    "text": Format(".txt", to_text, lists=True),
    "json": Format(".json", to_json, lists=True),
    "srt": Format(".srt", to_srt, lists=False),
    "vtt": Format(".vtt", to_vtt, lists=False),
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("files", nargs="+", type=Path, metavar="FILE", help="Audio or video file.")
    parser.add_argument(
        "--url", help="Server to use, such as ws://localhost:8000; by default this machine transcribes."
    )
    add_token(parser)
    parser.add_argument("--format", choices=[*FORMATS, "tokens"], default="text", help="Output format (default: text).")
    parser.add_argument("--output", type=Path, metavar="DIR", help="Write one file per input into DIR.")
    add_settings(parser, ["model"], config=True)


def run(arguments: argparse.Namespace) -> int:
    if arguments.url and "model" in arguments:
        raise ConfigError(
            "--model selects a model on this machine, but --url uses the server's model: leave one of them out"
        )
    files: list[Path] = arguments.files
    if arguments.format == "tokens":
        return _print_tokens(arguments)
    if len(files) > 1 and not arguments.output and not FORMATS[arguments.format].lists:
        raise ConfigError(f"several files as {arguments.format} need --output DIR")
    return asyncio.run(_transcribe_all(arguments, _targets(files, arguments.output, FORMATS[arguments.format].suffix)))


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


def _targets(files: Sequence[Path], folder: Path | None, suffix: str) -> dict[Path, Path | None]:
    """Return each file's output: `talk.srt` for `talk.mp3`, or `talk.mp3.srt` if two inputs are named `talk`."""
    if folder is None:
        return dict.fromkeys(files)
    stems = Counter(file.stem for file in files)
    targets = {file: folder / ((file.stem if stems[file.stem] == 1 else file.name) + suffix) for file in files}
    twice = [target.name for target, count in Counter(targets.values()).items() if count > 1]
    if twice:
        raise ConfigError(f"two inputs would both be written to {twice[0]}: transcribe them into different folders")
    return dict(targets)


async def _transcribe_all(arguments: argparse.Namespace, targets: dict[Path, Path | None]) -> int:
    """Transcribe one file after the other; one that fails does not stop the others."""
    failed = False
    async with AsyncExitStack() as stack:
        recognize = await _recognizer(arguments, stack)
        for file, target in targets.items():
            try:
                await _transcribe(recognize, file, target, arguments.format)
            except BrokenPipeError:
                raise
            except AudioError as error:
                failed = True
                print(f"tympan: {error}", file=sys.stderr)
            except OSError as error:
                failed = True
                print(f"tympan: {file}: {error.strerror or error}", file=sys.stderr)
            except ServerError as error:
                if error.close_code is None:  # unreachable or refused: it would be the same for the next file
                    raise
                failed = True
                print(f"tympan: {file}: {error}", file=sys.stderr)
    return 1 if failed else 0


async def _recognizer(arguments: argparse.Namespace, stack: AsyncExitStack) -> Recognize:
    if arguments.url:
        token = token_from(arguments)
        return lambda file: _recognize_remotely(arguments.url, token, file)
    config = _one_stream(config_from(arguments))
    from tympan.engine.registry import create_engine
    from tympan.session.local import transcribe

    engine = create_engine(config.model)
    await engine.start()
    stack.push_async_callback(engine.stop)
    info = engine.info

    async def recognize(file: Path) -> AsyncGenerator[Event, None]:
        yield info.ready("local")
        blocks = decode_file(file, info.sample_rate)
        async for event in transcribe(engine, blocks, config.turns, config.limits):
            yield event

    return recognize


async def _recognize_remotely(url: str, token: str | None, file: Path) -> AsyncGenerator[Event, None]:
    async with connect(url, token=token) as stream, aclosing(stream.transcribe(decode_file(file))) as events:
        yield stream.ready
        async for event in events:
            yield event


async def _transcribe(recognize: Recognize, file: Path, target: Path | None, format_name: str) -> None:
    transcript = TranscriptBuilder(str(file))
    streams_text = target is None and format_name == "text"
    with FileProgress(file.name, duration_seconds(file)) as progress:
        async with aclosing(recognize(file)) as events:
            async for event in events:
                transcript.on_event(event)
                if isinstance(event, Segment) and streams_text:
                    progress.show(event.text)
                progress.update(transcript.duration, len(transcript.words))
    if streams_text:
        return
    output = FORMATS[format_name].write(transcript.transcript)
    _put(output, target)


def _put(output: str, target: Path | None) -> None:
    if target is None:
        sys.stdout.write(output)
    else:
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(output, encoding="utf-8")
