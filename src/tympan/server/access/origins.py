"""The check of the `Origin` header, which browsers send with every WebSocket and cross-origin request."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from urllib.parse import urlsplit

from tympan.errors import OriginError


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
    if urlsplit(origin).netloc != headers.get("host"):
        raise OriginError(f"the origin {origin:.80} is not allowed; the operator can add it to allowed_origins")
