"""Voice activity of the stand-in: a mark, and what follows it, so that one mark is long enough for a word."""

from __future__ import annotations

from typing import Any

import numpy as np

CHUNKS_AFTER_MARK = 4  # of 32 ms


class Session:
    def run(self, outputs: None, inputs: dict[str, Any]) -> tuple[Any, Any, Any]:
        left, probabilities = float(inputs["h"].ravel()[0]), []
        for chunk in inputs["input"]:
            left = CHUNKS_AFTER_MARK if chunk[64:].any() else max(0.0, left - 1)
            probabilities.append(float(left > 0))
        return np.array(probabilities), np.full((1, 1, 128), left), inputs["c"]


class Model:
    session = Session()


def get_vad_model() -> Model:
    return Model()
