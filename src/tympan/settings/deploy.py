"""Settings of a fleet."""

from __future__ import annotations

from typing import Annotated

from msgspec import Meta, Struct


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
