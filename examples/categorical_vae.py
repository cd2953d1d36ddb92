"""A categorical VAE on scikit-learn's digits, trained with each gradient estimator of `numbel.estimators`.

As in Jang, Gu and Poole (2017): an encoder gives the logits of 8 latent variables of 10 categories, a decoder the
probabilities of 64 binary pixels, the prior is uniform. The reconstruction is differentiated through the samples by
the estimator, the KL divergence exactly. Compared are the bound on held-out images, against steps and seconds, and
the variance and bias of each gradient at the same parameters.

    python -m pip install ".[examples]"         # numbel, torch, scikit-learn, matplotlib
    python examples/categorical_vae.py          # some minutes on 2 cores
    python examples/categorical_vae.py --quick  # some seconds
"""

from __future__ import annotations

import argparse
import itertools
import math
import platform
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numba
import numpy as np
import torch
import torch.nn.functional as F
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split

import numbel
import numbel.torch
from numbel import estimators

LATENTS, CATEGORIES, HIDDEN, BATCH = 8, 10, 128, 100


@dataclass(frozen=True)
class Method:
    """An estimator as it is used here."""

    estimate: Callable[..., numbel.Gradient]
    samples: int = 1  # per image and step
    calls: int = 1  # of f for each sample; the first is where the decoder learns
    coldest: float = 0.5  # temperature


METHODS = {
    "gumbel_softmax": Method(estimators.gumbel_softmax),
    "straight_through": Method(estimators.straight_through),
    "gumbel_rao": Method(estimators.gumbel_rao),
    "reinmax": Method(estimators.reinmax, coldest=1.0),
    "score_function": Method(estimators.score_function, samples=4, coldest=1.0),
    "rebar": Method(estimators.rebar, calls=3),
}
#: Relaxed samples within torch's automatic differentiation.
RELAXED = {"numbel.torch": numbel.torch.gumbel_softmax, "F.gumbel_softmax": F.gumbel_softmax}


class Model(torch.nn.Module):
    """Encoder to logits of shape (images, LATENTS, CATEGORIES), decoder to logits of the pixels."""

    def __init__(self, seed: int) -> None:
        super().__init__()
        torch.manual_seed(seed)
        size = LATENTS * CATEGORIES
        self.encoder = torch.nn.Sequential(
            torch.nn.Linear(64, HIDDEN),
            torch.nn.ReLU(),
            torch.nn.Linear(HIDDEN, size),
            torch.nn.Unflatten(1, (LATENTS, CATEGORIES)),
        )
        self.decoder = torch.nn.Sequential(
            torch.nn.Flatten(1), torch.nn.Linear(size, HIDDEN), torch.nn.ReLU(), torch.nn.Linear(HIDDEN, 64)
        )

    def reconstruction(self, d: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
        """-log p(x | d) of each image."""
        return F.binary_cross_entropy_with_logits(self.decoder(d), x, reduction="none").sum(1)


def divergence(logits: torch.Tensor) -> torch.Tensor:
    """KL of each image's latent distribution from the uniform prior."""
    log_p = F.log_softmax(logits, -1)
    return (log_p.exp() * log_p).sum((1, 2)) + LATENTS * math.log(CATEGORIES)


# --- a training step


def make_f(model: Model, x: torch.Tensor, method: Method, learn: bool = True) -> Callable[[Any], tuple[Any, Any]]:
    """The reconstruction and its derivative in d, as the estimators take them, in NumPy arrays.

    At the first call of each sample, the decoder's parameters collect their gradients.
    """
    count = itertools.count()
    decoder = list(model.decoder.parameters())

    def f(d: Any) -> tuple[Any, Any]:
        first = next(count) % method.calls == 0
        d = torch.from_numpy(d).requires_grad_()  # the same memory
        loss = model.reconstruction(d, x) / len(x)
        loss.sum().backward(inputs=[d, *decoder] if learn and first else [d])
        return loss.detach().numpy(), d.grad.numpy()

    return f


def backward(model: Model, x: torch.Tensor, temperature: float, rng: numbel.Generator, method: Method) -> None:
    """Gradients of the mean bound for all parameters, those of the encoder through an estimator of numbel."""
    logits = model.encoder(x)
    found = method.estimate(
        make_f(model, x, method), logits.detach().numpy(), rng, num_samples=method.samples, temperature=temperature
    )
    for parameter in model.decoder.parameters():
        parameter.grad /= method.samples
    torch.autograd.backward([logits, divergence(logits).mean()], [torch.from_numpy(found.gradient), None])


def torch_backward(model: Model, x: torch.Tensor, temperature: float, relax: Callable[..., torch.Tensor]) -> None:
    """The same by torch's automatic differentiation, through a relaxed sample."""
    logits = model.encoder(x)
    y = relax(logits, temperature)
    (model.reconstruction(y, x) + divergence(logits)).mean().backward()


def annealed(step: int, steps: int) -> float:
    """The temperature: from 1 down to 0.5 exponentially in the first half, as there in every so many steps."""
    return max(0.5, 2.0 ** -(step // 100 * 100 / (steps / 2)))


# --- training


@dataclass
class Run:
    """A training: the bound on held-out images at some steps, and the seconds spent on training until then."""

    model: Model
    steps: list[int] = field(default_factory=list)
    bounds: list[float] = field(default_factory=list)
    seconds: list[float] = field(default_factory=list)


def load() -> list[torch.Tensor]:
    """Images to train with and held-out ones, their pixels 0 or 1."""
    pixels = (load_digits().data >= 8).astype(np.float32)
    return [torch.from_numpy(part) for part in train_test_split(pixels, test_size=360, random_state=0)]


@torch.no_grad()
def bound(model: Model, x: torch.Tensor, samples: int = 10) -> float:
    """The negative evidence lower bound, in nats per image, by one-hot samples and the closed form of the KL."""
    logits = model.encoder(x)
    rng = numbel.default_rng(1)
    total = divergence(logits)
    for _ in range(samples):
        d = torch.from_numpy(rng.gumbel_softmax(logits.numpy(), hard=True))
        total += model.reconstruction(d, x) / samples
    return total.mean().item()


def train(name: str, data: Sequence[torch.Tensor], steps: int, seed: int = 0, every: int = 100) -> Run:
    """Train with one estimator; the initial parameters and the images of each step depend on the seed alone."""
    images, held_out = data
    run = Run(Model(seed))
    optimiser = torch.optim.Adam(run.model.parameters(), lr=3e-3)
    method = METHODS.get(name)
    order, rng = np.random.default_rng(seed), numbel.default_rng(seed)
    torch.manual_seed(seed)
    spent = 0.0
    for step in range(steps + 1):
        if step % every == 0 or step == steps:
            run.steps.append(step)
            run.bounds.append(bound(run.model, held_out))
            run.seconds.append(spent)
        if step == steps:
            return run
        x = images[order.integers(len(images), size=BATCH)]
        temperature = annealed(step, steps)
        start = time.process_time()
        optimiser.zero_grad()
        if method is None:
            torch_backward(run.model, x, temperature, RELAXED[name])
        else:
            backward(run.model, x, max(temperature, method.coldest), rng, method)
        optimiser.step()
        spent += time.process_time() - start


# --- variance and bias


def draws(
    model: Model, x: torch.Tensor, temperature: float, method: Method, count: int, seed: int = 0
) -> Iterator[torch.Tensor]:
    """Gradients in the encoder's logits, again and again at the same parameters, in nats for each image."""
    rng = numbel.default_rng(seed)
    f = make_f(model, x, method, learn=False)
    logits = model.encoder(x).detach().numpy()
    for _ in range(count):
        found = method.estimate(f, logits, rng, num_samples=method.samples, temperature=temperature)
        yield torch.from_numpy(found.gradient * len(x))


@torch.no_grad()
def nearly_exact(model: Model, x: torch.Tensor, count: int, seed: int = 0) -> Iterator[torch.Tensor]:
    """Unbiased gradients of little variance: each latent variable summed out, the others sampled.

    For 80 decodings of each image; Titsias and Lazaro-Gredilla (2015), "Local Expectation Gradients".
    """
    rng = numbel.default_rng(seed)
    logits = model.encoder(x)
    p = F.softmax(logits, -1)
    latent = torch.arange(LATENTS)
    repeated = x[:, None].expand(-1, LATENTS * CATEGORIES, -1).reshape(-1, 64)
    for _ in range(count):
        d = torch.from_numpy(rng.gumbel_softmax(logits.numpy(), hard=True))
        every = d[:, None, None].repeat(1, LATENTS, CATEGORIES, 1, 1)
        every[:, latent, :, latent] = torch.eye(CATEGORIES)
        loss = model.reconstruction(every.reshape(-1, LATENTS, CATEGORIES), repeated).reshape(p.shape)
        yield p * (loss - (p * loss).sum(-1, keepdim=True))


def moments(gradients: Iterator[torch.Tensor]) -> tuple[torch.Tensor, float, int]:
    """The mean, the trace of the covariance for one image (the mean over images), and how many there were."""
    total, square, count = torch.zeros(1, dtype=torch.float64), 0.0, 0
    for gradient in gradients:
        total = total + gradient
        square += gradient.double().square().sum().item() / len(gradient)
        count += 1
    mean = total / count
    return mean, (square - count * length(mean) ** 2) / (count - 1), count


def length(gradient: torch.Tensor) -> float:
    """Root mean square over images of the norm of an image's gradient."""
    return math.sqrt(gradient.double().square().sum().item() / len(gradient))


@dataclass
class Spread:
    """Variance of a gradient; distance of its mean from the reference, and what distance noise alone would give."""

    variance: float
    distance: float
    noise: float


def measure(model: Model, x: torch.Tensor, count: int) -> dict[tuple[str, float], Spread]:
    """Variance and bias of each estimator at temperatures 1 and 0.5; distances are shares of the gradient's norm."""
    exact, variance, number = moments(nearly_exact(model, x, max(10, count // 4)))
    error = variance / number
    norm = math.sqrt(max(length(exact) ** 2 - error, 1e-30))
    result = {}
    for name, method in METHODS.items():
        for temperature in sorted({1.0, method.coldest}):
            mean, variance, number = moments(draws(model, x, temperature, method, count))
            noise = math.sqrt(error + variance / number)
            result[name, temperature] = Spread(variance, length(mean - exact) / norm, noise / norm)
    return result


# --- results


def table(runs: dict[str, list[Run]], spreads: dict[tuple[str, float], Spread]) -> str:
    """All results in Markdown."""
    lines = [
        "| estimator | bound, nats (of all seeds) | ms a step | variance, T = 1 | T = 0.5 | bias, T = 1 | T = 0.5 |",
        "| --- | --- | --- | --- | --- | --- | --- |",
    ]
    for name, each in runs.items():
        last = [run.bounds[-1] for run in each]
        step = min(run.seconds[-1] / run.steps[-1] for run in each)
        found = [spreads.get((name, temperature)) for temperature in (1.0, 0.5)]
        cells = [f"{np.mean(last):.2f} ({min(last):.2f} to {max(last):.2f})", f"{1000 * step:.1f}"]
        cells += [f"{spread.variance:.3g}" if spread else "" for spread in found]
        cells += [f"{spread.distance:.1%} ({spread.noise:.1%})" if spread else "" for spread in found]
        lines.append(f"| `{name}` | {' | '.join(cells)} |")
    return "\n".join(lines)


COLOURS = {
    "numbel.torch": "#000000",
    "F.gumbel_softmax": "#888888",
    "gumbel_softmax": "#0072B2",
    "straight_through": "#E69F00",
    "gumbel_rao": "#009E73",
    "reinmax": "#CC79A7",
    "score_function": "#D55E00",
    "rebar": "#56B4E9",
}


def plot(runs: dict[str, list[Run]], spreads: dict[tuple[str, float], Spread], path: str) -> None:
    """The bound against steps and seconds, and the variances."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    style = {"font.size": 9, "axes.spines.top": False, "axes.spines.right": False, "svg.hashsalt": "numbel"}
    with plt.rc_context(style | {"axes.grid": True, "grid.color": "#e6e6e6", "axes.axisbelow": True}):
        figure, (steps, seconds, dots) = plt.subplots(1, 3, figsize=(11, 3.8), layout="constrained")
        for name, each in runs.items():
            bounds = np.mean([run.bounds for run in each], 0)
            look = {"color": COLOURS[name], "lw": 1.4, "ls": "--" if name in RELAXED else "-", "label": name}
            steps.plot(each[0].steps, bounds, **look)
            seconds.plot(np.min([run.seconds for run in each], 0), bounds, **look)
        every = np.array([run.bounds for each in runs.values() for run in each])
        low, high = every.min(), every[:, min(2, every.shape[1] - 1)].max()
        for axes in (steps, seconds):
            axes.set_ylim(low - 0.3, high + 1)
            axes.set_ylabel("negative bound, nats per held-out image")
        steps.set_xlabel("steps")
        seconds.set_xlabel("seconds of processor time")
        steps.legend(frameon=False, fontsize=8)
        for at, name in enumerate(METHODS):
            found = {t: spread.variance for (other, t), spread in spreads.items() if other == name}
            dots.plot(list(found.values()), [at] * len(found), color=COLOURS[name], lw=1.4)
            for temperature, variance in found.items():
                fill = COLOURS[name] if temperature == 1 else "white"
                dots.plot(variance, at, "o", ms=7, mew=1.6, mec=COLOURS[name], mfc=fill)
        dots.plot([], [], "o", ms=7, mew=1.6, c="#555555", label="T = 1, or none")
        dots.plot([], [], "o", ms=7, mew=1.6, c="#555555", mfc="white", label="T = 0.5")
        dots.legend(frameon=False, fontsize=8)
        dots.set_yticks(range(len(METHODS)), list(METHODS))
        dots.tick_params(axis="y", length=0)
        dots.invert_yaxis()
        dots.set_xscale("log")
        dots.margins(x=0.1, y=0.1)
        dots.set_xlabel("variance of an image's gradient")
        figure.savefig(path, metadata={"Date": None} if path.endswith(".svg") else None)
        plt.close(figure)


def one_thread() -> None:
    """Keep torch on one thread: arrays are small here, and two only wait for each other."""
    numba.get_num_threads()  # first: as Numba's OpenMP starts, it sets torch's number of threads
    torch.set_num_threads(1)


def main(arguments: Sequence[str] | None = None) -> tuple[dict[str, list[Run]], dict[tuple[str, float], Spread]]:
    """Train with all, measure all, print the table and save the figure."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="one seed, few steps and draws")
    parser.add_argument("--seeds", type=int, help="trainings with each estimator")
    parser.add_argument("--steps", type=int, help="of each training")
    parser.add_argument("--draws", type=int, help="of each gradient whose variance is measured")
    parser.add_argument("--figure", default="categorical_vae.svg", help="where to save it (.svg or .png)")
    options = parser.parse_args(arguments)
    seeds = options.seeds or (1 if options.quick else 3)
    steps = options.steps or (40 if options.quick else 1000)
    count = options.draws or (40 if options.quick else 600)
    one_thread()
    data = load()
    started = time.perf_counter()
    print(f"numbel {numbel.__version__}, torch {torch.__version__}, numpy {np.__version__}, {platform.machine()}")

    for name in [*METHODS, *RELAXED]:  # compile, before anything is timed
        train(name, data, 1)
    runs: dict[str, list[Run]] = {}
    for name in [*METHODS, *RELAXED]:
        runs[name] = [train(name, data, steps, seed, every=max(20, steps // 25)) for seed in range(seeds)]
        print(f"{name:17} {[round(run.bounds[-1], 2) for run in runs[name]]} nats", flush=True)

    # half trained, without bias: gradients are neither those of chance nor nearly gone
    model = train("rebar", data, steps // 2, every=steps).model
    spreads = measure(model, data[0][:BATCH], count)

    print(table(runs, spreads))
    plot(runs, spreads, options.figure)
    print(f"{options.figure}; {time.perf_counter() - started:.0f} s in all")
    return runs, spreads


if __name__ == "__main__":
    main()
