"""Access to the files of a checkpoint, in a local folder or in a repository of the Hugging Face hub."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from tympan.errors import ModelError, missing_package

_HINT = "`--model embedded` runs without any download"


class Files(Protocol):
    """The files of one checkpoint."""

    def get(self, name: str) -> Path:
        """Return the local path of the file ``name``; raises ModelError if there is none."""
        ...

    def find(self, name: str) -> Path | None:
        """Return the local path of the file ``name``, or None if the checkpoint has no such file."""
        ...


@dataclass(frozen=True)
class Folder:
    """A checkpoint in a local folder."""

    path: Path

    def find(self, name: str) -> Path | None:
        """Return the path of the file, or None."""
        file = self.path / name
        return file if file.is_file() else None

    def get(self, name: str) -> Path:
        """Return the path of the file; raises ModelError if there is none."""
        file = self.find(name)
        if file is None:
            raise ModelError(f"{self.path} has no file {name}; {_HINT}")
        return file


@dataclass(frozen=True)
class Repository:
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
            from huggingface_hub import hf_hub_download
            from huggingface_hub.errors import (
                EntryNotFoundError,
                GatedRepoError,
                HfHubHTTPError,
                LocalEntryNotFoundError,
                RepositoryNotFoundError,
                RevisionNotFoundError,
            )
        except ImportError:
            raise missing_package("a model from the hub", "huggingface_hub", "torch") from None
        # Each retry would log a warning; the errors below report the result.
        logging.getLogger("huggingface_hub").setLevel(logging.ERROR)
        try:
            return Path(hf_hub_download(self.name, name, revision=self.revision))
        except GatedRepoError:
            problem = f"accept the terms of {self.name} on its page first, then run `hf auth login`"
        except RepositoryNotFoundError:
            problem = f"there is no repository {self.name} on the hub (or it is private)"
        except RevisionNotFoundError:
            problem = f"the repository {self.name} has no revision {self.revision}"
        except LocalEntryNotFoundError:
            problem = f"the hub cannot be reached and {name} of {self} is not in the local cache"
        except EntryNotFoundError:
            return None
        except (HfHubHTTPError, OSError, ValueError) as error:
            reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
            problem = f"{name} of {self} cannot be downloaded: {reason}"
        raise ModelError(f"{problem}; {_HINT}")

    def get(self, name: str) -> Path:
        """Do the same as :meth:`find`, but raise ModelError if there is no such file."""
        file = self.find(name)
        if file is None:
            raise ModelError(f"{self} has no file {name}; {_HINT}")
        return file

    def __str__(self) -> str:
        return self.name + (f"@{self.revision}" if self.revision else "")


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
