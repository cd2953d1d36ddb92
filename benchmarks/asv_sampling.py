from .common import Work, bench

_SAMPLES = [
    "sample 64 x 2^20 float32",
    "categorical 64 x 2^20 float32",
    "categorical 1 x 2^26 float32",
    "categorical 64 x 2^20 bfloat16",
    "categorical 64 x 2^20 float16",
    "gumbel_max 64 x 2^20 float32",
    "categorical 2^20 x 8 float32",
    "categorical 65536 x 128 float32",
    "categorical 256 x 2^17 float32",
    "sample 1 x 1000 float32",
]
_RELAXED = [
    f"{task} {shape} float32"
    for task in ("gumbel_softmax", "gumbel_softmax and gradient")
    for shape in ("64 x 2^20", "65536 x 128", "2^20 x 8")
]
_NOISE = ["gumbel 1 x 2^26 float32", "gumbel 1 x 2^26 float64"]


class Categorical(Work):
    params = (
        _SAMPLES,
        ["numbel", "numpy exp + cumsum + searchsorted", "torch softmax + cumsum + searchsorted", "jax categorical"],
    )
    param_names = ("work", "library")

    def setup(self, work: str, library: str) -> None:
        self.prepare(work, library)

    def track_rate(self, work: str, library: str) -> float:
        return self.rate()

    track_rate.unit = "values/s"  # type: ignore[attr-defined]


class TopK(Work):
    params = (
        [f"gumbel_top_k {work} float32" for work in ("100 64 x 2^20", "65536 64 x 2^17", "10 65536 x 128")],
        ["numbel", "torch multinomial(replacement=False)", "jax choice(replace=False)"],
    )
    param_names = ("work", "library")

    def setup(self, work: str, library: str) -> None:
        self.prepare(work, library)

    def track_rate(self, work: str, library: str) -> float:
        return self.rate()

    track_rate.unit = "values/s"  # type: ignore[attr-defined]


class Memory(Work):
    params = ("sample 64 x 2^20 float32", "gumbel_max 64 x 2^20 float32", *_NOISE, *_RELAXED)
    param_names = ("work",)

    def setup(self, work: str) -> None:
        self.prepare(work)

    def peakmem_call(self, work: str) -> None:
        self.call()

    def peakmem_input(self, work: str) -> None:
        """What setup alone takes: the base of `peakmem_call`."""


class Gumbel(Work):
    params = (_NOISE, ["numbel", "numpy gumbel, float64", "torch -log(exponential)", "jax gumbel"])
    param_names = ("work", "library")

    def setup(self, work: str, library: str) -> None:
        self.prepare(work, library)

    def track_rate(self, work: str, library: str) -> float:
        return self.rate()

    track_rate.unit = "values/s"  # type: ignore[attr-defined]


class Relaxed(Work):
    params = (_RELAXED, ["numbel", "numbel.torch", "numbel.jax", "torch gumbel_softmax", "jax softmax(x + gumbel)"])
    param_names = ("work", "library")

    def setup(self, work: str, library: str) -> None:
        self.prepare(work, library)

    def track_rate(self, work: str, library: str) -> float:
        return self.rate()

    track_rate.unit = "values/s"  # type: ignore[attr-defined]


class Fraction(Work):
    """Ratios within one process: they hold when the machine as a whole is slower today."""

    params = _SAMPLES[:6]
    param_names = ("work",)

    def track_of_read(self, work: str) -> float:
        return _fraction(work, "read")

    track_of_read.unit = "fraction of a plain read"  # type: ignore[attr-defined]


class Call(Work):
    """One call of ours, in seconds."""

    params = (*_SAMPLES, *_NOISE, *_RELAXED)
    param_names = ("work",)

    def setup(self, work: str) -> None:
        self.prepare(work)

    def time_call(self, work: str) -> None:
        self.call()


class FractionOfPhilox(Work):
    params = ("gumbel_max 64 x 2^20 float32", *_NOISE, *_RELAXED[:3])
    param_names = ("work",)

    def track_of_philox(self, work: str) -> float:
        return _fraction(work, "philox")

    track_of_philox.unit = "fraction of the Philox rate"  # type: ignore[attr-defined]


def _fraction(work: str, limit: str) -> float:
    rates = bench.measure(work, ["numbel", limit])
    return float(bench.ratio(rates, limit))
