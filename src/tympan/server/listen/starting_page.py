"""The page that browsers get while the model loads: it shows the stage, and reloads when the server's page is there."""

from __future__ import annotations

import base64
import hashlib
import re
from html import escape
from importlib.resources import files

_TEXT = (files("tympan.server") / "static" / "starting.html").read_text(encoding="utf-8")


def _hash_of(element: str) -> str:
    """Return the hash with which a content security policy allows the page's own script or style."""
    found = re.search(f"<{element}>(.*?)</{element}>", _TEXT, re.DOTALL)
    assert found is not None, element
    return "'sha256-" + base64.b64encode(hashlib.sha256(found[1].encode()).digest()).decode() + "'"


POLICY = (
    f"default-src 'none'; connect-src 'self'; script-src {_hash_of('script')}; style-src {_hash_of('style')}; "
    "frame-ancestors 'none'; base-uri 'none'; form-action 'none'"
)


def page(stage: str) -> bytes:
    """Return the page with the stage of the start."""
    return _TEXT.replace("STAGE", escape(stage)).encode()
