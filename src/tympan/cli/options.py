"""Settings as command-line options; their names, defaults and help texts come from `tympan.settings`."""

from __future__ import annotations

import argparse
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any, Final

import msgspec

from tympan.config import Config, Setting, client_token, config_file, load_config, settings
from tympan.errors import ConfigError

COMMON: Final = frozenset(
    (
        *("model", "device", "dtype", "kv_dtype", "max_streams"),
        *("host", "port", "api_keys", "api_keys_file", "metrics_keys", "allowed_origins", "allowed_hosts"),
        *("tls_certificate", "tls_key"),
        *("log_level", "log_format", "record_folder"),
        *("gpus", "container_target_streams", "container_max_streams", "min_containers", "max_containers"),
    )
)
"""The settings that `--help` lists, with their first sentence; `--help-all` shows everything."""


class _HelpAll(argparse.Action):
    """Prints the help with all options."""

    def __init__(self, option_strings: Sequence[str], dest: str, **arguments: Any) -> None:
        super().__init__(option_strings, argparse.SUPPRESS, nargs=0, default=argparse.SUPPRESS, **arguments)

    def __call__(self, parser: argparse.ArgumentParser, *_: object) -> None:
        by_dest = {setting.name: setting for setting in settings()}
        for action in parser._actions:
            if action.dest in by_dest:
                action.help = _help(by_dest[action.dest])
        parser.print_help()
        parser.exit()


def add_settings(parser: argparse.ArgumentParser, sections: Collection[str], *, config: bool = False) -> None:
    """Add an option for every setting of these sections.

    Args:
        parser: The parser of a command.
        sections: Names of sections, each of which becomes a group in the help.
        config: Whether to add `--config` as well.
    """
    if config:
        parser.add_argument("--config", type=Path, metavar="FILE", help="Settings file (TOML); also TYMPAN_CONFIG.")
    parser.add_argument("--help-all", action=_HelpAll, help="Show all options, each with all details, and exit.")
    parser.epilog = (
        "Each setting is also an environment variable (--port: TYMPAN_PORT) and a line of the settings file."
    )
    groups = {section: parser.add_argument_group(f"{section} settings") for section in sections}
    for setting in settings():
        if setting.section not in groups:
            continue
        kind: dict[str, Any] = {"metavar": setting.name.rpartition("_")[2].upper()}
        if setting.type is bool:
            kind = {"action": argparse.BooleanOptionalAction}
        elif setting.is_list:
            kind["action"] = "append"
        groups[setting.section].add_argument(
            setting.flag,
            dest=setting.name,
            default=argparse.SUPPRESS,
            help=_short_help(setting) if setting.name in COMMON else argparse.SUPPRESS,
            **kind,
        )


def config_from(arguments: argparse.Namespace) -> Config:
    """Return the settings from the file, the environment and the given options.

    Raises:
        ConfigError: A setting is unknown or invalid.
    """
    given = vars(arguments)
    names = {setting.name for setting in settings()}
    overrides = {name: value for name, value in given.items() if name in names}
    return load_config(given.get("config") or config_file(), overrides=overrides, are_options=True)


def add_token(parser: argparse.ArgumentParser) -> None:
    """Add the options for the API key that a client command presents."""
    group = parser.add_mutually_exclusive_group()
    group.add_argument("--token", help="API key of the server; other users of this machine can see it in `ps`.")
    group.add_argument(
        "--token-file", type=Path, metavar="FILE", help="File that contains the API key; also TYMPAN_TOKEN."
    )


def token_from(arguments: argparse.Namespace) -> str | None:
    """Return the API key of the options or the environment, or None.

    Raises:
        ConfigError: The file cannot be read or is empty.
    """
    file: Path | None = arguments.token_file
    if file is None:
        return arguments.token or client_token()
    try:
        token = file.read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"cannot read the API key in {file}: {error}") from None
    if not token:
        raise ConfigError(f"{file} is empty: expected an API key")
    return token


def _help(setting: Setting) -> str:
    default = "" if setting.default in (None, (), "") else f" (default: {setting.default})"
    return (setting.description.removesuffix(".") + default + ".").replace("%", "%%")


def _short_help(setting: Setting) -> str:
    """Return the first sentence of the help."""
    return _help(msgspec.structs.replace(setting, description=setting.description.partition(". ")[0]))
