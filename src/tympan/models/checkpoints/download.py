"""Download of one file of the hub into the cache of huggingface_hub, which an interrupted download continues.

huggingface_hub downloads into a file with a new name each time, so a download whose process was killed begins again
from zero. Here the unfinished file is ``blobs/<etag>.tympan.incomplete``: the next attempt, in this process or another
one, requests the rest of it. The complete file is compared with its checksum before it gets its name.
"""

from __future__ import annotations

import hashlib
import logging
import shutil
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from tympan.models.checkpoints.hub_errors import model_error, retry_seconds

logger = logging.getLogger(__name__)

ATTEMPTS: Final = 5  # in a row without a byte
READ_SECONDS: Final = 30.0  # without a byte
FIRST_LOCK_SECONDS: Final = 0.2

GB: Final = 1e9


@dataclass(frozen=True, slots=True)
class Transfer:
    """Progress of one file.

    Attributes:
        file: Its name.
        done, total: Bytes.
        action: What happens, such as "downloading".
    """

    file: str
    done: int
    total: int
    action: str = "downloading"

    def __str__(self) -> str:
        if self.action != "downloading":
            return f"{self.action} {self.file}"
        return f"{self.action} {self.file}: {100 * self.done // max(self.total, 1)} % of {size_text(self.total)}"


Report = Callable[[Transfer], None]
"""Called with the progress of a file, several times a second."""


def no_report(transfer: Transfer) -> None:
    """Ignore progress."""


def size_text(size: int) -> str:
    """Return a size as people read it, such as "1.98 GB"."""
    return f"{size / GB:.2f} GB" if size >= GB / 10 else f"{size / 1e6:.2f} MB"


@dataclass(frozen=True)
class RemoteFile:
    """One file of a repository that is not in the cache.

    Attributes:
        name: Its name in the repository.
        url: Its address at one commit.
        etag: SHA-256 of its content, or the hash of a Git blob.
        size: Its size in bytes.
        blob: Path of the complete file in the cache.
        lock: Path of the file that huggingface_hub locks during a download.
        headers: Headers of requests, with the access token.
    """

    name: str
    url: str
    etag: str
    size: int
    blob: Path
    lock: Path
    headers: dict[str, str]

    @property
    def unfinished(self) -> Path:
        """Path of the part that has been downloaded."""
        return self.blob.with_name(f"{self.blob.name}.tympan.incomplete")

    @property
    def missing_bytes(self) -> int:
        """Bytes that have not been downloaded."""
        return self.size - _size(self.unfinished)

    def fetch_start(self, size: int) -> Path:
        """Download the first ``size`` bytes, or the whole file if it is shorter, and return the path of the part."""
        size = min(size, self.size)
        if not self.blob.exists() and _size(self.unfinished) < size:
            with self._locked(no_report):
                if not self.blob.exists():
                    self._receive_until(size, no_report)
        return self.blob if self.blob.exists() else self.unfinished

    def download(self, report: Report) -> None:
        """Download what is missing, compare the file with its checksum, and give it its name.

        Raises:
            ModelError: The content does not have the checksum.
            OSError: The disk is full or cannot be written.
            Exception: Those of huggingface_hub's HTTP client.
        """
        with self._locked(report):
            if self.blob.exists():
                return
            had, began = _size(self.unfinished), time.monotonic()
            present, folder = 100 * had // max(self.size, 1), self.blob.parent.parent
            logger.info("downloading %s (%s, %d %% present) to %s", self.name, size_text(self.size), present, folder)
            if not self._receive_verified(report):
                if had:
                    logger.warning("the part of %s that was continued is damaged: downloading it again", self.name)
                if not had or not self._receive_verified(report):
                    raise model_error(
                        f"{self.name} was changed on its way: its checksum is not {self.etag}; "
                        "run the same command again, which downloads it once more"
                    )
            self.unfinished.replace(self.blob)
            logger.info("downloaded %s in %.0f s; its checksum is correct", self.name, time.monotonic() - began)

    def _locked(self, report: Report) -> AbstractContextManager[object]:
        """Return a context in which no other process downloads the file."""
        from filelock import FileLock, Timeout

        self.lock.parent.mkdir(parents=True, exist_ok=True)
        self.blob.parent.mkdir(parents=True, exist_ok=True)
        lock = FileLock(self.lock)
        try:
            return lock.acquire(timeout=FIRST_LOCK_SECONDS)
        except Timeout:
            report(Transfer(self.name, 0, self.size, "waiting for another process that downloads"))
            return lock.acquire()

    def _receive_verified(self, report: Report) -> bool:
        """Receive what is missing; return whether the file has its checksum. Otherwise it is removed."""
        self._receive_until(self.size, report)
        report(Transfer(self.name, self.size, self.size, "verifying"))
        if has_etag(self.unfinished, self.etag):
            return True
        self.unfinished.unlink()
        return False

    def _receive_until(self, end: int, report: Report) -> None:
        """Request bytes until the unfinished file has ``end`` of them; a lost connection is replaced by another one."""
        if _size(self.unfinished) > self.size:
            self.unfinished.unlink()
        self.unfinished.touch()
        failures = 0
        while (start := _size(self.unfinished)) < end:
            try:
                self._receive(start, end, report)
                problem: Exception = ConnectionError("the response was too short")
            except Exception as error:  # the classes of the HTTP client depend on the version of huggingface_hub
                if isinstance(error, OSError) and error.errno is not None:
                    raise  # of the disk
                problem = error
            if (reached := _size(self.unfinished)) >= end:
                return
            failures = 0 if reached > start else failures + 1
            wait = retry_seconds(problem, failures) if failures else 0.0
            if wait is None or failures >= ATTEMPTS:
                raise problem
            percent, reason = 100 * reached // self.size, str(problem).strip().partition("\n")[0]
            logger.warning("%s: interrupted at %d %% (%s); continuing in %.0f s", self.name, percent, reason, wait)
            time.sleep(wait)

    def _receive(self, start: int, end: int, report: Report) -> None:
        from huggingface_hub import get_session

        headers = {**self.headers, "Range": f"bytes={start}-{end - 1}", "Accept-Encoding": "identity"}
        stream = get_session().stream("GET", self.url, headers=headers, timeout=READ_SECONDS, follow_redirects=True)
        with stream as response, self.unfinished.open("r+b") as file:
            response.raise_for_status()
            if response.status_code != 206:  # the server does not know ranges
                start, end = 0, self.size
            file.seek(start)
            if _size(self.unfinished) > start:
                file.truncate()
            for chunk in response.iter_bytes():
                file.write(chunk)
                start += len(chunk)
                file.flush()
                report(Transfer(self.name, start, self.size))


def check_space(folder: Path, needed: int) -> None:
    """Check that a file system has room.

    Args:
        folder: A folder that need not exist.
        needed: Bytes.

    Raises:
        ModelError: It has not.
    """
    existing = next(path for path in (folder, *folder.parents) if path.exists())
    free = shutil.disk_usage(existing).free
    if free < needed:
        raise model_error(
            f"not enough disk space in {folder}: the download needs {size_text(needed)}, {size_text(free)} are free; "
            "free some space, or set HF_HOME to a folder on another disk"
        )


def has_etag(path: Path, etag: str) -> bool:
    """Return whether a file's content has the checksum that the hub gives as its ETag; other ETags are accepted."""
    if len(etag) == 64:
        return sha256(path) == etag
    if len(etag) == 40:
        content = path.read_bytes()
        return hashlib.sha1(b"blob %d\0" % len(content) + content, usedforsecurity=False).hexdigest() == etag
    return True


def sha256(path: Path) -> str:
    """Return the SHA-256 of a file as hexadecimal digits."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except FileNotFoundError:
        return 0
