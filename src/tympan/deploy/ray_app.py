"""Tympan on Ray Serve: `serve run tympan.deploy.ray_app:app`, followed by settings as `name=value`.

Serve routes requests, scales and replaces replicas, but does not notify a replica that is being stopped: it waits for
the open requests, streams among them, and kills the replica after a timeout. Therefore a replica whose health checks
have ceased asks Serve's controller for its state, and drains its streams if it is being stopped.
"""

from __future__ import annotations

import asyncio
import logging
import time
from typing import Any, Final

from fastapi import FastAPI
from ray import serve
from ray.serve.config import AutoscalingConfig, BackpressureConfig
from ray.serve.context import _get_global_client  # serve.status() only counts states

from tympan.config import Config, config_file, load_config
from tympan.deploy.deployment import resolve_ray_deployment
from tympan.engine.registry import create_engine
from tympan.errors import EngineError
from tympan.server.app import create_app
from tympan.server.service import Service
from tympan.server.sessions.connection import LAST_WORDS_SECONDS

logger = logging.getLogger(__name__)

HEALTH_SECONDS: Final = 2.0
HEALTH_TIMEOUT_SECONDS: Final = 2 * HEALTH_SECONDS
UPSCALE_SECONDS: Final = 0.0  # open streams are not a short burst
LOOK_BACK_SECONDS: Final = 15.0  # must exceed the 10 s between reports of Serve's proxies
RETRY_SECONDS: Final = 2.0


class Replica:
    """One engine and its service. Serve runs the app's lifespan, which starts and stops the engine."""

    def __init__(self, config: Config) -> None:
        self._config = config
        self._checked_at = 0.0
        self._drain_task: asyncio.Task[None] | None = None
        logs = logging.getLogger("tympan")
        logs.parent = logging.getLogger("ray.serve")  # writes to the replica's log file
        logs.setLevel(config.server.log_level.upper())

    def __serve_build_asgi_app__(self) -> FastAPI:
        app = create_app(self._config, create_engine(self._config.model, self._config.deploy.container_max_streams))
        self._service: Service = app.state.service
        return app

    async def check_health(self) -> None:
        """Raise if the engine does not run. Serve calls this until it stops the replica, and replaces it if it raises.

        Raises:
            EngineError: The engine does not run.
        """
        self._checked_at = time.monotonic()
        if self._drain_task is None:
            self._drain_task = asyncio.create_task(self._drain_when_stopping())
        if reason := self._service.unavailable_reason:
            raise EngineError(reason)

    async def _drain_when_stopping(self) -> None:
        stopping = False
        while not stopping:
            await asyncio.sleep(HEALTH_SECONDS / 2)
            stopping = await self._is_stopping()
        grace = self._config.deploy.exit_grace_seconds
        logger.info("Serve stops this replica; open streams may continue for %d s", grace)
        await asyncio.sleep(grace)
        await self._service.drain()

    async def _is_stopping(self) -> bool:
        if time.monotonic() - self._checked_at < HEALTH_TIMEOUT_SECONDS:
            return False
        try:
            return await asyncio.to_thread(_controller_stops_replica)
        except Exception as error:  # without an answer, the replica continues
            logger.warning("cannot get the state of this replica from Serve's controller: %r", error)
            return False


def _controller_stops_replica() -> bool:
    """Return whether Serve's controller is stopping this replica; it lists none for a deleted application."""
    context = serve.get_replica_context()
    application = _get_global_client().get_serve_details()["applications"][context.app_name]
    replicas = application["deployments"].get(context.deployment, {"replicas": []})["replicas"]
    states: dict[str, str] = {replica["replica_id"]: replica["state"] for replica in replicas}
    return states.get(context.replica_tag, "STOPPING") == "STOPPING"


def app(settings: dict[str, Any]) -> serve.Application:
    """Return the application, configured by the settings file, the environment and ``settings``.

    Raises:
        ConfigError: A setting is invalid.
    """
    deployment = resolve_ray_deployment(load_config(config_file(), overrides=settings))
    config, deploy = deployment.config, deployment.config.deploy
    last_words_seconds = config.limits.grace_seconds + LAST_WORDS_SECONDS
    return serve.deployment(
        serve.ingress()(Replica),
        name="Tympan",
        ray_actor_options={"num_cpus": deploy.container_cpu, "num_gpus": 1 if deployment.gpus else 0},
        max_ongoing_requests=deploy.container_max_streams,
        max_queued_requests=deploy.container_max_streams,
        backpressure_config=BackpressureConfig(retry_after_s=RETRY_SECONDS),
        autoscaling_config=AutoscalingConfig(
            min_replicas=deploy.min_containers,
            max_replicas=deploy.max_containers,
            target_ongoing_requests=deploy.container_target_streams,
            upscale_delay_s=UPSCALE_SECONDS,
            downscale_delay_s=deploy.scaledown_window,
            look_back_period_s=LOOK_BACK_SECONDS,
        ),
        health_check_period_s=HEALTH_SECONDS,
        graceful_shutdown_timeout_s=HEALTH_TIMEOUT_SECONDS + deploy.exit_grace_seconds + last_words_seconds,
    ).bind(config)
