"""The server's listening socket, its TLS configuration, and the limit of open files."""

from __future__ import annotations

import socket
import ssl
import sys
from collections.abc import Callable
from contextlib import suppress
from typing import Final

from tympan.config import ServerSettings
from tympan.errors import ConfigError

BACKLOG: Final = 2048
RECEIVE_BUFFER_BYTES: Final = 128 * 1024  # under three seconds of audio


def listen(settings: ServerSettings) -> socket.socket:
    """Return a listening socket.

    Raises:
        ConfigError: The address is invalid or in use.
    """
    return listen_on(settings.bind_host, settings.port)


def listen_on(host: str, port: int) -> socket.socket:
    """Return a socket that listens on an address.

    Raises:
        ConfigError: The address is invalid or in use.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        listener = socket.create_server((host, port), family=family, backlog=BACKLOG)
    except OSError as error:
        raise _cannot_listen(host, port, error) from None
    # Accepted sockets inherit the size. It is small because buffered audio delays the answers to a client's pings.
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, RECEIVE_BUFFER_BYTES)
    return listener


def listen_shared(settings: ServerSettings) -> tuple[socket.socket, Callable[[], socket.socket]]:
    """Return a listening socket, and a function that returns the socket of another front process on its port.

    On Linux each front process has a socket of its own, and the kernel spreads the connections evenly over them.
    Elsewhere all use the same one.

    Raises:
        ConfigError: The address is invalid or in use.
    """
    if sys.platform != "linux":
        listener = listen(settings)
        return listener, listener.dup().dup  # the first one is closed once the fronts serve
    listen(settings).close()  # a shared port could be bound beside that of another server
    first = bind_shared(settings.bind_host, settings.port)
    host, port = first.getsockname()[:2]
    first.listen(BACKLOG)
    return first, lambda: bind_shared(host, port)


def bind_shared(host: str, port: int) -> socket.socket:
    """Return a socket for a port that other sockets of this user may have as well; it does not listen yet.

    Raises:
        ConfigError: The address is invalid or in use.
    """
    bound = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET)
    try:
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, RECEIVE_BUFFER_BYTES)
        if bound.family == socket.AF_INET6:
            bound.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        bound.bind((host, port))
    except OSError as error:
        bound.close()
        raise _cannot_listen(host, port, error) from None
    return bound


def _cannot_listen(host: str, port: int, error: OSError) -> ConfigError:
    return ConfigError(f"cannot listen on {host} port {port}: {error.strerror}")


def tls_context(settings: ServerSettings) -> ssl.SSLContext | None:
    """Return the TLS context for the configured certificate, or `None` without one.

    Raises:
        ConfigError: The certificate or its key cannot be loaded.
    """
    if settings.tls_certificate is None:
        return None
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    try:
        context.load_cert_chain(settings.tls_certificate, settings.tls_key)
    except OSError as error:  # includes ssl.SSLError
        raise ConfigError(f"cannot serve TLS with {settings.tls_certificate}: {error.strerror or error}") from None
    return context


def raise_file_limit() -> None:
    """Raise the soft limit of open files to the hard limit: every client needs a file descriptor."""
    if sys.platform == "win32":
        return
    import resource

    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    with suppress(OSError, ValueError):  # macOS reports a hard limit that it does not accept
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
