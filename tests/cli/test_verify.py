"""`tympan verify`: the files against the published hashes, the words of a clip, and the line that it prints."""

from __future__ import annotations

import hashlib
import json
import shutil
from pathlib import Path

import jiwer
import pytest
from random_checkpoint import write_checkpoint
from support.hub_client import MODEL, WEIGHTS, use_hub
from support.loopback_hub import COMMIT, Content, LoopbackHub

from tympan.cli.checkpoints import verify
from tympan.cli.main import main
from tympan.models.checkpoints import published
from tympan.models.checkpoints.load import open_stored
from tympan.models.checkpoints.published import PublishedFile, PublishedModel

SETTINGS = ["--device", "cpu", "--dtype", "f32", "--max-streams", "2"]


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("written")
    write_checkpoint("random:tiny", folder)
    return folder


@pytest.fixture
def folder(written: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A small model that is published as the 1B is."""
    publish(monkeypatch, written, "kyutai/tiny", "0123456789abcdef" * 2 + "01234567")
    return Path(shutil.copytree(written, tmp_path / "model"))


def publish(monkeypatch: pytest.MonkeyPatch, written: Path, name: str, revision: str) -> None:
    files = [
        PublishedFile(file.name, file.stat().st_size, hashlib.sha256(file.read_bytes()).hexdigest())
        for file in sorted(written.iterdir(), key=lambda file: file.name != "config.json")
    ]
    monkeypatch.setattr(published, "PUBLISHED", (PublishedModel(name, revision, tuple(files)),))


def words_of(folder: Path, clip: Path, capsys: pytest.CaptureFixture[str]) -> str:
    assert main(["transcribe", "--model", str(folder), *SETTINGS, "--format", "tokens", str(clip)]) == 0
    return " ".join(word["text"] for word in json.loads(capsys.readouterr().out)["words"])


def test_one_line(folder: Path, spoken_file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    text = words_of(folder, spoken_file, capsys)
    assert main(["verify", str(folder), *SETTINGS, "--clip", str(spoken_file), "--text", text]) == 0
    (line,) = capsys.readouterr().out.splitlines()
    words = len(text.split())
    assert line.startswith(
        f"{folder} verified: 2 streams in real time, 0.5 s delay, 0 errors in {words} words; 5 files, 0.67 MB, "
        "identical to kyutai/tiny@0123456789ab"
    )


def test_files_of_a_hub(
    written: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Nothing is in the cache; of a second hub, the weights have the published header and another payload."""
    publish(monkeypatch, written, MODEL, COMMIT)
    files = {file.name: Content.of(file.read_bytes()) for file in written.iterdir()}
    with LoopbackHub(files) as hub:
        use_hub(monkeypatch, hub.url, tmp_path / "cache")
        assert main(["verify", MODEL, *SETTINGS]) == 0
        line = capsys.readouterr().out
        assert line.startswith(f"{MODEL} verified: 2 streams in real time, 0.5 s delay, ")
        assert f"5 files, 0.67 MB, identical to {MODEL}@{COMMIT[:12]}" in line
        assert sum(hub.sent.values()) == sum(content.size for content in files.values())
    weights = files[WEIGHTS].start
    with LoopbackHub({**files, WEIGHTS: Content.of(weights[:-1] + bytes([weights[-1] ^ 1]))}) as hub:
        use_hub(monkeypatch, hub.url, tmp_path / "other cache")
        assert main(["verify", MODEL, *SETTINGS]) == 2
        assert f"{WEIGHTS} differs from {MODEL}@{COMMIT[:12]}: expected {len(weights)} bytes" in capsys.readouterr().err


def test_wrong_words(folder: Path, spoken_file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    text = "one two three four five"
    assert main(["verify", str(folder), *SETTINGS, "--clip", str(spoken_file), "--text", text]) == 2
    assert "errors in 5 words, at most 15% are expected; found: " in capsys.readouterr().err


def test_without_a_clip(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["verify", str(folder), *SETTINGS]) == 0
    assert "0.5 s delay, words not checked (give --clip and --text); 5 files" in capsys.readouterr().out


@pytest.mark.parametrize("name", ["model.safetensors", "mimi.safetensors", "tokenizer.json"])
def test_damaged_file(name: str, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data = bytearray((folder / name).read_bytes())
    data[-20] ^= 1
    (folder / name).write_bytes(data)
    assert main(["verify", str(folder), *SETTINGS]) == 2
    error = capsys.readouterr().err
    assert f"{folder / name} differs from kyutai/tiny@0123456789ab: expected {len(data)} bytes with SHA-256 " in error
    assert "remove it, and run the same command again" in error


def test_damaged_file_in_the_cache(written: Path, tmp_path: Path) -> None:
    """In the hub's cache, files are links to contents that are named after their hashes."""
    for file in written.iterdir():
        content = file.read_bytes()
        blob = tmp_path / "blobs" / hashlib.sha256(content).hexdigest()
        blob.parent.mkdir(exist_ok=True)
        blob.write_bytes(content[:-1] + bytes([content[-1] ^ 1]) if file.name == "model.safetensors" else content)
        (tmp_path / "snapshot").mkdir(exist_ok=True)
        (tmp_path / "snapshot" / file.name).symlink_to(blob)
    with pytest.raises(verify.ModelError, match=r"model\.safetensors is damaged: its SHA-256 is [0-9a-f]{64}; remove "):
        verify.compare_files(open_stored(str(tmp_path / "snapshot")))


def test_unknown_revision(written: Path) -> None:
    assert verify.compare_files(open_stored(str(written))).endswith("of a revision that Tympan does not know")


def test_clip_without_text_needs_the_2_6b(folder: Path, spoken_file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["verify", str(folder), *SETTINGS, "--clip", str(spoken_file)]) == 2
    assert "the tokens of a clip are known for the 2.6B only: give --text" in capsys.readouterr().err


def test_tokens_of_the_2_6b(folder: Path, spoken_file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    values = json.loads((folder / "config.json").read_text())
    values["stt_config"] = {"audio_delay_seconds": 2.5, "audio_silence_prefix_seconds": 1.0}
    (folder / "config.json").write_text(json.dumps(values))
    assert main(["verify", str(folder), *SETTINGS, "--clip", str(spoken_file)]) == 2
    assert "errors in 32 tokens of LibriSpeech 1272-128104-0000, at most 15%" in capsys.readouterr().err


@pytest.mark.parametrize("model", ["embedded", "scripted"])
def test_models_without_files(model: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["verify", model]) == 2
    assert f"the model {model} has no files to verify" in capsys.readouterr().err


@pytest.mark.parametrize("found", ["a b c d", "a x c d", "a b b c d", "b c d", "", "d c b a", "a b c d e f"])
def test_edit_distance(found: str) -> None:
    expected = ["a", "b", "c", "d"]
    assert verify.edit_distance(expected, found.split()) == round(4 * jiwer.wer("a b c d", found))
