"""Who may come in: the operator's API keys, and short-lived tokens that a holder of a key has asked for.

Tokens are JSON Web Tokens (RFC 7519), signed with HMAC-SHA256. They are for browsers, which cannot keep a key.
"""

from __future__ import annotations

import hashlib
import hmac
import secrets
import time
from collections.abc import Sequence

import jwt

from tympan.errors import AccessError

SHORTEST_TOKEN_SECONDS, LONGEST_TOKEN_SECONDS = 1, 3600
TOKEN_PREFIX = "ek_"  # OpenAI's clients know a short-lived key by it
_ALGORITHM = "HS256"


class Keyring:
    """`keys` may be empty: then everybody may come in. Tokens of servers with the same `secret` are good on all."""

    def __init__(self, keys: Sequence[str], secret: str = "") -> None:
        self._keys = [key.encode() for key in keys]
        self._secret = hashlib.sha256((secret or secrets.token_hex()).encode()).digest()

    def check(self, credential: str | None) -> None:
        """Raises `AccessError` unless it is a key, or a token that has not expired, or no keys are configured."""
        if not self._keys or self._is_key(credential):
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
        if self._keys and not self._is_key(credential):
            raise AccessError("an API key is needed to ask for a token")
        seconds = min(max(seconds, SHORTEST_TOKEN_SECONDS), LONGEST_TOKEN_SECONDS)
        return jwt.encode({"exp": time.time() + seconds}, self._secret, algorithm=_ALGORITHM), seconds

    def _is_key(self, credential: str | None) -> bool:
        presented = (credential or "").encode()
        matches = [hmac.compare_digest(presented, key) for key in self._keys]  # with all of them: no early end
        return any(matches)
