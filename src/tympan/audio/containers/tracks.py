"""Chooses the audio track of a container."""

from __future__ import annotations

from collections.abc import Collection

import av
from av.container import InputContainer
from av.stream import Disposition

from tympan.audio.source import Details
from tympan.errors import AudioError


def choose_track(
    container: InputContainer, codecs: Collection[str], details: Details, track: int | None = None
) -> av.AudioStream:
    """Return the requested track, or the first one flagged as default, or the first one; report a choice among several.

    Args:
        container: An open container.
        codecs: Names of the codecs that may be decoded; tracks with others are chosen only if requested.
        details: Receives the report.
        track: The number of the track among the audio tracks, from 1.

    Raises:
        AudioError: There is no audio, no such track, or its codec is not supported.
    """
    tracks = container.streams.audio
    if not tracks:
        raise AudioError("there is no audio in the file")
    if track is not None and not 1 <= track <= len(tracks):
        raise AudioError(f"there is no audio track {track}: expected 1 to {len(tracks)}")
    chosen = tracks[track - 1] if track is not None else _preferred(tracks, codecs)
    name = codec_name(chosen)
    if name not in codecs:
        raise AudioError(f"the codec {name} is not supported")
    if track is None and len(tracks) > 1:
        number = tracks.index(chosen) + 1
        details.warn(
            "audio_track",
            f"the file has {len(tracks)} audio tracks, of which track {number}{_about(chosen)} is transcribed",
        )
    return chosen


def codec_name(stream: av.AudioStream) -> str:
    """Return libav's name of the decoder."""
    return stream.codec_context.name if stream.codec_context else "unknown"


def _preferred(tracks: Collection[av.AudioStream], codecs: Collection[str]) -> av.AudioStream:
    usable = [stream for stream in tracks if codec_name(stream) in codecs] or list(tracks)
    return next((stream for stream in usable if stream.disposition & Disposition.default), usable[0])


def _about(stream: av.AudioStream) -> str:
    """Return the language and title of a track, and whether it is the default, in parentheses."""
    language = stream.metadata.get("language", "")
    words = [language if language != "und" else "", stream.metadata.get("title", "")[:40]]
    words.append("flagged as default" if stream.disposition & Disposition.default else "")
    shown = ", ".join(word for word in words if word)
    return f" ({shown})" if shown else ""
