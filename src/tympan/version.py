"""The version of Tympan, also for sources that are not installed."""

from __future__ import annotations

from importlib import metadata


def version() -> str:
    """Return the version of the installed distribution, or `0+unknown`."""
    try:
        return metadata.version("tympan")
    except metadata.PackageNotFoundError:
        return "0+unknown"
