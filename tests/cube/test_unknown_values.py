"""Whole numbers of events that have none: 0 stands there, and is no value."""

from pathlib import Path

import numpy as np
import pytest
import xarray as xr

import xsmall as xs

LISTS = {"value": xs.Output(("high",), (None,), np.dtype("f4"))}
ON = {"laser_on": xs.categories()}


def frames(n: int = 60) -> xr.DataArray:
    sim = xs.simulate(n, shape=(1, 16, 32), seed=3)
    return sim.run["jungfrau"]["raw"].sd.calibrate(sim.constants)


def slower(cal: xr.DataArray) -> xr.DataArray:
    """A detector that has every second of the events."""
    return frames().assign_coords(event=cal["event"]).isel(event=slice(0, None, 2))


def bright(frame, epix):
    return {"n": (frame > 5).sum() + (epix > 5).sum(), "hit": (frame > 5).sum() > 30, "total": np.nansum(frame)}


def of_two(*, lazy: bool) -> xr.Dataset:
    cal = frames()
    record = xs.record(bright, beside={"epix": slower(cal)})
    small = cal.sd.reduce({"mine": record, "rows": xs.projection("row")})
    return small if lazy else small.compute()


@pytest.mark.parametrize("lazy", [False, True])
def test_a_cube_averages_the_events_that_have_a_value(lazy: bool) -> None:
    small = of_two(lazy=lazy)
    found = small.sd.cube(ON).compute()
    whole = small.compute()
    there = whole.isel(event=(whole.mine_missing == "").values & whole.xray_on.values)
    assert 0 < there.sizes["event"] <= 30
    for name in ("mine_n", "mine_hit"):
        expected = there[name].astype(float).groupby("laser_on").mean()
        np.testing.assert_allclose(found[name], expected, rtol=1e-12)
        np.testing.assert_array_equal(found[f"{name}_count"], there[name].groupby("laser_on").count())
    np.testing.assert_array_equal(found["mine_total_count"], found["mine_n_count"])
    assert "rows_n_valid_count" not in found  # of another record: nothing is unknown


def test_events_in_which_a_function_failed_have_no_value() -> None:
    cal = frames().compute()
    limit = np.sort(np.nansum(cal, axis=(1, 2, 3)))[30]

    @xs.record(outputs={"value": "i8"})
    def count(frame):
        if np.nansum(frame) > limit:
            raise ValueError("too bright")
        return (frame > 5).sum()

    small = cal.sd.apply(count)
    found = small.sd.cube(ON)
    there = small.isel(event=~small.failed.values & small.xray_on.values)
    np.testing.assert_allclose(found["value"], there["value"].astype(float).groupby("laser_on").mean(), rtol=1e-12)
    replicas = small.sd.bootstrap(ON, n=20)
    assert (replicas["value"] > there["value"].min()).all()
    near = small.sd.nearest_off({"delay": xs.bins(-3, 6, n=1)}, n=2)
    assert near["value_count"].item() < found["count"].sel(laser_on=True)


def test_of_detectors_of_a_production_absent_events_do_not_count() -> None:
    meanings = {"flag_masks": [1, 2, 4, 8, 16], "flag_meanings": "absent segments_missing unreadable failed lost"}
    small = xr.Dataset(
        {
            "laser_on": ("event", [True] * 4 + [False] * 2),
            "epix_drops_n_droplets": ("event", [3, 0, 0, 5, 1, 0]),
            "epix_drops_n_valid": ("event", [9, 0, 0, 9, 9, 9]),
            "epix_present": ("event", [True, False, True, True, True, True]),
            "epix_n_segments": ("event", [1, 0, 1, 1, 1, 1]),
            "epix_fault": ("event", np.array([0, 1, 8, 2, 0, 0], "u1"), meanings),
            "other": ("event", [1, 1, 1, 1, 1, 2]),
        }
    )
    found = small.sd.cube(ON)
    np.testing.assert_array_equal(found["epix_drops_n_droplets"], [0.5, 4.0])
    np.testing.assert_array_equal(found["epix_drops_n_droplets_count"], [2, 2])
    np.testing.assert_array_equal(found["epix_drops_n_valid"], [9, 4.5])  # none was valid: that is known
    np.testing.assert_array_equal(found["epix_present"], [1, 0.75])
    np.testing.assert_array_equal(found["other"], [1.5, 1])


def test_a_cut_and_bins_leave_out_what_is_not_known() -> None:
    small = of_two(lazy=False)
    lacking = int((small.mine_missing != "").sum())
    chosen = small.sd.select(mine_n=(0, None))
    assert chosen.sizes["event"] == 60 - lacking
    cube = small.sd.cube({"mine_n": xs.edges([0, 1000])}, dropped_shots=True)
    assert cube["mine_n"].attrs["n_missing"] == lacking
    assert int(cube["count"].sum()) == 60 - lacking
    by_hit = small.sd.cube({"mine_hit": xs.categories()}, dropped_shots=True)
    assert by_hit["mine_hit"].dtype == bool
    assert int(by_hit["count"].sum()) == 60 - lacking


def test_exposures_average_what_is_known() -> None:
    small = of_two(lazy=False)
    exposures = small.sd.integrate(into=frames()[9::10].assign_coords(event=small.event[9::10]))
    known = small["mine_n"].where(small.mine_missing == "")
    expected = [np.nanmean(known[i : i + 10]) for i in range(0, 60, 10)]
    np.testing.assert_allclose(exposures["mine_n"], expected, rtol=1e-12)


def test_the_same_after_saving(tmp_path: Path) -> None:
    small = of_two(lazy=False)
    for name in ("small.zarr", "small.h5"):
        again = xr.open_dataset(xs.save(small, tmp_path / name))
        np.testing.assert_array_equal(again.sd.cube(ON)["mine_n"], small.sd.cube(ON)["mine_n"])


def test_lengths_of_lists_in_a_file_are_not_known_either(tmp_path: Path) -> None:
    cal = frames()
    dark = cal["xray_on"].values & (np.nansum(cal, axis=(1, 2, 3)) > np.median(np.nansum(cal, axis=(1, 2, 3))))

    def high(frame, own):
        if own:
            raise ValueError("not this one")
        return [float(x) for x in frame[frame > 20]]

    own = xr.DataArray(dark, cal["event"].coords, ("event",))
    small = cal.sd.reduce({"mine": xs.record(high, beside={"own": own}, outputs=LISTS)}).compute()
    opened = xr.open_dataset(xs.save(small, tmp_path / "small.zarr"))
    (name,) = (n for n in opened.data_vars if str(n).startswith("n_"))
    found = opened.sd.cube(ON)
    there = opened.isel(event=~dark & opened.xray_on.values)
    np.testing.assert_allclose(found[name], there[name].astype(float).groupby("laser_on").mean(), rtol=1e-12)


def test_a_variable_of_the_users_own_called_failed_says_nothing() -> None:
    small = xr.Dataset({"on": ("event", [1, 1]), "n": ("event", [2, 0]), "failed": ("event", [False, True])})
    assert small.sd.cube({"on": xs.categories()})["n"].item() == 1.0


def test_sums_of_a_function_leave_out_what_is_not_known() -> None:
    cal = frames()
    record = xs.record(bright, beside={"epix": slower(cal)})
    each, summed = of_two(lazy=False), xs.apply(cal, record | xs.sums()).compute()
    there = each.isel(event=(each.mine_missing == "").values & each.xray_on.values)
    for name in ("n", "hit", "total"):
        assert summed[f"{name}_count"] == there.sizes["event"]
        np.testing.assert_allclose(summed[f"{name}_mean"], there[f"mine_{name}"].astype(float).mean(), rtol=1e-6)


def test_droplets_and_photons_of_a_missing_frame_are_not_none() -> None:
    cal = frames().compute()
    gone = np.arange(60) % 3 == 0
    cal.values[gone] = np.nan
    droplets = xs.droplet(4.75, 2.4)
    records = {"d": droplets, "p": xs.photon(9.5), "both": droplets | xs.photon(9.5)}
    small = cal.sd.reduce(records | {"sums": droplets | xs.histogram("sum", bins=30, range=(0, 30))})
    assert small["d_n_segments"].values.tolist() == (~gone).astype(int).tolist()
    found = small.sd.cube(ON, dropped_shots=True)
    there = small.isel(event=~gone)
    for name in ("d_n_droplets", "p_n_photons", "p_n_k", "both_n_photons", "both_n_droplets", "both_n_below"):
        expected = there[name].astype(float).groupby("laser_on").mean()
        np.testing.assert_allclose(found[name], expected, rtol=1e-12)
    assert (small["d_n_droplets"].values[gone] == 0).all()
    assert small.sd.select(d_n_droplets=(0, None)).sizes["event"] == 40
    assert small.sd.cube({"laser_on": xs.categories()}, dropped_shots=True)["count"].sum() == 60


def test_masked_segments_are_not_counted_among_those_with_droplets() -> None:
    two = xs.simulate(3, shape=(2, 16, 32), seed=3, missing=0.0)
    cal = two.run["jungfrau"]["raw"].sd.calibrate(two.constants).compute()
    mask = np.ones((2, 16, 32), bool)
    mask[0] = False
    assert cal.sd.droplet(4.75, mask=mask)["n_segments"].values.tolist() == [1, 1, 1]
    cal.values[1, 1] = np.inf
    assert cal.sd.droplet(4.75, mask=mask)["n_segments"].values.tolist() == [1, 0, 1]


@pytest.mark.parametrize("record", [xs.droplet(4.75, 2.4), xs.photon(9.5), xs.droplet(4.75, 2.4) | xs.photon(9.5)])
def test_sums_of_counts_leave_out_missing_frames(record: xs.Record) -> None:
    cal = frames().compute()
    cal.values[np.arange(60) % 3 == 0] = np.nan
    small = cal.sd.reduce({"each": record, "all": record | xs.sums()})
    whole = small.isel(event=(np.arange(60) % 3 != 0) & small["xray_on"].values)
    for name in {"n_droplets", "n_photons", "n_k", "n_above", "n_below"} & {
        str(k)[5:] for k in small if "each_" in str(k)
    }:
        np.testing.assert_allclose(small[f"all_{name}_mean"], whole[f"each_{name}"].mean("event"), rtol=1e-12)
        assert (small[f"all_{name}_count"] == whole.sizes["event"]).all()
