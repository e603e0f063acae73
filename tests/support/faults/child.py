"""A child process of `support.faults.serve --fronts N`: runs a module of Tympan with the same fault.

python -m support.faults.child FAULT MODULE [arguments]
"""

from __future__ import annotations

import runpy
import sys

from support.faults.serve import install

if __name__ == "__main__":
    fault, module, *arguments = sys.argv[1:]
    install(fault)
    sys.argv[1:] = arguments
    runpy.run_module(module, run_name="__main__", alter_sys=True)
