"""What comes back, as type checkers see it: checked by tests/test_types.py in mypy and pyright, and run there."""

from typing import Any, assert_type

import numpy as np
from numpy.typing import NDArray

import numbel

rng = numbel.default_rng(5)
rng = numbel.default_rng([1, 2])
rng = numbel.default_rng(np.array([1, 2]))
rng = numbel.default_rng(np.int64(5))
vector = np.zeros(3)
matrix = np.zeros((2, 3), np.float32)
half = np.zeros((2, 3), np.float16)
cube = np.zeros((2, 3, 4))


def unknown(x: NDArray[np.float32]) -> None:
    """Of an array of unknown rank the result may be a scalar or an array, as of NumPy's argmax."""
    assert_type(rng.categorical(x), Any)
    assert_type(rng.categorical(x, axis=0, temperature=0.5, top_k=3, method="gumbel_max"), Any)
    assert_type(rng.categorical(x, 4), NDArray[np.int64])
    assert_type(rng.sample(x), numbel.Sample[Any, Any, Any])
    assert_type(rng.sample(x, 4), numbel.Sample[NDArray[np.int64], NDArray[np.float32], Any])
    assert_type(rng.gumbel_top_k(x, 2), numbel.TopK[NDArray[np.int64], NDArray[np.float64], Any, Any])
    assert_type(numbel.entropy(x), Any)
    assert_type(numbel.logsumexp(x), Any)
    assert_type(numbel.logsumexp(x, axis=None), np.float32)
    assert_type(numbel.logsumexp(x, keepdims=True), NDArray[np.float32])
    assert_type(rng.gumbel_softmax(x), NDArray[np.float32])


# a program that is right must not be refused: indices of rows index
rows: NDArray[np.int64] = rng.categorical(matrix, axis=-1)
some: NDArray[np.float32] = np.zeros((4, 3), np.float32)
picked = some[np.arange(4), rng.categorical(some)]
untyped: Any = matrix
anything: int = rng.categorical(untyped).size

# one row
assert_type(rng.categorical(vector), np.int64)
assert_type(rng.categorical(vector, temperature=0.5, top_p=0.9), np.int64)
assert_type(rng.categorical(vector, 4), NDArray[np.int64])
assert_type(rng.categorical(vector, offsets=[0, 1, 3]), NDArray[np.int64])
assert_type(rng.sample(vector), numbel.Sample[np.int64, np.float64, np.float64])
assert_type(rng.sample(vector).indices, np.int64)
assert_type(rng.sample(vector, 4), numbel.Sample[NDArray[np.int64], NDArray[np.float64], np.float64])
assert_type(rng.gumbel_top_k(vector, 2).threshold, np.float64)
assert_type(rng.gumbel_top_k(vector, 2).indices, NDArray[np.int64])
assert_type(numbel.entropy(vector), np.float64)
assert_type(numbel.logsumexp(vector), np.float64)
assert_type(numbel.logsumexp(vector.astype(np.float32)), np.float32)
assert_type(numbel.log_prob(vector, 1), np.float64)
assert_type(numbel.log_prob(vector, [1, 2]), NDArray[np.float64])

# rows
assert_type(rng.categorical(matrix), NDArray[np.int64])
assert_type(rng.categorical(cube), NDArray[np.int64])
assert_type(rng.categorical(half), NDArray[np.int64])
assert_type(rng.categorical(matrix, 4), NDArray[np.int64])
assert_type(rng.categorical(matrix, out=np.zeros(2, np.int64)), NDArray[np.int64])
assert_type(rng.sample(matrix), numbel.Sample[NDArray[np.int64], NDArray[np.float32], NDArray[np.float32]])
assert_type(rng.sample(cube).log_prob, NDArray[np.float64])
assert_type(rng.sample(matrix, 4).logsumexp, NDArray[np.float32])
assert_type(rng.gumbel_top_k(matrix, 2).perturbed, NDArray[np.float64])
assert_type(rng.gumbel_top_k(matrix, 2).log_prob, NDArray[np.float32])
assert_type(rng.gumbel_top_k(matrix, 2).threshold, NDArray[np.float64])
assert_type(numbel.entropy(matrix), NDArray[np.float32])
assert_type(numbel.logsumexp(cube), NDArray[np.float64])
assert_type(numbel.logsumexp(cube, axis=None), np.float64)
assert_type(numbel.log_prob(matrix, [0, 1]), NDArray[np.float32])
assert_type(rng.gumbel_softmax(matrix), np.ndarray[tuple[int, int], np.dtype[np.float32]])
assert_type(rng.multinomial(5, matrix), np.ndarray[tuple[int, int], np.dtype[np.int64]])
assert_type(rng.conditional_gumbel(matrix, [0, 1]), np.ndarray[tuple[int, int], np.dtype[np.float32]])
assert_type(
    numbel.gumbel_softmax_vjp(matrix, matrix, 0.5),
    tuple[np.ndarray[tuple[int, int], np.dtype[np.float32]], np.float64],
)

# noise
assert_type(rng.gumbel(), np.float32)
assert_type(rng.gumbel(dtype=np.float64), np.float64)
assert_type(rng.gumbel(size=3), NDArray[np.float32])
assert_type(rng.gumbel(0.0, 1.0, (2, 3)), NDArray[np.float32])
assert_type(rng.gumbel(size=(2, 3), dtype=np.float64), NDArray[np.float64])
assert_type(rng.gumbel(out=np.zeros((2, 3), np.float32)), np.ndarray[tuple[int, int], np.dtype[np.float32]])

# tables
table = numbel.CategoricalTable(vector)
assert_type(table.sample(rng), np.int64)
assert_type(table.sample(rng, 5), NDArray[np.int64])
assert_type(table.sample(rng, (2, 5)), NDArray[np.int64])
assert_type(table.logsumexp, np.float64)


def bare(table: numbel.CategoricalTable, sample: numbel.Sample, top: numbel.TopK) -> None:
    """Names without parameters stay names of types, in strict mode, too."""
    assert_type(table.sample(rng, 5), NDArray[np.int64])
    assert_type(sample.indices, Any)
    assert_type(top.threshold, Any)


class OnDevice:
    """An array that may lie on a CUDA device."""

    @property
    def __cuda_array_interface__(self) -> dict[str, Any]:
        """The protocol."""
        return {}


def elsewhere(x: OnDevice) -> None:
    """Another library's arrays come back."""
    assert_type(rng.categorical(x), Any)
    assert_type(rng.categorical(x, 3), Any)
    assert_type(rng.sample(x).indices, Any)
    assert_type(rng.gumbel_softmax(x), Any)
    assert_type(numbel.entropy(x), Any)
    assert_type(numbel.CategoricalTable(x).sample(rng, 3), Any)


unknown(matrix)
bare(table, rng.sample(vector), rng.gumbel_top_k(vector, 2))
