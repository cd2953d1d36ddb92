"""Grid loops over the arithmetic of `_scalar`; the kernels of `_cpu` have the same names and give the same bits."""
