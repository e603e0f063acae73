"""Every setting: a field of a section with its default, bounds and help text. `tympan.config` reads them."""

from __future__ import annotations

from typing import Annotated

from msgspec import Meta, Struct


class ModelSettings(Struct, frozen=True, kw_only=True):
    """The model, its device and data types, and the number of streams."""

    model: Annotated[
        str,
        Meta(
            description="Hub repository org/name[@revision], local folder, random:1b|2.6b|tiny (random weights, for "
            "sizing), embedded (small built-in recognizer), or scripted (fixed words, for tests and "
            "load)."
        ),
    ] = "kyutai/stt-1b-en_fr-candle"
    device: Annotated[
        str, Meta(description="Device that runs the model: cpu, cuda or auto.", pattern="^(auto|cpu|cuda)$")
    ] = "auto"
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
            "is that of the weights, or, if these have fewer bits, bf16 on a GPU and f32 on a CPU.",
            pattern="^(auto|bf16|f16|f32|fp8)$",
        ),
    ] = "auto"
    temperature: Annotated[
        float, Meta(description="Sampling temperature; 0 always takes the most probable token.", ge=0)
    ] = 0.0
    stall_seconds: Annotated[
        float,
        Meta(
            description="Reset a stream's model state after this many seconds of speech without output; 0 disables it.",
            ge=0,
        ),
    ] = 8.0
    max_streams: Annotated[
        Annotated[int, Meta(gt=0)] | None,
        Meta(description="Streams that the engine serves at once; by default as many as the device carries."),
    ] = None


class ServerSettings(Struct, frozen=True, kw_only=True):
    """The address, access, TLS and logging of the server."""

    host: Annotated[
        str | None,
        Meta(description="Address to bind; by default loopback without API keys, and all addresses with them."),
    ] = None
    port: Annotated[int, Meta(description="Port to bind; 0 selects a free one.", ge=0, le=65535)] = 8000
    api_keys: Annotated[
        tuple[str, ...], Meta(description="Accepted API keys or their SHA-256 hashes (see `tympan key`).")
    ] = ()
    api_keys_file: Annotated[
        str | None, Meta(description="File of further API keys or hashes, one per line; read again when it changes.")
    ] = None
    token_secret: Annotated[
        str,
        Meta(
            description="Secret that signs short-lived tokens; use the same one on all servers of a fleet (default: "
            "random)."
        ),
    ] = ""
    allowed_origins: Annotated[
        tuple[str, ...],
        Meta(
            description="Origins of web pages that may connect, such as https://app.example, or *; by default all if "
            "API keys are required, else only the server's own page."
        ),
    ] = ()
    tls_certificate: Annotated[
        str | None, Meta(description="Certificate file (PEM, with the chain) to serve TLS with.")
    ] = None
    tls_key: Annotated[
        str | None, Meta(description="Private key file (PEM); not needed if the certificate file contains it.")
    ] = None
    strict_model: Annotated[
        bool,
        Meta(description="Refuse clients that request another model than the loaded one."),
    ] = False
    log_level: Annotated[
        str,
        Meta(
            description="Lowest level that is logged: debug, info, warning or error.",
            pattern="^(debug|info|warning|error)$",
        ),
    ] = "info"
    log_format: Annotated[
        str, Meta(description="Format of log lines: text, or json (one object per line).", pattern="^(text|json)$")
    ] = "text"

    @property
    def bind_host(self) -> str:
        """The address to bind."""
        return self.host or ("0.0.0.0" if self.asks_for_keys else "127.0.0.1")

    @property
    def asks_for_keys(self) -> bool:
        """Whether clients need an API key."""
        return bool(self.api_keys or self.api_keys_file)


class LimitSettings(Struct, frozen=True, kw_only=True):
    """Limits of messages, sessions and uploads."""

    message_bytes: Annotated[int, Meta(description="Largest message of a client in bytes.", gt=0)] = 2 * 1024 * 1024
    upload_bytes: Annotated[int, Meta(description="Largest file in one request in bytes.", gt=0)] = 25 * 1024 * 1024
    upload_streams: Annotated[
        Annotated[int, Meta(gt=0)] | None,
        Meta(description="Streams that files may use at once; by default half of what the engine serves."),
    ] = None
    session_seconds: Annotated[float, Meta(description="Longest session in seconds.", gt=0)] = 7200.0
    handover_seconds: Annotated[
        Annotated[float, Meta(gt=0)] | None,
        Meta(
            description="Age in seconds at which a stream is ended with code 1012 so that its client reconnects; set "
            "it below the connection limit of a hosting platform."
        ),
    ] = None
    idle_seconds: Annotated[float, Meta(description="Seconds without a message before a stream is closed.", gt=0)] = (
        60.0
    )
    engine_seconds: Annotated[
        int,
        Meta(description="Longest duration of an engine step in seconds before the engine is taken for hung.", gt=0),
    ] = 10
    resume_seconds: Annotated[
        float, Meta(description="Seconds within which a client can resume a lost connection; 0 disables it.", ge=0)
    ] = 10.0
    grace_seconds: Annotated[
        float, Meta(description="Seconds that open streams have at shutdown to receive their last words.", gt=0)
    ] = 10.0
    backlog_seconds: Annotated[
        float, Meta(description="Seconds of untranscribed audio above which the socket is not read.", gt=0)
    ] = 4.0
    outbox_messages: Annotated[int, Meta(description="Unread messages after which a slow client is closed.", gt=0)] = (
        1024
    )


class KeySettings(Struct, frozen=True, kw_only=True):
    """Limits per API key, over all its streams; a key's own line in the key file overrides them.

    Without API keys all clients share one set of limits. None is no limit.
    """

    key_streams: Annotated[Annotated[int, Meta(gt=0)] | None, Meta(description="Streams of one key at once.")] = None
    key_opens_per_minute: Annotated[
        Annotated[int, Meta(gt=0)] | None, Meta(description="Streams and files that one key may open per minute.")
    ] = None
    key_minutes_per_day: Annotated[
        Annotated[float, Meta(gt=0)] | None,
        Meta(description="Minutes of audio, summed over channels, that one key may send within 24 hours."),
    ] = None
    key_upload_bytes_per_minute: Annotated[
        Annotated[int, Meta(gt=0)] | None, Meta(description="Bytes of files that one key may send per minute.")
    ] = None


class TurnSettings(Struct, frozen=True, kw_only=True):
    """Turn detection: hysteresis on the pause probability of the 2 s horizon."""

    turn_end: Annotated[float, Meta(description="Pause probability above which a turn ends.", ge=0, le=1)] = 0.6
    turn_resume: Annotated[float, Meta(description="Pause probability below which a turn continues.", ge=0, le=1)] = 0.4
    turn_holdoff_steps: Annotated[
        int, Meta(description="Frames at the start of a stream whose pause probabilities are ignored.", ge=0)
    ] = 12


class RecordingSettings(Struct, frozen=True, kw_only=True):
    """Recording of streams; disabled without a folder."""

    record_folder: Annotated[
        str | None,
        Meta(
            description="Folder for the audio and events of every stream; only its owner may have access, and it must "
            "contain a file CONSENT that states who has agreed."
        ),
    ] = None
    record_bytes: Annotated[
        int, Meta(description="Size of the folder in bytes at which recording stops; nothing is deleted.", gt=0)
    ] = 10 * 1024**3


class DeploySettings(Struct, frozen=True, kw_only=True):
    """Containers of a fleet and their scaling, for `tympan plan`, Modal and Ray Serve."""

    gpus: Annotated[tuple[str, ...], Meta(description="GPU types in order of preference.")] = ("L40S",)
    container_cpu: Annotated[float, Meta(description="Physical CPU cores of a container.", gt=0)] = 4.0
    container_memory_mib: Annotated[int, Meta(description="Memory of a container in MiB.", gt=0)] = 32768
    min_containers: Annotated[int, Meta(description="Containers that always run.", ge=0)] = 2
    buffer_containers: Annotated[
        int, Meta(description="Idle containers in addition while any stream is open.", ge=0)
    ] = 1
    max_containers: Annotated[int, Meta(description="Most containers at once.", gt=0)] = 10
    scaledown_window: Annotated[
        int, Meta(description="Seconds without a stream after which a container may stop.", ge=2, le=3600)
    ] = 300
    container_target_streams: Annotated[
        Annotated[int, Meta(gt=0)] | None,
        Meta(
            description="Streams per container that the autoscaler aims for; by default four fifths of what the GPU "
            "carries."
        ),
    ] = None
    container_max_streams: Annotated[
        Annotated[int, Meta(gt=0)] | None,
        Meta(description="Most streams per container; by default what the GPU carries."),
    ] = None

    app_name: Annotated[str, Meta(description="Name of the Modal app.")] = "tympan"
    shape: Annotated[
        str,
        Meta(
            description="Modal deployment: server (drains, 503 when full) or class (queues when full).",
            pattern="^(server|class)$",
        ),
    ] = "server"
    memory_snapshot: Annotated[bool, Meta(description="Start containers from a snapshot of imports and weights.")] = (
        True
    )
    gpu_snapshot: Annotated[
        bool, Meta(description="Include the loaded model and the GPU memory in the snapshot (alpha at Modal).")
    ] = False
    timeout_seconds: Annotated[
        int, Meta(description="Longest connection in seconds; shape class only.", ge=60, le=86400)
    ] = 3600
    startup_timeout_seconds: Annotated[
        int, Meta(description="Longest start of a container in seconds, including the model.", ge=1, le=86400)
    ] = 900
    exit_grace_seconds: Annotated[
        int,
        Meta(
            description="Seconds that open streams continue before a container drains; shape server only.",
            ge=0,
            le=3600,
        ),
    ] = 0
    compute_regions: Annotated[
        tuple[str, ...], Meta(description="Regions where containers may run; Modal charges for the choice.")
    ] = ()
    routing_region: Annotated[
        str, Meta(description="Region where connections arrive; fixed by the first deployment.")
    ] = "us-east"
    secret_name: Annotated[
        str, Meta(description="Modal secret with TYMPAN_API_KEYS; empty for a service without keys.")
    ] = "tympan"
