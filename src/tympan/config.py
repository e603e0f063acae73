"""Settings: frozen, composed, strict. A TOML file, then the environment, then the command line; the later one wins.

Every setting is one field of one section of `tympan.settings`; its name is unique across sections, so the same word
serves all three sources: `idle_seconds` is `idle_seconds` under `[limits]` in the file, `TYMPAN_IDLE_SECONDS` in the
environment, `--idle-seconds` on the command line. This is the only module that reads the environment.
"""

from __future__ import annotations

import os
import tomllib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, get_args, get_origin

import msgspec
from msgspec import Meta, Struct

from tympan.errors import ConfigError
from tympan.settings import (
    DeploySettings,
    KeySettings,
    LimitSettings,
    ModelSettings,
    RecordingSettings,
    ServerSettings,
    TurnSettings,
)

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
    "config_file",
    "load_config",
    "settings",
    "wants_spans",
]

SECRETS = ("api_keys", "token_secret")


class Config(Struct, frozen=True, kw_only=True):
    """All settings of a Tympan process."""

    model: ModelSettings = ModelSettings()
    server: ServerSettings = ServerSettings()
    limits: LimitSettings = LimitSettings()
    keys: KeySettings = KeySettings()
    turns: TurnSettings = TurnSettings()
    recording: RecordingSettings = RecordingSettings()
    deploy: DeploySettings = DeploySettings()


class Setting(Struct, frozen=True):
    """One leaf of `Config`, for the command line and the docs."""

    section: str
    name: str
    type: Any
    default: Any
    description: str

    @property
    def flag(self) -> str:
        return "--" + self.name.replace("_", "-").removesuffix("s" if self.is_list else "")

    @property
    def variable(self) -> str:
        return "TYMPAN_" + self.name.upper()

    @property
    def is_list(self) -> bool:
        return get_origin(self.type) is tuple

    def read(self, value: Any) -> Any:
        """What `value` stands for: a list may be written with commas."""
        return [part for part in value.split(",") if part] if self.is_list and isinstance(value, str) else value


def settings() -> Iterator[Setting]:
    """Every setting, section by section, in the order of the fields."""
    for section in msgspec.structs.fields(Config):
        for field in msgspec.structs.fields(section.type):
            annotated = field.type
            metas = [argument for argument in get_args(annotated)[1:] if isinstance(argument, Meta)]
            description = next((meta.description for meta in metas if meta.description), "")
            yield Setting(section.name, field.name, get_args(annotated)[0], field.default, description)


def load_config(
    file: Path | None = None,
    environment: Mapping[str, str] | None = None,
    overrides: Mapping[str, Any] | None = None,
) -> Config:
    """The settings from a TOML `file`, then `environment` (by default the process's), then `overrides` by setting name.

    Raises `ConfigError` that names the source, the key and what would be right.
    """
    values: dict[str, dict[str, Any]] = {section.name: {} for section in msgspec.structs.fields(Config)}
    if file is not None:
        _merge_file(values, file)
    _merge_environment(values, os.environ if environment is None else environment)
    by_name = {setting.name: setting for setting in settings()}
    for name, value in (overrides or {}).items():
        if name not in by_name:
            raise ConfigError(f"unknown setting {name!r}; the settings are: {', '.join(by_name)}")
        values[by_name[name].section][name] = by_name[name].read(value)
    try:
        return msgspec.convert(values, Config, strict=False)
    except msgspec.ValidationError as error:
        raise ConfigError(_explain(str(error))) from None


def _merge_file(values: dict[str, dict[str, Any]], file: Path) -> None:
    try:
        document = tomllib.loads(file.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(f"cannot read the settings file {file}: {error.strerror}") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"{file} is not TOML: {error}") from None
    for section, keys in document.items():
        if section not in values:
            raise ConfigError(f"unknown section [{section}] in {file}; the sections are: {', '.join(values)}")
        if not isinstance(keys, dict):
            raise ConfigError(f"{section!r} in {file} must be a section: write [{section}] and settings under it")
        known = [setting.name for setting in settings() if setting.section == section]
        for key, value in keys.items():
            if key not in known:
                raise ConfigError(
                    f"unknown setting {key!r} under [{section}] in {file}; the settings are: {', '.join(known)}"
                )
            values[section][key] = value


def _merge_environment(values: dict[str, dict[str, Any]], environment: Mapping[str, str]) -> None:
    known = {setting.variable: setting for setting in settings()}
    for variable, text in environment.items():
        if not variable.startswith("TYMPAN_") or variable == "TYMPAN_CONFIG":
            continue
        if variable not in known:
            raise ConfigError(f"unknown environment variable {variable}; the variables are: {', '.join(known)}")
        setting = known[variable]
        values[setting.section][setting.name] = setting.read(text)


def as_environment(config: Config) -> dict[str, str]:
    """The variables that make another process's settings these, secrets left out."""
    variables = {}
    for setting in settings():
        value = getattr(getattr(config, setting.section), setting.name)
        if value == setting.default or setting.name in SECRETS:
            continue
        variables[setting.variable] = ",".join(value) if setting.is_list else str(value)
    return variables


def config_file(environment: Mapping[str, str] | None = None) -> Path | None:
    """The settings file named by `TYMPAN_CONFIG`, if any."""
    name = (os.environ if environment is None else environment).get("TYMPAN_CONFIG")
    return Path(name) if name else None


def cache_folder(environment: Mapping[str, str] | None = None) -> Path:
    """Where this program may keep what it can find out again."""
    variables = os.environ if environment is None else environment
    return Path(variables.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "tympan"


def wants_spans(environment: Mapping[str, str] | None = None) -> bool:
    """Whether OpenTelemetry's own variables say where spans go, and do not say that none should."""
    variables = os.environ if environment is None else environment
    endpoint = variables.get("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT") or variables.get("OTEL_EXPORTER_OTLP_ENDPOINT")
    is_off = variables.get("OTEL_SDK_DISABLED", "").lower() == "true"
    return bool(endpoint) and not is_off and variables.get("OTEL_TRACES_EXPORTER", "otlp") == "otlp"


def _explain(message: str) -> str:
    """msgspec says ``Expected `int` <= 65535 - at `$.server.port` ``; a person wants the setting first."""
    problem, _, path = message.partition(" - at `$.")
    name = path.rstrip("`").rpartition(".")[2]
    return f"setting {name!r} is wrong: {problem[0].lower()}{problem[1:]}" if name else problem
