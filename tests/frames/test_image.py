"""Assembled images and the way back."""

from pathlib import Path

import dask.array as da
import numpy as np
import pytest
import xarray as xr
from hypothesis import given, settings
from hypothesis import strategies as st

import xsmall as xs
from xsmall.detector.geometry.grids import detector_grid
from xsmall.errors import DataError, GeometryError, ParameterError, PlanError
from xsmall.frames.image import from_image, image
from xsmall.frames.pixels import assign_geometry
from xsmall.vocabulary import FRAME_DIMS, PIXEL_DIMS, Reason

DETECTORS = ("cspad", "epix100a", "epix10kaquad", "jungfrau05M", "jungfrau1M", "jungfrau4M")


def psana_geometry(shared: Path, name: str) -> xs.Geometry:
    return xs.Geometry.from_psana(shared / "data" / "geometry" / f"geometry-def-{name}.data")


def turned(n: int = 2, turn: float = 0.1) -> xs.Geometry:
    """Panels turned by some degrees, with a gap, of 100 um pixels."""
    c, s = np.cos(turn) * 1e-4, np.sin(turn) * 1e-4
    panels = [xs.Panel((1e-3 * i, 4e-3 * i, 0.1), (s, -c, 0), (-c, -s, 0), (20, 30)) for i in range(n)]
    return xs.Geometry.from_panels(panels)


def frames(geometry: xs.Geometry, n_events: int = 4, dtype: str = "float32") -> xr.DataArray:
    values = np.random.default_rng(0).normal(100, 10, (n_events, *geometry.shape)).astype(dtype)
    return assign_geometry(xr.DataArray(values, dims=FRAME_DIMS, name="cal", attrs={"units": "keV"}), geometry)


def test_the_image_of_a_jungfrau_equals_psana(shared: Path) -> None:
    with np.load(shared / "oracles" / "image-jungfrau05M.npz") as file:
        oracle = {name: file[name] for name in file.files}
    data = xr.DataArray(oracle["nda"], dims=PIXEL_DIMS)
    picture = image(assign_geometry(data, psana_geometry(shared, "jungfrau05M")))
    filled = oracle["entries"] > 0
    np.testing.assert_array_equal(picture.n_pixels, oracle["entries"])
    np.testing.assert_array_equal(picture.values[filled], oracle["img_mapmode1_fill0"][filled])
    assert np.isnan(picture.values[~filled]).all()


@pytest.mark.parametrize("name", DETECTORS)
def test_shape_of_the_image_and_place_of_the_beam_axis_equal_psana(shared: Path, name: str) -> None:
    grid = detector_grid(psana_geometry(shared, name))
    with np.load(shared / "oracles" / "geometry" / f"psana2-{name}.npz") as oracle:
        assert (grid.n_y, grid.n_x) == tuple(oracle["img_shape"])
        column, row = grid.indices(np.zeros(1), np.zeros(1))  # psana counts from the border of the first pixel
        np.testing.assert_allclose([row[0] + 0.5, column[0] + 0.5], oracle["p00"], atol=1e-6)


@pytest.mark.parametrize("name", ["epix100a", "jungfrau05M"])
def test_rows_and_columns_of_pixels_equal_psana_but_for_centres_on_a_border(shared: Path, name: str) -> None:
    geometry = psana_geometry(shared, name)
    grid = detector_grid(geometry)
    at = geometry.positions()
    with np.load(shared / "oracles" / "geometry" / f"psana2-{name}.npz") as oracle:
        rows, columns = oracle["rows_lab"], oracle["cols_lab"]
    column, row = grid.indices(at[..., 0], at[..., 1])
    column = grid.n_x - 1 - column  # psana's columns in the lab frame count from the smallest x
    for ours, theirs in ((row, rows), (column, columns)):
        theirs = theirs.reshape(geometry.shape).astype(float)
        on_border = abs(abs(ours - np.round(ours)) - 0.5) < 1e-6
        np.testing.assert_array_equal(np.round(ours)[~on_border], theirs[~on_border])
        assert (abs(ours - theirs)[on_border] < 1).all()


def test_x_falls_to_the_right_and_y_downwards_and_each_pixel_is_where_it_is() -> None:
    data = frames(turned())
    picture = image(data)
    assert (np.diff(picture.image_x) < 0).all()
    assert (np.diff(picture.image_y) < 0).all()
    for name, along in (("x", "image_x"), ("y", "image_y")):
        place = image(data[name].astype(np.float64).compute())
        assert float(abs(place - place[along]).max()) <= 0.5e-4 * (1 + 1e-6)


def test_pixels_that_meet_are_averaged_and_nan_does_not_count() -> None:
    panels = [xs.Panel((0, 0, 0.1 + 0.01 * i), (0, -1e-4, 0), (-1e-4, 0, 0), (2, 3)) for i in range(2)]
    data = frames(xs.Geometry.from_panels(panels), dtype="float64")
    data[0, 0, 0, 0] = np.nan
    data[0, :, 1, 1] = np.nan
    picture = image(data)
    assert (picture.n_pixels == 2).all()
    expected = data.mean("segment", skipna=True)
    np.testing.assert_allclose(picture.values, expected.values, rtol=1e-15)


def test_an_area_weighted_image_of_a_constant_is_that_constant_and_of_x_is_x() -> None:
    data = frames(turned())
    ones = image(xr.ones_like(data), method="area")
    np.testing.assert_allclose(ones.values[:, ones.n_pixels > 0], 1, rtol=1e-6)
    inner = image(data.x.astype(np.float64).compute(), method="area")
    full = (ones.n_pixels >= 4).values
    assert abs((inner - inner.image_x).values[full]).max() < 0.6e-4


def test_wide_pixels_fill_their_place_in_an_area_weighted_image(shared: Path) -> None:
    geometry = psana_geometry(shared, "jungfrau05M")
    whole = xr.DataArray(np.ones(geometry.shape, np.float32), dims=PIXEL_DIMS)
    data = assign_geometry(whole, geometry).isel(row=slice(250, 262), column=slice(250, 262))
    assert int(image(data).isnull().sum()) > 0
    assert int(image(data, method="area").isnull().sum()) == 0


def test_a_slice_lies_on_the_grid_of_the_whole_detector() -> None:
    data = frames(turned())
    whole = image(data)
    for cut in ({"segment": [1]}, {"segment": 0}, {"row": slice(3, 9), "column": slice(4, 28, 3)}, {"segment": [1, 0]}):
        part = image(data.isel(cut))
        kept = data.isel({k: v if isinstance(v, slice | list) else [v] for k, v in cut.items()})
        alone = image(_only(data, kept))
        same = alone.sel(image_x=part.image_x, image_y=part.image_y)
        np.testing.assert_array_equal(part.values, same.values)
        assert np.isin(part.image_x, whole.image_x).all()


def _only(data: xr.DataArray, kept: xr.DataArray) -> xr.DataArray:
    """The data with NaN wherever ``kept`` has no pixel."""
    for dim in PIXEL_DIMS:
        data = data.where(data[dim].isin(kept[dim]))
    return data


@settings(max_examples=15, deadline=None)
@given(
    events=st.integers(1, 4),
    segments=st.integers(1, 2),
    rows=st.integers(5, 20),
    method=st.sampled_from(["nearest", "area"]),
)
def test_chunks_do_not_matter(events: int, segments: int, rows: int, method: str) -> None:
    data = frames(turned())
    lazy = data.chunk({"event": events, "segment": segments, "row": rows})
    xr.testing.assert_identical(image(lazy, method=method).compute(), image(data, method=method))  # type: ignore[arg-type]


def test_images_of_lazy_frames_are_lazy_and_their_graph_is_small(no_compute: None) -> None:
    values = da.zeros((100_000, 2, 20, 30), chunks=(1000, 2, 20, 30), dtype=np.uint16)
    data = assign_geometry(xr.DataArray(values, dims=FRAME_DIMS), turned())
    picture = image(data)
    assert isinstance(picture.data, da.Array)
    assert isinstance(picture.n_pixels.data, da.Array)
    assert picture.dtype == np.float32
    assert len(picture.data.__dask_graph__().layers) < 10


def test_two_images_of_one_detector_are_combined_without_computing(no_compute: None) -> None:
    data = frames(turned()).chunk({"event": 1})
    assert "n_pixels" in (image(data) + image(data * 2)).coords


def test_segments_that_are_not_present_are_gaps_of_integer_frames() -> None:
    data = frames(turned(), dtype="uint16")
    present = np.ones((4, 2), dtype=bool)
    present[1, 0] = False
    picture = image(data.assign_coords(present=(("event", "segment"), present)))
    alone = image(data).where(image(_only(data, data.isel(segment=[1]))).notnull())
    np.testing.assert_array_equal(picture[1], alone[1])
    np.testing.assert_array_equal(picture[0], image(data)[0])
    assert picture.dtype == np.float32


def test_masks_stay_boolean_and_reasons_are_united() -> None:
    geometry = turned()
    flags = xs.mask(geometry, edges=2)
    picture = image(flags)
    assert picture.dtype == np.uint32
    gaps = (picture.n_pixels == 0).values
    assert (picture.values[gaps] == Reason.MISSING).all()
    assert set(np.unique(picture.values[~gaps])) == {0, int(Reason.EDGE)}
    good = image(xs.usable(flags))
    assert good.dtype == np.bool_
    np.testing.assert_array_equal(good, picture == 0)


def test_an_array_over_the_image_comes_back_to_the_pixels() -> None:
    geometry = turned()
    data = frames(geometry).isel(event=0)
    drawn = image(xr.ones_like(data)).copy()
    drawn.values = np.random.default_rng(1).random(drawn.shape)
    back = from_image(drawn, data)
    picture = image(back)
    filled = (picture.n_pixels > 0).values
    np.testing.assert_allclose(picture.values[filled], drawn.values[filled], rtol=1e-12)
    np.testing.assert_array_equal(from_image(drawn.values, geometry), back)
    part = data.isel(segment=[1], row=slice(2, 7))
    np.testing.assert_array_equal(from_image(drawn, part), back.isel(segment=[1], row=slice(2, 7)))
    with pytest.raises(DataError, match="another detector"):
        from_image(drawn.values[1:], geometry)
    with pytest.raises(DataError, match="reach over"):
        from_image(drawn[5:], geometry)
    with pytest.raises(DataError, match="regular"):
        from_image(drawn[[0, 1, 5]], geometry)


def test_pixels_without_a_place_are_in_no_image_and_get_nothing_back() -> None:
    geometry = xs.Geometry.from_panels([xs.Panel((0, 0, 0.1), (0, -1e-4, 0), (-1e-4, 0, 0), (4, 6))], shape=(1, 4, 8))
    data = frames(geometry, 1).isel(event=0)
    picture = image(data)
    assert picture.shape == (4, 6)
    back = from_image(picture, data)
    np.testing.assert_array_equal(back[..., :6], data[..., :6])
    assert np.isnan(back[..., 6:]).all()
    assert not from_image(picture > 0, data)[..., 6:].any()


def test_coordinates_keep_their_units() -> None:
    sim = xs.simulate(3, shape=(1, 16, 32), seed=1)
    raw = sim.run["jungfrau"]["raw"].sd.assign_geometry(sim.geometry).sd.assign_beam(sim.beam)
    both = raw.sd.calibrate(sim.constants, variance=True)
    kept = {name: both[name].attrs for name in ("i0", "delay", "photon_energy", "center_x", "geometry")}
    for made in (both["calibrated"].sd.image(), both.sd.image(), both.sd.polar(), both["calibrated"].sd.polar()):
        assert {name: made[name].attrs for name in kept} == kept
    assert kept["delay"]["units"] == "ps"
    assert both.sd.image()["calibrated_variance"].attrs["units"] == "keV2"
    assert both.sd.polar()["n_valid"].attrs.keys() == {"units", "long_name"}


def test_an_image_of_no_events_has_no_events() -> None:
    data = frames(turned()).isel(event=slice(0, 0))
    assert image(data).sizes["event"] == 0
    assert image(data.chunk()).compute().sizes["event"] == 0


def test_an_image_of_nothing_valid_is_nan() -> None:
    assert image(frames(turned()) * np.nan).isnull().all()


def test_an_area_weighted_image_that_no_memory_holds_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("xsmall.frames.image.MAX_ENTRIES", 1 << 20)
    image(frames(turned()), method="area", pixel_size=5e-5)
    with pytest.raises(PlanError, match="larger pixel_size"):
        image(frames(turned()), method="area", pixel_size=2e-6)


def test_limits_cut_the_image_and_a_pixel_size_scales_it() -> None:
    data = frames(turned())
    whole = image(data)
    part = image(data, x=(-1e-3, 1e-3), y=(0.0, 2e-3))
    xr.testing.assert_identical(part, whole.sel(image_x=slice(1e-3, -1e-3), image_y=slice(2e-3, 0.0)))
    coarse = image(data, pixel_size=2e-4)
    assert float(coarse.image_x[0] - coarse.image_x[1]) == pytest.approx(2e-4)
    weighted = (coarse.fillna(0) * coarse.n_pixels).sum(["image_x", "image_y"])
    np.testing.assert_allclose(weighted, data.sum(PIXEL_DIMS), rtol=1e-5)


def test_invalid_arguments_are_refused_before_anything_is_computed(no_compute: None) -> None:
    data = frames(turned()).chunk({"event": 1})
    with pytest.raises(ParameterError, match="'nearest' or 'area'"):
        image(data, method="cubic")  # type: ignore[arg-type]
    with pytest.raises(ParameterError, match="too large"):
        image(data, pixel_size=1e-8)
    with pytest.raises(ParameterError, match="pixel"):
        image(data, pixel_size=-1)
    with pytest.raises(ParameterError, match="low < high"):
        image(data, x=(1, 0))
    with pytest.raises(ParameterError, match="within these limits"):
        image(data, x=(1, 2))
    with pytest.raises(GeometryError, match="no geometry"):
        image(data.drop_vars("geometry"))
    with pytest.raises((DataError, GeometryError), match="lost their segment"):
        image(data.mean("segment"))
    with pytest.raises(DataError, match="numbers or booleans"):
        image(data.astype("complex64"))
