"""Compare the 1B language model with the moshi package's bf16 step: same weights, alternating steps, one stream.

    python benchmarks/lm_vs_moshi.py [--threads 2] [--rounds 40] [--dtypes int8,int4]

Tympan attends to a full ring of 60 s; moshi's attention covers its whole ring at any age. Needs the moshi package
(installed without its pins) and 10 GiB of memory. The last line is JSON, with the ratio of medians for each type.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
from collections.abc import Callable
from pathlib import Path

import torch
from alternating import timed
from moshi.models import LMGen, LMModel
from moshi.utils.compile import no_compile
from safetensors.torch import save_file

from tympan.engine.kyutai.loader import quantize
from tympan.models.checkpoints.names import kyutai_lm
from tympan.models.checkpoints.randomized import PRESETS
from tympan.models.checkpoints.tensors import TensorFiles, fill
from tympan.models.cpu.threads import give_threads_to_pytorch, give_threads_to_sessions
from tympan.models.lm import LM

CONFIG = PRESETS["1b"].lm
MOSHI_NAME = "moshi bf16"
MOSHI = {
    "dim": 2048,
    "num_layers": 16,
    "num_heads": 16,
    "hidden_scale": 4.125,
    "context": 750,
    "max_period": 100_000.0,
    "n_q": 32,
    "dep_q": 0,
    "card": 2048,
    "text_card": 8000,
    "existing_text_padding_id": 3,
    "delays": [0] * 33,
    "gating": "silu",
    "norm": "rms_norm_f32",
    "positional_embedding": "rope",
    "causal": True,
    "depformer_dim": 64,
    "extra_heads_num_heads": 4,
    "extra_heads_dim": 6,
}


def build_moshi() -> LMModel:
    torch.manual_seed(0)
    return LMModel(**MOSHI, dtype=torch.bfloat16).eval()


def build_ours(file: Path, kind: str) -> LM:
    with torch.device("meta"):
        lm = LM(CONFIG)
    fill(lm, kyutai_lm(CONFIG), TensorFiles([file]), device=torch.device("cpu"), dtype=torch.bfloat16)
    quantize(lm, kind)
    return lm


def stepper(lm: LM) -> Callable[[], None]:
    """Return a function that runs one step of a stream whose ring is full."""
    state, rows = lm.init_state(1, cache_dtype=torch.float32), torch.zeros(1, dtype=torch.int64)
    state.position.fill_(10_000)
    codes = torch.randint(0, 2048, (1, 32))

    def step() -> None:
        lm.step(codes, state, rows)

    return step


@torch.no_grad()
def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=40)
    parser.add_argument("--dtypes", default="int8,int4")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    reference = build_moshi()
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "model.safetensors"
        save_file({name: tensor.clone() for name, tensor in reference.state_dict().items()}, file)
        contenders = {kind: stepper(build_ours(file, kind)) for kind in options.dtypes.split(",")}
    generator = LMGen(reference, use_sampling=False, temp=0.0, temp_text=0.0)
    codes = torch.randint(0, 2048, (1, 32, 1))
    with no_compile(), generator.streaming(1):
        contenders = {MOSHI_NAME: lambda: generator.step_with_extra_heads(codes) and None, **contenders}
        times = alternate(contenders, options.rounds)
    report(times, options.threads)


def alternate(contenders: dict[str, Callable[[], None]], rounds: int) -> dict[str, list[float]]:
    times: dict[str, list[float]] = {name: [] for name in contenders}
    for turn in range(rounds + 3):
        if turn == 3:
            times = {name: [] for name in contenders}
        for name, step in contenders.items():
            if name == MOSHI_NAME:
                give_threads_to_pytorch()
            else:
                give_threads_to_sessions()
            with timed(times[name]):
                step()
    return times


def report(times: dict[str, list[float]], threads: int) -> None:
    base = statistics.median(times[MOSHI_NAME])
    medians = {name: statistics.median(each) for name, each in times.items()}
    rows = [
        {"contender": name, "ms_p50": round(median, 1), "ratio": round(base / median, 2)}
        for name, median in medians.items()
    ]
    for row in rows:
        print(f"{row['contender']:>12} {row['ms_p50']:>8} ms  {row['ratio']:>5}x")
    print(json.dumps({"rows": rows, "threads": threads, "torch": torch.__version__}))


if __name__ == "__main__":
    main()
