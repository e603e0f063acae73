"""Check the GPU path in at most 90 seconds: `python benchmarks/gpu_smoke.py [--results DIR] [--commit SHA]`.

Run it first on a machine whose GPU has not run this code. It checks every kernel and the tokens of whole steps, and
measures the first rates. Results go to a file of JSON lines, one per check, as soon as they exist; what the checks
print goes to a log beside it. The exit status is 1 if a check failed.

docs/gpu.md says what the machine needs. Packages may also lie in the folder `carried/` beside `benchmarks/`.
"""

from __future__ import annotations

import sys
from pathlib import Path

from gpu.harness import Script, Stage, main

INTERPRETER = (("TRITON_INTERPRET", "1"),)

# Seconds are the most that a stage may take; together they are more than the script's 88, because stages rarely need
# all of them. A stage that does not fit is left out.
STAGES = (
    # from 0 s: all but the first are needed by what follows
    Stage("machine", "gpu.machine:machine", 30),
    Stage("draw", "gpu.machine:draw", 45, beside=True),
    Stage("compile", "gpu.machine:compiling", 45, beside=True),
    # from about 25 s: nothing here is timed
    Stage("kernels", "gpu.checks:check_kernels", 30, quick_environment=INTERPRETER),
    Stage("codec", "gpu.checks:check_mimi", 30, beside=True),
    Stage("tiny tokens", "gpu.exactness:tiny", 30, beside=True),
    # from about 45 s: each has the GPU to itself
    Stage("four slots", "gpu.exactness:four_slots", 25),
    Stage("rates", "gpu.rates:rates", 25),
    Stage("profiles", "gpu.rates:profiles", 25),
)

if __name__ == "__main__":
    about = __doc__ or ""
    sys.exit(main(Script("smoke", Path(__file__).resolve(), about, STAGES, seconds=88)))
