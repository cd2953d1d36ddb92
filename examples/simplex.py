"""Relaxed samples on the simplex as the temperature falls, for an image between three digits.

The logits are the scores of a logistic regression on scikit-learn's digits: those of the three likeliest digits for
the held-out image whose third likeliest has the largest probability. Every temperature gets the same noise, so that
each point keeps its colour, the argmax, on its way to a corner; the share of a colour is softmax(logits).

    python -m pip install ".[examples]"  # numbel, scikit-learn, matplotlib (and torch, for the other example)
    python examples/simplex.py           # some seconds
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from typing import Any

import numpy as np
from sklearn.datasets import load_digits
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import train_test_split

import numbel

TEMPERATURES = (10.0, 1.0, 0.5, 0.1)


def ambiguous_image() -> tuple[Any, Any, Any]:
    """An image, the three digits that it may be, and their logits."""
    digits = load_digits()
    train_x, test_x, train_y, _ = train_test_split(digits.data / 16, digits.target, random_state=0)
    model = LogisticRegression(max_iter=1000).fit(train_x, train_y)
    ranked = np.sort(model.predict_proba(test_x))
    image = test_x[np.argmax(ranked[:, -3])]
    scores = model.decision_function(image[None])[0]
    likeliest = np.sort(np.argsort(scores)[-3:])
    return image.reshape(8, 8), likeliest, scores[likeliest]


def draw(logits: Any, count: int, seed: int) -> dict[float, Any]:
    """`count` relaxed samples at each temperature, all with the noise of one draw."""
    rows = np.broadcast_to(logits, (count, len(logits)))
    return {t: numbel.Generator(seed, draw=0).gumbel_softmax(rows, t) for t in TEMPERATURES}


def plot(image: Any, digits: Any, samples: dict[float, Any], path: str) -> None:
    """The image, and a triangle for each temperature."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    corners = np.array([[0.0, 0.0], [1.0, 0.0], [0.5, np.sqrt(0.75)]])
    colours = np.array(["#0072B2", "#E69F00", "#009E73"])
    widths = [0.55] + [1.0] * len(samples)
    figure, (first, *rest) = plt.subplots(1, len(widths), figsize=(11, 2.7), layout="constrained", width_ratios=widths)
    first.imshow(image, cmap="gray_r", interpolation="nearest")
    first.set_axis_off()
    first.set_title("the image", fontsize=10)
    for axes, (temperature, y) in zip(rest, samples.items(), strict=True):
        axes.fill(*corners.T, facecolor="none", edgecolor="#999999", lw=0.8)
        axes.scatter(*(y @ corners).T, s=5, c=colours[y.argmax(-1)], alpha=0.35, lw=0, clip_on=False)
        for corner, digit, colour, place in zip(corners, digits, colours, ((-9, -9), (9, -9), (0, 8)), strict=True):
            axes.annotate(
                str(digit),
                corner,
                place,
                textcoords="offset points",
                ha="center",
                va="center",
                color=colour,
                weight="bold",
            )
        axes.set_aspect("equal")
        axes.set_axis_off()
        axes.set_xlim(-0.12, 1.12)
        axes.set_ylim(-0.14, 1.0)
        axes.set_title(f"T = {temperature:g}", fontsize=10)
    figure.savefig(path, dpi=160)
    plt.close(figure)


def main(arguments: Sequence[str] | None = None) -> tuple[Any, dict[float, Any]]:
    """Draw, print the counts and save the figure."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=3000, help="samples at each temperature")
    parser.add_argument("--seed", type=int, default=2026)
    parser.add_argument("--figure", default="simplex.png", help="where to save it")
    options = parser.parse_args(arguments)
    image, digits, logits = ambiguous_image()
    p = np.exp(logits) / np.exp(logits).sum()
    samples = draw(logits, options.count, options.seed)

    print("| " + " | ".join(["", *(f"digit {digit}" for digit in digits), "mean largest part"]) + " |")
    print("| --- | --- | --- | --- | --- |")
    print("| expected | " + " | ".join(f"{options.count * share:.0f}" for share in p) + " | |")
    for temperature, y in samples.items():
        counts = np.bincount(y.argmax(-1), minlength=3)
        print(f"| T = {temperature:g} | " + " | ".join(map(str, counts)) + f" | {y.max(-1).mean():.3f} |")
    plot(image, digits, samples, options.figure)
    return p, samples


if __name__ == "__main__":
    main()
