"""The microphone with a sound card made of Python, and without one."""

from __future__ import annotations

import asyncio
import builtins
import sys
from collections.abc import Callable

import numpy as np
import pytest

from tympan.client.microphone import QUEUE_SECONDS, BlockCallback, InputStream, Microphone
from tympan.errors import MissingPackageError


class SoundCard:
    """What `sounddevice.InputStream` does, when the test says so."""

    samplerate = 44_100.0

    def __init__(self, device: str | int | None, block_seconds: float, callback: BlockCallback) -> None:
        self.device = device
        self.callback = callback
        self.running = False
        self.buffer = np.zeros((round(block_seconds * self.samplerate), 1), np.float32)

    def start(self) -> None:
        self.running = True

    def close(self) -> None:
        self.running = False

    def hear(self, value: float) -> None:
        """One block; PortAudio uses the same memory for each."""
        self.buffer[:] = value
        self.callback(self.buffer, len(self.buffer), None, None)


class Cards(list[SoundCard]):
    def __call__(self, device: str | int | None, block_seconds: float, callback: BlockCallback) -> InputStream:
        self.append(SoundCard(device, block_seconds, callback))
        return self[-1]


@pytest.fixture
def cards() -> Cards:
    return Cards()


async def test_blocks_in_order(cards: Cards) -> None:
    async with Microphone("usb", open_input=cards) as microphone:
        card = cards[0]
        assert (microphone.sample_rate, card.device, card.running) == (44_100, "usb", True)
        await asyncio.to_thread(lambda: [card.hear(value) for value in (0.1, 0.2, 0.3)])
        blocks = [await anext(microphone) for _ in range(3)]
    assert [float(block[0]) for block in blocks] == pytest.approx([0.1, 0.2, 0.3])
    assert {(block.shape, block.dtype) for block in blocks} == {((3_528,), np.dtype(np.float32))}
    assert not card.running


async def test_queued_blocks_after_stop(cards: Cards) -> None:
    async with Microphone(open_input=cards) as microphone:
        cards[0].hear(0.5)
        await asyncio.sleep(0)
        microphone.stop()
        assert not cards[0].running
        assert len([block async for block in microphone]) == 1


async def test_stop_wakes_a_reader(cards: Cards) -> None:
    async with Microphone(open_input=cards) as microphone:
        reading = asyncio.create_task(anext(microphone, None))
        await asyncio.sleep(0)
        microphone.stop()
        assert await reading is None


async def test_full_queue_drops_the_oldest(cards: Cards, caplog: pytest.LogCaptureFixture) -> None:
    async with Microphone(block_seconds=QUEUE_SECONDS / 2, open_input=cards) as microphone:
        for value in (0.1, 0.2, 0.3):
            cards[0].hear(value)
        await asyncio.sleep(0)
        microphone.stop()
        heard = [float(block[0]) async for block in microphone]
    assert heard == pytest.approx([0.2, 0.3])
    assert caplog.messages == ["the microphone's audio is not read: 30.00 s are lost"]


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (ImportError, "pip install -e '.[mic]'"),
        (OSError, "apt install libportaudio2"),
    ],
)
async def test_missing_package(error: type[Exception], message: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """`import sounddevice` raises `OSError` where PortAudio is missing."""
    original: Callable[..., object] = builtins.__import__

    def import_without(name: str, *arguments: object, **keywords: object) -> object:
        if name == "sounddevice":
            raise error("not here")
        return original(name, *arguments, **keywords)

    monkeypatch.delitem(sys.modules, "sounddevice", raising=False)
    monkeypatch.setattr(builtins, "__import__", import_without)
    with pytest.raises(MissingPackageError) as caught:
        async with Microphone():
            pass
    assert message in str(caught.value)
