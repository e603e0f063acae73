"""Who may come in: the operator's API keys, and short-lived tokens that a holder of a key has asked for.

Tokens are JSON Web Tokens (RFC 7519), signed with HMAC-SHA256. They are for browsers, which cannot keep a key.
"""

from __future__ import annotations

import hashlib
import hmac
import logging
import re
import secrets
import time
from collections.abc import Sequence
from pathlib import Path

import jwt

from tympan.errors import AccessError, ConfigError

logger = logging.getLogger(__name__)

SHORTEST_TOKEN_SECONDS, LONGEST_TOKEN_SECONDS = 1, 3600
TOKEN_PREFIX = "ek_"  # OpenAI's clients know a short-lived key by it
HASHED = "sha256:"
_IS_HASH = re.compile(rf"{HASHED}[0-9a-f]{{64}}")
_ALGORITHM = "HS256"


class Keyring:
    """Knows hashes alone. Without keys and a file of them everybody may come in; an empty file lets nobody in.

    keys: themselves, or `hash_of` them. file: more of them, one on a line; `refresh` reads it again when it has
    changed. Tokens of servers with the same `secret` are good on all. Raises `ConfigError`.
    """

    def __init__(self, keys: Sequence[str], secret: str = "", file: Path | None = None) -> None:
        self._hashes = [hash_of(key) for key in keys]
        self._file = None if file is None else KeyFile(file)
        self._secret = hashlib.sha256((secret or secrets.token_hex()).encode()).digest()

    @property
    def asked_for(self) -> bool:
        """Whether anybody needs a key."""
        return bool(self._hashes) or self._file is not None

    def refresh(self) -> None:
        """Take in what has changed in the file."""
        if self._file is not None:
            self._file.refresh()

    def check(self, credential: str | None) -> None:
        """Raises `AccessError` unless it is a key, or a token that has not expired, or no keys are configured."""
        if not self.asked_for or self._is_key(credential):
            return
        if not credential:
            raise AccessError("an API key is needed")
        try:
            jwt.decode(
                credential.removeprefix(TOKEN_PREFIX),
                self._secret,
                algorithms=[_ALGORITHM],
                options={"require": ["exp"]},
            )
        except jwt.ExpiredSignatureError:
            raise AccessError("this token has expired; ask for a new one") from None
        except jwt.InvalidTokenError:
            raise AccessError("this API key is not known") from None

    def grant(self, credential: str | None, seconds: int) -> tuple[str, int]:
        """A token and how many seconds it is good for: those asked for, held within bounds.

        Only for keys: a token cannot prolong itself. Raises `AccessError`.
        """
        if self.asked_for and not self._is_key(credential):
            raise AccessError("an API key is needed to ask for a token")
        seconds = min(max(seconds, SHORTEST_TOKEN_SECONDS), LONGEST_TOKEN_SECONDS)
        return jwt.encode({"exp": time.time() + seconds}, self._secret, algorithm=_ALGORITHM), seconds

    def _is_key(self, credential: str | None) -> bool:
        presented = hashlib.sha256((credential or "").encode()).hexdigest()
        known = [*self._hashes, *(self._file.hashes if self._file is not None else ())]
        matches = [hmac.compare_digest(f"{HASHED}{presented}", key) for key in known]  # with all of them: no early end
        return any(matches)


class KeyFile:
    """Keys or their hashes, one on a line; empty lines and those that begin with # do not count."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._seen: tuple[int, int] | None = None
        try:
            self._read()
        except (OSError, UnicodeDecodeError) as error:
            raise ConfigError(f"cannot read the keys in {path}: {error}") from None

    def refresh(self) -> None:
        """Read it again if it has changed. While it cannot be read, the keys that were in it stay good."""
        try:
            if self._stamp() != self._seen:
                self._read()
                logger.info("read the API keys again: there are %d", len(self.hashes))
        except (OSError, UnicodeDecodeError) as error:
            if self._seen is not None:
                logger.error("cannot read the API keys again: %s", error)
            self._seen = None

    def _read(self) -> None:
        stamp = self._stamp()
        lines = [line.strip() for line in self._path.read_text(encoding="utf-8").splitlines()]
        self.hashes = [hash_of(line) for line in lines if line and not line.startswith("#")]
        self._seen = stamp

    def _stamp(self) -> tuple[int, int]:
        status = self._path.stat()
        return status.st_mtime_ns, status.st_size


def hash_of(key: str) -> str:
    """What is kept of a key. Keys are long and random (`tympan key`), so no slow hash is needed."""
    if _IS_HASH.fullmatch(key):
        return key
    return HASHED + hashlib.sha256(key.encode()).hexdigest()
