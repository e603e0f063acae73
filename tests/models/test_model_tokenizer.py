"""Pieces of tokens from each kind of tokenizer file."""

from __future__ import annotations

import io
import json
from pathlib import Path

import pytest
import sentencepiece

from tympan.errors import ModelError
from tympan.transcript.tokenizer import SyntheticTokenizer, load_tokenizer, text_of


@pytest.fixture
def trained(tmp_path: Path) -> Path:
    """A SentencePiece model with byte pieces, like Kyutai's."""
    model = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(["the cat sat on the mat", "a dog and a cat", "le chat est là"] * 20),
        model_writer=model,
        vocab_size=310,
        byte_fallback=True,
        model_type="unigram",
        hard_vocab_limit=False,
        minloglevel=2,
    )
    path = tmp_path / "tokenizer.model"
    path.write_bytes(model.getvalue())
    return path


def test_sentencepiece_round_trip(trained: Path) -> None:
    processor = sentencepiece.SentencePieceProcessor(model_file=str(trained))
    tokenizer = load_tokenizer(trained, processor.get_piece_size())
    for text in ("the cat sat", "le chat est là", "Ünïcödé 😀 cat"):
        pieces = [tokenizer.piece(token) for token in processor.encode(text)]
        assert text_of(pieces).strip() == processor.decode(processor.encode(text))


def test_json_tokenizers(tmp_path: Path) -> None:
    path = tmp_path / "tokenizer.json"
    added = [{"id": 3, "content": "<pad>"}, {"id": 4, "content": "<turn>", "special": True}]
    for vocabulary in ({"▁the": 0, "cat": 1, "<0xC3>": 2}, [["▁the", 0.0], ["cat", -1.0], ["<0xC3>", -2.0]]):
        path.write_text(json.dumps({"model": {"vocab": vocabulary}, "added_tokens": added}))
        tokenizer = load_tokenizer(path, 5)
        assert [tokenizer.piece(token) for token in range(5)] == ["▁the", "cat", "<0xC3>", "", ""]


def test_special_tokens_have_no_text(tmp_path: Path, trained: Path) -> None:
    """The tokenizers of the -trfs repositories have them as ordinary entries of the vocabulary."""
    path = tmp_path / "tokenizer.json"
    vocabulary = [[piece, 0.0] for piece in ("<unk>", "<s>", "</s>", "<pad>", "▁the")]
    path.write_text(json.dumps({"model": {"vocab": vocabulary}, "added_tokens": [{"id": 1, "content": "<s>"}]}))
    assert [load_tokenizer(path, 5).piece(token) for token in range(5)] == ["", "", "", "", "▁the"]
    assert [load_tokenizer(trained, 5).piece(token) for token in range(3)] == ["", "", ""]


def test_byte_pieces() -> None:
    assert text_of(["▁caf", "<0xC3>", "<0xA9>", "▁noir"]) == " café noir"
    assert text_of(["<0xC3>"]) == "\N{REPLACEMENT CHARACTER}"


def test_synthetic_pieces() -> None:
    tokenizer = SyntheticTokenizer(8000)
    pieces = [tokenizer.piece(token) for token in range(tokenizer.size)]
    assert len(set(pieces)) > 7900
    assert sum(piece.startswith("▁") for piece in pieces) > 5000


@pytest.mark.parametrize("content", [b"", b"nonsense", b"{}"])
def test_invalid_tokenizer_file(tmp_path: Path, content: bytes) -> None:
    for name, expected in (("t.model", "is not a SentencePiece model"), ("t.json", r"is not a tokenizer\.json file")):
        path = tmp_path / name
        path.write_bytes(content)
        with pytest.raises(ModelError, match=expected):
            load_tokenizer(path, 1)


def test_too_few_pieces(trained: Path) -> None:
    with pytest.raises(ModelError, match=r"pieces, but the model emits 8000 different tokens"):
        load_tokenizer(trained, 8000)
