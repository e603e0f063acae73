"""Kyutai's file and microphone scripts and unmute's client class, unmodified, from clones of their repositories.

They are in no registry. `KYUTAI_SCRIPTS` names a clone of `delayed-streams-modeling`, `UNMUTE` one of `unmute`; without
them the tests are skipped.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest
from support.clients import KEY, MAX_ERROR_RATE, TEXT, pcm, speech, wav
from support.server import LiveServer
from support.speech import plain_words, word_error_rate

pytestmark = pytest.mark.clients

RATE = 24_000

MICROPHONE = """
    '''`sounddevice` with a microphone into which the file `SPEECH` is spoken, in real time.'''
    import os, threading, time
    import numpy as np

    class InputStream:
        def __init__(self, *, samplerate, channels, dtype, callback, blocksize):
            self.callback, self.size, self.seconds = callback, blocksize, blocksize / samplerate
            self.ended = threading.Event()

        def speak(self):
            samples = np.fromfile(os.environ["SPEECH"], "<i2").astype(dtype="f4") / 32768
            for start in range(0, len(samples), self.size):
                block = samples[start : start + self.size]
                self.callback(np.pad(block, (0, self.size - len(block)))[:, None], self.size, None, None)
                if self.ended.wait(self.seconds):
                    return

        def __enter__(self):
            threading.Thread(target=self.speak, daemon=True).start()

        def __exit__(self, *error):
            self.ended.set()
"""

UNMUTE_SESSION = """
    import asyncio, json, os, sys, types
    import numpy as np

    fastrtc = sys.modules["fastrtc"] = types.ModuleType("fastrtc")  # of which the class uses one function
    fastrtc.audio_to_float32 = lambda audio: audio.astype(np.float32) / 32768
    prompts = sys.modules["unmute.llm.system_prompt"] = types.ModuleType("system_prompt")  # for the language model
    prompts.Instructions = dict
    from unmute import kyutai_constants
    from unmute.stt.speech_to_text import SpeechToText, STTMarkerMessage, STTWordMessage

    kyutai_constants.HEADERS["kyutai-api-key"] = os.environ["KEY"]

    async def main():
        stt = SpeechToText()
        await stt.start_up()
        samples = np.fromfile(os.environ["SPEECH"], "<i2")
        for start in range(0, len(samples), 1920):
            await stt.send_audio(samples[start : start + 1920])
        await stt.send_marker(7)
        words = []
        async for message in stt:
            if isinstance(message, STTMarkerMessage):
                break
            words.append(message.text)
        result = {"words": words, "marker": message.id, "time": stt.current_time, "seconds": len(samples) / 24000}
        print(json.dumps(result))
        reader = asyncio.create_task(drain(stt))
        await stt.shutdown()
        await reader

    async def drain(stt):
        async for _ in stt:
            pass

    asyncio.run(main())
"""


def clone(variable: str, *path: str) -> Path:
    """Return a path in the clone that an environment variable names."""
    folder = os.environ.get(variable)
    if not folder:
        pytest.skip(f"{variable} names no clone of Kyutai's repository")
    return Path(folder, *path)


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("kyutai")
    samples = speech(RATE, pause_seconds=1.5)
    (folder / "talk.wav").write_bytes(wav(samples, RATE))
    (folder / "talk.pcm").write_bytes(pcm(samples))
    (folder / "sounddevice.py").write_text(textwrap.dedent(MICROPHONE))
    (folder / "session.py").write_text(textwrap.dedent(UNMUTE_SESSION))
    return folder


def check_text(text: str) -> None:
    assert word_error_rate(TEXT, text) <= MAX_ERROR_RATE, text


def test_file_script(server: LiveServer, files: Path) -> None:
    pytest.importorskip("sphn")
    script = clone("KYUTAI_SCRIPTS", "scripts", "stt_from_file_rust_server.py")
    command = [sys.executable, str(script), str(files / "talk.wav"), "--url", server.url(""), "--api-key", KEY]
    output = subprocess.run([*command, "--rtf", "4"], capture_output=True, text=True, timeout=50, check=True).stdout
    words, times = output.split("\n\n")[0], output.split("\n\n")[1].splitlines()
    check_text(words)
    spans = [tuple(map(float, line[:18].replace("-", " ").split())) for line in times if line]
    assert len(spans) == len(words.split())
    assert spans == sorted(spans)


def test_microphone_script(server: LiveServer, files: Path) -> None:
    script = clone("KYUTAI_SCRIPTS", "scripts", "stt_from_mic_rust_server.py")
    environment = {**os.environ, "PYTHONPATH": str(files), "SPEECH": str(files / "talk.pcm"), "PYTHONUNBUFFERED": "1"}
    command = [sys.executable, str(script), "--url", server.url(""), "--api-key", KEY, "--show-vad"]
    text = ""
    with subprocess.Popen(command, stdout=subprocess.PIPE, env=environment) as process:
        assert process.stdout is not None
        while "ten" not in plain_words(text):
            text += process.stdout.read1().decode()  # type: ignore[attr-defined]
            assert process.poll() is None, text
        process.send_signal(signal.SIGINT)
    check_text(text.split("Starting the transcription")[1].replace("|", ""))


def test_unmute(server: LiveServer, files: Path) -> None:
    folder = clone("UNMUTE")
    environment = {**os.environ, "PYTHONPATH": str(folder), "SPEECH": str(files / "talk.pcm"), "KEY": KEY}
    environment["KYUTAI_STT_URL"] = server.url("")
    command = [sys.executable, str(files / "session.py")]
    process = subprocess.run(command, capture_output=True, text=True, timeout=50, env=environment, check=False)
    assert process.returncode == 0, process.stderr
    result = json.loads(process.stdout.splitlines()[-1])
    check_text(" ".join(result["words"]))
    assert result["marker"] == 7
    assert result["time"] == pytest.approx(result["seconds"] - 0.5, abs=0.17)  # its clock counts steps
