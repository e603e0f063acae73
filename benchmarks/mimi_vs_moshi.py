"""Compare Mimi's encoder with the moshi package's batched streaming loop: same random weights, alternating steps.

    python benchmarks/mimi_vs_moshi.py [--threads 2] [--batch 1,8] [--rounds 60]

Prints a table; the last line is JSON: {"rows": [{"batch", "moshi_ms_p50", "tympan_ms_p50", "ratio", "codes_equal"}…]}.
Needs the moshi package (installed without its pins) beside Tympan.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
from pathlib import Path
from typing import Any

import torch
from alternating import timed
from moshi.models import loaders
from safetensors.torch import save_file

from tympan.models.checkpoints.names import MIMI_UNUSED, kyutai_mimi
from tympan.models.checkpoints.randomized import synthetic_voice
from tympan.models.checkpoints.tensors import TensorFiles, check_all_used, fill
from tympan.models.config import MimiConfig
from tympan.models.cpu.networks import run_mimi_on_cpu
from tympan.models.cpu.threads import give_threads_to_pytorch, give_threads_to_sessions
from tympan.models.mimi import MimiEncoder

RING_FRAMES = 125  # context of the encoder's transformer, 10 s


def build(folder: Path) -> tuple[Any, MimiEncoder]:
    """Return moshi's codec with random weights, and Tympan's with the same weights."""
    torch.manual_seed(0)
    reference = loaders.get_mimi(None, num_codebooks=32)
    for name, buffer in reference.named_buffers():
        if name.endswith("embedding_sum"):
            buffer.normal_()
    for name, parameter in reference.named_parameters():
        if name.startswith("encoder.") and parameter.dim() == 3:
            parameter.data.normal_(0, 1.2 / parameter[0].numel() ** 0.5)
    save_file(reference.state_dict(), folder / "mimi.safetensors")
    files = TensorFiles([folder / "mimi.safetensors"])
    with torch.device("meta"):
        ours = MimiEncoder(MimiConfig())
    fill(ours, kyutai_mimi(MimiConfig()), files, device=torch.device("cpu"), dtype=torch.float32)
    check_all_used(files, MIMI_UNUSED)
    run_mimi_on_cpu(ours)
    return reference, ours


@torch.no_grad()
def measure(reference: Any, ours: MimiEncoder, batch: int, rounds: int) -> dict[str, object]:
    """Return the median milliseconds of a step of both, alternating, once both rings are full."""
    count = rounds + RING_FRAMES
    voice = synthetic_voice(batch * count * 1920, 24_000, torch.Generator().manual_seed(1)).view(batch, count, 1920)
    state, rows = ours.init_state(batch), torch.arange(batch)
    times: dict[str, list[float]] = {"moshi": [], "tympan": []}
    differing = 0
    with reference.streaming(batch):
        for index in range(count):
            frames = voice[:, index].contiguous()
            give_threads_to_pytorch()
            with timed(times["moshi"]):
                expected = reference.encode(frames[:, None])[:, :, 0]
            give_threads_to_sessions()
            with timed(times["tympan"]):
                found = ours.encode(frames, state, rows)
            differing += int((found != expected).any(dim=1).sum())
    medians = {name: statistics.median(values[RING_FRAMES:]) for name, values in times.items()}
    return {
        "batch": batch,
        "moshi_ms_p50": round(medians["moshi"], 2),
        "tympan_ms_p50": round(medians["tympan"], 2),
        "ratio": round(medians["moshi"] / medians["tympan"], 2),
        "codes_equal": differing == 0,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--batch", default="1,8")
    parser.add_argument("--rounds", type=int, default=60)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    with tempfile.TemporaryDirectory() as folder:
        reference, ours = build(Path(folder))
    rows = [measure(reference, ours, int(batch), options.rounds) for batch in options.batch.split(",")]
    print(f"{'batch':>5} {'moshi ms':>9} {'tympan ms':>9} {'ratio':>6}")
    for row in rows:
        print(f"{row['batch']:>5} {row['moshi_ms_p50']:>9} {row['tympan_ms_p50']:>9} {row['ratio']:>6}")
    print(json.dumps({"rows": rows, "threads": options.threads}))


if __name__ == "__main__":
    main()
