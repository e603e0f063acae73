"""The command `tympan`: a table of commands, each in a module that is imported only when it is asked for.

A command's module has `add_arguments(parser)` and `run(arguments) -> exit code`. Exit codes: 0 done, 1 something
failed, 2 wrong usage, settings or machine (one sentence on stderr says what), 130 interrupted.
"""

from __future__ import annotations

import argparse
import logging
import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import import_module
from typing import Final

import tympan
from tympan.errors import TympanError

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Command:
    """Where a command lives, and its line in the help."""

    module: str
    summary: str


COMMANDS: Final = {
    "serve": Command("tympan.cli.serve", "serve a model over WebSocket, with a page to try it"),
    "transcribe": Command("tympan.cli.transcribe", "turn audio and video files into text, subtitles or JSON"),
    "models": Command("tympan.cli.models", "say what a model is, without loading it"),
    "doctor": Command("tympan.cli.doctor", "say whether this machine can serve, and what to fix"),
    "key": Command("tympan.cli.key", "make an API key: the key for a client, its hash for the server"),
    "bench": Command("tympan.cli.bench", "measure what this machine or a running server carries"),
    "plan": Command("tympan.cli.plan", "say what a fleet for so many streams costs"),
    "listen": Command("tympan.cli.listen", "show what the microphone hears"),
}


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; returns the exit code."""
    logging.basicConfig(level=logging.WARNING, format="tympan: %(message)s")
    try:
        code = _dispatch(list(sys.argv[1:] if argv is None else argv))
        sys.stdout.flush()  # a closed pipe shows here, not after us
        return code
    except SystemExit as exit:  # argparse's, after help and usage errors
        return exit.code if isinstance(exit.code, int) else 0
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


def _dispatch(argv: list[str]) -> int:
    chosen = next((argument for argument in argv if argument in COMMANDS), None)
    arguments = _parser(chosen).parse_args(argv)
    code: int = import_module(COMMANDS[arguments.command].module).run(arguments)
    return code


def _parser(chosen: str | None) -> argparse.ArgumentParser:
    """The parser, with the options of the chosen command alone: the others' modules stay unread."""
    parser = argparse.ArgumentParser(prog="tympan", description="Live speech to text.")
    parser.add_argument("--version", action="version", version=f"tympan {tympan.__version__}")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for name, command in COMMANDS.items():
        subparser = commands.add_parser(name, help=command.summary, description=command.summary)
        if name == chosen:
            import_module(command.module).add_arguments(subparser)
    return parser


def _drop_output() -> None:
    """Whoever read us has left (`tympan … | head`): the interpreter's last flush must not complain about it."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
