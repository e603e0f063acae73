"""Finding a checkpoint's files: a local folder, or a repository of the Hugging Face hub."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from tympan.errors import ModelError, missing_package

_WAY_OUT = "`--model embedded` runs without any download"


class Files(Protocol):
    """Where the files of one checkpoint come from."""

    def get(self, name: str) -> Path:
        """The local path of file ``name``. Raises ModelError when there is none."""
        ...

    def find(self, name: str) -> Path | None:
        """Like get, but None when the checkpoint has no such file."""
        ...


@dataclass(frozen=True)
class Folder:
    """A checkpoint in a local folder."""

    path: Path

    def find(self, name: str) -> Path | None:
        file = self.path / name
        return file if file.is_file() else None

    def get(self, name: str) -> Path:
        file = self.find(name)
        if file is None:
            raise ModelError(f"{self.path} has no file {name}; {_WAY_OUT}")
        return file


@dataclass(frozen=True)
class Repository:
    """A checkpoint on the hub; files are downloaded when first asked for and kept in the hub's own cache."""

    name: str
    revision: str | None = None

    def find(self, name: str) -> Path | None:
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
        wanted = f"{name} of {self}"
        logging.getLogger("huggingface_hub").setLevel(
            logging.ERROR
        )  # it warns of every one of its retries; what came of them is said once, here
        try:
            return Path(hf_hub_download(self.name, name, revision=self.revision))
        except GatedRepoError:
            raise ModelError(
                f"{self.name} asks to accept its terms on its page first, then `hf auth login`; {_WAY_OUT}"
            ) from None
        except RepositoryNotFoundError:
            raise ModelError(f"there is no repository {self.name} on the hub (or it is private); {_WAY_OUT}") from None
        except RevisionNotFoundError:
            raise ModelError(f"the repository {self.name} has no revision {self.revision}; {_WAY_OUT}") from None
        except LocalEntryNotFoundError:
            raise ModelError(f"the hub cannot be reached and {wanted} is not in the local cache; {_WAY_OUT}") from None
        except EntryNotFoundError:
            return None
        except (HfHubHTTPError, OSError, ValueError) as error:
            reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
            raise ModelError(f"{wanted} cannot be downloaded: {reason}; {_WAY_OUT}") from None

    def get(self, name: str) -> Path:
        file = self.find(name)
        if file is None:
            raise ModelError(f"{self} has no file {name}; {_WAY_OUT}")
        return file

    def __str__(self) -> str:
        return self.name + (f"@{self.revision}" if self.revision else "")


def locate(model: str) -> Files:
    """The files of ``model``: an existing local folder, or ``org/name[@revision]``.

    Raises ModelError when it is neither; nothing is downloaded yet.
    """
    folder = Path(model).expanduser()
    if folder.is_dir():
        return Folder(folder)
    name, _, revision = model.partition("@")
    parts = name.split("/")
    if len(parts) != 2 or not all(parts) or name.startswith((".", "~")):
        raise ModelError(
            f"{model} is neither a local folder nor a repository of the form org/name[@revision]; {_WAY_OUT}"
        )
    return Repository(name, revision or None)
