"""What the user sees when a hub refuses, when it is gone, and when the disk is full: on a terminal, and in a log."""

from __future__ import annotations

import errno
import hashlib
import json
import logging
import os
import shutil
import sys
from pathlib import Path
from typing import Literal

import pytest
from support.hub_client import MODEL, WEIGHTS, use_hub
from support.loopback_hub import COMMIT, Content, Failure, LoopbackHub
from support.ports import free_port
from support.published import Header
from support.terminal import Terminal

from tympan.cli.main import main
from tympan.models.checkpoints import download, hub_errors

LAYERS = 1000  # of the small model, about 100 MB


class Pull:
    """`tympan pull` with standard error on a terminal, or in a log.

    Attributes:
        lines: What the last call has shown there.
    """

    def __init__(
        self, kind: Literal["terminal", "log"], capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        self.kind, self.lines = kind, list[str]()
        self._capfd, self._monkeypatch = capfd, monkeypatch

    def __call__(self, *arguments: str) -> tuple[int, str]:
        """Return the exit code, and the last line of the output or, after an error, of standard error."""
        self._capfd.readouterr()
        with self._monkeypatch.context() as patch:
            patch.setattr(logging.getLogger(), "handlers", [])  # `main` sets its own
            patch.setattr(logging.getLogger(), "level", logging.WARNING)
            if self.kind == "terminal":
                with Terminal() as terminal, os.fdopen(os.dup(terminal.fd), "w") as stderr:
                    patch.setattr(sys, "stderr", stderr)
                    code = main(["pull", MODEL, *arguments])
                out, self.lines = self._capfd.readouterr().out, terminal.lines
            else:
                code = main(["pull", MODEL, *arguments])
                out, err = self._capfd.readouterr()
                self.lines = err.splitlines()
        assert not any("Traceback" in line for line in self.lines)
        return code, out.strip() if code == 0 else self.lines[-1]

    def count(self, text: str) -> int:
        """Return how many lines of the last call are messages that contain `text`."""
        return sum(line.startswith("tympan: ") and text in line for line in self.lines)


@pytest.fixture(params=["terminal", "log"])
def pull(request: pytest.FixtureRequest, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Pull:
    monkeypatch.setenv("COLUMNS", "300")
    monkeypatch.setenv("TERM", "xterm")
    return Pull(request.param, capfd, monkeypatch)


def test_complete(hub: LoopbackHub, tmp_path: Path, pull: Pull) -> None:
    code, line = pull()
    total = sum(content.size for content in hub.files.values())
    snapshot = tmp_path / "cache" / "models--kyutai--test" / "snapshots" / COMMIT
    assert (code, line) == (0, f"{MODEL}: 5 files, {download.size_text(total)}, in {snapshot}")
    size = download.size_text(hub.files[WEIGHTS].size)
    if pull.kind == "log":
        assert pull.count(f"downloading {WEIGHTS}: ") == pull.count(f" % of {size}") > 0
        assert f"tympan: verifying {WEIGHTS}" in pull.lines
    else:
        assert any(each.startswith(f"verifying {WEIGHTS} ━") for each in pull.lines)
        assert not pull.count(""), "no lines beside the bar"


def larger(files: dict[str, Content], layers: int) -> dict[str, Content]:
    """Return a checkpoint with more layers, whose weights are zeros."""
    header_bytes = int.from_bytes(files[WEIGHTS].start[:8], "little")
    header = json.loads(files[WEIGHTS].start[8 : 8 + header_bytes])
    shapes = {name: tuple(tensor["shape"]) for name, tensor in header.items() if name != "__metadata__"}
    first = "transformer.layers.0."
    for name, shape in list(shapes.items()):
        if name.startswith(first):
            shapes |= {f"transformer.layers.{i}.{name.removeprefix(first)}": shape for i in range(layers)}
    weights = Header(shapes, "BF16")
    data, size = weights.data, weights.size
    digest = hashlib.sha256(data + bytes(size - len(data)))
    config = json.loads(files["config.json"].start) | {"num_layers": layers}
    return {
        **files,
        "config.json": Content.of(json.dumps(config).encode()),
        WEIGHTS: Content(data, size, digest.hexdigest()),
    }


def test_connection_is_cut_every_20_mb(hub: LoopbackHub, tmp_path: Path, pull: Pull) -> None:
    hub.files = larger(hub.files, LAYERS)
    size = hub.files[WEIGHTS].size
    hub.cut_every = 20_000_000
    code, line = pull()
    assert code == 0, pull.lines
    assert download.size_text(sum(content.size for content in hub.files.values())) in line
    starts = [start for name, start in hub.ranges if name == WEIGHTS]
    assert len(starts) >= size // 20_000_000 >= 5
    assert hub.sent[WEIGHTS] == size, "no byte is sent twice"
    assert pull.count(f"{WEIGHTS}: interrupted at ") == size // 20_000_000
    assert pull.count("continuing in 0 s") == size // 20_000_000
    assert not list(tmp_path.rglob("*.incomplete"))


NOT_FOUND = {"X-Error-Code": "RepoNotFound"}
REFUSALS: dict[str, tuple[Failure, str]] = {
    "private or missing": (
        Failure(401, NOT_FOUND),
        r"there is no repository kyutai/test on {hub}, or it is private: check the name; "
        "for a private repository run `hf auth login` or set HF_TOKEN",
    ),
    "missing": (Failure(404, NOT_FOUND), "there is no repository kyutai/test on {hub}, or it is private"),
    "no such revision": (
        Failure(404, {"X-Error-Code": "RevisionNotFound"}),
        "the repository kyutai/test has no revision main: check the part after the @",
    ),
    "gated": (
        Failure(403, {"X-Error-Code": "GatedRepo"}),
        "kyutai/test is gated: accept its terms on {hub}/kyutai/test, then run `hf auth login` or set HF_TOKEN",
    ),
    "gated without a token": (Failure(401, {"X-Error-Code": "GatedRepo"}), "kyutai/test is gated: accept its terms"),
    "forbidden": (Failure(403), "{hub} denies access to kyutai/test (403): use a token with the permission to read it"),
    "too many requests": (
        Failure(429, {"Retry-After": "290"}),
        "{hub} limits the number of requests (429): run the same command again in 290 s, or set HF_TOKEN",
    ),
    "unavailable": (
        Failure(503, {"Retry-After": "0"}),
        "{hub} is temporarily unavailable (status 503): run the same command again later",
    ),
}


@pytest.mark.parametrize("name", REFUSALS)
def test_refusal(name: str, hub: LoopbackHub, pull: Pull) -> None:
    hub.failure, expected = REFUSALS[name]
    code, line = pull()
    assert code == 2
    assert line.startswith(f"tympan: {expected.format(hub=hub.url)}")
    assert line.endswith("`--model embedded` runs without any download")


@pytest.mark.parametrize("status", [429, 503])
def test_temporary_failures_are_tried_again(status: int, hub: LoopbackHub, pull: Pull) -> None:
    hub.failure = Failure(status, {"Retry-After": "0"}, times=2)
    hub.content_failure = Failure(status, {"Retry-After": "0"}, times=2)
    assert pull()[0] == 0
    assert pull.count(str(status)) >= 3, "each file's metadata twice, and its content"


def test_stale_token(hub: LoopbackHub, pull: Pull, monkeypatch: pytest.MonkeyPatch) -> None:
    """A public model is downloaded without the token; the file server, which is another host, never sees it."""
    invalid = {"X-Error-Message": "Invalid credentials in Authorization header"}
    monkeypatch.setenv("HF_TOKEN", "hf_stale")
    hub.failure = Failure(401, invalid, with_token_only=True)
    assert pull()[0] == 0
    assert pull.count("does not accept the access token (401): trying without it; run `hf auth login`") == 1
    assert hub.leaked_tokens == 0


def test_valid_token_is_not_sent_to_the_file_server(
    hub: LoopbackHub, pull: Pull, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_valid")
    assert pull()[0] == 0
    assert hub.leaked_tokens == 0


def test_private_repository_with_a_stale_token(hub: LoopbackHub, pull: Pull, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_stale")
    hub.failure = Failure(401, {"X-Error-Message": "Invalid credentials in Authorization header"})
    code, line = pull()
    assert code == 2
    assert "does not accept the access token (401) for kyutai/test: run `hf auth login`" in line


def test_disk_without_room(hub: LoopbackHub, tmp_path: Path, pull: Pull, monkeypatch: pytest.MonkeyPatch) -> None:
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(download.shutil, "disk_usage", lambda path: usage._replace(free=100_000))
    code, line = pull()
    assert code == 2
    assert f"not enough disk space in {tmp_path}/cache/models--kyutai--test: the download needs " in line
    assert "0.10 MB are free; free some space, or set HF_HOME to a folder on another disk" in line
    assert hub.sent[WEIGHTS] <= 1 << 15


def test_disk_that_fills_up(hub: LoopbackHub, tmp_path: Path, pull: Pull) -> None:
    blobs = tmp_path / "cache" / "models--kyutai--test" / "blobs"
    blobs.mkdir(parents=True)
    (blobs / f"{hub.files[WEIGHTS].etag}.tympan.incomplete").symlink_to("/dev/full")
    code, line = pull()
    assert code == 2
    assert f"the disk is full while {WEIGHTS} of kyutai/test is downloaded: free some space, or set HF_HOME" in line


def test_folder_that_cannot_be_written() -> None:
    error = PermissionError(errno.EACCES, "Permission denied", "/cache/blobs")
    sentence = hub_errors.explain(error, MODEL, WEIGHTS, "https://hub")
    expected = "/cache/blobs (Permission denied): set HF_HOME to a folder that can be written"
    assert sentence == f"cannot write {WEIGHTS} of {MODEL} {expected}"


def test_offline(hub: LoopbackHub, tmp_path: Path, pull: Pull, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    code, line = pull()
    assert code == 2
    assert line.startswith("tympan: HF_HUB_OFFLINE is set, and config.json of kyutai/test is not in the local cache")
    assert "run `tympan pull` on another machine and copy the folder that it writes" in line
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    assert pull()[0] == 0
    before = sum(hub.sent.values())
    for offline, url in ((True, hub.url), (False, f"http://127.0.0.1:{free_port()}")):
        use_hub(monkeypatch, url, tmp_path / "cache")
        monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", offline)
        assert pull()[0] == 0
    assert sum(hub.sent.values()) == before


@pytest.mark.parametrize("failure", [Failure(429), Failure(503), Failure(401, NOT_FOUND), Failure(403)])
def test_cache_is_used_while_the_hub_refuses(failure: Failure, hub: LoopbackHub, pull: Pull) -> None:
    assert pull()[0] == 0
    hub.failure = failure
    assert pull()[0] == 0
    assert pull.count("; the cache is used") == 1
