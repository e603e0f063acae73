"""Pass each turn of a speaker to a language model, which is a stub here: the loop of a voice agent.

python examples/turns.py examples/sample.wav --url ws://127.0.0.1:8000

Replace `answer` by your model, and the file by a microphone or a call. A turn ends when the speaker has finished; what
is said during the answer is the next turn.
"""

from __future__ import annotations

import argparse
import asyncio
import os

import tympan


async def answer(words: list[str]) -> str:
    """Return what the agent says; a language model would be called here."""
    await asyncio.sleep(0.1)
    return f"You said {len(words)} words, the last one was {words[-1]!r}."


async def converse(file: str, url: str) -> None:
    """Collect the words of each turn, and answer at its end."""
    words: list[str] = []
    async with tympan.connect(url, token=os.environ.get("TYMPAN_TOKEN")) as stream:
        async for event in stream.transcribe(tympan.decode_file(file)):
            if isinstance(event, tympan.Word):
                words.append(event.text)
            ended = isinstance(event, tympan.Complete) or (isinstance(event, tympan.Turn) and event.state == "ended")
            if ended and words:
                print("user: ", *words, flush=True)
                print("agent:", await answer(words), flush=True)
                words.clear()


def main() -> None:
    """Read the options and converse."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("file", help="audio or video file")
    parser.add_argument("--url", default="ws://127.0.0.1:8000", help="address of the server")
    options = parser.parse_args()
    asyncio.run(converse(options.file, options.url))


main()
