"""The jit decorators of everything that is compiled. Importing this imports Numba."""

from __future__ import annotations

from ._machine_code.compiler import inner
from ._machine_code.kernel_cache import cache_folder as cache_folder

#: Workers. No fastmath: -inf and NaN are ordinary input, and the order of sums is promised.
njit = inner()
#: Workers' parts that are called from several places, once a row or block: copied into each, they triple the time that
#: a first call takes.
apart = inner(apart=True)
#: Scalars, inlined by force: a call left in a loop keeps it from being vectorised (0.6 against 4 G/s).
inlined = inner(force=True)
