"""Text pieces of token ids; a piece that starts a word begins with ``▁``, as in SentencePiece."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

from tympan.errors import ModelError, missing_package

WORD_START = "▁"
_BYTE = re.compile(r"<0x([0-9A-Fa-f]{2})>")
_SPECIAL = ("<unk>", "<s>", "</s>", "<pad>")  # not marked as special in every tokenizer.json file


class Tokenizer(Protocol):
    """Maps token ids to pieces of text."""

    @property
    def size(self) -> int:
        """Number of token ids, which begin at 0."""
        ...

    def piece(self, token: int) -> str:
        """Return the piece of a token: ``▁`` for a space, ``<0xE9>`` for a byte, empty for a control token."""
        ...


def text_of(pieces: Sequence[str]) -> str:
    """Return the text of pieces: ``▁`` becomes a space, consecutive bytes become characters."""
    whole = "".join(pieces)
    if "<0x" not in whole:
        return whole.replace(WORD_START, " ")
    data = bytearray()
    for piece in pieces:
        byte = _BYTE.fullmatch(piece)
        data += bytes([int(byte[1], 16)]) if byte else piece.replace(WORD_START, " ").encode()
    return data.decode(errors="replace")


class SentencePieceTokenizer:
    """A SentencePiece ``.model`` file, as in Kyutai's repositories.

    Raises:
        ModelError: The file is not a SentencePiece model.
    """

    def __init__(self, path: Path) -> None:
        try:
            import sentencepiece
        except ImportError:
            raise missing_package("this model's tokenizer", "sentencepiece", "torch") from None
        try:
            processor = sentencepiece.SentencePieceProcessor(model_file=str(path))
        except (RuntimeError, OSError):
            raise ModelError(f"{path} is not a SentencePiece model") from None
        tokens = range(processor.get_piece_size())
        silent = [
            processor.is_control(token) or processor.is_unused(token) or processor.is_unknown(token) for token in tokens
        ]
        self._pieces: list[str] = ["" if silent[token] else processor.id_to_piece(token) for token in tokens]

    @property
    def size(self) -> int:
        return len(self._pieces)

    def piece(self, token: int) -> str:
        return self._pieces[token]


class JsonTokenizer:
    """A ``tokenizer.json`` file of the transformers library, of which only the vocabulary is read.

    Raises:
        ModelError: The file has no vocabulary.
    """

    def __init__(self, path: Path) -> None:
        try:
            content = json.loads(path.read_text(encoding="utf-8"))
            vocabulary = content["model"]["vocab"]
            if isinstance(vocabulary, dict):
                pieces = {int(token): str(piece) for piece, token in vocabulary.items()}
            else:
                pieces = {token: str(entry[0]) for token, entry in enumerate(vocabulary)}
            for entry in content.get("added_tokens", []):
                pieces[int(entry["id"])] = "" if entry.get("special") else str(entry["content"])
        except (ValueError, KeyError, TypeError, IndexError, AttributeError):
            raise ModelError(f"{path} is not a tokenizer.json file") from None
        texts = (pieces.get(token, "") for token in range(max(pieces, default=-1) + 1))
        self._pieces = ["" if text in _SPECIAL else text for text in texts]

    @property
    def size(self) -> int:
        return len(self._pieces)

    def piece(self, token: int) -> str:
        return self._pieces[token]


class SyntheticTokenizer:
    """Synthetic pieces for random models: ids 0 to 3 are empty, two in three of the others start a word."""

    _CONSONANTS = "bdfgklmnprstvz"
    _VOWELS = "aeiou"

    def __init__(self, size: int) -> None:
        self._pieces = [self._make(token) for token in range(size)]

    @property
    def size(self) -> int:
        return len(self._pieces)

    def piece(self, token: int) -> str:
        return self._pieces[token]

    def _make(self, token: int) -> str:
        if token < 4:
            return ""
        number, letters = token, ""
        while not letters or number:
            number, syllable = divmod(number, len(self._CONSONANTS) * len(self._VOWELS))
            letters += self._CONSONANTS[syllable // len(self._VOWELS)] + self._VOWELS[syllable % len(self._VOWELS)]
        return letters if token % 3 == 0 else WORD_START + letters


def load_tokenizer(path: Path | None, size: int) -> Tokenizer:
    """Return the tokenizer of a file.

    Args:
        path: The file; None returns a synthetic tokenizer.
        size: Number of different tokens that the model emits.

    Raises:
        ModelError: The file has fewer tokens, or another format.
    """
    if path is None:
        return SyntheticTokenizer(size)
    tokenizer: Tokenizer = JsonTokenizer(path) if path.suffix == ".json" else SentencePieceTokenizer(path)
    if tokenizer.size < size:
        raise ModelError(f"{path} has {tokenizer.size} pieces, but the model emits {size} different tokens")
    return tokenizer
