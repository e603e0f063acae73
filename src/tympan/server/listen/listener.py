"""The server's listening socket and its TLS configuration."""

from __future__ import annotations

import socket
import ssl
from typing import Final

from tympan.config import ServerSettings
from tympan.errors import ConfigError

RECEIVE_BUFFER_BYTES: Final = 128 * 1024  # under three seconds of audio


def listen(settings: ServerSettings) -> socket.socket:
    """The port, bound. Raises `ConfigError` for an address that is wrong or taken."""
    host, port = settings.bind_host, settings.port
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        listener = socket.create_server((host, port), family=family, backlog=2048)
    except OSError as error:
        raise ConfigError(f"cannot listen on {host} port {port}: {error.strerror}") from None
    # Accepted sockets inherit it. What lies here delays the answers to a client's pings, so it is little.
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, RECEIVE_BUFFER_BYTES)
    return listener


def tls_context(settings: ServerSettings) -> ssl.SSLContext | None:
    """What the certificate makes; `None` without one. Raises `ConfigError`."""
    if settings.tls_certificate is None:
        return None
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    try:
        context.load_cert_chain(settings.tls_certificate, settings.tls_key)
    except OSError as error:  # ssl's errors are, too
        raise ConfigError(f"cannot serve TLS with {settings.tls_certificate}: {error.strerror or error}") from None
    return context
