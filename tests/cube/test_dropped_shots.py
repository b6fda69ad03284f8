"""Shots without X-rays are a class of their own: not in averages and cubes, and counted."""

from collections.abc import Callable
from typing import Any

import dask.array as da
import numpy as np
import pytest
import xarray as xr

import xsmall as xs
from xsmall.errors import DataError

N = 90
BINS = {"delay": xs.bins(0, 3, n=3), "laser_on": xs.categories()}


def small() -> xr.Dataset:
    rng = np.random.default_rng(0)
    lit = np.arange(N) % 9 != 4
    return xr.Dataset(
        {
            "delay": ("event", rng.uniform(-1, 4, N)),
            "laser_on": ("event", np.arange(N) % 3 != 2),
            "xray_on": ("event", lit),
            "signal": ("event", np.where(lit, 5.0, 0.0) + rng.normal(0, 0.1, N)),
        },
        coords={"event": np.datetime64("2026-01-01", "ns") + np.arange(N).astype("m8[ns]")},
    )


@pytest.mark.parametrize("lazy", [False, True])
def test_a_cube_is_that_of_the_lit_shots_and_says_how_many_were_dropped(lazy: bool) -> None:
    data = small()
    lit = data.isel(event=data.xray_on.values)
    found = (data.chunk(event=20) if lazy else data).sd.cube(BINS)
    expected = lit.sd.cube(BINS)
    for name in expected.data_vars:
        np.testing.assert_allclose(found[name].values, expected[name].values, rtol=1e-12)
    assert found.attrs["n_dropped_shots"] == 10
    assert found.attrs["n_events"] == N
    assert found.attrs["n_outside"] == expected.attrs["n_outside"]
    assert int(found["count"].sum()) + found.attrs["n_outside"] + 10 == N
    assert found["delay"].attrs == expected["delay"].attrs
    assert int(found["binned_events"]) == int(found["count"].sum())


def test_dropped_shots_can_be_asked_for() -> None:
    data = small()
    every = data.sd.cube(BINS, dropped_shots=True)
    assert "n_dropped_shots" not in every.attrs
    assert int(every["count"].sum()) == int(data.drop_vars("xray_on").sd.cube(BINS)["count"].sum())
    classes = data.sd.cube({"xray_on": xs.categories()})
    assert classes["count"].values.tolist() == [10, 80]
    assert abs(float(classes["signal"].sel(xray_on=False))) < 0.2


def test_images_and_averages_leave_them_out() -> None:
    data = small()
    frames = data["signal"].expand_dims(segment=1, row=2, column=3).transpose("event", ...).astype("f4")
    frames = frames.assign_coords(xray_on=data["xray_on"])
    lit = data.isel(event=data.xray_on.values)
    found = frames.sd.average()
    np.testing.assert_allclose(found["signal"], float(lit["signal"].astype("f4").mean()), rtol=1e-6)
    assert found.attrs["n_dropped_shots"] == 10
    assert int(found["count"]) == 80
    assert float(frames.sd.average(dropped_shots=True)["signal"].max()) < float(found["signal"].min())
    unaware = data.drop_vars("xray_on").rename(signal="own")  # only the images know
    cube = unaware.sd.cube({"laser_on": xs.categories()}, images={"signal": frames})
    assert cube["signal"].attrs["n_dropped_shots"] == 10
    np.testing.assert_allclose(cube["signal_count"].isel(segment=0, row=0, column=0).sum(), 80)
    both = data.drop_vars("signal").sd.cube({"laser_on": xs.categories()}, images={"signal": frames})
    np.testing.assert_array_equal(both["signal"], cube["signal"])
    assert both["signal"].attrs["n_without_image"] == 0


def test_what_nobody_knows_is_kept_and_numbers_are_understood() -> None:
    data = small()
    flag = data["xray_on"].astype(float)
    flag[:5] = np.nan  # the fifth was dropped, and nobody knows
    assert data.assign(xray_on=flag).sd.cube(BINS).attrs["n_dropped_shots"] == 9
    with pytest.raises(DataError, match="true or false per event"):
        data.assign(xray_on=("event", ["on"] * N)).sd.cube(BINS)


def test_a_run_of_which_one_shot_in_fifty_is_dropped_is_not_two_percent_low(
    computing_is_forbidden: Callable[[], Any],
) -> None:
    sim = xs.simulate(300, shape=(1, 16, 32), seed=4, xray_off_every=10)
    cal = sim.run["jungfrau"]["raw"].sd.calibrate(sim.constants)
    with computing_is_forbidden():
        lazy = cal.sd.average()
    lit = cal.isel(event=np.flatnonzero(cal.xray_on.values))
    np.testing.assert_allclose(lazy["calibrated"], lit.sd.average()["calibrated"], rtol=1e-10)
    merged = xs.merge_cubes(*(sim.run["events"].to_dataset().isel(event=s).sd.cube({"laser_on": xs.categories()})
                              for s in (slice(0, 100), slice(100, None))))  # fmt: skip
    assert merged.attrs["n_dropped_shots"] == 30


def test_an_average_of_some_events_reads_these_alone() -> None:
    reads: list[int] = []
    values = np.random.default_rng(1).normal(size=(40, 1, 4, 5)).astype("f4")

    def read(block: np.ndarray, block_info: dict | None = None) -> np.ndarray:
        if block_info:
            reads.append(block_info[0]["chunk-location"][0])
        return block

    data = da.from_array(values, chunks=(2, 1, 4, 5)).map_blocks(read, dtype="f4")
    lit = np.arange(40) % 4 != 0
    frames = xr.DataArray(data, {"event": np.arange(40)}, ("event", "segment", "row", "column"), name="cal")
    first = xs.average(frames, n=10)
    reads.clear()
    np.testing.assert_allclose(first.compute(scheduler="synchronous")["cal"], values[:10].mean(axis=0), rtol=1e-5)
    assert sorted(reads) == list(range(5))
    of_lit = xs.average(frames.assign_coords(xray_on=("event", lit)), n=10).compute()
    np.testing.assert_allclose(of_lit["cal"], values[lit][:10].mean(axis=0), rtol=1e-5)
    assert int(of_lit["count"]) == 10
    assert int(xs.average(frames, n=1000)["count"]) == 40
    for wrong in (0, -1, 2.5, True):
        with pytest.raises(xs.XsmallError, match="invalid n"):
            xs.average(frames, n=wrong)
