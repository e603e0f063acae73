"""API keys and short-lived tokens."""

from __future__ import annotations

import os
import time
from pathlib import Path

import jwt
import pytest

from tympan.config import KeySettings
from tympan.errors import AccessError, ConfigError
from tympan.server.access.auth import MAX_TOKEN_SECONDS, TOKEN_PREFIX, Keyring
from tympan.server.access.keys import hash_of


@pytest.fixture
def keyring() -> Keyring:
    return Keyring(("first", "sécond"), "secret")


def test_no_keys_accepts_any_credential() -> None:
    Keyring(()).check(None)
    Keyring(()).check("anything")


@pytest.mark.parametrize("key", ["first", "sécond"])
def test_accepts_every_key(keyring: Keyring, key: str) -> None:
    keyring.check(key)


@pytest.mark.parametrize("key", [None, "", "First", "firs", "first ", "a.b.c"])
def test_rejects_other_credentials(keyring: Keyring, key: str | None) -> None:
    with pytest.raises(AccessError):
        keyring.check(key)


@pytest.mark.parametrize("prefix", ["", TOKEN_PREFIX])
def test_token_accepted_with_same_secret(keyring: Keyring, prefix: str) -> None:
    token = prefix + keyring.grant("first", 30)[0]
    keyring.check(token)
    Keyring(("first", "other"), "secret").check(token)
    with pytest.raises(AccessError):
        Keyring(("first",), "another secret").check(token)
    with pytest.raises(AccessError):
        Keyring(("first",)).check(token)


def test_token_of_another_key_needs_opt_in(keyring: Keyring) -> None:
    token = keyring.grant("first", 30)[0]
    with pytest.raises(AccessError, match="key that requested the token is not valid here"):
        Keyring(("other",), "secret").check(token)
    Keyring(("other",), "secret", accept_foreign_tokens=True).check(token)
    with pytest.raises(AccessError, match="not valid here"):
        Keyring(("other",), "secret").check(Keyring((), "secret").grant(None, 30)[0])


def test_only_keys_grant_tokens(keyring: Keyring) -> None:
    for credential in (None, "wrong", keyring.grant("first", 30)[0]):
        with pytest.raises(AccessError):
            keyring.grant(credential, 30)


def test_token_expires(keyring: Keyring, monkeypatch: pytest.MonkeyPatch) -> None:
    now = time.time()
    monkeypatch.setattr(time, "time", lambda: now - 31)
    token, _ = keyring.grant("first", 30)
    monkeypatch.undo()
    with pytest.raises(AccessError, match="expired"):
        keyring.check(token)


def test_token_lifetime_is_limited(keyring: Keyring) -> None:
    token, seconds = keyring.grant("first", 10**9)
    assert seconds == MAX_TOKEN_SECONDS
    claims = jwt.decode(token, options={"verify_signature": False})
    assert claims["exp"] <= time.time() + MAX_TOKEN_SECONDS


@pytest.mark.parametrize("algorithm", ["none", "HS512"])
def test_rejects_other_token_algorithms(keyring: Keyring, algorithm: str) -> None:
    key = None if algorithm == "none" else "x" * 64
    with pytest.raises(AccessError):
        keyring.check(jwt.encode({"exp": time.time() + 30}, key, algorithm=algorithm))


def test_rejects_token_without_expiry(keyring: Keyring) -> None:
    with pytest.raises(AccessError):
        keyring.check(jwt.encode({}, keyring._secret, algorithm="HS256"))


def test_hash_configures_but_does_not_authenticate() -> None:
    keyring = Keyring((hash_of("first"),))
    keyring.check("first")
    with pytest.raises(AccessError):
        keyring.check(hash_of("first"))
    assert "first" not in repr(vars(Keyring(("first",))))


def test_key_file_is_reloaded(tmp_path: Path) -> None:
    file = tmp_path / "keys"
    file.write_text(f"# for the app\nold\n\n{hash_of('hashed')}\n")
    keyring = Keyring(("fixed",), file=file)
    for key in ("fixed", "old", "hashed"):
        keyring.check(key)
    file.write_text("new\n")
    os.utime(file, ns=(1, 1))  # a different time, whatever the clock's resolution
    keyring.refresh()
    keyring.check("old")  # the file may not be complete yet
    keyring.refresh()
    keyring.check("new")
    keyring.check("fixed")
    with pytest.raises(AccessError):
        keyring.check("old")


def test_missing_key_file_keeps_keys_and_logs_once(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    file = tmp_path / "keys"
    file.write_text("key")
    keyring = Keyring((), file=file)
    file.unlink()
    keyring.refresh()
    keyring.refresh()
    keyring.check("key")
    assert len(caplog.records) == 1
    file.write_text("other")
    keyring.refresh()
    keyring.refresh()
    keyring.check("other")


def test_token_uses_account_of_its_key(keyring: Keyring) -> None:
    token, _ = keyring.grant("first", 30)
    assert keyring.check(token) is keyring.check("first")
    assert keyring.check(token) is not keyring.check("sécond")
    claims = jwt.decode(token, options={"verify_signature": False})
    assert claims["key"] in hash_of("first"), "the id is part of the hash"
    assert len(claims["key"]) == 16
    elsewhere = Keyring(("other",), "secret", accept_foreign_tokens=True)
    assert elsewhere.check(token) is not elsewhere.check("other")


def test_unknown_keys_share_an_account() -> None:
    assert Keyring(()).check(None).id == ""
    keyring = Keyring(())
    assert keyring.check("a") is keyring.check("b") is keyring.check(None)
    lenient, other = Keyring(("key",), "secret", accept_foreign_tokens=True), Keyring(("a", "b"), "secret")
    assert lenient.check(other.grant("a", 30)[0]) is lenient.check(other.grant("b", 30)[0])


def test_key_line_overrides_default_limits(tmp_path: Path) -> None:
    file = tmp_path / "keys"
    file.write_text(f"{hash_of('acme')} name=acme streams=20  minutes_per_day=0.5\nplain\n")
    keyring = Keyring(("own name=mine",), file=file, limits=KeySettings(key_streams=3, key_opens_per_minute=9))
    acme, plain = keyring.check("acme"), keyring.check("plain")
    assert (acme.name, plain.name, keyring.check("own").name) == ("acme", "", "mine")
    assert acme.limits == KeySettings(key_streams=20, key_opens_per_minute=9, key_minutes_per_day=0.5)
    assert plain.limits == KeySettings(key_streams=3, key_opens_per_minute=9)


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        (
            "secret stream=3",
            "line 2 of {file}: word 2 is not an option; expected name=…, streams=…, opens_per_minute=…",
        ),
        ("secret name=a streams=", "word 3 is not an option"),
        ("secret phrase", "word 2 is not an option"),
        ("secret name=a,b", "word 2 is not an option"),
        ("secret streams=none", "invalid streams: expected `int | null`"),
        ("secret minutes_per_day=0", "invalid minutes_per_day: expected `float` > 0.0"),
        ("sha256:secret", "line 2 of {file}: expected a key, or sha256: and 64 hexadecimal digits"),
    ],
)
def test_invalid_line_error_hides_key(tmp_path: Path, line: str, expected: str) -> None:
    file = tmp_path / "keys"
    file.write_text(f"# keys\n{line}\n")
    with pytest.raises(ConfigError) as caught:
        Keyring((), file=file)
    assert expected.format(file=file) in str(caught.value)
    assert "secret" not in str(caught.value).replace(str(file), "")
    assert "phrase" not in str(caught.value)


def test_invalid_reload_keeps_keys_and_logs_once(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    file = tmp_path / "keys"
    file.write_text("key streams=3")
    keyring = Keyring((), file=file)
    account = keyring.check("key")
    account.add_audio(5.0, 0.0)
    for text in ("key streams=many", "key streams=many\nother"):
        file.write_text(text)
        for _ in range(3):
            keyring.refresh()
    assert keyring.check("key").limits.key_streams == 3
    assert len(caplog.records) == 1
    file.write_text("key streams=4 name=later")
    keyring.refresh()
    keyring.refresh()
    assert keyring.check("key") is account, "usage is kept"
    assert (account.limits.key_streams, account.name, account.audio_seconds) == (4, "later", 5.0)


def test_empty_or_missing_key_file(tmp_path: Path) -> None:
    (tmp_path / "empty").touch()
    with pytest.raises(AccessError):
        Keyring((), file=tmp_path / "empty").check(None)
    with pytest.raises(ConfigError, match="cannot read the keys"):
        Keyring((), file=tmp_path / "missing")
