"""Which pixel is this point, on labelled data."""

import dask.array as da
import numpy as np
import pytest
import xarray as xr

import xsmall as xs
from xsmall.errors import DataError, GeometryError
from xsmall.frames.locate import at, locate
from xsmall.frames.pixels import assign_geometry
from xsmall.vocabulary import FRAME_DIMS, PIXEL_DIMS


@pytest.fixture(scope="module")
def detector() -> xs.Geometry:
    def panel(x: float, turn: float) -> xs.Panel:
        c, s = np.cos(turn) * 1e-4, np.sin(turn) * 1e-4
        return xs.Panel((x, 1e-3, 0.1), (s, -c, 0), (-c, -s, 2e-5), (20, 30))

    return xs.Geometry.from_panels([panel(-1e-3, 0.1), panel(4e-3, -0.2)])


@pytest.fixture
def frames(detector: xs.Geometry) -> xr.DataArray:
    values = np.random.default_rng(0).normal(size=(5, *detector.shape)).astype(np.float32)
    return assign_geometry(xr.DataArray(values, dims=FRAME_DIMS, name="cal", attrs={"units": "keV"}), detector)


CUTS = [
    {},
    {"segment": [1]},
    {"segment": 1},
    {"row": slice(2, 15, 3), "column": slice(5, None)},
    {"segment": [1, 0], "column": slice(None, None, -1)},
    {"segment": 0, "row": 7},
]


@pytest.mark.parametrize("cut", CUTS)
def test_values_at_the_centres_of_all_pixels_are_the_data_also_on_slices(frames: xr.DataArray, cut: dict) -> None:
    part = frames.isel(cut)
    x, y = part.x.astype(np.float64).compute(), part.y.astype(np.float64).compute()
    found = at(part, x, y)
    np.testing.assert_array_equal(found.values, part.values)
    np.testing.assert_array_equal(found.row, part.row.broadcast_like(x).transpose(*x.dims))


@pytest.mark.parametrize("cut", CUTS)
def test_pixels_that_a_slice_does_not_hold_are_nowhere(frames: xr.DataArray, detector: xs.Geometry, cut: dict) -> None:
    part = frames.isel(cut)
    here = [np.isin(np.arange(n), part[d].values) for d, n in zip(PIXEL_DIMS, detector.shape, strict=True)]
    held = here[0][:, None, None] & here[1][:, None] & here[2]
    found = locate(part, frames.x.astype(np.float64), frames.y.astype(np.float64))
    for name, index in zip(PIXEL_DIMS, np.indices(detector.shape), strict=True):
        np.testing.assert_array_equal(found[name].values, np.where(held, index, -1))


def test_points_broadcast_and_keep_their_dims(frames: xr.DataArray, detector: xs.Geometry) -> None:
    x = xr.DataArray(np.linspace(-4e-3, 4e-3, 7), dims="across", coords={"across": np.arange(7)})
    y = xr.DataArray(np.linspace(-1e-3, 1e-3, 4), dims="up")
    found = locate(frames, x, y)
    assert dict(found.sizes) == {"across": 7, "up": 4}
    assert found.segment.dtype == np.int32
    plain = locate(detector, x.values, np.full(7, float(y[2])))
    np.testing.assert_array_equal(found.column.isel(up=2), plain.column)
    assert locate(frames, 0.0, 0.0).row.ndim == 0
    assert locate(frames, np.zeros((2, 3)), np.zeros((2, 3))).row.dims == ("point_0", "point_1")


def test_values_are_as_lazy_as_the_data(frames: xr.DataArray, no_compute: None) -> None:
    lazy = at(frames.chunk({"event": 2}), [0.0, 1.0], [0.0, 0.0])
    assert isinstance(lazy.data, da.Array)
    assert lazy.dims == ("event", "point")
    assert lazy.attrs == {"units": "keV"}


def test_lazy_and_eager_values_are_equal(frames: xr.DataArray) -> None:
    x = np.linspace(-5e-3, 5e-3, 50)
    y = np.linspace(-1e-3, 1e-3, 50)
    eager = at(frames, x, y)
    lazy = at(frames.chunk({"event": 2, "segment": 1, "row": 7}), x, y)
    xr.testing.assert_identical(lazy.compute(), eager)
    outside = eager.segment.values == -1
    assert 0 < outside.sum() < 50
    assert np.isnan(eager.values[:, outside]).all()
    assert np.isfinite(eager.values[:, ~outside]).all()


def test_masks_are_false_and_flags_zero_where_no_pixel_is(detector: xs.Geometry) -> None:
    flags = xs.mask(detector, edges=30 // 2 - 5)
    x, y = [9.0, -1e-3], [9.0, 1e-3]
    assert at(flags, x, y).values.tolist() == [0, 16]
    assert at(flags, x, y).dtype == np.uint32
    assert at(flags != 0, x, y).values.tolist() == [False, True]
    assert np.isnan(at(flags.drop_attrs(deep=False).astype(np.uint16), x, y).values[0])


def test_invalid_points_are_refused(frames: xr.DataArray) -> None:
    with pytest.raises(DataError, match="do not fit"):
        locate(frames, [0.0, 1.0], [0.0, 1.0, 2.0])
    with pytest.raises(DataError, match="real numbers"):
        locate(frames, [1j], [0.0])
    with pytest.raises(GeometryError, match="no geometry"):
        locate(frames.drop_vars("geometry"), [0.0], [0.0])
    with pytest.raises(DataError, match="lost their row"):
        at(frames.mean("row"), [0.0], [0.0])


def test_no_points_are_found_nowhere(frames: xr.DataArray) -> None:
    found = at(frames, [], np.empty(0))
    assert found.shape == (5, 0)
    assert at(frames.isel(event=slice(0, 0)), [0.0], [0.0]).shape == (0, 1)


def test_raw_values_of_a_segment_that_is_not_present_are_nan(frames: xr.DataArray) -> None:
    present = np.ones((5, 2), dtype=bool)
    present[3, 0] = False
    raw = abs(frames * 10).astype(np.uint16).assign_coords(present=(("event", "segment"), present))
    taken = at(raw, frames.x[0, 5, 5].astype(float), frames.y[0, 5, 5].astype(float))
    assert np.isnan(taken.values).tolist() == [False, False, False, True, False]
