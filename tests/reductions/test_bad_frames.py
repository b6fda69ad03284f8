"""Bad frames: what every reduction makes of them, one after the other."""

import pickle
import threading
from collections.abc import Callable
from typing import Any

import dask.array as da
import numpy as np
import pytest
import xarray as xr

import xsmall as xs
from xsmall.detector.geometry.geometry import Panel
from xsmall.errors import XsmallError

SHAPE = (2, 16, 24)
PIXEL = 1e-4


def mine(frame: np.ndarray) -> dict[str, Any]:
    return {"n": np.isfinite(frame).sum(), "total": np.nansum(frame), "high": frame[frame > 9.0]}


RECORDS: dict[str, Callable[[], Any]] = {
    "roi": lambda: xs.roi(
        {"a": xs.Box(segment=0, row=(2, 9)), "b": xs.Circle((0.0, 0.0), 3e-4)},
        also=["min", "full_sum", "x", "y", "moment_row_row", "n_saturated"],
        saturation=50.0,
    ),
    "roi with threshold": lambda: xs.roi(xs.Box(segment=1), threshold=(2.0, 20.0)),
    "roi | projection": lambda: xs.roi(xs.Box(segment=1, row=(3, 9))) | xs.projection("row"),
    "projection": lambda: xs.projection("column", statistic="mean"),
    "projection onto q": lambda: xs.projection("radius", bins=np.linspace(0, 2e-3, 11)),
    "lineout": lambda: xs.lineout("row", 7, segment=0),
    "histogram": lambda: xs.histogram(np.arange(0.0, 20.0, 0.5)),
    "droplet | histogram": lambda: xs.droplet(6.0, 2.0) | xs.histogram("sum", np.arange(0.0, 60.0, 5.0)),
    "rebin": lambda: xs.rebin((2, 3)),
    "image": lambda: xs.image(),
    "azint": lambda: xs.azint(bins=8, quantity="radius"),
    "azint split": lambda: xs.azint(bins=8, quantity="radius", split="box"),
    "azint median": lambda: xs.azint(bins=8, quantity="radius", statistic="median"),
    "azint sectors": lambda: xs.azint(bins=4, quantity="radius", azimuth_bins=4),
    "anisotropy": lambda: xs.anisotropy(0.0, bins=4, quantity="radius"),
    "droplet": lambda: xs.droplet(6.0, 2.0, also=["max", "touches", "x"]),
    "photon": lambda: xs.photon(4.0),
    "droplet | photon": lambda: xs.droplet(6.0, 2.0) | xs.photon(4.0),
    "photon | projection": lambda: xs.photon(4.0, image=True) | xs.projection("row"),
    "sparse photons": lambda: xs.droplet(6.0, 2.0) | xs.photon(4.0, sparse=True),
    "sparse": lambda: xs.sparse(),
    "straighten | projection": lambda: xs.straighten([0.05, 0.0]) | xs.projection("row"),
    "autocorrelation": lambda: xs.autocorrelation(xs.Box(segment=0), max_lag=3),
    "peaks": lambda: xs.peaks(10.0, snr=3.0, sizes=(1, 30), hit=1, also=["x"]),
    "peaks without geometry": lambda: xs.peaks(10.0, background="segment"),
    "edge": lambda: xs.edge(xs.Box(segment=0, row=(2, 9)), weights=np.r_[-np.ones(4), np.ones(4)]),
    "sums": lambda: xs.sums(also=["sum", "min", "max"], count_above=3.0, histogram=np.arange(0.0, 9.0)),
    "projection | sums": lambda: xs.projection("row") | xs.sums(),
    "function": lambda: xs.record(mine),
}
COUNTS = ("n_", "count", "histogram", "is_hit")


def frames(values: Any) -> xr.DataArray:
    panels = [
        Panel(
            origin=(-8.5 * PIXEL, (-3.5 + 20 * s) * PIXEL, 0.1), slow=(0, PIXEL, 0), fast=(PIXEL, 0, 0), shape=SHAPE[1:]
        )
        for s in range(2)
    ]
    coords = {"event": np.arange(values.shape[0])}
    out = xr.DataArray(values, coords, ("event", "segment", "row", "column"), name="cal", attrs={"units": "keV"})
    for dim, n in zip(("segment", "row", "column"), SHAPE, strict=True):
        out = out.assign_coords({dim: np.arange(n)})
    return out.sd.assign_geometry(xs.Geometry.from_panels(panels)).sd.assign_beam(photon_energy=4000, distance=0.1)


def some(n: int = 6, dtype: str = "f4") -> np.ndarray:
    values = np.random.default_rng(4).normal(3, 2, (n, *SHAPE))
    values[:, 0, 5, 7] += 30
    values[:, 1, 10, 12] += 12
    return values.astype(dtype)


def run(values: Any, name: str) -> xr.Dataset:
    return frames(values).sd.reduce({"x": RECORDS[name]()}).compute()


def same(a: xr.Dataset, b: xr.Dataset, name: str = "") -> None:
    assert set(a.variables) == set(b.variables)
    for v in a.data_vars:
        assert a[v].dtype == b[v].dtype, v
        if a[v].dtype != object:
            np.testing.assert_array_equal(a[v].values, b[v].values, err_msg=f"{name} {v}")
            continue
        for mine_, theirs in zip(a[v].values.ravel(), b[v].values.ravel(), strict=True):
            np.testing.assert_array_equal(mine_, theirs, err_msg=f"{name} {v}")


@pytest.mark.parametrize("name", RECORDS)
def test_nothing_valid_is_nan_and_counts_of_nothing(name: str) -> None:
    found = run(np.full((5, *SHAPE), np.nan, "f4"), name)
    valid = [v for v in found.data_vars if str(v).endswith(("n_valid", "x_count", "_count"))]
    assert (
        valid
        or name in ("image", "rebin", "droplet", "droplet | histogram", "autocorrelation", "function")
        or name.startswith("peaks")
    )
    for v in valid:
        assert (found[v] == 0).all() or v == "x_n_valid_count", v  # a count of 0 is a value
    for v in set(found.data_vars) - {"x_n_valid_count"}:
        values = found[v].values
        if str(v).endswith("lost_pixels"):
            assert [one.tolist() for one in values] == [[0, 384, 384, 768]] * 5  # all pixels, a run for each segment
        elif values.dtype == object:
            assert all(len(one) == 0 for one in values.ravel()), v
        elif values.dtype.kind == "f" and name != "function":
            assert (np.isnan(values) | (values == 0)).all(), v
            if not any(word in str(v) for word in ("sum", "projection", "valid", "rebinned")):
                assert np.isnan(values).all(), v
        elif (
            values.dtype.kind in "iub" and "n_events" not in str(v) and "image_n" not in str(v) and "n_k" not in str(v)
        ):
            assert not values.any(), v


@pytest.mark.parametrize("name", RECORDS)
def test_one_valid_pixel_is_enough_to_run(name: str) -> None:
    values = np.full((5, *SHAPE), np.nan, "f4")
    values[:, 0, 5, 7] = 12.0
    found = run(values, name)
    assert len(found.data_vars)
    if "x_n_valid" in found and found["x_n_valid"].dims == ("event",):
        assert (found["x_n_valid"] <= 1).all()
    if name == "roi":
        assert found["x_sum"].sel(roi="a").values.tolist() == [12.0] * 5
        assert found["x_com_row"].sel(roi="a").values.tolist() == [5.0] * 5
    if name.startswith("azint"):
        assert np.isfinite(found["x_intensity"]).sum() in (5, 5 * 2, 5 * 3)
    if name == "droplet":
        assert found["x_n_droplets"].values.tolist() == [1] * 5
    if name == "sums":
        assert int(found["x_count"].sum()) == 5
        assert float(found["x_std"].sel(segment=0, row=5, column=7)) == 0.0
    if name.startswith("peaks"):  # one pixel has no background, and no noise
        assert (found["x_n_peaks"] == 0).all()


@pytest.mark.parametrize("name", RECORDS)
def test_complex_frames_are_refused(name: str) -> None:
    with pytest.raises(XsmallError, match=r"complex|dtype|numbers"):
        run(some().astype("c8"), name)


@pytest.mark.parametrize("name", RECORDS)
@pytest.mark.parametrize("dtype", ["u2", "i4", "f8"])
def test_integers_give_what_floats_of_them_give(name: str, dtype: str) -> None:
    whole = np.clip(some(), 0, None).round()
    as_floats, other = run(whole.astype("f4" if dtype != "f8" else "f8"), name), run(whole.astype(dtype), name)
    for v in as_floats.data_vars:
        if as_floats[v].dtype == object:
            for a, b in zip(as_floats[v].values.ravel(), other[v].values.ravel(), strict=True):
                np.testing.assert_allclose(a, b, rtol=1e-6)
        elif as_floats[v].dtype.kind != "U":
            np.testing.assert_allclose(as_floats[v], other[v], rtol=1e-5, atol=1e-6, err_msg=str(v))


@pytest.mark.parametrize("name", RECORDS)
def test_chunks_without_events_change_nothing(name: str) -> None:
    values = some()
    lazy = da.concatenate(
        [da.from_array(values[a:b], chunks=(max(b - a, 1), *SHAPE)) for a, b in ((0, 2), (2, 2), (2, 6))]
    )
    assert lazy.chunks[0] == (2, 0, 4) or lazy.chunks[0] == (2, 4)
    empty_first = da.from_array(values, chunks=(3, *SHAPE)).rechunk(((0, 3, 0, 3), *[(n,) for n in SHAPE]))
    expected = run(values, name)
    same(run(lazy, name), expected, name)
    same(run(empty_first, name), expected, name)


@pytest.mark.parametrize("name", RECORDS)
def test_no_event_is_no_error(name: str) -> None:
    for values in (some()[:0], da.from_array(some(), chunks=(2, *SHAPE))[:0]):
        found = run(values, name)
        for v in found.data_vars:
            assert "event" not in found[v].dims or found[v].sizes["event"] == 0


@pytest.mark.parametrize("name", RECORDS)
def test_infinity_spoils_no_more_than_its_pixel(name: str) -> None:
    values = some()
    values[2, 0, 4, 4], values[2, 1, 3, 3] = np.inf, -np.inf
    missing = values.copy()
    missing[2, 0, 4, 4], missing[2, 1, 3, 3] = np.nan, np.nan
    a, b = run(values, name), run(missing, name)
    for v in a.data_vars:
        if a[v].dtype.kind == "f":
            assert not np.isinf(a[v].values).any(), v
    if name != "function":
        same(a, b, name)


@pytest.mark.parametrize("name", RECORDS)
def test_records_can_be_sent_and_compared(name: str) -> None:
    record = RECORDS[name]()
    again = pickle.loads(pickle.dumps(record))
    same(frames(some()).sd.reduce({"x": again}), frames(some()).sd.reduce({"x": record}), name)
    if name != "function":
        assert again == record
        assert hash(again) == hash(record)


OUTSIDE = {
    "roi": lambda: xs.roi(xs.Box(segment=0, row=(100, 120))),
    "roi over a gap": lambda: xs.roi(xs.Rectangle(x=(-5e-4, 5e-4), y=(1.35e-3, 1.5e-3))),
    "roi of nothing": lambda: xs.roi(np.zeros(SHAPE, bool)),
    "projection": lambda: xs.projection("row", place=xs.Box(segment=3)),
    "histogram": lambda: xs.histogram(np.arange(3.0), place=xs.Circle((1.0, 1.0), 1e-3)),
    "autocorrelation": lambda: xs.autocorrelation(xs.Box(segment=0, column=(500, 600)), max_lag=3),
    "edge": lambda: xs.edge(xs.Box(segment=0, row=(100, 120))),
    "azint": lambda: xs.roi(xs.Circle((1.0, 1.0), 1e-3)) | xs.azint(bins=8, quantity="radius"),
}


@pytest.mark.parametrize("name", OUTSIDE)
def test_places_without_a_pixel_are_refused(name: str) -> None:
    with pytest.raises(XsmallError) as error:
        frames(some()).sd.reduce({"x": OUTSIDE[name]()})
    assert "found" in str(error.value)


def test_bins_outside_of_the_detector_are_empty() -> None:
    cal = frames(some())
    with pytest.raises(XsmallError, match="cover no pixel"):
        cal.sd.azint(bins=np.linspace(1.0, 2.0, 6), quantity="radius")
    half = cal.sd.azint(bins=np.linspace(0, 1.0, 101), quantity="radius")
    assert np.isfinite(half["intensity"].values[:, 0]).all()
    assert np.isnan(half["intensity"].values[:, 50:]).all()
    high = cal.sd.histogram(np.arange(1e6, 1e6 + 5))
    assert (high["histogram"] == 0).all()
    assert (high["n_below"] == high["n_valid"]).all()


class Locked:
    """A function that no other process can get."""

    def __init__(self) -> None:
        self.lock = threading.Lock()

    def __call__(self, frame: np.ndarray) -> float:
        with self.lock:
            return float(np.nansum(frame))


def test_a_function_that_cannot_be_sent_is_refused_before_anything_is_read(
    computing_is_forbidden: Any, caplog: pytest.LogCaptureFixture
) -> None:
    with computing_is_forbidden(), pytest.raises(XsmallError, match="cannot be sent to workers"):
        frames(da.from_array(some(), chunks=(2, *SHAPE))).sd.apply(Locked())
    assert not caplog.records
