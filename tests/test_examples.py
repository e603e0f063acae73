"""The programs in `examples/` run as their documentation says, against a real server."""

from __future__ import annotations

import asyncio
import os
import re
import signal
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.proxy import Proxy
from support.server import LiveServer
from support.speech import word_error_rate

import tympan
from tympan.engine.scripted import scripted_words

EXAMPLES = Path(__file__).parent.parent / "examples"
SAMPLE = EXAMPLES / "sample.wav"
SAID = "The quick brown fox jumps over the lazy dog."

MICROPHONE = """
    '''`sounddevice` with a microphone into which a file is spoken.'''
    import os, threading
    import tympan

    class PortAudioError(Exception): ...

    def query_devices(device, kind):
        return {"default_samplerate": 24_000.0}

    class InputStream:
        samplerate = 24_000.0

        def __init__(self, *, callback, blocksize, **rest):
            self.callback, self.size = callback, blocksize

        def start(self):
            threading.Thread(target=self.speak, daemon=True).start()

        def close(self): ...

        def speak(self):
            for block in tympan.decode_file(os.environ["SPEECH"], 24_000):
                self.callback(block[:, None], len(block), None, None)
"""


@pytest.fixture(scope="module")
def embedded() -> Iterator[LiveServer]:
    with LiveServer(model="embedded", max_streams=1) as server:
        yield server


@pytest.fixture(scope="module")
def scripted() -> Iterator[LiveServer]:
    with LiveServer() as server:
        yield server


def command(name: str, server: LiveServer, *arguments: str) -> list[str]:
    return [sys.executable, str(EXAMPLES / name), *arguments, "--url", server.url("")]


def expected_words() -> list[str]:
    """What the scripted model says for the duration of the sample."""
    samples = sum(map(len, tympan.decode_file(SAMPLE)))
    return [word.text for word in scripted_words(-(-samples // 1920))]


def test_every_program_is_listed_and_tested() -> None:
    listed = (EXAMPLES / "README.md").read_text()
    tests = "".join(path.read_text() for path in Path(__file__).parent.rglob("test_*.py"))
    programs = [path for path in EXAMPLES.rglob("*.*") if path.suffix in (".py", ".html")]
    assert len(programs) >= 7
    for program in programs:
        assert f"`{program.relative_to(EXAMPLES)}`" in listed
        assert f'"{program.name}"' in tests


def test_sample_is_small() -> None:
    assert SAMPLE.stat().st_size < 200_000
    assert SAID in (EXAMPLES / "README.md").read_text()


def test_file(embedded: LiveServer) -> None:
    done = subprocess.run(command("file.py", embedded, str(SAMPLE)), capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    lines = re.findall(r"^ +\d+\.\d\d s  (.+)$", done.stdout, re.MULTILINE)
    assert word_error_rate(SAID, " ".join(lines)) <= 0.5


def test_microphone(scripted: LiveServer, tmp_path: Path) -> None:
    (tmp_path / "sounddevice.py").write_text(textwrap.dedent(MICROPHONE))
    path = os.pathsep.join([str(tmp_path), os.environ.get("PYTHONPATH", "")])
    environment = {**os.environ, "PYTHONPATH": path, "SPEECH": str(SAMPLE)}
    program = command("microphone.py", scripted)
    spoken = expected_words()[:-2]  # the last ones come with the end of the stream
    text = ""
    with subprocess.Popen(program, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=environment) as process:
        assert process.stdout is not None
        while len(text.split()) < len(spoken) and (data := os.read(process.stdout.fileno(), 4096)):
            text += data.decode()
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=20)
    assert text.split()[: len(spoken)] == spoken
    assert (process.returncode, errors) == (0, b"")


async def test_reconnect(scripted: LiveServer) -> None:
    async with Proxy(scripted.port) as proxy:
        arguments = [sys.executable, str(EXAMPLES / "reconnect.py"), str(SAMPLE), "--url", proxy.url]
        pipe = asyncio.subprocess.PIPE
        process = await asyncio.create_subprocess_exec(*arguments, stdout=pipe, stderr=pipe)
        assert process.stdout is not None
        first = await process.stdout.readline()
        proxy.cut()
        rest, errors = await process.communicate()
    assert (first + rest).decode().split() == expected_words()
    assert process.returncode == 0
    assert b"the connection was lost" in errors
    assert proxy.connections >= 2


def test_turns(scripted: LiveServer) -> None:
    done = subprocess.run(command("turns.py", scripted, str(SAMPLE)), capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    lines = done.stdout.splitlines()
    users, agents = lines[::2], lines[1::2]
    assert " ".join(line.removeprefix("user: ") for line in users).split() == expected_words()
    for user, agent in zip(users, agents, strict=True):
        words = user.split()[1:]
        assert agent == f"agent: You said {len(words)} words, the last one was {words[-1]!r}."
