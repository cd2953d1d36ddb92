"""The same by PyTorch; and by `numbel.torch`, which takes its tensors."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from .works import MANY, TRUNCATIONS, Call, Work, cotangent, count, logits, tokens


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


def top_k(work: Work) -> Call:
    import torch

    x, k = _tensor(work), count(work)
    return lambda: (x - torch.empty_like(x, dtype=torch.float32).exponential_().log_()).topk(k)


def inverse(work: Work) -> Call:
    import torch

    x = _tensor(work)

    def call() -> object:
        sums = torch.softmax(x, -1, dtype=torch.float32).cumsum(-1)
        return torch.searchsorted(sums, torch.rand(len(x), 1) * sums[:, -1:], right=True)

    return call


def gumbel_max(work: Work) -> Call:
    import torch

    x = _tensor(work)
    return lambda: (x - torch.empty_like(x, dtype=torch.float32).exponential_().log_()).argmax(-1)


def truncated(work: Work) -> Call:
    import torch

    x, settings = torch.from_numpy(tokens(work)), TRUNCATIONS[work.task]
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

    x, k = torch.from_numpy(tokens(work)), TRUNCATIONS[work.task]["top_k"]

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
