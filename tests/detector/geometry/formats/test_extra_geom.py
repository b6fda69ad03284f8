"""EXtra-geom's detectors, taken over and handed back."""

from typing import Any

import numpy as np
import pytest

from xsmall.detector.geometry.formats.extra_geom import from_extra_geom, to_extra_geom
from xsmall.detector.geometry.geometry import Geometry
from xsmall.errors import GeometryError

pytestmark = [pytest.mark.validation, pytest.mark.filterwarnings("ignore")]
extra_geom = pytest.importorskip("extra_geom", reason="python -m pip install extra-geom")


def detector(name: str) -> Any:
    if name == "JUNGFRAUGeometry":
        return extra_geom.JUNGFRAUGeometry.from_module_positions([(10, -500), (-1100, 30)], [(1, 1), (-1, -1)])
    return getattr(extra_geom, name).example()


NAMES = ("AGIPD_1MGeometry", "AGIPD_500K2GGeometry", "JUNGFRAUGeometry", "LPD_1MGeometry", "DSSC_1MGeometry")


@pytest.mark.parametrize("name", NAMES)
def test_positions_are_those_of_extra_geom_and_go_back(name: str) -> None:
    theirs = detector(name)
    ours = from_extra_geom(theirs, distance=0.25)
    known = theirs.get_pixel_positions()
    known[..., 2] += 0.25
    np.testing.assert_allclose(ours.positions(), known, rtol=0, atol=1e-9)
    assert Geometry.from_json(ours.to_json()) == ours
    back = to_extra_geom(ours)
    assert type(back) is type(theirs)
    np.testing.assert_allclose(back.get_pixel_positions(), known, rtol=0, atol=1e-9)


def test_area_of_a_hexagon_is_that_of_its_cell() -> None:
    ours = from_extra_geom(detector("DSSC_1MGeometry"))
    hexagon = 236e-6 * 236e-6 * 3**0.5 / 2  # across flats times the spacing of rows
    np.testing.assert_allclose(ours.areas(), hexagon, rtol=0.01)


def test_something_else_is_refused() -> None:
    with pytest.raises(GeometryError, match="no geometry of EXtra-geom"):
        from_extra_geom(object())
    with pytest.raises(GeometryError, match="no detector of EXtra-geom"):
        to_extra_geom(Geometry.from_psana("IP 0 MTRX:V2:3:4:50:50 0 0 0 1000 0 0 0 0 0 0\n"))
