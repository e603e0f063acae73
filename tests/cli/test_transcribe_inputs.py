"""What `transcribe` and `listen` read: pipes, standard input, URLs; each is opened once."""

from __future__ import annotations

import functools
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import IO

import numpy as np
import pytest
from conftest import write_silence
from support.audio_encoding import Part, Track, encode, mux, voice
from support.server import LiveServer

from tympan.audio.files import AudioInput
from tympan.audio.source import open_path
from tympan.cli.main import main
from tympan.errors import AudioError
from tympan.messages import Warning

TEN = " ".join(f"word{number}" for number in range(10))
TWENTY = " ".join(f"word{number}" for number in range(10, 20))
COMMAND = (sys.executable, "-m", "tympan")
LOCAL = ("transcribe", "--model", "scripted:0")


class Quiet(SimpleHTTPRequestHandler):
    """Serves a folder without writing a log."""

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def website(tmp_path: Path) -> Iterator[str]:
    handler = functools.partial(Quiet, directory=str(tmp_path))
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


def transcribed(*arguments: str, data: bytes) -> subprocess.CompletedProcess[bytes]:
    return subprocess.run([*COMMAND, *LOCAL, *arguments], input=data, capture_output=True, timeout=60, check=False)


@pytest.mark.parametrize("name", ["-", "/dev/stdin"])
def test_standard_input(name: str, silent_file: Path) -> None:
    result = transcribed(name, data=silent_file.read_bytes())
    assert result.stdout.decode() == f"{TEN}\n{TWENTY}\n"
    assert result.returncode == 0


def test_standard_input_from_a_file(silent_file: Path) -> None:
    with silent_file.open("rb") as file:
        result = subprocess.run([*COMMAND, *LOCAL, "-"], stdin=file, capture_output=True, timeout=60, check=True)
    assert result.stdout.decode() == f"{TEN}\n{TWENTY}\n"


def test_pipe_with_the_index_at_its_end(tmp_path: Path) -> None:
    """A named pipe can be read once, and not from its end."""
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    data = encode(voice(2.0, 16_000), 16_000, "mp4", "aac")
    assert data.index(b"moov") > data.index(b"mdat")
    writer = threading.Thread(target=pipe.write_bytes, args=(data,))
    writer.start()
    with AudioInput(pipe) as audio:
        samples = np.concatenate(list(audio.blocks(24_000)))
    writer.join()
    assert len(samples) / 24_000 == pytest.approx(2.0, abs=0.15)


def test_input_is_opened_once(silent_file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    opened: list[str] = []

    def counting(name: str) -> IO[bytes]:
        opened.append(name)
        return open_path(name)

    monkeypatch.setattr("tympan.audio.files.open_path", counting)
    assert main([*LOCAL, str(silent_file)]) == 0
    assert opened == [str(silent_file)]


def test_url(website: str, silent_file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    missing = f"{website}/missing.wav"
    assert main([*LOCAL, missing, f"{website}/{silent_file.name}"]) == 1
    output = capsys.readouterr()
    assert output.out == f"{TEN}\n{TWENTY}\n"
    assert output.err.startswith(f"tympan: {missing}: cannot be read: the server answered 404")


def test_url_of_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*LOCAL, "http://127.0.0.1:1/talk.mp3"]) == 1
    assert capsys.readouterr().err == "tympan: http://127.0.0.1:1/talk.mp3: cannot be read: connection refused\n"


def test_playlist_opens_no_file(tmp_path: Path, silent_file: Path) -> None:
    """Neither do those that libav detects by themselves; it would open them relative to the playlist."""
    playlists = {
        "a.m3u8": "#EXTM3U\n#EXT-X-TARGETDURATION:12\n#EXTINF:12,\nsilence.wav\n#EXT-X-ENDLIST\n",
        "a.ffconcat": "ffconcat version 1.0\nfile silence.wav\n",
        "a.sdp": "v=0\no=- 0 0 IN IP4 127.0.0.1\ns=x\nc=IN IP4 127.0.0.1\nt=0 0\nm=audio 5004 RTP/AVP 0\n",
        "a.mpd": '\x01<?xml version="1.0"?><MPD><BaseURL>silence.wav</BaseURL></MPD>',
        "a.txt": "\x01#EXTM3U\n#EXT-X-TARGETDURATION:12\n#EXTINF:12,\nsilence.wav\n#EXT-X-ENDLIST\n",
    }
    for name, text in playlists.items():
        path = tmp_path / name
        path.write_text(text)
        with AudioInput(path) as audio, pytest.raises(AudioError):
            list(audio.blocks(24_000))


def two_tracks() -> bytes:
    tracks = [
        Track("pcm_s16le", 16_000, [Part(0.0, voice(seconds, 16_000))], default=seconds == 2.0)
        for seconds in (1.0, 2.0)
    ]
    return mux("matroska", tracks)


def seconds_of(path: Path, track: int | None, warnings: list[Warning]) -> float:
    with AudioInput(path, track=track, report=warnings.append) as audio:
        return sum(map(len, audio.blocks(24_000))) / 24_000


def test_track(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "talk.mkv"
    path.write_bytes(two_tracks())
    warnings: list[Warning] = []
    assert [round(seconds_of(path, track, warnings)) for track in (None, 1, 2)] == [2, 1, 2]
    assert [warning.code for warning in warnings] == ["audio_track"], "a requested track is not reported"
    assert main([*LOCAL, str(path)]) == 0
    assert "of which track 2 (flagged as default) is transcribed; --track N selects another" in capsys.readouterr().err
    assert main([*LOCAL, "--track", "3", str(path)]) == 1
    assert "there is no audio track 3: expected 1 to 2" in capsys.readouterr().err


def test_warnings_are_printed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    silent_file = write_silence(tmp_path / "silence.wav", 12.0)
    with LiveServer(model="scripted") as server:
        for where in (["--model", "scripted:0"], ["--url", server.url("")]):
            assert main(["transcribe", *where, str(silent_file)]) == 0
            assert capsys.readouterr().err == (
                f"tympan: {silent_file}: the first 5 seconds are digital silence; is the microphone muted?\n"
            )


@pytest.mark.parametrize("encoding", ["s16le", "mulaw", "auto"])
def test_listen_to_a_pipe(encoding: str, tmp_path: Path) -> None:
    sent = {
        "s16le": bytes(9 * 16_000 * 2),
        "mulaw": b"\xff" * (9 * 16_000),
        "auto": write_silence(tmp_path / "a.wav", 9.0).read_bytes(),
    }[encoding]
    with LiveServer(model="scripted") as server:
        declared = ["--encoding", encoding, *([] if encoding == "auto" else ["--sample-rate", "16000"])]
        command = [*COMMAND, "listen", "--url", server.url(""), "--input", "-", *declared]
        result = subprocess.run(command, input=sent, capture_output=True, timeout=60, check=False)
    assert result.returncode == 0, result.stderr
    assert result.stdout.decode().split() == [f"word{number}" for number in range(23)][: len(result.stdout.split())]
    assert len(result.stdout.split()) == 18


def test_listen_refuses_a_format_of_the_microphone(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["listen", "--encoding", "s16le"]) == 2
    assert "--encoding and --sample-rate describe --input" in capsys.readouterr().err
