"""CrystFEL files: against psana's files, EXtra-geom's reader, and back and forth."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from xsmall.detector.geometry.beam import Beam
from xsmall.detector.geometry.formats.crystfel import beam_from_crystfel, from_crystfel, to_crystfel
from xsmall.detector.geometry.geometry import Geometry
from xsmall.detector.geometry.pixel import pixel_array
from xsmall.errors import GeometryError, XsmallError

ONE = """; a comment
res = 10000.0
clen = 0.1
p0/fs = +1.0x -0.0y
p0/ss = y
p0/corner_x = -4.0
p0/corner_y = 2.5
p0/min_fs = 0
p0/max_fs = 7
p0/min_ss = 0
p0/max_ss = 3
bad0/min_fs = 3
"""


@pytest.mark.parametrize(("detector", "rows"), [("cspad", 185), ("epix10kaquad", 352), ("jungfrau05M", 512)])
def test_files_of_psana_read_as_its_geometry(shared: Path, detector: str, rows: int) -> None:
    path = shared / f"oracles/crystfel/{detector}-cframe1.geom"
    ours = Geometry.from_psana(shared / f"data/geometry/geometry-def-{detector}.data")
    read = from_crystfel(path, corner="psana", segment_rows=rows)
    assert read.shape == ours.shape
    known, at = read.positions(), ours.positions()
    areas = ours.areas()
    regular = areas < 1.01 * areas.min()
    # the files have six decimals in their vectors, and psana's jungfrau starts some ASICs at a true wide centre
    pixel = np.sqrt(areas.min())
    slack = 1e-6 * 400
    if detector == "jungfrau05M":
        slack += 1
    off = np.abs(known - at)[regular].max(axis=0)
    np.testing.assert_array_less(off, [slack * pixel, slack * pixel, slack * pixel + 0.51e-6])
    first = [(asic.memory[0], asic.memory[1].start, asic.memory[2].start) for asic in ours.asics()]
    if detector != "jungfrau05M":
        for pixel_0 in first:
            np.testing.assert_allclose(known[pixel_0][:2], at[pixel_0][:2], rtol=6e-8, atol=1e-6 * pixel)


def test_the_corner_is_the_outer_corner_of_the_first_pixel() -> None:
    at = from_crystfel(ONE).positions()
    np.testing.assert_allclose(at[0, 0, 0], [-3.5e-4, 3e-4, 0.1])
    np.testing.assert_allclose(at[0, 3, 7], [3.5e-4, 6e-4, 0.1])
    psana = from_crystfel(ONE, corner="psana").positions()
    np.testing.assert_allclose(psana[0, 0, 0], [-4e-4, 2.5e-4, 0.1])


@pytest.mark.parametrize("layout", ["segments", "slab"])
@pytest.mark.parametrize("detector", ["cspad", "epix100a", "jungfrau4M"])
def test_what_is_written_reads_back(shared: Path, detector: str, layout: str) -> None:
    geometry = Geometry.from_psana(shared / f"data/geometry/geometry-def-{detector}.data")
    plain = Geometry.from_panels(geometry.asics(), shape=geometry.shape)
    text = to_crystfel(geometry, layout=layout)
    back = from_crystfel(text, segment_rows=geometry.shape[1] if layout == "slab" else None)
    assert back.shape == geometry.shape
    np.testing.assert_allclose(back.positions(), plain.positions(), rtol=0, atol=1e-13)


def test_the_beam_goes_along_as_shift_and_distance() -> None:
    geometry = from_crystfel(ONE)
    text = to_crystfel(geometry, Beam(photon_energy=9500, distance=0.2, center=(1e-3, 2e-3)))
    back = from_crystfel(text)
    np.testing.assert_allclose(back.positions(), geometry.positions() + np.array([-1e-3, -2e-3, 0.1]), atol=1e-15)
    assert beam_from_crystfel(text) == Beam(photon_energy=9500, distance=0.2)
    tilted = Beam(photon_energy=9500, distance=0.2, center=(1e-3, 2e-3), tilt_x=3, tilt_y=-2, tilt_z=1)
    back = from_crystfel(to_crystfel(geometry, tilted))
    straight = Beam(photon_energy=9500, distance=back.distance)
    for name in ("q", "radius", "azimuth", "solid_angle"):
        np.testing.assert_allclose(pixel_array(back, straight, name), pixel_array(geometry, tilted, name), rtol=1e-9)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        (ONE.replace("p0/max_fs = 7\n", ""), "line 4: panel 'p0' has no max_fs"),
        (ONE.replace("p0/ss = y", "p0/ss = 1.0w"), "line 5"),
        (ONE.replace("p0/ss = y", "p0/ss = 2x"), "parallel"),
        (ONE.replace("corner_x = -4.0", "corner_x = nan"), "line 6"),
        (ONE.replace("res = 10000.0", "res = 0"), "resolution"),
        (ONE.replace("max_fs = 7", "max_fs = 7.5"), "pixel index"),
        (ONE.replace("max_ss = 3", "max_ss = -3"), "pixel index"),
        (ONE.replace("clen = 0.1", "clen = /LCLS/detector_1/EncoderValue"), "camera_length=0.1"),
        (ONE + "p0/dim1 = 1\np0/dim2 = 2\n", "several numbers"),
        ("just some words\n", "line 1: not a setting"),
        ("; nothing\n", "no panel"),
    ],
)
def test_bad_text_raises_one_error_that_names_the_line(text: str, says: str) -> None:
    with pytest.raises(GeometryError, match=says):
        from_crystfel(text)


def test_bad_regions_and_groups_hold_no_pixels_and_any_other_name_is_a_panel() -> None:
    extra = "rigid_group_q0 = p0\nrigid_group_collection_all = q0\nbad_beam/min_x = -5\nbadspot/panel = p0\nmask = /m\n"
    assert from_crystfel(ONE + extra) == from_crystfel(ONE)
    named = from_crystfel(ONE.replace("p0/", "mask0/"))
    assert [panel.name for panel in named.panels] == ["mask0"]


def test_a_panel_across_two_segments_is_refused() -> None:
    with pytest.raises(GeometryError, match="crosses the border"):
        from_crystfel(ONE, segment_rows=3)


KEYS = ("fs", "ss", "res", "corner_x", "corner_y", "min_fs", "max_fs", "min_ss", "max_ss", "coffset", "dim1")
VALUES = ("1", "-1x", "1.0x +2y", "y", "7", "1e5", "nan", "", "((", "%", "ss", "9999999", "-0.5")
setting = st.tuples(st.sampled_from(("p0/", "p1/", "")), st.sampled_from(KEYS), st.sampled_from(VALUES)).map(
    lambda t: f"{t[0]}{t[1]} = {t[2]}"
)


@settings(max_examples=200)
@given(st.lists(setting | st.text(max_size=20), max_size=8))
def test_any_text_gives_a_geometry_or_an_error_of_ours(lines: list[str]) -> None:
    try:
        from_crystfel("\n".join([*ONE.splitlines(), *lines]))
    except XsmallError:
        return


@pytest.mark.validation
@pytest.mark.filterwarnings("ignore")
def test_extra_geom_and_ours_read_each_others_files(tmp_path: Path) -> None:
    extra_geom = pytest.importorskip("extra_geom", reason="python -m pip install extra-geom")
    theirs = extra_geom.AGIPD_1MGeometry.example()
    path = tmp_path / "agipd.geom"
    theirs.write_crystfel_geom(path, dims=("frame", "modno", "ss", "fs"), clen=0.3, photon_energy=9300)
    ours = from_crystfel(path)
    assert ours.shape == (16, 512, 128)
    expected = theirs.get_pixel_positions()
    expected[..., 2] += 0.3
    np.testing.assert_allclose(
        ours.positions(), expected, rtol=0, atol=1e-6 * 2e-4 * 130
    )  # six decimals in their files
    path.write_text(to_crystfel(ours))
    back = extra_geom.AGIPD_1MGeometry.from_crystfel_geom(path).get_pixel_positions()
    np.testing.assert_allclose(back[..., :2], ours.positions()[..., :2], rtol=0, atol=1e-9)
