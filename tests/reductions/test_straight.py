"""Straight frames in the pass: what follows gives what it gives of frames that were straightened before."""

import pickle
from typing import Any

import numpy as np
import pytest
import xarray as xr

import xsmall as xs
from xsmall.errors import DataError, ParameterError

C = [0.001, -0.05, 0.3]
RECORDS = {
    "projection": lambda: xs.projection("row"),
    "roi": lambda: xs.roi({"a": xs.Box(segment=1, row=(2, 9)), "b": xs.Box(segment=0)}) | xs.projection("column"),
    "sums": lambda: xs.sums(),
    "function": lambda: xs.record(lambda frame: float(np.nansum(frame))),
}


@pytest.fixture(scope="module")
def cal() -> xr.DataArray:
    sim = xs.simulate(5, shape=(2, 16, 24), seed=1)
    return sim.run["jungfrau"]["raw"].sd.calibrate(sim.constants).compute()


@pytest.mark.parametrize("along", ["row", "column"])
@pytest.mark.parametrize("name", RECORDS)
def test_a_chain_is_the_record_of_straight_frames(cal: xr.DataArray, name: str, along: Any) -> None:
    made = cal.chunk(event=2).sd.apply(xs.straighten(coefficients=C, along=along) | RECORDS[name]()).compute()
    expected = cal.sd.straighten(C, along=along).sd.apply(RECORDS[name]()).compute()
    assert set(made.data_vars) == set(expected.data_vars)
    for variable in expected:
        assert made[variable].dims == expected[variable].dims
        if expected[variable].dtype.kind == "f":
            np.testing.assert_allclose(made[variable], expected[variable], rtol=1e-6)
    for dim in expected.dims:
        np.testing.assert_array_equal(made[dim], expected[dim])


def test_alone_it_returns_the_frames_and_their_variance(cal: xr.DataArray) -> None:
    both = xs.with_variance(cal, xr.full_like(cal, 0.25))
    made, expected = both.sd.apply(xs.straighten(coefficients=C)), both.sd.straighten(C)
    np.testing.assert_allclose(made["straight"], expected[cal.name], rtol=1e-6)
    np.testing.assert_allclose(made["straight_variance"], expected[f"{cal.name}_variance"], rtol=1e-6)


def test_it_can_be_sent_and_goes_beside_others(cal: xr.DataArray) -> None:
    chain = xs.straighten(C) | xs.projection("row")
    again = pickle.loads(pickle.dumps(chain))
    assert again == chain
    small = cal.fillna(0).sd.reduce({"lines": again, "rows": xs.projection("row")})
    np.testing.assert_allclose(
        small["lines_projection"].sum("lines_row"), small["rows_projection"].sum("rows_row"), rtol=1e-4
    )


def test_what_makes_no_sense_is_refused(cal: xr.DataArray) -> None:
    for make in (xs.straighten, lambda: xs.straighten("ab"), lambda: xs.straighten(C, along="event")):
        with pytest.raises(ParameterError):
            make()
    with pytest.raises(ParameterError, match="cannot follow"):
        xs.roi(xs.Box(segment=0)) | xs.straighten(C)
    with pytest.raises(DataError, match="without labels"):
        xs.straighten(cal.values, C)  # type: ignore[call-overload]
    with pytest.raises(DataError, match=r"sortby\('row'\)"):
        cal[:, :, ::-1].sd.apply(xs.straighten(C))
