"""Tokens that kyutai/stt-2.6b-en emits for four clips of LibriSpeech, and pieces for them.

The tokens are published by huggingface/transformers, `test_generation_batched` in
tests/models/kyutai_speech_to_text/test_modeling_kyutai_speech_to_text.py at commit
03a5fc59e81204969dced5d6197f0181e0b87202. The rows there begin with the initial token and the
output of position 0, which are left out. The next 49 frames are padding (`LEADING_FRAMES`), and so are those after the
last token.

The tokenizer itself is not available. `pieces` divides the words of the clips into as many pieces as there are tokens,
each token with the same piece everywhere. This checks how pieces are grouped into words, that no piece is lost, and the
times of the words. It does not check the spelling: the tokenizer may divide a word in another way, or spell it
differently.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

LEADING_FRAMES: Final = 49
"""Frames of padding before each of the rows: a second of silence, the delay, and the silence before the speech."""

_ROWS: Final = (
    (
        "0 1519 263 3 3 0 3635 428 641 0 277 3 0 265 0 267 1162 261 274 410 0 272 3 0 265 0 260 1621 0 1174 "
        "371 262 3 3 3 0 269 0 281 0 304 0 2433 3 0 266 3 0 281 1661 3 0 376 3 3 0 350 261 401 516 263"
    ),
    (
        "3 0 500 334 0 277 3 0 1519 263 3 3 0 3635 428 641 264 261 0 511 1109 3 0 1138 3 3 3 0 508 827 3 3 3 "
        "3 0 468 3 3 0 376 3 3 3 0 260 978 263"
    ),
    (
        "0 414 0 527 261 3 0 409 3 3 3 0 271 3 0 309 3 0 285 3 0 521 371 609 3 3 0 260 959 3 3 3 0 272 3 0 "
        "265 0 546 262 3 3 3 3 3 3 0 291 3 0 975 2203 3 3 3 3 0 269 3 0 260 489 651 274 279 1870 3 0 1084 873 "
        "273 3 0 260 531 3 3 0 409 262 3 3 3 3 3 3 3 3 3 3 3 0 1502 1005 836 3 3 0 1666 306 3 0 340 3 0 260 "
        "3232 3 0 269 3 3 0 275 261 0 260 1379 261 0 3324 3 3 3 3 0 549 3 3 0 693 405 323 3 0 266 3 3 0 265 0 "
        "699 263"
    ),
    (
        "0 414 0 392 3 3 0 1269 314 0 2607 261 3 3 3 0 1098 295 3 3 3 0 446 625 3 0 496 280 1205 485 1071 "
        "1627 449 264 261 3 0 400 0 277 3 3 3 0 260 342 3 0 618 280 1866 3 3 0 554 3 3 3 3 0 317 262 3 3 3 3 "
        "3 3 3 3 0 269 0 303 3 0 573 2615 3 3 0 276 3 0 275 0 305 3 0 260 415 3 3 0 272 3 3 3 3 0 1631 327 3 "
        "3 0 333 739 841 263"
    ),
)
ROWS: Final[Sequence[Sequence[int]]] = [[int(token) for token in row.split()] for row in _ROWS]

TEXTS: Final = (
    "Mr. Quilter is the apostle of the middle classes, and we are glad to welcome his gospel.",
    "Nor is Mr. Quilter's manner less interesting than his matter.",
    "He tells us that at this festive season of the year, with Christmas and roast beef looming before us, similes "
    "drawn from eating and its results occur most readily to the mind.",
    "He has grave doubts whether Sir Frederick Leighton's work is really Greek after all, and can discover in it but "
    "little of rocky Ithaca.",
)

_WORDS: Final = (
    "▁Mr|. ▁Qu|il|ter ▁is ▁the ▁a|po|s|t|le ▁of ▁the ▁|middle ▁class|es|, ▁and ▁we ▁are ▁glad ▁to ▁we|lcome ▁his "
    "▁go|s|p|el|.",
    "▁N|or ▁is ▁Mr|. ▁Qu|il|ter|'|s ▁man|ner ▁less ▁inter|esting ▁than ▁his ▁|matter|.",
    "▁He ▁tell|s ▁us ▁that ▁at ▁this ▁f|es|tive ▁|season ▁of ▁the ▁year|, ▁with ▁Christ|mas ▁and ▁|ro|as|t ▁be|ef "
    "▁lo|om|ing ▁|before ▁us|, ▁si|mi|les ▁draw|n ▁from ▁|eating ▁and ▁it|s ▁|result|s ▁occur ▁most ▁read|i|ly ▁to "
    "▁the ▁mind|.",
    "▁He ▁has ▁gra|ve ▁doubt|s ▁wheth|er ▁S|ir ▁F|re|der|ick ▁Le|ight|on|'|s ▁work ▁is ▁|really ▁G|re|ek ▁after ▁all|, "
    "▁and ▁can ▁disco|ver ▁in ▁it ▁but ▁|little ▁of ▁rock|y ▁I|tha|ca|.",
)


def pieces() -> dict[int, str]:
    """Return the piece of each token of the rows.

    Raises:
        ValueError: A token would have two pieces.
    """
    found: dict[int, str] = {}
    for row, words in zip(ROWS, _WORDS, strict=True):
        spoken = [token for token in row if token not in (0, 3)]
        for token, piece in zip(spoken, words.replace(" ", "|").split("|"), strict=True):
            if found.setdefault(token, piece) != piece:
                raise ValueError(f"token {token} is {found[token]} and {piece}")
    return found
