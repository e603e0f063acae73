"""Sizes, hashes and reference tokens of the published checkpoints, for `tympan verify`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final


@dataclass(frozen=True, slots=True)
class PublishedFile:
    """One published file.

    Attributes:
        name: Its name in the repository.
        size_bytes: Its size.
        sha256: Its SHA-256 as hexadecimal digits.
    """

    name: str
    size_bytes: int
    sha256: str


@dataclass(frozen=True, slots=True)
class PublishedModel:
    """The files of a model at one revision."""

    repository: str
    revision: str
    files: tuple[PublishedFile, ...]


MIMI: Final = PublishedFile(
    "mimi-pytorch-e351c8d8@125.safetensors",
    384_644_900,
    "09b782f0629851a271227fb9d36db65c041790365f11bbe5d3d59369cf863f50",
)

PUBLISHED: Final = (
    PublishedModel(
        "kyutai/stt-1b-en_fr-candle",
        "095e38f6242006a93c2541149b181988397f5c7c",
        (
            PublishedFile("config.json", 1_315, "a3f1c6f7a39fca1fb1bbff68eaabc560b8037d2cdc68aa1f489859949a4223de"),
            PublishedFile(
                "tokenizer_en_fr_audio_8000.model",
                120_378,
                "cd87dd5d17169151782ac700280ec057e5d658a9afbe238a048ea5ff318cce69",
            ),
            MIMI,
            PublishedFile(
                "model.safetensors", 1_978_522_200, "b9e97c53229dce728d65c76bfa892f7b563c69d671899f0ebc6518582dddec6f"
            ),
        ),
    ),
    PublishedModel(
        "kyutai/stt-2.6b-en",
        "a07aec56d22be5589cd0bc8709c75b6cf3e3039d",
        (
            PublishedFile("config.json", 1_257, "b79ea52a30329887a2d0ce2dd5473a63fc5083e441e7986f64f01050c06239c9"),
            PublishedFile(
                "tokenizer_en_audio_4000.model",
                59_339,
                "d461765ae179566678c93091c5fa6f2984c31bbe990bf1aa62d92c64d91bc3f6",
            ),
            MIMI,
            PublishedFile(
                "model.safetensors", 5_234_275_128, "2471add7da1fdb2d5dc4561e88a9069376333d992760d55d29d1db46c52849b2"
            ),
        ),
    ),
)

# The text tokens, without padding, that the 2.6B gives for the clip 1272-128104-0000 of LibriSpeech ("Mr. Quilter is
# the apostle …"). Source: huggingface/transformers, tests/models/kyutai_speech_to_text, first row of EXPECTED_TOKENS.
LIBRISPEECH_CLIP: Final = "1272-128104-0000"
LIBRISPEECH_TOKENS_2_6B: Final = (
    *(1519, 263, 3635, 428, 641, 277, 265, 267, 1162, 261, 274, 410, 272, 265, 260, 1621),
    *(1174, 371, 262, 269, 281, 304, 2433, 266, 281, 1661, 376, 350, 261, 401, 516, 263),
)
