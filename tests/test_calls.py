"""Warnings are given at the line of the user, so that each call of a notebook has its own."""

import ast
import warnings
from pathlib import Path

import numpy as np
import xarray as xr

import xsmall as xs
from xsmall.errors import GainBitsWarning

PACKAGE = Path(xs.__file__).parent


def test_each_call_warns_at_its_own_line() -> None:
    raw = xs.simulate(2, shape=(1, 8, 8)).run["jungfrau"]["raw"]
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("default")
        raw.sd.roi(xs.Box())
        raw.sd.roi(xs.Box())
        xs.apply(raw, xs.roi(xs.Box()))
        xs.reduce(raw, {"a": xs.roi(xs.Box())})
    assert [w.category for w in told] == [GainBitsWarning] * 4
    assert {w.filename for w in told} == {__file__}
    assert len({w.lineno for w in told}) == 4


def test_what_is_met_while_it_is_computed_is_told_at_the_line_that_computes() -> None:
    frames = xr.DataArray(np.full((2, 1, 8, 8), 9.0, "f4"), dims=("event", "segment", "row", "column"))
    frames.values[:, :, ::2] = frames.values[:, :, :, ::2] = 0
    lazy = frames.assign_attrs(units="keV").chunk(event=1).sd.droplet(5.0, max_droplets=2)
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        lazy.compute(scheduler="synchronous")
    assert {w.filename for w in told} == {__file__}


def test_no_warning_has_a_line_by_counting() -> None:
    for path in PACKAGE.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.keyword) and node.arg == "stacklevel":
                assert ast.unparse(node.value) == "line_of_the_user()", path
            if isinstance(node, ast.Call) and ast.unparse(node.func) in ("warnings.warn", "warn"):
                assert any(k.arg == "stacklevel" for k in node.keywords), path
