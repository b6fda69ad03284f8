"""Warnings have the line of the user, so that each call of a notebook has its own; wrong calls are put right."""

import ast
import importlib  # noqa: F401  # typed below
import warnings
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray as xr

import xsmall as xs
from xsmall.calls import warn_user
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


def test_what_a_thread_meets_is_told_at_the_line_that_waits_for_it() -> None:
    ours: dict[str, Any] = {"__name__": "xsmall.ours", "warn_user": warn_user}
    exec("def meets(block):\n    warn_user('met in a thread')\n    return block", ours)
    lazy = xr.DataArray(np.zeros(4), dims="event").chunk(event=1).data.map_blocks(ours["meets"], dtype=float)
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("default")
        lazy.compute(scheduler="threads")
        xr.DataArray(lazy).compute(scheduler="threads")  # the second is told too
    assert {w.filename for w in told} == {__file__}
    assert len({w.lineno for w in told}) == len(told) == 2


def test_a_thread_of_the_user_has_a_line_of_its_own() -> None:
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        with ThreadPoolExecutor(1) as pool:
            pool.submit(lambda: warn_user("met")).result()
    assert [w.filename for w in told] == [__file__]


def test_nothing_warns_in_another_way() -> None:
    for path in PACKAGE.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call) and path.name not in ("calls.py", "faults.py"):
                assert ast.unparse(node.func) not in ("warnings.warn", "warn"), path


# ---- what is meant ---------------------------------------------------------------------------------------------------

FRAMES = xr.DataArray(np.zeros((2, 1, 8, 8), "f4"), dims=("event", "segment", "row", "column"))

MEANT = [
    ("xs.bins(npt=5)", "xs.bins(start, stop, n=5)"),
    ("xs.bins(0, 1, n_bins=5)", "xs.bins(0, 1, n=5)"),
    ("xs.bins(0, 1, foo=5)", "without foo=: xs.bins(0, 1)"),
    ("xs.bins(0, 1, n=5, foo=5)", "without foo=: xs.bins(0, 1, n=5)"),
    ("xs.azint(9, npt=5)", "without npt=: xs.azint(9)"),
    ("xs.azint(npt=5, quantity='radius')", "xs.azint(quantity='radius', bins=5)"),
    ("xs.azint(9, 'q')", "xs.azint(9, quantity=...)"),
    ("xs.simulate(5, shpe=(1, 2, 3))", "xs.simulate(5, shape=(1, 2, 3))"),
    ("xs.concat(FRAMES, FRAMES)", "xs.concat([a, b])"),
    ("xs.categories('a', 'b')", "xs.categories(['a', 'b'])"),
    ("xs.edges(1, 2.5, 3)", "xs.edges([1, 2.5, 3])"),
    ("xs.Polygon((0, 0), (1, 1), (1, 0))", "xs.Polygon([(0, 0), (1, 1), (1, 0)])"),
    ("xs.roi(xs.Box(), xs.Box())", "xs.roi({'a': ..., 'b': ...})"),
    ("xs.open_result('a.h5', 2)", "xs.open_result('a.h5')"),
    ("xs.save(FRAMES)", "xs.save(obj, path)"),
    ("FRAMES.sd.plot(event=1)", "data.isel(event=[1]).sd.plot()"),
    ("FRAMES.sd.plot(event=[0, 1], log=True)", "data.isel(event=[0, 1]).sd.plot(log=True)"),
    ("FRAMES.sd.plot(event=slice(0, 2))", "data.isel(event=slice(0, 2)).sd.plot()"),
    ("FRAMES.sd.azint(bins=9, solid_angle='yes')", ".sd.azint(bins=9, solid_angle=True), or solid_angle=False"),
    ("FRAMES.sd.azint(9, solid_angle=2)", ".sd.azint(9, solid_angle=True), or solid_angle=False"),
    ("xs.tutorial.open_run()", "xs.tutorial.open_run(name)"),
    ("xs.tutorial.open_run(run='powder')", "xs.tutorial.open_run(name='powder')"),
    ("importlib.import_module('xsmall.cube')(FRAMES)", "small.sd.cube(...)"),
    ("importlib.import_module('xsmall.plot')(FRAMES)", "data.sd.plot(...)"),
]


@pytest.mark.parametrize(("typed", "fix"), MEANT)
def test_advice_says_what_was_typed_and_mends_it(typed: str, fix: str) -> None:
    with pytest.raises(xs.XsmallError) as told:
        eval(typed)
    assert str(told.value).partition("do this:  ")[2] == fix


def test_a_flag_may_be_a_number() -> None:
    assert xs.azint(9, solid_angle=1) == xs.azint(9, solid_angle=True)
    assert xs.azint(9, solid_angle=np.int64(0)).bins.solid_angle is False


@pytest.mark.parametrize(
    ("typed", "meant"),
    [
        ("FRAMES.sd.avg", "average?"),
        ("FRAMES.sd.mean", "average?"),
        ("xs.tutorial.opn_run", "xs.tutorial.open_run?"),
        ("xs.droplets", "droplet?"),
        ("xs.explain", None),
        ("xr.DataTree().sd.azint", "this run holds no frames"),
        ("xr.Dataset().sd.azint_of", "azint?"),
        ("xr.Dataset().sd.calibrate", "this one holds none"),
    ],
)
def test_a_name_that_is_none_is_answered_with_one_that_is(typed: str, meant: str | None) -> None:
    with pytest.raises(AttributeError) as told:
        eval(typed)
    assert meant is None or str(told.value).endswith(meant)


def test_words_of_a_sentence_are_not_offered() -> None:
    assert "do this" not in str(xs.XsmallError("x", found="name", expected="a Dataset with a name, or numbers"))
    assert str(xs.XsmallError("x", found="'maen'", expected="'mean' or 'sum'")).endswith("give 'mean'")
    assert str(xs.XsmallError("x", found="avg", expected="mean, sum or median")).endswith("give 'mean'")
