"""The origin check, which protects a server from the web pages that its users visit."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from urllib.parse import urlsplit

from tympan.errors import OriginError


def check_origin(headers: Mapping[str, str], allowed_origins: Collection[str], keys_required: bool) -> None:
    """Check the `Origin` header, which only browsers send; header names are in lower case.

    Without configured origins every page may connect where API keys are required, since a page does not have them,
    and only the server's own page where they are not.

    Raises:
        OriginError: The page may not connect.
    """
    origin = headers.get("origin")
    if origin is None or "*" in allowed_origins or origin in allowed_origins:
        return
    if keys_required and not allowed_origins:
        return
    if urlsplit(origin).netloc != headers.get("host"):
        raise OriginError(f"pages from {origin:.80} may not connect; the operator can allow them (allowed_origins)")
