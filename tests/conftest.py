"""One cache of kernels for a whole run, filled on all cores before the first test; processes where they help."""

import collections
import os
import sys
import time

import pytest

# Before Numba is imported: equal bits on any number of threads are promised on one core, too.
if hasattr(os, "sched_getaffinity") and len(os.sched_getaffinity(0)) == 1:
    os.environ.setdefault("NUMBA_NUM_THREADS", "2")


def is_whole(config):
    """Whether the command names no file: then everything in `testpaths` is run."""
    return config.args_source is pytest.Config.ArgsSource.TESTPATHS


@pytest.hookimpl(tryfirst=True)
def pytest_cmdline_main(config):
    """Tests of single files run in this process, and benchmarks too: they would measure each other."""
    given = [
        argument for argument in config.invocation_params.args if str(argument).startswith(("-n", "--numprocesses"))
    ]
    measures = "--benchmark-enable" in map(str, config.invocation_params.args)
    if hasattr(config.option, "numprocesses") and (measures or not (given or is_whole(config))):
        config.option.numprocesses, config.option.dist, config.option.tx = None, "no", []


def pytest_terminal_summary(terminalreporter):
    """One line for each reason to skip, in place of one for each place: what is missing, and what brings it."""
    reasons = collections.Counter(report.longrepr[2] for report in terminalreporter.stats.get("skipped", []))
    for reason, count in reasons.most_common():
        name = reason.removeprefix("Skipped: ")
        terminalreporter.write_line(f"{count} skipped: {name}")
    if reasons:
        terminalreporter.write_line(
            'what is missing comes with: python -m pip install "torch" "jax" "dask[array]" distributed mkl_random tbb '
            '"numba-cuda[cu13]" ".[dashboard]"; .ci/run installs all of it'
        )


def pytest_sessionstart(session):
    """Compile what the tests need, unless only few of them are run; workers and subprocesses find it on disk."""
    config = session.config
    if hasattr(config, "workerinput") or not is_whole(config) or config.option.collectonly:
        return
    from numbel._host import warmup

    work = warmup.needed(("float32", "float64", "float16", "bfloat16"))
    start, told = time.perf_counter(), [0]

    def report(share):
        if share * 10 >= told[0] + 1:
            told[0] = int(share * 10)
            print(f"compiling kernels, once for these sources: {told[0] * 10} %", file=sys.stderr)

    warmup.prepare(work, report)
    print(f"kernels ready after {time.perf_counter() - start:.0f} s", file=sys.stderr)
    os.environ.setdefault("NUMBEL_QUIET", "1")
