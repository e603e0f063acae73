"""The parser of the command line. Its errors name the option, the value, what is expected and the closest valid one."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from typing import Any, Final, NoReturn

from tympan.errors import closest

HELP_COLUMN: Final = 34
"""Where the texts of a help begin, so that most options need one line."""
EXPECTED: Final[dict[object, str]] = {int: "a whole number", float: "a number"}


class _Formatter(argparse.HelpFormatter):
    """Puts the texts at `HELP_COLUMN`."""

    def __init__(self, prog: str) -> None:
        super().__init__(prog, max_help_position=HELP_COLUMN)


class Parser(argparse.ArgumentParser):
    """A parser whose errors are one sentence and the command that lists the options."""

    def __init__(self, **arguments: Any) -> None:
        super().__init__(**{"formatter_class": _Formatter, **arguments})

    def format_usage(self) -> str:
        """Return the usage without the list of options."""
        return f"{self._usage_line()}\n"

    def format_help(self) -> str:
        """Return the help, whose first line is the usage without the list of options."""
        self.usage = self._usage_line().removeprefix("usage: ").replace("%", "%%")
        return super().format_help()

    def error(self, message: str) -> NoReturn:
        """Print the error and exit with code 2."""
        print(f"tympan: {message}\n`{self.prog} --help` lists the options", file=sys.stderr)
        self.exit(2)

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> tuple[Any, list[str]]:
        """Parse as `ArgumentParser` does, and report what the parser of a command does not know."""
        found, unknown = super().parse_known_args(args, namespace)
        if unknown and self._subparsers is None:
            self._report(unknown[0])
        return found, unknown

    def _report(self, argument: str) -> NoReturn:
        option = argument.partition("=")[0]
        if option.startswith("-"):
            self.error(f"unknown option {option}{closest(option, self._option_string_actions)}")
        self.error(f"unexpected argument {argument!r}")

    def _check_value(self, action: argparse.Action, value: Any) -> None:
        if action.choices is None or value in action.choices:
            return
        choices = [str(choice) for choice in action.choices]
        if isinstance(action, argparse._SubParsersAction):
            self.error(f"unknown command {value!r}{closest(str(value), choices, 'commands')}")
        near = closest(str(value), choices)
        self.error(f"invalid {_name(action)} {value!r}: expected {_alternatives(choices)}{near}")

    def _get_value(self, action: argparse.Action, arg_string: str) -> Any:
        try:
            return super()._get_value(action, arg_string)
        except argparse.ArgumentError:
            expected = EXPECTED.get(action.type, "another value")
            self.error(f"invalid {_name(action)} {arg_string!r}: expected {expected}")

    def _usage_line(self) -> str:
        words = [self.prog, "[OPTION …]"]
        words += [_positional(action) for action in self._actions if not action.option_strings]
        return f"usage: {' '.join(words)}"


def _name(action: argparse.Action) -> str:
    """Return the long option, or the name of a positional argument."""
    return action.option_strings[-1] if action.option_strings else str(action.metavar or action.dest)


def _positional(action: argparse.Action) -> str:
    name = str(action.metavar or action.dest.upper())
    if isinstance(action, argparse._SubParsersAction):
        return f"{name} …"
    forms = {"?": f"[{name}]", "*": f"[{name} …]", "+": f"{name} …"}
    return forms.get(str(action.nargs), name)


def _alternatives(choices: Sequence[str]) -> str:
    return " or ".join(part for part in (", ".join(choices[:-1]), choices[-1]) if part)
