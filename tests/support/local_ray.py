"""A local Ray with Serve on loopback, and applications started as the documentation describes."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import ray
from ray import serve
from ray.serve.context import _get_global_client

from support.ports import free_port

NAME = "default"
VARIABLES = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_SERVE_HANDLE_AUTOSCALING_METRIC_PUSH_INTERVAL_S": "1",  # 10 by default, which would make the tests slow
}
OBJECT_STORE_BYTES = 80_000_000  # about the minimum of Ray
SECONDS_TO_START = 60


class LocalRay:
    """A running Ray; `port` is that of Serve's HTTP proxy."""

    def __init__(self, folder: Path, port: int) -> None:
        self.port = port
        self._logs = folder / "session_latest" / "logs" / "serve"

    @property
    def stream_url(self) -> str:
        return f"ws://127.0.0.1:{self.port}/v1/stream"

    @property
    def http_url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @contextmanager
    def application(self, **settings: object) -> Iterator[None]:
        """Run an application with the real `serve run`; delete it, which drains it, at the end."""
        arguments = [f"{name}={value}" for name, value in {"container_cpu": 0.5, **settings}.items()]
        command = [sys.executable, "-c", "from ray.serve.scripts import cli; cli()", "run", "--non-blocking"]
        address = ray.get_runtime_context().gcs_address
        result = subprocess.run(
            [*command, "--address", address, "tympan.deploy.ray_app:app", *arguments],
            capture_output=True,
            text=True,
            timeout=SECONDS_TO_START,
            check=False,
        )
        assert result.returncode == 0, result.stdout + result.stderr
        try:
            yield
        finally:
            self.delete()

    def delete(self) -> None:
        """Delete the application; return once every replica is gone."""
        serve.delete(NAME)

    def states(self) -> dict[str, str]:
        """Return the state of each replica by its id."""
        return {each["replica_id"]: each["state"] for each in self._replicas()}

    def kill(self, replica: str) -> None:
        """Kill a replica, as a lost machine would."""
        (name,) = (each["actor_name"] for each in self._replicas() if each["replica_id"] == replica)
        ray.kill(ray.get_actor(name, namespace="serve"))

    def kill_controller(self) -> None:
        """Kill Serve's controller; Ray starts another."""
        ray.kill(ray.get_actor("SERVE_CONTROLLER_ACTOR", namespace="serve"), no_restart=False)

    def _replicas(self) -> list[dict[str, Any]]:
        application = _get_global_client().get_serve_details()["applications"][NAME]
        return [replica for deployment in application["deployments"].values() for replica in deployment["replicas"]]

    def replicas_of(self, session: str) -> set[str]:
        """Return the replicas whose log contains the session."""
        logs = self._logs.glob(f"replica_{NAME}_Tympan_*.log")
        return {log.stem.rpartition("_")[2] for log in logs if session in log.read_text()}


@contextmanager
def local_ray() -> Iterator[LocalRay]:
    """Start Ray and Serve, and stop them at the end."""
    folder = Path(tempfile.mkdtemp(prefix="ray-", dir="/tmp"))  # paths of sockets in it must stay short
    with pytest.MonkeyPatch.context() as patch:
        for name in [name for name in os.environ if name.startswith(("RAY_", "TYMPAN_"))]:
            patch.delenv(name)
        for name, value in {**VARIABLES, "RAY_AUTH_TOKEN": uuid.uuid4().hex}.items():
            patch.setenv(name, value)
        try:
            ray.init(
                num_cpus=4,
                object_store_memory=OBJECT_STORE_BYTES,
                include_dashboard=False,
                log_to_driver=False,
                _node_ip_address="127.0.0.1",
                _temp_dir=str(folder),
            )
            port = free_port()
            serve.start(http_options={"host": "127.0.0.1", "port": port})
            yield LocalRay(folder, port)
        finally:
            serve.shutdown()
            ray.shutdown()
            shutil.rmtree(folder, ignore_errors=True)
