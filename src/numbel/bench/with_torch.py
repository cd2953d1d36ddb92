"""The same by PyTorch; and by `numbel.torch`, which takes its tensors."""

from __future__ import annotations

import itertools
import os
import shutil
import sys
import types
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np

from .works import MANY, SAMPLES, Call, Work, cotangent, count, logits, tokens, truncation

_numbers = itertools.count()


def compiled(function: Callable[..., Any]) -> Callable[..., Any]:
    """By torch.compile for one shape, as it is at its fastest; ImportError where that lacks a C++ compiler."""
    import torch

    compiler = os.environ.get("CXX", "clang++" if sys.platform == "darwin" else "g++")
    if shutil.which(compiler) is None:
        raise ImportError(f"torch.compile needs a C++ compiler: there is no {compiler}")
    # torch counts the shapes of each code object, and after eight of them runs it as it is: each shape has its own
    code = function.__code__.replace(co_name=f"{function.__name__}_{next(_numbers)}")
    fresh = types.FunctionType(code, function.__globals__, code.co_name, function.__defaults__, function.__closure__)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # of torch 2.13's own code, as it loads its compiler
        return torch.compile(fresh, dynamic=False)  # type: ignore[no-any-return]


def by_rows(function: Callable[[Any], Any], compile: bool = False, of: Callable[[Work], Any] | None = None) -> Any:
    """Prepare a function of the logits, as it is or compiled."""

    def prepare(work: Work) -> Call:
        x = (of or _tensor)(work)
        call = compiled(function) if compile else function
        return lambda: call(x)

    return prepare


def _exponential(x: Any) -> Any:
    """Of float32 whatever the logits are: in half precision there would be ties."""
    import torch

    return torch.empty_like(x, dtype=torch.float32).exponential_()


def gumbel_argmax(x: Any) -> Any:
    return (x - _exponential(x).log_()).argmax(-1)


def race(x: Any) -> Any:
    """Exponential race: each category arrives after a time of its rate, and the first wins."""
    import torch

    return (x.softmax(-1, dtype=torch.float32) / _exponential(x)).argmax(-1)


def sample(x: Any) -> Any:
    logsumexp = x.logsumexp(-1, keepdim=True)
    index = ((x - logsumexp).exp() / _exponential(x)).argmax(-1, keepdim=True)
    return index, x.gather(-1, index) - logsumexp, logsumexp


def sample_inverse(x: Any) -> Any:
    import torch

    logsumexp = x.logsumexp(-1, keepdim=True)
    sums = (x - logsumexp).exp().cumsum(-1)
    target = x.new_empty((len(x), 1)).uniform_() * sums[:, -1:]
    index = torch.searchsorted(sums, target, right=True).clamp_(max=x.shape[-1] - 1)
    return index, x.gather(-1, index) - logsumexp, logsumexp


def gumbel_softmax(x: Any) -> Any:
    import torch

    return torch.nn.functional.gumbel_softmax(x)


def log_prob_of_first(x: Any) -> Any:
    return x[:, 0] - x.logsumexp(-1)


def plain_entropy(x: Any) -> Any:
    log_p = x.log_softmax(-1)
    return -(log_p.exp() * log_p).sum(-1)


def gumbel_noise(x: Any) -> Any:
    return _exponential(x).log_().neg_()


def many_inverse(x: Any) -> Any:
    import torch

    sums = x.softmax(-1).cumsum(-1)
    targets = x.new_empty((len(x), SAMPLES)).uniform_() * sums[:, -1:]
    return torch.searchsorted(sums, targets, right=True)


def many_of_rows(x: Any) -> Any:
    return x.softmax(-1).multinomial(SAMPLES, replacement=True)


def gumbel_top(work: Work) -> Callable[[Any], Any]:
    k = count(work)
    return lambda x: (x - _exponential(x).log_()).topk(k)


def topk_race(work: Work) -> Callable[[Any], Any]:
    k = truncation(work)["top_k"]

    def call(x: Any) -> Any:
        values, order = x.topk(k, dim=-1)
        return order.gather(-1, (values.softmax(-1) / _exponential(values)).argmax(-1, keepdim=True))

    return call


def top_p_race(work: Work) -> Callable[[Any], Any]:
    limit = truncation(work)["top_p"]

    def call(x: Any) -> Any:
        values, order = x.sort(dim=-1, descending=True)
        p = values.softmax(-1)
        p = p.masked_fill(p.cumsum(-1) - p >= limit, 0.0)
        return order.gather(-1, (p / _exponential(p)).argmax(-1, keepdim=True))

    return call


def of_work(function: Callable[[Work], Callable[[Any], Any]], compile: bool = False, of: Any = None) -> Any:
    """Prepare a function that depends on the work."""
    return lambda work: by_rows(function(work), compile, of)(work)


def token_tensor(work: Work) -> Any:
    import torch

    return torch.from_numpy(tokens(work))


def _tensor(work: Work) -> Any:
    import torch

    x = logits(work)
    return torch.from_numpy(x.view(np.int16)).view(torch.bfloat16) if work.dtype == "bfloat16" else torch.from_numpy(x)


def multinomial(work: Work) -> Call:
    import torch

    x = _tensor(work)
    return lambda: torch.multinomial(torch.softmax(x, -1, dtype=torch.float32), 1)


def multinomial_top_k(work: Work) -> Call:
    import torch

    x, k = _tensor(work), count(work)
    return lambda: torch.multinomial(torch.softmax(x, -1, dtype=torch.float32), k, replacement=False)


def inverse(work: Work) -> Call:
    import torch

    x = _tensor(work)

    def call() -> object:
        sums = torch.softmax(x, -1, dtype=torch.float32).cumsum(-1)
        return torch.searchsorted(sums, torch.rand(len(x), 1) * sums[:, -1:], right=True)

    return call


def truncated(work: Work) -> Call:
    import torch

    x, settings = torch.from_numpy(tokens(work)), truncation(work)
    places = torch.arange(work.columns)

    def call() -> object:
        values, order = x.sort(dim=-1, descending=True)
        p = values.softmax(-1)
        if "top_k" in settings:
            drop = (places >= settings["top_k"]).expand_as(p)
        elif "top_p" in settings:
            drop = p.cumsum(-1) - p >= settings["top_p"]
        else:
            drop = p < settings["min_p"] * p[:, :1]
        kept = values.masked_fill(drop, -torch.inf).softmax(-1)
        return order.gather(-1, torch.multinomial(kept, 1))

    return call


def topk_first(work: Work) -> Call:
    import torch

    x, k = torch.from_numpy(tokens(work)), truncation(work)["top_k"]

    def call() -> object:
        values, order = x.topk(k, dim=-1)
        return order.gather(-1, torch.multinomial(values.softmax(-1), 1))

    return call


def gumbel(work: Work) -> Call:
    import torch

    kind = getattr(torch, work.dtype)
    return lambda: -torch.empty(work.rows, work.columns, dtype=kind).exponential_().log_()


def relaxed(work: Work, function: Callable[[Any], Any]) -> Call:
    x = _tensor(work)
    return lambda: function(x)


def backward(work: Work, function: Callable[[Any], Any]) -> Call:
    import torch

    x, u = _tensor(work).requires_grad_(), torch.from_numpy(cotangent(work))
    return lambda: torch.autograd.grad(function(x), x, u)


def by_torch(prepare: Callable[[Work, Callable[[Any], Any]], Call], work: Work) -> Call:
    import torch

    return prepare(work, torch.nn.functional.gumbel_softmax)


def by_compiled(prepare: Callable[[Work, Callable[[Any], Any]], Call], work: Work) -> Call:
    return prepare(work, compiled(gumbel_softmax))


def by_numbel(prepare: Callable[[Work, Callable[[Any], Any]], Call], work: Work) -> Call:
    import numbel.torch

    rng = numbel.default_rng(5)
    return prepare(work, lambda x: numbel.torch.gumbel_softmax(x, generator=rng))


def logsumexp(work: Work) -> Call:
    x = _tensor(work)
    return lambda: x.logsumexp(-1)


def log_prob(work: Work) -> Call:
    import torch

    x, index = _tensor(work), torch.zeros(work.rows, dtype=torch.int64)
    return lambda: torch.distributions.Categorical(logits=x, validate_args=False).log_prob(index)


def entropy(work: Work) -> Call:
    import torch

    x = _tensor(work)
    return lambda: torch.distributions.Categorical(logits=x, validate_args=False).entropy()


def many(work: Work) -> Call:
    import torch

    x = _tensor(work)[0]
    return lambda: torch.multinomial(torch.softmax(x, -1), MANY * work.columns, replacement=True)
