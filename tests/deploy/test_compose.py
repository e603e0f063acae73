"""The compose file: its paths exist, its settings are the server's, and Prometheus scrapes its services."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from tympan.config import LimitSettings, load_config

pytestmark = pytest.mark.deploy

FOLDER = Path(__file__).parents[2] / "deploy" / "docker"


@pytest.fixture(scope="module")
def services() -> dict[str, Any]:
    return dict(yaml.safe_load((FOLDER / "compose.yaml").read_text())["services"])


def test_paths_exist(services: dict[str, Any]) -> None:
    paths = [mount.split(":")[0] for service in services.values() for mount in service["volumes"]]
    files = [FOLDER / path for path in paths if path.startswith(".")]
    files += [
        FOLDER / service["build"]["context"] / service["build"]["dockerfile"]
        for service in services.values()
        if "build" in service
    ]
    assert len(files) == 7
    assert [file for file in files if not file.is_file()] == []


@pytest.mark.parametrize("name", ["cpu", "gpu"])
def test_settings(services: dict[str, Any], name: str) -> None:
    service = services[name]
    config = load_config(environment=service["environment"])
    limits = LimitSettings()
    longest = limits.drain_delay_seconds + limits.grace_seconds + 10
    assert float(service["stop_grace_period"].rstrip("s")) >= longest
    assert name in config.server.allowed_hosts, "Prometheus would get 421"
    assert service["read_only"] is True
    (published,) = service["ports"]
    assert published.startswith("127.0.0.1:"), "a server without keys is reachable on loopback only"
    assert published.endswith(f":{config.server.port}")


def test_prometheus_and_grafana_fit(services: dict[str, Any]) -> None:
    prometheus = yaml.safe_load((FOLDER / "monitoring" / "prometheus.yml").read_text())
    mounts = dict(mount.split(":")[:2] for mount in services["prometheus"]["volumes"])
    assert f"/etc/prometheus/{prometheus['rule_files'][0]}" in mounts.values()
    targets = prometheus["scrape_configs"][0]["static_configs"][0]["targets"]
    assert {target.split(":")[0] for target in targets} == {name for name in services if "build" in services[name]}
    (source,) = yaml.safe_load((FOLDER / "monitoring" / "datasource.yml").read_text())["datasources"]
    dashboard = json.loads((FOLDER.parents[1] / "docs" / "operations" / "grafana.json").read_text())
    assert source["type"] == dashboard["templating"]["list"][0]["query"]
    (provider,) = yaml.safe_load((FOLDER / "monitoring" / "dashboards.yml").read_text())["providers"]
    mounts = dict(mount.split(":")[:2] for mount in services["grafana"]["volumes"])
    assert any(target.startswith(provider["options"]["path"]) for target in mounts.values())
