"""The checks of the `Origin` and `Host` headers, which keep other web pages from a server that a browser can reach."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from ipaddress import ip_address
from urllib.parse import urlsplit

from tympan.errors import HostError, OriginError


def check_origin(headers: Mapping[str, str], allowed_origins: Collection[str], keys_required: bool) -> None:
    """Check that the web page that sends a request may use this server.

    Without API keys, any page that is open in a browser with access to the server could connect to it. Unless origins
    are configured, only the server's own page may therefore do so. Requests without an `Origin` header pass.

    Args:
        headers: Headers of the request; names in lower case.
        allowed_origins: Configured origins; `*` allows all of them.
        keys_required: Whether requests need an API key; without `allowed_origins`, all origins are then allowed.

    Raises:
        OriginError: The page's origin is not allowed.
    """
    origin = headers.get("origin")
    if origin is None or "*" in allowed_origins or origin in allowed_origins or (not allowed_origins and keys_required):
        return
    if _is_valid_url(origin) and urlsplit(origin).netloc == headers.get("host"):
        return
    raise OriginError(f"the origin {origin:.80} is not allowed; the operator can add it to allowed_origins")


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
    is_local = name == "localhost" or name.endswith(".localhost")
    if not (is_local or _is_address(name) or name in (allowed.lower() for allowed in allowed_hosts)):
        raise HostError(
            f"the host {host:.80} is not allowed without API keys; the operator can add it to allowed_hosts"
        )


def _is_valid_url(url: str) -> bool:
    try:
        urlsplit(url)
    except ValueError:
        return False
    return True


def _is_address(name: str) -> bool:
    try:
        ip_address(name)
    except ValueError:
        return False
    return True
