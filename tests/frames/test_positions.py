"""Positions of pixels that were changed by hand are refused: the geometry says where pixels are."""

from collections.abc import Callable

import numpy as np
import pytest
import xarray as xr

import xsmall as xs
from xsmall.errors import GeometryError


@pytest.fixture(scope="module")
def placed() -> xr.DataArray:
    sim = xs.simulate(3, shape=(2, 16, 32), seed=1)
    frames = sim.run["jungfrau"]["raw"].sd.calibrate(sim.constants).sd.assign_geometry(sim.geometry)
    return frames.sd.assign_beam(photon_energy=9500, distance=0.1)


KEPT: dict[str, Callable[[xr.DataArray], xr.DataArray]] = {
    "as they are": lambda d: d,
    "in memory": lambda d: d.compute(),
    "in another order": lambda d: d.compute().isel(segment=[1, 0], row=slice(None, None, -1), column=[5, 2, 9]),
    "one row": lambda d: d.isel(row=[3]),
    "chunks": lambda d: d.chunk(event=1, row=5),
    "chunks of what was in memory": lambda d: d.compute().chunk(event=1, row=5),
    "double": lambda d: d.assign_coords(x=d["x"].compute().astype("f8")),
    "segments joined": lambda d: xr.concat([d.isel(segment=[0]).compute(), d.isel(segment=[1])], "segment"),
    "arithmetic": lambda d: (2 * d).where(d > 0),
    "without": lambda d: d.drop_vars(["x", "y", "z"]),
    "another geometry": lambda d: d.sd.assign_geometry(
        xs.Beam(center=(1e-3, 0.0)).align(xs.simulate(1, shape=(2, 16, 32)).geometry)
    ),
}


@pytest.mark.parametrize("change", KEPT.values(), ids=KEPT)
def test_positions_that_are_those_of_the_geometry_are_taken(
    placed: xr.DataArray, change: Callable[[xr.DataArray], xr.DataArray]
) -> None:
    changed = change(placed)
    assert changed.sd.azint(5)["n_valid"].sum() > 0
    assert changed.sd.image().shape[0] == 3


@pytest.mark.parametrize("name", ["x", "y", "z"])
@pytest.mark.parametrize("lazy", [True, False])
def test_positions_that_were_moved_by_hand_are_refused(placed: xr.DataArray, name: str, lazy: bool) -> None:
    frames = placed if lazy else placed.compute()
    for moved in (
        frames.assign_coords({name: frames[name] + 1e-4}),
        frames.assign_coords({name: frames[name] + 1e-4}).isel(segment=[1], row=slice(8, 2, -1)),
        frames.assign_coords({name: ("column", np.arange(32))}),
        frames.assign_coords({name: xr.where(frames["segment"] == 1, frames[name] * 1.01 + 1e-4, frames[name])}),
    ):
        for reduced in (lambda m: m.sd.azint(5), lambda m: m.sd.image(), lambda m: m.sd.pixel("q")):
            with pytest.raises(GeometryError, match=f"'{name}' is not that of the geometry"):
                reduced(moved)
        geometry = xs.simulate(1, shape=(2, 16, 32)).geometry
        assert moved.sd.assign_geometry(geometry).sd.azint(5)["n_valid"].sum() > 0


def test_a_beam_moves_the_detector_as_the_error_says(placed: xr.DataArray) -> None:
    moved = placed.sd.assign_beam(center=(1e-3, 0.0), distance=0.11)
    assert moved.sd.azint(5)["q"][0] != placed.sd.azint(5)["q"][0]
