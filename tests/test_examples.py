"""The scripts of examples/, with small settings, and the code of theirs that a page shows."""

import importlib.util
import re
import sys
from pathlib import Path

import numpy as np
import pytest

ROOT = Path(__file__).resolve().parent.parent


def example(name):
    """The module of a script."""
    spec = importlib.util.spec_from_file_location(f"example_{name}", ROOT / "examples" / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # where dataclasses look their module up
    spec.loader.exec_module(module)
    return module


# --- the simplex


def test_simplex(tmp_path, capsys):
    pytest.importorskip("matplotlib", reason="without matplotlib")
    simplex = example("simplex")
    path = tmp_path / "simplex.png"
    p, samples = simplex.main(["--count", "3000", "--figure", str(path)])
    assert path.stat().st_size > 10_000
    largest = [y.argmax(-1) for y in samples.values()]
    assert all(np.array_equal(each, largest[0]) for each in largest), "the noise is that of one draw"
    counts = np.bincount(largest[0], minlength=3)
    chi_square = np.sum((counts - 3000 * p) ** 2 / (3000 * p))
    assert chi_square < 13.8  # two degrees of freedom: 1 in 1000
    parts = [y.max(-1).mean() for y in samples.values()]
    assert parts == sorted(parts)
    assert f"| T = 0.1 | {counts[0]} | {counts[1]} | {counts[2]} |" in capsys.readouterr().out


# --- the categorical VAE


@pytest.fixture(scope="module")
def vae():
    torch = pytest.importorskip("torch", reason="without torch")
    threads = torch.get_num_threads()
    module = example("categorical_vae")
    module.one_thread()
    yield module
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def results(vae, tmp_path_factory):
    """What the script gives, and its table and figure."""
    pytest.importorskip("matplotlib", reason="without matplotlib")
    path = tmp_path_factory.mktemp("vae") / "figure.svg"
    runs, spreads = vae.main(["--quick", "--figure", str(path)])
    return runs, spreads, vae.table(runs, spreads), path


def test_the_bound_falls_for_every_estimator(vae, results):
    assert list(results[0]) == [*vae.METHODS, *vae.RELAXED]
    runs = [run for each in results[0].values() for run in each]
    assert len({run.bounds[0] for run in runs}) == 1, "all start with the same parameters"
    for run in runs:
        assert run.bounds[-1] < run.bounds[0] - 10
        assert run.steps == [0, 20, 40]
        assert run.seconds == sorted(run.seconds)
    # no estimator is astray: the first steps are the decoder's, nearly
    assert np.ptp([run.bounds[-1] for run in runs]) < 1


def test_variances(vae, results):
    spreads = results[1]
    assert {name for name, _ in spreads} == set(vae.METHODS)
    assert all(np.isfinite([s.variance, s.distance, s.noise]).all() and s.variance > 0 for s in spreads.values())
    for temperature in (1.0, 0.5):
        # certain: the one is a conditional mean of the other, by ten samples
        assert spreads["gumbel_rao", temperature].variance < spreads["straight_through", temperature].variance
    assert spreads["straight_through", 1.0].variance < spreads["straight_through", 0.5].variance
    assert spreads["gumbel_softmax", 1.0].variance < spreads["gumbel_softmax", 0.5].variance
    assert spreads["straight_through", 1.0].variance < spreads["score_function", 1.0].variance
    for key in (("score_function", 1.0), ("rebar", 1.0), ("rebar", 0.5)):
        assert spreads[key].distance < 1.3 * spreads[key].noise, "unbiased"


def test_table_and_figure(vae, results):
    _, _, table, path = results
    lines = table.splitlines()
    assert len(lines) == 2 + len(vae.METHODS) + len(vae.RELAXED)
    assert len({line.count("|") for line in lines}) == 1
    assert path.stat().st_size < 300_000


def test_the_decoder_gets_the_gradient_of_the_mean_over_samples(vae):
    """Of the first calls of f alone: the same as by autograd at the same one-hot samples."""
    import torch

    import numbel

    images = vae.load()[0][:10]
    for name, method in vae.METHODS.items():
        if name == "gumbel_softmax":
            continue
        model = vae.Model(3)
        vae.backward(model, images, 1.0, numbel.Generator(5, draw=0), method)
        found = [parameter.grad.clone() for parameter in model.decoder.parameters()]
        logits = model.encoder(images).detach().numpy()
        rng = numbel.Generator(5, draw=0)
        drawn = [torch.from_numpy(rng.gumbel_softmax(logits, hard=True)) for _ in range(method.samples)]
        loss = sum(model.reconstruction(d, images).mean() for d in drawn) / method.samples
        expected = torch.autograd.grad(loss, list(model.decoder.parameters()))
        for one, other in zip(found, expected, strict=True):
            torch.testing.assert_close(one, other)


def test_the_reference_is_the_exact_gradient(vae, monkeypatch):
    """With two variables of three categories, all nine values can be visited."""
    import torch

    monkeypatch.setattr(vae, "LATENTS", 2)
    monkeypatch.setattr(vae, "CATEGORIES", 3)
    model, x = vae.Model(1), vae.load()[0][:4]
    logits = model.encoder(x).detach().requires_grad_()
    p = torch.softmax(logits, -1)
    eye = torch.eye(3)
    mean = sum(
        p[:, 0, i] * p[:, 1, j] * model.reconstruction(torch.stack([eye[i], eye[j]]).expand(4, 2, 3), x)
        for i in range(3)
        for j in range(3)
    )
    (exact,) = torch.autograd.grad(mean.sum(), logits)
    found, variance, count = vae.moments(vae.nearly_exact(model, x, 400))
    assert vae.length(found - exact) < 2 * np.sqrt(variance / count)
    assert vae.length(exact) > 20 * np.sqrt(variance / count)


# --- the page that shows them


def test_code_on_the_page_is_the_script_s():
    """```py blocks are shown, not run: each is a piece of a script, to the letter."""
    blocks = re.findall(r"^```py\n(.*?)^```$", (ROOT / "docs" / "gradients.md").read_text(), re.MULTILINE | re.DOTALL)
    scripts = [path.read_text() for path in (ROOT / "examples").glob("*.py")]
    assert len(blocks) >= 3
    for block in blocks:
        assert any(block in script for script in scripts), block


def test_figures_of_the_docs_are_small():
    for path in (ROOT / "docs" / "figures").iterdir():
        assert path.stat().st_size < 300_000, path.name
