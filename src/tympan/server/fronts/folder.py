"""The folder of the processes' sockets, which only this user can enter, and which no killed supervisor leaves for long.

A supervisor holds a lock in its folder for as long as it runs. The kernel releases the lock however the supervisor
ends, so the next one removes the folders whose lock is free.
"""

from __future__ import annotations

import os
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from shutil import rmtree
from typing import Final

from tympan.errors import ConfigError

PREFIX: Final = "tympan-fronts-"
LOCK: Final = "lock"
LONGEST_FOLDER: Final = 88  # a path of a Unix socket has at most 104 bytes
YOUNG_SECONDS: Final = 60.0  # a folder that has no lock yet is being created


@contextmanager
def socket_folder() -> Iterator[str]:
    """Create a folder for sockets, remove those of killed supervisors, and remove this one at the end.

    Raises:
        ConfigError: The temporary folder is not writable, or its path is too long for sockets.
    """
    _remove_abandoned(Path(tempfile.gettempdir()))
    folder, lock = _create()
    try:
        if len(folder) > LONGEST_FOLDER:
            raise ConfigError(f"the path {folder} is too long for sockets: set TMPDIR to a shorter one")
        yield folder
    finally:
        rmtree(folder, ignore_errors=True)
        os.close(lock)


def _create() -> tuple[str, int]:
    """Return a new folder and the descriptor that holds its lock."""
    try:
        while True:
            folder = tempfile.mkdtemp(prefix=PREFIX)
            lock = os.open(f"{folder}/{LOCK}", os.O_RDWR | os.O_CREAT, 0o600)
            _lock(lock)
            if os.path.exists(f"{folder}/{LOCK}"):
                return folder, lock
            os.close(lock)  # another supervisor has taken it for abandoned before it was locked
    except OSError as error:
        raise ConfigError(f"cannot create a folder for sockets: {error.strerror}; set TMPDIR to another") from None


def _remove_abandoned(parent: Path) -> None:
    """Remove this user's folders that no supervisor holds."""
    for folder in parent.glob(f"{PREFIX}*"):
        with suppress(OSError):
            state = folder.lstat()
            if state.st_uid == os.getuid() and folder.is_dir() and not folder.is_symlink():
                _remove_if_abandoned(folder, time.time() - state.st_mtime)


def _remove_if_abandoned(folder: Path, age: float) -> None:
    try:
        lock = os.open(folder / LOCK, os.O_RDWR)
    except FileNotFoundError:
        if age > YOUNG_SECONDS:
            rmtree(folder, ignore_errors=True)
        return
    try:
        _lock(lock, wait=False)
        rmtree(folder, ignore_errors=True)
    finally:
        os.close(lock)


def _lock(descriptor: int, *, wait: bool = True) -> None:
    """Lock a file until its descriptor is closed, by this process or by its end.

    Raises:
        BlockingIOError: Another process has the lock, and `wait` is not set.
    """
    assert sys.platform != "win32"
    import fcntl

    fcntl.flock(descriptor, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
