"""Downloads from a loopback hub: complete, interrupted, and of other files than expected."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from support.hub_client import MODEL, WEIGHTS
from support.loopback_hub import COMMIT, Content, Failure, LoopbackHub
from support.published import LM_1B, MIMI, MIMI_NAME, config

from tympan.cli.main import main
from tympan.models.checkpoints import download
from tympan.transcript.tokenizer import SyntheticTokenizer


def pull(capfd: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str]:
    """Return the exit code and the last line of the output; an error is one line."""
    code = main(["pull", MODEL, *arguments])
    out, err = capfd.readouterr()
    return code, out.strip() if code == 0 else err.strip().splitlines()[-1]


def unfinished(cache: Path) -> list[Path]:
    return list(cache.rglob("*.incomplete"))


def test_complete_download(hub: LoopbackHub, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    code, line = pull(capfd)
    total = sum(content.size for content in hub.files.values())
    snapshot = tmp_path / "cache" / "models--kyutai--test" / "snapshots" / COMMIT
    assert (code, line) == (0, f"{MODEL}: 5 files, {download.size_text(total)}, in {snapshot}")
    assert {name: (snapshot / name).read_bytes() for name in hub.files} == {
        name: content.read(0, content.size) for name, content in hub.files.items()
    }
    assert {name: hub.sent[name] for name in hub.files} == {name: file.size for name, file in hub.files.items()}
    assert not unfinished(tmp_path)
    assert pull(capfd)[0] == 0
    assert sum(hub.sent.values()) == total, "everything is in the cache"


def test_small_files_come_first(hub: LoopbackHub, capfd: pytest.CaptureFixture[str]) -> None:
    del hub.files["tokenizer.json"]
    code, line = pull(capfd)
    assert code == 2
    assert f"{MODEL} has no tokenizer: the file tokenizer.json is missing" in line
    assert hub.sent[WEIGHTS] == hub.sent["mimi.safetensors"] == 0


def test_progress_without_a_terminal(hub: LoopbackHub, capfd: pytest.CaptureFixture[str]) -> None:
    assert main(["pull", MODEL]) == 0
    lines = capfd.readouterr().err.splitlines()
    size = download.size_text(hub.files[WEIGHTS].size)
    assert any(line.startswith(f"tympan: downloading {WEIGHTS}: ") and line.endswith(f"% of {size}") for line in lines)
    assert f"tympan: verifying {WEIGHTS}" in lines


def test_cut_connections(
    hub: LoopbackHub, tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    hub.cut_every = 60_000
    monkeypatch.setattr(download.time, "sleep", lambda seconds: pytest.fail("waits") if seconds else None)
    assert main(["pull", MODEL]) == 0
    assert f"{WEIGHTS}: interrupted at " in caplog.text
    assert len([start for name, start in hub.ranges if name == WEIGHTS]) >= hub.files[WEIGHTS].size // 60_000
    assert hub.sent[WEIGHTS] == hub.files[WEIGHTS].size, "no byte is sent twice"
    assert not unfinished(tmp_path)


def test_server_without_ranges(hub: LoopbackHub, capfd: pytest.CaptureFixture[str]) -> None:
    hub.ignores_ranges = True
    assert pull(capfd)[0] == 0


def test_hub_that_stays_silent(
    hub: LoopbackHub, tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The part that was downloaded is kept, and the next start continues there."""
    waits: list[float] = []
    monkeypatch.setattr(download.time, "sleep", waits.append)
    hub.content_failure = Failure(503)
    code, line = pull(capfd)
    assert code == 2
    assert "is temporarily unavailable (status 503): run the same command again later, which continues" in line
    assert waits == [1, 2, 4, 8]
    assert sum(hub.sent.values()) == 0
    hub.content_failure = None
    assert pull(capfd)[0] == 0


def test_corrupted_content(hub: LoopbackHub, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    good = hub.files[WEIGHTS]
    hub.files[WEIGHTS] = replace(good, start=good.start[:-1] + b"\x55")
    code, line = pull(capfd)
    assert code == 2
    assert f"{WEIGHTS} was changed on its way: its checksum is not {good.etag}" in line
    hub.files[WEIGHTS] = good
    assert pull(capfd)[0] == 0, "nothing of the corrupted file is used"


@pytest.mark.parametrize("kept", [100_000, 10_000_000])
def test_damaged_part_is_downloaded_again(kept: int, hub: LoopbackHub, tmp_path: Path) -> None:
    """A part that another program left, of the same size as the file or larger, with other content."""
    blobs = tmp_path / "cache" / "models--kyutai--test" / "blobs"
    blobs.mkdir(parents=True)
    part = hub.files[WEIGHTS].start[:50_000] + bytes(kept)
    (blobs / f"{hub.files[WEIGHTS].etag}.tympan.incomplete").write_bytes(part)
    assert main(["pull", MODEL]) == 0
    assert (blobs / hub.files[WEIGHTS].etag).read_bytes() == hub.files[WEIGHTS].start
    assert not unfinished(tmp_path)


def test_folder_for_a_machine_without_network(
    hub: LoopbackHub, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "image" / "model"
    code, line = pull(capfd, "--folder", str(folder))
    assert code == 0
    assert line.endswith(f"in {folder}")
    assert {file.name for file in folder.iterdir()} == set(hub.files)
    assert not any(file.is_symlink() for file in folder.iterdir())
    assert main(["pull", str(folder)]) == 0
    assert main(["models", str(folder)]) == 0


def one_percent(files: dict[str, Content]) -> float:
    return sum(content.size for content in files.values()) / 100


PUBLISHED_CHANGES: dict[str, tuple[Callable[[dict[str, Content]], object], str]] = {
    "name": (
        lambda files: files.update({WEIGHTS: renamed(files[WEIGHTS], b"text_emb.weight", b"text_emb.weighs")}),
        "the tensor text_emb.weight [8001, 2048] is missing",
    ),
    "shape": (
        lambda files: files.update({WEIGHTS: renamed(files[WEIGHTS], b"[8001,2048]", b"[2048,8001]")}),
        "text_emb.weight has the shape [2048, 8001], expected [8001, 2048]",
    ),
    "type": (
        lambda files: files.update({MIMI_NAME: renamed(files[MIMI_NAME], b'"F32"', b'"I32"')}),
        "has the type I32, expected BF16, F16 or F32",
    ),
    "size": (
        lambda files: files.update({WEIGHTS: replace(files[WEIGHTS], size=1_978_522_199)}),
        "is truncated: expected 1978522200 bytes, found 1978522199",
    ),
    "missing codec": (lambda files: files.pop(MIMI_NAME), f"has no file {MIMI_NAME}"),
}


def renamed(content: Content, old: bytes, new: bytes) -> Content:
    assert old in content.start
    return replace(content, start=content.start.replace(old, new))


@pytest.mark.parametrize("name", PUBLISHED_CHANGES)
def test_deviation_is_reported_before_one_percent(
    name: str, hub: LoopbackHub, capfd: pytest.CaptureFixture[str]
) -> None:
    """The published 1B in full size; its hub never has to send it."""
    change, expected = PUBLISHED_CHANGES[name]
    tokenizer = SyntheticTokenizer(8000)
    pieces = {tokenizer.piece(token) or f"<{token}>": token for token in range(tokenizer.size)}
    values = json.loads(config("1b")) | {"tokenizer_name": "tokenizer.json"}
    hub.files = {
        "config.json": Content.of(json.dumps(values).encode()),
        "tokenizer.json": Content.of(json.dumps({"model": {"vocab": pieces}}).encode()),
        WEIGHTS: Content(LM_1B.data, LM_1B.size, "1" * 64),
        MIMI_NAME: Content(MIMI.data, MIMI.size, "2" * 64),
    }
    change(hub.files)
    hub.sent = Counter()
    code, line = pull(capfd)
    assert code == 2
    assert expected in line
    assert sum(hub.sent.values()) < one_percent(hub.files)
    weights_bytes = hub.sent[WEIGHTS] + hub.sent[MIMI_NAME]
    assert weights_bytes <= 1 << 18
