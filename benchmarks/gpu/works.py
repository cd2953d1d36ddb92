"""What is timed on a GPU: one table {work: {library: a function that prepares a call}}, device arrays in and out."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from numba import cuda

import numbel


class Case(NamedTuple):
    """A call, and the bytes of logits that it reads or of noise that it writes."""

    call: Callable[[], Any]
    size: int


def _logits(rows: int, columns: int, dtype: str) -> Any:
    """Standard normal logits as a torch tensor."""
    import torch

    torch.manual_seed(1)
    return torch.randn(rows, columns, device="cuda").to(getattr(torch, dtype))


def _ours(function: str, **options: Any) -> Callable[..., Case]:
    def prepare(rows: int, columns: int, dtype: str) -> Case:
        x = _logits(rows, columns, dtype)
        rng = numbel.Generator(5)
        if function == "gumbel":
            import torch

            out = torch.empty(rows, columns, dtype=x.dtype, device="cuda")
            return Case(lambda: rng.gumbel(out=out, dtype=dtype), x.nbytes)
        return Case(lambda: getattr(rng, function)(x, **options), x.nbytes)

    return prepare


def _copy(rows: int, columns: int, dtype: str) -> Case:
    """Reads and writes every byte: a limit of `size` bytes is half of its traffic."""
    x = _logits(rows, columns, dtype)
    y = x.clone()
    return Case(lambda: y.copy_(x), 2 * x.nbytes)


def _fill(rows: int, columns: int, dtype: str) -> Case:
    x = _logits(rows, columns, dtype)
    return Case(lambda: x.fill_(1), x.nbytes)


def _torch(form: str) -> Callable[..., Case]:
    def prepare(rows: int, columns: int, dtype: str) -> Case:
        import torch

        x = _logits(rows, columns, dtype)
        calls = {
            "softmax + multinomial": lambda: torch.multinomial(torch.softmax(x.float(), -1), 1),
            "gumbel argmax": lambda: (
                x.float() - torch.empty_like(x, dtype=torch.float32).exponential_().log_()
            ).argmax(-1),
            "-log(exponential)": lambda: torch.empty_like(x).exponential_().log_().neg_(),
            "gumbel_softmax": lambda: torch.nn.functional.gumbel_softmax(x, 0.7),
            "sort + cumsum": lambda: _sorted_top_p(x, 0.9),
        }
        if form in ("softmax + multinomial", "sort + cumsum") and columns > 1 << 24:
            raise ImportError("torch.multinomial refuses more than 2^24 categories")
        return Case(calls[form], x.nbytes)

    return prepare


def _compiled(top_p: bool) -> Callable[..., Case]:
    """The same in torch, fused by torch.compile."""

    def prepare(rows: int, columns: int, dtype: str) -> Case:
        import torch

        def drawn(x: Any) -> Any:
            return (x.float() - torch.empty_like(x, dtype=torch.float32).exponential_().log_()).argmax(-1)

        x = _logits(rows, columns, dtype)
        call = torch.compile((lambda x: _sorted_top_p(x, 0.9)) if top_p else drawn)
        return Case(lambda: call(x), x.nbytes)

    return prepare


def _sorted_top_p(x: Any, top_p: float) -> Any:
    """A draw from the largest categories whose probabilities reach top_p."""
    import torch

    p, order = torch.softmax(x.float(), -1).sort(-1, descending=True)
    kept = p.masked_fill(p.cumsum(-1) - p >= top_p, 0)
    return order.gather(-1, torch.multinomial(kept, 1))


def _torch_top_k(rows: int, columns: int, dtype: str) -> Case:
    """Gumbel noise in float32, added to the logits and sorted out by torch's topk."""
    import torch

    x = _logits(rows, columns, dtype)
    noise = torch.empty(rows, columns, device="cuda")
    return Case(lambda: torch.topk(x.float() - noise.exponential_().log_(), 100), x.nbytes)


def _torch_gradient(ours: bool) -> Callable[..., Case]:
    def prepare(rows: int, columns: int, dtype: str) -> Case:
        import torch

        import numbel.torch

        x = _logits(rows, columns, dtype).requires_grad_()
        u = _logits(rows, columns, dtype)
        rng = numbel.Generator(5)

        def call() -> None:
            x.grad = None
            if ours:
                y = numbel.torch.gumbel_softmax(x, 0.7, generator=rng)
            else:
                y = torch.nn.functional.gumbel_softmax(x, 0.7)
            y.backward(u)

        return Case(call, x.nbytes)

    return prepare


def _jax(rows: int, columns: int, dtype: str) -> Case:
    jax = importlib.import_module("jax")
    if jax.default_backend() != "gpu":
        raise ImportError("jax has no GPU here")
    x = jax.random.normal(jax.random.key(1), (rows, columns), dtype)
    draw = jax.jit(lambda key, x: jax.random.categorical(key, x))
    key = jax.random.key(2)
    return Case(lambda: draw(key, x).block_until_ready(), x.nbytes)


def _cupy(rows: int, columns: int, dtype: str) -> Case:
    cupy = importlib.import_module("cupy")
    x = cupy.random.standard_normal((rows, columns), dtype=cupy.float32).astype(dtype)
    return Case(lambda: (x + cupy.random.gumbel(size=x.shape, dtype=cupy.float32)).argmax(-1), x.nbytes)


def _flashinfer(rows: int, columns: int, dtype: str) -> Case:
    sampling = importlib.import_module("flashinfer.sampling")
    x = _logits(rows, columns, "float32")  # what it takes
    return Case(lambda: sampling.sampling_from_logits(x), x.nbytes)


def _flashinfer_top_p(rows: int, columns: int, dtype: str) -> Case:
    """From probabilities, which are made of the logits in the same call."""
    import torch

    sampling = importlib.import_module("flashinfer.sampling")
    x = _logits(rows, columns, "float32")
    return Case(lambda: sampling.top_p_sampling_from_probs(torch.softmax(x, -1), 0.9), x.nbytes)


def _flashinfer_top_k_top_p(rows: int, columns: int, dtype: str) -> Case:
    sampling = importlib.import_module("flashinfer.sampling")
    x = _logits(rows, columns, "float32")
    return Case(lambda: sampling.top_k_top_p_sampling_from_logits(x, 50, 0.9), x.nbytes)


def _triton(rows: int, columns: int, dtype: str) -> Case:
    """Gumbel argmax, one program a row and run of 4096 columns, with triton's own uniform."""
    import torch

    triton = importlib.import_module("benchmarks.gpu.triton_argmax")
    x = _logits(rows, columns, dtype)
    runs = -(-columns // triton.RUN)
    keys = torch.empty(rows, runs, device="cuda")
    at = torch.empty(rows, runs, dtype=torch.int64, device="cuda")
    seeds = iter(range(1 << 30))
    return Case(lambda: triton.gumbel_argmax(x, keys, at, next(seeds)), x.nbytes)


def _triton_requests(rows: int, columns: int, dtype: str) -> Case:
    """What vLLM's kernel does: runs of 1024; seed, position and temperature of each request are on the device."""
    import torch

    triton = importlib.import_module("benchmarks.gpu.triton_argmax")
    x = _logits(rows, columns, dtype)
    seeds = torch.arange(rows, device="cuda")
    positions = torch.zeros(rows, dtype=torch.int64, device="cuda")
    temperatures = torch.full((rows,), 0.7, device="cuda")
    return Case(lambda: triton.request_argmax(x, seeds, positions, temperatures), x.nbytes)


_SAMPLES, _TRIALS = 1 << 22, 1 << 40


def _many(library: str) -> Callable[..., Case]:
    """Many samples of each row: bytes are those of the indices, 8 each."""

    def prepare(rows: int, columns: int, dtype: str) -> Case:
        import torch

        x = _logits(rows, columns, dtype)
        rng = numbel.Generator(5)
        if library == "table":
            made = numbel.CategoricalTable(x.select(0, 0))
            return Case(lambda: made.sample(rng, _SAMPLES), 8 * _SAMPLES)
        if library == "torch":
            p = torch.softmax(x.float(), -1)
            return Case(lambda: torch.multinomial(p, _SAMPLES, replacement=True), 8 * rows * _SAMPLES)
        return Case(lambda: rng.categorical(x, _SAMPLES), 8 * rows * _SAMPLES)

    return prepare


def _counts(rows: int, columns: int, dtype: str) -> Case:
    """Bytes are those of the counts, 8 each."""
    x = _logits(rows, columns, dtype)
    rng = numbel.Generator(5)
    return Case(lambda: rng.multinomial(_TRIALS, x), 8 * rows * columns)


def _jax_counts(rows: int, columns: int, dtype: str) -> Case:
    jax = importlib.import_module("jax")
    if jax.default_backend() != "gpu":
        raise ImportError("jax has no GPU here")
    p = jax.nn.softmax(jax.random.normal(jax.random.key(1), (rows, columns), dtype))
    draw = jax.jit(lambda key, p: jax.random.multinomial(key, float(_TRIALS), p))
    key = jax.random.key(2)
    return Case(lambda: draw(key, p).block_until_ready(), 8 * rows * columns)


_DRAWS: dict[str, Callable[..., Case]] = {
    "numbel categorical": _ours("categorical"),
    "numbel sample": _ours("sample"),
    "numbel gumbel_max": _ours("categorical", method="gumbel_max"),
    "device copy": _copy,
    "torch softmax + multinomial": _torch("softmax + multinomial"),
    "torch gumbel argmax": _torch("gumbel argmax"),
    "jax categorical": _jax,
    "cupy gumbel argmax": _cupy,
    "triton gumbel argmax": _triton,
    "triton gumbel argmax as in vLLM": _triton_requests,
    "torch.compile gumbel argmax": _compiled(False),
    "flashinfer sampling_from_logits": _flashinfer,
}
_TOP_P: dict[str, Callable[..., Case]] = {
    "numbel top_p": _ours("categorical", top_p=0.9),
    "numbel top_k, top_p": _ours("categorical", top_k=50, top_p=0.9),
    "device copy": _copy,
    "torch sort + cumsum": _torch("sort + cumsum"),
    "torch.compile sort + cumsum": _compiled(True),
    "flashinfer top_p_sampling_from_probs": _flashinfer_top_p,
    "flashinfer top_k_top_p_sampling_from_logits": _flashinfer_top_k_top_p,
}
_NOISE: dict[str, Callable[..., Case]] = {
    "numbel gumbel": _ours("gumbel"),
    "device fill": _fill,
    "torch -log(exponential)": _torch("-log(exponential)"),
}
_RELAXED: dict[str, Callable[..., Case]] = {
    "numbel gumbel_softmax": _ours("gumbel_softmax", temperature=0.7),
    "device copy": _copy,
    "torch gumbel_softmax": _torch("gumbel_softmax"),
}
_TOP_K: dict[str, Callable[..., Case]] = {
    "numbel gumbel_top_k": _ours("gumbel_top_k", k=100),
    "numbel gumbel_max": _ours("categorical", method="gumbel_max"),
    "device copy": _copy,
    "torch topk(logits + gumbel)": _torch_top_k,
}
_GRADIENT: dict[str, Callable[..., Case]] = {
    "numbel.torch": _torch_gradient(True),
    "torch gumbel_softmax": _torch_gradient(False),
}
_MANY: dict[str, Callable[..., Case]] = {
    "numbel categorical": _many("numbel"),
    "numbel CategoricalTable.sample": _many("table"),
    "torch multinomial, replacement=True": _many("torch"),
}
_COUNTED: dict[str, Callable[..., Case]] = {"numbel multinomial": _counts, "jax multinomial": _jax_counts}

#: Columns at most, and samples, of a rehearsal.
SMALL = 4200
#: {work: (its libraries, rows, columns, dtype)}.
WORKS: dict[str, tuple[dict[str, Callable[..., Case]], int, int, str]] = {
    "draw 64 x 2^22 float32": (_DRAWS, 64, 1 << 22, "float32"),
    "draw 64 x 2^22 bfloat16": (_DRAWS, 64, 1 << 22, "bfloat16"),
    **{f"draw {n} x 128256 float32": (_DRAWS, n, 128256, "float32") for n in (1, 8, 64, 256, 1024)},
    "draw 256 x 128256 bfloat16": (_DRAWS, 256, 128256, "bfloat16"),
    "draw 65536 x 128 float32": (_DRAWS, 65536, 128, "float32"),
    "top_p=0.9 64 x 128256 float32": (_TOP_P, 64, 128256, "float32"),
    "top_p=0.9 256 x 128256 bfloat16": (_TOP_P, 256, 128256, "bfloat16"),
    "top_p=0.9 4 x 2^22 float32": (_TOP_P, 4, 1 << 22, "float32"),
    "noise 64 x 2^22 float32": (_NOISE, 64, 1 << 22, "float32"),
    "gumbel_softmax 64 x 2^20 float32": (_RELAXED, 64, 1 << 20, "float32"),
    "gumbel_softmax 65536 x 128 float32": (_RELAXED, 65536, 128, "float32"),
    "100 without replacement 64 x 2^20 float32": (_TOP_K, 64, 1 << 20, "float32"),
    "100 without replacement 64 x 128256 float32": (_TOP_K, 64, 128256, "float32"),
    "gumbel_softmax and gradient 64 x 2^20 float32": (_GRADIENT, 64, 1 << 20, "float32"),
    "2^22 draws of a row of 2^20 float32": (_MANY, 1, 1 << 20, "float32"),
    "counts of 2^40 draws, 2^20 float32": (_COUNTED, 1, 1 << 20, "float32"),
}


def overhead() -> dict[str, Callable[[], Any]]:
    """Calls so small that only their cost on the host counts."""
    x = cuda.to_device(np.zeros((1, 1000), np.float32))
    rng, out = numbel.Generator(5), cuda.device_array(1, np.int64)
    calls = {"Numba array": lambda: rng.categorical(x), "Numba array, out=": lambda: rng.categorical(x, out=out)}
    try:
        tensor = _logits(1, 1000, "float32")
    except (ImportError, RuntimeError, AssertionError):
        return calls
    import torch

    there = torch.empty(1, dtype=torch.int64, device="cuda")
    return calls | {
        "torch tensor": lambda: rng.categorical(tensor),
        "torch tensor, out=": lambda: rng.categorical(tensor, out=there),
        "torch.multinomial": lambda: torch.multinomial(torch.softmax(tensor, -1), 1),
    }
