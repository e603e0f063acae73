"""The declared format of a stream, parsed from query strings."""

from __future__ import annotations

from tympan.errors import ParameterError
from tympan.messages import AudioFormat

RAW_ENCODINGS = ("s16le", "f32le", "mulaw", "alaw")
INTEGER_ENCODINGS = ("u8", "s16le", "s24le", "s32le", "mulaw", "alaw")  # values cannot be far outside [-1, 1]
CONTAINER_ENCODINGS = ("opus", "auto")
ENCODINGS = RAW_ENCODINGS + CONTAINER_ENCODINGS

_ALIASES = {
    "pcm_s16le": "s16le",
    "linear16": "s16le",
    "pcm_f32le": "f32le",
    "linear32": "f32le",
    "ulaw": "mulaw",
    "pcmu": "mulaw",
    "pcma": "alaw",
}
LOWEST_RATE, HIGHEST_RATE = 8_000, 48_000
_TELEPHONE_ENCODINGS = ("mulaw", "alaw")


def parse_format(
    encoding: str | None = None, sample_rate: str | None = None, channels: str | None = None
) -> AudioFormat:
    """Return the format that query strings declare; None selects the default.

    Raises:
        ParameterError: A value is invalid.
    """
    name = _encoding(encoding)
    return AudioFormat(name, _sample_rate(sample_rate, name), _channels(channels))


def _encoding(text: str | None) -> str:
    if text is None:
        return "s16le"
    name = text.strip().lower()
    name = _ALIASES.get(name, name)
    if name not in ENCODINGS:
        raise ParameterError(f"invalid encoding {_shown(text)}: expected one of {', '.join(ENCODINGS)}")
    return name


def _sample_rate(text: str | None, encoding: str) -> int:
    if text is None:
        return 8_000 if encoding in _TELEPHONE_ENCODINGS else 24_000
    rate = _integer(text)
    if not LOWEST_RATE <= rate <= HIGHEST_RATE:
        raise ParameterError(f"invalid sample_rate {_shown(text)}: expected {LOWEST_RATE} to {HIGHEST_RATE} Hz")
    return rate


def _channels(text: str | None) -> int:
    if text is None:
        return 1
    count = _integer(text)
    if count not in (1, 2):
        raise ParameterError(f"invalid channels {_shown(text)}: expected 1 or 2")
    return count


def _integer(text: str) -> int:
    """Return a plain decimal number, or -1; `int` would also accept ` 1_6 ` and digits of other scripts."""
    return int(text) if text.isascii() and text.isdigit() and len(text) <= 9 else -1


def _shown(text: str) -> str:
    """Return the value for an error message, shortened if it is long."""
    return repr(text if len(text) <= 40 else text[:40] + "…")
