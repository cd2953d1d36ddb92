"""Functions of torch.autograd, called directly where nothing transforms them, and what their rules share."""

from __future__ import annotations

import functools
from typing import Any

import torch
import torch.autograd.forward_ad as forward_ad

from .tensors import Tensor


def apply(function: Any, *arguments: Any) -> Any:
    """A function's result, with its derivatives where something may ask for them."""
    if torch._C._are_functorch_transforms_active():
        return function.apply(*arguments)
    return function.eager.apply(*arguments) if derivable(arguments) else function.forward(*arguments)


def derivable(arguments: tuple[Any, ...]) -> bool:
    """Whether autograd follows what is computed from these."""
    if forward_ad._current_level >= 0 or torch._C._are_functorch_transforms_active():
        return True
    return torch.is_grad_enabled() and any(isinstance(each, torch.Tensor) and each.requires_grad for each in arguments)


def with_twin(function: Any) -> Any:
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


def keep(ctx: Any, *values: Any) -> None:
    """Save tensors where torch sees when they are changed in place, and the rest as it is."""
    tensors = [value if isinstance(value, torch.Tensor) else None for value in values]
    ctx.save_for_backward(*tensors)
    ctx.save_for_forward(*tensors)
    ctx.others = [None if isinstance(value, torch.Tensor) else value for value in values]


def kept_of(ctx: Any) -> list[Any]:
    pairs = zip(ctx.saved_tensors, ctx.others, strict=True)
    return [other if tensor is None else tensor for tensor, other in pairs]


def forward_mode(rule: Any) -> Any:
    """A rule for tangents, of which a transform of a transform asks for tangents, too.

    torch switches them off within the rule, so that the second derivative would be 0 without a word.
    """

    @functools.wraps(rule)
    def jvp(ctx: Any, *tangents: Any) -> Any:
        if not torch._C._are_functorch_transforms_active():
            return rule(ctx, kept_of(ctx), *tangents)
        with forward_ad._set_fwd_grad_enabled(True):
            kept = [forward_ad.unpack_dual(v)[0] if isinstance(v, torch.Tensor) else v for v in kept_of(ctx)]
            return rule(ctx, kept, *tangents)

    return jvp


def each_element(function: Any, info: Any, dims: Any, *inputs: Any) -> Any:
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


def sum_to(rows: Tensor, tau: Tensor) -> Tensor:
    """Sums over what shares an entry of tau, as its gradient."""
    return rows.sum_to_size(tau.shape).to(tau.device, tau.dtype)
