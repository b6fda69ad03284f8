"""Sums over events: what NumPy says of the same frames, in any order, by class, in the pass of other records."""

import dask.array as da
import numpy as np
import pytest
import xarray as xr
from hypothesis import given, settings
from hypothesis import strategies as st

import xsmall as xs
from xsmall.errors import ParameterError
from xsmall.kernels import sums as kernel
from xsmall.kernels.reference.sums import statistics

SHAPE = (2, 3, 5)


def frames(n: int = 23, chunk: int | None = None, dtype: str = "f4", seed: int = 1) -> xr.DataArray:
    rng = np.random.default_rng(seed)
    values = (rng.normal(5, 2, (n, *SHAPE)) * 10.0 ** rng.integers(-3, 4, SHAPE)).astype(dtype)
    if dtype[0] == "f":
        values[rng.random(values.shape) < 0.1] = np.nan
        values[:, 0, 0, 0] = np.nan
        values[1:, 0, 0, 1] = np.nan
    data = values if chunk is None else da.from_array(values, chunks=(chunk, *SHAPE))
    coords = {"event": np.arange(n) + 100, "segment": [0, 1], "row": np.arange(3), "column": np.arange(5)}
    return xr.DataArray(data, coords, ("event", "segment", "row", "column"), attrs={"units": "keV"}, name="cal")


def same(a: xr.Dataset, b: xr.Dataset) -> None:
    assert set(a.data_vars) == set(b.data_vars)
    for name in a.data_vars:
        np.testing.assert_array_equal(a[name].values, b[name].values, err_msg=str(name))


def test_the_kernel_is_its_slow_twin() -> None:
    rng = np.random.default_rng(0)
    values = (rng.normal(0, 1, (40, 30)) * 10.0 ** rng.integers(-6, 6, 30)).astype("f4")
    values[:, 0] = 0.1  # without spread
    values[:, 1] = 1e4 + rng.normal(0, 1e-3, 40)  # a spread far below the mean
    values[:, 2], values[1:, 3] = np.nan, np.inf
    made, count = np.zeros((1, 4, 30)), np.zeros((1, 30), np.uint32)
    kernel.add(values, np.zeros(40, np.int64), made, count, 0)
    out = np.empty((3, 30))
    kernel.finish(made[0], count[0], *out)
    expected = np.array([statistics(column) for column in values.T]).T
    np.testing.assert_allclose(out, expected, rtol=1e-15)
    assert out[2, 0] == 0.0


def test_mean_spread_and_extremes_are_those_of_the_frames() -> None:
    cal = frames()
    found = cal.sd.sums(also=["sum", "min", "max"], count_above=5.0)
    wide = cal.astype("f8")
    valid = cal.notnull().sum("event")
    np.testing.assert_allclose(found["mean"], wide.mean("event"), rtol=1e-14)
    spread = wide.std("event", ddof=1).where(valid > 1)  # NumPy loses the spread of a large mean; not of these
    np.testing.assert_allclose(found["std"], spread, rtol=1e-12)
    np.testing.assert_allclose(found["stderr"], spread / np.sqrt(valid), rtol=1e-12)
    np.testing.assert_allclose(found["sum"], wide.sum("event", min_count=1), rtol=1e-14)
    np.testing.assert_array_equal(found["min"], cal.min("event"))
    np.testing.assert_array_equal(found["max"], cal.max("event"))
    np.testing.assert_array_equal(found["count"], valid)
    np.testing.assert_array_equal(found["n_above"], (cal >= 5.0).sum("event"))
    assert int(found["n_events"]) == 23
    assert "event" not in found.dims
    assert found["mean"].attrs["units"] == found["std"].attrs["units"] == "keV"


@given(chunk=st.integers(1, 24), seed=st.integers(0, 5))
@settings(max_examples=12)
def test_no_chunking_and_no_order_changes_a_bit(chunk: int, seed: int) -> None:
    laser = xr.DataArray(np.arange(23) % 3 == 0, {"event": np.arange(23) + 100}, ("event",), name="laser_on")
    options = {"also": ["sum", "min", "max"], "count_above": 4.0, "histogram": np.arange(0.0, 10.0)}
    expected = frames(seed=seed).sd.sums(laser, **options)
    same(frames(chunk=chunk, seed=seed).sd.sums(laser, **options).compute(scheduler="synchronous"), expected)
    order = np.random.default_rng(chunk).permutation(23)
    same(frames(seed=seed).isel(event=order).sd.sums(laser, **options), expected)


def test_classes_are_joined_by_label_and_what_has_none_is_counted(computing_is_forbidden) -> None:
    cal = frames(chunk=4)
    known = xr.DataArray([1.0, 0.0, np.nan] * 7, {"event": np.arange(21)[::-1] + 102}, ("event",), name="laser_on")
    with computing_is_forbidden():
        lazy = cal.sd.sums(by=known)
    found = lazy.compute()
    assert found["laser_on"].values.tolist() == [0.0, 1.0]
    for value in (0.0, 1.0):
        events = known["event"].values[known.values == value]
        chosen = cal.sel(event=[e for e in events if e < 123]).compute()
        np.testing.assert_allclose(found["mean"].sel(laser_on=value), chosen.astype("f8").mean("event"), rtol=1e-14)
        assert int(found["n_events"].sel(laser_on=value)) == chosen.sizes["event"]
    assert int(found["n_without_class"]) == 23 - int(found["n_events"].sum())


def test_dropped_shots_are_left_out_and_counted() -> None:
    """smalldata_tools for LCLS-II adds them up as if they were lit, and its sum of dropped shots is one of all."""
    lit = np.arange(23) % 5 != 0
    cal = frames().assign_coords(xray_on=("event", lit))
    found = cal.sd.sums()
    np.testing.assert_allclose(found["mean"], cal[lit].astype("f8").mean("event"), rtol=1e-14)
    assert int(found["n_events"]) == lit.sum()
    assert int(found["n_dropped_shots"]) == (~lit).sum()
    assert int(cal.sd.sums(dropped_shots=True)["n_events"]) == 23
    both = cal.sd.sums(by="xray_on")
    assert both["n_events"].values.tolist() == [(~lit).sum(), lit.sum()]
    np.testing.assert_allclose(both["mean"].sel(xray_on=False), cal[~lit].astype("f8").mean("event"), rtol=1e-14)


def test_one_sum_does_not_change_what_another_sees() -> None:
    """smalldata_tools thresholds the frame itself, so that later sums are sums of zeros and ones."""
    cal = frames(chunk=5)
    found = cal.sd.reduce(
        {
            "hits": xs.sums(count_above=5.0),
            "high": xs.sums(threshold=5.0, also=["sum"]),
            "all": xs.sums(also=["sum", "max"]),
            "spot": xs.roi(xs.Box(segment=0)),
        }
    ).compute()
    plain = cal.compute()
    np.testing.assert_array_equal(found["all_sum"], plain.sd.sums(also=["sum"])["sum"])
    np.testing.assert_array_equal(found["all_max"], plain.max("event"))
    high = plain.where((plain >= 5) | plain.isnull(), 0).astype("f8")
    np.testing.assert_allclose(found["high_sum"], high.sum("event", min_count=1), rtol=1e-14)
    np.testing.assert_array_equal(found["hits_n_above"], (plain >= 5).sum("event"))
    np.testing.assert_array_equal(found["spot_sum"], plain.sd.roi(xs.Box(segment=0))["sum"])


def test_thresholds_below_zero_are_thresholds_too() -> None:
    """smalldata_tools takes a threshold of 0 or below for none."""
    cal = frames() - 5
    low = cal.where((cal >= -1.0) | cal.isnull(), 0).astype("f8")
    np.testing.assert_allclose(cal.sd.sums(threshold=-1.0)["mean"], low.mean("event"), rtol=1e-13)


def test_the_maximum_of_blocks_is_the_largest_not_their_sum() -> None:
    """smalldata_tools for LCLS-II adds the maxima of its ranks."""
    np.testing.assert_array_equal(frames(chunk=2).sd.sums(also=["max"])["max"], frames().max("event"))


def test_a_small_spread_of_a_large_mean_is_not_lost() -> None:
    """Sums of float32 lose it, and so do sums of squares in float64."""
    rng = np.random.default_rng(3)
    values = (1e6 + rng.normal(0, 1, (500, *SHAPE))).astype("f4")
    found = frames(500).copy(data=values).sd.sums()
    np.testing.assert_allclose(found["std"], values.astype("f8").std(axis=0, ddof=1), rtol=1e-12)


def test_values_of_a_pixel_over_events_by_size() -> None:
    cal = frames(200)
    for edges in (np.arange(0.0, 10.5, 0.5), np.array([0.0, 1.0, 4.0, 4.5, 9.0])):
        found = cal.sd.sums(histogram=edges)
        for place in ((0, 1, 1), (1, 2, 4), (0, 0, 0)):
            values = cal.values[:, *place]
            values = values[np.isfinite(values)]
            n, _ = np.histogram(values[values < edges[-1]], edges)  # NumPy closes the last bin
            at = dict(zip(("segment", "row", "column"), place, strict=True))
            np.testing.assert_array_equal(found["histogram"].isel(at), n)
            assert int(found["histogram_below"].isel(at)) == (values < edges[0]).sum()
            assert int(found["histogram_above"].isel(at)) == (values >= edges[-1]).sum()
    assert found["value"].attrs["units"] == "keV"
    assert found["value_bounds"].shape == (4, 2)


def test_variances_become_those_of_the_mean() -> None:
    cal = frames(chunk=6)
    variance = xr.full_like(cal, 2.0).rename("cal_variance")
    found = xs.with_variance(cal, variance).sd.sums().compute()
    np.testing.assert_allclose(found["mean_variance"], (2.0 / found["count"]).where(found["count"] > 0), rtol=1e-14)


def test_masks_leave_out_pixels_and_events() -> None:
    cal = frames()
    use = np.ones(SHAPE, bool)
    use[1, 1] = False
    found = cal.sd.sums(mask=use, also=["max", "sum"], count_above=0.0, histogram=[0.0, 1.0])
    for name in ("mean", "max", "sum"):
        assert np.isnan(found[name].values[~use]).all()
    for name in ("count", "n_above", "histogram_above"):
        assert (found[name].values[~use] == 0).all()
    some = cal.notnull() & (cal.event % 2 == 0)
    np.testing.assert_allclose(cal.sd.sums(mask=some)["mean"], cal.where(some).astype("f8").mean("event"), rtol=1e-14)


def test_what_another_record_finds_is_added_up() -> None:
    """Sums of images in photons, and mean curves by class, in the same pass."""
    sim = xs.simulate(30, shape=(2, 32, 64), seed=1)
    cal = sim.run["jungfrau"]["raw"].sd.calibrate(sim.constants)
    laser = sim.run["events"]["laser_on"]
    found = cal.sd.reduce(
        {
            "photons": xs.photon(9.5, image=True) | xs.sums(by=laser, also=["sum"]),
            "rows": xs.projection("row") | xs.sums(by=laser),
        }
    ).compute()
    each = cal.sd.photon(9.5, image=True).compute()  # small enough not to be warned of
    rows = cal.sd.projection("row").compute()
    for on in (False, True):
        chosen = (laser.values == on).nonzero()[0]
        mine = {"laser_on": on}
        np.testing.assert_allclose(
            found["photons_photons_sum"].sel(mine),
            each["photons"].isel(event=chosen).astype("f8").sum("event", min_count=1),
            rtol=1e-14,
        )
        np.testing.assert_allclose(
            found["rows_projection_mean"].sel(mine), rows["projection"].isel(event=chosen).mean("event"), rtol=1e-12
        )
    assert found["rows_projection_mean"].dims == ("laser_on", "segment", "row")
    assert "event" not in found["photons_n_photons_mean"].dims


def test_every_chunk_is_read_once_with_sums_and_all_else() -> None:
    sim = xs.simulate(24, shape=(1, 16, 32), seed=1)
    raw = sim.run["jungfrau"]["raw"]
    reads: list[tuple[int, ...]] = []

    def read(block: np.ndarray, block_info: dict | None = None) -> np.ndarray:
        if block_info:
            reads.append(tuple(block_info[0]["chunk-location"]))
        return block

    counted = raw.copy(data=da.from_array(raw.values, chunks=(5, *raw.shape[1:])).map_blocks(read, dtype=raw.dtype))
    cal = counted.sd.calibrate(sim.constants)
    small = cal.sd.reduce({"a": xs.sums(), "b": xs.sums(by=sim.run["events"]["laser_on"]), "c": xs.projection("row")})
    reads.clear()
    small.compute(scheduler="synchronous")
    assert sorted(reads) == sorted(set(reads))
    assert len(reads) == 5


def test_the_result_is_a_picture() -> None:
    sim = xs.simulate(6, shape=(2, 32, 64), seed=1)
    cal = sim.run["jungfrau"]["raw"].sd.calibrate(sim.constants).sd.assign_geometry(sim.geometry)
    image = cal.sd.sums()["mean"].sd.image()
    assert image.dims == ("image_y", "image_x")
    assert bool(np.isfinite(image).any())


def test_memory_of_sums_is_planned() -> None:
    cal = frames(chunk=5)
    plan = xs.plan(cal.sd.sums())
    assert plan.result_bytes >= 28 * np.prod(SHAPE)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"also": "median"}, "invalid also"),
        ({"count_above": "3"}, "invalid count_above"),
        ({"histogram": [1.0, 1.0]}, "not edges"),
        ({"by": np.zeros(23)}, "no class"),
        ({"by": xr.DataArray(np.arange(100.0), dims="event", name="delay")}, "no class"),
        ({"by": "laser_on"}, "do not know their classes"),
    ],
)
def test_what_makes_no_sense_is_refused(options: dict, said: str) -> None:
    with pytest.raises(ParameterError, match=said):
        frames().sd.sums(**options)


def test_nothing_valid_and_no_event_are_told() -> None:
    empty = frames().isel(event=slice(0, 0)).sd.sums(also=["max", "sum"])
    assert int(empty["n_events"]) == 0
    assert (empty["count"] == 0).all()
    assert empty["max"].isnull().all()
    nothing = xr.full_like(frames(), np.nan).sd.sums(also=["min"])
    assert nothing["mean"].isnull().all()
    assert nothing["min"].isnull().all()
    assert int(nothing["n_events"]) == 23


def test_integers_are_added_exactly() -> None:
    cal = frames(dtype="i4")
    np.testing.assert_array_equal(cal.sd.sums(also=["sum"])["sum"], cal.astype("i8").sum("event"))


def test_the_kernels_release_the_gil(lets_others_run) -> None:
    values = np.ones((8, 100_000), np.float32)
    made, count = np.zeros((1, 4, 100_000)), np.zeros((1, 100_000), np.uint32)
    assert lets_others_run(lambda: kernel.add(values, np.zeros(8, np.int64), made, count, 0))
