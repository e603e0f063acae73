"""Transcribe a file on a server, and print the text and when each sentence begins.

python examples/file.py examples/sample.wav --url ws://127.0.0.1:8000
"""

from __future__ import annotations

import argparse
import os

import tympan


def main() -> None:
    """Transcribe the file."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("file", help="audio or video file")
    parser.add_argument("--url", default="ws://127.0.0.1:8000", help="address of the server")
    options = parser.parse_args()
    transcript = tympan.transcribe(options.file, url=options.url, token=os.environ.get("TYMPAN_TOKEN"))
    for segment in transcript.segments:
        print(f"{segment.start:7.2f} s  {segment.text}")


main()
