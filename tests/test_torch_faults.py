"""Faults of numbel.torch that users of torch found: each function is a case, named after what failed."""

import functools

import numpy as np
import pytest

import numbel

torch = pytest.importorskip("torch", reason="without torch")
import torch.autograd.forward_ad as forward_mode  # noqa: E402
from torch._subclasses.fake_tensor import FakeTensorMode  # noqa: E402
from torch.fx.experimental.proxy_tensor import make_fx  # noqa: E402
from torch.utils.checkpoint import checkpoint  # noqa: E402

import numbel.torch as nt  # noqa: E402

# torch's own, at the first use of forward mode
pytestmark = pytest.mark.filterwarnings("ignore:.torch.jit:DeprecationWarning")

DTYPES = [torch.float16, torch.bfloat16, torch.float32, torch.float64]
IN_PLACE = "modified by an inplace operation"


def logits(*shape, dtype=torch.float64, grad=False, seed=0):
    """Values of a fixed seed, spread 3."""
    values = 3 * np.random.default_rng(seed).standard_normal(shape)
    return torch.from_numpy(values).to(dtype).requires_grad_(grad)


def scalar(value, dtype=torch.float64, grad=True):
    return torch.tensor(value, dtype=dtype, requires_grad=grad)


def rng():
    """The generator that every comparison starts from."""
    return numbel.Generator(5, draw=2)


def relaxed(x, tau=0.7, **options):
    return nt.gumbel_softmax(x, tau, generator=rng(), **options)


def noise(*shape):
    """What `relaxed` adds to float64 logits of this shape."""
    return torch.from_numpy(rng().gumbel(size=shape, dtype=np.float64))


def by_torch(x, tau=0.7, dim=-1):
    """`relaxed` in torch's own operations, noise of rows along the last axis."""
    return torch.softmax((x + noise(*x.shape)) / tau, dim)


def close(found, due, tolerance=1e-9):
    torch.testing.assert_close(found, due, rtol=tolerance, atol=tolerance)


# --- what is changed in place between forward and backward


@pytest.mark.parametrize("hard", [False, True])
@pytest.mark.parametrize("grad", [False, True])
def test_tau_changed_in_place_before_backward(hard, grad):
    x, tau = logits(3, 4, grad=True), scalar(0.5, grad=grad)
    y = relaxed(x, tau, hard=hard)
    with torch.no_grad():
        tau.fill_(5.0)
    with pytest.raises(RuntimeError, match=IN_PLACE):
        y.square().sum().backward()


@pytest.mark.parametrize("hard", [False, True])
def test_taus_of_rows_changed_in_place_before_backward(hard):
    x, tau = logits(3, 4, grad=True), torch.full((3, 1), 0.5, dtype=torch.float64)
    y = relaxed(x, tau, hard=hard)
    tau.mul_(2)
    with pytest.raises(RuntimeError, match=IN_PLACE):
        y.square().sum().backward()


@pytest.mark.parametrize("hard", [False, True])
def test_step_of_the_module_before_backward(hard):
    relax = nt.GumbelSoftmax(schedule=nt.ExponentialSchedule(rate=1, every=1), hard=hard, generator=rng())
    x = logits(3, 4, grad=True)
    y = relax(x)
    relax.step()
    with pytest.raises(RuntimeError, match=IN_PLACE):
        y.square().sum().backward()


@pytest.mark.parametrize("shape", [(), (3,)])
def test_temperature_of_sample_changed_in_place_before_backward(shape):
    x, temperature = logits(3, 4, grad=True), torch.full(shape, 0.5, dtype=torch.float64)
    drawn = nt.sample(x, temperature=temperature, generator=rng())
    temperature.mul_(2)
    with pytest.raises(RuntimeError, match=IN_PLACE):
        drawn.log_prob.sum().backward()


def test_numpy_temperatures_of_sample_changed_in_place_before_backward():
    gradients = []
    for factor in (1, 2):
        x, temperature = logits(3, 4, grad=True), np.full(3, 0.5)
        drawn = nt.sample(x, temperature=temperature, generator=rng())
        temperature *= factor
        drawn.log_prob.sum().backward()
        gradients.append(x.grad)
    assert torch.equal(*gradients)


def test_temperatures_of_sample_in_any_array():
    x, gradients = logits(3, 4, grad=True), []
    t = np.array([0.5, 1.0, 2.0])
    for given in (t, t.astype(np.float16), t.astype(pytest.importorskip("ml_dtypes").bfloat16), torch.from_numpy(t)):
        drawn = nt.sample(x, temperature=given, generator=rng())
        gradients.append(torch.autograd.grad(drawn.log_prob.sum(), x)[0])
    assert all(torch.equal(gradients[0], other) for other in gradients)


def test_numpy_tau_changed_in_place_before_backward():
    gradients = []
    for factor in (1, 2):
        x, tau = logits(3, 4, grad=True), np.array(0.5)
        y = relaxed(x, tau)
        tau *= factor
        y.square().sum().backward()
        gradients.append(x.grad)
    assert torch.equal(*gradients)


# --- second derivatives


@pytest.mark.parametrize("shape", [(), (3, 1), (1, 1)])
@pytest.mark.parametrize("kind", ["linear", "square"])
def test_second_derivatives_of_gumbel_softmax(shape, kind):
    """Of a linear loss the incoming gradient needs none, and the second derivatives were 0."""
    weights = logits(3, 4, seed=1)
    results = []
    for function in (relaxed, by_torch):
        x, tau = logits(3, 4, grad=True), torch.full(shape, 0.7, dtype=torch.float64, requires_grad=True)
        y = function(x, tau)
        loss = (weights * (y if kind == "linear" else y.square())).sum()
        first = torch.autograd.grad(loss, (x, tau), create_graph=True)
        penalty = first[0].square().sum() + first[1].square().sum()
        second = torch.autograd.grad(penalty, (x, tau), create_graph=True)
        third = torch.autograd.grad(second[0].square().sum() + second[1].sum(), (x, tau))
        results.append((*first, *second, *third))
    for found, due in zip(*results, strict=True):
        assert due.abs().max() > 1e-3
        close(found, due, 1e-7)


@pytest.mark.parametrize("dim", [0, 1])
def test_gradgradcheck_of_gumbel_softmax(dim):
    x, tau = logits(3, 4, grad=True), scalar(0.7)
    assert torch.autograd.gradgradcheck(lambda x, tau: relaxed(x, tau, dim=dim), (x, tau))


def test_second_derivatives_of_hard_samples():
    """Those of the soft sample, as of torch's straight-through estimator."""
    weights, results = logits(3, 4, seed=1), []
    for function in (lambda x, tau: relaxed(x, tau, hard=True), by_torch):
        x, tau = logits(3, 4, grad=True), scalar(0.7)
        first = torch.autograd.grad((weights * function(x, tau)).sum(), (x, tau), create_graph=True)
        results.append(torch.autograd.grad(first[0].square().sum() + first[1].square(), (x, tau)))
    for found, due in zip(*results, strict=True):
        close(found, due)


@pytest.mark.parametrize("temperature", [0.7, [0.7, 2.0, 0.5]])
@pytest.mark.parametrize("num_samples", [None, 5])
def test_second_derivatives_of_sample(temperature, num_samples):
    results = []
    for ours in (True, False):
        x, t = logits(3, 4, grad=True), scalar(temperature)
        drawn = nt.sample(x, num_samples, temperature=t, generator=rng())
        log_prob, logsumexp = drawn.log_prob, drawn.logsumexp
        if not ours:
            scaled = x / (t[:, None] if t.ndim else t)
            at = drawn.indices if num_samples else drawn.indices[:, None]
            log_prob, logsumexp = scaled.log_softmax(-1).gather(-1, at), scaled.logsumexp(-1)
        loss = log_prob.sum() + (logsumexp * logits(3, seed=2)).sum()
        first = torch.autograd.grad(loss, (x, t), create_graph=True)
        penalty = first[0].square().sum() + first[1].square().sum()
        second = torch.autograd.grad(penalty, (x, t), create_graph=True)
        results.append((*first, *second, *torch.autograd.grad(second[0].square().sum(), (x, t))))
    for found, due in zip(*results, strict=True):
        assert due.abs().max() > 1e-3
        close(found, due, 1e-8)


def test_a_second_derivative_of_a_linear_log_prob():
    """The Hessian of a log-probability is that of -logsumexp."""
    x = logits(4, grad=True)
    drawn = nt.sample(x, generator=rng())
    (first,) = torch.autograd.grad(drawn.log_prob, x, create_graph=True)
    rows = [torch.autograd.grad(first[i], x, retain_graph=True)[0] for i in range(4)]
    p = x.detach().softmax(-1)
    close(torch.stack(rows), torch.outer(p, p) - torch.diag(p))


def test_gradient_of_sample_in_the_temperature_of_impossible_categories():
    x = torch.tensor([[1.0, -torch.inf, 2.0], [0.0, 3.0, -torch.inf]], dtype=torch.float64, requires_grad=True)
    for t in (scalar(0.5), scalar([0.5, 2.0])):
        drawn = nt.sample(x, 3, temperature=t, generator=rng())
        found = torch.autograd.grad(drawn.log_prob.sum() + drawn.logsumexp.sum(), (x, t), create_graph=True)
        again = torch.autograd.grad(found[0].square().sum() + found[1].square().sum(), (x, t))
        assert all(part.isfinite().all() for part in (*found, *again))
        assert found[1].abs().sum() > 0


def test_second_derivatives_where_a_category_is_impossible():
    x = logits(3, 5)
    x[:, 1] = -torch.inf
    x.requires_grad_()
    tau = scalar(1e-3)  # most parts of y are 0
    first = torch.autograd.grad((relaxed(x, tau) * logits(3, 5, seed=1)).sum(), (x, tau), create_graph=True)
    second = torch.autograd.grad(first[0].square().sum() + first[1].square(), (x, tau))
    assert all(part.isfinite().all() for part in (*first, *second))


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("hard", [False, True])
def test_create_graph_keeps_the_bits_of_the_gradient(dtype, hard):
    x, tau = logits(4, 30, dtype=dtype, grad=True), scalar(0.6, grad=True)
    weights = logits(4, 30, dtype=dtype, seed=1)
    plain, graph = (
        torch.autograd.grad((weights * relaxed(x, tau, hard=hard)).sum(), (x, tau), create_graph=create)
        for create in (False, True)
    )
    assert torch.equal(plain[0], graph[0])
    assert torch.equal(plain[1], graph[1])
    second = torch.autograd.grad(graph[0].float().square().sum(), (x, tau))
    assert second[0].dtype == dtype
    assert second[0].abs().max() > 0
    assert second[1] != 0


# --- checkpointing


@pytest.mark.parametrize("reentrant", [False, True])
@pytest.mark.parametrize("kind", ["numbel", "torch"])
def test_checkpointing_with_a_generator_computed_other_draws(reentrant, kind):
    """torch restores the state of its default generator alone."""
    own = rng() if kind == "numbel" else torch.Generator().manual_seed(3)
    functions = (
        lambda x: nt.gumbel_softmax(2 * x, 0.5, generator=own).square(),
        lambda x: nt.sample(2 * x, generator=own).log_prob,
        lambda x: nt.categorical(2 * x, generator=own) * x.sum(-1),
    )
    for function in functions:
        y = checkpoint(function, logits(4, 5, grad=True), use_reentrant=reentrant)
        with pytest.raises(RuntimeError, match=rf"{kind}\.Generator.*backward pass runs.*generator=None"):
            y.sum().backward()


def test_checkpointing_with_the_default_generator():
    gradients = []
    for own in (None, torch.default_generator):
        for call in (lambda f, x: f(x), lambda f, x: checkpoint(f, x, use_reentrant=False)):
            x = logits(4, 5, grad=True)
            torch.manual_seed(7)
            call(lambda x, own=own: nt.gumbel_softmax(2 * x, 0.5, generator=own).square(), x)[:, 0].sum().backward()
            gradients.append(x.grad)
    assert all(torch.equal(gradients[0], other) for other in gradients)


# --- temperature 0


@pytest.mark.parametrize("hard", [False, True])
@pytest.mark.parametrize(
    "tau", [0, 0.0, np.float32(0), torch.tensor(0.0), torch.tensor([[1.0], [0.0], [1.0]])], ids=str
)
def test_tau_0_was_taken_for_rows(tau, hard):
    with pytest.raises(ValueError, match=r"tau (row 1 )?is 0.*hard=True"):
        nt.gumbel_softmax(logits(3, 4), tau, hard)


def test_a_schedule_that_ends_at_0_names_hard():
    relax = nt.GumbelSoftmax(schedule=lambda n: 1.0 - n)
    with pytest.raises(ValueError, match=r"tau is 0.*hard=True"):
        relax.step()


# --- default devices


@pytest.fixture
def on_meta():
    torch.set_default_device("meta")
    yield
    torch.set_default_device(None)


def test_a_default_device_took_the_seeds(on_meta):
    x = logits(3, 4, grad=True)
    assert x.device.type == "cpu"
    for own in (None, rng(), torch.Generator("cpu")):
        y = nt.gumbel_softmax(x, 0.5, generator=own)
        assert y.device.type == "cpu"
        y[0].sum().backward()
        nt.sample(x, 2, generator=own).log_prob.sum().backward()
        assert nt.categorical(x, generator=own).device.type == "cpu"
        assert nt.sample(x, temperature=0.5, generator=own).indices.shape == (3,)


def test_a_default_device_within_a_context():
    torch.manual_seed(7)
    due = nt.gumbel_softmax(logits(3, 4)), nt.categorical(logits(3, 4), top_k=2)
    torch.manual_seed(7)
    x = logits(3, 4)
    with torch.device("meta"):
        found = nt.gumbel_softmax(x), nt.categorical(x, top_k=2)
    assert all(torch.equal(a, b) for a, b in zip(found, due, strict=True))


def test_repr_of_a_module_on_another_device():
    with torch.device("meta"):
        relax = nt.GumbelSoftmax(0.5)
    assert "tau=<of shape () on meta>" in repr(relax)
    assert "tau=0.5" in repr(nt.GumbelSoftmax(0.5))
    assert "tau=<of shape (3, 1) on cpu>" in repr(nt.GumbelSoftmax(torch.nn.Parameter(torch.ones(3, 1))))


def test_a_module_made_on_meta_works_once_it_has_memory():
    with torch.device("meta"):
        relax = nt.GumbelSoftmax(0.5, generator=rng())
    with pytest.raises(TypeError, match="tau is on meta and logits on cpu"):
        relax(logits(3, 4))
    relax.to_empty(device="cpu").load_state_dict(nt.GumbelSoftmax(0.7).state_dict())
    assert torch.equal(relax(logits(3, 4)), relaxed(logits(3, 4)))


def test_meta_tensors():
    x = torch.zeros(2, 3, device="meta", dtype=torch.bfloat16, requires_grad=True)
    y = nt.gumbel_softmax(x, 0.5, hard=True)
    assert (y.device.type, y.shape, y.dtype) == ("meta", (2, 3), torch.bfloat16)
    y.sum().backward()
    assert x.grad.shape == (2, 3)
    assert nt.categorical(x, 4, dim=0, top_k=2).shape == (3, 4)
    drawn = nt.sample(x, 4)
    assert [part.shape for part in drawn] == [(2, 4), (2, 4), (2,)]
    assert drawn.log_prob.dtype == torch.float32


# --- shapes and views


def test_a_tensor_without_dimensions():
    for hard in (False, True):
        x, tau = torch.tensor(1.5, requires_grad=True), scalar(0.5)
        for dim in (-1, 0):
            y = nt.gumbel_softmax(x, tau, hard, dim=dim)
            assert y.shape == ()
            assert y == 1
        y.backward()
        assert x.grad == 0
        assert tau.grad == 0
    assert nt.gumbel_softmax(torch.tensor(torch.nan)).isnan()
    with pytest.raises(IndexError):
        nt.gumbel_softmax(torch.tensor(1.0), dim=1)


@pytest.mark.parametrize(("shape", "dim"), [((3, 0), -1), ((0,), -1), ((0, 3), 0), ((0, 0), 1)])
def test_no_columns(shape, dim):
    x, tau = torch.zeros(shape, requires_grad=True), scalar(0.5)
    y = nt.gumbel_softmax(x, tau, dim=dim)
    assert y.shape == shape
    y.sum().backward()
    assert x.grad.shape == shape
    assert tau.grad == 0
    with pytest.raises(ValueError, match="tau"):
        nt.gumbel_softmax(x, -1.0, dim=dim)
    with pytest.raises((ValueError, IndexError)):  # as in torch: nothing is the largest
        nt.gumbel_softmax(x, hard=True, dim=dim)


def negative(tensor):
    """The same values, in a view whose memory holds their negatives."""
    view = torch.complex(torch.zeros_like(tensor), -tensor).conj().imag
    assert view.is_neg()
    return view


def test_views_with_the_negative_bit():
    x = logits(3, 4)
    view = negative(x)
    taus = torch.tensor([[0.5], [1.0], [2.0]], dtype=torch.float64)
    assert torch.equal(relaxed(view), relaxed(x))
    assert torch.equal(relaxed(view, hard=True), relaxed(x, hard=True))
    assert torch.equal(relaxed(x, negative(taus)), relaxed(x, taus))
    assert torch.equal(relaxed(x, negative(taus)[1, 0]), relaxed(x, 1.0))
    options = {"temperature": taus[:, 0], "top_p": taus[:, 0] / 2, "min_p": taus[:, 0] / 8}
    views = {name: negative(value) for name, value in options.items()}
    assert torch.equal(nt.categorical(view, generator=rng(), **views), nt.categorical(x, generator=rng(), **options))
    for found, due in zip(
        nt.sample(view, 3, temperature=views["temperature"], generator=rng()),
        nt.sample(x, 3, temperature=options["temperature"], generator=rng()),
        strict=True,
    ):
        assert torch.equal(found, due)


def test_cotangents_with_the_negative_bit():
    """As the imaginary part of a conjugate passes them back."""
    x = logits(3, 4, grad=True)
    y, cotangent = relaxed(x), logits(3, 4, seed=1)
    due = torch.autograd.grad(y, x, cotangent, retain_graph=True)
    assert torch.equal(torch.autograd.grad(y, x, negative(cotangent))[0], due[0])
    z = logits(4, grad=True)
    drawn = nt.sample(z, generator=rng())
    due = torch.autograd.grad(drawn.log_prob, z, scalar(2.0), retain_graph=True)
    assert torch.equal(torch.autograd.grad(drawn.log_prob, z, negative(scalar(2.0, grad=False)))[0], due[0])


def test_limits_in_half_types():
    x, limits = logits(3, 40), torch.tensor([0.5, 0.75, 1.0])
    due = nt.categorical(x, 5, top_p=limits, min_p=limits / 16, generator=rng())
    for dtype in (torch.float16, torch.bfloat16, torch.float64):
        options = {"top_p": limits.to(dtype), "min_p": (limits / 16).to(dtype)}
        assert torch.equal(nt.categorical(x, 5, generator=rng(), **options), due)


# --- torch.compile


def compiled(function, **options):
    torch._dynamo.reset()
    return torch.compile(function, backend="aot_eager", fullgraph=True, **options)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("hard", [False, True])
def test_a_compiled_graph_drew_other_samples(hard):
    def function(x):
        return nt.gumbel_softmax(x, 0.5, hard=hard), nt.gumbel_softmax(x, 2.0)

    x = logits(3, 4)
    torch.manual_seed(7)
    due = function(x)
    torch.manual_seed(7)
    found = compiled(function)(x)
    assert all(torch.equal(a, b) for a, b in zip(found, due, strict=True))
    assert torch.equal(torch.rand(()), torch.rand((), generator=_after(lambda: function(x))))


def _after(call):
    """A generator in the state that the default one has after a call from seed 7."""
    kept = torch.get_rng_state()
    torch.manual_seed(7)
    call()
    own = torch.Generator()
    own.set_state(torch.get_rng_state())
    torch.set_rng_state(kept)
    return own


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(
    "options",
    [
        {},
        {"num_samples": 5, "temperature": 0.5, "dim": 0},
        {"top_k": 3, "top_p": 0.9, "min_p": 0.01, "method": "gumbel_max"},
        {"temperature": torch.tensor([0.5, 0.0, 2.0]), "top_k": torch.tensor([1, 2, 3])},
    ],
    ids=lambda options: "-".join(options) or "plain",
)
def test_categorical_in_a_full_graph(options):
    def function(x):
        return nt.categorical(2 * x, **options) + 1

    x = logits(3, 4, grad=True)
    torch.manual_seed(7)
    due = function(x)
    torch.manual_seed(7)
    assert torch.equal(compiled(function)(x), due)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("num_samples", [None, 5])
def test_sample_in_a_full_graph(num_samples):
    def function(x, t):
        return tuple(nt.sample(2 * x, num_samples, temperature=t))

    results = []
    for call in (function, compiled(function)):
        x, t = logits(3, 4, grad=True), scalar([0.5, 1.0, 2.0])
        torch.manual_seed(7)
        indices, log_prob, logsumexp = call(x, t)
        (log_prob.sum() + (logsumexp * logits(3, seed=1)).sum()).backward()
        results.append((indices, log_prob, logsumexp, x.grad, t.grad))
    for found, due in zip(*results, strict=True):
        close(found, due)


def test_the_operators_are_sound():
    x, t, address = logits(4, 6, grad=True), scalar(0.5, grad=False), torch.tensor([3, -1])
    tests = ("test_schema", "test_autograd_registration", "test_faketensor")  # the last one adds up indices with reals
    torch.library.opcheck(torch.ops.numbel.sample.default, (x, t, address, 3, -1, "grouped"), test_utils=tests)
    x = x.detach()
    torch.library.opcheck(
        torch.ops.numbel.categorical.default, (x, t, [torch.tensor(3), None, None], address, None, 0, "gumbel_max")
    )
    torch.library.opcheck(torch.ops.numbel.gumbel_softmax_vjp.default, (x.softmax(-1), x, t, address, False, -1))


# --- torch.func


#: `jacfwd` runs the function within a `vmap`, which asks what random numbers mean there.
jacfwd = functools.partial(torch.func.jacfwd, randomness="same")
JACOBIANS = {"jacrev": torch.func.jacrev, "jacfwd": jacfwd}
each_jacobian = pytest.mark.parametrize("jacobian", JACOBIANS.values(), ids=JACOBIANS)


@pytest.mark.parametrize("hard", [False, True])
def test_torch_func_grad_and_vjp(hard):
    x, weights = logits(3, 4), logits(3, 4, seed=1)
    leaf = logits(3, 4, grad=True)
    y = relaxed(leaf, hard=hard)
    (due,) = torch.autograd.grad(y, leaf, weights)
    assert torch.equal(torch.func.grad(lambda x: (weights * relaxed(x, hard=hard)).sum())(x), due)
    out, pull = torch.func.vjp(lambda x: relaxed(x, hard=hard), x)
    assert torch.equal(out, y.detach())
    assert torch.equal(pull(weights)[0], due)
    found = torch.func.grad(lambda x, t: (weights * relaxed(x, t, hard=hard)).sum(), argnums=(0, 1))(x, scalar(0.7))
    for ours, torchs in zip(
        found,
        torch.func.grad(lambda x, t: (weights * by_torch(x, t)).sum(), argnums=(0, 1))(x, scalar(0.7)),
        strict=True,
    ):
        close(ours, torchs)


@pytest.mark.parametrize("hard", [False, True])
@pytest.mark.parametrize("shape", [(), (3, 1)])
def test_torch_func_jvp(hard, shape):
    x, t = logits(3, 4), torch.full(shape, 0.7, dtype=torch.float64)
    tangents = logits(3, 4, seed=1), torch.full(shape, 0.3, dtype=torch.float64)
    y, found = torch.func.jvp(lambda x, t: relaxed(x, t, hard=hard), (x, t), tangents)
    assert torch.equal(y, relaxed(x, t, hard=hard))
    close(found, torch.func.jvp(by_torch, (x, t), tangents)[1])
    for at in (0, 1):
        for function in (relaxed, by_torch):
            call = (lambda x: function(x, t)) if at == 0 else (lambda t: function(x, t))  # noqa: B023
            alone = torch.func.jvp(call, ((x, t)[at],), (tangents[at],))[1]
            due = alone if function is relaxed else due  # noqa: F821
        close(due, alone)


@pytest.mark.parametrize("hard", [False, True])
@each_jacobian
def test_torch_func_jacobians(jacobian, hard):
    x, t = logits(3, 4), scalar(0.7, grad=False)
    found = jacobian(lambda x, t: relaxed(x, t, hard=hard), argnums=(0, 1))(x, t)
    for ours, due in zip(found, jacobian(by_torch, argnums=(0, 1))(x, t), strict=True):
        close(ours, due)


@pytest.mark.parametrize("hard", [False, True])
@pytest.mark.parametrize("outer", JACOBIANS.values(), ids=JACOBIANS)
@pytest.mark.parametrize("inner", JACOBIANS.values(), ids=JACOBIANS)
def test_torch_func_hessians(outer, inner, hard):
    weights = logits(2, 3, seed=1)
    x, t = logits(2, 3), torch.full((2, 1), 0.7, dtype=torch.float64)

    def loss(function):
        return lambda x, t: (weights * function(x, t)).sum()

    def hessian(function):
        return outer(inner(function, argnums=(0, 1)), argnums=(0, 1))(x, t)

    found = hessian(loss(lambda x, t: relaxed(x, t, hard=hard)))
    for row, due_row in zip(found, hessian(loss(by_torch)), strict=True):
        for part, due in zip(row, due_row, strict=True):
            close(part, due)


@pytest.mark.parametrize("hard", [False, True])
def test_torch_func_vmap_is_a_loop_over_calls(hard):
    x, t = logits(5, 3, 4), torch.linspace(0.5, 2, 5, dtype=torch.float64)
    with pytest.raises(RuntimeError, match="randomness"):
        torch.func.vmap(relaxed)(x)
    found = torch.func.vmap(lambda x, t: relaxed(x, t, hard=hard), (1, 0), randomness="same")(x.transpose(0, 1), t)
    due = torch.stack([relaxed(a, b, hard=hard) for a, b in zip(x, t, strict=True)])
    assert torch.equal(found, due)
    for own in (None, rng(), torch.Generator().manual_seed(3)):
        torch.manual_seed(7)
        found = torch.func.vmap(lambda x: nt.gumbel_softmax(x, generator=own), randomness="different")(x * 0)  # noqa: B023
        assert len({tuple(row) for row in found.reshape(5, -1).tolist()}) == 5
        close(found.sum(-1), torch.ones(5, 3, dtype=torch.float64))
    assert torch.equal(
        torch.func.vmap(relaxed, randomness="different")(x)[0], relaxed(x[0])
    )  # the first element has the generator's own seed
    unbatched = torch.func.vmap(lambda _: nt.gumbel_softmax(x[0]), randomness="different")(torch.arange(3))
    assert not torch.equal(unbatched[0], unbatched[1])


@pytest.mark.parametrize("hard", [False, True])
@pytest.mark.parametrize("of_tau", [False, True])
def test_torch_func_vmap_of_gradients(hard, of_tau):
    """Gradients of each example, and of each from its own temperature."""
    x, weights = logits(5, 3, 4), logits(3, 4, seed=1)
    t = torch.linspace(0.5, 2, 5, dtype=torch.float64) if of_tau else scalar(0.7, grad=False)

    def loss(x, t):
        return (weights * relaxed(x, t, hard=hard)).sum()

    gradient = torch.func.grad(loss, argnums=(0, 1))
    found = torch.func.vmap(gradient, (0, 0 if of_tau else None), randomness="same")(x, t)
    due = [gradient(a, t[i] if of_tau else t) for i, a in enumerate(x)]
    for part, parts in zip(found, zip(*due, strict=True), strict=True):
        close(part, torch.stack(parts))


def test_torch_func_vmap_within_vmap():
    x = logits(2, 5, 4)
    twice = torch.func.vmap(torch.func.vmap(relaxed, randomness="same"), randomness="same")(x)
    assert torch.equal(twice, torch.stack([torch.stack([relaxed(b) for b in a]) for a in x]))
    twice = torch.func.vmap(torch.func.vmap(relaxed, randomness="different"), randomness="different")(x * 0)
    assert len({tuple(row) for row in twice.reshape(10, 4).tolist()}) == 10


def test_torch_func_vmap_over_nothing():
    for function, shape in ((nt.gumbel_softmax, (0, 4)), (nt.categorical, (0,)), (lambda x: nt.sample(x)[2], (0,))):
        assert torch.func.vmap(function, randomness="different")(torch.zeros(0, 4)).shape == shape


def test_torch_func_with_seeds_of_torch():
    x = logits(3, 4)
    torch.manual_seed(7)
    due = nt.gumbel_softmax(x)
    torch.manual_seed(7)
    assert torch.equal(torch.func.vjp(nt.gumbel_softmax, x)[0], due)
    own = rng()
    torch.func.vjp(lambda x: nt.gumbel_softmax(x, generator=own), x)
    assert own.draw == 3


def test_batched_gradients():
    """`is_grads_batched` and `vectorize` run a vmap in a backward pass without a graph."""
    x = logits(4, grad=True)
    y = relaxed(x)
    eye = torch.eye(4, dtype=torch.float64)
    (found,) = torch.autograd.grad(y, x, eye, is_grads_batched=True)
    due = torch.stack([torch.autograd.grad(relaxed(x), x, row)[0] for row in eye])
    close(found, due)
    close(torch.autograd.functional.jacobian(relaxed, x, vectorize=True), due)
    drawn = nt.sample(x, 3, generator=rng()).log_prob
    (found,) = torch.autograd.grad(drawn, x, eye[:3, :3], is_grads_batched=True, retain_graph=True)
    close(found, torch.stack([torch.autograd.grad(drawn, x, row, retain_graph=True)[0] for row in eye[:3, :3]]))


def test_torch_func_of_samples():
    x, t = logits(3, 4), torch.tensor([0.5, 1.0, 2.0], dtype=torch.float64)
    drawn = nt.sample(x, temperature=t, generator=rng())

    def ours(x, t):
        found = nt.sample(x, temperature=t, generator=rng())
        return found.log_prob.sum() + 2 * found.logsumexp.sum()

    def due(x, t):
        scaled = x / t[:, None]
        chosen = scaled.log_softmax(-1).gather(-1, drawn.indices[:, None])
        return chosen.sum() + 2 * scaled.logsumexp(-1).sum()

    transforms = (
        lambda f: torch.func.grad(f, argnums=(0, 1))(x, t),
        lambda f: torch.func.jvp(f, (x, t), (logits(3, 4, seed=1), logits(3, seed=2))),
        lambda f: jacfwd(torch.func.jacrev(f, argnums=1))(x, t),
        lambda f: torch.func.jacrev(jacfwd(f), argnums=1)(x, t),
        lambda f: jacfwd(jacfwd(f), argnums=1)(x, t),
    )
    for transform in transforms:
        close(transform(ours), transform(due))
    drawn, moved = torch.func.jvp(lambda x, t: nt.categorical(x, temperature=t, generator=rng()), (x, t), (x, t))
    assert torch.equal(drawn, nt.categorical(x, temperature=t, generator=rng()))
    assert not moved.any()
    many = logits(5, 3, 4)
    found = torch.func.vmap(lambda x: nt.sample(x, 2, generator=rng()), randomness="same")(many)
    picked = torch.func.vmap(lambda x: nt.categorical(x, 2, top_k=4, generator=rng()), randomness="same")(many)
    assert torch.equal(found.indices, picked)
    assert torch.equal(found.log_prob[3], nt.sample(many[3], 2, generator=rng()).log_prob)


# --- forward mode


@pytest.mark.parametrize("hard", [False, True])
def test_forward_mode(hard):
    x, t, of_x, of_t = logits(3, 4), scalar(0.7, grad=False), logits(3, 4, seed=1), scalar(0.3, grad=False)
    results = []
    for function in (lambda x, t: relaxed(x, t, hard=hard), by_torch):
        with forward_mode.dual_level():
            y = function(forward_mode.make_dual(x, of_x), forward_mode.make_dual(t, of_t))
            results.append(forward_mode.unpack_dual(y).tangent)
    close(*results)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_forward_mode_in_each_dtype(dtype):
    x, of_x = logits(3, 4, dtype=dtype), logits(3, 4, dtype=dtype, seed=1)
    y, moved = torch.func.jvp(lambda x, t: relaxed(x, t), (x, scalar(0.7, grad=False)), (of_x, scalar(0.1, grad=False)))
    wide = torch.func.jvp(by_torch, (x.double(), scalar(0.7, grad=False)), (of_x.double(), scalar(0.1, grad=False)))[1]
    assert y.dtype == moved.dtype == dtype
    close(moved.double(), wide, {torch.float16: 1e-2, torch.bfloat16: 1e-1}.get(dtype, 1e-5))


def test_gradcheck_in_forward_mode():
    x, t = logits(3, 4, grad=True), scalar(0.7)
    options = {"check_forward_ad": True, "check_batched_grad": True, "check_batched_forward_grad": True}
    for hard in (False,):
        assert torch.autograd.gradcheck(lambda x, t, hard=hard: relaxed(x, t, hard=hard), (x, t), **options)
    assert torch.autograd.gradgradcheck(
        relaxed, (x, t), check_fwd_over_rev=True, check_rev_over_rev=True, check_batched_grad=True
    )
    assert torch.autograd.gradcheck(
        lambda x, t: nt.sample(x, 3, temperature=t, generator=rng())[1:], (x, t), check_forward_ad=True
    )
    assert torch.autograd.gradgradcheck(
        lambda x, t: nt.sample(x, 3, temperature=t, generator=rng())[1:], (x, t), check_fwd_over_rev=True
    )


def test_forward_over_reverse_without_a_graph():
    """A backward pass of dual numbers carries tangents although it makes no graph."""
    weights, results = logits(3, 4, seed=2), []
    for function in (relaxed, by_torch):
        x = logits(3, 4, grad=True)
        with forward_mode.dual_level():
            dual = forward_mode.make_dual(x, logits(3, 4, seed=1))
            (g,) = torch.autograd.grad((weights * function(dual)).sum(), x)
            results.append(forward_mode.unpack_dual(g).tangent)
    close(*results)


# --- fake tensors and traced graphs


def test_fake_tensors():
    with FakeTensorMode() as mode:
        x = torch.zeros(3, 4, dtype=torch.float16, requires_grad=True)
        for hard in (False, True):
            for tau in (0.5, torch.tensor(0.5, requires_grad=True)):
                for own in (None, rng()):
                    y = nt.gumbel_softmax(x, tau, hard, generator=own)
                    assert (type(y), y.shape, y.dtype) == (type(x), x.shape, x.dtype)
                    y.sum().backward()
        assert x.grad.shape == (3, 4)
        assert nt.categorical(x, 5, top_p=0.5).shape == (3, 5)
        drawn = nt.sample(x)
        drawn.log_prob.sum().backward()
        assert drawn.indices.shape == drawn.log_prob.shape == (3,)
        assert "tau=<of shape () on cpu>" in repr(nt.GumbelSoftmax(0.5))
    real = mode.from_tensor(logits(3, 4))
    with mode:
        assert nt.gumbel_softmax(real).shape == (3, 4)


@pytest.mark.parametrize("hard", [False, True])
@pytest.mark.parametrize("mode", ["real", "fake", "symbolic"])
def test_make_fx(hard, mode):
    def function(x):
        return nt.gumbel_softmax(2 * x, 0.5, hard=hard), nt.categorical(x, 2), nt.sample(x).log_prob

    x = logits(3, 4)
    graph = make_fx(function, tracing_mode=mode)(x)
    for seed in (7, 8):  # each run of the graph draws its own seeds
        torch.manual_seed(seed)
        found = graph(x)
        torch.manual_seed(seed)
        assert all(torch.equal(a, b) for a, b in zip(found, function(x), strict=True))


def test_make_fx_of_a_gradient():
    weights = logits(3, 4, seed=1)
    gradient = torch.func.grad(lambda x: (weights * nt.gumbel_softmax(x, 0.5)).sum())
    x = logits(3, 4)
    graph = make_fx(gradient)(x)
    torch.manual_seed(7)
    found = graph(x)
    torch.manual_seed(7)
    close(found, gradient(x))


def test_make_fx_would_have_repeated_one_draw():
    with pytest.raises(TypeError, match="generator=None"):
        make_fx(lambda x: nt.gumbel_softmax(x, generator=rng()))(logits(3, 4))
