"""numbel.torch on CUDA tensors against the CPU's: on a card, or in the simulator, where CPU tensors stand for them."""

from __future__ import annotations

import contextlib

import numpy as np
import torch

import numbel
import numbel.torch
from backend import SIMULATED
from common import check as registered
from common import logits, raised

DEVICE = "cpu" if SIMULATED else "cuda"


class Pretended:
    """Within it, CPU tensors count as tensors on a device: the same memory, the simulator's kernels."""

    def __enter__(self):
        if not SIMULATED:
            return
        from numbel._arguments import checks
        from numbel._device import libraries
        from numbel.torch._autograd import tensors

        self.kept = checks.on_device, libraries.Torch.active, libraries.Torch.current, tensors._CUDA
        plain = checks.on_device
        checks.on_device = lambda value: isinstance(value, torch.Tensor) or plain(value)
        libraries.Torch.active = lambda self: contextlib.nullcontext()
        libraries.Torch.current = lambda self, like: 0
        tensors._CUDA = "cpu"

    def __exit__(self, *_):
        if SIMULATED:
            from numbel._arguments import checks
            from numbel._device import libraries
            from numbel.torch._autograd import tensors

            checks.on_device, libraries.Torch.active, libraries.Torch.current, tensors._CUDA = self.kept


def same(found, expected, what):
    assert found.dtype == expected.dtype, what
    assert found.shape == expected.shape, what
    found = found.detach().cpu()
    assert torch.equal(torch.nan_to_num(found, nan=-7.0), torch.nan_to_num(expected.detach(), nan=-7.0)), what


def both(function, *tensors):
    """What a function of tensors gives on the CPU and on the device, gradients of all that ask for one included."""
    results = []
    for device in ("cpu", DEVICE):
        given = [t.detach().clone().to(device).requires_grad_(t.requires_grad) for t in tensors]
        with contextlib.nullcontext() if device == "cpu" and not results else Pretended():
            found = function(*given)
            found = found if isinstance(found, tuple) else (found,)
            if any(t.requires_grad for t in given):
                graded = [part for part in found if part.requires_grad]
                weights = [torch.linspace(-1, 1, part.numel()).reshape(part.shape).to(part) for part in graded]
                torch.autograd.backward(graded, weights)
            results.append((*found, *(t.grad for t in given if t.requires_grad)))
    return zip(*results, strict=True)


def check(dtype):
    x = torch.tensor(logits((2, 3, 5), "float64")).to(dtype).requires_grad_()
    tau = torch.tensor([[[0.5], [2.0], [1.0]]], dtype=torch.float64, requires_grad=True)
    one = torch.tensor(0.7, requires_grad=True)

    def relaxed(hard, dim):
        return lambda x, *tau: numbel.torch.gumbel_softmax(
            x, *(tau or (0.5,)), hard=hard, dim=dim, generator=numbel.Generator(5)
        )

    for hard in (False, True):
        for dim in (-1, 0):
            for expected, found in both(relaxed(hard, dim), x):
                same(found, expected, f"{dtype} hard={hard} dim={dim}")
        for temperature in (tau, one):
            pairs = list(both(relaxed(hard, -1), x, temperature))
            for expected, found in pairs[:-1]:
                same(found, expected, f"{dtype} tau hard={hard}")
            expected, found = pairs[-1]
            torch.testing.assert_close(found.cpu(), expected, rtol=1e-5, atol=1e-9)
    for many in (None, 3):

        def sample(x, many=many):
            drawn = numbel.torch.sample(x, many, dim=0, temperature=0.5, generator=numbel.Generator(5))
            assert torch.equal(
                drawn.indices,
                numbel.torch.categorical(x.detach(), many, dim=0, temperature=0.5, generator=numbel.Generator(5)),
            )
            return tuple(drawn)

        pairs = list(both(sample, x))
        for expected, found in pairs[:-1]:
            same(found, expected, f"sample {dtype} {many}")
        expected, found = pairs[-1]
        tolerance = {torch.float64: 1e-12, torch.float32: 1e-5, torch.float16: 1e-2, torch.bfloat16: 1e-1}[dtype]
        torch.testing.assert_close(found.cpu(), expected, rtol=tolerance, atol=tolerance)


def finite(*shape):
    """Logits of which every row can be sampled."""
    x = 2 * torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    x[0, 1] = -torch.inf
    return x


def check_derivatives(dtype):
    """Second derivatives, and those of samples in the temperature."""
    x = finite(3, 5).to(dtype).requires_grad_()
    tau = torch.tensor([[0.5], [2.0], [1.0]], dtype=torch.float64, requires_grad=True)

    def relaxed(hard):
        return lambda x, tau: numbel.torch.gumbel_softmax(x, tau, hard, generator=numbel.Generator(5))

    def sample(x, tau):
        drawn = numbel.torch.sample(x, 2, temperature=tau[:, 0], generator=numbel.Generator(5))
        return drawn.log_prob.sum(-1, keepdim=True) * drawn.logsumexp[:, None].detach()

    def penalty(function):
        def value(x, tau):
            y = function(x, tau)
            weights = torch.linspace(-1, 1, y.numel()).reshape(y.shape).to(y)
            in_x, in_tau = torch.autograd.grad((weights * y).sum(), (x, tau), create_graph=True)
            return in_x.double().square().sum() + in_tau.square().sum()

        return value

    tolerance = {torch.float64: 1e-9, torch.float32: 1e-3, torch.float16: 1e-1, torch.bfloat16: 1}[dtype]
    for function in (relaxed(False), relaxed(True), sample):
        for expected, found in both(penalty(function), x, tau):
            torch.testing.assert_close(found.detach().cpu(), expected.detach(), rtol=tolerance, atol=tolerance)


@registered(backends=("simulator", "card"))
def check_tau_of_0():
    """Rows of a temperature that the host does not read, and that no relaxed sample has."""
    x = finite(3, 5).float().to(DEVICE)
    with Pretended():
        y = numbel.torch.gumbel_softmax(x, torch.tensor([[1.0], [0.0], [1.0]], device=DEVICE))
    assert y.isnan().all(-1).tolist() == [False, True, False]


@registered(backends=("simulator", "card"))
def check_negative_bits():
    """A view whose memory holds the negatives."""
    x = finite(3, 5)
    view = torch.complex(torch.zeros_like(x), -x).to(DEVICE).conj().imag
    assert view.is_neg()
    for function in (numbel.torch.gumbel_softmax, numbel.torch.categorical):
        expected = function(x, generator=numbel.Generator(5))
        with Pretended():
            same(function(view, generator=numbel.Generator(5)), expected, "negative bit")
    with Pretended():
        assert "resolve_neg" in raised(lambda: numbel.Generator(5).categorical(view))


@registered(backends=("simulator", "card"))
def check_counter():
    """A hard sample whose draw id moves on in memory of the device."""
    weights = torch.linspace(-1, 1, 15, dtype=torch.float64).reshape(3, 5)
    for retained in (1, 2):
        x = finite(3, 5).requires_grad_()
        y = numbel.torch.gumbel_softmax(x, 0.5, hard=True, generator=numbel.Generator(5, 7))
        (expected,) = torch.autograd.grad(y, x, weights)
        x = x.detach().to(DEVICE).requires_grad_()
        counter = torch.tensor([7], dtype=torch.uint64, device=DEVICE)
        with Pretended():
            y = numbel.torch.gumbel_softmax(x, 0.5, hard=True, generator=numbel.Generator(5, counter))
            for _ in range(retained):
                (found,) = torch.autograd.grad(y, x, weights.to(DEVICE), retain_graph=True)
        same(found, expected, "counter")
        assert counter.tolist() == [8]


def check_truncation(dtype):
    """Numbers, and tensors of one for each row, of any dtype, on the CPU and on the device."""
    x = torch.tensor(logits((2, 3, 9), "float64")).to(dtype)
    rows = {"top_k": torch.tensor([[2], [9]], dtype=torch.int32), "top_p": torch.tensor([0.5, 0.9, 1.0])}
    for options in ({"top_k": 3}, {"top_p": 0.7, "min_p": 0.1}, rows, rows | {"method": "gumbel_max", "dim": 1}):

        def draw(x, options=options):
            placed = {n: v.to(x.device) if isinstance(v, torch.Tensor) else v for n, v in options.items()}
            return numbel.torch.categorical(x, 2, generator=numbel.Generator(5), **placed)

        x = x.transpose(1, 2) if "dim" in options else x
        for expected, found in both(draw, x):
            same(found, expected, f"truncation {dtype} {options}")
    wrong = {"top_k": torch.ones(2, 3, device=DEVICE)}
    with Pretended():
        message = raised(lambda: numbel.torch.categorical(x.to(DEVICE), dim=1, **wrong))
    assert message == "top_k must hold integers, got float32", message


@registered(backends=("simulator", "card"))
def check_results():
    """Plain methods on tensors give tensors; errors name both places."""
    x = torch.tensor(logits((2, 5), "float32")).to(DEVICE)
    expected = numbel.Generator(5).sample(x.cpu().numpy())
    with Pretended():
        drawn = numbel.Generator(5).sample(x, temperature=torch.ones(2, dtype=torch.float16, device=DEVICE))
        assert all(isinstance(part, torch.Tensor) for part in drawn)
        for found, due in zip(drawn, expected, strict=True):
            same(found, torch.from_numpy(due), "sample")
        noise = numbel.Generator(5).gumbel(size=(2, 3), like=x)
        same(noise, torch.from_numpy(numbel.Generator(5).gumbel(size=(2, 3))), "gumbel")
        out = torch.empty(2, dtype=torch.int64, device=DEVICE)
        assert numbel.Generator(5).categorical(x, out=out) is out
        assert "shape" in raised(lambda: numbel.Generator(5).categorical(x, out=out[:1]))
        y = numbel.Generator(5).gumbel_softmax(x.to(torch.bfloat16))
        assert y.dtype == torch.bfloat16
        assert "numbel.torch" in raised(lambda: numbel.Generator(5).categorical(x.clone().requires_grad_()))


_WHERE = {"backends": ("simulator", "card")}  # torch's own driver wants a card


def _kind(dtype):
    return getattr(torch, np.dtype(dtype).name)


@registered(**_WHERE)
def check_samples(dtype):
    check(_kind(dtype))


@registered(**_WHERE)
def check_their_derivatives(dtype):
    check_derivatives(_kind(dtype))


@registered(**_WHERE)
def check_their_truncation(dtype):
    check_truncation(_kind(dtype))
