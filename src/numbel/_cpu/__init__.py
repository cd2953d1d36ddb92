"""Loops over `_scalar` arithmetic: Numba workers, serial and under `prange`."""
