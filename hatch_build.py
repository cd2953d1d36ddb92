"""Machine code in a wheel, for NUMBEL_BUILD_KERNELS=1: `NUMBEL_BUILD_KERNELS=1 python -m pip wheel . --no-deps`."""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface


class KernelBuildHook(BuildHookInterface[Any]):
    """Put what `numbel._host.build` makes into the wheel, which is then one for this platform."""

    PLUGIN_NAME = "custom"

    def dependencies(self) -> list[str]:
        """What an isolated build installs: Numba compiles the kernels."""
        return list(self.metadata.core.dependencies) if _asked() else []

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Compile, link, and name the platform."""
        if not _asked() or self.target_name != "wheel" or version != "standard":
            return
        # pip builds a wheel twice, first for its metadata: what was made of the same sources is taken again
        made = Path(self.root) / "build" / "kernels"
        with tempfile.TemporaryDirectory() as copied:
            # pip's isolated build takes paths that an editable install added from a process: a copy has none
            shutil.copytree(Path(self.root) / "src" / "numbel", Path(copied) / "numbel")
            path = os.pathsep.join([copied, *filter(None, [os.environ.get("PYTHONPATH")])])
            subprocess.run(
                [sys.executable, "-m", "numbel._host.build", str(made)],
                env=os.environ | {"PYTHONPATH": path},
                cwd=copied,
                check=True,
            )
        for each in sorted(made.iterdir()):
            build_data["force_include"][str(each)] = f"numbel/_kernels/{each.name}"
        build_data["pure_python"] = False
        # glibc 2.17: memcpy of 2.14 is the youngest function that a library calls (tests/test_prebuilt.py)
        build_data["tag"] = f"py3-none-manylinux_2_17_{platform.machine()}"


def _asked() -> bool:
    return os.environ.get("NUMBEL_BUILD_KERNELS", "0") not in ("", "0")
