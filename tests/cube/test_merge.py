"""Merging cubes: what differs is named, the same events come once, steps meet by value, nothing is forgotten."""

import json
from typing import Any

import numpy as np
import pytest
import xarray as xr
from hypothesis import given, settings
from hypothesis import strategies as st

import xsmall as xs
from xsmall.errors import ParameterError

START = np.datetime64("2026-01-01", "ns")


def small(n: int = 60, first: int = 0, **attrs: Any) -> xr.Dataset:
    rng = np.random.default_rng(first)
    return xr.Dataset(
        {
            "motor": ("event", np.repeat(np.arange(3.0), n // 3)),
            "on": ("event", rng.random(n) < 0.5),
            "signal": (("event", "q"), rng.normal(10, 1, (n, 2)), {"units": "keV"}),
        },
        coords={"event": START + (first + np.arange(n)).astype("m8[ns]"), "q": [0.1, 0.2]},
        attrs=attrs,
    )


def by_on(data: xr.Dataset) -> xr.Dataset:
    cube: xr.Dataset = data.sd.cube({"on": xs.categories()})
    return cube


def by_motor(data: xr.Dataset) -> xr.Dataset:
    cube: xr.Dataset = data.sd.cube({"motor": xs.steps(tolerance=0.05)})
    return cube


@pytest.mark.parametrize(
    ("change", "named"),
    [
        (lambda d: d.assign_coords(q=[0.1, 0.3]), "q differs"),
        (lambda d: d.assign(signal=d["signal"].assign_attrs(units="photon")), "units of signal"),
        (lambda d: d.assign(signal=d["signal"].assign_attrs(detector_type="epix10ka")), "detector_type of signal"),
        (lambda d: d.assign_coords(photon_energy=9501.0), "photon_energy differs"),
        (lambda d: d.assign_coords(distance=0.2), "distance differs"),
        (lambda d: d.assign_coords(geometry=((), 2, {"rule": "other"})), "geometry differs"),
        (lambda d: d.drop_vars(["photon_energy"]), "photon_energy differs"),
    ],
)
def test_what_differs_is_named(change: Any, named: str) -> None:
    known = {"photon_energy": 9500.0, "distance": 0.1, "geometry": ((), 1, {"rule": "one"})}
    one, two = small().assign_coords(known), small(first=1000).assign_coords(known)
    assert int(xs.merge_cubes(by_on(one), by_on(two))["count"].sum()) == 120
    with pytest.raises(ParameterError, match=named):
        xs.merge_cubes(by_on(one), by_on(change(two)))


def test_the_same_events_come_once_also_after_saving_and_merging(tmp_path: Any) -> None:
    a, b = by_on(small()), by_on(small(first=1000))
    path = tmp_path / "a.zarr"
    xs.save(a, path)
    stored = xr.open_zarr(path)
    for cubes in ((a, a), (a, stored), (xs.merge_cubes(a, b), a), (a, by_on(small().isel(event=slice(59, None))))):
        with pytest.raises(ParameterError, match="same events"):
            xs.merge_cubes(*cubes)
    runs = [by_on(xs.simulate(40, seed=s).run["events"].to_dataset().rename(laser_on="on")) for s in (1, 2)]
    assert int(xs.merge_cubes(*runs)["count"].sum()) == int(runs[0]["count"].sum() + runs[1]["count"].sum())
    with pytest.raises(ParameterError, match="same events"):
        xs.merge_cubes(runs[0], runs[0].copy())


@settings(max_examples=30)
@given(st.lists(st.sampled_from([0.0, 1.0, 2.0, 3.0]), min_size=1, max_size=4, unique=True), st.floats(-0.02, 0.02))
def test_steps_that_differ_meet_by_value(there: list[float], shift: float) -> None:
    """Each step holds the events that were at its place, whichever run they are of."""
    motor = np.repeat(there, 4)
    first = small()
    second = first.isel(event=slice(0, motor.size)).assign(motor=("event", motor + shift))
    second = second.assign_coords(event=START + (5000 + np.arange(motor.size)).astype("m8[ns]"))
    merged = xs.merge_cubes(by_motor(first), by_motor(second))
    together = xr.concat([first, second.assign(motor=("event", motor))], "event")
    whole = by_motor(together)
    np.testing.assert_allclose(merged["motor"], whole["motor"], atol=0.021)
    for name in ("signal", "signal_std", "signal_stderr", "signal_count", "count"):
        np.testing.assert_allclose(merged[name], whole[name], rtol=1e-12)
    assert merged["signal_count"].dtype.kind in "iu"


def test_categories_that_differ_are_empty_where_they_were_not() -> None:
    data = small().assign(kind=("event", np.repeat(["a", "b"], 30)))
    other = small(first=1000).assign(kind=("event", np.repeat(["b", "c"], 30)))
    merged = xs.merge_cubes(*(d.sd.cube({"kind": xs.categories()}) for d in (data, other)))
    assert merged["kind"].values.tolist() == ["a", "b", "c"]
    assert merged["count"].values.tolist() == [30, 60, 30]


def test_steps_too_close_for_the_tolerance_are_refused() -> None:
    data = small().assign(motor=("event", np.repeat([0.0, 0.04, 1.0], 20)))
    with pytest.raises(ParameterError, match="steps of motor"):
        xs.merge_cubes(data.sd.cube({"motor": xs.steps(tolerance=0.01)}), by_motor(small(first=1000)).copy())


def test_sources_runs_and_parameters_of_all_are_kept() -> None:
    cubes = [by_on(small(first=1000 * k, source=f"run{k}.h5", run=k)) for k in range(3)]
    merged = xs.merge_cubes(xs.merge_cubes(cubes[0], cubes[1]), cubes[2])
    assert merged.attrs["source"].splitlines() == ["run0.h5", "run1.h5", "run2.h5"]
    assert list(merged["binned_events"].attrs["runs"]) == [0, 1, 2]
    assert int(merged["binned_events"]) == 180
    assert "cube" in json.loads(merged.attrs["parameters"])["function"]


def test_cubes_stand_side_by_side_by_run_with_what_differs() -> None:
    cubes = [
        by_on(small(first=1000 * k, run=k).assign_coords(photon_energy=9500.0 + k, distance=0.1)) for k in (41, 42)
    ]
    both = xs.merge_cubes(*cubes, dim="run")
    assert both["run"].values.tolist() == [41, 42]
    assert both["photon_energy"].dims == ("run",)
    assert both["distance"].ndim == 0
    for k, one in zip((41, 42), cubes, strict=True):
        np.testing.assert_array_equal(both["signal"].sel(run=k).values, one["signal"].values)
        np.testing.assert_array_equal(both["count"].sel(run=k).values, one["count"].values)
    with pytest.raises(ParameterError, match=r"dim='run'"):
        xs.merge_cubes(*cubes)
    with pytest.raises(ParameterError, match="label each"):
        xs.merge_cubes(*cubes, dim="run", labels=[1, 1])


def test_images_that_were_left_out_are_counted_once() -> None:
    data = small()
    images = {"im": xr.DataArray(np.ones((60, 1, 2, 3)), dims=("event", "segment", "row", "column"),
                                 coords={"event": data.event})}  # fmt: skip
    parts = [
        data.isel(event=slice(i, i + 10)).sd.cube({"on": xs.categories()}, images=images) for i in range(0, 50, 10)
    ]
    merged = xs.merge_cubes(*parts)
    assert merged["im"].attrs["n_without_small_data"] == 10
    assert merged["im"].attrs["n_without_image"] == 0


def test_runs_of_other_seeds_share_no_event() -> None:
    times = [xs.simulate(500, seed=seed).run["events"].event.values for seed in (0, 1, 7)]
    assert np.unique(np.concatenate(times)).size == 1500


def test_what_does_not_run_over_events_is_the_same_in_all_and_stays() -> None:
    one, two = (by_on(small(first=k).assign(gain=("q", [1.0, 2.0]))) for k in (0, 1000))
    assert xs.merge_cubes(one, two)["gain"].values.tolist() == [1.0, 2.0]
    assert xs.merge_cubes(one, two, dim="run", labels=[1, 2])["gain"].dims == ("q",)
    with pytest.raises(ParameterError, match="gain differs"):
        xs.merge_cubes(one, two.assign(gain=("q", [1.0, 3.0])))
    averages = [small(first=k)["signal"].sd.average() for k in (0, 1000)]
    both = xr.concat([small(first=k)["signal"] for k in (0, 1000)], "event")
    np.testing.assert_allclose(xs.merge_cubes(*averages)["signal_std"], both.std("event", ddof=1), rtol=1e-12)


@pytest.mark.parametrize("factor", [0.5, 2])
def test_a_cube_that_was_computed_with_is_not_added(factor: float) -> None:
    one, two = by_on(small()), by_on(small(first=1000))
    with pytest.raises(ParameterError, match="no number of events any more"):
        xs.merge_cubes(one * factor, two)


def test_cubes_of_two_dims_with_borders_keep_them_apart() -> None:
    rng = np.random.default_rng(1)
    n = 400
    small = xr.Dataset(
        {
            "temperature": ("event", rng.uniform(0, 4, n)),
            "place": ("event", rng.choice([0.5, 2.0], n) + rng.uniform(-0.01, 0.01, n)),
            "signal": ("event", rng.normal(size=n)),
        },
        {"event": np.arange(n)},
    )
    bins = {"temperature": xs.bins(0, 4, n=4), "place": xs.steps(tolerance=0.05)}
    parts = [small.isel(event=part).sd.cube(bins) for part in (slice(0, 150), slice(150, None))]
    whole = small.sd.cube(bins)
    parts[1] = parts[1].transpose("bin_edge", "place", "temperature")  # as one likes
    merged = xs.merge_cubes(*parts)
    np.testing.assert_array_equal(merged["place_bounds"], whole["place_bounds"])
    assert merged["place_bounds"].dims == whole["place_bounds"].dims == ("place", "bin_edge")
    np.testing.assert_allclose(merged["signal"], whole["signal"], rtol=1e-12)
    joined = whole.sd.rebin(temperature=2)
    assert joined["place_bounds"].dims == ("place", "bin_edge")
    turned = whole.transpose("bin_edge", "place", "temperature").sd.rebin(temperature=2)
    np.testing.assert_array_equal(turned["temperature_bounds"].transpose("temperature", "bin_edge"), [[0, 2], [2, 4]])
    np.testing.assert_allclose(turned["signal"].transpose(*joined["signal"].dims), joined["signal"], rtol=1e-12)
