"""`tympan key`, and what `tympan doctor` says of a file of such lines."""

from __future__ import annotations

from pathlib import Path

import pytest

from tympan.cli.main import main
from tympan.server.access.auth import Keyring


@pytest.mark.parametrize(("arguments", "name"), [([], ""), (["--name", "acme"], "acme")])
def test_key_and_hash(arguments: list[str], name: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["key", *arguments]) == 0
    key, line = capsys.readouterr().out.splitlines()
    assert key not in line
    assert Keyring((line,)).check(key).name == name


def test_invalid_name(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["key", "--name", "two words"]) == 2
    assert "name=…" in capsys.readouterr().err


def test_doctor_reads_the_keys(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "keys"
    arguments = ["doctor", "--model", "scripted", "--port", "0", "--api-keys-file", str(file), "--api-key", "one"]
    file.write_text("two name=acme\nthree\n")
    main(arguments)
    assert f"3 API keys, with those in {file}" in capsys.readouterr().out
    file.write_text("two stream=3")
    assert main(arguments) == 1
    assert f"line 1 of {file}: word 2 is not an option" in capsys.readouterr().out
