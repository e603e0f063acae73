"""Keys and short-lived tokens: who may come in, and for how long."""

from __future__ import annotations

import os
import time
from pathlib import Path

import jwt
import pytest

from tympan.config import KeySettings
from tympan.errors import AccessError, ConfigError
from tympan.server.access.auth import LONGEST_TOKEN_SECONDS, TOKEN_PREFIX, Keyring
from tympan.server.access.keys import hash_of


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


def test_a_hash_of_a_key_is_as_good_as_the_key_but_does_not_open_the_door() -> None:
    keyring = Keyring((hash_of("first"),))
    keyring.check("first")
    with pytest.raises(AccessError):
        keyring.check(hash_of("first"))
    assert "first" not in repr(vars(Keyring(("first",))))


def test_keys_in_a_file_are_exchanged_without_a_restart(tmp_path: Path) -> None:
    file = tmp_path / "keys"
    file.write_text(f"# for the app\nold\n\n{hash_of('hashed')}\n")
    keyring = Keyring(("fixed",), file=file)
    for key in ("fixed", "old", "hashed"):
        keyring.check(key)
    file.write_text("new\n")
    os.utime(file, ns=(1, 1))  # another time than before, whatever the clock's grain
    keyring.refresh()
    keyring.check("new")
    keyring.check("fixed")
    with pytest.raises(AccessError):
        keyring.check("old")


def test_a_file_that_is_gone_leaves_its_keys_good_and_is_told_of_once(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
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
    keyring.check("other")


def test_a_token_counts_as_the_key_that_asked_for_it(keyring: Keyring) -> None:
    token, _ = keyring.grant("first", 30)
    assert keyring.check(token) is keyring.check("first")
    assert keyring.check(token) is not keyring.check("sécond")
    claims = jwt.decode(token, options={"verify_signature": False})
    assert claims["key"] in hash_of("first"), "a part of the hash"
    assert len(claims["key"]) == 16
    elsewhere = Keyring(("other",), "secret")
    assert elsewhere.check(token) is not elsewhere.check("other")


def test_without_keys_all_are_one_and_so_are_all_tokens_of_unknown_keys() -> None:
    assert Keyring(()).check(None).id == ""
    keyring = Keyring(())
    assert keyring.check("a") is keyring.check("b") is keyring.check(None)
    strict, other = Keyring(("key",), "secret"), Keyring(("a", "b"), "secret")
    assert strict.check(other.grant("a", 30)[0]) is strict.check(other.grant("b", 30)[0])


def test_a_line_has_a_name_and_limits_and_the_rest_is_the_settings(tmp_path: Path) -> None:
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
        ("secret stream=3", "line 2 of {file}: word 2 is none of name=…, streams=…, opens_per_minute=…"),
        ("secret name=a streams=", "word 3 is none of"),
        ("secret phrase", "word 2 is none of"),
        ("secret name=a,b", "word 2 is none of"),
        ("secret streams=none", "streams is wrong: expected `int | null`"),
        ("secret minutes_per_day=0", "minutes_per_day is wrong: expected `float` > 0.0"),
        ("sha256:secret", "line 2 of {file} is neither a key nor sha256: and 64 hexadecimal digits"),
    ],
)
def test_a_wrong_line_is_told_without_the_key(tmp_path: Path, line: str, expected: str) -> None:
    file = tmp_path / "keys"
    file.write_text(f"# keys\n{line}\n")
    with pytest.raises(ConfigError) as caught:
        Keyring((), file=file)
    assert expected.format(file=file) in str(caught.value)
    assert "secret" not in str(caught.value).replace(str(file), "")
    assert "phrase" not in str(caught.value)


def test_a_wrong_line_while_the_server_runs_leaves_the_keys_as_they_were_and_is_told_of_once(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    file = tmp_path / "keys"
    file.write_text("key streams=3")
    keyring = Keyring((), file=file)
    account = keyring.check("key")
    account.hear(5.0, 0.0)
    for text in ("key streams=many", "key streams=many\nother"):
        file.write_text(text)
        for _ in range(3):
            keyring.refresh()
    assert keyring.check("key").limits.key_streams == 3
    assert len(caplog.records) == 1
    file.write_text("key streams=4 name=later")
    keyring.refresh()
    assert keyring.check("key") is account, "what was used stays used"
    assert (account.limits.key_streams, account.name, account.audio_seconds) == (4, "later", 5.0)


def test_an_empty_file_of_keys_lets_nobody_in_and_a_missing_one_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "empty").touch()
    with pytest.raises(AccessError):
        Keyring((), file=tmp_path / "empty").check(None)
    with pytest.raises(ConfigError, match="cannot read the keys"):
        Keyring((), file=tmp_path / "missing")
