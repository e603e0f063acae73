"""Base64 as clients send it."""

from __future__ import annotations

import base64
import random
import textwrap

import pytest

from tympan.errors import AudioError
from tympan.protocols.openai.languages import language_name
from tympan.protocols.wire import base64_audio


@pytest.mark.parametrize("size", [0, 1, 2, 3, 57, 3840])
def test_every_form_of_base64(size: int) -> None:
    data = random.Random(size).randbytes(size)
    plain = base64.b64encode(data).decode()
    url_safe = base64.urlsafe_b64encode(data).decode()
    forms = [
        plain,
        plain.rstrip("="),
        url_safe,
        url_safe.rstrip("="),
        base64.encodebytes(data).decode(),
        "\r\n".join(textwrap.wrap(plain, 76)) + "\r\n",
        f"data:audio/pcm;base64,{plain}",
        f"data:;base64,{url_safe.rstrip('=')}\n",
        f"DATA:audio/wav;codecs=1;base64,{plain}",
    ]
    assert [base64_audio(form) for form in forms] == [data] * len(forms)


@pytest.mark.parametrize(
    "text", ["A", "AAAAA", "é", "%%%%", "AA=A", "data:audio/pcm;base64,!", "x,AAAA", None, 5, b"AA"]
)
def test_invalid_base64(text: object) -> None:
    with pytest.raises(AudioError, match="base64"):
        base64_audio(text)


@pytest.mark.parametrize(
    ("given", "name"),
    [
        ("en", "english"),
        ("fr", "french"),
        ("en-US", "english"),
        ("pt_BR", "portuguese"),
        ("DE", "german"),
        ("ht", "haitian creole"),
        ("english", "english"),
        ("xx", "xx"),
        ("unknown", "unknown"),
        ("", "unknown"),
    ],
)
def test_language_names(given: str, name: str) -> None:
    assert language_name(given) == name
