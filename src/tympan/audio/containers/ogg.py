"""The links of a chained Ogg stream (RFC 3533 §4): complete streams, one after the other.

libav would use the decoder of the first link for all, so that others lose their pre-skip and cannot change the layout.
"""

from __future__ import annotations

from tympan.audio.source import ByteSource

_HEADER_BYTES = 27
_CAPTURE = b"OggS"
_FIRST_PAGE = 0x02


class OggLink:
    """One link as a sequential file, which ends before the first page of the next link."""

    def __init__(self, source: ByteSource) -> None:
        self._source = source
        self._page_left = 0
        self._body_seen = False

    def read(self, size: int) -> bytes:
        if not self._page_left:
            self._page_left = self._next()
        if not self._page_left:
            return b""
        data = self._source.read(min(size, self._page_left))
        self._page_left = self._page_left - len(data) if data else 0
        return data

    def _next(self) -> int:
        """Return the bytes up to the next page, which begin with a page unless the stream is damaged; 0 at the end."""
        head = self._source.peek(_HEADER_BYTES)
        if not head.startswith(_CAPTURE) or len(head) < _HEADER_BYTES:
            found = head.find(_CAPTURE[:1], 1)
            return found if found > 0 else len(head)
        first = bool(head[5] & _FIRST_PAGE)
        if first and self._body_seen:
            return 0
        self._body_seen |= not first
        lacing = self._source.peek(head[26], _HEADER_BYTES)
        return _HEADER_BYTES + len(lacing) + sum(lacing)
