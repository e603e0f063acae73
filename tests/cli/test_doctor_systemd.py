"""`tympan doctor` on a machine that has a systemd unit: the unit and its drop-ins, as an administrator changes them."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest
from support.ports import free_port

from tympan.cli.main import main
from tympan.deploy import systemd

UNIT = Path(__file__).parents[2] / "deploy" / "systemd" / "tympan.service"


class Machine:
    """The folders of units of a machine, and a program and a settings file for the unit of the repository."""

    def __init__(self, folder: Path, output: pytest.CaptureFixture[str]) -> None:
        self.folder, self._output = folder, output
        self.program, self.settings = folder / "opt" / "tympan", folder / "tympan.toml"
        self.program.parent.mkdir()
        self.program.symlink_to(sys.executable)
        self.settings.write_text("[model]\nmodel = 'embedded'\n")
        self.units = folder / "etc"
        self.units.mkdir()

    def install(self, text: str = "") -> None:
        """Install the unit, with a drop-in."""
        unit = UNIT.read_text().replace("/opt/tympan/.venv/bin/tympan", str(self.program))
        (self.units / "tympan.service").write_text(unit.replace("/etc/tympan.toml", str(self.settings)))
        (self.units / "tympan.service.d").mkdir(exist_ok=True)
        (self.units / "tympan.service.d" / "override.conf").write_text(f"[Service]\n{text}\n")

    def doctor(self) -> tuple[int, str]:
        """Return the exit code, and what is printed of the unit."""
        code = main(["doctor", "--model", "scripted", "--port", str(free_port())])
        lines = self._output.readouterr().out.splitlines()
        first = next((index for index, line in enumerate(lines) if line.split()[1] == "systemd"), len(lines))
        return code, "\n".join(lines[first:])


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Machine:
    created = Machine(tmp_path, capsys)
    monkeypatch.setattr(systemd, "FOLDERS", (str(created.units), str(tmp_path / "lib")))
    monkeypatch.setattr(systemd, "HIDDEN_HOMES", (str(tmp_path / "home"),))  # Python may be in a home folder
    tmp_path.chmod(0o755)  # as /etc is
    return created


def test_unit_of_the_repository(machine: Machine) -> None:
    machine.install()
    code, output = machine.doctor()
    assert code == 0
    assert output == f"   ok  systemd  {machine.units}/tympan.service runs as a dynamic user, and has 30 s to stop"


def test_machine_without_unit(machine: Machine) -> None:
    assert machine.doctor() == (0, "")


@pytest.mark.parametrize(
    ("text", "code", "expected"),
    [
        ("LimitNOFILE=1024\nEnvironment=TYMPAN_MAX_STREAMS=2000", 1, "set LimitNOFILE=65536"),
        ("LimitNOFILE=1024:65536\nEnvironment=TYMPAN_MAX_STREAMS=2000", 0, ""),
        ("Environment=TYMPAN_GRACE_SECONDS=60", 0, "set TimeoutStopSec=70: drain_delay_seconds + grace_seconds + 10"),
        ("Environment=TYMPAN_GRACE_SECONDS=60\nTimeoutStopSec=1min 30s", 0, ""),
        ("TimeoutStopSec=infinity", 0, ""),
        ("Restart=no", 0, "a server that a fatal error ends is not started again"),
        ("RestartPreventExitStatus=", 0, "set RestartPreventExitStatus=2"),
        ("DynamicUser=no", 0, "the service runs as root"),
        ("DynamicUser=no\nUser=nobody", 0, ""),
        ("Environment=TYMPAN_MODEL=random:1b\nPrivateDevices=yes", 0, "the unit hides devices"),
        ("PrivateDevices=yes", 0, ""),
        ("ExecStart=\nExecStart=/nowhere/tympan serve", 1, "ExecStart names /nowhere/tympan, which is not a program"),
        ("Environment=TYMPAN_PORT=x", 1, "invalid TYMPAN_PORT 'x': "),
        ("EnvironmentFile=/nowhere/variables", 1, "EnvironmentFile /nowhere/variables cannot be read: No such file"),
        ("EnvironmentFile=-/nowhere/variables", 0, ""),
        ("Environment=TYMPAN_API_KEYS_FILE=/run/credentials/tympan.service/keys", 1, "add LoadCredential=keys:FILE"),
        (
            f"LoadCredential=keys:{UNIT}\nEnvironment=TYMPAN_API_KEYS_FILE=/run/credentials/tympan.service/keys",
            0,
            "",
        ),
    ],
)
def test_drop_in(machine: Machine, text: str, code: int, expected: str) -> None:
    machine.install(text)
    found, output = machine.doctor()
    assert found == code
    assert expected in output if expected else output.startswith("   ok  systemd "), output


@pytest.mark.skipif(sys.platform == "win32", reason="systemd is not for Windows")
@pytest.mark.parametrize("text", ["", "DynamicUser=no\nUser=nobody"])
def test_settings_that_the_service_cannot_read(machine: Machine, text: str) -> None:
    machine.settings.chmod(0o600)
    machine.install(text)
    code, output = machine.doctor()
    assert code == 1
    assert f"cannot read {machine.settings}" in output
    assert f"run chmod o+r {machine.settings}" in output
    machine.install("DynamicUser=no")
    assert machine.doctor()[0] == 0, "root can read it"


def test_keys_that_the_service_cannot_read(machine: Machine) -> None:
    keys = machine.folder / "keys"
    keys.write_text("key\n")
    keys.chmod(0o600)
    machine.install(f"Environment=TYMPAN_API_KEYS_FILE={keys}")
    code, output = machine.doctor()
    assert code == 1
    assert f"set LoadCredential=NAME:{keys}, and api_keys_file to /run/credentials/tympan.service/NAME" in output


def test_options_and_environment_files_are_settings(machine: Machine) -> None:
    variables = machine.folder / "variables"
    variables.write_text("# of the administrator\nTYMPAN_GRACE_SECONDS='50'\n")
    command = f"{machine.program} serve --drain-delay-seconds=30 --config {machine.settings}"
    machine.install(f"EnvironmentFile={variables}\nExecStart=\nExecStart=-{command}")
    assert "set TimeoutStopSec=90" in machine.doctor()[1]


def test_hidden_program(machine: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(systemd, "HIDDEN_HOMES", (os.path.realpath(sys.executable),))
    machine.install()
    code, output = machine.doctor()
    assert code == 1
    assert "ProtectHome=yes hides " in output


def test_missing_settings_file(machine: Machine) -> None:
    machine.install()
    machine.settings.unlink()
    code, output = machine.doctor()
    assert code == 1
    assert f"cannot read the settings file {machine.settings}" in output
