"""The first bytes of a stream of raw samples, which may be those of a file by mistake."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Final

from msgspec.structs import replace

from tympan.audio.format import CONTAINER_ENCODINGS
from tympan.messages import Audio, AudioFormat, SetFormat
from tympan.protocols.base import Action, WireMessage

CODE: Final = "container"
"""The code of the warning."""

_SIGNATURES: Final[Mapping[bytes, str]] = {
    b"RIFF": "WAV",
    b"OggS": "Ogg",
    b"\x1aE\xdf\xa3": "WebM or Matroska",
    b"ID3": "MP3",
    b"fLaC": "FLAC",
}
_WAV_BYTES: Final = 12  # RIFF, a length, WAVE


class AudioStart:
    """Passes a client's audio on, and examines its first bytes.

    If they are the header of a WAV file and the client has not declared a format, the header sets it. Any other header
    causes a warning, because the stream is transcribed as raw samples.

    Args:
        audio_format: The format of the stream.
        is_declared: Whether the client has declared it.
        warn: Returns the protocol's message for a sentence.
    """

    def __init__(self, audio_format: AudioFormat, is_declared: bool, warn: Callable[[str], WireMessage]) -> None:
        self._format = audio_format
        self._is_declared = is_declared
        self._warn = warn
        self._begun = audio_format.encoding in CONTAINER_ENCODINGS
        self._first = b""  # not passed on yet

    def receive(self, data: bytes) -> Sequence[Action]:
        """Return the commands and the warning for the next bytes; a few that may begin a header wait for the next."""
        if self._begun or not data:
            return (Audio(data),)
        self._first = data = self._first + data
        name = next((name for signature, name in _SIGNATURES.items() if data.startswith(signature)), None)
        if name is None and any(signature.startswith(data) for signature in _SIGNATURES):
            return ()
        if name == "WAV" and not self._is_declared:
            if len(data) < _WAV_BYTES:
                return ()
            if data[8:_WAV_BYTES] == b"WAVE":
                return (SetFormat(replace(self._format, encoding="auto")), *self._begin())
        return self._begin() if name is None else (self._warn(self._sentence(name)), *self._begin())

    def _begin(self) -> Sequence[Action]:
        self._begun = True
        data, self._first = self._first, b""
        return (Audio(data),)

    def _sentence(self, name: str) -> str:
        return (
            f"the audio begins like a {name} file, but is transcribed as raw samples ({self._format.encoding} at "
            f"{self._format.sample_rate} Hz); declare the format of the file, or send its samples without a header"
        )
