"""Access to the files of a checkpoint, in a local folder or in a repository of the Hugging Face hub."""

from __future__ import annotations

import functools
import logging
from abc import ABC, abstractmethod
from dataclasses import dataclass
from pathlib import Path

from tympan.errors import ModelError, missing_package

PROBE_SECONDS = 5.0

_HINT = "`--model embedded` runs without any download"


class Files(ABC):
    """The files of one checkpoint."""

    @abstractmethod
    def find(self, name: str) -> Path | None:
        """Return the local path of the file ``name``, or None if the checkpoint has no such file."""

    def get(self, name: str) -> Path:
        """Return the local path of the file ``name``; raises ModelError if there is none."""
        file = self.find(name)
        if file is None:
            raise ModelError(f"{self} has no file {name}; {_HINT}")
        return file


@dataclass(frozen=True)
class Folder(Files):
    """A checkpoint in a local folder."""

    path: Path

    def find(self, name: str) -> Path | None:
        """Return the path of the file, or None."""
        file = self.path / name
        return file if file.is_file() else None

    def __str__(self) -> str:
        return str(self.path)


@dataclass(frozen=True)
class Repository(Files):
    """A checkpoint on the hub; files are downloaded on first access and kept in the cache of huggingface_hub."""

    name: str
    revision: str | None = None

    def find(self, name: str) -> Path | None:
        """Download the file if necessary, and return its path, or None if the repository has no such file.

        Raises:
            MissingPackageError: huggingface_hub is not installed.
            ModelError: The download failed.
        """
        try:
            from huggingface_hub import constants, errors, hf_hub_download
        except ImportError:
            raise missing_package("a model from the hub", "huggingface_hub", "torch") from None
        # Each retry would log a warning; the errors below report the result.
        logging.getLogger("huggingface_hub").setLevel(logging.ERROR)
        unreachable = "" if constants.HF_HUB_OFFLINE else _why_unreachable(constants.ENDPOINT)
        try:
            return Path(hf_hub_download(self.name, name, revision=self.revision, local_files_only=bool(unreachable)))
        except errors.GatedRepoError:
            problem = f"accept the terms of {self.name} on its page first, then run `hf auth login`"
        except errors.RepositoryNotFoundError:
            problem = f"there is no repository {self.name} on the hub (or it is private)"
        except errors.RevisionNotFoundError:
            problem = f"the repository {self.name} has no revision {self.revision}"
        except errors.LocalEntryNotFoundError:
            cause = f"the hub {constants.ENDPOINT} cannot be reached" if unreachable else "HF_HUB_OFFLINE is set"
            problem = (
                f"{cause}{unreachable}, and {name} of {self} is not in the local cache: set HF_ENDPOINT to a mirror, "
                "or copy the model's folder or huggingface_hub's cache from another machine to work offline"
            )
        except errors.EntryNotFoundError:
            return None
        except (errors.HfHubHTTPError, OSError, ValueError) as error:
            reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
            problem = f"{name} of {self} cannot be downloaded: {reason}"
        raise ModelError(f"{problem}; {_HINT}")

    def __str__(self) -> str:
        return self.name + (f"@{self.revision}" if self.revision else "")


@functools.cache
def _why_unreachable(endpoint: str) -> str:
    """Return why the hub does not answer, in brackets; empty if it does.

    Without this probe, `hf_hub_download` retries for half a minute or more before it looks into its cache. The result
    is kept: a model has several files, and a server that loads it again has them in the cache.
    """
    from huggingface_hub import errors, get_hf_file_metadata

    try:
        get_hf_file_metadata(endpoint, timeout=PROBE_SECONDS)
    except errors.HfHubHTTPError as error:
        status = error.response.status_code
        return f" (status {status})" if status >= 500 else ""
    except Exception as error:  # those of huggingface_hub's HTTP client, which depends on its version
        return f" ({str(error).strip() or type(error).__name__})".replace("\n", " ")
    return ""


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
        raise ModelError(f"{model} is neither a local folder nor a repository of the form org/name[@revision]; {_HINT}")
    return Repository(name, revision or None)
