"""The packages of an image that is built elsewhere: the requirements of extras, and the file that pins all versions."""

from __future__ import annotations

import re
from collections.abc import Collection
from importlib.metadata import PackageNotFoundError, requires
from pathlib import Path
from typing import Final

from tympan.errors import ConfigError

CONSTRAINTS: Final = "constraints.txt"  # a wheel has it beside this module, a clone in its root


def constraints_file() -> Path:
    """Return the file with the versions that CI tests.

    Raises:
        ConfigError: There is none.
    """
    here = Path(__file__)
    for file in (here.with_name(CONSTRAINTS), here.parents[3] / CONSTRAINTS):
        if file.is_file():
            return file
    raise ConfigError(f"there is no {CONSTRAINTS} in {here.parent}: install Tympan from its wheel or its clone")


def requirements(extras: Collection[str]) -> list[str]:
    """Return what the package and these extras require on Linux, such as `numpy>=1.26`, sorted.

    Raises:
        ConfigError: The package is not installed, so that its requirements are unknown.
    """
    try:
        lines = requires("tympan") or []
    except PackageNotFoundError:
        raise ConfigError("the requirements of Tympan are unknown: install it with pip instead of copying it") from None
    found = set()
    for line in lines:
        requirement, _, marker = line.partition(";")
        extra = re.search(r"extra == ['\"]([\w-]+)['\"]", marker)
        if extra is None or extra[1] in extras:
            found.add(requirement.strip())
    return sorted(found)
