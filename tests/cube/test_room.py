"""Names and memory that a cube needs are looked at before anything is averaged."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import xarray as xr

import xsmall as xs
from xsmall.errors import ParameterError, PlanError

N = 12
TIMES = np.arange(N).astype("M8[ms]").astype("M8[ns]")
BY = np.arange(N) % 4 * 0.1
BINS = {"x": xs.bins(0, 0.4, n=4)}


def small(**more: Any) -> xr.Dataset:
    on = ("event", np.arange(N) % 2 == 0)
    return xr.Dataset({"s": ("event", np.arange(N) * 1.0), "laser_on": on, **more}, {"event": TIMES})


def frames() -> xr.DataArray:
    values = np.ones((N, 2, 3, 4), np.float32)
    return xr.DataArray(values, dims=("event", "segment", "row", "column"), coords={"event": TIMES})


WAYS: list[Callable[[xr.Dataset, Any], Any]] = [
    lambda data, bins: data.sd.cube(bins),
    lambda data, bins: data.sd.bootstrap(bins, n=3),
    lambda data, bins: data.sd.nearest_off(bins),
]


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("name", ["count", "event", "bin_edge", "binned_events", "replica", "geometry"])
def test_names_that_mean_something_else_in_a_cube_are_no_bins_and_the_advice_works(
    way: Callable[[xr.Dataset, Any], Any], name: str
) -> None:
    data = small() if name == "event" else small(**{name: ("event", BY)})
    bins = xs.edges(TIMES[[0, 4, 8]]) if name == "event" else xs.bins(0, 0.4, n=4)
    with pytest.raises(ParameterError, match=f"name {name!r}(.|\n)*do this:  small.assign.by_{name}="):
        way(data, {name: bins})
    renamed = data.assign({f"by_{name}": ("event", data[name].values)}).drop_vars(name if name != "event" else [])
    assert f"by_{name}" in way(renamed, {f"by_{name}": bins}).dims


@pytest.mark.parametrize("way", WAYS)
def test_bins_and_their_bounds_share_no_name(way: Callable[[xr.Dataset, Any], Any]) -> None:
    by = xs.bins(0, 0.4, n=4)
    with pytest.raises(ParameterError, match="name 'x_bounds'"):
        way(small(x=("event", BY), x_bounds=("event", BY)), {"x": by, "x_bounds": by})


@pytest.mark.parametrize("name", ["segment", "row", "column"])
def test_images_over_a_dim_of_the_name_of_the_bins_are_refused_and_the_advice_works(name: str) -> None:
    data = small(**{name: ("event", BY)})
    by = xs.bins(0, 0.4, n=4)
    with pytest.raises(ParameterError, match=f"dim of the name of the bins(.|\n)*small.assign.by_{name}="):
        data.sd.cube({name: by}, images={"jf": frames()})
    renamed = data.assign({f"by_{name}": ("event", data[name].values)}).drop_vars(name)
    assert renamed.sd.cube({f"by_{name}": by}, images={"jf": frames()})["jf"].shape == (4, 2, 3, 4)


@pytest.mark.parametrize("name", ["event", "segment", "bin_edge", "binned_events", "geometry", "x", "count", "s_std"])
def test_images_have_a_name_of_their_own(name: str) -> None:
    with pytest.raises(ParameterError, match=f"{name!r}"):
        small(x=("event", BY)).sd.cube({"x": xs.bins(0, 0.4, n=4)}, images={name: frames()})
    with pytest.raises(ParameterError, match="given by name"):
        small(x=("event", BY)).sd.cube({"x": xs.bins(0, 0.4, n=4)}, images={3: frames()})  # type: ignore[dict-item]


def test_a_binned_variable_of_the_name_of_a_statistic_is_refused_by_replicas_too() -> None:
    data, bins = small(s_std=("event", BY)), {"s_std": xs.bins(0, 0.4, n=4)}
    for way in WAYS[:2]:
        with pytest.raises(ParameterError, match="'s_std' would be there twice"):
            way(data, bins)
    assert WAYS[2](data, bins)["s"].dims == ("s_std",)  # there is no spread of differences


@pytest.mark.parametrize("way", WAYS)
def test_bins_that_do_not_fit_into_memory_are_refused(way: Callable[[xr.Dataset, Any], Any]) -> None:
    data = small(x=("event", BY), y=("event", BY), z=("event", BY))
    with pytest.raises(PlanError, match=r"does not fit into memory(.|\n)*1000000000000 bins"):
        way(data, {name: xs.bins(0, 1, n=10000) for name in "xyz"})


def test_spectra_in_bins_that_do_not_fit_are_refused_and_the_advice_works() -> None:
    data = small(x=("event", BY)).assign(spectrum=(("event", "q"), np.ones((N, 1000))))
    with pytest.raises(PlanError, match=r"1000 values of 'spectrum'(.|\n)*do this:  at most 15 bins"):
        data.sd.cube({"x": xs.bins(0, 0.4, n=16)}, memory=1000 * 64 * 15)
    data.sd.cube({"x": xs.bins(0, 0.4, n=15)}, memory=1000 * 64 * 15)
    with pytest.raises(PlanError, match=r"do this:  leave 'spectrum' out"):
        data.sd.cube({"x": xs.bins(0, 0.4, n=4)}, memory=1000 * 63)


@pytest.mark.parametrize("statistics", [3, None])
def test_statistics_are_given_by_name(statistics: Any) -> None:
    with pytest.raises(ParameterError, match="given by name"):
        small(x=("event", BY)).sd.cube({"x": xs.bins(0, 0.4, n=4)}, statistics=statistics)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda data, cube: data.sd.bootstrap(BINS, n=3, seed="a"), "invalid seed"),
        (lambda data, cube: data.sd.bootstrap(BINS, n=3, seed=-1), "invalid seed"),
        (lambda data, cube: data.sd.bootstrap(BINS, n=3, seed=None), "invalid seed"),
        (lambda data, cube: data.sd.bootstrap(BINS, n=3, block=0), "invalid length of blocks"),
        (lambda data, cube: cube.sd.difference(["laser_on"]), "one dim, given by its name"),
        (lambda data, cube: cube.sd.difference(3), "one dim, given by its name"),
        (lambda data, cube: xs.merge_cubes(cube, cube, dim=3, labels=[1, 2]), "a new dim has a name"),
        (lambda data, cube: xs.merge_cubes(cube, cube, dim="run", labels=5), "need a label each"),
        (lambda data, cube: xs.merge_cubes(cube, cube, dim="run", labels="ab"), "need a label each"),
        (lambda data, cube: xs.merge_cubes(cube, cube, dim="run", labels=[[1], [2]]), "need a label each"),
        (lambda data, cube: xs.lane_store(3), "store of lanes is a folder"),
    ],
)
def test_arguments_of_another_kind_are_said(call: Callable[[xr.Dataset, xr.Dataset], Any], message: str) -> None:
    data = small(x=("event", BY))
    with pytest.raises(ParameterError, match=message):
        call(data, data.sd.cube({"laser_on": xs.categories()}))
