"""What must be right before anything heavy is imported: Numba's settings, and the command line's Ctrl-C."""

from __future__ import annotations

import itertools
import os
import signal
import sys
import threading
from typing import Any


def start() -> None:
    """Say in one sentence what makes the import useless; of the command line, leave quietly on Ctrl-C meanwhile."""
    command = _is_command()
    ours = threading.current_thread() is threading.main_thread()
    if command and ours and signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, leave)
    if os.environ.get("NUMBA_DISABLE_JIT", "0") not in ("", "0"):
        text = "Numba compiles numbel, and NUMBA_DISABLE_JIT=1 turns that off: unset it"
        if command:
            sys.exit(f"numbel: {text}")
        raise ImportError(text)


def leave(*_: Any) -> None:
    """End at once: nothing has been written yet."""
    os.write(2, b"numbel: interrupted, nothing was written\n")
    os._exit(130)


def _is_command() -> bool:
    """Whether this process is `numbel` or `python -m numbel`, for which Python imports the package first."""
    name = os.path.basename(sys.argv[0]) if getattr(sys, "argv", None) else ""
    if name == "-m":  # while `python -m` looks for its module
        given = sys.orig_argv
        return "-mnumbel" in given or ("-m", "numbel") in itertools.pairwise(given)
    return name.partition(".")[0].removesuffix("-script") == "numbel"


start()
