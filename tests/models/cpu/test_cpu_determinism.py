"""A stream's results on a CPU are the same to the bit whatever runs beside it, in any process, with any threads."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from support.cpu_streams import STREAMS, run_streams

from tympan.models.config import MimiConfig
from tympan.models.cpu.linear import CpuLinear, WeightType, pack
from tympan.models.cpu.networks import run_mimi_on_cpu
from tympan.models.mimi import MimiEncoder

SCRIPT = Path(__file__).parents[2] / "support" / "cpu_streams.py"
KINDS: tuple[WeightType, ...] = ("f32", "int8", "int4")


@pytest.mark.timeout(300)  # 10 s on an idle machine
@pytest.mark.parametrize("kind", KINDS)
def test_results_do_not_depend_on_batch(kind: WeightType) -> None:
    alone = run_streams(kind, 1)
    assert len({tuple(stream[1].tolist()) for stream in alone}) == STREAMS, "the streams are not all the same"
    for batch in range(2, STREAMS + 1):
        for expected, found in zip(alone, run_streams(kind, batch), strict=True):
            for part, other in zip(expected, found, strict=True):
                assert torch.equal(part, other)


@pytest.mark.timeout(300)
@pytest.mark.parametrize("kind", KINDS)
def test_results_do_not_depend_on_process_or_threads(kind: WeightType) -> None:
    """All processes run at the same time, with more threads than the machine has cores."""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    runs = [
        subprocess.Popen(
            [sys.executable, str(SCRIPT), kind, str(batch), str(threads)],
            stdout=subprocess.PIPE,
            text=True,
            env=environment,
        )
        for batch, threads in ((1, 1), (2, 2), (STREAMS, 4))
    ]
    digests = {run.communicate()[0].strip() for run in runs}
    assert [run.returncode for run in runs] == [0] * len(runs)
    assert len(digests) == 1


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("shape", [(2048, 512), (1536, 512), (1024, 2048), (512, 5632)], ids=str)
def test_product_rows_are_independent(kind: WeightType, shape: tuple[int, int]) -> None:
    """Products of the published models' sizes."""
    torch.manual_seed(0)
    layer, x = CpuLinear(pack(torch.randn(shape), kind)), torch.randn(33, shape[1])
    whole = layer(x)
    for rows in (1, 2, 3, 4, 5, 7, 8, 16):
        assert torch.equal(layer(x[:rows]), whole[:rows])
        assert torch.equal(layer(x[-rows:]), whole[-rows:])


@pytest.mark.timeout(120)
@torch.no_grad()
def test_full_size_codec_rows_are_independent() -> None:
    torch.manual_seed(0)
    mimi = MimiEncoder(MimiConfig())
    for parameter in mimi.parameters():
        parameter.normal_(0, 0.05)
    run_mimi_on_cpu(mimi)
    frames = torch.randn(2, 5, mimi.frame_samples) * 0.1
    together, alone = mimi.init_state(5), mimi.init_state(5)
    for frame in frames:
        latent = mimi.latent(frame, together, torch.arange(5))
        codes = mimi.quantizer(latent, mimi.codebooks)
        for row in range(5):
            single = mimi.latent(frame[row : row + 1], alone, torch.tensor([row]))
            assert torch.equal(single, latent[row : row + 1])
            assert torch.equal(mimi.quantizer(single, mimi.codebooks), codes[row : row + 1])
