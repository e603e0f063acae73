"""The systemd unit of this machine: what prevents its start, cuts streams or keeps it from being restarted.

The unit and its drop-ins are read as files, so systemd need not run.
"""

from __future__ import annotations

import os
import re
import shlex
import stat
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from tympan.config import Config, load_config, settings
from tympan.deploy.deployment import ENGINES_WITHOUT_GPU
from tympan.errors import ConfigError

NAME: Final = "tympan.service"
FOLDERS: Final = ("/etc/systemd/system", "/run/systemd/system", "/usr/local/lib/systemd/system", "/lib/systemd/system")
"""Where systemd looks for units, in order of precedence."""

CREDENTIALS: Final = f"/run/credentials/{NAME}/"
HIDDEN_HOMES: Final = ("/home", "/root", "/run/user")
STOP_SECONDS: Final = 10  # in addition to the drain delay and the grace, for the end of the process
SPARE_FILES: Final = 64  # in addition to one socket per stream
DEFAULT_STOP_SECONDS: Final = 90.0  # systemd's own
UNITS: Final = {"ms": 0.001, "s": 1.0, "sec": 1.0, "m": 60.0, "min": 60.0, "h": 3600.0, "hr": 3600.0}


@dataclass(frozen=True, slots=True)
class UnitProblem:
    """A problem of the unit; a fatal one prevents the start."""

    text: str
    fix: str
    is_fatal: bool = False


@dataclass(slots=True)
class ServiceUnit:
    """The section [Service] of a unit and its drop-ins.

    Attributes:
        file: The unit's file.
        values: The values of each setting, in order.
    """

    file: Path
    values: dict[str, list[str]] = field(default_factory=dict)

    def read(self, file: Path) -> None:
        """Add the settings of a file; an empty value removes the earlier ones.

        Raises:
            ConfigError: The file cannot be read.
        """
        try:
            text = file.read_text(encoding="utf-8").replace("\\\n", " ")
        except (OSError, UnicodeDecodeError) as error:
            raise ConfigError(f"cannot read the unit {file}: {error}") from None
        section = ""
        for line in map(str.strip, text.splitlines()):
            if line.startswith("["):
                section = line
            elif section == "[Service]" and line and line[0] not in "#;":
                name, _, value = line.partition("=")
                self.values.setdefault(name.strip(), []).append(value.strip())
                if not value.strip():
                    self.values[name.strip()] = []

    def last(self, name: str, default: str = "") -> str:
        """Return the value of a setting that has one."""
        return (self.values.get(name) or [default])[-1]

    def is_on(self, name: str) -> bool:
        """Return whether a setting is true."""
        return self.last(name).lower() in ("yes", "true", "on", "1")

    @property
    def command(self) -> list[str]:
        """The program and its arguments, without systemd's prefixes."""
        return shlex.split(self.last("ExecStart").lstrip("@-:+!"))

    @property
    def user(self) -> str:
        """The name of the user, `a dynamic user` or `root`."""
        return self.last("User") or ("a dynamic user" if self.is_on("DynamicUser") else "root")

    @property
    def most_files(self) -> int | None:
        """The hard limit of open files; None for systemd's default, which is large, and for no limit."""
        text = self.last("LimitNOFILE").rpartition(":")[2]
        return int(text) if text.isdecimal() else None

    @property
    def stop_seconds(self) -> float:
        """Seconds after which systemd kills a server that stops."""
        text = self.last("TimeoutStopSec", self.last("TimeoutSec"))
        if text in ("infinity", "0"):
            return float("inf")
        spans = re.findall(r"([\d.]+)\s*([a-z]*)", text)
        return sum(float(number) * UNITS.get(unit, 1.0) for number, unit in spans) or DEFAULT_STOP_SECONDS

    def environment(self) -> dict[str, str]:
        """Return the variables of the unit and its environment files; a file with `-` may be missing.

        Raises:
            ConfigError: An environment file cannot be read.
        """
        lines = [part for value in self.values.get("Environment", []) for part in shlex.split(value)]
        for name in self.values.get("EnvironmentFile", []):
            try:
                text = Path(name.removeprefix("-")).read_text(encoding="utf-8")
            except OSError as error:
                if not name.startswith("-"):
                    raise ConfigError(f"EnvironmentFile {name} cannot be read: {error.strerror}") from None
            else:
                rows = [row.strip() for row in text.splitlines()]
                lines += [part for row in rows if row and row[0] not in "#;" for part in shlex.split(row)]
        return {name: value for name, _, value in (line.partition("=") for line in lines)}

    def config_file(self) -> Path | None:
        """Return the settings file that the service reads, or None."""
        name = _option(self.command, "--config") or self.environment().get("TYMPAN_CONFIG")
        return Path(name) if name else None

    def config(self) -> Config:
        """Return the settings of the service: its file, its variables and the options of its command.

        Raises:
            ConfigError: A file cannot be read, or a setting is invalid.
        """
        given = {setting.name: _option(self.command, setting.flag) for setting in settings()}
        overrides = {name: value for name, value in given.items() if value is not None}
        return load_config(self.config_file(), self.environment(), overrides)

    def can_read(self, path: Path) -> bool:
        """Return whether the service's user may read a file, by the mode bits of the file and its folder."""
        import pwd  # Windows has none

        if self.user == "root":
            return True
        user, groups = -1, [-1]
        if self.last("User"):
            try:
                entry = pwd.getpwnam(self.last("User"))
            except KeyError:
                pass
            else:
                user, groups = entry.pw_uid, os.getgrouplist(entry.pw_name, entry.pw_gid)
        path = path.resolve()
        in_folder = _allows(path.parent, user, groups, stat.S_IXOTH)
        return in_folder and _allows(path, user, groups, stat.S_IROTH)


def find_unit() -> ServiceUnit | None:
    """Return the installed unit with its drop-ins, or None.

    Raises:
        ConfigError: A file cannot be read.
    """
    folders = [Path(folder) for folder in FOLDERS]
    file = next((folder / NAME for folder in folders if (folder / NAME).is_file()), None)
    if file is None:
        return None
    unit = ServiceUnit(file)
    unit.read(file)
    drop_ins = {path.name: path for folder in reversed(folders) for path in (folder / f"{NAME}.d").glob("*.conf")}
    for name in sorted(drop_ins):
        unit.read(drop_ins[name])
    return unit


def check_unit(unit: ServiceUnit) -> Iterator[UnitProblem]:
    """Yield the problems of an installed unit.

    Raises:
        ConfigError: The settings of the service are invalid.
    """
    yield from _check_program(unit)
    file = unit.config_file()
    if file is not None and file.exists() and not unit.can_read(file):
        fix = f"run chmod o+r {file}, and keep secrets in files that LoadCredential= names"
        yield UnitProblem(f"{unit.user} cannot read {file}", fix, is_fatal=True)
    config = unit.config()
    yield from _check_secrets(unit, config)
    yield from _check_limits(unit, config)
    yield from _check_restarts(unit)
    if unit.user == "root":
        yield UnitProblem("the service runs as root", "set DynamicUser=yes, as deploy/systemd/tympan.service does")


def _check_program(unit: ServiceUnit) -> Iterator[UnitProblem]:
    program = Path(unit.command[0] if unit.command else "")
    if not os.access(program, os.X_OK) or not program.is_file():
        fix = "install Tympan there, or change ExecStart"
        yield UnitProblem(f"ExecStart names {program}, which is not a program", fix, is_fatal=True)
    elif unit.last("ProtectHome") in ("yes", "true", "tmpfs") and str(program.resolve()).startswith(HIDDEN_HOMES):
        text = f"ProtectHome={unit.last('ProtectHome')} hides {program.resolve()} from the service"
        yield UnitProblem(text, "install Tympan and its Python elsewhere, such as in /opt/tympan", is_fatal=True)


def _check_secrets(unit: ServiceUnit, config: Config) -> Iterator[UnitProblem]:
    credentials = dict(value.partition(":")[::2] for value in unit.values.get("LoadCredential", []))
    server = config.server
    for name in ("api_keys_file", "token_secret_file", "tls_certificate", "tls_key"):
        path = getattr(server, name)
        if path is None:
            continue
        if path.startswith(CREDENTIALS):
            source = credentials.get(path.removeprefix(CREDENTIALS))
            if source is None or not Path(source).exists():
                fix = f"add LoadCredential={path.removeprefix(CREDENTIALS)}:FILE with a file that exists"
                yield UnitProblem(f"{name} is the credential {path}, which the unit does not load", fix, is_fatal=True)
        elif Path(path).exists() and not unit.can_read(Path(path)):
            fix = f"set LoadCredential=NAME:{path}, and {name} to {CREDENTIALS}NAME"
            yield UnitProblem(f"{unit.user} cannot read {path}, which {name} names", fix, is_fatal=True)


def _check_limits(unit: ServiceUnit, config: Config) -> Iterator[UnitProblem]:
    wanted = (config.model.max_streams or 0) + SPARE_FILES
    if unit.most_files is not None and unit.most_files < wanted:
        text = f"LimitNOFILE={unit.last('LimitNOFILE')} is too low for max_streams {config.model.max_streams}"
        yield UnitProblem(text, f"set LimitNOFILE={max(wanted, 65536)}", is_fatal=True)
    limits = config.limits
    seconds = limits.drain_delay_seconds + limits.grace_seconds + STOP_SECONDS
    if unit.stop_seconds < seconds:
        text = f"systemd kills the server after {unit.stop_seconds:g} s, before its open streams have ended"
        yield UnitProblem(text, f"set TimeoutStopSec={seconds:g}: drain_delay_seconds + grace_seconds + {STOP_SECONDS}")
    hides_devices = unit.is_on("PrivateDevices") or unit.last("DevicePolicy", "auto") != "auto"
    needs_gpu = config.model.model.partition(":")[0] not in (*ENGINES_WITHOUT_GPU, "whisper")
    if hides_devices and needs_gpu and config.model.device != "cpu" and not unit.values.get("DeviceAllow"):
        fix = "remove PrivateDevices= and DevicePolicy=, or set device to cpu"
        yield UnitProblem("the unit hides devices, so the model runs on the CPU", fix)


def _check_restarts(unit: ServiceUnit) -> Iterator[UnitProblem]:
    if unit.last("Restart", "no") not in ("always", "on-failure"):
        text = f"Restart={unit.last('Restart', 'no')}: a server that a fatal error ends is not started again"
        yield UnitProblem(text, "set Restart=always")
    if "2" not in " ".join(unit.values.get("RestartPreventExitStatus", [])).split():
        text = "systemd restarts a server whose settings are invalid"
        yield UnitProblem(text, "set RestartPreventExitStatus=2")


def _option(command: list[str], flag: str) -> str | None:
    """Return the value of an option of a command, or None."""
    for index, word in enumerate(command):
        name, separator, value = word.partition("=")
        if name == flag and (separator or index + 1 < len(command)):
            return value if separator else command[index + 1]
    return None


def _allows(path: Path, user: int, groups: list[int], bit: int) -> bool:
    """Return whether the mode of a file gives a user the right that `bit` gives to other users."""
    try:
        status = path.stat()
    except OSError:
        return True
    shift = 6 if status.st_uid == user else 3 if status.st_gid in groups else 0
    return bool(status.st_mode & bit << shift)
