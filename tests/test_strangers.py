"""What strangers' programs met: one function a case, named after what failed."""

import os
import subprocess
import sys

import numpy as np
import pytest

import numbel


def message(call, error=ValueError):
    """The message of the exception that `call` raises."""
    with pytest.raises(error) as caught:
        call()
    assert type(caught.value) is error
    return str(caught.value)


def fresh(code, *arguments, **environment):
    """Run a program in a process that has imported nothing yet."""
    command = [sys.executable, *arguments, "-c", code]
    return subprocess.run(command, env=os.environ | environment, capture_output=True, text=True, timeout=300)


# --- dtypes by name


def test_bfloat16_by_name_where_nobody_imported_it():
    pytest.importorskip("ml_dtypes")
    run = fresh(
        "import sys, numpy as np, numbel\n"
        "assert 'ml_dtypes' not in sys.modules\n"
        "noise = numbel.Generator(5).gumbel(size=9, dtype='bfloat16')\n"
        "import ml_dtypes\n"
        "assert noise.dtype == ml_dtypes.bfloat16\n"
        "assert (noise == numbel.Generator(5).gumbel(size=9, dtype=ml_dtypes.bfloat16)).all()\n"
    )
    assert run.returncode == 0, run.stderr


def test_bfloat16_by_name_on_the_command_line(tmp_path):
    ml_dtypes = pytest.importorskip("ml_dtypes")
    pytest.importorskip("typer")
    out, raw = tmp_path / "out.npy", tmp_path / "logits.bin"
    call = [sys.executable, "-m", "numbel"]
    given = [*call, "gumbel", "--size", "9", "--dtype", "bfloat16", "--seed", "5", "-o", str(out)]
    run = subprocess.run(given, capture_output=True, text=True, timeout=300)
    assert run.returncode == 0, run.stderr
    noise = numbel.Generator(5).gumbel(size=9, dtype=ml_dtypes.bfloat16)
    np.testing.assert_array_equal(np.load(out).view(ml_dtypes.bfloat16), noise)
    logits = np.zeros((2, 9), ml_dtypes.bfloat16)
    logits.tofile(raw)
    given = [*call, "sample", str(raw), "--dtype", "bfloat16", "--columns", "9", "--seed", "5", "-o", str(out)]
    run = subprocess.run(given, capture_output=True, text=True, timeout=300)
    assert run.returncode == 0, run.stderr
    np.testing.assert_array_equal(np.load(out), numbel.Generator(5).categorical(logits))


def test_bfloat16_without_its_package_is_one_line():
    run = fresh(
        "import sys\nsys.modules['ml_dtypes'] = None\nimport numbel\n"
        "try:\n    numbel.Generator(5).gumbel(dtype='bfloat16')\n"
        "except TypeError as error:\n    print(error)"
    )
    assert run.stdout == 'dtype "bfloat16" needs the package ml_dtypes: pip install "numbel[bf16]"\n', run.stderr
