"""The release check: one version in all places, and a dated section of the changelog for a tag."""

from __future__ import annotations

import importlib.util
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
COPIED = ("pyproject.toml", "CHANGELOG.md", "CITATION.cff", "deploy")


def check() -> Callable[[Path, str | None], list[str]]:
    specification = importlib.util.spec_from_file_location("release", ROOT / ".ci" / "release.py")
    assert specification is not None
    assert specification.loader is not None
    module = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(module)
    return module.problems  # type: ignore[no-any-return]


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    for name in COPIED:
        source = ROOT / name
        (shutil.copytree if source.is_dir() else shutil.copy)(source, tmp_path / name)
    return tmp_path


def test_versions_agree() -> None:
    assert check()(ROOT, None) == []


@pytest.mark.parametrize("name", ["CITATION.cff", "deploy/helm/tympan/Chart.yaml", "deploy/docker/Dockerfile"])
def test_other_version_is_found(copy: Path, name: str) -> None:
    file = copy / name
    file.write_text(file.read_text().replace("0.2.0", "0.1.9", 1))
    (problem,) = check()(copy, None)
    assert problem.startswith(f"{name} has 0.1.9")


def test_tag_needs_a_dated_section(copy: Path) -> None:
    changelog = copy / "CHANGELOG.md"
    changelog.write_text(changelog.read_text().replace("[0.2.0] - Unreleased", "[0.2.0] - 2026-12-01"))
    assert check()(copy, "v0.2.0") == []
    assert check()(copy, "v0.3.0") == ["the tag is v0.3.0, pyproject.toml has 0.2.0"]
    changelog.write_text("# Changelog\n\n## [0.2.0] - Unreleased\n")
    assert check()(copy, "v0.2.0") == ["CHANGELOG.md has no section of 0.2.0 with a date"]
