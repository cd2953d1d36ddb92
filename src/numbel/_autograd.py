"""What `numbel.torch` is made of: seeds, tensors as arrays, derivatives, and the operators of graphs."""

from __future__ import annotations

import functools
import math
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Any, Literal, NamedTuple, TypeAlias

import numpy as np
import torch
import torch.autograd.forward_ad as forward_ad
from numpy.lib.array_utils import normalize_axis_index
from torch._C._functorch import is_legacy_batchedtensor  # whose tensors `is_grads_batched` makes

from . import _checks, _common, _dispatch, gradients
from ._requests import LogitRows, Temperature
from .generator import Generator

Tensor: TypeAlias = torch.Tensor
AnyGenerator: TypeAlias = "Generator | torch.Generator | None"
Method = Literal["grouped", "gumbel_max"]
_DTYPES = (torch.float16, torch.bfloat16, torch.float32, torch.float64)
_Draw: TypeAlias = tuple[int, Any]


# --- seeds

_SEEDS = (1 << 63) - 1


def _seed(generator: torch.Generator | None) -> Tensor:
    """A seed from torch, whatever the default device: one for all, or under `vmap` what its randomness asks for."""
    device = "cpu" if generator is None else generator.device
    return torch.randint(0, _SEEDS, (1,), dtype=torch.int64, device=device, generator=generator)


_PROBE = int(_seed(torch.Generator("cpu").manual_seed(0)))


class draw_of:
    """Seed and draw id of a call, after which torch has as many threads as before.

    Numba, when it starts its threads under OpenMP, sets the number that torch uses, too.
    """

    __slots__ = ("_generator", "_reserved", "_threads")

    def __init__(self, generator: AnyGenerator) -> None:
        self._generator = generator

    def __enter__(self) -> _Draw:
        self._threads = torch.get_num_threads()
        _check_generator(self._generator)
        self._reserved = self._generator._reserve() if isinstance(self._generator, Generator) else None
        return self._reserved.__enter__() if self._reserved is not None else (int(_seed(self._generator)), 0)

    def __exit__(self, *error: Any) -> None:
        if self._reserved is not None:
            self._reserved.__exit__(*error)
        if torch.get_num_threads() != self._threads:
            torch.set_num_threads(self._threads)


def _check_generator(generator: AnyGenerator) -> None:
    """One of the three kinds, and none whose state `torch.utils.checkpoint` would not put back."""
    if generator is None or generator is torch.default_generator:
        return
    if not isinstance(generator, (Generator, torch.Generator)):
        raise TypeError(f"generator must be a numbel.Generator or a torch.Generator, got {type(generator).__name__}")
    if torch._C._current_graph_task_id() != -1:
        kind = "numbel.Generator" if isinstance(generator, Generator) else "torch.Generator"
        raise RuntimeError(
            f"a draw of this {kind} was asked for while a backward pass runs, as when torch.utils.checkpoint computes "
            "again: it would not be the draw of the forward pass. Pass generator=None, which takes seeds from torch's "
            "default generator, whose state checkpoint restores, or draw outside of what is checkpointed"
        )


def addressed(generator: AnyGenerator, logits: Tensor, **options: Any) -> AbstractContextManager[_Draw | Tensor]:
    """Seed and draw id of a call: numbers, or int64 in a tensor where torch transforms or traces the call."""
    if not torch._C._are_functorch_transforms_active() and _readable(logits, *options.values()):
        return draw_of(generator)
    for name, value in options.items():
        if isinstance(value, torch.Tensor) and value.is_meta and not logits.is_meta:
            raise TypeError(f"{name} is on meta and logits on {logits.device}")
    return _traced_address(generator)


@contextmanager
def _traced_address(generator: AnyGenerator) -> Iterator[Tensor]:
    if not isinstance(generator, Generator):
        _check_generator(generator)
        yield _seeded(generator)
        return
    if _recorded():
        raise TypeError(
            "a graph would repeat the one draw of this numbel.Generator whenever it runs: "
            "pass generator=None, which draws a seed in the graph"
        )
    with draw_of(generator) as draw:
        # a `vmap` refuses this, or gives each element its own number, the first the one that is known
        probe = _seed(torch.Generator("cpu").manual_seed(0)) - _PROBE
        yield torch.cat([probe, torch.zeros_like(probe)]) + _operand_of(draw)


def _recorded() -> bool:
    """Whether `make_fx` writes down what is called."""
    if not torch._C._len_torch_dispatch_stack():
        return False
    from torch.fx.experimental.proxy_tensor import get_proxy_mode

    return get_proxy_mode() is not None


def address_of(generator: AnyGenerator) -> Tensor:
    """Seed and draw id as int64, for a graph that `torch.compile` makes."""
    return _seeded(None) if generator is None else _address_now(generator)


def _seeded(generator: torch.Generator | None) -> Tensor:
    seed = _seed(generator).to("cpu")
    return torch.cat([seed, torch.zeros_like(seed)])


@torch.compiler.disable
def _address_now(generator: AnyGenerator) -> Tensor:
    with draw_of(generator) as draw:
        return _operand_of(draw)


def _operand_of(draw: _Draw) -> Tensor:
    """Seed and draw id as int64."""
    seed, at = draw
    if not isinstance(at, int):
        raise TypeError("the draw id of this Generator is on a CUDA device, where torch cannot trace it")
    return torch.tensor([_signed(seed), _signed(at)], dtype=torch.int64, device="cpu")


def _signed(number: int) -> int:
    return number - ((number >> 63) << 64)


def _draw(address: Any) -> Any:
    """Seed and draw id as numbers, or with an id on a device."""
    if isinstance(address, _Replay):
        return address.draw()
    if not isinstance(address, torch.Tensor):
        return address
    seed, at = address.numpy().view(np.uint64)
    return int(seed), int(at)


class _Replay(NamedTuple):
    """A draw whose id was on a CUDA device, where it has moved on."""

    seed: int
    at: Tensor | None

    def draw(self) -> _Draw:
        """The same draw each time: kernels advance the id that they are given."""
        if self.at is None:
            raise TypeError(
                "the draw id of this Generator has moved on, and the gradient of a hard sample needs it: "
                "keep the id in a torch.uint64 tensor"
            )
        return self.seed, self.at.clone().view(torch.uint64)


def _again(address: Any) -> Any:
    """What makes the draw of this address again, after it."""
    if not isinstance(address, tuple) or isinstance(address, _Replay) or isinstance(address[1], int):
        return address
    seed, counter = address
    return _Replay(seed, counter.detach().view(torch.int64) - 1 if isinstance(counter, torch.Tensor) else None)


# --- tensors and arrays


def check(logits: Any) -> None:
    if not isinstance(logits, torch.Tensor):
        raise TypeError(f"logits must be a torch.Tensor, got {type(logits).__name__}")
    if logits.device.type not in ("cpu", "cuda", "meta"):
        raise TypeError(f"logits is on {logits.device}, and numbel works on the CPU and on CUDA: use .cpu()")
    if logits.dtype not in _DTYPES:
        raise TypeError(f"logits: expected float16, bfloat16, float32 or float64, got {logits.dtype}")


def from_end(dim: int, logits: Tensor) -> int:
    """The category axis counted from the end: transforms put axes in front."""
    return dim if dim == -1 else normalize_axis_index(dim, logits.ndim) - logits.ndim


def _readable(*values: Any) -> bool:
    """Whether a call may look at the memory of these, which torch then need not know of."""
    for value in values:
        if isinstance(value, torch.Tensor) and (
            type(value) not in (torch.Tensor, torch.nn.Parameter) or value.is_meta or is_legacy_batchedtensor(value)
        ):
            return False
    return not torch._C._len_torch_dispatch_stack()


def known(tensor: Tensor) -> bool:
    """Whether this is one number, which can be read."""
    return tensor.numel() == 1 and _readable(tensor)


def _on_cuda(tensor: Tensor) -> bool:
    return bool(tensor.device.type == "cuda")


def source(tensor: Tensor) -> Any:
    """What the methods of a Generator take: a NumPy array of the same memory, or the tensor on its device."""
    return _own_values(tensor) if _on_cuda(tensor) else _array(tensor)


def option(value: Any, logits: Tensor) -> Any:
    """A truncation's values as those methods take them."""
    if not isinstance(value, torch.Tensor):
        return value
    return _own_values(value) if _on_cuda(logits) else _array(value)


def as_tensor(result: Any) -> Tensor:
    """What they return, as a tensor."""
    return result if isinstance(result, torch.Tensor) else torch.from_numpy(np.asarray(result))


def _own_values(tensor: Tensor) -> Tensor:
    """Without a gradient, and with memory that holds the values, not their negatives or, being zeros, nothing."""
    tensor = tensor.detach().resolve_conj().resolve_neg()
    return tensor.clone() if tensor._is_zerotensor() else tensor


def _array(tensor: Tensor) -> Any:
    """The same memory as a NumPy array."""
    tensor = _own_values(tensor)
    if tensor.dtype != torch.bfloat16:
        return tensor.numpy()
    import ml_dtypes

    return tensor.view(torch.int16).numpy().view(ml_dtypes.bfloat16)


def _tensor(array: Any) -> Tensor:
    """The same memory as a tensor."""
    if array.dtype.kind == "f":  # NumPy takes 10 us to find a dtype's name
        return torch.from_numpy(array)
    return torch.from_numpy(array.view(np.int16)).view(torch.bfloat16)


def plain(temperature: Any, logits: Tensor) -> Any:
    """A temperature as a number, a float64 array, or a float64 tensor where the logits are on a CUDA device."""
    if not isinstance(temperature, torch.Tensor):
        return temperature
    wide = _own_values(temperature).double()
    if not _on_cuda(logits):
        return wide.numpy()
    return float(wide) if wide.ndim == 0 and not _on_cuda(wide) else wide.to(logits.device)


def positive(tau: Any) -> float:
    """A temperature of relaxed samples, which cannot be 0."""
    value = float(tau)
    if value == 0:
        raise ValueError("tau is 0, where no sample is relaxed: for one-hot samples pass hard=True and a positive tau")
    if not 0 < value < math.inf:
        raise ValueError(f"tau must be positive and finite, got {value}")
    _checks.temperature(value, (), "tau")
    return value


def _temperature(tau: float | Tensor, logits: Tensor, dim: int) -> Any:
    """Tau, which broadcasts against logits, as what broadcasts to their rows."""
    shape = tuple(logits.shape)
    at = normalize_axis_index(dim, len(shape))
    rows = shape[:at] + shape[at + 1 :]
    there = isinstance(tau, torch.Tensor) and _on_cuda(tau)
    if not isinstance(tau, torch.Tensor) or (tau.ndim == 0 and not there):
        return positive(tau)
    given = tuple(tau.shape)
    if tau.ndim > len(shape):
        raise ValueError(f"tau has shape {given}, which does not broadcast to that of logits, {shape}")
    value = plain(tau, logits)
    if there and not _on_cuda(logits):
        raise TypeError(f"tau is on {tau.device} and logits on {logits.device}")
    value = value.reshape((1,) * (len(shape) - tau.ndim) + given)
    if value.shape[at] != 1:
        raise ValueError(f"tau has shape {given}, which differs between categories, along dim {dim}")
    value = value.squeeze(at)
    if isinstance(value, torch.Tensor):  # its values are checked by the kernels, but for 0, which others may have
        try:
            return torch.where(value > 0, value, math.nan).broadcast_to(rows)
        except RuntimeError:
            raise ValueError(f"tau of shape {given} does not broadcast to the rows' shape {rows}") from None
    _checks.relaxed_temperature(value, rows, "tau")
    return value


# --- calls


def _last(array: Any, dim: int) -> Any:
    return array if dim == -1 else np.moveaxis(array, dim, -1)


def apply(function: Any, *arguments: Any) -> Any:
    """A function's result, with its derivatives where something may ask for them."""
    if torch._C._are_functorch_transforms_active():
        return function.apply(*arguments)
    return function.eager.apply(*arguments) if _derivable(arguments) else function.forward(*arguments)


def _derivable(arguments: tuple[Any, ...]) -> bool:
    """Whether autograd follows what is computed from these."""
    if forward_ad._current_level >= 0 or torch._C._are_functorch_transforms_active():
        return True
    return torch.is_grad_enabled() and any(isinstance(each, torch.Tensor) and each.requires_grad for each in arguments)


def _twin(function: Any) -> Any:
    """Give a function a twin for calls that nothing transforms.

    torch binds the arguments of one with `setup_context` by their names at each call, which takes as long as the rest.
    """

    def forward(ctx: Any, *inputs: Any) -> Any:
        output = function.forward(*inputs)
        function.setup_context(ctx, inputs, output)
        return output

    methods = {"forward": forward, "backward": function.backward, "jvp": function.jvp}
    function.eager = type(
        function.__name__,
        (torch.autograd.Function,),
        {name: staticmethod(method) for name, method in methods.items()},
    )
    return function


def _relax(logits: Tensor, tau: Any, address: Any, hard: bool, dim: int) -> Tensor:
    """Relaxed samples, or, where address is None, softmax(logits / tau)."""
    if _readable(logits, tau, address):
        return _relax_now(logits, tau, hard, dim, _draw(address))
    if address is None:
        return torch.softmax(logits / tau, dim).to(logits.dtype)
    found: Tensor = torch.ops.numbel.gumbel_softmax(logits, operand(tau), _address(address), hard, dim)
    return found


def operand(value: Any) -> Tensor:
    """A temperature as a tensor."""
    if isinstance(value, torch.Tensor):
        return value
    if isinstance(value, np.ndarray):  # of any real type, bfloat16 included
        value = value.astype(np.float64)
    return torch.tensor(value, dtype=torch.float64, device="cpu")


def _address(address: Any) -> Tensor:
    return address if isinstance(address, torch.Tensor) else _operand_of(address or (0, 0))


def _relax_now(logits: Tensor, tau: Any, hard: bool, dim: int, draw: _Draw | None) -> Tensor:
    temperature = _temperature(tau, logits, dim)
    if logits.shape[dim] == 0 and not hard:
        return logits.detach().new_empty(logits.shape)  # as torch has it
    if _on_cuda(logits):
        return _relax_there(_own_values(logits), temperature, hard, dim, draw)
    if draw is not None and (hard or not isinstance(temperature, float)):
        rng = Generator(*draw)
        return _tensor(rng.gumbel_softmax(_array(logits), temperature, axis=dim, hard=hard, on_invalid="flag"))
    # the same, past what a Generator offers beyond it: a training step of small tensors sees the difference
    array = _checks.logits(_array(logits), dim)
    if draw is not None and dim == -1 and isinstance(temperature, float):
        found = _common.softmax(array, temperature, draw)
        if found is not None:
            return _tensor(found)
    out = np.empty(logits.shape, array.dtype)
    given = (
        Temperature(np.array([temperature]), False)
        if isinstance(temperature, float)
        else _checks.temperature(temperature, array.shape[:-1])
    )
    _dispatch.relaxed(LogitRows(array, given), draw, _last(out, dim))
    return _tensor(out)


def _relax_there(logits: Tensor, temperature: Any, hard: bool, dim: int, draw: _Draw | None) -> Tensor:
    """`_relax_now` on a CUDA device."""
    if draw is None:
        from . import _device

        found: Tensor = _device.softmax(logits, temperature, dim)
        return found
    found = Generator(*draw).gumbel_softmax(logits, temperature, axis=dim, hard=hard)
    return found


def _pull_back(
    kept: Tensor, cotangent: Tensor, tau: Any, hard: bool, dim: int, draw: _Draw | None, wanted: bool
) -> tuple[Tensor, Tensor | None]:
    """Gradients in logits and, if wanted, in tau; `kept` is the soft sample, or logits if hard."""
    temperature = _temperature(tau, kept, dim)
    if kept.shape[dim] == 0:
        return torch.zeros_like(kept), torch.zeros_like(tau) if wanted else None
    if _on_cuda(kept):
        return _pull_back_there(kept, cotangent, tau, temperature, hard, dim, draw, wanted)
    y, u = _array(kept), _array(cotangent)
    out = np.empty(y.shape, y.dtype)
    if hard:
        assert draw is not None
        y = Generator(*draw).gumbel_softmax(y, temperature, axis=dim, on_invalid="flag", out=out)
    elif not wanted and isinstance(temperature, float) and (u.shape, u.dtype) == (y.shape, y.dtype):
        _dispatch.vjp(_last(y, dim), _last(u, dim), Temperature(np.array([temperature]), False), _last(out, dim), None)
        return _tensor(out), None
    in_logits, in_tau = gradients.pull_back(y, u, temperature, dim, out, wanted)
    if not wanted:
        return _tensor(in_logits), None
    return _tensor(in_logits), torch.from_numpy(np.array(in_tau)).to(tau.dtype).reshape(tau.shape)


def _pull_back_there(
    kept: Tensor,
    cotangent: Tensor,
    tau: Any,
    temperature: Any,
    hard: bool,
    dim: int,
    draw: _Draw | None,
    wanted: bool,
) -> tuple[Tensor, Tensor | None]:
    """`_pull_back` on a CUDA device."""
    from . import _device

    y = _own_values(kept)
    if hard:
        assert draw is not None
        y = Generator(*draw).gumbel_softmax(y, temperature, axis=dim)
    u = _own_values(cotangent).to(y.dtype)
    in_logits, slopes = _device.gumbel_softmax_vjp(y, u, temperature, dim, None, None, wanted)
    if slopes is None:
        return in_logits, None
    if slopes.ndim:
        slopes = slopes.unsqueeze(dim).sum_to_size(tau.shape)
    return in_logits, slopes.to(tau.dtype).to(tau.device).reshape(tau.shape)


# --- derivatives
#
# With y = softmax(z / T), the Jacobian of y in z is (diag(y) - y y') / T, which is symmetric: what takes cotangents
# back takes tangents forth, too. In T it is minus that times ln y, since z / T is ln y up to a constant.


def _keep(ctx: Any, *values: Any) -> None:
    """Save tensors where torch sees when they are changed in place, and the rest as it is."""
    tensors = [value if isinstance(value, torch.Tensor) else None for value in values]
    ctx.save_for_backward(*tensors)
    ctx.save_for_forward(*tensors)
    ctx.others = [None if isinstance(value, torch.Tensor) else value for value in values]


def _kept(ctx: Any) -> list[Any]:
    pairs = zip(ctx.saved_tensors, ctx.others, strict=True)
    return [other if tensor is None else tensor for tensor, other in pairs]


def _forward_mode(rule: Any) -> Any:
    """A rule for tangents, of which a transform of a transform asks for tangents, too.

    torch switches them off within the rule, so that the second derivative would be 0 without a word.
    """

    @functools.wraps(rule)
    def jvp(ctx: Any, *tangents: Any) -> Any:
        if not torch._C._are_functorch_transforms_active():
            return rule(ctx, _kept(ctx), *tangents)
        with forward_ad._set_fwd_grad_enabled(True):
            kept = [forward_ad.unpack_dual(v)[0] if isinstance(v, torch.Tensor) else v for v in _kept(ctx)]
            return rule(ctx, kept, *tangents)

    return jvp


def _wide(tensor: Tensor) -> Tensor:
    """Half types as float32."""
    return tensor.float() if tensor.dtype in (torch.float16, torch.bfloat16) else tensor


def _like(tau: Any, y: Tensor) -> Any:
    """Tau as what y is multiplied with."""
    return tau.to(y.device if tau.ndim else tau.device, y.dtype) if isinstance(tau, torch.Tensor) else tau


def _log(y: Tensor) -> Tensor:
    """The logarithm, and 0 where y is 0, where nothing depends on it."""
    return torch.where(y > 0, y, 1).log()


def _sum_to(rows: Tensor, tau: Tensor) -> Tensor:
    """Sums over what shares an entry of tau, as its gradient."""
    return rows.sum_to_size(tau.shape).to(tau.device, tau.dtype)


def _forth(y: Tensor, of_logits: Any, of_tau: Any, tau: Any, dim: int) -> Tensor:
    """The tangent of a relaxed sample y; None stands for a tangent of 0."""
    direction = torch.zeros_like(y) if of_logits is None else of_logits
    if of_tau is not None:
        wide = _wide(y)
        direction = (_wide(direction) - _like(of_tau, wide) * _log(wide)).to(y.dtype)
    found: Tensor = apply(PullBack, y, direction, tau, None, False, dim, False)
    return found


@_twin
class Relaxed(torch.autograd.Function):
    """Relaxed samples, or, where address is None, softmax(logits / tau)."""

    @staticmethod
    def forward(logits: Tensor, tau: Any, address: Any, hard: bool, dim: int) -> Tensor:
        return _relax(logits, tau, address, hard, dim)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        logits, tau, address, ctx.hard, ctx.dim = inputs
        _keep(ctx, logits if ctx.hard else output, tau, _again(address) if ctx.hard else None)

    @staticmethod
    def backward(ctx: Any, cotangent: Tensor) -> Any:
        array, tau, address = _kept(ctx)
        wanted = ctx.needs_input_grad[1]
        found = apply(PullBack, array, cotangent, tau, address, ctx.hard, ctx.dim, wanted)
        return (*(found if wanted else (found, None)), None, None, None)

    @staticmethod
    @_forward_mode
    def jvp(ctx: Any, kept: Any, of_logits: Any, of_tau: Any, *_: Any) -> Tensor:
        array, tau, address = kept
        y = apply(Relaxed, array, tau, address, False, ctx.dim) if ctx.hard else array
        return _forth(y, of_logits, of_tau, tau, ctx.dim)

    @staticmethod
    def vmap(info: Any, dims: Any, *inputs: Any) -> Any:
        return _each(Relaxed, info, dims, *inputs)


def _each(function: Any, info: Any, dims: Any, *inputs: Any) -> Any:
    """Of a `vmap`, calls of their own: each element has the rows of the first, and perhaps a seed."""
    calls = [
        [value if where is None else value.select(where, at) for value, where in zip(inputs, dims, strict=True)]
        for at in range(info.batch_size)
    ]
    if not calls:  # one of anything, for the shapes
        calls = [
            [
                value if where is None else value.new_ones(value.movedim(where, 0).shape[1:])
                for value, where in zip(inputs, dims, strict=True)
            ]
        ]
    results = [apply(function, *call) for call in calls]
    if isinstance(results[0], tuple):
        stacks = tuple(torch.stack(parts)[: info.batch_size] for parts in zip(*results, strict=True))
        return stacks, (0,) * len(stacks)
    return torch.stack(results)[: info.batch_size], 0


@_twin
class PullBack(torch.autograd.Function):
    """Gradients of a relaxed sample in logits and, if wanted, in tau; `kept` is the sample, or logits if hard."""

    @staticmethod
    def forward(
        kept: Tensor, cotangent: Tensor, tau: Any, address: Any, hard: bool, dim: int, wanted: bool
    ) -> Tensor | tuple[Tensor, Tensor]:
        if _readable(kept, cotangent, tau, address):
            in_logits, in_tau = _pull_back(kept, cotangent, tau, hard, dim, _draw(address), wanted)
        else:
            in_logits, in_tau = torch.ops.numbel.gumbel_softmax_vjp(
                kept, cotangent, operand(tau), _address(address), hard, dim
            )
        return (in_logits, in_tau) if wanted and in_tau is not None else in_logits

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
        kept, cotangent, tau, address, ctx.hard, ctx.dim, ctx.wanted = inputs
        _keep(ctx, kept, cotangent, tau, address)

    @staticmethod
    def backward(ctx: Any, of_first: Tensor, of_second: Any = None) -> Any:
        kept, cotangent, tau, address = _kept(ctx)
        hard, dim, wanted = ctx.hard, ctx.dim, ctx.needs_input_grad[2]
        y = apply(Relaxed, kept, tau, address, False, dim) if hard else kept
        in_y, in_cotangent, in_tau = _second(y, cotangent, tau, dim, of_first, of_second, wanted)
        if hard:
            found = apply(PullBack, y, in_y, tau, None, False, dim, wanted)
            in_y, more = found if wanted else (found, None)
            in_tau = in_tau + more if wanted else None
        return in_y, in_cotangent, in_tau, None, None, None, None

    @staticmethod
    @_forward_mode
    def jvp(ctx: Any, kept: Any, of_array: Any, of_cotangent: Any, of_tau: Any, *_: Any) -> Any:
        array, cotangent, tau, address = kept
        hard, dim = ctx.hard, ctx.dim
        y, of_y = array, of_array
        if hard:
            y = apply(Relaxed, array, tau, address, False, dim)
            of_y = None if of_array is None and of_tau is None else _forth(y, of_array, of_tau, tau, dim)
        y, u = _wide(y), _wide(cotangent)
        t = _like(tau, y)
        first = y * (u - (y * u).sum(dim, keepdim=True)) / t
        moved = torch.zeros_like(y)
        in_log = torch.zeros_like(y)
        if of_y is not None:
            of_y = _wide(of_y)
            in_log = of_y * (u - (y * u).sum(dim, keepdim=True)) / t
            moved = moved + in_log - y * (of_y * u).sum(dim, keepdim=True) / t
        if of_cotangent is not None:
            of_u = _wide(of_cotangent)
            moved = moved + y * (of_u - (y * of_u).sum(dim, keepdim=True)) / t
        if of_tau is not None:
            moved = moved - first * _like(of_tau, y) / t
        if not ctx.wanted:
            return moved.to(array.dtype)
        slopes = torch.where(y > 0, in_log, 0) + _log(y) * moved
        return moved.to(array.dtype), _sum_to(-slopes.sum(dim, keepdim=True), tau)

    @staticmethod
    def vmap(
        info: Any,
        dims: Any,
        kept: Tensor,
        cotangent: Tensor,
        tau: Any,
        address: Any,
        hard: bool,
        dim: int,
        wanted: bool,
    ) -> Any:
        of_kept, of_cotangent, of_tau, of_address, *_ = dims
        if hard:
            if of_kept is of_tau is of_address is None:
                kept = apply(Relaxed, kept, tau, address, False, dim)
            else:
                kept, of_kept = _each(
                    Relaxed, info, (of_kept, of_tau, of_address, None, None), kept, tau, address, False, dim
                )
        shape = tau.shape if isinstance(tau, torch.Tensor) else ()
        if of_tau is not None:
            tau = tau.movedim(of_tau, 0)
            shape = tau.shape[1:]
        elif wanted:
            tau = tau.expand(info.batch_size, *shape)
        if of_tau is not None or wanted:
            ndim = cotangent.ndim - (of_cotangent is not None)
            tau = tau.reshape(info.batch_size, *(1,) * (ndim - len(shape)), *shape)
        kept, cotangent = (
            value.expand(info.batch_size, *value.shape) if at is None else value.movedim(at, 0)
            for value, at in ((kept, of_kept), (cotangent, of_cotangent))
        )
        found = apply(PullBack, kept, cotangent, tau, None, False, dim, wanted)
        if not wanted:
            return found, 0
        in_logits, in_tau = found
        return (in_logits, in_tau.reshape(info.batch_size, *shape)), (0, 0)


def _second(
    y: Tensor, cotangent: Tensor, tau: Any, dim: int, of_first: Tensor, of_second: Any, wanted: bool
) -> tuple[Tensor, Tensor, Any]:
    """Gradients of `PullBack` of a soft sample, in that sample, the cotangent and, if wanted, tau.

    With a = sum(y u), the first result is g = y (u - a) / T, the second -sum(ln(y) g). For cotangents w and s of them,
    the scalar is sum(W g) with W = w - s ln y.
    """
    y, u, of_y, of_u = _wide(y), _wide(cotangent), y.dtype, cotangent.dtype
    t, w = _like(tau, y), _wide(of_first)
    apart = (u - (y * u).sum(dim, keepdim=True)) / t
    in_y = 0
    if of_second is not None:
        s = _like(of_second, y)
        w = w - s * _log(y)
        in_y = in_y - torch.where(y > 0, s * apart, 0)
    mean = (y * w).sum(dim, keepdim=True)
    in_y = in_y + w * apart - u * (mean / t)
    in_tau = _sum_to(-(w * y * apart / t).sum(dim, keepdim=True), tau) if wanted else None
    return in_y.to(of_y), (y * (w - mean) / t).to(of_u), in_tau


# --- samples and their log-probabilities


def own_temperature(value: Any) -> Any:
    """A temperature that nobody changes until the backward pass, unless torch sees it."""
    return value if isinstance(value, (int, float, torch.Tensor)) else np.array(value)


def _of_rows(temperature: Any, logits: Tensor, dim: int) -> tuple[Any, Any]:
    """Temperatures with 1 in place of 0, and their inverses with 0 in place of infinity: an argmax does not move."""
    if isinstance(temperature, (int, float)):
        return (temperature, 1 / temperature) if temperature else (1.0, 0.0)
    t = operand(temperature)
    if t.ndim:
        shape = list(logits.shape)
        del shape[dim]
        t = t.to(logits.device).broadcast_to(shape)
    zero = t == 0
    safe = torch.where(zero, 1, t).to(torch.float64)
    return safe, torch.where(zero, 0, 1 / safe)


def _softmax(logits: Tensor, safe: Any, dim: int) -> Tensor:
    tau = safe.unsqueeze(dim) if isinstance(safe, torch.Tensor) and safe.ndim else safe
    found: Tensor = apply(Relaxed, logits, tau, None, False, dim)
    return found


def _finite(logits: Tensor) -> Tensor:
    """Logits with 0 for what is impossible, on which nothing depends."""
    return torch.where(logits == -math.inf, 0, logits)


def _on_columns(rows: Any) -> Any:
    """Of each row, for all its columns."""
    return rows.unsqueeze(-1) if isinstance(rows, torch.Tensor) and rows.ndim else rows


@_twin
class Sampled(torch.autograd.Function):
    """Indices with their log-probabilities and logsumexp, of which the latter two have derivatives."""

    @staticmethod
    def forward(
        logits: Tensor, temperature: Any, address: Any, num_samples: int | None, dim: int, method: Method
    ) -> tuple[Tensor, ...]:
        if _readable(logits, temperature, address):
            return _sample_now(logits, temperature, _draw(address), num_samples, dim, method)
        found: tuple[Tensor, ...] = torch.ops.numbel.sample(
            logits, operand(temperature), _address(address), num_samples, dim, method
        )
        return found

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
        logits, temperature, _, num_samples, ctx.dim, _ = inputs
        ctx.many = num_samples is not None
        ctx.mark_non_differentiable(output[0])
        _keep(ctx, logits, temperature, output[0])

    @staticmethod
    def backward(ctx: Any, _: Any, of_log_prob: Tensor, of_logsumexp: Tensor) -> Any:
        logits, temperature, indices = _kept(ctx)
        safe, rate = _of_rows(temperature, logits, ctx.dim)
        if not ctx.many:
            indices, of_log_prob = indices.unsqueeze(-1), of_log_prob.unsqueeze(-1)
        result = _softmax(logits, safe, ctx.dim)
        rows = result.movedim(ctx.dim, -1)
        shared = ((of_logsumexp - of_log_prob.sum(-1)) * rate).unsqueeze(-1).to(rows.dtype)
        single = (of_log_prob * _on_columns(rate)).to(rows.dtype)
        # a row that could not be sampled has index -1, and NaN already
        at = indices.clamp_min(0)
        if _derivable((result, shared, single)) or not _readable(result, shared, single):
            rows = (rows * shared).scatter_add(-1, at, single)
            result = rows.movedim(-1, ctx.dim)
        else:  # no memory but the result's
            rows.mul_(shared)
            rows.scatter_add_(-1, at, single)
        in_temperature = None
        if ctx.needs_input_grad[1]:
            # logits and temperature matter by their quotients alone
            x = _finite(logits).movedim(ctx.dim, -1).to(of_logsumexp.dtype)
            moved = (x * rows.to(x.dtype)).sum(-1, dtype=torch.float64)
            in_temperature = _sum_to(-rate * moved, temperature)
        return result, in_temperature, None, None, None, None

    @staticmethod
    @_forward_mode
    def jvp(ctx: Any, kept: Any, of_logits: Any, of_temperature: Any, *_: Any) -> Any:
        logits, temperature, indices = kept
        safe, rate = _of_rows(temperature, logits, ctx.dim)
        p = _softmax(logits, safe, ctx.dim).movedim(ctx.dim, -1)
        kind = torch.float64 if logits.dtype == torch.float64 else torch.float32
        moved = torch.zeros_like(p, dtype=kind)
        if of_logits is not None:
            moved = moved + of_logits.movedim(ctx.dim, -1) * _on_columns(rate)
        if of_temperature is not None:
            x = _finite(logits).movedim(ctx.dim, -1).to(kind)
            slope = of_temperature.to(logits.device) if of_temperature.ndim else of_temperature
            moved = moved - x * _on_columns(slope * rate * rate)
        of_logsumexp = (p * moved).sum(-1)
        at = indices if ctx.many else indices.unsqueeze(-1)
        of_log_prob = moved.gather(-1, at.clamp_min(0)) - of_logsumexp.unsqueeze(-1)
        of_log_prob = of_log_prob if ctx.many else of_log_prob.squeeze(-1)
        return None, of_log_prob.to(kind), of_logsumexp.to(kind)

    @staticmethod
    def vmap(info: Any, dims: Any, *inputs: Any) -> Any:
        return _each(Sampled, info, dims, *inputs)


def _sample_now(
    logits: Tensor, temperature: Any, draw: _Draw, num_samples: int | None, dim: int, method: Method
) -> tuple[Tensor, ...]:
    drawn = Generator(*draw).sample(
        source(logits), num_samples, axis=dim, temperature=plain(temperature, logits), method=method
    )
    return tuple(as_tensor(part) for part in drawn)


@_twin
class Drawn(torch.autograd.Function):
    """Indices."""

    @staticmethod
    def forward(
        logits: Tensor,
        temperature: Any,
        top_k: Any,
        top_p: Any,
        min_p: Any,
        address: Any,
        num_samples: int | None,
        dim: int,
        method: Method,
    ) -> Tensor:
        operands = logits, temperature, top_k, top_p, min_p, address
        if _readable(*operands):
            return _draw_now(*operands[:5], _draw(address), num_samples, dim, method)
        return draw_traced(*operands, num_samples, dim, method)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        ctx.mark_non_differentiable(output)

    @staticmethod
    def backward(ctx: Any, _: Any) -> Any:
        return (None,) * 9

    @staticmethod
    def jvp(ctx: Any, *_: Any) -> Any:
        return None

    @staticmethod
    def vmap(info: Any, dims: Any, *inputs: Any) -> Any:
        return _each(Drawn, info, dims, *inputs)


def _draw_now(
    logits: Tensor,
    temperature: Any,
    top_k: Any,
    top_p: Any,
    min_p: Any,
    draw: _Draw,
    num_samples: int | None,
    dim: int,
    method: Method,
) -> Tensor:
    indices = Generator(*draw).categorical(
        source(logits),
        num_samples,
        axis=dim,
        temperature=plain(temperature, logits),
        top_k=option(top_k, logits),
        top_p=option(top_p, logits),
        min_p=option(min_p, logits),
        method=method,
    )
    return as_tensor(indices)


# --- operators, for what runs or traces graphs


@torch.library.custom_op(
    "numbel::gumbel_softmax",
    mutates_args=(),
    schema="(Tensor logits, Tensor tau, Tensor address, bool hard, int dim) -> Tensor",
)
def compiled(logits: Tensor, tau: Tensor, address: Tensor, hard: bool, dim: int) -> Tensor:
    return _relax_now(logits, tau, hard, dim, _draw(address))


@compiled.register_fake
def _(logits: Tensor, tau: Tensor, address: Tensor, hard: bool, dim: int) -> Tensor:
    return torch.empty_like(logits, memory_format=torch.contiguous_format)


compiled.register_autograd(Relaxed.backward, setup_context=Relaxed.setup_context)


@torch.library.custom_op(
    "numbel::gumbel_softmax_vjp",
    mutates_args=(),
    schema="(Tensor kept, Tensor cotangent, Tensor tau, Tensor address, bool hard, int dim) -> (Tensor, Tensor)",
)
def _compiled_vjp(
    kept: Tensor, cotangent: Tensor, tau: Tensor, address: Tensor, hard: bool, dim: int
) -> tuple[Tensor, Tensor]:
    in_logits, in_tau = _pull_back(kept, cotangent, tau, hard, dim, _draw(address), True)
    return in_logits, in_tau


@_compiled_vjp.register_fake
def _(kept: Tensor, cotangent: Tensor, tau: Tensor, address: Tensor, hard: bool, dim: int) -> tuple[Tensor, Tensor]:
    return torch.empty_like(kept, memory_format=torch.contiguous_format), torch.empty_like(tau)


@torch.library.custom_op(
    "numbel::sample",
    mutates_args=(),
    schema="(Tensor logits, Tensor temperature, Tensor address, SymInt? num_samples, int dim, str method) "
    "-> (Tensor, Tensor, Tensor)",
)
def sampled(
    logits: Tensor, temperature: Tensor, address: Tensor, num_samples: int | None, dim: int, method: Any
) -> tuple[Tensor, Tensor, Tensor]:
    indices, log_prob, logsumexp = _sample_now(logits, temperature, _draw(address), num_samples, dim, method)
    return indices, log_prob, logsumexp


def _shapes(logits: Tensor, num_samples: int | None, dim: int) -> tuple[list[int], list[int]]:
    """Of the rows, and of their samples."""
    rows = list(logits.shape)
    del rows[dim]
    return rows, rows if num_samples is None else [*rows, num_samples]


@sampled.register_fake
def _(
    logits: Tensor, temperature: Tensor, address: Tensor, num_samples: int | None, dim: int, method: str
) -> tuple[Tensor, Tensor, Tensor]:
    rows, many = _shapes(logits, num_samples, dim)
    kind = torch.float64 if logits.dtype == torch.float64 else torch.float32
    return (
        logits.new_empty(many, dtype=torch.int64),
        logits.new_empty(many, dtype=kind),
        logits.new_empty(rows, dtype=kind),
    )


sampled.register_autograd(Sampled.backward, setup_context=Sampled.setup_context)


@torch.library.custom_op(
    "numbel::categorical",
    mutates_args=(),
    schema="(Tensor logits, Tensor temperature, Tensor? top_k, Tensor? top_p, Tensor? min_p, Tensor address, "
    "SymInt? num_samples, int dim, str method) -> Tensor",
)
def _compiled_categorical(
    logits: Tensor,
    temperature: Tensor,
    top_k: Tensor | None,
    top_p: Tensor | None,
    min_p: Tensor | None,
    address: Tensor,
    num_samples: int | None,
    dim: int,
    method: Any,
) -> Tensor:
    return _draw_now(logits, temperature, top_k, top_p, min_p, _draw(address), num_samples, dim, method)


@_compiled_categorical.register_fake
def _(
    logits: Tensor,
    temperature: Tensor,
    top_k: Tensor | None,
    top_p: Tensor | None,
    min_p: Tensor | None,
    address: Tensor,
    num_samples: int | None,
    dim: int,
    method: str,
) -> Tensor:
    return logits.new_empty(_shapes(logits, num_samples, dim)[1], dtype=torch.int64)


def draw_traced(
    logits: Tensor,
    temperature: Any,
    top_k: Any,
    top_p: Any,
    min_p: Any,
    address: Any,
    num_samples: int | None,
    dim: int,
    method: Method,
) -> Tensor:
    """Indices, as one operator of a graph."""
    found: Tensor = torch.ops.numbel.categorical(
        logits.detach(),
        operand(temperature).detach(),
        None if top_k is None else _limit(top_k, torch.int64),
        None if top_p is None else _limit(top_p, torch.float64),
        None if min_p is None else _limit(min_p, torch.float64),
        _address(address),
        num_samples,
        dim,
        method,
    )
    return found


def _limit(value: Any, dtype: Any) -> Tensor:
    return value if isinstance(value, torch.Tensor) else torch.tensor(value, dtype=dtype, device="cpu")
