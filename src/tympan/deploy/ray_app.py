"""Tympan on Ray Serve: `serve run tympan.deploy.ray_app:app`, with settings behind it as `name=value`.

Serve routes, counts, scales and replaces. One thing it does not do: it never tells a replica that it is to go. It waits
for the open requests, streams among them, and kills the replica when its patience ends. So a replica that is no longer
asked for its health asks the controller what has become of it, and if it is to go its streams get their last words.
"""

from __future__ import annotations

import asyncio
import logging
import time
from typing import Any, Final

from fastapi import FastAPI
from ray import serve
from ray.serve.config import AutoscalingConfig, BackpressureConfig
from ray.serve.context import _get_global_client  # serve.status() counts states, it does not say whose

from tympan.config import Config, config_file, load_config
from tympan.deploy.settings import settle_for_ray
from tympan.engine.registry import create_engine
from tympan.errors import EngineError
from tympan.server.app import create_app
from tympan.server.service import Service
from tympan.server.sessions.connection import LAST_WORDS_SECONDS

logger = logging.getLogger(__name__)

HEALTH_SECONDS: Final = 2.0
SILENCE_SECONDS: Final = 2 * HEALTH_SECONDS
UPSCALE_SECONDS: Final = 0.0  # open streams are no burst that passes
LOOK_BACK_SECONDS: Final = 15.0  # Serve wants more than the 10 s after which its proxies report
RETRY_SECONDS: Final = 2.0


class Replica:
    """One engine and the service around it. Serve starts and stops the app's lifespan, and with it the engine."""

    def __init__(self, config: Config) -> None:
        self._config = config
        self._asked_at = 0.0
        self._watch: asyncio.Task[None] | None = None
        ours = logging.getLogger("tympan")
        ours.parent = logging.getLogger("ray.serve")  # into the replica's log file, with its name
        ours.setLevel(config.server.log_level.upper())

    def __serve_build_asgi_app__(self) -> FastAPI:
        app = create_app(self._config, create_engine(self._config.model, self._config.deploy.container_max_streams))
        self._service: Service = app.state.service
        return app

    async def check_health(self) -> None:
        """Asked for as long as this replica is to stay; one that raises is replaced."""
        self._asked_at = time.monotonic()
        if self._watch is None:
            self._watch = asyncio.create_task(self._drain_when_told_to_go())
        if reason := self._service.unavailable_reason:
            raise EngineError(reason)

    async def _drain_when_told_to_go(self) -> None:
        is_to_go = False
        while not is_to_go:
            await asyncio.sleep(HEALTH_SECONDS / 2)
            is_to_go = await self._is_to_go()
        grace = self._config.deploy.exit_grace_seconds
        logger.info("Serve stops this replica; open streams may go on for %d s", grace)
        await asyncio.sleep(grace)
        await self._service.drain()

    async def _is_to_go(self) -> bool:
        if time.monotonic() - self._asked_at < SILENCE_SECONDS:
            return False
        try:
            return await asyncio.to_thread(_is_stopping)
        except Exception as error:  # without an answer, go on
            logger.warning("Serve's controller does not say whether this replica is to go: %r", error)
            return False


def _is_stopping() -> bool:
    """What Serve's controller says of the replica that asks; of an application that is deleted it lists no replicas."""
    context = serve.get_replica_context()
    application = _get_global_client().get_serve_details()["applications"][context.app_name]
    replicas = application["deployments"].get(context.deployment, {"replicas": []})["replicas"]
    states: dict[str, str] = {replica["replica_id"]: replica["state"] for replica in replicas}
    return states.get(context.replica_tag, "STOPPING") == "STOPPING"


def app(settings: dict[str, Any]) -> serve.Application:
    """The application, from the settings file, the environment and `settings`. Raises `ConfigError`."""
    deployment = settle_for_ray(load_config(config_file(), overrides=settings))
    config, deploy = deployment.config, deployment.config.deploy
    last_words_seconds = config.limits.grace_seconds + LAST_WORDS_SECONDS
    return serve.deployment(
        serve.ingress()(Replica),
        name="Tympan",
        ray_actor_options={"num_cpus": deploy.container_cpu, "num_gpus": 1 if deployment.gpus else 0},
        max_ongoing_requests=deployment.container_max_streams,
        max_queued_requests=deployment.container_max_streams,
        backpressure_config=BackpressureConfig(retry_after_s=RETRY_SECONDS),
        autoscaling_config=AutoscalingConfig(
            min_replicas=deploy.min_containers,
            max_replicas=deploy.max_containers,
            target_ongoing_requests=deployment.container_target_streams,
            upscale_delay_s=UPSCALE_SECONDS,
            downscale_delay_s=deploy.scaledown_window,
            look_back_period_s=LOOK_BACK_SECONDS,
        ),
        health_check_period_s=HEALTH_SECONDS,
        graceful_shutdown_timeout_s=SILENCE_SECONDS + deploy.exit_grace_seconds + last_words_seconds,
    ).bind(config)
