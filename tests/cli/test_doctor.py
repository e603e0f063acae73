"""`tympan doctor`: what it finds, what it advises, and its exit code."""

from __future__ import annotations

import importlib
import socket
from pathlib import Path
from types import ModuleType

import pytest
from support.ports import free_port

from tympan.cli import doctor
from tympan.cli.main import main


def findings(capsys: pytest.CaptureFixture[str]) -> dict[str, str]:
    """State by name."""
    lines = [line for line in capsys.readouterr().out.splitlines() if not line.startswith("      ")]
    return {line.split()[1]: line.split()[0] for line in lines}


def test_good_machine(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["doctor", "--model", "embedded", "--port", str(free_port())]) == 0
    assert findings(capsys) == dict.fromkeys(("python", "audio", "server", "model", "port", "files", "keys"), "ok")


def test_whisper_models(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["doctor", "--model", "embedded", "--port", str(free_port())]) == 0
    assert "embedded: Whisper tiny.en, English" in capsys.readouterr().out
    assert main(["doctor", "--model", "whisper:none", "--port", str(free_port())]) == 1
    assert "there is no model whisper:none: expected tiny" in capsys.readouterr().out


def test_model_and_device(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["doctor", "--model", "random:tiny", "--device", "cpu", "--port", str(free_port())]) == 0
    output = capsys.readouterr().out
    assert "   ok  model    random:tiny: " in output
    assert "; tympan verify checks files, words and speed\n" in output
    assert "   ok  device   CPU" in output


def test_findings_say_what_to_do(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        assert main(["doctor", "--model", str(tmp_path), "--port", port, "--max-streams", "100000000"]) == 1
    output = capsys.readouterr().out
    assert "error  model    " in output
    assert f"cannot listen on 127.0.0.1 port {port}" in output
    assert "→ choose another --port" in output
    assert "→ raise the hard limit to 100000064" in output


def test_open_server_without_keys(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["doctor", "--model", "scripted", "--host", "0.0.0.0", "--port", str(free_port())]) == 0
    found = findings(capsys)
    assert (found["keys"], found["model"]) == ("warn", "warn")


def test_short_secret_and_readable_key_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    keys = tmp_path / "keys"
    keys.write_text("key")
    keys.chmod(0o644)
    command = ["doctor", "--model", "scripted", "--port", str(free_port()), "--api-keys-file", str(keys)]
    assert main(command) == 0
    output = capsys.readouterr().out
    assert f"every user of this machine has access to {keys} (mode 0644)" in output
    assert f"→ run chmod o= {keys}" in output
    assert main([*command, "--token-secret", "x"]) == 1
    assert "error  keys     the secret in token_secret has 1 bytes" in capsys.readouterr().out


def test_missing_packages(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    def without(name: str) -> ModuleType:
        if name in ("picows", "ctranslate2"):
            raise ModuleNotFoundError(name=name)
        return importlib.import_module(name)

    monkeypatch.setattr(doctor, "import_module", without)  # in this module only
    assert main(["doctor", "--model", "embedded", "--port", str(free_port())]) == 1
    output = capsys.readouterr().out
    assert "run pip install -e '.[server]' in the clone of Tympan" in output
    assert "run pip install -e '.[embedded]' in the clone of Tympan" in output
