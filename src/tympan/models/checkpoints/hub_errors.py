"""Errors of the Hugging Face hub and of the disk as one sentence each, which says what to do next."""

from __future__ import annotations

import errno
from typing import Final

from tympan.errors import ModelError

HINT: Final = "`--model embedded` runs without any download"
RETRIED_STATUSES: Final = (408, 429, 500, 502, 503, 504)
LONGEST_WAIT_SECONDS: Final = 60.0


def model_error(problem: str) -> ModelError:
    """Return the error for a model that is not available, with the alternative that needs none."""
    return ModelError(f"{problem}; {HINT}")


def status_of(error: Exception) -> int | None:
    """Return the HTTP status that an error reports, or None."""
    response = getattr(error, "response", None)
    return None if response is None else int(response.status_code)


def retry_seconds(error: Exception, failures: int) -> float | None:
    """Return how long to wait before the next attempt, or None if another attempt does not help.

    Args:
        error: An error of the HTTP client.
        failures: Failures in a row, this one included.
    """
    status = status_of(error)
    if status is not None and status not in RETRIED_STATUSES:
        return None
    wait = 2.0 ** (failures - 1) if (given := _retry_after(error)) is None else given
    return wait if wait <= LONGEST_WAIT_SECONDS else None


def is_rejected_token(error: Exception) -> bool:
    """Return whether the hub rejects the access token itself, although the repository may be public."""
    from huggingface_hub import errors

    known = errors.RepositoryNotFoundError, errors.EntryNotFoundError
    return status_of(error) == 401 and not isinstance(error, known)


def explain(error: Exception, repository: str, file: str, endpoint: str) -> str:
    """Return why a file cannot be downloaded, and the next step.

    Args:
        error: What the HTTP client, huggingface_hub or the file system raised.
        repository: ``org/name``, with ``@revision`` if one was given.
        file: Name of the file.
        endpoint: Address of the hub.
    """
    from huggingface_hub import errors

    name, _, revision = repository.partition("@")
    match error:
        case errors.GatedRepoError():
            return f"{name} is gated: accept its terms on {endpoint}/{name}, then run `hf auth login` or set HF_TOKEN"
        case errors.RepositoryNotFoundError():
            return (
                f"there is no repository {name} on {endpoint}, or it is private: check the name; "
                "for a private repository run `hf auth login` or set HF_TOKEN"
            )
        case errors.RevisionNotFoundError():
            return f"the repository {name} has no revision {revision or 'main'}: check the part after the @"
    status = status_of(error)
    if status is not None:
        return _explain_status(status, _retry_after(error), name, file, endpoint)
    if isinstance(error, OSError) and error.errno is not None:
        return _explain_disk(error, name, file)
    reason = str(error).strip().partition("\n")[0] or type(error).__name__
    return (
        f"the connection to {endpoint} failed while {file} of {name} was downloaded ({reason}): "
        "check the network and run the same command again, which continues the download"
    )


def _explain_status(status: int, retry_after: float | None, name: str, file: str, endpoint: str) -> str:
    match status:
        case 401:
            return (
                f"{endpoint} does not accept the access token (401) for {name}: run `hf auth login`, "
                "or set HF_TOKEN to a valid token, or remove it for a public model"
            )
        case 403:
            return (
                f"{endpoint} denies access to {name} (403): use a token with the permission to read it "
                "(`hf auth login` or HF_TOKEN)"
            )
        case 429:
            when = "in some minutes" if retry_after is None else f"in {retry_after:.0f} s"
            return (
                f"{endpoint} limits the number of requests (429): run the same command again {when}, "
                "or set HF_TOKEN, which raises the limit"
            )
        case status if status >= 500:
            return (
                f"{endpoint} is temporarily unavailable (status {status}): run the same command again later, "
                "which continues the download, or set HF_ENDPOINT to a mirror"
            )
    return f"{endpoint} answers {file} of {name} with status {status}: check HF_ENDPOINT and the proxy settings"


def _explain_disk(error: OSError, name: str, file: str) -> str:
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return (
            f"the disk is full while {file} of {name} is downloaded: free some space, or set HF_HOME to a folder on "
            "another disk, and run the same command again, which continues the download"
        )
    where = f" {error.filename}" if error.filename else ""
    return f"cannot write {file} of {name}{where} ({error.strerror}): set HF_HOME to a folder that can be written"


def _retry_after(error: Exception) -> float | None:
    """Return the seconds of the header ``Retry-After``; None without it, or if it is a date."""
    response = getattr(error, "response", None)
    text = "" if response is None else str(response.headers.get("Retry-After", ""))
    return float(text) if text.isdecimal() else None
