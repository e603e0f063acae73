"""Limits of messages, sessions, connections and API keys."""

from __future__ import annotations

from typing import Annotated

from msgspec import Meta, Struct


class LimitSettings(Struct, frozen=True, kw_only=True):
    """Limits of messages, sessions and uploads."""

    message_bytes: Annotated[int, Meta(description="Largest message of a client in bytes.", gt=0)] = 2 * 1024 * 1024
    upload_bytes: Annotated[int, Meta(description="Largest file in one request in bytes.", gt=0)] = 25 * 1024 * 1024
    upload_streams: Annotated[
        Annotated[int, Meta(gt=0)] | None,
        Meta(description="Streams that files may use at once; by default half of what the engine serves."),
    ] = None
    session_seconds: Annotated[float, Meta(description="Longest session in seconds.", gt=0)] = 7200.0
    handover_seconds: Annotated[
        Annotated[float, Meta(gt=0)] | None,
        Meta(
            description="Age in seconds at which a stream is ended with code 1012 so that its client reconnects; set "
            "it below the connection limit of a hosting platform."
        ),
    ] = None
    idle_seconds: Annotated[float, Meta(description="Seconds without a message before a stream is closed.", gt=0)] = (
        60.0
    )
    max_connections: Annotated[
        Annotated[int, Meta(gt=0)] | None,
        Meta(description="Most open connections; by default as many as there are file descriptors for."),
    ] = None
    address_connections: Annotated[
        Annotated[int, Meta(gt=0)] | None,
        Meta(
            description="Most open connections of one client address; unlimited by default, since all clients behind a "
            "proxy have its address."
        ),
    ] = None
    silent_seconds: Annotated[
        float,
        Meta(
            description="Seconds without audio before a stream is closed, even if the client sends other messages.",
            gt=0,
        ),
    ] = 600.0
    engine_seconds: Annotated[
        int,
        Meta(description="Longest duration of an engine step in seconds before the engine is taken for hung.", gt=0),
    ] = 10
    resume_seconds: Annotated[
        float, Meta(description="Seconds within which a client can resume a lost connection; 0 disables it.", ge=0)
    ] = 10.0
    grace_seconds: Annotated[
        float, Meta(description="Seconds that open streams have at shutdown to receive their last words.", gt=0)
    ] = 10.0
    drain_delay_seconds: Annotated[
        float,
        Meta(
            description="Seconds for which a server that was stopped still accepts clients while /ready is false, so "
            "that load balancers notice.",
            ge=0,
        ),
    ] = 0.0
    backlog_seconds: Annotated[
        float, Meta(description="Seconds of untranscribed audio above which further messages of a stream wait.", gt=0)
    ] = 4.0
    backlog_bytes: Annotated[
        int,
        Meta(
            description="Bytes of a stream's messages that wait, in memory and in a temporary file, above which its "
            "socket is not read.",
            ge=0,
        ),
    ] = 256 * 1024 * 1024
    outbox_messages: Annotated[int, Meta(description="Unread messages after which a slow client is closed.", gt=0)] = (
        1024
    )


class KeySettings(Struct, frozen=True, kw_only=True):
    """Limits per API key, over all its streams; a key's own line in the key file overrides them.

    Without API keys all clients share one set of limits. None is no limit.
    """

    key_streams: Annotated[Annotated[int, Meta(gt=0)] | None, Meta(description="Streams of one key at once.")] = None
    key_opens_per_minute: Annotated[
        Annotated[int, Meta(gt=0)] | None, Meta(description="Streams and files that one key may open per minute.")
    ] = None
    key_minutes_per_day: Annotated[
        Annotated[float, Meta(gt=0)] | None,
        Meta(description="Minutes of audio, summed over channels, that one key may send within 24 hours."),
    ] = None
    key_upload_bytes_per_minute: Annotated[
        Annotated[int, Meta(gt=0)] | None, Meta(description="Bytes of files that one key may send per minute.")
    ] = None
