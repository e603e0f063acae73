"""Recordings: their content, the conditions under which they are made, and failures of the disk."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import httpx2 as httpx
import numpy as np
import pytest
from msgspec import structs
from support.recordings import audio_of, consented, lines_of, names
from support.server import LiveServer
from support.speech import clip
from support.waiting import wait_until
from websockets.sync.client import connect

from tympan.engine.scripted import scripted_words
from tympan.errors import ConfigError, MissingPackageError
from tympan.messages import AudioFormat
from tympan.server.observability import recording


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return consented(tmp_path / "recordings")


@pytest.fixture
def server(folder: Path) -> Iterator[LiveServer]:
    with LiveServer(record_folder=str(folder)) as server:
        yield server


def speak(server: LiveServer, audio: bytes, **query: object) -> list[dict[str, object]]:
    with connect(server.url(**query)) as socket:
        for start in range(0, len(audio), 3840):
            socket.send(audio[start : start + 3840])
        socket.send(json.dumps({"type": "flush", "id": 7}))
        socket.send("EOS")
        return [json.loads(message) for message in socket]


def outcomes(server: LiveServer) -> dict[str, float]:
    lines = httpx.get(server.http("/metrics")).text.splitlines()
    counts = [line for line in lines if line.startswith("tympan_recordings_total{")]
    return {line.split('"')[1]: float(line.split()[-1]) for line in counts}


def test_recording_of_audio_and_events(server: LiveServer, folder: Path) -> None:
    pcm = clip("counting").pcm()
    messages = speak(server, pcm, token="a-secret", events="ready,word")
    wait_until(lambda: names(folder) == ["*.flac", "*.jsonl"])
    id = str(messages[0]["session"])
    assert audio_of(folder / f"{id}.flac")[:, 0].tobytes() == pcm, "bit for bit"
    head, *lines = lines_of(folder / f"{id}.jsonl")
    assert (head["session"], head["protocol"], head["model"], head["path"]) == (id, "native", "scripted", "/v1/stream")
    assert head["format"] == structs.asdict(AudioFormat("s16le", 24_000, 1))
    assert "All speech in these tests" in head["consent"]
    words = [line for line in lines if line.get("event") == "word"]
    assert [word["text"] for word in words] == [word["text"] for word in messages if word["type"] == "word"]
    assert all(0 <= word["end"] <= word["heard"] for word in words)
    assert [line["at"] for line in lines] == sorted(line["at"] for line in lines)
    assert {"command": "flush", "marker": 7}.items() <= next(line for line in lines if "command" in line).items()
    assert (lines[-1]["event"], lines[-1]["code"], lines[-1]["words"]) == ("closed", "1000", len(words))
    assert "a-secret" not in (folder / f"{id}.jsonl").read_text()
    assert {path.stat().st_mode & 0o777 for path in folder.glob("*.flac")} == {0o600}
    assert outcomes(server) == {"complete": 1.0}


def test_two_channels(server: LiveServer, folder: Path) -> None:
    left = (np.arange(48_000) % 7919).astype("<i2")
    both = np.stack((left, -left), axis=1)
    speak(server, both.tobytes(), channels=2)
    wait_until(lambda: names(folder) == ["*.flac", "*.jsonl"])
    assert np.array_equal(audio_of(next(folder.glob("*.flac"))), both)


def test_upload_is_recorded(server: LiveServer, folder: Path) -> None:
    answer = httpx.post(
        server.http("/v1/listen?encoding=linear16&sample_rate=24000"),
        content=bytes(48_000),
        headers={"content-type": "audio/raw"},
    )
    assert answer.status_code == 200
    wait_until(lambda: names(folder) == ["*.flac", "*.jsonl"])
    assert lines_of(next(folder.glob("*.jsonl")))[-1]["code"] == "ok"


def test_client_declines(server: LiveServer, folder: Path) -> None:
    assert speak(server, bytes(48_000), record="no")[-1] == {"status": "complete"}
    with connect(server.url("/v1/listen", mip_opt_out="true", encoding="linear16", sample_rate=24000)) as socket:
        socket.send(json.dumps({"type": "CloseStream"}))
        list(socket)
    assert outcomes(server) == {"declined": 2.0}
    assert names(folder) == []


def test_open_recording_has_part_suffix(server: LiveServer, folder: Path) -> None:
    with connect(server.url()) as socket:
        socket.send(bytes(48_000))
        wait_until(lambda: names(folder) == ["*.flac.part", "*.jsonl.part"])
    wait_until(lambda: names(folder) == ["*.flac", "*.jsonl"])


def test_health_reports_recording(server: LiveServer) -> None:
    health = httpx.get(server.http("/health")).json()
    assert health["recording"] == "on"
    assert "recorded" in health["notice"]
    with LiveServer() as other:
        health = httpx.get(other.http("/health")).json()
    assert health["recording"] == "off"
    assert "recorded" not in health["notice"]


def test_withdrawn_consent_stops_recording(
    monkeypatch: pytest.MonkeyPatch, folder: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(recording, "RETRY_SECONDS", 0.3)
    with LiveServer(record_folder=str(folder)) as server:
        with connect(server.url()) as socket:
            socket.send(bytes(48_000))
            wait_until(lambda: names(folder) == ["*.flac.part", "*.jsonl.part"])
            (folder / "CONSENT").unlink()
            wait_until(lambda: names(folder) == ["*.incomplete.flac", "*.incomplete.jsonl"])
            socket.send(bytes(48_000))
            socket.send("EOS")
            assert json.loads(list(socket)[-1]) == {"status": "complete"}
        speak(server, bytes(48_000))
        assert outcomes(server) == {"incomplete": 1.0, "skipped": 1.0}
        assert httpx.get(server.http("/health")).json()["recording"] == "stopped"
        consented(folder)
        wait_until(lambda: httpx.get(server.http("/health")).json()["recording"] == "on")
        speak(server, bytes(48_000))
        wait_until(lambda: len(names(folder)) == 4)
    assert capfd.readouterr().err.count("recording has stopped") == 1


def test_folder_size_limit(folder: Path, capfd: pytest.CaptureFixture[str]) -> None:
    noise = np.random.default_rng(0).integers(-9000, 9000, 24_000 * 20).astype("<i2").tobytes()
    with LiveServer(record_folder=str(folder), record_bytes=300_000) as server:
        with connect(server.url(events="word")) as socket:
            for start in range(0, len(noise), 38_400):
                socket.send(noise[start : start + 38_400])
            socket.send("EOS")
            messages = [json.loads(message) for message in socket]
        expected = [word.text for word in scripted_words(250)]
        assert [word["text"] for word in messages if word["type"] == "word"] == expected
        wait_until(lambda: names(folder) == ["*.incomplete.flac", "*.incomplete.jsonl"])
        assert 250_000 < sum(path.stat().st_size for path in folder.iterdir()) < 400_000
        recorded = audio_of(next(folder.glob("*.flac")))[:, 0].tobytes()
        assert len(recorded) > 200_000
        assert noise.startswith(recorded), "the incomplete file can be played"
        assert outcomes(server) == {"incomplete": 1.0}
    assert capfd.readouterr().err.count("has reached its limit of 300000 bytes") == 1


def test_slow_disk_abandons_recording(
    monkeypatch: pytest.MonkeyPatch, folder: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(recording, "MAX_QUEUED_BYTES", 100_000)
    monkeypatch.setattr(recording, "TICK_SECONDS", 1.0)
    with LiveServer(record_folder=str(folder)) as server:
        words = speak(server, bytes(48_000 * 20))
        assert "".join(str(word.get("text", "")) for word in words) == " ".join(
            word.text for word in scripted_words(250)
        )
        wait_until(lambda: names(folder) == ["*.incomplete.flac", "*.incomplete.jsonl"])
        assert outcomes(server) == {"incomplete": 1.0}
    assert capfd.readouterr().err.count("the disk is too slow") == 1


@pytest.mark.parametrize(
    ("spoil", "reason"),
    [
        (lambda folder: folder.chmod(0o750), "other users may enter"),
        (lambda folder: (folder / "CONSENT").unlink(), "does not state who has agreed"),
        (lambda folder: (folder / "CONSENT").write_text(" \n"), "does not state who has agreed"),
        (lambda folder: folder.rename(folder.with_name("elsewhere")), "there is no folder"),
    ],
)
def test_unsuitable_folder_prevents_start(folder: Path, spoil: object, reason: str) -> None:
    assert callable(spoil)
    spoil(folder)
    command = [sys.executable, "-m", "tympan", "serve", "--model", "scripted", "--port", "0"]
    result = subprocess.run(
        [*command, "--record-folder", str(folder)], capture_output=True, text=True, timeout=30, check=False
    )
    assert result.returncode == 2
    assert reason in result.stderr
    assert len(result.stderr.splitlines()) == 1


def test_missing_folder_is_config_error(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="record_folder"), LiveServer(record_folder=str(tmp_path / "none")):
        pass


def test_missing_package(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (
        "tympan.server.observability.recording",
        "tympan.server.observability.recording_files",
        "tympan.audio.containers.flac",
    ):
        monkeypatch.delitem(sys.modules, module, raising=False)
    monkeypatch.setitem(sys.modules, "soundfile", None)
    with pytest.raises(MissingPackageError, match=r"\[recording\]"), LiveServer(record_folder=str(folder)):
        pass
