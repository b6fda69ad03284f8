"""A person is told once that kernels are compiled; a job is not."""

import subprocess
import sys

import pytest

CODE = """
import sys
if {watched}: sys.ps1 = ">>> "
import xsmall.kernels.compiling as compiling
import numba
from xsmall.kernels.jit import njit

numba.njit(lambda x: x + 1)(1)  # of somebody else: not a word
print("others", file=sys.stderr)
def one(x): return x + 1
def two(x): return x + 2
for f in (one, two):
    f.__module__ = "xsmall.kernels.test"
    njit(f)(1)
"""


@pytest.mark.parametrize("watched", [True, False])
def test_compiling_is_told_once_to_a_person(watched: bool) -> None:
    done = subprocess.run(
        [sys.executable, "-c", CODE.format(watched=watched)], capture_output=True, text=True, check=True
    )
    before, after = done.stderr.split("others")
    assert "warm-up" not in before
    assert after.count("warm-up") == int(watched)
