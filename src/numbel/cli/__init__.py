"""The command line: files in, files out, and a built-in check of the sampler."""

from __future__ import annotations

import contextlib
import importlib.util
import itertools
import math
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from importlib import metadata
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import rich.console
import rich.table
import typer
from rich import progress

from .. import __version__, _early, _info
from .._arguments import checks
from .._arguments.requests import RowOptions, SampleOptions
from .._host import methods
from .._host import warmup as _warmup
from .._machine_code import kernel_cache
from ..generator import Generator, default_rng
from ..results import Sample
from . import _files, _zipf

Array = np.ndarray[Any, Any]

#: Work of more categories than this has a progress bar.
LONG = 1 << 28
#: Indices that are printed where no output file is named.
_PRINTED = 20
#: The file of a map that names none.
_MAP = "numbel-map.json"
#: Elements on a GPU at a time: 1 GB of float32.
_ON_DEVICE = 1 << 28
_EXTRAS = ("typer", "rich", "matplotlib", "ml_dtypes", "torch", "jax", "dask")

app = typer.Typer(
    add_completion=False,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    help=__doc__,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"numbel {__version__}")
        raise typer.Exit


@app.callback(help=__doc__)
def _options(
    version: Annotated[
        bool, typer.Option("--version", help="Print the version and exit.", callback=_version, is_eager=True)
    ] = False,
) -> None:
    pass


Seed = Annotated[int | None, typer.Option(help="Seed; without it a random one, which is printed.")]
Draw = Annotated[int, typer.Option(help="Draw id: repeats any call of a Generator of this seed.")]
Out = Annotated[Path | None, typer.Option("-o", "--out", help="Where to write the result, a .npy file.")]


@contextlib.contextmanager
def _one_line() -> Iterator[None]:
    """Turn what the user can cause into one line on stderr and an exit code."""
    try:
        with _signals():
            yield
    except KeyboardInterrupt:
        typer.echo("numbel: interrupted, nothing was written", err=True)
        raise typer.Exit(130) from None
    except typer.Exit:  # a RuntimeError
        raise
    except (ValueError, TypeError, OverflowError, OSError, MemoryError, RuntimeError) as error:
        named = isinstance(error, OSError) and error.filename is not None
        text = f"{error.filename}: {error.strerror}" if isinstance(error, OSError) and named else str(error)
        typer.echo(f"numbel: {' '.join(text.split()) or type(error).__name__}", err=True)
        raise typer.Exit(2) from None


@contextlib.contextmanager
def _signals() -> Iterator[None]:
    """Have SIGINT and SIGTERM unwind what is under way; before and after, there is nothing to be unwound."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {}
    if signal.getsignal(signal.SIGINT) is _early.leave:
        before[signal.SIGINT] = signal.signal(signal.SIGINT, signal.default_int_handler)
    if signal.getsignal(signal.SIGTERM) is signal.SIG_DFL:
        before[signal.SIGTERM] = signal.signal(signal.SIGTERM, _terminate)
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _terminate(*_: Any) -> None:
    sys.exit(128 + signal.SIGTERM)


class _Throughput(progress.ProgressColumn):
    def render(self, task: progress.Task) -> rich.console.RenderableType:
        """Categories a second."""
        return f"{(task.finished_speed or task.speed or 0) / 1e9:.2f} G categories/s"


@contextlib.contextmanager
def _progress(what: str, size: int, known: bool) -> Iterator[Callable[[int], None] | None]:
    """Yield a callback that moves a bar on stderr, or None where the work is short."""
    if size <= LONG:
        yield None
        return
    columns = (progress.TextColumn("{task.description}"), progress.BarColumn(), progress.TaskProgressColumn())
    console = rich.console.Console(stderr=True)
    with progress.Progress(*columns, _Throughput(), progress.TimeElapsedColumn(), console=console) as bar:
        task = bar.add_task(what, total=size if known else None)
        yield lambda done: bar.advance(task, done)


def _named(*paths: Path | None, suffix: str = ".npy", what: str = "results are .npy files") -> None:
    """Refuse names that promise another format."""
    for path in paths:
        if path is not None and path.suffix not in ("", suffix):
            raise ValueError(f"{path}: {what}: name it {path.with_suffix(suffix).name}")


def _generator(seed: int | None, draw: int) -> Generator:
    return Generator(default_rng(seed).seed, draw)


# the list of commands cuts a text that does not fit into one line
@app.command(short_help="Sample the rows of a file of logits.")
def sample(
    file: Annotated[
        Path | None, typer.Argument(help=".npy, .npz or raw file of logits; none: a Zipf law, with a check of fit.")
    ] = None,
    num_samples: Annotated[int | None, typer.Option(min=0, help="Samples of each row [default law: 20000].")] = None,
    temperature: Annotated[float, typer.Option(help="Divides the logits; 0 takes the argmax.")] = 1.0,
    top_k: Annotated[int | None, typer.Option(help="Keep the k largest of each row; 0 and -1 keep all.")] = None,
    top_p: Annotated[float | None, typer.Option(help="Keep the largest until they hold this probability.")] = None,
    min_p: Annotated[float | None, typer.Option(help="Keep those of this part of the largest probability.")] = None,
    axis: Annotated[int, typer.Option(help="The category axis.")] = -1,
    method: Annotated[str, typer.Option(help="grouped, or gumbel_max (couples with `numbel gumbel`).")] = "grouped",
    seed: Seed = None,
    draw: Draw = 0,
    log_prob: Annotated[Path | None, typer.Option(help="Where to write log-probabilities, a .npy file.")] = None,
    key: Annotated[str | None, typer.Option(help="Which array of an .npz archive.")] = None,
    dtype: Annotated[str | None, typer.Option(help="Element type of a raw file.")] = None,
    columns: Annotated[int | None, typer.Option(help="Categories in each row of a raw file.")] = None,
    out: Out = None,
    plot: Annotated[Path | None, typer.Option(help="Draw observed against expected, a .png file (no FILE).")] = None,
    device: Annotated[str, typer.Option(help="cpu, or cuda: rows are copied there, some at a time.")] = "cpu",
) -> None:
    """Sample the rows of a file of logits, which is mapped, not read: it may be larger than memory."""
    with _one_line():
        rng = _generator(seed, draw)
        _named(out, log_prob)
        _named(plot, suffix=".png", what="the picture is a .png file")
        truncation = (top_k, top_p, min_p)
        if device not in ("cpu", "cuda"):
            raise ValueError(f"--device must be cpu or cuda, got {device}")
        if device == "cuda":
            from .._device import libraries

            libraries.require()
        if file is None:
            if truncation != (None, None, None):
                raise ValueError("--top-k, --top-p and --min-p truncate the rows of a FILE, and none is given")
            given = [n for n, v in (("--key", key), ("--dtype", dtype), ("--columns", columns)) if v is not None]
            if given or axis != -1:
                raise ValueError(f"{(given or ['--axis'])[0]} describes a FILE, and none is given")
            if temperature == 0:
                raise ValueError("--temperature 0 leaves nothing to check in the built-in law: name a FILE")
            _sample_default(
                rng, 20_000 if num_samples is None else num_samples, temperature, method, out, log_prob, plot, device
            )
            return
        if plot is not None:
            raise ValueError("--plot shows the built-in law: leave FILE out")
        array = _files.read_logits(file, axis, key, dtype, columns)
        for path in (out, log_prob):
            if path is not None and path.exists() and path.samefile(file):
                raise ValueError(f"{path} is the input file")
        indices = math.prod(array.shape[:-1]) * (1 if num_samples is None else num_samples)
        if out is None and indices > _PRINTED:
            raise ValueError(f"{indices} indices are too many to print: name a file with -o")
        typer.echo(f"seed {rng.seed}, draw {rng.draw}", err=True)
        options = SampleOptions(num_samples, method, None, truncation, (None, None, None), False)
        result = _sample(rng, array, RowOptions(temperature=temperature), options, (out, log_prob), device)
        if out is None:
            samples = np.reshape(
                result.indices, (math.prod(array.shape[:-1]), 1 if num_samples is None else num_samples)
            )
            for row in samples.tolist():
                typer.echo(" ".join(map(str, row)))


def _sample(
    rng: Generator,
    array: Array,
    rows: RowOptions,
    options: SampleOptions,
    paths: tuple[Path | None, Path | None],
    device: str,
) -> Sample:
    """Sample rows; indices and log-probabilities go to the paths."""
    num_samples = options.num_samples
    shape = array.shape[:-1] if num_samples is None else (*array.shape[:-1], num_samples)
    log_dtype = np.dtype(np.float64 if array.dtype == np.float64 else np.float32)
    # how often many samples pass over the array is the library's affair: such a bar has no end
    bar = _progress("sampling", array.size, num_samples in (None, 1))
    with _files.replacing(*paths) as (beside, beside_log), contextlib.ExitStack() as shown:
        indices = _files.new_array(beside, shape, np.dtype(np.int64))
        logs = _files.new_array(beside_log, shape, log_dtype)
        options = options._replace(out=(indices, logs, None), full=options.full or logs is not None)
        step = shown.enter_context(bar)  # what is refused shows no bar
        if device == "cuda":
            return _sample_on_device(rng, array, rows, options, step)
        return methods.sample(rng._reserve, array, rows, options, step)


def _sample_on_device(
    rng: Generator,
    array: Array,
    given: RowOptions,
    options: SampleOptions,
    step: Callable[[int], None] | None,
) -> Sample:
    """The same on a GPU: parts of the rows are copied there and their samples back, under one draw id."""
    from .._cuda.numba_cuda import to_device

    shape, columns = array.shape[:-1], array.shape[-1]
    num_samples, full, (indices, logs, _) = options.num_samples, options.full, options.out
    rows, many = math.prod(shape), () if num_samples is None else (num_samples,)
    wide = np.float64 if array.dtype == np.float64 else np.float32
    indices = np.empty((*shape, *many), np.int64) if indices is None else indices
    logs = np.empty((*shape, *many), wide) if full and logs is None else logs
    sums = np.empty(shape, wide) if full else None
    others: Any = dict(zip(("top_k", "top_p", "min_p"), options.truncation, strict=True))
    others |= {"temperature": given.temperature, "method": options.method}
    with rng._reserve() as (seed, draw):
        for first in range(0, rows, max(1, _ON_DEVICE // columns)):
            last = min(rows, first + max(1, _ON_DEVICE // columns))
            places = np.unravel_index(np.arange(first, last), shape) if shape else ()
            part = to_device(np.ascontiguousarray(array[places]).reshape(last - first, columns))
            drawn = Generator(seed, draw).sample(part, num_samples, row_ids=np.arange(first, last), **others)
            for result, found in zip((indices, logs, sums), drawn, strict=True):
                if result is not None:
                    result[places] = found.copy_to_host().reshape(result[places].shape)
            bad = np.flatnonzero(indices[places].reshape(last - first, -1)[:, :1] < 0)
            if bad.size:
                checks.invalid_row(array, first + int(bad[0]))
            if step is not None:
                step((last - first) * columns)
    return Sample(indices, logs, sums)


def _sample_default(
    rng: Generator,
    num_samples: int,
    temperature: float,
    method: str,
    out: Path | None,
    log_prob: Path | None,
    plot: Path | None,
    device: str,
) -> None:
    _needs_matplotlib(plot)
    values = _zipf.logits()
    start = f"seed {rng.seed}, draw {rng.draw}"
    with _files.replacing(plot) as (picture,):
        options = SampleOptions(num_samples, method, None, (None, None, None), (None, None, None), True)
        result = _sample(rng, values, RowOptions(temperature=temperature), options, (out, log_prob), device)
        law = _zipf.Law(temperature)
        if picture is not None:
            _zipf.plot(picture, result.indices, law)
    rate = _zipf.throughput(values, temperature, method, device)
    found = _zipf.fit(result.indices, law)
    typer.echo(f"Zipf law over 2^20 categories, float32, temperature {temperature:g}: {num_samples:,} samples, {start}")
    typer.echo(f"throughput  {rate / 1e9:.2f} G categories/s, 64 x 2^20, {_info.config()['threads']} threads")
    typer.echo(f"logsumexp   {result.logsumexp:.7f}; of the harmonic number {law.logsumexp:.7f}")
    table = rich.table.Table("ranks", "observed", "expected", "(o - e) / sqrt e", box=None, pad_edge=False)
    for column in table.columns:
        column.justify = "right"
    cells = zip(itertools.pairwise(found.edges), found.observed, found.expected, strict=True)
    for (first, after), observed, expected in cells:
        off = (observed - expected) / math.sqrt(expected) if expected else 0.0
        table.add_row(f"{first:,} - {after - 1:,}", f"{observed:,}", f"{expected:,.1f}", f"{off:+.2f}")
    rich.console.Console().print(table)
    if found.freedom:
        typer.echo(
            f"G-test      G = {found.statistic:.2f}, {found.freedom} degrees of freedom, p = {found.p_value:.4g}"
        )
    else:
        typer.echo("G-test      none: fewer than two cells expect five samples")


@app.command(short_help="Write or summarise Gumbel noise.")
def gumbel(
    size: Annotated[str, typer.Option(help="Shape, such as 1000000 or 3,4.")] = "1000000",
    loc: Annotated[float, typer.Option(help="Mode of the distribution.")] = 0.0,
    scale: Annotated[float, typer.Option(help="Scale of the distribution, not negative.")] = 1.0,
    dtype: Annotated[str, typer.Option(help="float16, bfloat16, float32 or float64.")] = "float32",
    seed: Seed = None,
    draw: Draw = 0,
    out: Out = None,
) -> None:
    """Write Gumbel noise into a mapped file, or without -o summarise it."""
    with _one_line():
        rng = _generator(seed, draw)
        _named(out)
        kind = checks.float_dtype(dtype)
        try:
            shape = checks.size([int(entry) for entry in size.split(",")])
        except ValueError:
            raise ValueError(f"--size must be integers such as 1000000 or 3,4, got {size}") from None
        typer.echo(f"seed {rng.seed}, draw {rng.draw}", err=True)
        bar = _progress("noise", math.prod(shape), True)
        with _files.replacing(out) as (beside,):
            target = _files.new_array(beside, shape, kind)
            noise = np.empty(shape, kind) if target is None else target
            with bar as step:  # what is refused shows no bar
                methods.gumbel(rng._reserve, loc, scale, None, kind, noise, step)
        if out is None:
            _summarise(noise.reshape(-1), loc, scale)


def _summarise(noise: Array, loc: float, scale: float) -> None:
    """Print moments beside what is due, with the standard error of each."""
    if noise.size == 0:
        raise ValueError("--size has no elements: there is nothing to summarise")
    blocks = range(0, noise.size, 1 << 20)
    mean = math.fsum(float(noise[i : i + (1 << 20)].astype(np.float64).sum()) for i in blocks) / noise.size
    squares = (float(np.sum((noise[i : i + (1 << 20)].astype(np.float64) - mean) ** 2)) for i in blocks)
    variance = math.fsum(squares) / noise.size
    due = scale**2 * math.pi**2 / 6
    lines = (
        ("mean", mean, loc + scale * np.euler_gamma, math.sqrt(due / noise.size)),
        # the fourth central moment of a Gumbel variable is 5.4 times its squared variance
        ("variance", variance, due, due * math.sqrt(4.4 / noise.size)),
    )
    for name, value, expected, error in lines:
        typer.echo(f"{name:<10}{value:.6f}; due {expected:.6f}, standard error {error:.6f}")
    typer.echo(f"{'range':<10}{float(noise.min()):.6f} .. {float(noise.max()):.6f} of {noise.size:,} values")


@app.command(short_help="Print versions, threads and extras.")
def info() -> None:
    """Print versions, threads, where compiled kernels are kept, and which extras are installed."""
    with _one_line():
        for name, value in _info.config().items():
            typer.echo(f"{name:<16} {value}")
        for name in _EXTRAS:
            try:
                version = metadata.version(name)
            except metadata.PackageNotFoundError:
                version = "not installed"
            typer.echo(f"{name:<16} {version}")


@app.command(short_help="Compile kernels beforehand, on all cores.")
def warmup(
    functions: Annotated[
        list[str] | None, typer.Argument(help=f"Of {', '.join(_warmup.FUNCTIONS)}; all without.", show_default=False)
    ] = None,
    dtype: Annotated[list[str] | None, typer.Option(help="float32 (the default), float64, float16, bfloat16.")] = None,
) -> None:
    """Compile kernels beforehand, once on this machine, on all cores."""
    with _one_line():
        work = _warmup.needed(dtype or ["float32"], functions or None)
        columns = (progress.TextColumn("compiling"), progress.BarColumn(), progress.TaskProgressColumn())
        console = rich.console.Console(stderr=True)
        start = time.perf_counter()
        with progress.Progress(*columns, progress.TimeRemainingColumn(), console=console) as bar:
            task = bar.add_task("", total=1.0)
            _warmup.prepare(work, lambda share: bar.update(task, completed=share))
        kernels = sum(map(len, work))
        folder = kernel_cache.cache_folder()
        where = f"kept in {folder}" if folder is not None else "not kept: the disk cache is off"
        typer.echo(f"{kernels} kernels ready after {time.perf_counter() - start:.1f} s, {where}")


def _needs_matplotlib(plot: Path | None) -> None:
    if plot is not None and importlib.util.find_spec("matplotlib") is None:
        typer.echo('numbel: --plot needs matplotlib: pip install "numbel[plot]"', err=True)
        raise typer.Exit(1)


@app.command(name="bench", short_help="Time numbel beside limits and peers.")
def benchmark(
    work: Annotated[
        list[str] | None, typer.Argument(help="Parts of names of works, or with --map of methods; all without.")
    ] = None,
    quick: Annotated[bool, typer.Option("--quick", help="Small sizes: seconds, and less to be trusted.")] = False,
    names: Annotated[
        bool, typer.Option("--list", help="Print the names of the works that are chosen, and exit.")
    ] = False,
    json_path: Annotated[
        Path | None, typer.Option("--json", help=f"Where to write the figures; of a map, {_MAP} without.")
    ] = None,
    shape_map: Annotated[
        bool,
        typer.Option(
            "--map", help="Every method over rows x columns: ten minutes on 2 cores, goes on where it stopped."
        ),
    ] = False,
    whole: Annotated[bool, typer.Option("--whole", help="The map at every power of two: some hours.")] = False,
    plot: Annotated[Path | None, typer.Option("--plot", help="Where to write the map as a picture (PNG).")] = None,
) -> None:
    """Time numbel beside what bounds it and every installed peer, round by round, and print ratios."""
    with _one_line():
        if (whole or plot) and not shape_map:
            raise ValueError("--whole and --plot are of --map")
        from ..bench import command  # Numba's compiler, which no other command needs at once

        if shape_map:
            _needs_matplotlib(plot if not names else None)
            command.measure_map(work or [""], quick, whole, names, json_path or Path(_MAP), plot)
            return
        command.measure_works(work, quick, names, json_path)
