"""Settings: frozen, composed, strict. A TOML file, then the environment, then the command line; the later one wins.

Every setting is one field of one section below; its name is unique across sections, so the same word serves all three
sources: `idle_seconds` is `idle_seconds` under `[limits]` in the file, `TYMPAN_IDLE_SECONDS` in the environment,
`--idle-seconds` on the command line. This is the only module that reads the environment.
"""

from __future__ import annotations

import os
import tomllib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any, get_args, get_origin

import msgspec
from msgspec import Meta, Struct

from tympan.errors import ConfigError

SECRETS = ("api_keys", "token_secret")


class ModelSettings(Struct, frozen=True, kw_only=True):
    """Which recognizer, and how much of the machine it may use."""

    model: Annotated[
        str,
        Meta(
            description="a hub repository org/name[@revision], a local folder, random:1b|2.6b|tiny (random weights, "
            "for sizing), embedded (no download, for trying), or scripted (for tests and load)"
        ),
    ] = "kyutai/stt-1b-en_fr-candle"
    device: Annotated[str, Meta(description="cpu, cuda or auto", pattern="^(auto|cpu|cuda)$")] = "auto"
    dtype: Annotated[
        str,
        Meta(
            description="weights: f32, bf16, f16, fp8 (newer GPUs), int8, int4 or auto (bf16 or f16 on a GPU, int8 on "
            "a CPU)",
            pattern="^(auto|f32|bf16|f16|fp8|int8|int4)$",
        ),
    ] = "auto"
    kv_dtype: Annotated[
        str,
        Meta(
            description="what the model remembers of each stream: bf16, f16, f32, fp8 (twice the streams in the same "
            "memory) or auto (as the weights; if those have fewer bits, bf16 on a GPU, f16 on a CPU)",
            pattern="^(auto|bf16|f16|f32|fp8)$",
        ),
    ] = "auto"
    codebooks: Annotated[
        Annotated[int, Meta(gt=0)] | None, Meta(description="audio codebooks used, of the model's 32; fewer are faster")
    ] = None
    temperature: Annotated[float, Meta(description="0 is greedy; 0.25 is Kyutai's remedy for freezing", ge=0)] = 0.0
    max_streams: Annotated[
        Annotated[int, Meta(gt=0)] | None, Meta(description="streams at once; by default what the engine carries")
    ] = None
    step_ms: Annotated[float, Meta(description="scripted model only: how long one step takes", ge=0)] = 1.0


class ServerSettings(Struct, frozen=True, kw_only=True):
    """Where to listen, and for whom."""

    host: Annotated[
        str | None, Meta(description="address to bind; by default loopback, or every address once API keys are set")
    ] = None
    port: Annotated[int, Meta(description="port to bind; 0 takes a free one", ge=0, le=65535)] = 8000
    api_keys: Annotated[
        tuple[str, ...], Meta(description="keys that clients must present one of; none: no key is asked for")
    ] = ()
    token_secret: Annotated[
        str,
        Meta(description="signs short-lived tokens; the same on all servers of a fleet (default: one per process)"),
    ] = ""
    strict_model: Annotated[
        bool,
        Meta(description="refuse clients that name another model than the loaded one"),
    ] = False
    log_level: Annotated[
        str, Meta(description="debug, info, warning or error", pattern="^(debug|info|warning|error)$")
    ] = "info"

    @property
    def bind_host(self) -> str:
        return self.host or ("0.0.0.0" if self.api_keys else "127.0.0.1")


class LimitSettings(Struct, frozen=True, kw_only=True):
    """What one stream may ask for."""

    message_bytes: Annotated[int, Meta(description="largest message", gt=0)] = 2 * 1024 * 1024
    upload_bytes: Annotated[int, Meta(description="largest file in one request", gt=0)] = 25 * 1024 * 1024
    session_seconds: Annotated[float, Meta(description="longest session", gt=0)] = 7200.0
    handover_seconds: Annotated[
        Annotated[float, Meta(gt=0)] | None,
        Meta(description="age at which a stream gets its last words and 1012, before a platform cuts it"),
    ] = None
    idle_seconds: Annotated[float, Meta(description="longest time without a message from the client", gt=0)] = 60.0
    grace_seconds: Annotated[
        float, Meta(description="at shutdown: longest time for open streams to get their last words", gt=0)
    ] = 10.0
    backlog_seconds: Annotated[
        float, Meta(description="audio not yet transcribed above which the socket is not read", gt=0)
    ] = 4.0
    outbox_messages: Annotated[
        int, Meta(description="messages a client may leave unread before it is closed", gt=0)
    ] = 1024


class TurnSettings(Struct, frozen=True, kw_only=True):
    """When a turn ends and when it goes on (hysteresis on the pause probability of the 2 s horizon)."""

    turn_end: Annotated[float, Meta(description="a turn ends when P(pause) rises above this", ge=0, le=1)] = 0.6
    turn_resume: Annotated[float, Meta(description="and cannot end again before it fell below this", ge=0, le=1)] = 0.4
    turn_holdoff_steps: Annotated[
        int, Meta(description="first steps of a stream in which P(pause) is not believed", ge=0)
    ] = 12


class DeploySettings(Struct, frozen=True, kw_only=True):
    """What a container of a fleet has, and how many there may be. Read by `tympan plan`, Modal and Ray Serve."""

    gpus: Annotated[tuple[str, ...], Meta(description="GPU types, the preferred one first")] = ("L40S",)
    container_cpu: Annotated[float, Meta(description="physical CPU cores of a container", gt=0)] = 4.0
    container_memory_mib: Annotated[int, Meta(description="memory of a container in MiB", gt=0)] = 32768
    min_containers: Annotated[int, Meta(description="containers that always run", ge=0)] = 2
    buffer_containers: Annotated[int, Meta(description="idle containers on top while any stream is open", ge=0)] = 1
    max_containers: Annotated[int, Meta(description="containers that may run at once", gt=0)] = 10
    scaledown_window: Annotated[
        int, Meta(description="seconds without a stream after which a container may stop", ge=2, le=3600)
    ] = 300
    target_streams: Annotated[
        Annotated[int, Meta(gt=0)] | None,
        Meta(description="streams a container should have; by default four fifths of what its GPU carries"),
    ] = None
    maximum_streams: Annotated[
        Annotated[int, Meta(gt=0)] | None,
        Meta(description="streams a container may have; by default what its GPU carries"),
    ] = None

    app_name: Annotated[str, Meta(description="name of the Modal app")] = "tympan"
    shape: Annotated[
        str, Meta(description="server (drains, 503 when full) or class (queues when full)", pattern="^(server|class)$")
    ] = "server"
    memory_snapshot: Annotated[bool, Meta(description="start containers from a snapshot of imports and weights")] = True
    gpu_snapshot: Annotated[
        bool, Meta(description="load the model before the snapshot, GPU memory included (Modal calls it alpha)")
    ] = False
    timeout_seconds: Annotated[int, Meta(description="class: longest life of one connection", ge=60, le=86400)] = 3600
    startup_timeout_seconds: Annotated[
        int, Meta(description="longest start of a container, loading included", ge=1, le=86400)
    ] = 900
    exit_grace_seconds: Annotated[
        int, Meta(description="not class: how long open streams may go on before a container drains", ge=0, le=3600)
    ] = 0
    compute_regions: Annotated[tuple[str, ...], Meta(description="where containers may run; costs a surcharge")] = ()
    routing_region: Annotated[str, Meta(description="where connections enter; fixed by the first deployment")] = (
        "us-east"
    )
    secret_name: Annotated[
        str, Meta(description="Modal secret with TYMPAN_API_KEYS; empty: the service asks for no key")
    ] = "tympan"


class Config(Struct, frozen=True, kw_only=True):
    """All settings of a Tympan process."""

    model: ModelSettings = ModelSettings()
    server: ServerSettings = ServerSettings()
    limits: LimitSettings = LimitSettings()
    turns: TurnSettings = TurnSettings()
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


def _explain(message: str) -> str:
    """msgspec says ``Expected `int` <= 65535 - at `$.server.port` ``; a person wants the setting first."""
    problem, _, path = message.partition(" - at `$.")
    name = path.rstrip("`").rpartition(".")[2]
    return f"setting {name!r} is wrong: {problem[0].lower()}{problem[1:]}" if name else problem
