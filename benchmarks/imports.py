"""What ``import xsmall`` costs, beside ``import xarray``, each in a fresh interpreter: at most 0.3 s more."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable

from benchmarks import Case


def _importing(package: str) -> Callable[[], object]:
    command = [sys.executable, "-c", f"import {package}"]
    return lambda: subprocess.run(command, check=True)


def cases(scale: float) -> list[Case]:
    """The import, whole process."""
    del scale
    return [
        Case("import xsmall (process, ms)", _importing("xsmall"), baselines={"import xarray": _importing("xarray")})
    ]
