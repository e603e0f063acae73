"""Keys and short-lived tokens: who may come in, and for how long."""

from __future__ import annotations

import time

import jwt
import pytest

from tympan.errors import AccessError
from tympan.server.auth import LONGEST_TOKEN_SECONDS, TOKEN_PREFIX, Keyring


@pytest.fixture
def keyring() -> Keyring:
    return Keyring(("first", "sécond"), "secret")


def test_without_keys_everybody_may_come_in() -> None:
    Keyring(()).check(None)
    Keyring(()).check("anything")


@pytest.mark.parametrize("key", ["first", "sécond"])
def test_every_key_is_good(keyring: Keyring, key: str) -> None:
    keyring.check(key)


@pytest.mark.parametrize("key", [None, "", "First", "firs", "first ", "a.b.c"])
def test_nothing_else_is(keyring: Keyring, key: str | None) -> None:
    with pytest.raises(AccessError):
        keyring.check(key)


@pytest.mark.parametrize("prefix", ["", TOKEN_PREFIX])
def test_a_token_is_good_where_a_key_is_and_on_every_server_with_the_same_secret(keyring: Keyring, prefix: str) -> None:
    token = prefix + keyring.grant("first", 30)[0]
    keyring.check(token)
    Keyring(("other",), "secret").check(token)
    with pytest.raises(AccessError):
        Keyring(("other",), "another secret").check(token)
    with pytest.raises(AccessError):
        Keyring(("other",)).check(token)


def test_only_a_key_gives_tokens(keyring: Keyring) -> None:
    for credential in (None, "wrong", keyring.grant("first", 30)[0]):
        with pytest.raises(AccessError):
            keyring.grant(credential, 30)


def test_a_token_ends(keyring: Keyring, monkeypatch: pytest.MonkeyPatch) -> None:
    now = time.time()
    monkeypatch.setattr(time, "time", lambda: now - 31)
    token, _ = keyring.grant("first", 30)
    monkeypatch.undo()
    with pytest.raises(AccessError, match="expired"):
        keyring.check(token)


def test_no_token_lives_longer_than_an_hour(keyring: Keyring) -> None:
    token, seconds = keyring.grant("first", 10**9)
    assert seconds == LONGEST_TOKEN_SECONDS
    claims = jwt.decode(token, options={"verify_signature": False})
    assert claims["exp"] <= time.time() + LONGEST_TOKEN_SECONDS


@pytest.mark.parametrize("algorithm", ["none", "HS512"])
def test_a_token_that_is_signed_in_another_way_is_not_believed(keyring: Keyring, algorithm: str) -> None:
    key = None if algorithm == "none" else "x" * 64
    with pytest.raises(AccessError):
        keyring.check(jwt.encode({"exp": time.time() + 30}, key, algorithm=algorithm))


def test_a_token_without_an_end_is_not_believed(keyring: Keyring) -> None:
    with pytest.raises(AccessError):
        keyring.check(jwt.encode({}, keyring._secret, algorithm="HS256"))
