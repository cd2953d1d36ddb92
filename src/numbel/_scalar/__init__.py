"""The arithmetic, written once: plain scalar functions that CPU and CUDA kernels both call.

Everything here uses only operations that IEEE 754 rounds exactly (add, subtract, multiply, fma,
divide, square root) and integer operations, so that every device gives the same bits.
"""
