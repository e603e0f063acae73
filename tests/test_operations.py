"""The dashboard and the alert rules speak of metrics that the server has."""

from __future__ import annotations

import json
import re
from pathlib import Path

import yaml

from tympan.config import ModelSettings
from tympan.engine.scripted import ScriptedEngine
from tympan.server.observability.metrics import Metrics

FOLDER = Path(__file__).parents[1] / "docs" / "operations"


def served() -> set[str]:
    text = Metrics(ScriptedEngine(ModelSettings(model="scripted"))).render().decode()
    names = {line.split()[2] for line in text.splitlines() if line.startswith("# TYPE")}
    names = {name for name in names if not name.endswith("_created")}
    return names | {f"{name}_bucket" for name in names}


def spoken_of(expression: str) -> set[str]:
    return set(re.findall(r"\b(?:tympan|asr)_\w+", expression))


def test_alerts() -> None:
    rules = [rule for group in yaml.safe_load((FOLDER / "alerts.yml").read_text())["groups"] for rule in group["rules"]]
    for rule in rules:
        assert spoken_of(rule["expr"]), rule["alert"]
        assert spoken_of(rule["expr"]) <= served(), rule["alert"]
        assert rule["labels"]["severity"] in ("critical", "warning")
        assert rule["annotations"]["summary"]
        assert rule["annotations"]["description"]
    assert len({rule["alert"] for rule in rules}) == len(rules)


def test_dashboard() -> None:
    panels = json.loads((FOLDER / "grafana.json").read_text())["panels"]
    places = [tuple(panel["gridPos"].values()) for panel in panels]
    assert len(set(places)) == len(panels)
    shown = set()
    for panel in panels:
        for target in panel["targets"]:
            names = spoken_of(target["expr"])
            assert names <= served(), panel["title"]
            shown |= names
    named = {re.sub("_bucket$", "", name) for name in shown}
    assert {name for name in served() if name.startswith("tympan_") and not name.endswith("_bucket")} <= named, "all"
