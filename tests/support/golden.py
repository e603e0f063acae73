"""Recorded conversations: the input and the output of a protocol object, one JSON line per step.

`Recorder` wraps the protocol object of a live connection and writes the file; `replay` repeats the input without a
socket or an engine, and compares the output. The files are `tests/golden/<protocol>/*.jsonl`.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import msgspec
import pytest

from tympan import errors, messages
from tympan.protocols.base import Acceptance, CloseInfo, Droppable, Refusal, Request, ServerInfo, ServerProtocol

GOLDEN = Path(__file__).parent.parent / "golden"
MakeProtocol = Callable[[Request, ServerInfo], ServerProtocol]

_RUN = re.compile(r"(.{1,16}?)\1{40,}")  # the recorded audio is silence: long runs of the same byte
_PACKED = re.compile(r"⟨(.*?)×(\d+)⟩")


class Recorder:
    """A protocol object that records its input and output; a `MakeProtocol` once its file is bound."""

    def __init__(self, path: Path, make_protocol: MakeProtocol, request: Request, server_info: ServerInfo) -> None:
        self._protocol: ServerProtocol = make_protocol(request, server_info)
        self.name = self._protocol.name
        self.idle_factor = self._protocol.idle_factor
        path.parent.mkdir(parents=True, exist_ok=True)
        self._file = path.open("w", encoding="utf-8")
        self._write({"request": msgspec.to_builtins(request), "server_info": msgspec.to_builtins(server_info)})

    @property
    def wants_vad(self) -> bool:
        return self._protocol.wants_vad

    def credential(self) -> str | None:
        return self._protocol.credential()

    def refuse(self, error: errors.TympanError) -> Refusal | CloseInfo:
        return self._protocol.refuse(error)

    def accept(self) -> Acceptance:
        return self._protocol.accept()

    def start(self) -> messages.AudioFormat:
        audio_format = self._protocol.start()
        self._write({"start": msgspec.to_builtins(audio_format)})
        return audio_format

    def receive(self, message: str | bytes) -> Sequence[Any]:
        try:
            actions = list(self._protocol.receive(message))
        except errors.RequestError as error:
            self._write({"receive": _plain(message), "raises": [type(error).__name__, str(error)]})
            raise
        self._write({"receive": _plain(message), "actions": [_plain(action) for action in actions]})
        return actions

    def send(self, event: messages.Event, channel: int) -> Sequence[Any]:
        actions = list(self._protocol.send(event, channel))
        self._write({"event": _plain(event), "channel": channel, "actions": [_plain(action) for action in actions]})
        return actions

    def fail(self, error: Exception | None) -> CloseInfo:
        close_info = self._protocol.fail(error)
        fields = None if error is None else [type(error).__name__, str(error)]
        self._write({"fail": fields, "close": [close_info.code, [_plain(message) for message in close_info.messages]]})
        self._file.close()
        return close_info

    def _write(self, step: dict[str, Any]) -> None:
        text = json.dumps(step, ensure_ascii=False)
        self._file.write(_RUN.sub(lambda run: f"⟨{run[1]}×{len(run[0]) // len(run[1])}⟩", text) + "\n")


def replay(path: Path, make_protocol: MakeProtocol) -> int:
    """Assert that the protocol returns what is recorded, and return the number of steps."""
    with path.open(encoding="utf-8") as file:
        lines = [json.loads(_PACKED.sub(lambda run: run[1] * int(run[2]), line)) for line in file]
    first, *steps = lines
    request, server_info = msgspec.convert(first["request"], Request), msgspec.convert(first["server_info"], ServerInfo)
    protocol = make_protocol(request, server_info)
    for number, step in enumerate(steps, start=2):
        where = f"{path.name}:{number}"
        if "start" in step:
            assert msgspec.to_builtins(protocol.start()) == step["start"], where
        elif "raises" in step:
            with pytest.raises(errors.RequestError) as refused:
                protocol.receive(_message(step["receive"]))
            assert [type(refused.value).__name__, str(refused.value)] == step["raises"], where
        elif "receive" in step:
            actions = protocol.receive(_message(step["receive"]))
            assert [_plain(action) for action in actions] == step["actions"], where
        elif "event" in step:
            actions = protocol.send(_event(step["event"]), step["channel"])
            assert [_plain(action) for action in actions] == step["actions"], where
        else:
            close_info = protocol.fail(_error(step["fail"]))
            assert [close_info.code, [_plain(message) for message in close_info.messages]] == step["close"], where
    return len(steps)


def _plain(item: object) -> Any:
    """Return JSON for a message, a command or an event; a message that is JSON stays readable."""
    if isinstance(item, str):
        try:
            return {"json": json.loads(item)}
        except ValueError:
            return {"text": item}
    if isinstance(item, bytes):
        return {"hex": item.hex()}
    fields = {name: getattr(item, name) for name in item.__slots__}  # type: ignore[attr-defined]
    if isinstance(item, messages.Audio):
        fields["data"] = item.data.hex()
    if isinstance(item, Droppable):
        fields["message"] = _plain(item.message)
    return {"type": type(item).__name__, **msgspec.to_builtins(fields)}


def _message(plain: dict[str, Any]) -> str | bytes:
    if "hex" in plain:
        return bytes.fromhex(plain["hex"])
    return str(plain["text"]) if "text" in plain else json.dumps(plain["json"])


def _event(plain: dict[str, Any]) -> Any:
    fields = dict(plain)
    return msgspec.convert(fields, getattr(messages, fields.pop("type")))


def _error(fields: list[str] | None) -> Exception | None:
    if fields is None:
        return None
    return getattr(errors, fields[0], RuntimeError)(fields[1])  # type: ignore[no-any-return]
