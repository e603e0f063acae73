"""Which Tympan this is, also where it is not installed: a checkout, or sources mounted into a container."""

from __future__ import annotations

from importlib import metadata


def version() -> str:
    """The installed distribution's version, else `0+unknown`."""
    try:
        return metadata.version("tympan")
    except metadata.PackageNotFoundError:
        return "0+unknown"
