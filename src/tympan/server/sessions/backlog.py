"""A queue of messages that are in memory and, beyond some megabytes, on disk."""

from __future__ import annotations

import asyncio
import logging
import struct
from collections import deque
from collections.abc import Callable
from functools import partial
from itertools import islice
from typing import Final

from tympan.errors import CapacityError
from tympan.protocols.base import WireMessage
from tympan.server.spool import BLOCK_BYTES, Spool

logger = logging.getLogger(__name__)

MEMORY_BYTES: Final = 2 << 20
"""Messages of one stream that stay in memory; the newest ones beyond them are written to disk."""
MOST_MEMORY_BYTES: Final = 4 << 20
"""Above this the disk is too slow, or full, and the queue accepts no more."""

_HEAD = struct.Struct("<?I")  # whether the message is text, and its length


class _Block:
    """`BLOCK_BYTES` of the queue, in memory (`data`), on disk (`slot`), or both while they are written."""

    def __init__(self, data: bytes) -> None:
        self.data: bytes | None = data
        self.slot: int | None = None
        self.is_busy = False  # being written or read


class Backlog:
    """The queue of one stream: bytes of encoded messages, `head`, then `blocks`, then `tail`. No method blocks.

    Args:
        spool: Keeps blocks on disk, and counts the bytes of all streams.
        most_bytes: The bytes of this stream above which `is_full` is true.
        on_ready: Called when `take` has a message again after it returned `None`, or when `is_full` may have changed.
    """

    def __init__(self, spool: Spool, most_bytes: int, on_ready: Callable[[], None]) -> None:
        self._spool = spool
        self._most_bytes = most_bytes
        self._on_ready = on_ready
        self._head = bytearray()
        self._blocks: deque[_Block] = deque()
        self._blocks_in_memory = 0
        self._tail = bytearray()
        self._waiting_bytes = 0
        self._counted_bytes = 0  # of these, in the budget of all streams
        self._is_writing = False
        self._is_on_disk = True  # whether blocks can be written
        self._error: BaseException | None = None

    def __bool__(self) -> bool:
        return self._waiting_bytes > 0

    @property
    def is_full(self) -> bool:
        """Whether no more should be put; one message more is always accepted."""
        return self._waiting_bytes > 0 and (
            self._waiting_bytes >= self._most_bytes
            or self._counted_bytes < self._waiting_bytes  # the budget of all streams is used up
            or self._memory_bytes > MOST_MEMORY_BYTES
        )

    @property
    def _memory_bytes(self) -> int:
        return len(self._head) + len(self._tail) + self._blocks_in_memory * BLOCK_BYTES

    def put(self, message: WireMessage) -> None:
        """Add a message."""
        payload = message.encode() if isinstance(message, str) else message
        self._tail += _HEAD.pack(isinstance(message, str), len(payload))
        self._tail += payload
        size = _HEAD.size + len(payload)
        self._waiting_bytes += size
        try:
            self._spool.waiting.take(size)
            self._counted_bytes += size
        except CapacityError:
            pass  # `is_full`
        while len(self._tail) >= BLOCK_BYTES:
            self._blocks.append(_Block(bytes(self._tail[:BLOCK_BYTES])))
            self._blocks_in_memory += 1
            del self._tail[:BLOCK_BYTES]
        self._spill()

    def take(self) -> WireMessage | None:
        """Return the next message, or `None` if there is none or it is being read from disk.

        Raises:
            OSError: It cannot be read from disk.
        """
        while (message := self._parse()) is None:
            if self._error is not None:
                raise self._error
            if not self._blocks:
                if not self._tail:
                    return None
                self._head += self._tail
                self._tail.clear()
                continue
            block = self._blocks[0]
            if block.data is None:
                self._load(block)
                return None
            self._blocks.popleft()
            self._head += block.data
            block.data = None
            self._blocks_in_memory -= 1
        return message

    def clear(self) -> None:
        """Discard all messages."""
        for block in self._blocks:
            block.data = None
            self._free(block)
        self._blocks.clear()
        self._blocks_in_memory = 0
        self._head.clear()
        self._tail.clear()
        self._waiting_bytes = 0
        self._release()

    def _parse(self) -> WireMessage | None:
        if len(self._head) < _HEAD.size:
            return None
        is_text, length = _HEAD.unpack_from(self._head)
        end = _HEAD.size + length
        if len(self._head) < end:
            return None
        payload = bytes(self._head[_HEAD.size : end])
        del self._head[:end]
        self._waiting_bytes -= end
        self._release()
        return payload.decode() if is_text else payload

    def _release(self) -> None:
        if (surplus := self._counted_bytes - self._waiting_bytes) > 0:
            self._spool.waiting.release(surplus)
            self._counted_bytes -= surplus

    # --- disk ----------------------------------------------------------------------------------------------------

    def _spill(self) -> None:
        """Write the newest block that is only in memory, one at a time; the oldest block is needed soon."""
        if self._is_writing or not self._is_on_disk or self._memory_bytes <= MEMORY_BYTES:
            return
        newest = islice(reversed(self._blocks), max(0, len(self._blocks) - 1))
        block = next((block for block in newest if block.data is not None and block.slot is None), None)
        if block is None or block.data is None:
            return
        try:
            block.slot = self._spool.take_slot()
        except OSError as error:
            self._on_disk_error(error)
            return
        block.is_busy = self._is_writing = True
        self._spool.write(block.slot, block.data).add_done_callback(partial(self._on_written, block))

    def _on_written(self, block: _Block, written: asyncio.Future[None]) -> None:
        block.is_busy = self._is_writing = False
        if written.cancelled() or (error := written.exception()) is not None:
            self._free(block)
            if not written.cancelled():
                self._on_disk_error(error)
        elif block.data is None:
            self._free(block)  # it has been taken or discarded meanwhile
        else:
            block.data = None
            self._blocks_in_memory -= 1
        self._spill()
        self._on_ready()

    def _on_disk_error(self, error: BaseException | None) -> None:
        self._is_on_disk = False
        logger.warning("messages cannot be kept on disk: %s; more of them wait in the network", error)

    def _load(self, block: _Block) -> None:
        assert block.slot is not None
        if not block.is_busy:
            block.is_busy = True
            self._spool.read(block.slot).add_done_callback(partial(self._on_read, block))

    def _on_read(self, block: _Block, read: asyncio.Future[bytes]) -> None:
        block.is_busy = False
        self._free(block)
        if read.cancelled():
            return
        if self._blocks and self._blocks[0] is block:
            self._error = read.exception()
            if self._error is None:
                block.data = read.result()
                self._blocks_in_memory += 1
            self._on_ready()

    def _free(self, block: _Block) -> None:
        if block.slot is not None and not block.is_busy:
            self._spool.free(block.slot)
            block.slot = None
