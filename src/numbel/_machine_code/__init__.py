"""Machine code of the CPU's kernels: compiled, kept, brought by a wheel, and run in threads."""
