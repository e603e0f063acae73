"""The checks of the `Origin` and `Host` headers, which keep other web pages from a server that a browser can reach."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from ipaddress import ip_address
from urllib.parse import urlsplit

from tympan.errors import HostError, OriginError

LOCALHOST = "localhost"
"""The value of `allowed_origins` that stands for every page of this machine, on any port."""


def check_origin(headers: Mapping[str, str], allowed_origins: Collection[str], keys_required: bool) -> None:
    """Check that the web page that sends a request may use this server.

    Without API keys, any page that is open in a browser with access to the server could connect to it. Unless origins
    are configured, only the server's own page may therefore do so. Requests without an `Origin` header pass.

    Args:
        headers: Headers of the request; names in lower case.
        allowed_origins: Configured origins; `*` allows all of them, `localhost` the pages of this machine.
        keys_required: Whether requests need an API key; without `allowed_origins`, all origins are then allowed.

    Raises:
        OriginError: The page's origin is not allowed.
    """
    origin = headers.get("origin")
    if origin is None or "*" in allowed_origins or origin in allowed_origins or (not allowed_origins and keys_required):
        return
    is_local = _is_local_page(origin)
    if is_local and LOCALHOST in allowed_origins:
        return
    if _is_valid_url(origin) and urlsplit(origin).netloc == headers.get("host"):
        return
    hint = f" (--allowed-origin {LOCALHOST} allows the pages of this machine on all ports)" if is_local else ""
    raise OriginError(f"the origin {origin:.80} is not allowed; the operator can add it to allowed_origins{hint}")


def check_host(headers: Mapping[str, str], allowed_hosts: Collection[str], keys_required: bool) -> None:
    """Check that a request was sent to this server by a name that belongs to it.

    A page of evil.example whose name has come to resolve to this server's address (DNS rebinding) has the same origin
    as the server to a browser; only the `Host` header shows it. Addresses and localhost cannot be rebound. A page
    without an API key achieves nothing, so servers with keys accept any host. Browsers always send the header.

    Args:
        headers: Headers of the request; names in lower case.
        allowed_hosts: Configured names, without ports; `*` allows all of them.
        keys_required: Whether requests need an API key.

    Raises:
        HostError: The name is not allowed.
    """
    host = headers.get("host")
    if host is None or keys_required or "*" in allowed_hosts:
        return
    name = (urlsplit(f"//{host}").hostname or "") if _is_valid_url(f"//{host}") else ""
    name = name.removesuffix(".")
    if not (_is_localhost(name) or _is_address(name) or name in (allowed.lower() for allowed in allowed_hosts)):
        raise HostError(
            f"the host {host:.80} is not allowed without API keys; the operator can add it to allowed_hosts"
        )


def _is_valid_url(url: str) -> bool:
    try:
        urlsplit(url)
    except ValueError:
        return False
    return True


def _is_local_page(origin: str) -> bool:
    """Return whether the page is served by this machine, as seen by the browser."""
    if not _is_valid_url(origin) or urlsplit(origin).scheme not in ("http", "https"):
        return False
    name = urlsplit(origin).hostname or ""
    return _is_localhost(name) or (_is_address(name) and ip_address(name).is_loopback)


def _is_localhost(name: str) -> bool:
    return name == LOCALHOST or name.endswith(f".{LOCALHOST}")


def _is_address(name: str) -> bool:
    try:
        ip_address(name)
    except ValueError:
        return False
    return True
