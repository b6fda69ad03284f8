"""Detectors of EXtra-geom: every pixel is found where it is, images hold every pixel."""

import numpy as np
import pytest
import xarray as xr

import xsmall as xs
from xsmall.detector.geometry.formats.extra_geom import from_extra_geom
from xsmall.detector.geometry.lookup import locate_pixels
from xsmall.frames.image import image
from xsmall.frames.pixels import assign_geometry
from xsmall.vocabulary import PIXEL_DIMS, Reason

pytestmark = [pytest.mark.validation, pytest.mark.filterwarnings("default")]
extra_geom = pytest.importorskip("extra_geom")


@pytest.fixture(params=["agipd", "lpd", "dssc", "jungfrau"])
def geometry(request: pytest.FixtureRequest) -> xs.Geometry:
    made = {
        "agipd": lambda: extra_geom.AGIPD_1MGeometry.from_quad_positions(
            [(-525, 625), (-550, -10), (520, -160), (542.5, 475)]
        ),
        "lpd": lambda: extra_geom.LPD_1MGeometry.from_quad_positions(
            [(11.4, 299), (-11.5, 8), (254.5, -16), (278.5, 275)]
        ),
        "dssc": lambda: extra_geom.DSSC_1MGeometry.from_quad_positions([(-130, 5), (-130, -125), (5, -125), (5, 5)]),
        "jungfrau": lambda: extra_geom.JUNGFRAUGeometry.from_module_positions([(-1125, 20), (-1125, -500)]),
    }
    return from_extra_geom(made[request.param](), distance=0.2)


def test_every_pixel_is_found_at_its_centre(geometry: xs.Geometry) -> None:
    at = geometry.positions()
    for found, index in zip(locate_pixels(geometry, at[..., 0], at[..., 1]), np.indices(geometry.shape), strict=True):
        np.testing.assert_array_equal(found, index)


def test_the_image_holds_every_pixel_once(geometry: xs.Geometry) -> None:
    values = np.arange(1, np.prod(geometry.shape) + 1, dtype=np.float64).reshape(geometry.shape)
    picture = image(assign_geometry(xr.DataArray(values, dims=PIXEL_DIMS), geometry))
    held = picture.values[picture.n_pixels.values > 0]
    np.testing.assert_array_equal(np.sort(held), values.ravel())


def test_joins_lie_between_the_tiles_of_a_module(geometry: xs.Geometry) -> None:
    central = (xs.mask(geometry, central=1) & int(Reason.CENTRAL)) != 0
    starts = {(panel.row, panel.column) for panel in geometry.panels}
    for row, column in starts:
        if row:
            assert central[:, [row - 1, row], column].all()
        if column:
            assert central[:, row, [column - 1, column]].all()
    assert not central[:, 0, 1].any()
