"""Bad input, as a user meets it: each mistake has its one error, or its well-defined empty result."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray as xr

import xsmall as xs
from xsmall.errors import CalibrationError, DataError, FileFormatError, GeometryError, ParameterError, XsmallError

BOX = xs.Box(segment=0, row=(5, 9), column=(0, 9))


@pytest.fixture(scope="module")
def sim() -> Any:
    return xs.simulate(6, shape=(2, 32, 64), seed=1)


@pytest.fixture(scope="module")
def raw(sim: Any) -> xr.DataArray:
    return sim.run["jungfrau"]["raw"]


@pytest.fixture(scope="module")
def cal(sim: Any, raw: xr.DataArray) -> xr.DataArray:
    placed = raw.sd.assign_geometry(sim.geometry).sd.assign_beam(photon_energy=9500, distance=0.1)
    return placed.sd.calibrate(sim.constants)


MISTAKES: dict[str, tuple[Callable[[Any, xr.DataArray, xr.DataArray], Any], type[XsmallError], str]] = {
    "a geometry of another shape": (
        lambda sim, raw, cal: raw.sd.assign_geometry(xs.simulate(1, shape=(2, 16, 64)).geometry),
        GeometryError,
        "row.*do not fit",
    ),
    "constants of another detector": (
        lambda sim, raw, cal: raw.sd.calibrate(sim.constants.assign_attrs(detector_type="epix10ka")),
        CalibrationError,
        "epix10ka",
    ),
    "constants of another shape": (
        lambda sim, raw, cal: raw.sd.calibrate(xs.simulate(1, shape=(2, 16, 64)).constants),
        CalibrationError,
        "every row of the data",
    ),
    "constants without a gain stage": (
        lambda sim, raw, cal: raw.sd.calibrate(sim.constants.isel(gain_stage=[0, 1])),
        CalibrationError,
        "G0, G1, G2",
    ),
    "gains that are zero": (
        lambda sim, raw, cal: raw.sd.calibrate(sim.constants.assign(gain=sim.constants.gain * 0)),
        CalibrationError,
        "no pixel has a usable gain",
    ),
    "raw words that are no integers": (
        lambda sim, raw, cal: raw.astype(float).sd.calibrate(sim.constants),
        DataError,
        "uint16",
    ),
    "q without a beam": (
        lambda sim, raw, cal: raw.sd.assign_geometry(sim.geometry).sd.azint(),
        ParameterError,
        r"assign_beam\(",
    ),
    "q without a geometry": (lambda sim, raw, cal: raw.sd.azint(), GeometryError, r"assign_geometry\("),
    "a photon energy in keV": (
        lambda sim, raw, cal: cal.sd.assign_beam(photon_energy=9.5, distance=0.1),
        ParameterError,
        "9500",
    ),
    "a distance in cm": (
        lambda sim, raw, cal: cal.sd.assign_beam(photon_energy=9500, distance=92.5),
        ParameterError,
        "0.0925",
    ),
    "an empty region": (
        lambda sim, raw, cal: cal.sd.roi(xs.Box(segment=0, row=(5, 5), column=(0, 9))),
        ParameterError,
        "holds no pixel",
    ),
    "a region on a segment that is not there": (
        lambda sim, raw, cal: cal.sd.roi(xs.Box(segment=5, row=(5, 9), column=(0, 9))),
        ParameterError,
        r"one of \(0, 1\)",
    ),
    "a region without its segment": (
        lambda sim, raw, cal: cal.sd.roi(xs.Box(row=(5, 9), column=(0, 9))),
        ParameterError,
        "segment=0",
    ),
    "bins that cover no pixel": (
        lambda sim, raw, cal: cal.sd.azint(bins=np.linspace(50, 60, 9)),
        ParameterError,
        "cover no pixel",
    ),
    "thresholds out of order": (
        lambda sim, raw, cal: cal.sd.droplet(2, 4),
        ParameterError,
        r"droplet\(threshold=4(\.0)?, threshold_low=2(\.0)?\)",
    ),
    "all pixels masked in an azimuthal integral": (
        lambda sim, raw, cal: cal.sd.azint(bins=9, mask=np.zeros((2, 32, 64), bool)),
        ParameterError,
        "no pixel is left",
    ),
    "a mask of integers": (
        lambda sim, raw, cal: cal.sd.azint(bins=9, mask=np.ones((2, 32, 64), int)),
        ParameterError,
        "True where a pixel may be used",
    ),
    "one event instead of a list of one": (
        lambda sim, raw, cal: cal.isel(event=0).sd.azint(bins=9),
        DataError,
        r"isel\(event=\[0\]\)",
    ),
    "bins of a cube that hold no event": (
        lambda sim, raw, cal: cal.sd.roi(BOX).compute().sd.cube({"delay": xs.bins(100, 200, width=10)}),
        ParameterError,
        "cover no event",
    ),
    "a scan variable that is not there": (
        lambda sim, raw, cal: cal.sd.roi(BOX).compute().sd.cube({"delya": xs.bins(0, 1, n=2)}),
        ParameterError,
        "delay",
    ),
    "bins that are a bare number": (
        lambda sim, raw, cal: cal.sd.roi(BOX).compute().sd.cube({"delay": 5}),
        ParameterError,
        r"xs\.bins",
    ),
    "bins the wrong way round": (lambda sim, raw, cal: xs.bins(5, 1, width=1), ParameterError, "start below stop"),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_raises_one_error_that_helps(
    mistake: str, sim: Any, raw: xr.DataArray, cal: xr.DataArray, computing_is_forbidden: Callable[[], Any]
) -> None:
    make, kind, message = MISTAKES[mistake]
    with pytest.raises(kind, match=f"(?s){message}"):
        make(sim, raw, cal)


@pytest.mark.parametrize("content", [b"", b"this is a text and no run " * 20, b"\0" * 500])
def test_a_file_that_is_no_xtc2_is_named_with_its_offset(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "run.xtc2"
    path.write_bytes(content)
    with pytest.raises(FileFormatError, match=r"run\.xtc2, byte 0"):
        xs.open_run(path)


def test_zero_events_give_results_without_events(cal: xr.DataArray) -> None:
    empty = cal.isel(event=slice(0, 0)).sd.reduce({"q": xs.azint(bins=9), "roi": xs.roi(BOX), "d": xs.droplet(4, 2)})
    assert empty.compute().sizes["event"] == 0
    assert empty["q_intensity"].shape == (0, 9)


def test_one_event_gives_what_it_gives_among_others(cal: xr.DataArray) -> None:
    alone = cal.isel(event=[2]).sd.azint(bins=9).compute()
    among = cal.sd.azint(bins=9).compute().isel(event=[2])
    xr.testing.assert_equal(alone, among)


def test_a_region_that_is_masked_whole_is_nan_with_no_valid_pixel(cal: xr.DataArray) -> None:
    found = cal.sd.roi(BOX, mask=np.zeros((2, 32, 64), bool)).compute()
    assert (found["n_valid"] == 0).all()
    assert np.isnan(found["sum"]).all()
    assert np.isnan(found["mean"]).all()


def test_things_of_the_wrong_kind_are_named(cal: xr.DataArray) -> None:
    small = cal.sd.roi(BOX).compute()
    delay = {"delay": xs.bins(-2, 5, n=2)}
    cube = small.sd.cube(delay)
    with pytest.raises(ParameterError, match=r"merge_cubes\(\*cubes\)"):
        xs.merge_cubes([cube, cube])  # type: ignore[arg-type]
    with pytest.raises(ParameterError, match="only cubes"):
        xs.merge_cubes(small)
    with pytest.raises(ParameterError, match="by name"):
        small.sd.cube(delay, images=[cal])
    with pytest.raises(ParameterError, match="by its path"):
        xs.open_run(5)  # type: ignore[arg-type]
