"""Downloads from a loopback hub: complete, interrupted, refused; what `tympan pull` prints."""

from __future__ import annotations

import errno
import json
import shutil
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from random_checkpoint import write_checkpoint
from support.loopback_hub import COMMIT, Content, Failure, LoopbackHub
from support.ports import free_port
from support.published import LM_1B, MIMI, MIMI_NAME, config

from tympan.cli.main import main
from tympan.models.checkpoints import download, hub_errors
from tympan.transcript.tokenizer import SyntheticTokenizer

MODEL = "kyutai/test"
WEIGHTS = "model.safetensors"


@pytest.fixture(scope="module")
def contents(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Content]:
    folder = tmp_path_factory.mktemp("published")
    write_checkpoint("random:tiny", folder)
    return {file.name: Content.of(file.read_bytes()) for file in folder.iterdir()}


@pytest.fixture
def hub(contents: dict[str, Content], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[LoopbackHub]:
    with LoopbackHub(dict(contents)) as server:
        use_hub(monkeypatch, server.url, tmp_path / "cache")
        yield server


def use_hub(monkeypatch: pytest.MonkeyPatch, url: str, cache: Path) -> None:
    """Redirect huggingface_hub, which reads its variables when it is imported."""
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", url)
    template = f"{url}/{{repo_id}}/resolve/{{revision}}/{{filename}}"
    monkeypatch.setattr("huggingface_hub.constants.HUGGINGFACE_CO_URL_TEMPLATE", template)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(cache))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    monkeypatch.setattr("huggingface_hub.constants.HF_TOKEN_PATH", str(cache / "token"))
    monkeypatch.delenv("HF_TOKEN", raising=False)


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
def test_refusal(name: str, hub: LoopbackHub, capfd: pytest.CaptureFixture[str]) -> None:
    hub.failure, expected = REFUSALS[name]
    code, line = pull(capfd)
    assert code == 2
    assert line.startswith(f"tympan: {expected.format(hub=hub.url)}")
    assert line.endswith("`--model embedded` runs without any download")


@pytest.mark.parametrize("status", [429, 503])
def test_temporary_failures_are_tried_again(status: int, hub: LoopbackHub, caplog: pytest.LogCaptureFixture) -> None:
    hub.failure = Failure(status, {"Retry-After": "0"}, times=2)
    hub.content_failure = Failure(status, {"Retry-After": "0"}, times=2)
    assert main(["pull", MODEL]) == 0
    assert str(status) in caplog.text


def test_stale_token(hub: LoopbackHub, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch) -> None:
    """A public model is downloaded without the token; the file server, which is another host, never sees it."""
    invalid = {"X-Error-Message": "Invalid credentials in Authorization header"}
    monkeypatch.setenv("HF_TOKEN", "hf_stale")
    hub.failure = Failure(401, invalid, with_token_only=True)
    assert main(["pull", MODEL]) == 0
    assert caplog.text.count("does not accept the access token (401): trying without it; run `hf auth login`") == 1
    assert hub.leaked_tokens == 0


def test_valid_token_is_not_sent_to_the_file_server(hub: LoopbackHub, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_valid")
    assert main(["pull", MODEL]) == 0
    assert hub.leaked_tokens == 0


def test_private_repository_with_a_stale_token(
    hub: LoopbackHub, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_stale")
    hub.failure = Failure(401, {"X-Error-Message": "Invalid credentials in Authorization header"})
    code, line = pull(capfd)
    assert code == 2
    assert "does not accept the access token (401) for kyutai/test: run `hf auth login`" in line


def test_disk_without_room(
    hub: LoopbackHub, tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(download.shutil, "disk_usage", lambda path: usage._replace(free=100_000))
    code, line = pull(capfd)
    assert code == 2
    assert f"not enough disk space in {tmp_path}/cache/models--kyutai--test: the download needs " in line
    assert "0.10 MB are free; free some space, or set HF_HOME to a folder on another disk" in line
    assert hub.sent[WEIGHTS] <= 1 << 15


def test_disk_that_fills_up(hub: LoopbackHub, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    blobs = tmp_path / "cache" / "models--kyutai--test" / "blobs"
    blobs.mkdir(parents=True)
    (blobs / f"{hub.files[WEIGHTS].etag}.tympan.incomplete").symlink_to("/dev/full")
    code, line = pull(capfd)
    assert code == 2
    assert f"the disk is full while {WEIGHTS} of kyutai/test is downloaded: free some space, or set HF_HOME" in line


def test_folder_that_cannot_be_written() -> None:
    error = PermissionError(errno.EACCES, "Permission denied", "/cache/blobs")
    sentence = hub_errors.explain(error, MODEL, WEIGHTS, "https://hub")
    expected = "/cache/blobs (Permission denied): set HF_HOME to a folder that can be written"
    assert sentence == f"cannot write {WEIGHTS} of {MODEL} {expected}"


def test_offline(
    hub: LoopbackHub, tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    code, line = pull(capfd)
    assert code == 2
    assert line.startswith("tympan: HF_HUB_OFFLINE is set, and config.json of kyutai/test is not in the local cache")
    assert "run `tympan pull` on another machine and copy the folder that it writes" in line
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    assert pull(capfd)[0] == 0
    before = sum(hub.sent.values())
    for offline, url in ((True, hub.url), (False, f"http://127.0.0.1:{free_port()}")):
        use_hub(monkeypatch, url, tmp_path / "cache")
        monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", offline)
        assert pull(capfd)[0] == 0
    assert sum(hub.sent.values()) == before


@pytest.mark.parametrize("failure", [Failure(429), Failure(503), Failure(401, NOT_FOUND), Failure(403)])
def test_cache_is_used_while_the_hub_refuses(
    failure: Failure, hub: LoopbackHub, caplog: pytest.LogCaptureFixture
) -> None:
    assert main(["pull", MODEL]) == 0
    hub.failure = failure
    assert main(["pull", MODEL]) == 0
    assert caplog.text.count("; the cache is used") == 1


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
