"""Reads the settings from a TOML file, the environment and the command line; later sources override earlier ones.

The name of a setting is unique across sections, so all sources use the same one: `idle_seconds` under `[limits]` in the
file, `TYMPAN_IDLE_SECONDS` in the environment, `--idle-seconds` on the command line. No other module reads the
environment.
"""

from __future__ import annotations

import os
import re
import tempfile
import tomllib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, get_args, get_origin

import msgspec
from msgspec import Meta, Struct

from tympan.errors import ConfigError, closest
from tympan.settings import (
    DeploySettings,
    KeySettings,
    LimitSettings,
    ModelSettings,
    RecordingSettings,
    ServerSettings,
    TurnSettings,
)
from tympan.settings.expected import choices_of, expected_text

__all__ = [
    "Config",
    "DeploySettings",
    "KeySettings",
    "LimitSettings",
    "ModelSettings",
    "RecordingSettings",
    "ServerSettings",
    "Setting",
    "TurnSettings",
    "as_environment",
    "cache_folder",
    "child_environment",
    "client_token",
    "config_file",
    "ignored_variables",
    "load_config",
    "provide_home",
    "settings",
    "visible_gpus",
    "wants_spans",
]

SECRETS = ("api_keys", "token_secret", "metrics_keys")
NOT_SETTINGS = ("TYMPAN_CONFIG", "TYMPAN_TOKEN")

# Kubernetes sets these in every container of a namespace that has a Service `tympan`, or `tympan-…`.
_SERVICE_VARIABLE = re.compile(
    r"TYMPAN_([A-Z0-9_]+_)?(SERVICE_HOST|SERVICE_PORT(_[A-Z0-9_]+)?|PORT_\d+_(TCP|UDP|SCTP)(_(PROTO|PORT|ADDR))?)"
)
_SERVICE_URL = re.compile(r"(tcp|udp|sctp)://")  # the value of TYMPAN_PORT and TYMPAN_…_PORT


class Config(Struct, frozen=True, kw_only=True):
    """All settings of a process, by section."""

    model: ModelSettings = ModelSettings()
    server: ServerSettings = ServerSettings()
    limits: LimitSettings = LimitSettings()
    keys: KeySettings = KeySettings()
    turns: TurnSettings = TurnSettings()
    recording: RecordingSettings = RecordingSettings()
    deploy: DeploySettings = DeploySettings()


class Setting(Struct, frozen=True):
    """A setting, for the command line and the docs; `annotation` is its type with the bounds."""

    section: str
    name: str
    type: Any
    default: Any
    description: str
    annotation: Any

    @property
    def flag(self) -> str:
        """The command-line option; a list's option is singular and may be repeated."""
        return "--" + self.name.replace("_", "-").removesuffix("s" if self.is_list else "")

    @property
    def variable(self) -> str:
        """The environment variable."""
        return "TYMPAN_" + self.name.upper()

    @property
    def is_list(self) -> bool:
        """Whether the value is a list."""
        return get_origin(self.type) is tuple

    def read(self, value: Any) -> Any:
        """Return the value of a text; the items of a list are separated by commas."""
        return [part for part in value.split(",") if part] if self.is_list and isinstance(value, str) else value


def settings() -> Iterator[Setting]:
    """Yield every setting, in the order of sections and fields."""
    for section in msgspec.structs.fields(Config):
        for field in msgspec.structs.fields(section.type):
            annotated = field.type
            metas = [argument for argument in get_args(annotated)[1:] if isinstance(argument, Meta)]
            description = next((meta.description for meta in metas if meta.description), "")
            yield Setting(section.name, field.name, get_args(annotated)[0], field.default, description, annotated)


def load_config(
    file: Path | None = None,
    environment: Mapping[str, str] | None = None,
    overrides: Mapping[str, Any] | None = None,
    *,
    are_options: bool = False,
) -> Config:
    """Return the settings of all sources.

    Args:
        file: A TOML file.
        environment: Environment variables; by default those of the process.
        overrides: Values by name of the setting, which override both.
        are_options: Whether errors name the overrides as options of a command.

    Raises:
        ConfigError: A setting is unknown or invalid; the message names it and its source.
    """
    sources = _Sources()
    if file is not None:
        sources.read_file(file)
    sources.read_environment(os.environ if environment is None else environment)
    sources.read_overrides(overrides or {}, are_options)
    try:
        return msgspec.convert(sources.values, Config, strict=False)
    except msgspec.ValidationError as error:
        raise sources.invalid(str(error)) from None


class _Sources:
    """The `values` of all sources so far, by section, and where each of them is from."""

    def __init__(self) -> None:
        self.values: dict[str, dict[str, Any]] = {section.name: {} for section in msgspec.structs.fields(Config)}
        self._settings = {setting.name: setting for setting in settings()}
        self._places: dict[str, tuple[str, str]] = {}  # how a source writes the setting, and the rest of where it is

    def read_file(self, file: Path) -> None:
        """Add the values of a TOML file."""
        try:
            document = tomllib.loads(file.read_text(encoding="utf-8"))
        except OSError as error:
            raise ConfigError(f"cannot read the settings file {file}: {error.strerror}") from None
        except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
            raise ConfigError(f"{file} is not TOML: {error}") from None
        for section, keys in document.items():
            if section not in self.values:
                nearest = closest(section, self.values, "sections")
                raise ConfigError(f"unknown section [{section}] in {file}{nearest}")
            if not isinstance(keys, dict):
                raise ConfigError(f"{section!r} in {file} must be a section: write [{section}] and its settings below")
            for key, value in keys.items():
                place = f" under [{section}] in {file}"
                if key not in self._settings or self._settings[key].section != section:
                    raise ConfigError(f"unknown setting {key!r}{place}{self._nearest(key, section)}")
                self._set(self._settings[key], value, key, place)

    def _nearest(self, key: str, section: str) -> str:
        """Return which setting was probably meant by an unknown one of a file."""
        if key in self._settings:
            return f"; it belongs under [{self._settings[key].section}]"
        known = [setting.name for setting in self._settings.values() if setting.section == section]
        return closest(key, known) or closest(key, self._settings) or closest(key, known, "settings")

    def read_environment(self, environment: Mapping[str, str]) -> None:
        """Add the values of environment variables."""
        known = {setting.variable: setting for setting in self._settings.values()}
        for variable, text in environment.items():
            if not variable.startswith("TYMPAN_") or variable in NOT_SETTINGS or _is_of_service(variable, text):
                continue
            if variable not in known:
                raise ConfigError(f"unknown environment variable {variable}{closest(variable, known, 'variables')}")
            self._set(known[variable], text, variable)

    def read_overrides(self, overrides: Mapping[str, Any], are_options: bool) -> None:
        """Add the values of the command line or the caller."""
        for name, value in overrides.items():
            if name not in self._settings:
                raise ConfigError(f"unknown setting {name!r}{closest(name, self._settings, 'settings')}")
            self._set(self._settings[name], value, self._settings[name].flag if are_options else name)

    def _set(self, setting: Setting, value: Any, label: str, place: str = "") -> None:
        self.values[setting.section][setting.name] = setting.read(value)
        self._places[setting.name] = label, place

    def invalid(self, message: str) -> ConfigError:
        """Return the error for an invalid value; msgspec writes ``Expected `int` - at `$.server.port[0]` ``."""
        found = re.search(r" at `\$\.\w+\.(\w+)", message)
        if found is None:
            return ConfigError(message)
        setting = self._settings[found[1]]
        label, place = self._places[setting.name]
        value = self.values[setting.section][setting.name]
        shown = "" if setting.name in SECRETS else f" {value!r}"
        near = closest(value, choices_of(setting.annotation)) if isinstance(value, str) else ""
        return ConfigError(f"invalid {label}{shown}{place}: expected {expected_text(setting.annotation)}{near}")


def _is_of_service(variable: str, text: str) -> bool:
    """Return whether Kubernetes sets this variable for a Service, so that it is no setting."""
    if variable.startswith("TYMPAN_") and variable.endswith("_PORT") and _SERVICE_URL.match(text):
        return True
    return _SERVICE_VARIABLE.fullmatch(variable) is not None


def ignored_variables(environment: Mapping[str, str] | None = None) -> list[str]:
    """Return the names of the variables that begin as settings do but that Kubernetes sets for a Service."""
    variables = os.environ if environment is None else environment
    return sorted(variable for variable, text in variables.items() if _is_of_service(variable, text))


def as_environment(config: Config) -> dict[str, str]:
    """Return the environment variables that give another process these settings, without secrets."""
    variables = {}
    for setting in settings():
        value = getattr(getattr(config, setting.section), setting.name)
        if value == setting.default or setting.name in SECRETS:
            continue
        variables[setting.variable] = ",".join(value) if setting.is_list else str(value)
    return variables


def config_file(environment: Mapping[str, str] | None = None) -> Path | None:
    """Return the settings file named by `TYMPAN_CONFIG`, or None."""
    name = (os.environ if environment is None else environment).get("TYMPAN_CONFIG")
    return Path(name) if name else None


def client_token(environment: Mapping[str, str] | None = None) -> str | None:
    """Return the API key that client commands use, from `TYMPAN_TOKEN`, or None."""
    return (os.environ if environment is None else environment).get("TYMPAN_TOKEN") or None


def cache_folder(environment: Mapping[str, str] | None = None) -> Path:
    """Return the folder for data that can be recreated."""
    variables = os.environ if environment is None else environment
    return Path(variables.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "tympan"


def child_environment(**variables: str) -> dict[str, str]:
    """Return the environment of this process with further variables, for a child process."""
    return {**os.environ, **variables}


def provide_home() -> Path | None:
    """Give a process without a home folder a temporary one, which other packages put their caches in as well.

    A container that runs with an arbitrary user id has neither the variable HOME nor an entry in the password database.

    Returns:
        The new folder, or None if there is a home folder.
    """
    if os.path.expanduser("~") != "~" or not hasattr(os, "getuid"):
        return None
    name = f"tympan-{os.getuid()}"
    try:
        folder = Path(tempfile.gettempdir()) / name
        folder.mkdir(mode=0o700, exist_ok=True)
        status = folder.lstat()
        if folder.is_symlink() or status.st_uid != os.getuid() or status.st_mode & 0o077:  # prepared by another user
            folder = Path(tempfile.mkdtemp(prefix=f"{name}-"))
    except OSError:  # no folder is writable; the packages continue without a cache
        folder = Path(os.sep)
    os.environ["HOME"] = str(folder)
    os.environ.setdefault("LOGNAME", name)  # for `getpass.getuser`
    return folder


def visible_gpus(environment: Mapping[str, str] | None = None) -> tuple[str, ...]:
    """Return the GPUs that `CUDA_VISIBLE_DEVICES` names; empty if it is not set."""
    text = (os.environ if environment is None else environment).get("CUDA_VISIBLE_DEVICES", "")
    return tuple(name.strip() for name in text.split(",") if name.strip())


def wants_spans(environment: Mapping[str, str] | None = None) -> bool:
    """Return whether OpenTelemetry's variables name an exporter for spans and do not disable it."""
    variables = os.environ if environment is None else environment
    endpoint = variables.get("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT") or variables.get("OTEL_EXPORTER_OTLP_ENDPOINT")
    is_off = variables.get("OTEL_SDK_DISABLED", "").lower() == "true"
    return bool(endpoint) and not is_off and variables.get("OTEL_TRACES_EXPORTER", "otlp") == "otlp"
