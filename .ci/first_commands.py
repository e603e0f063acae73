"""Print the address of the server that `make serve` starts, and three commands to try, once it is ready.

The first argument is the process of the server, the others are those of `tympan serve`. Nothing is printed
if the server ends, or if its address is unknown.
"""

from __future__ import annotations

import os
import sys
import time
import urllib.error
import urllib.request

from tympan.cli.main import _parser
from tympan.cli.options import config_from

TEXT = """
Open {page} and speak. Three commands for another terminal, in this folder:

  .venv/bin/tympan transcribe examples/sample.wav --url {socket}
  .venv/bin/tympan listen --input examples/sample.wav --encoding auto --url {socket}
  .venv/bin/python examples/turns.py examples/sample.wav --url {socket}

Ctrl-C stops the server."""
MINUTES = 10  # a model may be downloaded


def main() -> None:
    """Wait until the server is ready, then print."""
    server = config_from(_parser("serve").parse_args(["serve", *sys.argv[2:]])).server
    host = "127.0.0.1" if server.bind_host == "0.0.0.0" else server.bind_host
    if not server.port or server.tls_certificate:
        return
    address = f"{f'[{host}]' if ':' in host else host}:{server.port}{server.root_path}"
    parent, deadline = int(sys.argv[1]), time.monotonic() + 60 * MINUTES
    while os.getppid() == parent and time.monotonic() < deadline:
        if is_ready(f"http://{address}/ready"):
            print(TEXT.format(page=f"http://{address}", socket=f"ws://{address}"), flush=True)
            return
        time.sleep(0.2)


def is_ready(url: str) -> bool:
    """Return whether the server is ready."""
    try:
        with urllib.request.urlopen(url, timeout=2) as response:
            return bool(response.status == 200)
    except (OSError, urllib.error.URLError):
        return False


main()
