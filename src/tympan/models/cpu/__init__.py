"""Execution of the networks on a CPU by ONNX Runtime.

:func:`run_mimi_on_cpu` and :func:`run_lm_on_cpu` replace the parts of a network that compute by modules with the same
interface and the same state, which run graphs of ONNX Runtime. What the networks compute is defined in the packages
beside this one; only how a CPU computes it is defined here.

A row's result does not depend on the other rows, on the number of threads or on the load, to the bit: every kernel is
selected by the processor's instruction set and the shape of the weight, and none splits a sum between threads.
"""
