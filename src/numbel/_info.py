"""warmup and show_config."""

from __future__ import annotations

import platform
from collections.abc import Iterable
from importlib import metadata

import numba
import numpy as np
from numpy.typing import DTypeLike

from . import _checks, _jit
from ._top_k import top_k_weights
from .accumulate import CategoricalAccumulator
from .densities import entropy, log_prob
from .generator import Generator
from .gradients import gumbel_softmax_vjp
from .table import CategoricalTable


def warmup(dtypes: Iterable[DTypeLike] = (np.float32,)) -> None:
    """Compile, or load from the disk cache, every kernel for logits and noise of these dtypes.

    Parameters
    ----------
    dtypes : iterable of dtype, optional
        float16, bfloat16, float32, float64.

    Raises
    ------
    TypeError
        If a dtype is none of these.

    Notes
    -----
    Compiling takes some ten seconds a kernel on the first call ever; afterwards machine code comes from
    the disk cache (`show_config` says where it is).

    Examples
    --------
    >>> import numbel
    >>> numbel.warmup()
    """
    rng = Generator(0)
    for entry in dtypes:
        dtype = _checks.float_dtype(entry)
        for method in ("grouped", "gumbel_max"):
            rng.categorical(np.zeros(600, dtype), offsets=[0, 500, 600], method=method)
        for shape in ((1, 70), (1, 2), (1, 1 << 17), (1 << 16, 2)):
            logits = np.zeros(shape, dtype)
            rng.sample(logits)
            rng.sample(logits, method="gumbel_max")
            top_k_weights(rng.gumbel_top_k(logits, 1), logits)
            rng.sample(logits, top_k=1)
            rng.sample(logits, method="gumbel_max", top_k=1)
            for method in ("grouped", "gumbel_max"):
                CategoricalAccumulator(rng, method=method).update(logits).result()
            rng.gumbel(size=shape, dtype=dtype)
            y = rng.gumbel_softmax(logits)
            rng.conditional_gumbel(logits, np.zeros(len(logits), np.int64))
            gumbel_softmax_vjp(y, logits)
            entropy(logits)
            index = rng.categorical(logits[:8], 1 << 10)
            log_prob(logits[:8], index)
            rng.multinomial(100, logits)
        CategoricalTable(np.zeros(2, dtype)).sample(rng, 2)


def show_config() -> None:
    """Print versions, CPU, threads, threading layer and where compiled kernels are kept.

    Examples
    --------
    >>> import numbel
    >>> numbel.show_config()  # doctest: +ELLIPSIS
    numbel ...
    """
    for name, value in config().items():
        print(f"{name:<16} {value}")


def config() -> dict[str, str]:
    """What `show_config` prints."""
    import llvmlite.binding as llvm

    from . import BITS_VERSION, __version__

    try:
        layer = numba.threading_layer()
    except ValueError:
        layer = "not started"
    folder = _jit.cache_folder()
    return {
        "numbel": f"{__version__} (bits version {BITS_VERSION})",
        "python": platform.python_version(),
        "numba": numba.__version__,
        "numpy": np.__version__,
        "llvmlite": metadata.version("llvmlite"),
        "cpu": str(numba.config.CPU_NAME or llvm.get_host_cpu_name()),
        "threads": f"{numba.get_num_threads()} of {numba.config.NUMBA_NUM_THREADS}",
        "threading layer": str(layer),
        "cache": str(folder) if folder is not None else "off",
    }
