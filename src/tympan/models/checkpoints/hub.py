"""Files in a repository of the Hugging Face hub, and :func:`locate`."""

from __future__ import annotations

import functools
import logging
import re
import time
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Final, Literal

from tympan.errors import ModelError, missing_package
from tympan.models.checkpoints.download import RemoteFile, Report, check_space, no_report
from tympan.models.checkpoints.files import Files, FileStart, Folder, header_end
from tympan.models.checkpoints.hub_errors import explain, is_rejected_token, model_error, retry_seconds

if TYPE_CHECKING:
    from huggingface_hub import HfFileMetadata

logger = logging.getLogger(__name__)

PROBE_SECONDS: Final = 5.0
METADATA_ATTEMPTS: Final = 4
FIRST_BYTES: Final = 1 << 15
_COMMIT: Final = re.compile(r"[0-9a-f]{40}")


@dataclass(frozen=True)
class Repository(Files):
    """A checkpoint on the hub; files are downloaded on first access and kept in the cache of huggingface_hub."""

    name: str
    revision: str | None = None
    _known: dict[str, RemoteFile | Path | None] = field(default_factory=dict, init=False, compare=False, repr=False)
    _rejected_tokens: set[str] = field(default_factory=set, init=False, compare=False, repr=False)
    _warnings: set[str] = field(default_factory=set, init=False, compare=False, repr=False)

    def find(self, name: str, report: Report = no_report) -> Path | None:
        """Download the file if necessary, and return its path, or None if the repository has no such file.

        Raises:
            MissingPackageError: huggingface_hub is not installed.
            ModelError: The download failed.
        """
        found = self._look_up(name)
        if not isinstance(found, RemoteFile):
            return found
        try:
            found.download(report)
            path = self._linked(name)
            self._known[name] = path
            return path
        except ModelError:
            raise
        except Exception as error:  # those of huggingface_hub's HTTP client, which depends on its version
            raise self._failed(name, error) from None

    def has(self, name: str) -> bool:
        """Ask the hub, or the cache if the hub does not answer; errors are those of :meth:`find`."""
        return self._look_up(name) is not None

    def find_start(self, name: str) -> FileStart | None:
        """Download the header of a safetensors file if necessary, and return the part that has been downloaded.

        Raises:
            MissingPackageError: huggingface_hub is not installed.
            ModelError: The download failed.
        """
        found = self._look_up(name)
        if not isinstance(found, RemoteFile):
            return None if found is None else FileStart.whole(found)
        try:
            path = found.fetch_start(header_end(found.fetch_start(FIRST_BYTES)))
        except Exception as error:  # as above
            raise self._failed(name, error) from None
        return FileStart(path, Path(self.name, name), found.size)

    def check_space(self, names: Iterable[str]) -> None:
        """Compare what is missing with the free space of the cache; raises ModelError if it does not fit."""
        remote = [found for name in names if isinstance(found := self._look_up(name), RemoteFile)]
        if remote:
            check_space(remote[0].blob.parent.parent, sum(file.missing_bytes for file in remote))

    def _look_up(self, name: str) -> RemoteFile | Path | None:
        """Return the path of a file in the cache, or its description by the hub; None if the repository has none.

        The hub is asked once per file.
        """
        if name not in self._known:
            self._known[name] = self._ask(name)
        return self._known[name]

    def _ask(self, name: str) -> RemoteFile | Path | None:
        """Return the result of :meth:`_look_up`; a file in the cache is used if the hub does not answer with it."""
        try:
            from huggingface_hub import constants, errors
        except ImportError:
            raise missing_package("a model from the hub", "huggingface_hub", "torch") from None
        logging.getLogger("huggingface_hub").setLevel(logging.ERROR)  # the errors below report the result
        cached = self._cached(name)
        if isinstance(cached, Path) and self.revision and _COMMIT.fullmatch(self.revision):
            return cached
        problem = "HF_HUB_OFFLINE is set" if constants.HF_HUB_OFFLINE else _why_unreachable(constants.ENDPOINT)
        if problem:
            return self._offline(name, cached, problem)
        try:
            metadata, headers = self._metadata(name, is_cached=cached != "unknown")
        except errors.EntryNotFoundError:
            with suppress(Exception):
                self._linked(name)  # the cache remembers the absence for later starts without the hub
            return None
        except Exception as error:  # those of huggingface_hub's HTTP client, which depends on its version
            if cached == "unknown":
                raise self._failed(name, error) from None
            self._warn(f"{explain(error, str(self), name, constants.ENDPOINT)}; the cache is used")
            return cached if isinstance(cached, Path) else None
        try:
            return self._described(name, metadata, headers)
        except Exception as error:  # as above
            raise self._failed(name, error) from None

    def _offline(self, name: str, cached: Path | Literal["absent", "unknown"], problem: str) -> Path | None:
        if isinstance(cached, Path):
            return cached
        if cached == "absent":
            return None
        raise model_error(
            f"{problem}, and {name} of {self} is not in the local cache: set HF_ENDPOINT to a mirror, or run "
            "`tympan pull` on another machine and copy the folder that it writes, or huggingface_hub's cache, to work "
            "offline"
        )

    def _cached(self, name: str) -> Path | Literal["absent", "unknown"]:
        """Return the path of a file in the cache, or whether the hub has said that there is none."""
        from huggingface_hub import constants, try_to_load_from_cache

        found = try_to_load_from_cache(self.name, name, cache_dir=constants.HF_HUB_CACHE, revision=self.revision)
        return Path(found) if isinstance(found, str) else "unknown" if found is None else "absent"

    def _metadata(self, name: str, *, is_cached: bool) -> tuple[HfFileMetadata, dict[str, str]]:
        """Request the size and checksum of a file; returns them and the headers for further requests.

        A failure that may be temporary is tried again, unless the file is cached.
        """
        from huggingface_hub import get_hf_file_metadata

        url, failures = self._url(name, self.revision), 0
        while True:
            token = _access_token()
            if token in self._rejected_tokens:
                token = None
            try:
                metadata = get_hf_file_metadata(url, token=token or False)
                return metadata, {"Authorization": f"Bearer {token}"} if token else {}
            except Exception as error:  # as above
                if token is not None and is_rejected_token(error):
                    logger.warning(
                        "the hub does not accept the access token (401): trying without it; run `hf auth login`, or "
                        "remove HF_TOKEN"
                    )
                    self._rejected_tokens.add(token)
                    continue
                failures += 1
                wait = None if is_cached else retry_seconds(error, failures)
                if wait is None or failures >= METADATA_ATTEMPTS:
                    raise
                logger.warning("%s of %s: %s; trying again in %.0f s", name, self, _first_line(error), wait)
                time.sleep(wait)

    def _described(self, name: str, metadata: HfFileMetadata, headers: dict[str, str]) -> RemoteFile | Path:
        """Return the path of the file if the cache has its content, and what is needed to download it otherwise."""
        from huggingface_hub import constants
        from huggingface_hub.file_download import repo_folder_name

        if metadata.commit_hash is None or metadata.etag is None or metadata.size is None:
            return self._linked(name)  # the server is no hub but a mirror that knows less
        cache, folder = Path(constants.HF_HUB_CACHE), repo_folder_name(repo_id=self.name, repo_type="model")
        blob = cache / folder / "blobs" / metadata.etag
        if blob.exists():
            return self._linked(name)
        return RemoteFile(
            name=name,
            url=self._url(name, metadata.commit_hash),
            etag=metadata.etag,
            size=metadata.size,
            blob=blob,
            lock=cache / ".locks" / folder / f"{metadata.etag}.lock",
            headers=headers,
        )

    def _linked(self, name: str) -> Path:
        """Return the path of the file in the snapshot, after huggingface_hub has made it from the content."""
        from huggingface_hub import constants, hf_hub_download

        download = functools.partial(
            hf_hub_download, self.name, name, revision=self.revision, endpoint=constants.ENDPOINT
        )
        try:
            return Path(download())
        except Exception as error:  # as above
            if not is_rejected_token(error):
                raise
        return Path(download(token=False))

    def _url(self, name: str, revision: str | None) -> str:
        from huggingface_hub import constants, hf_hub_url

        return hf_hub_url(self.name, name, revision=revision, endpoint=constants.ENDPOINT)

    def _warn(self, sentence: str) -> None:
        """Log a warning, once."""
        if sentence not in self._warnings:
            self._warnings.add(sentence)
            logger.warning("%s", sentence)

    def _failed(self, name: str, error: Exception) -> ModelError:
        from huggingface_hub import constants

        return model_error(explain(error, str(self), name, constants.ENDPOINT))

    def __str__(self) -> str:
        return self.name + (f"@{self.revision}" if self.revision else "")


@functools.cache
def _why_unreachable(endpoint: str) -> str:
    """Return that and why the hub does not answer; empty if it does, even with an error.

    Without this probe, every file would wait for the time-out of a connection before the cache is used. The result is
    kept: a model has several files, and a server that loads it again has them in the cache.
    """
    from huggingface_hub import errors, get_hf_file_metadata

    try:
        get_hf_file_metadata(endpoint, timeout=PROBE_SECONDS)
    except errors.HfHubHTTPError:
        return ""
    except Exception as error:  # as above
        return f"the hub {endpoint} cannot be reached ({_first_line(error)})"
    return ""


def _access_token() -> str | None:
    """Return the access token of HF_TOKEN or `hf auth login`, or None."""
    from huggingface_hub import constants, get_token

    return None if constants.HF_HUB_DISABLE_IMPLICIT_TOKEN else get_token()


def _first_line(error: Exception) -> str:
    return str(error).strip().partition("\n")[0] or type(error).__name__


def locate(model: str) -> Files:
    """Return the files of ``model``: an existing local folder, or ``org/name[@revision]``. Nothing is downloaded yet.

    Raises:
        ModelError: ``model`` is neither.
    """
    folder = Path(model).expanduser()
    if folder.is_dir():
        return Folder(folder)
    name, _, revision = model.partition("@")
    parts = name.split("/")
    if len(parts) != 2 or not all(parts) or name.startswith((".", "~")):
        raise model_error(f"{model} is neither a local folder nor a repository of the form org/name[@revision]")
    return Repository(name, revision or None)
