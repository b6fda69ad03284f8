"""Polar maps keep the flux and say how many pixels they are made of."""

import dask.array as da
import numpy as np
import pytest
import xarray as xr

import xsmall as xs
from xsmall.errors import DataError, GeometryError, ParameterError
from xsmall.frames.beam import assign_beam
from xsmall.frames.pixels import assign_geometry
from xsmall.frames.polar import polar
from xsmall.vocabulary import FRAME_DIMS

CENTER = (2.3e-4, -3.1e-4)


def detector(rows: int = 60, columns: int = 80) -> xs.Geometry:
    at = (columns / 2 * 1e-4, rows / 2 * 1e-4, 0.1)
    return xs.Geometry.from_panels([xs.Panel(at, (0, -1e-4, 0), (-1e-4, 0, 0), (rows, columns))])


def frames(geometry: xs.Geometry, n_events: int = 3) -> xr.DataArray:
    values = np.random.default_rng(0).normal(10, 3, (n_events, *geometry.shape))
    data = assign_geometry(xr.DataArray(values, dims=FRAME_DIMS, name="cal", attrs={"units": "keV"}), geometry)
    return assign_beam(data, center=CENTER)


def test_the_flux_is_kept_also_with_invalid_pixels() -> None:
    data = frames(detector()).where(np.random.default_rng(1).random((3, 1, 60, 80)) > 0.1)
    rings = polar(data, n_radius=31, n_azimuth=17)
    total = (rings.intensity * rings.n_valid.astype(np.float64)).sum(["azimuth", "radius"])
    np.testing.assert_allclose(total, data.sum(["segment", "row", "column"]), rtol=1e-6)
    n_valid = rings.n_valid.sum(["azimuth", "radius"])
    np.testing.assert_allclose(n_valid, data.notnull().sum(["segment", "row", "column"]), rtol=1e-5)
    assert rings.intensity.attrs["units"] == "keV"


def test_a_constant_stays_constant_and_rings_come_out_at_their_radius() -> None:
    data = frames(detector())
    flat = polar(xr.ones_like(data))
    np.testing.assert_allclose(flat.intensity.values[flat.n_valid.values > 0], 1, rtol=1e-12)
    assert flat.intensity.isnull().sum() == (flat.n_valid == 0).sum()
    radius = np.hypot(data.x.astype(float) - CENTER[0], data.y.astype(float) - CENTER[1])
    rings = polar(xr.zeros_like(data) + radius.compute(), n_azimuth=1)
    filled = (rings.n_valid > 20).values[0]
    assert abs(rings.intensity - rings.radius).values[0][filled].max() < 0.5e-4


def test_without_splitting_bins_are_a_histogram_of_pixel_centres() -> None:
    data = frames(detector())
    rings = polar(data, radius=(5e-4, 2e-3), n_radius=7, azimuth=(100.0, 260.0), n_azimuth=9, split=1)
    x, y = (data[c].values.astype(np.float64) - centre for c, centre in zip("xy", CENTER, strict=True))
    x, y = np.round(x, 9), np.round(y, 9)
    azimuth = np.degrees(np.arctan2(y, x)) % 360
    bins = (np.linspace(100, 260, 10), np.linspace(5e-4, 2e-3, 8))
    count, _, _ = np.histogram2d(azimuth.ravel(), np.hypot(x, y).ravel(), bins)
    weights = data.values[0].ravel()
    total, _, _ = np.histogram2d(azimuth.ravel(), np.hypot(x, y).ravel(), bins, weights=weights)
    np.testing.assert_allclose(rings.n_valid[0], count)
    np.testing.assert_allclose(rings.intensity[0], total / count, rtol=1e-12)


def test_radius_and_azimuth_of_a_tilted_beam_are_those_of_its_pixels() -> None:
    data = frames(detector()).sd.assign_beam(distance=0.02, center=CENTER, tilt_x=25.0, tilt_y=-15.0, tilt_z=40.0)
    rings = polar(data, radius=(0.0, 3e-3), n_radius=6, n_azimuth=8, split=1)
    radius, azimuth = data.sd.pixel("radius").values, data.sd.pixel("azimuth").values
    edges = np.linspace(-180, 180, 9), np.linspace(0, 3e-3, 7)
    count, _, _ = np.histogram2d(azimuth.ravel(), radius.ravel(), edges)
    np.testing.assert_allclose(rings.n_valid[0], count)
    straight = polar(data.sd.assign_beam(tilt_x=0.0, tilt_y=0.0, tilt_z=0.0), radius=(0.0, 3e-3), n_radius=6, split=1)
    assert float(straight.n_valid[0].sum()) != count.sum()


def test_a_centre_that_got_lost_is_missed() -> None:
    data = frames(detector()).sd.assign_beam(distance=0.1, center=CENTER)
    with pytest.raises(ParameterError, match="center_x"):
        polar(data + data.sd.assign_beam(center=(0.0, 0.0)))


def test_bins_are_named_in_metres_and_degrees() -> None:
    rings = polar(frames(detector()), radius=(0.0, 1e-3), n_radius=4, azimuth=(-90.0, 90.0), n_azimuth=2)
    np.testing.assert_allclose(rings.radius, [1.25e-4, 3.75e-4, 6.25e-4, 8.75e-4])
    assert rings.azimuth.values.tolist() == [-45, 45]
    assert rings.radius.attrs["units"] == "m"


def test_maps_of_lazy_frames_are_lazy_and_equal(computing_is_forbidden) -> None:
    data = frames(detector())
    with computing_is_forbidden():
        lazy = polar(data.chunk({"event": 1, "row": 20}), n_radius=10, n_azimuth=4)
        assert isinstance(lazy.intensity.data, da.Array)
    xr.testing.assert_identical(lazy.compute(), polar(data, n_radius=10, n_azimuth=4))


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"radius": (1e-3, 1e-3)}, "radius"),
        ({"radius": "a"}, "radius"),
        ({"radius": (-1e-3, 1e-3)}, "radius"),
        ({"azimuth": (0.0, 400.0)}, "more than a turn"),
        ({"azimuth": (10.0, 0.0)}, "azimuth"),
        ({"n_radius": 0}, "n_radius"),
        ({"n_azimuth": 2.5}, "n_azimuth"),
        ({"split": 0}, "1 to 16"),
    ],
)
def test_invalid_arguments_are_refused(arguments: dict, words: str) -> None:
    with pytest.raises(ParameterError, match=words):
        polar(frames(detector()), **arguments)


def test_masks_and_data_without_geometry_are_refused() -> None:
    data = frames(detector())
    with pytest.raises(DataError, match="no mean"):
        polar(data > 0)
    with pytest.raises(GeometryError, match="no geometry"):
        polar(data.drop_vars("geometry"))
