"""Measure how often each weight format of the language model chooses the token that float32 chooses.

    python benchmarks/token_agreement.py [--model random:1b] [--dtypes bf16,f16,int8,int4] [--frames 250]

Every model hears the same codes and, before each step, the token that float32 chose, so that one difference is counted
once. Random weights are less sure of their choices than trained ones; name a folder or a hub repository to measure
those. The last line is JSON.
"""

from __future__ import annotations

import argparse
import json

import torch

from tympan.engine.kyutai.loader import quantize
from tympan.engine.kyutai.placement import FLOATS
from tympan.models.checkpoints.load import open_checkpoint
from tympan.models.lm import LM


@torch.inference_mode()
def run(lm: LM, codes: torch.Tensor, forced: torch.Tensor | None) -> tuple[torch.Tensor, torch.Tensor]:
    """Return tokens `[T]` and logits `[T, text_card]` of one stream, with ``forced`` tokens as its past if given."""
    state, rows = lm.init_state(1), torch.zeros(1, dtype=torch.int64)
    tokens, logits = [], []
    for index, code in enumerate(codes):
        output = lm.step(code[None], state, rows)
        tokens.append(output.token)
        logits.append(output.logits)
        if forced is not None:
            state.token.copy_(forced[index : index + 1])
    return torch.cat(tokens), torch.cat(logits)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="random:1b")
    parser.add_argument("--dtypes", default="bf16,f16,int8,int4")
    parser.add_argument("--frames", type=int, default=250)
    options = parser.parse_args()
    checkpoint = open_checkpoint(options.model)
    generator = torch.Generator().manual_seed(0)
    config = checkpoint.config.lm
    codes = torch.randint(0, config.audio_card, (options.frames, config.codebooks), generator=generator)
    tokens, logits = run(checkpoint.lm(dtype=torch.float32), codes, None)
    rows = []
    for kind in options.dtypes.split(","):
        lm = checkpoint.lm(dtype=FLOATS.get(kind, torch.bfloat16))
        quantize(lm, kind)
        found, scores = run(lm, codes, tokens)
        agreement = float((found == tokens).float().mean())
        error = float(((scores - logits).norm(dim=1) / logits.norm(dim=1)).mean())
        rows.append({"dtype": kind, "agreement": round(agreement, 4), "logit_error": round(error, 4)})
        print(rows[-1])
        del lm
    distinct = len(set(tokens.tolist()))
    print(json.dumps({"model": options.model, "frames": options.frames, "distinct_tokens": distinct, "rows": rows}))


if __name__ == "__main__":
    main()
