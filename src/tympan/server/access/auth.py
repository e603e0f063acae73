"""Who may come in: the operator's API keys, and short-lived tokens that a holder of a key has asked for.

Tokens are JSON Web Tokens (RFC 7519), signed with HMAC-SHA256. They are for browsers, which cannot keep a key; what is
done with one counts as done with the key that asked for it, whose id it carries.
"""

from __future__ import annotations

import hashlib
import hmac
import secrets
import time
from collections.abc import Collection, Sequence
from pathlib import Path

import jwt

from tympan.config import KeySettings
from tympan.errors import AccessError
from tympan.server.access.keys import HASHED, Key, KeyFile, parse_key
from tympan.server.access.quota import Account

SHORTEST_TOKEN_SECONDS, LONGEST_TOKEN_SECONDS = 1, 3600
TOKEN_PREFIX = "ek_"  # OpenAI's clients know a short-lived key by it
_ALGORITHM = "HS256"


class Keyring:
    """Knows hashes alone. Without keys and a file of them everybody may come in; an empty file lets nobody in.

    keys: one a string, written as a line of the file is; file: more of them; `refresh` reads it again when it has
    changed. limits: those of keys that have none of their own. Tokens of servers with the same `secret` are good on
    all. Raises `ConfigError`.
    """

    def __init__(
        self, keys: Sequence[str], secret: str = "", file: Path | None = None, limits: KeySettings | None = None
    ) -> None:
        self._limits = limits or KeySettings()
        self._keys = [parse_key(key, self._limits, f"key {number} of api_keys") for number, key in enumerate(keys, 1)]
        self._file = None if file is None else KeyFile(file, self._limits)
        self._secret = hashlib.sha256((secret or secrets.token_hex()).encode()).digest()
        self._accounts: dict[str, Account] = {}
        self._others = Account(self._limits)
        """Of all that come without a key, where none is needed, or with a token of a key that is not known here."""
        self._open_accounts()

    @property
    def asked_for(self) -> bool:
        """Whether anybody needs a key."""
        return bool(self._keys) or self._file is not None

    @property
    def accounts(self) -> Collection[Account]:
        """Of the keys that are known."""
        return self._accounts.values()

    def refresh(self) -> None:
        """Take in what has changed in the file. What a key has used stays, as long as it is in it."""
        if self._file is not None and self._file.refresh():
            self._open_accounts()

    def check(self, credential: str | None) -> Account:
        """Whose account this is. Raises `AccessError` unless it is a key's, or a token's that has not expired, or no
        keys are configured.
        """
        account = self._account_of_key(credential)
        if account is not None:
            return account
        if not self.asked_for:
            return self._others
        if not credential:
            raise AccessError("an API key is needed")
        try:
            claims = jwt.decode(
                credential.removeprefix(TOKEN_PREFIX),
                self._secret,
                algorithms=[_ALGORITHM],
                options={"require": ["exp"]},
            )
        except jwt.ExpiredSignatureError:
            raise AccessError("this token has expired; ask for a new one") from None
        except jwt.InvalidTokenError:
            raise AccessError("this API key is not known") from None
        return next((each for each in self.accounts if each.id == claims.get("key")), self._others)

    def grant(self, credential: str | None, seconds: int) -> tuple[str, int]:
        """A token and how many seconds it is good for: those asked for, held within bounds.

        Only for keys: a token cannot prolong itself. Raises `AccessError`.
        """
        account = self._account_of_key(credential)
        if self.asked_for and account is None:
            raise AccessError("an API key is needed to ask for a token")
        seconds = min(max(seconds, SHORTEST_TOKEN_SECONDS), LONGEST_TOKEN_SECONDS)
        claims = {"exp": time.time() + seconds} | ({} if account is None else {"key": account.id})
        return jwt.encode(claims, self._secret, algorithm=_ALGORITHM), seconds

    def _account_of_key(self, credential: str | None) -> Account | None:
        presented = HASHED + hashlib.sha256((credential or "").encode()).hexdigest()
        found = None
        for hash, account in self._accounts.items():  # with all of them: no early end
            if hmac.compare_digest(presented, hash):
                found = account
        return found

    def _open_accounts(self) -> None:
        before, self._accounts = self._accounts, {}
        keys: list[Key] = [*self._keys, *(self._file.keys if self._file is not None else ())]
        for key in keys:
            account = self._accounts[key.hash] = before.get(key.hash) or Account(self._limits)
            account.limits, account.id, account.name = key.limits, key.id, key.name
