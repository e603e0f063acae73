"""Kyutai's speech-to-text networks in plain PyTorch: streaming inference with explicit state.

Modules hold weights only. The state of all streams is a value that is passed to each call and indexed by slot.

Letters in the shapes of this package:

====  =====================================================================================
B     rows of a batch, one per stream; ``rows [B]`` int64 holds the slot of each row
K     codebooks
T     new steps of a call: samples, frames or positions
C     capacity of a ring of cached keys and values, in steps (channels in convolutions)
H, D  attention heads and head dimension
V     size of the text vocabulary
====  =====================================================================================
"""
