"""Measure the GPU figures in at most 480 seconds: `python benchmarks/gpu_figures.py [--results FOLDER] [--commit SHA]`.

Run `gpu_smoke.py` first. Results go to a file of JSON lines as soon as they exist, those of every load one by one; what
the stages print goes to a log beside it. `gpu_report.py` makes the tables of docs/gpu.md from such files. The exit
status is 1 if a stage failed or a figure missed its limit.
"""

from __future__ import annotations

import sys
from pathlib import Path

from gpu.harness import Script, Stage, main

LOADS = "gpu.loads:loads"
NO_COMPILE = (("NO_TORCH_COMPILE", "1"),)


def load_stage(name: str, dtype: str, cache: str, streams: str, most_seconds: float, **more: str) -> Stage:
    options = (("dtype", dtype), ("cache", cache), ("streams", streams), *more.items())
    return Stage(name, LOADS, most_seconds, least=25, options=options, resumes=0)


# The most wanted first. `seconds` is the most that a stage may take: their sum is more than the script's 475, so when
# the first take all of theirs, the last are left out, and the record says so.
STAGES = (
    #                                                                      expected / at most, seconds
    Stage("draw", "gpu.machine:draw", 45),  #                                     20 / 45
    Stage("compile", "gpu.machine:compiling", 45, beside=True),
    load_stage("loads bf16", "bf16", "bf16", "256,512,640,fit", 125, target="700"),  # 95 / 125
    load_stage("loads fp8 cache", "bf16", "fp8", "640,960,1200,fit", 125, target="1300"),  # 95 / 125
    Stage(  #                                                                      80 / 110
        "moshi",
        "gpu.loads:moshi",
        110,
        least=40,
        resumes=0,
        quick_environment=NO_COMPILE,
        fallback=Stage("moshi without compile", "gpu.loads:moshi", 60, least=30, resumes=0, environment=NO_COMPILE),
    ),
    Stage("agreement", "gpu.exactness:agreement", 60, least=20),  #               45 / 60
    Stage("exactness", "gpu.exactness:exactness", 50, least=20),  #               35 / 50
    load_stage("loads fp8 weights", "fp8", "bf16", "64", 40, seconds="8"),  #      30 / 40
    load_stage("loads f16", "f16", "f16", "64", 40, seconds="8"),  #               30 / 40
    Stage("rates", "gpu.rates:rates", 40, least=15),  #                           20 / 40
)

if __name__ == "__main__":
    about = __doc__ or ""
    sys.exit(main(Script("figures", Path(__file__).resolve(), about, STAGES, seconds=475)))
