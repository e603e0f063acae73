"""Authentication by the operator's API keys, and by short-lived tokens that the holder of a key requests.

Tokens are JSON Web Tokens (RFC 7519), signed with HMAC-SHA256. They are for browsers, which cannot keep a key secret. A
token carries the id of the key that requested it: its usage counts for that key, and it is void without the key.
"""

from __future__ import annotations

import hashlib
import secrets
import time
from collections.abc import Callable, Collection, Sequence
from pathlib import Path

import jwt

from tympan.config import KeySettings
from tympan.errors import AccessError
from tympan.server.access.keys import KeyFile, find_hash, parse_key
from tympan.server.access.quota import Account

MIN_TOKEN_SECONDS, MAX_TOKEN_SECONDS = 1, 3600
TOKEN_PREFIX = "ek_"  # OpenAI's clients recognize a short-lived key by it
_ALGORITHM = "HS256"


class Keyring:
    """The accepted API keys, as hashes, with their accounts.

    Without keys and without a key file, all requests are accepted; with an empty key file, none is.

    Attributes:
        shared_account: Account of requests without a key, where none is required, of Wyoming clients, and of tokens of
            keys that this server lacks.
    """

    def __init__(
        self,
        keys: Sequence[str],
        secret: str = "",
        file: Path | None = None,
        limits: KeySettings | None = None,
        *,
        accept_foreign_tokens: bool = False,
        make_account: Callable[[KeySettings], Account] = Account,
    ) -> None:
        """Load the keys.

        Args:
            keys: API keys, each written as a line of the key file.
            secret: Secret that signs tokens. Servers with the same secret accept each other's tokens.
            file: File with more keys; `refresh` reloads it.
            limits: Limits of keys that have none of their own.
            accept_foreign_tokens: Whether to accept tokens of keys that are not in the keyring.
            make_account: Returns an account with these limits.

        Raises:
            ConfigError: A key is invalid, or the file cannot be read.
        """
        self._limits = limits or KeySettings()
        self._keys = [parse_key(key, self._limits, f"key {number} of api_keys") for number, key in enumerate(keys, 1)]
        self._file = None if file is None else KeyFile(file, self._limits)
        self._secret = hashlib.sha256((secret or secrets.token_hex()).encode()).digest()
        self._accounts: dict[str, Account] = {}
        self._accept_foreign_tokens = accept_foreign_tokens
        self._make_account = make_account
        self.shared_account = make_account(self._limits)
        self._update_accounts()

    @property
    def asked_for(self) -> bool:
        """Whether requests need a key."""
        return bool(self._keys) or self._file is not None

    @property
    def accounts(self) -> Collection[Account]:
        """The accounts of all keys."""
        return self._accounts.values()

    def refresh(self) -> None:
        """Reload the key file if it has changed; keys that remain keep their usage, and removed ones are revoked."""
        if self._file is not None and self._file.refresh():
            self._update_accounts()

    def check(self, credential: str | None) -> Account:
        """Return the account that a key or token belongs to.

        Raises:
            AccessError: Keys are required, and this is neither a key nor a valid token of one.
        """
        account = self._account_of_key(credential)
        if account is not None:
            return account
        if not self.asked_for:
            return self.shared_account
        if not credential:
            raise AccessError("an API key is required")
        try:
            claims = jwt.decode(
                credential.removeprefix(TOKEN_PREFIX),
                self._secret,
                algorithms=[_ALGORITHM],
                options={"require": ["exp"]},
            )
        except jwt.ExpiredSignatureError:
            raise AccessError("the token has expired; request a new one") from None
        except jwt.InvalidTokenError:
            raise AccessError("the API key is invalid") from None
        account = next((each for each in self.accounts if each.id == claims.get("key")), None)
        if account is not None:
            return account
        if not self._accept_foreign_tokens:
            raise AccessError("the API key that requested the token is not valid here, so neither is the token")
        return self.shared_account

    def grant(self, credential: str | None, seconds: int) -> tuple[str, int]:
        """Return a new token and its lifetime in seconds.

        Args:
            credential: An API key; a token cannot request another token.
            seconds: Requested lifetime, limited to between one second and one hour.

        Raises:
            AccessError: Keys are required, and `credential` is not one.
        """
        account = self._account_of_key(credential)
        if self.asked_for and account is None:
            raise AccessError("an API key is required to request a token")
        seconds = min(max(seconds, MIN_TOKEN_SECONDS), MAX_TOKEN_SECONDS)
        claims = {"exp": time.time() + seconds} | ({} if account is None else {"key": account.id})
        return jwt.encode(claims, self._secret, algorithm=_ALGORITHM), seconds

    def _account_of_key(self, credential: str | None) -> Account | None:
        hash = find_hash(credential, self._accounts)
        return None if hash is None else self._accounts[hash]

    def _update_accounts(self) -> None:
        previous, self._accounts = self._accounts, {}
        for key in [*self._keys, *(self._file.keys if self._file is not None else ())]:
            account = self._accounts[key.hash] = previous.get(key.hash) or self._make_account(self._limits)
            account.limits, account.id, account.name = key.limits, key.id, key.name
        for hash in previous.keys() - self._accounts.keys():
            previous[hash].revoked = True


class MetricsAccess:
    """Who may read the metrics, which show the names and the usage of all keys: the holders of keys of their own.

    Without such keys the metrics are public, unless streams need a key.
    """

    def __init__(self, keys: Sequence[str], *, public: bool) -> None:
        """Load the keys.

        Args:
            keys: Keys or their hashes.
            public: Whether the metrics are public without keys.

        Raises:
            ConfigError: A key is invalid.
        """
        unlimited = KeySettings()
        self._hashes = [
            parse_key(key, unlimited, f"key {number} of metrics_keys").hash for number, key in enumerate(keys, 1)
        ]
        self._public = public

    def check(self, credential: str | None) -> None:
        """Check the key of a request.

        Raises:
            AccessError: A key is required, and this is none.
        """
        if self._hashes:
            if find_hash(credential, self._hashes) is None:
                raise AccessError("a metrics key is required: send one of metrics_keys as Authorization: Bearer KEY")
        elif not self._public:
            raise AccessError("the metrics show all API keys' usage, so they need a key of their own: set metrics_keys")
