"""Protocol objects without a server: what they are made from, and what they return in a readable form."""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any

from tympan.messages import Event
from tympan.protocols.base import Droppable, ServerInfo, ServerProtocol

SERVER_INFO = ServerInfo("scripted", "scripted", 24_000, 1_920, 0.48, (0.5, 1.0, 2.0, 3.0), ("en",))
LINEAR16 = {"encoding": "linear16", "sample_rate": "16000"}
SESSION_ID = "00000000-0000-4000-8000-000000000000"


def decoded(items: Iterable[Any]) -> list[Any]:
    """Return actions or answers, with JSON messages as objects and droppable messages without their wrapper."""
    bare = (item.message if isinstance(item, Droppable) else item for item in items)
    return [json.loads(item) if isinstance(item, str) else item for item in bare]


def answers(protocol: ServerProtocol, *events: Event, channel: int = 0) -> list[Any]:
    """Return the answers to events on one channel, decoded."""
    return decoded(answer for event in events for answer in protocol.send(event, channel))
