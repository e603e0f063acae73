"""From the name of a model to its checkpoint."""

from __future__ import annotations

from tympan.models.checkpoints.checkpoint import Checkpoint
from tympan.models.checkpoints.randomized import open_random
from tympan.models.checkpoints.stored import open_stored


def open_checkpoint(model: str) -> Checkpoint:
    """``org/name[@revision]``, a local folder, or ``random:1b|2.6b|tiny[@seed]``.

    Reads (downloads) the configuration, not the weights. Raises ModelError, one sentence that says what is wrong.
    """
    return open_random(model) if model.startswith("random:") else open_stored(model)
