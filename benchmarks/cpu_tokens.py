"""Write the tokens of a model on this machine's processor, or compare them with those of another processor.

    python benchmarks/cpu_tokens.py --results here.json
    python benchmarks/cpu_tokens.py --compare here.json  # on another machine, or in an emulator of one

Streams of seeded noise run alone and then as one batch; within one processor, both must give the same bits. Between
processors, the report says how many codes and tokens are equal. The last line is JSON.
"""

from __future__ import annotations

import argparse
import json
import platform
from pathlib import Path

import torch
from torch import Tensor

from tympan.models.checkpoints.load import open_checkpoint
from tympan.models.cpu.linear import WeightType
from tympan.models.cpu.networks import run_lm_on_cpu, run_mimi_on_cpu
from tympan.models.lm import LM
from tympan.models.mimi import MimiEncoder

STREAMS = 3
KINDS: tuple[WeightType, ...] = ("f32", "int8", "int4")


@torch.inference_mode()
def run(mimi: MimiEncoder, lm: LM, audio: Tensor, forced: Tensor | None = None) -> tuple[Tensor, Tensor, Tensor]:
    """Return codes `[T, N, codebooks]`, tokens `[T, N]` and logits `[T, N, text_card]` of ``audio`` `[T, N, samples]`.

    Args:
        mimi: The codec.
        lm: The language model.
        audio: Frames of N streams.
        forced: Tokens `[T, N]` that the model is given as its past, so that one difference is counted once.
    """
    streams = audio.shape[1]
    codec, words, rows = mimi.init_state(streams), lm.init_state(streams), torch.arange(streams)
    steps = []
    for index, frames in enumerate(audio):
        codes = mimi.encode(frames, codec, rows)
        output = lm.step(codes, words, rows)
        steps.append((codes, output.token, output.logits))
        if forced is not None:
            words.token.copy_(forced[index])
    codes, tokens, logits = (torch.stack(part) for part in zip(*steps, strict=True))
    return codes, tokens, logits


def measure(model: str, frames: int, kind: WeightType, expected: Tensor | None) -> dict[str, object]:
    """Return the codes, the tokens, and whether a stream's bits depend on its batch."""
    checkpoint = open_checkpoint(model)
    mimi, lm = checkpoint.mimi(), checkpoint.lm(dtype=torch.float32)
    run_mimi_on_cpu(mimi)
    run_lm_on_cpu(lm, kind)
    audio = torch.randn(frames, STREAMS, mimi.frame_samples, generator=torch.Generator().manual_seed(0)) * 0.1
    together = run(mimi, lm, audio)
    alone = [run(mimi, lm, audio[:, row : row + 1]) for row in range(STREAMS)]
    same = all(
        torch.equal(part, torch.cat(parts, 1)) for part, parts in zip(together, zip(*alone, strict=True), strict=True)
    )
    tokens = together[1] if expected is None else run(mimi, lm, audio, expected)[1]
    return {"same_bits_in_any_batch": same, "codes": together[0].tolist(), "tokens": tokens.tolist()}


def equal_share(found: object, expected: object) -> float:
    """Return the share of equal values of two nested lists of the same shape."""
    return round(float((torch.tensor(found) == torch.tensor(expected)).float().mean()), 4)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="random:tiny")
    parser.add_argument("--frames", type=int, default=120)
    parser.add_argument("--results", type=Path, help="file to write")
    parser.add_argument("--compare", type=Path, help="file that --results wrote on another processor")
    options = parser.parse_args()
    others = json.loads(options.compare.read_text()) if options.compare else {}
    results: dict[str, dict[str, object]] = {}
    report: dict[str, object] = {"model": options.model, "frames": options.frames, "processor": platform.machine()}
    for kind in KINDS:
        other = others.get(kind)
        result = measure(options.model, options.frames, kind, torch.tensor(other["tokens"]) if other else None)
        results[kind] = result
        row: dict[str, object] = {"same_bits_in_any_batch": result["same_bits_in_any_batch"]}
        if other:
            row |= {f"equal_{part}": equal_share(result[part], other[part]) for part in ("codes", "tokens")}
        report[kind] = row
        print(kind, row, flush=True)
    if options.results:
        options.results.write_text(json.dumps(results))
    print(json.dumps(report))


if __name__ == "__main__":
    main()
