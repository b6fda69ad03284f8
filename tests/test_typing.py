"""Type checkers know the public names and the accessors: wrong names and arguments are found in a user's file."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

import xsmall as xs
from xsmall import accessor

RIGHT = """
import xarray as xr
import xsmall as xs

def mean_of_rings(cal: xr.DataArray) -> xr.Dataset:
    sd: xs.SdDataArray = cal.sd
    placed = sd.assign_beam(distance=0.1)
    bound: xs.SdDataArray = placed.sd
    return bound.azint(bins=3, quantity="q")

record = xs.azint(bins=3)
"""
WRONG = """
import xarray as xr
import xsmall as xs

def look(cal: xr.DataArray) -> None:
    sd: xs.SdDataArray = cal.sd
    sd.azimuth()
    sd.azint(bin=3)
    xs.azint(bin=3)
    xs.azimt()
"""
WITH_PLUGIN = """
import xarray as xr
import xsmall

def look(cal: xr.DataArray, small: xr.Dataset, run: xr.DataTree) -> xr.Dataset:
    cal.sd.azimuth()
    small.sd.cub()
    run.sd.quicklok()
    return cal.sd.azint(bins=3)
"""


SETTINGS = """
[mypy]
{more}

[mypy-dask.*,distributed.*,h5py.*,matplotlib.*,numba.*,pandas.*,scipy.*,zarr.*]
follow_imports = skip
follow_imports_for_stubs = True
"""
"""Packages that no signature in these files is made of are not read, which takes two thirds of the time."""


def mypy(texts: dict[str, str], folder: Path, more: str = "") -> list[tuple[str, int]]:
    """Files and lines with errors; all files in one run, which takes most of its time to read the packages."""
    pytest.importorskip("mypy")
    (folder / "mypy.ini").write_text(SETTINGS.format(more=more), encoding="utf-8")
    for name, text in texts.items():
        (folder / name).write_text(text, encoding="utf-8")
    command = [sys.executable, "-m", "mypy", "--strict", "--cache-dir", os.devnull, *texts]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    assert done.stdout, done.stderr
    errors = (line.split(":") for line in done.stdout.splitlines() if ": error:" in line)
    return [(name, int(line)) for name, line, *_ in errors]


def test_mypy_finds_nothing_in_a_right_file_and_all_in_a_wrong_one(tmp_path: Path) -> None:
    found = mypy({"right.py": RIGHT, "wrong.py": WRONG}, tmp_path)
    assert found == [("wrong.py", line) for line in (7, 8, 9, 10)]


def test_with_the_plugin_mypy_knows_the_accessor_of_any_array(tmp_path: Path) -> None:
    found = mypy({"user.py": WITH_PLUGIN}, tmp_path, "plugins = xsmall.mypy_plugin")
    assert found == [("user.py", line) for line in (6, 7, 8)]


def test_pyright_finds_nothing_in_a_right_file_and_all_in_a_wrong_one(tmp_path: Path) -> None:
    import json

    pytest.importorskip("pyright")
    (tmp_path / "right.py").write_text(RIGHT, encoding="utf-8")
    (tmp_path / "wrong.py").write_text(WRONG, encoding="utf-8")
    command = [sys.executable, "-m", "pyright", "--outputjson", "--pythonpath", sys.executable, "right.py", "wrong.py"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    try:
        told = json.loads(done.stdout)["generalDiagnostics"]
    except ValueError:
        pytest.skip(f"pyright does not run here: {done.stdout[-200:]}{done.stderr[-200:]}")
    errors = [(Path(e["file"]).name, e["range"]["start"]["line"] + 1) for e in told if e["severity"] == "error"]
    assert sorted(set(errors)) == [("wrong.py", 7), ("wrong.py", 8), ("wrong.py", 9), ("wrong.py", 10)]


@pytest.mark.parametrize(
    ("accessor_class", "seen"),
    [
        (xs.SdDataArray, "DataArrayMethods"),
        (xs.SdDataset, "DatasetMethods"),
        (xs.SdDataTree, "DataTreeMethods"),
    ],
)
def test_type_checkers_see_the_methods_that_there_are(accessor_class: type, seen: str) -> None:
    from xsmall import typed

    there = {
        name: value
        for base in getattr(typed, seen).__mro__
        for name, value in vars(base).items()
        if isinstance(value, typed.Method | typed.Reduction)
    }
    methods = {n: v for n, v in vars(accessor_class).items() if isinstance(v, accessor._Method)}
    assert there.keys() == methods.keys()
    for name, method in methods.items():
        assert there[name].function is method.load(), name
        assert isinstance(there[name], typed.Reduction) == isinstance(method, accessor._ReductionMethod), name
