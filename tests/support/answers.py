"""What a protocol's answers are on the wire."""

from __future__ import annotations

from typing import Any

from tympan.messages import Event
from tympan.protocols.base import Droppable, ServerProtocol


def answers(protocol: ServerProtocol, event: Event, channel: int = 0) -> list[Any]:
    """The messages for an event, whether a slow reader may miss them or not, and the flushes."""
    return [answer.message if isinstance(answer, Droppable) else answer for answer in protocol.send(event, channel)]
