"""Mistakes, and what the error says to type: typed, it works."""

import re
import runpy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import xarray as xr

import xsmall as xs
from xsmall.errors import XsmallError

advice_in = runpy.run_path(str(Path(__file__).parents[1] / "docs" / "mistakes.py"))["advice_in"]

Make = Callable[[dict[str, Any]], object]


@pytest.fixture(scope="module")
def names(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What advice may speak of, by the names that it uses."""
    folder = tmp_path_factory.mktemp("advice")
    sim = xs.simulate(6, shape=(2, 32, 64), seed=1)
    raw = sim.run["jungfrau"]["raw"]
    placed = raw.sd.assign_geometry(sim.geometry).sd.assign_beam(photon_energy=9500, distance=0.1)
    foreign = folder / "foreign.h5"
    with h5py.File(foreign, "w") as file:
        file["data"] = np.zeros((4, 8, 8), "u2")
    path = xs.save_geometry(xs.Beam(distance=0.1).align(sim.geometry), folder / "detector.json")
    cal = placed.sd.calibrate(sim.constants)
    return {
        "xs": xs, "np": np, "sim": sim, "constants": sim.constants, "raw": raw, "placed": placed, "cal": cal,
        "foreign": foreign, "path": path, "geometry": sim.geometry, "folder": folder, "beam": xs.Beam(distance=0.1),
        "assign_beam": lambda **values: raw.sd.assign_beam(**values), "data": cal,
    }  # fmt: skip


# mistake -> how it is made, and how the advice is typed: the code that it names stands in the place of {}
MISTAKES: dict[str, tuple[Make, str]] = {
    "a file of somebody else": (lambda n: xs.open_run(n["foreign"]), "{}"),
    "what is no record": (lambda n: xs.apply(n["cal"], 3), "{}"),
    "a beam that is none": (lambda n: n["placed"].sd.assign_beam(9500), "raw{}"),
    "no value of a beam": (lambda n: n["placed"].sd.assign_beam(), "raw{}"),
    "a geometry by its path": (lambda n: n["raw"].sd.assign_geometry(n["path"]), "raw.sd.assign_geometry({})"),
    "q without a beam": (
        lambda n: n["raw"].astype("f4").sd.assign_geometry(n["geometry"]).sd.azint(bins=9),
        'raw.astype("f4").sd.assign_geometry(geometry){}.sd.azint(bins=9)',
    ),
    "status bits without status": (lambda n: xs.mask(n["placed"], status_bits=5), "xs.mask(placed, status_bits=5, {})"),
    "status convention without status": (
        lambda n: xs.mask(n["placed"], status_convention="psana1"),
        "xs.mask(placed, status_convention='psana1', {})",
    ),
    "gain stages without status": (
        lambda n: xs.mask(n["placed"], gain_stages=[0]),
        "xs.mask(placed, gain_stages=[0], {})",
    ),
    "neighbours without status": (lambda n: xs.mask(n["placed"], neighbours=1), "xs.mask(placed, neighbours=1, {})"),
    "noise for a threshold in keV": (
        lambda n: n["cal"].sd.droplet(4, 2, noise=n["constants"]),
        "cal.sd.droplet({}, threshold_low=xs.sigma(2), noise=constants)",
    ),
    "sigma without noise": (
        lambda n: n["cal"].sd.droplet(xs.sigma(5), xs.sigma(2)),
        "cal.sd.droplet(xs.sigma(5), xs.sigma(2), {})",
    ),
    "a beam where psana has no place": (
        lambda n: xs.save_geometry(n["geometry"], n["folder"] / "a.json", beam=n["beam"]),
        "{}",
    ),
    "thresholds out of order": (lambda n: n["cal"].sd.droplet(2, 4), "cal.sd.{}"),
    "boxes that are none": (lambda n: n["cal"].sd.roi((0, 1)), "{}"),
    "a box that ends beyond": (
        lambda n: n["cal"].sd.roi(xs.Box(segment=0, row=(5, 50), column=(0, 9))),
        "cal.sd.roi(xs.Box(segment=0, column=(0, 9), {}))",
    ),
    "a box that lies beyond": (
        lambda n: n["cal"].sd.roi(xs.Box(segment=0, row=(40, 50), column=(0, 9))),
        "cal.sd.roi(xs.Box(segment=0, column=(0, 9), {}))",
    ),
    "a gap in time without a unit": (
        lambda n: xs.subtract_ghost(n["cal"], 0.1, max_gap=10),
        "xs.subtract_ghost(cal, 0.1, {})",
    ),
    "one event": (lambda n: n["cal"].isel(event=0).sd.azint(bins=9), "cal{}.sd.azint(bins=9)"),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_what_the_error_says_to_type_works(mistake: str, names: dict[str, Any]) -> None:
    make, typed = MISTAKES[mistake]
    with pytest.raises(XsmallError) as caught:
        make(names)
    code = typed.format(advice_in(caught.value))
    assert eval(code, dict(names)) is not None, code


def test_what_looks_like_a_mistake_and_is_none_works(names: dict[str, Any]) -> None:
    cal, placed = names["cal"], names["placed"]
    beam = xs.Beam(photon_energy=9500, distance=0.2)
    xr.testing.assert_identical(placed.sd.assign_beam(beam), placed.sd.assign_beam(beam=beam))
    noise = (names["constants"]["noise"] / names["constants"]["gain"]).isel(gain_stage=0).assign_attrs(units="keV")
    both = (cal.sd.droplet(xs.sigma(5), xs.sigma(2), noise=given).compute() for given in (names["constants"], noise))
    np.testing.assert_array_equal(*(found["n_droplets"] for found in both))


def test_paths_in_advice_are_those_that_were_given(names: dict[str, Any], tmp_path: Path) -> None:
    with pytest.raises(XsmallError, match=re.escape(str(names["foreign"]))):
        xs.open_run(names["foreign"])
