"""Every setting: a field of a section, with default, bounds and a line of help. `tympan.config` reads them."""

from __future__ import annotations

from typing import Annotated

from msgspec import Meta, Struct


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
            description="Data type of the weights: f32, bf16, f16, fp8 (GPUs of compute capability 8.9 or later), int8 "
            "or int4 (CPU only); auto is bf16 or f16 on a GPU and int8 on a CPU.",
            pattern="^(auto|f32|bf16|f16|fp8|int8|int4)$",
        ),
    ] = "auto"
    kv_dtype: Annotated[
        str,
        Meta(
            description="Data type of the KV cache: bf16, f16, f32 or fp8 (twice the streams in the same memory); auto "
            "is that of the weights, or, if these have fewer bits, bf16 on a GPU and f16 on a CPU.",
            pattern="^(auto|bf16|f16|f32|fp8)$",
        ),
    ] = "auto"
    codebooks: Annotated[
        Annotated[int, Meta(gt=0)] | None, Meta(description="audio codebooks used, of the model's 32; fewer are faster")
    ] = None
    temperature: Annotated[float, Meta(description="0 is greedy; 0.25 is Kyutai's remedy for freezing", ge=0)] = 0.0
    stall_seconds: Annotated[
        float,
        Meta(description="speech without a word after which a stream's model is started again; 0: never", ge=0),
    ] = 8.0
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
        tuple[str, ...], Meta(description="keys, or their hashes (`tympan key`), that clients must present one of")
    ] = ()
    api_keys_file: Annotated[
        str | None, Meta(description="more keys or their hashes, one on a line; read again whenever it changes")
    ] = None
    token_secret: Annotated[
        str,
        Meta(description="signs short-lived tokens; the same on all servers of a fleet (default: one per process)"),
    ] = ""
    allowed_origins: Annotated[
        tuple[str, ...],
        Meta(
            description="web pages that may connect, such as https://app.example, or *; by default all where keys are "
            "asked for, else the server's own page alone"
        ),
    ] = ()
    tls_certificate: Annotated[str | None, Meta(description="serve TLS: the certificate chain, PEM")] = None
    tls_key: Annotated[str | None, Meta(description="its private key, PEM, if the chain's file has it not")] = None
    strict_model: Annotated[
        bool,
        Meta(description="refuse clients that name another model than the loaded one"),
    ] = False
    log_level: Annotated[
        str, Meta(description="debug, info, warning or error", pattern="^(debug|info|warning|error)$")
    ] = "info"
    log_format: Annotated[str, Meta(description="text, or json: one object a line", pattern="^(text|json)$")] = "text"

    @property
    def bind_host(self) -> str:
        return self.host or ("0.0.0.0" if self.asks_for_keys else "127.0.0.1")

    @property
    def asks_for_keys(self) -> bool:
        return bool(self.api_keys or self.api_keys_file)


class LimitSettings(Struct, frozen=True, kw_only=True):
    """What one stream may ask for."""

    message_bytes: Annotated[int, Meta(description="largest message", gt=0)] = 2 * 1024 * 1024
    upload_bytes: Annotated[int, Meta(description="largest file in one request", gt=0)] = 25 * 1024 * 1024
    upload_streams: Annotated[
        Annotated[int, Meta(gt=0)] | None,
        Meta(description="streams that files may take at once; by default half of those that the engine carries"),
    ] = None
    session_seconds: Annotated[float, Meta(description="longest session", gt=0)] = 7200.0
    handover_seconds: Annotated[
        Annotated[float, Meta(gt=0)] | None,
        Meta(description="age at which a stream gets its last words and 1012, before a platform cuts it"),
    ] = None
    idle_seconds: Annotated[float, Meta(description="longest time without a message from the client", gt=0)] = 60.0
    engine_seconds: Annotated[
        int, Meta(description="longest time the engine may take over a step before it is taken for hung", gt=0)
    ] = 10
    resume_seconds: Annotated[
        float, Meta(description="longest time a lost client may take to come back for its stream; 0: none may", ge=0)
    ] = 10.0
    grace_seconds: Annotated[
        float, Meta(description="at shutdown: longest time for open streams to get their last words", gt=0)
    ] = 10.0
    backlog_seconds: Annotated[
        float, Meta(description="audio not yet transcribed above which the socket is not read", gt=0)
    ] = 4.0
    outbox_messages: Annotated[
        int, Meta(description="messages a client may leave unread before it is closed", gt=0)
    ] = 1024


class KeySettings(Struct, frozen=True, kw_only=True):
    """What one key may use, all its streams together, unless its line says otherwise; without keys, all clients share.

    None is no limit.
    """

    key_streams: Annotated[Annotated[int, Meta(gt=0)] | None, Meta(description="streams of one key at once")] = None
    key_opens_per_minute: Annotated[
        Annotated[int, Meta(gt=0)] | None, Meta(description="streams and files that one key may open in a minute")
    ] = None
    key_minutes_per_day: Annotated[
        Annotated[float, Meta(gt=0)] | None,
        Meta(description="minutes of audio, of every channel, that one key may send within 24 hours"),
    ] = None
    key_upload_bytes_per_minute: Annotated[
        Annotated[int, Meta(gt=0)] | None, Meta(description="bytes of files that one key may send in a minute")
    ] = None


class TurnSettings(Struct, frozen=True, kw_only=True):
    """When a turn ends and when it goes on (hysteresis on the pause probability of the 2 s horizon)."""

    turn_end: Annotated[float, Meta(description="a turn ends when P(pause) rises above this", ge=0, le=1)] = 0.6
    turn_resume: Annotated[float, Meta(description="and cannot end again before it fell below this", ge=0, le=1)] = 0.4
    turn_holdoff_steps: Annotated[
        int, Meta(description="first steps of a stream in which P(pause) is not believed", ge=0)
    ] = 12


class RecordingSettings(Struct, frozen=True, kw_only=True):
    """Whether what clients say is kept. It is not, unless the operator names a folder that was made for it."""

    record_folder: Annotated[
        str | None,
        Meta(
            description="keep the audio and events of every stream here: a folder that only its owner may enter, with "
            "a file CONSENT that says who has agreed to it"
        ),
    ] = None
    record_bytes: Annotated[
        int, Meta(description="size of that folder at which recording stops; nothing is deleted", gt=0)
    ] = 10 * 1024**3


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
