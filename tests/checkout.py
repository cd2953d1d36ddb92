"""A copy of this checkout in a folder of its own, for commands that are run as they are written."""

import shutil
import subprocess
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
IS_CHECKOUT = (ROOT / ".git").exists()


def copied(folder, *below):
    """Copy what git keeps or would add, all of it or what lies below some names, and return the folder."""
    command = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard", *below]
    names = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout.split("\0")
    for name in filter(None, names):
        if (ROOT / name).is_file():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, folder / name)
    return folder


def processor_seconds():
    """What programs that were waited for have taken of the processor so far, whoever else uses it."""
    import resource  # not on Windows

    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime
