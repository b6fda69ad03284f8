"""Cubes are added only where the same was asked of the frames; averages know their events too."""

from typing import Any

import numpy as np
import pytest
import xarray as xr

import xsmall as xs
from xsmall.errors import DataError, ParameterError

SIM = xs.simulate(24, shape=(2, 16, 24), seed=3, missing=0)
CAL = (
    SIM.run["jungfrau/raw"]
    .sd.assign_geometry(SIM.geometry)
    .sd.assign_beam(photon_energy=9500, distance=SIM.beam.distance)
    .sd.calibrate(SIM.constants)
    .compute()
)
BINS = {"laser_on": xs.categories()}
HALVES = (slice(0, 12), slice(12, None))
MASK = np.ones((2, 16, 24), bool)
MASK[:, :5] = False
BOX = xs.Box(segment=1)


def cube(record: Any, events: slice, frames: xr.DataArray = CAL) -> xr.Dataset:
    made: xr.Dataset = frames.isel(event=events).sd.reduce({"r": record}).reset_coords("laser_on").sd.cube(BINS)
    return made


OTHERWISE = {
    "another box": (xs.roi({"a": BOX}), xs.roi({"a": xs.Box(segment=0)})),
    "a threshold": (xs.roi(BOX), xs.roi(BOX, threshold=3.0)),
    "a solid angle": (xs.azint(4, range=(0.3, 2)), xs.azint(4, range=(0.3, 2), solid_angle=True)),
    "another energy of a photon": (xs.photon(9.5), xs.photon(8.0)),
    "a mask": (xs.roi(BOX), xs.roi(BOX, mask=MASK)),
    "other droplets": tuple(xs.droplet(t) | xs.histogram("sum", np.linspace(0, 30, 5)) for t in (4.0, 8.0)),
}


@pytest.mark.parametrize("records", OTHERWISE.values(), ids=OTHERWISE)
def test_what_was_reduced_otherwise_is_not_added(records: tuple[xs.Record, xs.Record]) -> None:
    one, two = (cube(record, events) for record, events in zip(records, HALVES, strict=True))
    with pytest.raises(ParameterError, match="what was asked of r differs"):
        xs.merge_cubes(one, two)
    assert xs.merge_cubes(one, two, dim="run", labels=[1, 2]).sizes["run"] == 2
    again = cube(records[0], HALVES[1])
    assert xs.merge_cubes(one, again)["count"].sum() == 24


def test_masks_and_noise_of_each_run_are_told_and_added() -> None:
    one, two = (cube(xs.roi(BOX, mask=mask), events) for mask, events in zip((MASK, ~MASK), HALVES, strict=True))
    with pytest.warns(UserWarning, match="a table for each pixel of r"):
        xs.merge_cubes(one, two)


def test_what_was_calibrated_otherwise_is_not_added() -> None:
    trusting = SIM.run["jungfrau/raw"].sd.calibrate(SIM.constants, trust=["hot"])
    cubes = [
        SIM.run["events"].to_dataset()[["laser_on", "i0"]].isel(event=e).sd.cube(BINS, images={"j": frames})
        for e, frames in zip(HALVES, (CAL.drop_vars(list({*CAL.coords} - {*trusting.coords})), trusting), strict=True)
    ]
    with pytest.raises(ParameterError, match="calibrate, not_trusted differs"):
        xs.merge_cubes(*cubes)


def test_averages_and_replicas_of_the_same_events_are_not_added() -> None:
    small = SIM.run["events"].to_dataset()[["laser_on", "i0"]]
    overlap = (slice(0, 12), slice(10, None))
    for make in (
        lambda e: CAL.isel(event=e).sd.average(),
        lambda e: small.isel(event=e).sd.bootstrap(BINS, n=3),
    ):
        with pytest.raises(ParameterError, match="the same events"):
            xs.merge_cubes(*map(make, overlap))
    both = xs.merge_cubes(*(CAL.isel(event=e).sd.average() for e in HALVES))
    whole = CAL.sd.average()
    np.testing.assert_allclose(both[CAL.name or "mean"], whole[CAL.name or "mean"], rtol=1e-6)
    assert int(both["binned_events"]) == 24


def test_integrals_that_mean_something_else_are_not_merged() -> None:
    bins = np.linspace(0.3, 2, 6)
    one = CAL.sd.azint(bins)
    for other, what, fix in (
        (CAL.assign_attrs(units="photon").sd.azint(bins), "unit", 'unit="keV"'),
        (CAL.sd.assign_beam(photon_energy=8000).sd.azint(bins), "photon energy", "assign_beam(photon_energy=9500"),
        (CAL.sd.azint(bins, solid_angle=True), "correction", "the same solid_angle"),
        (CAL.sd.azint(bins, polarization_plane=0, polarization_fraction=0.9), "correction", "the same solid_angle"),
        (CAL.sd.azint(bins, statistic="sum"), "correction", "the same solid_angle"),
    ):
        with pytest.raises(DataError, match=f"integrals of another {what}") as told:
            xs.merge_azint(one, other)
        assert fix in str(told.value)
    said = CAL.sd.azint(bins, solid_angle=False, polarization_plane=None, polarization_fraction=None, statistic="mean")
    for other in (one, said):
        xr.testing.assert_allclose(xs.merge_azint(one, other)["intensity"], one["intensity"])


def test_frames_that_have_a_label_twice_are_averaged_all_the_same() -> None:
    twice = CAL.isel(event=[0, 0, 1])
    assert "binned_events" not in twice.sd.average()
    assert int(twice.sd.average()["count"]) == 3


CHANGED = {
    "half": lambda c: c / 2,
    "minus a number": lambda c: c - 5,
    "plus a number": lambda c: c + 1,
    "negative": lambda c: -c,
    "twice, by hand": lambda c: c + c,
    "half of the spreads": lambda c: c.assign(r_sum_std=c["r_sum_std"] / 2),
}


@pytest.mark.parametrize("lazy", [False, True])
@pytest.mark.parametrize("change", CHANGED.values(), ids=CHANGED)
def test_cubes_that_were_computed_with_as_a_whole_are_refused(change: Any, lazy: bool) -> None:
    one, two = (cube(xs.roi(BOX), events, CAL.chunk(event=5) if lazy else CAL) for events in HALVES)
    whole = xs.merge_cubes(one, two).compute()
    assert int(whole["count"].sum()) == 24
    wrong = change(one)
    for use in (
        lambda: xs.merge_cubes(wrong, two),
        lambda: xs.merge_cubes(two, wrong),
        lambda: xs.merge_cubes(wrong, two, dim="run", labels=[1, 2]),
        lambda: wrong.sd.difference("laser_on"),
    ):
        with pytest.raises((ParameterError, DataError), match=r"no number of events any more|do not fit each other"):
            use().compute()
    means = one.assign(r_sum=one["r_sum"] - 5)  # of the means alone, as the error says
    assert int(xs.merge_cubes(means, two)["count"].sum()) == 24


def test_cubes_of_events_that_were_cut_otherwise_say_so() -> None:
    def of(events: slice, **cuts: Any) -> xr.Dataset:
        small = CAL.isel(event=events).sd.roi(BOX).reset_coords("laser_on")
        made: xr.Dataset = (small.sd.select(**cuts) if cuts else small).sd.cube(BINS)
        return made

    bright, all_of_them = of(HALVES[0], sum=(0, None)), of(HALVES[1])
    with pytest.warns(UserWarning, match="selected by other cuts: sum: 0 <= sum, and no cut"):
        merged = xs.merge_cubes(bright, all_of_them)
    told = merged.attrs["selection"]
    assert '"n_passed": 12' in told.split("},")[-1]
    with pytest.warns(UserWarning, match="sum: 0 <= sum, and sum: -5 <= sum"):
        xs.merge_cubes(bright, of(HALVES[1], sum=(-5, None)))
    assert int(xs.merge_cubes(bright, of(HALVES[1], sum=(0, None)))["count"].sum()) > 0
    assert xs.merge_cubes(bright, all_of_them, dim="run", labels=[1, 2]).sizes["run"] == 2


def test_a_cube_with_weights_and_one_without_say_so_and_what_to_type() -> None:
    small = CAL.sd.roi(BOX)
    one, two = small.isel(event=HALVES[0]).sd.cube(BINS, weights="i0"), small.isel(event=HALVES[1]).sd.cube(BINS)
    for cubes in ((one, two), (two, one)):
        with pytest.raises(ParameterError, match=r"these cubes have other weights[\s\S]*weights=\"i0\"\)") as told:
            xs.merge_cubes(*cubes)
        assert "covariance" not in str(told.value)
    again = small.isel(event=HALVES[1]).sd.cube(BINS, weights="i0")  # as the error says
    assert xs.merge_cubes(one, again)["count"].sum() == int(SIM.run["events"]["xray_on"].sum())
