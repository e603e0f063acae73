"""Low-bit weights in files, so that a later start maps them instead of quantizing again."""

from __future__ import annotations

import logging
import os
import shutil
from pathlib import Path

import numpy as np
from torch import Tensor, nn

from tympan.models.cpu.linear import PackedWeight, WeightType, pack

logger = logging.getLogger(__name__)

_KEPT_FOLDERS = 2  # of weights; older ones are deleted


class Packer:
    """Packs the weights of a network's ``nn.Linear`` layers as ``kind``.

    Args:
        network: The network.
        kind: Type of the weights.
        folder: Where the packed weights are stored, or will be; None to store nothing. Its name must identify the
            weights and ``kind``.
    """

    def __init__(self, network: nn.Module, kind: WeightType, folder: Path | None = None) -> None:
        self._names = {id(part): name for name, part in network.named_modules() if isinstance(part, nn.Linear)}
        self._kind = kind
        self._folder = folder if kind != "f32" else None
        self._stored = self._folder is not None and self._folder.is_dir()
        self._failed = False

    def __call__(self, layer: nn.Linear, kind: WeightType | None = None) -> PackedWeight | Tensor:
        """Return the weight of ``layer``, from its file if there is one; ``kind`` replaces that of the network."""
        kind = kind or self._kind
        if self._folder is None:
            return pack(layer.weight, kind)
        name = self._names[id(layer)]
        if self._stored:
            try:
                return _read(self._folder / name, layer.in_features)
            except (OSError, ValueError, KeyError) as error:
                logger.warning("packed weights in %s cannot be read, and are made again: %s", self._folder, error)
                self._stored, self._failed = False, True  # the next start writes them again
                shutil.rmtree(self._folder, ignore_errors=True)
        packed = pack(layer.weight, kind)
        assert isinstance(packed, PackedWeight)
        if not self._failed:
            try:
                _write(self._unfinished / name, packed)
            except OSError as error:
                self._failed = True
                logger.warning("packed weights cannot be written to %s: %s", self._folder, error.strerror)
        return packed

    @property
    def _unfinished(self) -> Path:
        assert self._folder is not None
        return self._folder.with_suffix(f".new{os.getpid()}")

    def finish(self) -> None:
        """Make the files that were written available to later starts, and delete those of other weights."""
        if self._folder is None or self._stored:
            return
        try:
            if self._failed:
                shutil.rmtree(self._unfinished, ignore_errors=True)
                return
            self._unfinished.rename(self._folder)
            others = sorted(self._folder.parent.iterdir(), key=lambda path: path.stat().st_mtime, reverse=True)
            for old in others[_KEPT_FOLDERS:]:
                shutil.rmtree(old, ignore_errors=True)
        except OSError as error:  # for example, another process was faster
            logger.warning("packed weights cannot be kept in %s: %s", self._folder, error.strerror)


def _read(folder: Path, in_features: int) -> PackedWeight:
    arrays = {file.stem: np.load(file, mmap_mode="r") for file in folder.iterdir()}
    levels, scale, zero = arrays["levels"], arrays["scale"], arrays.get("zero")
    return PackedWeight(8 if zero is None else 4, in_features, levels, scale, zero)


def _write(folder: Path, weight: PackedWeight) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for name in ("levels", "scale", "zero"):
        if getattr(weight, name) is not None:
            np.save(folder / f"{name}.npy", getattr(weight, name))
