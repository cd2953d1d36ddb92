"""numbel.torch: the bits of NumPy's side, its gradients, and torch's habits."""

import copy
import io
import subprocess
import sys
import threading

import numpy as np
import pytest

import numbel

torch = pytest.importorskip("torch", reason="without torch")
import numbel.torch as nt  # noqa: E402
from numbel.torch import _autograd  # noqa: E402

DTYPES = [torch.float16, torch.bfloat16, torch.float32, torch.float64]
each_dtype = pytest.mark.parametrize("dtype", DTYPES, ids=str)


def logits(*shape, dtype=torch.float64, grad=False):
    """Values of a fixed seed, spread 3."""
    values = 3 * np.random.default_rng(0).standard_normal(shape)
    return torch.from_numpy(values).to(dtype).requires_grad_(grad)


def rng():
    """The generator that every comparison starts from."""
    return numbel.Generator(5, draw=2)


def same(tensor, array):
    """Equal bits, shape and dtype, bfloat16 included."""
    array = np.asarray(array)
    if tensor.dtype == torch.bfloat16:
        tensor, array = tensor.view(torch.int16), array.view(np.int16)
    return np.array_equal(tensor.detach().numpy(), array) and tensor.numpy(force=True).dtype == array.dtype


# --- the same bits


@each_dtype
@pytest.mark.parametrize(("shape", "dim"), [((7,), -1), ((5, 9), -1), ((5, 9), 0), ((2, 300, 3), 1)])
@pytest.mark.parametrize("hard", [False, True])
def test_bits_of_gumbel_softmax(dtype, shape, dim, hard):
    x = logits(*shape, dtype=dtype)
    due = rng().gumbel_softmax(_autograd.as_array(x), 0.7, axis=dim, hard=hard)
    found = nt.gumbel_softmax(x, 0.7, hard, dim=dim, generator=rng())
    assert found.dtype == dtype
    assert same(found, due)


@each_dtype
@pytest.mark.parametrize("num_samples", [None, 3])
def test_bits_of_samples(dtype, num_samples):
    x = logits(4, 3, 50, dtype=dtype)
    options = {"temperature": 0.7, "method": "gumbel_max"}
    due = rng().sample(_autograd.as_array(x), num_samples, axis=1, **options)
    found = nt.sample(x, num_samples, dim=1, generator=rng(), **options)
    for tensor, array in zip(found, due, strict=True):
        assert same(tensor, array)
    assert same(nt.categorical(x, num_samples, dim=1, generator=rng(), **options), due.indices)


def test_three_libraries_agree():
    jax = pytest.importorskip("jax", reason="without jax")
    import numbel.jax as nj

    x = logits(6, 130, dtype=torch.float32)
    cotangent = logits(6, 130, dtype=torch.float32)
    for hard in (False, True):
        due = rng().gumbel_softmax(x.numpy(), 0.5, hard=hard)
        leaf = x.clone().requires_grad_()
        of_torch = nt.gumbel_softmax(leaf, 0.5, hard, generator=rng())
        of_torch.backward(cotangent)
        of_jax, pull = jax.vjp(lambda v, hard=hard: nj.gumbel_softmax(v, 0.5, seed=5, draw=2, hard=hard), x.numpy())
        soft = rng().gumbel_softmax(x.numpy(), 0.5)
        gradient, _ = numbel.gumbel_softmax_vjp(soft, cotangent.numpy(), 0.5)
        assert same(of_torch, due)
        assert same(leaf.grad, gradient)
        assert np.array_equal(of_jax, due)
        assert np.array_equal(pull(jax.numpy.asarray(cotangent.numpy()))[0], gradient)
    assert np.array_equal(nj.categorical(x.numpy(), seed=5, draw=2), nt.categorical(x, generator=rng()))


def test_scalars_and_empty():
    assert nt.categorical(logits(5), generator=rng()).shape == ()
    assert nt.gumbel_softmax(logits(0, 5)).shape == (0, 5)
    assert nt.categorical(logits(0, 5)).shape == (0,)
    assert nt.categorical(logits(2, 5), 0).shape == (2, 0)


# --- gradients


@pytest.mark.parametrize("tau", [0.3, 1.0, 4.0])
@pytest.mark.parametrize("dim", [0, 1])
def test_gradcheck_of_gumbel_softmax(tau, dim):
    x, t = logits(4, 6, grad=True), torch.tensor(tau, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda x, t: nt.gumbel_softmax(x, t, dim=dim, generator=rng()), (x, t))


@pytest.mark.parametrize("shape", [(1,), (4, 1), (3, 1, 1), (1, 4, 1), (3, 4, 1)])
def test_gradcheck_of_a_tau_for_each_row(shape):
    x = logits(3, 4, 5, grad=True)
    t = (0.5 + torch.rand(shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)).requires_grad_()
    assert torch.autograd.gradcheck(lambda x, t: nt.gumbel_softmax(x, t, generator=rng()), (x, t))
    (g,) = torch.autograd.grad(nt.gumbel_softmax(x, t, generator=rng()).square().sum(), t)
    assert g.shape == t.shape


@pytest.mark.parametrize("num_samples", [None, 3])
@pytest.mark.parametrize("temperature", [0.5, torch.tensor([[0.5, 1.0, 2.0]] * 4, dtype=torch.float64)])
def test_gradcheck_of_sample(num_samples, temperature):
    x = logits(4, 6, 3, grad=True)
    assert torch.autograd.gradcheck(
        lambda x: nt.sample(x, num_samples, dim=1, temperature=temperature, generator=rng())[1:], (x,)
    )


def test_gradient_is_torchs_on_the_same_noise():
    x, t = logits(20, 300, grad=True), torch.tensor(0.6, dtype=torch.float64, requires_grad=True)
    noise = torch.from_numpy(rng().gumbel(size=(20, 300), dtype=np.float64))
    due = ((x + noise) / t).softmax(-1)
    found = nt.gumbel_softmax(x, t, generator=rng())
    cotangent = logits(20, 300)
    torch.testing.assert_close(found, due, rtol=1e-12, atol=1e-15)
    for a, b in zip(
        torch.autograd.grad(found, (x, t), cotangent), torch.autograd.grad(due, (x, t), cotangent), strict=True
    ):
        torch.testing.assert_close(a, b, rtol=1e-10, atol=1e-13)


@each_dtype
def test_hard_is_straight_through(dtype):
    x, cotangent = logits(8, 40, dtype=dtype, grad=True), logits(8, 40, dtype=dtype)
    hard, soft = (nt.gumbel_softmax(x, 0.5, h, generator=rng()) for h in (True, False))
    assert torch.equal(hard.argmax(-1), nt.categorical(x, method="gumbel_max", generator=rng()))
    assert torch.equal(hard.sum(-1), torch.ones(8, dtype=dtype))
    assert torch.equal(torch.autograd.grad(hard, x, cotangent)[0], torch.autograd.grad(soft, x, cotangent)[0])


def test_impossible_categories_have_no_gradient():
    x = logits(3, 5)
    x[:, 1] = -torch.inf
    x[0, 2:] = -torch.inf
    x.requires_grad_()
    y = nt.gumbel_softmax(x, 1e-3, generator=rng())
    y.backward(logits(3, 5))
    assert torch.all(y[:, 1] == 0)
    assert y[0, 0] == 1
    assert torch.all(x.grad[:, 1] == 0)
    assert x.grad.isfinite().all()


def test_greedy_rows_have_no_gradient():
    x = logits(2, 5, grad=True)
    drawn = nt.sample(x, temperature=torch.tensor([0.0, 1.0]), generator=rng())
    assert drawn.indices[0] == x[0].argmax()
    drawn.log_prob.sum().backward()
    assert torch.all(x.grad[0] == 0)
    assert torch.any(x.grad[1] != 0)


# --- seeds


def test_torchs_seed_is_obeyed():
    x = logits(4, 5)
    for function in (nt.gumbel_softmax, nt.categorical, lambda x: nt.sample(x).log_prob):
        torch.manual_seed(7)
        first, second = function(x), function(x)
        torch.manual_seed(7)
        assert torch.equal(function(x), first)
        assert torch.equal(function(x), second)
    assert not torch.equal(nt.gumbel_softmax(x), nt.gumbel_softmax(x))


def test_generators():
    x, own = logits(4, 5), torch.Generator().manual_seed(3)
    state = torch.get_rng_state()
    first = nt.gumbel_softmax(x, generator=own)
    assert torch.equal(torch.get_rng_state(), state)
    assert torch.equal(nt.gumbel_softmax(x, generator=own.manual_seed(3)), first)
    numbels = numbel.Generator(5)
    nt.gumbel_softmax(x, generator=numbels)
    nt.categorical(x, generator=numbels)
    assert numbels.draw == 2
    with pytest.raises(ValueError, match="tau"):
        nt.gumbel_softmax(x, 0, generator=numbels)
    assert numbels.draw == 2
    with pytest.raises(TypeError, match=r"numbel\.Generator or a torch\.Generator, got int"):
        nt.gumbel_softmax(x, generator=5)


def test_checkpointing_repeats_the_noise():
    from torch.utils.checkpoint import checkpoint

    x, cotangent = logits(4, 5, grad=True), logits(4, 5)

    def function(x):
        return nt.gumbel_softmax(2 * x, 0.5).square()

    gradients = []
    for call in (function, lambda x: checkpoint(function, x, use_reentrant=False)):
        torch.manual_seed(7)
        gradients.append(torch.autograd.grad(call(x), x, cotangent)[0])
    assert torch.equal(*gradients)


_WORKERS = """
import torch, numbel.torch as nt

class Drawn(torch.utils.data.Dataset):
    def __len__(self):
        return 8
    def __getitem__(self, i):
        return nt.gumbel_softmax(torch.zeros(2, 70_000)), nt.categorical(torch.zeros(2, 70_000))

if __name__ == "__main__":
    nt.gumbel_softmax(torch.zeros(2, 70_000))  # the parent has used its threads before it forks
    runs = []
    for _ in range(2):
        torch.manual_seed(7)
        loader = torch.utils.data.DataLoader(Drawn(), batch_size=2, num_workers=2, multiprocessing_context="fork")
        runs.append([tensor for batch in loader for tensor in batch])
    assert all(torch.equal(a, b) for a, b in zip(*runs))
    assert len({tuple(tensor.reshape(2, -1)[0, :5].tolist()) for tensor in runs[0][::2]}) == 4
    print("passed")
"""


@pytest.mark.skipif(sys.platform == "win32", reason="no fork")
def test_workers_of_a_data_loader(tmp_path):
    script = tmp_path / "workers.py"
    script.write_text(_WORKERS)
    done = subprocess.run([sys.executable, script], capture_output=True, text=True, timeout=300)
    assert done.stdout == "passed\n", done.stderr


def test_threads():
    x, due, found = logits(50, 300), [], []
    for draw in range(8):
        due.append(nt.gumbel_softmax(x, generator=numbel.Generator(5, draw)))
    results = {}

    def work(draw):
        results[draw] = nt.gumbel_softmax(x, generator=numbel.Generator(5, draw))

    team = [threading.Thread(target=work, args=(draw,)) for draw in range(8)]
    for thread in team:
        thread.start()
    for thread in team:
        thread.join()
    found = [results[draw] for draw in range(8)]
    assert all(torch.equal(a, b) for a, b in zip(due, found, strict=True))


# --- no copies


def test_memory_is_shared():
    for dtype in DTYPES:
        x = logits(3, 4, dtype=dtype, grad=True)
        array = _autograd.as_array(x)
        assert array.__array_interface__["data"][0] == x.data_ptr()
        assert _autograd.from_array(array).data_ptr() == x.data_ptr()
        assert _autograd.as_array(x.t()).strides == (x.element_size(), 4 * x.element_size())


def test_a_cotangent_of_stride_0_and_a_strided_view():
    x = logits(40, 6, grad=True)
    nt.gumbel_softmax(x[::2].t(), dim=0, generator=rng())[0].sum().backward()
    dense = logits(40, 6)[::2].t().contiguous().requires_grad_()
    nt.gumbel_softmax(dense, dim=0, generator=rng())[0].sum().backward()
    assert torch.equal(x.grad[::2].t(), dense.grad)


# --- torch.compile


@pytest.mark.filterwarnings("ignore")  # what inductor's own imports warn of
def test_compiled_graph():
    @torch.compile(fullgraph=True, backend="aot_eager")
    def function(x, tau):
        # two calls with equal arguments are two draws: the compiler must not merge them
        return nt.gumbel_softmax(x, tau), nt.gumbel_softmax(x, tau), nt.gumbel_softmax(x, 0.5, hard=True, dim=0)

    x, tau = logits(4, 6, grad=True), torch.tensor(0.5, dtype=torch.float64, requires_grad=True)
    torch.manual_seed(7)
    a, b, c = function(x, tau)
    assert not torch.equal(a, b)
    torch.testing.assert_close(a.sum(-1), torch.ones(4, dtype=torch.float64))
    assert torch.equal(c.sum(0), torch.ones(6, dtype=torch.float64))
    in_x, in_tau = torch.autograd.grad(a, (x, tau), cotangent := logits(4, 6))
    due = numbel.gumbel_softmax_vjp(a.detach().numpy(), cotangent.numpy(), 0.5)
    assert same(in_x, due[0])
    assert same(in_tau, due[1])
    torch.manual_seed(7)
    assert torch.equal(function(x, tau)[0], a)
    with pytest.raises(ValueError, match="tau"):
        function(x, torch.tensor(-1.0))


@pytest.mark.filterwarnings("ignore")
def test_compiled_sampling_breaks_the_graph_and_works():
    own = numbel.Generator(5, draw=2)

    @torch.compile(backend="aot_eager")
    def function(x):
        return nt.categorical(x * 2, generator=own) + 1, nt.gumbel_softmax(x * 2, generator=own)

    indices, y = function(logits(4, 6))
    assert torch.equal(indices - 1, nt.categorical(2 * logits(4, 6), generator=numbel.Generator(5, 2)))
    assert torch.equal(y, nt.gumbel_softmax(2 * logits(4, 6), generator=numbel.Generator(5, 3)))


@pytest.mark.parametrize("hard", [False, True])
def test_the_operator_is_sound(hard):
    x, address = logits(4, 6, grad=True), torch.tensor([3, -1])
    torch.library.opcheck(_autograd.compiled, (x, torch.tensor(0.5, dtype=torch.float64), address, hard, 0))


# --- the module


def test_module():
    relax = nt.GumbelSoftmax(schedule=nt.ExponentialSchedule(2.0, 0.5, 0.25, 2), generator=rng())
    taus = []
    for _ in range(12):
        taus.append(float(relax.tau))
        relax.step()
    due = [max(0.25, 2 * np.exp(-0.5 * (n // 2 * 2))) for n in range(12)]
    assert taus == due
    y = relax(logits(3, 4))
    assert same(y, rng().gumbel_softmax(logits(3, 4).numpy(), float(relax.tau)))
    assert "tau=0.25" in repr(relax)


def test_module_saves_its_temperature():
    schedule = nt.ExponentialSchedule(1.0, 0.1, 0.5, 1)
    relax = nt.GumbelSoftmax(schedule=schedule)
    relax.step()
    relax.step()
    file = io.BytesIO()
    torch.save(relax.state_dict(), file)
    file.seek(0)
    again = nt.GumbelSoftmax(schedule=schedule)
    again.load_state_dict(torch.load(file))
    assert again.tau == relax.tau == np.exp(-0.2)
    again.step()
    assert again.steps == 3
    assert copy.deepcopy(relax).tau == relax.tau


def test_module_learns_its_temperature():
    relax = nt.GumbelSoftmax(torch.nn.Parameter(torch.tensor(0.5)), hard=True)
    relax(logits(3, 4, dtype=torch.float32)).square().mul(logits(3, 4, dtype=torch.float32)).sum().backward()
    assert relax.tau.grad.shape == ()
    assert relax.tau.grad != 0
    assert [name for name, _ in relax.named_parameters()] == ["tau"]


def test_module_refuses():
    with pytest.raises(ValueError, match="both given"):
        nt.GumbelSoftmax(0.5, schedule=nt.ExponentialSchedule())
    with pytest.raises(ValueError, match="tau must be positive"):
        nt.GumbelSoftmax(-1.0)
    falling = nt.GumbelSoftmax(schedule=lambda n: 1.0 - n)
    with pytest.raises(ValueError, match="tau is 0"):
        falling.step()


# --- bad input


@pytest.mark.parametrize("tau", [0, -1.0, float("nan"), float("inf"), torch.tensor(0.0), torch.tensor([[1.0], [-1.0]])])
def test_bad_tau(tau):
    with pytest.raises(ValueError, match="tau"):
        nt.gumbel_softmax(logits(2, 3), tau)


@pytest.mark.parametrize(
    ("shape", "message"), [((2, 3), "between categories"), ((5, 1), "broadcast"), ((1, 2, 1), "broadcast")]
)
def test_tau_of_a_wrong_shape(shape, message):
    with pytest.raises(ValueError, match=f"tau.*{message}"):
        nt.gumbel_softmax(logits(2, 3), torch.ones(shape))


def test_wrong_tensors():
    for function in (nt.gumbel_softmax, nt.categorical, nt.sample):
        with pytest.raises(TypeError, match=r"torch\.Tensor, got ndarray"):
            function(np.zeros(3))
        with pytest.raises(TypeError, match=r"got torch\.int64"):
            function(torch.zeros(3, dtype=torch.int64))
        with pytest.raises(IndexError):
            function(torch.zeros(3), dim=1)
    for function in (nt.categorical, nt.sample):
        with pytest.raises(ValueError, match="scalar"):
            function(torch.zeros(()))
        with pytest.raises(ValueError, match="zero categories"):
            function(torch.zeros(3, 0))


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -float("inf")])
def test_bad_rows(bad):
    x = logits(3, 4)
    x[1] = bad
    x.requires_grad_()
    y = nt.gumbel_softmax(x, generator=rng())
    assert torch.equal(y.isnan().all(-1), torch.tensor([False, True, False]))
    y.sum().backward()
    assert torch.equal(x.grad.isnan().all(-1), torch.tensor([False, True, False]))
    for function in (nt.categorical, nt.sample):
        with pytest.raises(ValueError, match="logits row 1"):
            function(x)


def test_without_torch():
    code = (
        "import sys; sys.modules['torch'] = None\ntry: import numbel.torch\nexcept ImportError as error: print(error)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
    assert done.stdout == 'numbel.torch needs PyTorch: pip install "numbel[torch]"\n', done.stderr


def test_truncation_is_the_generators():
    x = torch.randn(4, 50, generator=torch.Generator().manual_seed(1))
    settings = {"top_k": 20, "top_p": torch.tensor([0.5, 0.7, 0.9, 1.0]), "min_p": 0.01}
    found = nt.categorical(x, 5, generator=numbel.Generator(5), **settings)
    expected = numbel.Generator(5).categorical(x.numpy(), 5, **settings | {"top_p": settings["top_p"].numpy()})
    np.testing.assert_array_equal(found.numpy(), expected)
