"""The dashboard and the alert rules use metrics that the server has."""

from __future__ import annotations

import json
import re
from functools import cache
from pathlib import Path

import httpx2 as httpx
import yaml
from support.server import LiveServer

OPERATIONS = Path(__file__).parents[1] / "docs" / "operations"


@cache
def served_metrics() -> set[str]:
    with LiveServer() as server:
        text = httpx.get(server.http("/metrics")).text
    names = {line.split()[2] for line in text.splitlines() if line.startswith("# TYPE")}
    names = {name for name in names if not name.endswith("_created")}
    return names | {f"{name}_bucket" for name in names}


def metrics_in(expression: str) -> set[str]:
    return set(re.findall(r"\b(?:tympan|asr)_\w+", expression))


def test_alerts_use_existing_metrics() -> None:
    rules = [
        rule for group in yaml.safe_load((OPERATIONS / "alerts.yml").read_text())["groups"] for rule in group["rules"]
    ]
    for rule in rules:
        assert metrics_in(rule["expr"]), rule["alert"]
        assert metrics_in(rule["expr"]) <= served_metrics(), rule["alert"]
        assert rule["labels"]["severity"] in ("critical", "warning")
        assert rule["annotations"]["summary"]
        assert rule["annotations"]["description"]
    assert len({rule["alert"] for rule in rules}) == len(rules)


def test_dashboard_shows_every_metric() -> None:
    panels = json.loads((OPERATIONS / "grafana.json").read_text())["panels"]
    positions = [tuple(panel["gridPos"].values()) for panel in panels]
    assert len(set(positions)) == len(panels)
    shown: set[str] = set()
    for panel in panels:
        for target in panel["targets"]:
            names = metrics_in(target["expr"])
            assert names <= served_metrics(), panel["title"]
            shown |= names
    named = {re.sub("_bucket$", "", name) for name in shown}
    assert {name for name in served_metrics() if name.startswith("tympan_") and not name.endswith("_bucket")} <= named
