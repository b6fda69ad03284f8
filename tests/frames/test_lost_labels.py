"""What a user may do to frames between opening and reducing them, and must not be answered with wrong numbers."""

from typing import Any

import numpy as np
import pytest
import xarray as xr

import xsmall as xs
from xsmall.errors import CalibrationError, DataError, GeometryError, XsmallError
from xsmall.frames.pixels import geometry_of

BOX = xs.Box(segment=1, row=(0, 10), column=(0, 10))


@pytest.fixture(scope="module")
def sim() -> Any:
    return xs.simulate(12, shape=(2, 32, 48), seed=5)


@pytest.fixture(scope="module")
def raw(sim: Any) -> xr.DataArray:
    return sim.run["jungfrau"]["raw"]


@pytest.fixture(scope="module")
def cal(sim: Any, raw: xr.DataArray) -> xr.DataArray:
    return raw.sd.assign_geometry(sim.geometry).sd.assign_beam(beam=sim.beam).sd.calibrate(sim.constants)


def test_a_part_without_labels_is_refused_where_positions_matter(cal: xr.DataArray) -> None:
    part = cal.isel(row=slice(10, 30)).drop_vars("row")
    for ask in (lambda: part.sd.azint(bins=9), lambda: part.sd.image(), lambda: part.sd.reduce({"r": xs.roi(BOX)})):
        with pytest.raises(GeometryError, match="lost its labels along 'row'"):
            ask()


def test_a_whole_detector_needs_no_labels(cal: xr.DataArray) -> None:
    bare = cal.drop_vars(["row", "column", "segment"]).sd.azint(bins=9)
    np.testing.assert_array_equal(bare.intensity.values, cal.sd.azint(bins=9).intensity.values)


@pytest.mark.parametrize("with_geometry", [True, False])
def test_averaged_pixels_are_no_pixels_of_the_detector(cal: xr.DataArray, with_geometry: bool) -> None:
    frames = cal.compute() if with_geometry else cal.compute().drop_vars(["geometry", "x", "y", "z"])
    rebinned = frames.coarsen(row=2, column=2).mean()
    for record in (xs.roi(BOX), xs.projection("row"), xs.azint(bins=9)):
        with pytest.raises(XsmallError, match="labels of row"):
            xs.apply(rebinned, record)


def test_reversed_rows_swapped_segments_and_steps_keep_their_places(cal: xr.DataArray) -> None:
    turned = cal.isel(row=slice(None, None, -1), segment=[1, 0], column=slice(None, None, 3))
    straight = cal.isel(column=slice(None, None, 3))
    a, b = turned.sd.azint(bins=9), straight.sd.azint(bins=9)
    np.testing.assert_array_equal(a.n_valid.values, b.n_valid.values)
    np.testing.assert_allclose(a.intensity.values, b.intensity.values, rtol=1e-12)
    np.testing.assert_allclose(turned.sd.roi(BOX)["sum"], straight.sd.roi(BOX)["sum"], rtol=1e-6)


def test_presence_that_was_changed_after_calibrating_counts_on_every_way(cal: xr.DataArray) -> None:
    present = cal.present.copy()
    present[:, 1] = False
    lazy = cal.assign_coords(present=present)
    for frames in (lazy, lazy.compute(), lazy * 1):
        assert frames.sd.roi(BOX).n_valid.sum() == 0
        average = frames.rename("image").sd.average()
        assert average["image_count"].sel(segment=1).sum() == 0
        assert average["image_count"].sel(segment=0).sum() > 0


@pytest.mark.filterwarnings("ignore::xsmall.errors.GainBitsWarning")  # raw words, on purpose
def test_damaged_raw_words_do_not_enter_a_result(sim: Any, raw: xr.DataArray) -> None:
    damage = xr.zeros_like(raw.present, dtype="u4")
    damage[3, 1] = 4
    damaged = raw.assign_coords(damage=damage)
    for frames in (damaged, damaged.compute(), damaged.sd.calibrate(sim.constants)):
        n_valid = frames.sd.roi(BOX).n_valid.values.ravel()
        assert n_valid[3] == 0
        assert (np.delete(n_valid, 3) > 0).all()
    assert int(damaged.sd.average()["raw_count"].sel(segment=1).max()) == 11


def test_the_geometry_of_a_larger_detector_is_refused_unless_a_part_is_meant(sim: Any, raw: xr.DataArray) -> None:
    larger = xs.simulate(1, shape=(2, 40, 48), seed=5).geometry
    with pytest.raises(GeometryError, match="partial=True"):
        raw.sd.assign_geometry(larger)
    part = raw.isel(row=slice(0, 20))
    with pytest.raises(GeometryError, match="partial=True"):
        part.sd.assign_geometry(sim.geometry)
    said = part.sd.assign_geometry(sim.geometry, partial=True)
    cut = raw.sd.assign_geometry(sim.geometry).isel(row=slice(0, 20))
    np.testing.assert_array_equal(said.x.values, cut.x.values)
    assert geometry_of(cut.sd.assign_geometry(sim.geometry)) == sim.geometry
    assert raw.isel(row=slice(4, 20)).sd.assign_geometry(sim.geometry).sizes["row"] == 16


def test_words_of_another_byte_order_are_refused_with_what_to_type(sim: Any, raw: xr.DataArray) -> None:
    with pytest.raises(DataError, match=r'astype\("uint16"\)'):
        raw.astype(">u2").sd.calibrate(sim.constants)
    back = raw.astype(">u2").astype("uint16").sd.calibrate(sim.constants)
    np.testing.assert_array_equal(back.values, raw.sd.calibrate(sim.constants).values)


def test_constants_of_a_larger_detector_are_refused_where_the_geometry_tells(sim: Any, raw: xr.DataArray) -> None:
    larger = xs.simulate(1, shape=(2, 40, 48), seed=5).constants
    placed = raw.sd.assign_geometry(sim.geometry)
    for frames in (placed, placed.isel(row=slice(0, 20))):
        with pytest.raises(CalibrationError, match="larger detector"):
            frames.sd.calibrate(larger)
        assert frames.sd.calibrate(sim.constants).shape == frames.shape
