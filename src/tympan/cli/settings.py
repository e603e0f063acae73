"""Command line options made from the settings: names, defaults and help live in `tympan.config` alone."""

from __future__ import annotations

import argparse
from collections.abc import Collection

from tympan.config import Config, Setting, config_file, load_config, settings


def add_settings(parser: argparse.ArgumentParser, sections: Collection[str] = ()) -> None:
    """One option per setting; of the named sections only, if any are named."""
    groups: dict[str, argparse._ArgumentGroup] = {}
    for setting in settings():
        if sections and setting.section not in sections:
            continue
        if setting.section not in groups:
            groups[setting.section] = parser.add_argument_group(setting.section)
        if setting.type is bool:
            groups[setting.section].add_argument(
                setting.flag,
                dest=setting.name,
                action=argparse.BooleanOptionalAction,
                default=argparse.SUPPRESS,
                help=_help(setting),
            )
            continue
        groups[setting.section].add_argument(
            setting.flag,
            dest=setting.name,
            action="append" if setting.is_list else "store",
            default=argparse.SUPPRESS,
            metavar=setting.name.rpartition("_")[2].upper(),
            help=_help(setting),
        )


def config_from(arguments: argparse.Namespace) -> Config:
    """The settings from the file, the environment and the options that were given. Raises `ConfigError`."""
    given = vars(arguments)
    names = {setting.name for setting in settings()}
    overrides = {name: value for name, value in given.items() if name in names}
    return load_config(given.get("config") or config_file(), overrides=overrides)


def _help(setting: Setting) -> str:
    default = "" if setting.default in (None, ()) else f" (default: {setting.default})"
    return (setting.description + default).replace("%", "%%")
