"""The command `tympan`: a table of commands, each in a module that is imported only when it is used.

The module of a command has `add_arguments(parser)` and `run(arguments) -> exit code`. Exit codes: 0 success, 1 failure,
2 wrong usage, settings or machine (one sentence on stderr), 130 interrupted.
"""

from __future__ import annotations

import argparse
import io
import logging
import os
import sys
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from importlib import import_module
from typing import Final

import tympan
from tympan.cli.parsing.parser import Parser
from tympan.errors import OutputError, TympanError

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Command:
    """The module of a command, and its line in the help."""

    module: str
    summary: str


COMMANDS: Final = {
    "serve": Command("tympan.cli.serve", "Serve a model over WebSocket, with a web page to try it."),
    "transcribe": Command("tympan.cli.transcribe", "Transcribe audio and video files to text, subtitles or JSON."),
    "pull": Command("tympan.cli.checkpoints.pull", "Download a model before it is needed."),
    "verify": Command("tympan.cli.checkpoints.verify", "Check a model's files, words and speed on this machine."),
    "models": Command("tympan.cli.models", "List the models, or describe one without loading it."),
    "doctor": Command("tympan.cli.doctor", "Check whether this machine can serve, and what to fix."),
    "key": Command("tympan.cli.key", "Create an API key for a client, and its hash for the server."),
    "bench": Command("tympan.cli.bench", "Measure this machine or a running server."),
    "plan": Command("tympan.cli.plan", "Calculate the cost of a fleet."),
    "listen": Command("tympan.cli.listen", "Transcribe the microphone or a pipe."),
}

FIRST_COMMANDS: Final = {
    "tympan doctor": "check what this machine can run",
    "tympan models": "list the models, and which of them are on this machine",
    "tympan transcribe --model embedded talk.mp3": "write what is said in a file",
    "tympan serve --model embedded": "serve the page on http://127.0.0.1:8000",
    "tympan listen": "transcribe the microphone with that server",
}
"""What `tympan` without arguments suggests: commands, and what each of them does."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code."""
    logging.basicConfig(level=logging.WARNING, format="tympan: %(message)s", stream=_Stderr())
    _write_utf8()
    try:
        code = _dispatch(list(sys.argv[1:] if argv is None else argv))
        _flush()
        return code
    except SystemExit as exit:  # argparse's, after help and usage errors
        return exit.code if isinstance(exit.code, int) else 0
    except OutputError as error:
        print(f"tympan: {error}", file=sys.stderr)
        _drop_output()
        return 2
    except TympanError as error:
        print(f"tympan: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:
        _drop_output()
        return 0
    except Exception:
        logger.exception("this is a bug in tympan")
        return 1


class _Stderr(io.TextIOBase):
    """What `sys.stderr` is when something is written: while a bar is drawn, lines are written above it."""

    def write(self, text: str) -> int:
        return sys.stderr.write(text)

    def flush(self) -> None:
        sys.stderr.flush()


def _dispatch(argv: list[str]) -> int:
    if not argv:
        _print_first_commands()
        return 0
    chosen = next((argument for argument in argv if argument in COMMANDS), None)
    arguments = _parser(chosen).parse_args(argv)
    from tympan.config import provide_home  # `tympan --help` imports only what it shows

    if home := provide_home():
        logger.warning("there is no home folder; caches are in %s, set HOME to keep them", home)
    code: int = import_module(COMMANDS[arguments.command].module).run(arguments)
    return code


def _print_first_commands() -> None:
    print("Live speech to text. Five commands to try:\n")
    width = max(map(len, FIRST_COMMANDS))
    for command, purpose in FIRST_COMMANDS.items():
        print(f"  {command:<{width}}   {purpose}")
    print("\n`tympan --help` lists all commands, and `tympan COMMAND --help` the options of one.")


def _parser(chosen: str | None) -> argparse.ArgumentParser:
    """Return the parser with the options of the chosen command only, so that no other module is imported."""
    parser = Parser(prog="tympan", description="Live speech to text.")
    parser.add_argument("--version", action="version", version=f"tympan {tympan.__version__}")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for name, command in COMMANDS.items():
        subparser = commands.add_parser(name, help=command.summary, description=command.summary)
        if name == chosen:
            import_module(command.module).add_arguments(subparser)
    return parser


def _flush() -> None:
    """Write the rest of the output; this raises `BrokenPipeError` if the pipe is closed."""
    try:
        sys.stdout.flush()
    except BrokenPipeError:
        raise
    except OSError as error:
        raise OutputError(f"standard output cannot be written: {error.strerror}") from error


def _write_utf8() -> None:
    """Write UTF-8 whatever the terminal's encoding, and a file name that is none as escape sequences."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(encoding="utf-8", errors="backslashreplace")


def _drop_output() -> None:
    """Discard further output: the reader has closed the pipe (`tympan … | head`), or the disk is full."""
    with suppress(OSError):  # it is no file
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
