"""Seeds and draw ids of a call on tensors: numbers, or int64 in a tensor where torch transforms or traces it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Any, NamedTuple, TypeAlias

import numpy as np
import torch

from ...generator import Generator
from .tensors import Tensor, readable

AnyGenerator: TypeAlias = "Generator | torch.Generator | None"
Draw: TypeAlias = tuple[int, Any]
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

    def __enter__(self) -> Draw:
        self._threads = torch.get_num_threads()
        check_generator(self._generator)
        self._reserved = self._generator._reserve() if isinstance(self._generator, Generator) else None
        return self._reserved.__enter__() if self._reserved is not None else (int(_seed(self._generator)), 0)

    def __exit__(self, *error: Any) -> None:
        if self._reserved is not None:
            self._reserved.__exit__(*error)
        if torch.get_num_threads() != self._threads:
            torch.set_num_threads(self._threads)


def check_generator(generator: AnyGenerator) -> None:
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


def addressed(generator: AnyGenerator, logits: Tensor, **options: Any) -> AbstractContextManager[Draw | Tensor]:
    """Seed and draw id of a call: numbers, or int64 in a tensor where torch transforms or traces the call."""
    if not torch._C._are_functorch_transforms_active() and readable(logits, *options.values()):
        return draw_of(generator)
    for name, value in options.items():
        if isinstance(value, torch.Tensor) and value.is_meta and not logits.is_meta:
            raise TypeError(f"{name} is on meta and logits on {logits.device}")
    return _traced_address(generator)


@contextmanager
def _traced_address(generator: AnyGenerator) -> Iterator[Tensor]:
    if not isinstance(generator, Generator):
        check_generator(generator)
        yield seeded(generator)
        return
    if _recorded():
        raise TypeError(
            "a graph would repeat the one draw of this numbel.Generator whenever it runs: "
            "pass generator=None, which draws a seed in the graph"
        )
    with draw_of(generator) as draw:
        # a `vmap` refuses this, or gives each element its own number, the first the one that is known
        probe = _seed(torch.Generator("cpu").manual_seed(0)) - _PROBE
        yield torch.cat([probe, torch.zeros_like(probe)]) + operand_of_draw(draw)


def _recorded() -> bool:
    """Whether `make_fx` writes down what is called."""
    if not torch._C._len_torch_dispatch_stack():
        return False
    from torch.fx.experimental.proxy_tensor import get_proxy_mode

    return get_proxy_mode() is not None


def address_of(generator: AnyGenerator) -> Tensor:
    """Seed and draw id as int64, for a graph that `torch.compile` makes."""
    return seeded(None) if generator is None else _address_now(generator)


def seeded(generator: torch.Generator | None) -> Tensor:
    seed = _seed(generator).to("cpu")
    return torch.cat([seed, torch.zeros_like(seed)])


@torch.compiler.disable
def _address_now(generator: AnyGenerator) -> Tensor:
    with draw_of(generator) as draw:
        return operand_of_draw(draw)


def operand_of_draw(draw: Draw) -> Tensor:
    """Seed and draw id as int64."""
    seed, at = draw
    if not isinstance(at, int):
        raise TypeError("the draw id of this Generator is on a CUDA device, where torch cannot trace it")
    return torch.tensor([_signed(seed), _signed(at)], dtype=torch.int64, device="cpu")


def _signed(number: int) -> int:
    return number - ((number >> 63) << 64)


def numbers_of(address: Any) -> Any:
    """Seed and draw id as numbers, or with an id on a device."""
    if isinstance(address, Replay):
        return address.draw()
    if not isinstance(address, torch.Tensor):
        return address
    seed, at = address.numpy().view(np.uint64)
    return int(seed), int(at)


class Replay(NamedTuple):
    """A draw whose id was on a CUDA device, where it has moved on."""

    seed: int
    at: Tensor | None

    def draw(self) -> Draw:
        """The same draw each time: kernels advance the id that they are given."""
        if self.at is None:
            raise TypeError(
                "the draw id of this Generator has moved on, and the gradient of a hard sample needs it: "
                "keep the id in a torch.uint64 tensor"
            )
        return self.seed, self.at.clone().view(torch.uint64)


def again(address: Any) -> Any:
    """What makes the draw of this address again, after it."""
    if not isinstance(address, tuple) or isinstance(address, Replay) or isinstance(address[1], int):
        return address
    seed, counter = address
    return Replay(seed, counter.detach().view(torch.int64) - 1 if isinstance(counter, torch.Tensor) else None)


def address_operand(address: Any) -> Tensor:
    return address if isinstance(address, torch.Tensor) else operand_of_draw(address or (0, 0))
