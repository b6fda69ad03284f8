"""Every segment type and every default geometry against psana itself, where it is installed."""

import importlib.util
import sys
import types
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from xsmall.detector.geometry.geometry import Geometry
from xsmall.detector.geometry.segments import WidePixels, segment_type

pytestmark = pytest.mark.validation

NAMES = (
    "SENS2X1:V1", "EPIX100:V1", "EPIX10KA:V1", "EPIXHR2X2:V1", "EPIXUHR3X2:V1", "JUNGFRAU:V1", "JUNGFRAU:V2",
    "PNCCD:V1", "MTRX:10:20:30:40", "MTRX:V2:10:20:30:44.271", "EPIXMASIC:V1", "EPIXUHRASIC:V1",
)  # fmt: skip
FILES = (
    "cspad", "cspad2x2", "epix100a", "epix10kaquad", "epixhr2x2", "epixm320", "epixuhr", "epixuhr3x2-01",
    "epixuhr3x2-02", "jungfrau05M", "jungfrau1M", "jungfrau4M", "jungfrau16M", "pnccd",
)  # fmt: skip
# psana2 moves the wrong columns of EPIXUHR3X2 to true centres
WIDE = ("cspad", "epix100a", "epix10kaquad", "epixhr2x2")


@pytest.fixture(scope="module")
def psana_geometry() -> Iterator[Path]:
    """Folder of psana's geometry package; psana itself wants an MPI library, its geometry does not."""
    spec = importlib.util.find_spec("psana")
    if spec is None or not spec.submodule_search_locations:
        pytest.skip("psana is not installed: python -m pip install psana")
    folder = Path(next(iter(spec.submodule_search_locations)))
    before = sys.modules.get("psana")
    if before is None:
        bare = types.ModuleType("psana")
        bare.__path__ = [str(folder)]
        sys.modules["psana"] = bare
    yield folder / "pscalib/geometry"
    if before is None:
        for name in [n for n in sys.modules if n == "psana" or n.startswith("psana.")]:
            del sys.modules[name]


def psana_grid(name: str) -> tuple[Any, Any]:
    from psana.pscalib.geometry.SegGeometryStore import sgs

    x, y = sgs.Create(segname=name, detector=name).get_seg_xy_maps_um()
    return np.asarray(x, dtype=float), np.asarray(y, dtype=float)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", NAMES)
def test_the_grid_of_each_segment_type_is_that_of_psana(psana_geometry: Path, name: str) -> None:
    x, y = psana_grid(name)
    kind = segment_type(name)
    a, b = kind.rows.centres()[:, None] * kind.pitch[0], kind.columns.centres()[None, :] * kind.pitch[1]
    np.testing.assert_allclose(kind.origin[0] + a * kind.slow[0] + b * kind.fast[0], x, atol=1e-9)
    np.testing.assert_allclose(kind.origin[1] + a * kind.slow[1] + b * kind.fast[1], y, atol=1e-9)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(("detector", "wide"), [(f, "nominal") for f in FILES] + [(f, "true") for f in WIDE])
def test_positions_of_each_default_geometry_are_those_of_psana(
    psana_geometry: Path, detector: str, wide: WidePixels
) -> None:
    from psana.pscalib.geometry.GeometryAccess import GeometryAccess
    from psana.pscalib.geometry.SegGeometryStore import sgs

    sgs.dict_dets.clear()  # it keeps the convention of the first call
    path = psana_geometry / f"data/geometry-def-{detector}.data"
    known = GeometryAccess(str(path), use_wide_pix_center=wide == "true").get_pixel_coords(cframe=1)
    ours = Geometry.from_psana(path, wide_pixels=wide).positions() * 1e6
    for axis in range(3):
        reference = np.asarray(known[axis])
        if detector == "cspad2x2":  # psana gives the order of the data acquisition, (185, 388, 2)
            reference = np.moveaxis(reference, -1, 0)
        np.testing.assert_allclose(ours[..., axis], reference.reshape(ours.shape[:-1]), rtol=0, atol=1e-6)
