"""The JavaScript package `clients/js`, which the page itself uses: in Node, and its types."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from support.browser import Network, Server, network, running

from tympan.engine.scripted import scripted_words
from tympan.server.routes.page import STATIC
from tympan.version import version

ROOT = Path(__file__).parents[2]
PACKAGE = ROOT / "clients" / "js"
SCRIPTS = Path(__file__).parent / "node"
KEY = "open+sesame"
FRAME_SECONDS = 0.08


@pytest.fixture
def node() -> str:
    path = shutil.which("node")
    if path is None:
        pytest.skip("Node is not installed")
    return path


@pytest.fixture
def locked_pair(tmp_path: Path) -> Iterator[Server]:
    yield from running(tmp_path / "server.log", "--model", "scripted", "--api-key", KEY, "--max-streams", "2")


@pytest.fixture
def cutter(locked_pair: Server) -> Iterator[tuple[Network, str]]:
    """A network to the server, and a URL that cuts it."""
    with network(locked_pair) as line:

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                line.cut()
                self.send_response(204)
                self.end_headers()

            def log_message(self, format: str, *args: Any) -> None:
                pass

        with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as listener:
            thread = threading.Thread(target=listener.serve_forever)
            thread.start()
            yield line, f"http://127.0.0.1:{listener.server_port}/"
            listener.shutdown()
            thread.join()


def test_package_in_node(node: str, locked_pair: Server, cutter: tuple[Network, str], silence: Path) -> None:
    line, cut = cutter
    given = {
        "http": locked_pair.url,
        "proxy": line.url,
        "cut": cut,
        "wav": str(silence),
        "key": KEY,
        "call": str(STATIC / "sample-call.mp3"),
    }
    command = [node, "--experimental-websocket", "--no-warnings", str(SCRIPTS / "client.mjs"), json.dumps(given)]
    process = subprocess.run(command, capture_output=True, text=True, timeout=50, check=False)
    assert process.returncode == 0, process.stderr
    result = json.loads(process.stdout)

    assert result["names"] == declared("class")
    assert result["url"] == locked_pair.url.rstrip("/")
    assert result["file"]["text"].split() == [f"word{number}" for number in range(30)]
    assert result["call"]["text"].split().count("word9") == 2, "each channel of the file is a stream"
    assert "reconnecting" in result["live"]["states"]
    assert result["live"]["words"] == len(scripted_words(100)), "the cut has lost no word and repeated none"
    assert result["live"]["text"].split() == [f"word{number}" for number in range(result["live"]["words"])]
    assert result["wrongKey"] == {"code": "unauthorized", "message": "This server requires an API key."}
    assert result["unreachable"]["code"] == "unreachable"


def test_types_fit_a_strict_program(node: str) -> None:
    compiler = SCRIPTS / "node_modules" / "typescript" / "bin" / "tsc"
    if not compiler.exists():
        pytest.skip("TypeScript is not installed: run npm ci in tests/browser/node")
    options = ["--noEmit", "--strict", "--target", "es2022", "--module", "nodenext", "--lib", "es2023,dom"]
    command = [node, str(compiler), *options, str(SCRIPTS / "consumer.ts")]
    process = subprocess.run(command, capture_output=True, text=True, timeout=50, check=False)
    assert process.returncode == 0, process.stdout


def test_types_declare_what_the_modules_export() -> None:
    exported = re.findall(r"\{ ([\w, ]+) \}", (PACKAGE / "index.js").read_text())
    assert sorted(name for names in exported for name in names.split(", ")) == declared("class")
    for name in declared("class"):
        for member in members(name):
            assert re.search(rf"(?:^  |[ .#]){member}\b", implementation(name), re.MULTILINE), f"{name}.{member}"


def test_package_is_the_folder_that_the_server_serves() -> None:
    assert PACKAGE.resolve() == (STATIC / "client").resolve()
    package = json.loads((PACKAGE / "package.json").read_text())
    assert package["version"] == version()
    assert package["exports"]["."] == {"types": "./index.d.ts", "default": "./index.js"}
    imports = re.findall(r'from "(.*?)"', "".join(path.read_text() for path in PACKAGE.glob("*.js")))
    assert {target.rpartition("/")[0] for target in imports} == {"."}, "it has no dependencies"


def declared(kind: str) -> list[str]:
    return sorted(re.findall(rf"^export {kind} (\w+)", (PACKAGE / "index.d.ts").read_text(), re.MULTILINE))


def members(name: str) -> set[str]:
    text = (PACKAGE / "index.d.ts").read_text()
    body = re.search(rf"^export class {name}\b.*?\{{\n(.*?)^\}}", text, re.MULTILINE | re.DOTALL)
    assert body is not None
    return set(re.findall(r"^  (?:static |readonly |get )*(\w+)[(:]", body[1], re.MULTILINE))


def implementation(name: str) -> str:
    """Return the module that defines the class."""
    texts = [path.read_text() for path in PACKAGE.glob("*.js")]
    (found,) = [text for text in texts if re.search(rf"^export class {name}\b", text, re.MULTILINE)]
    return found
