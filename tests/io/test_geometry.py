"""Geometries in files: the content says the format, options are those of the format, nothing is half written."""

from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

import xsmall as xs
from xsmall.detector.geometry.pixel import pixel_array
from xsmall.errors import FileFormatError, GeometryError, ParameterError
from xsmall.io.nexus_geometry import write_nexus_geometry

STEP = {"slow": (0, -1e-4, 0), "fast": (-1e-4, 0, 0), "shape": (6, 9)}
PANELS = [xs.Panel(origin=(3e-3, -1e-3 + 1e-3 * i, 0.1 + 1e-4 * i), **STEP) for i in range(2)]  # type: ignore[arg-type]
GEOMETRY = xs.Geometry.from_panels(PANELS)
BEAM = xs.Beam(photon_energy=9500, distance=0.15, center=(2e-3, -1e-3), tilt_x=2, tilt_y=-3, tilt_z=10)
FORMATS = {
    "psana": ".data",
    "crystfel": ".geom",
    "nexus": ".nxs",
    "dials": ".expt",
    "pyfai": ".poni",
    "xsmall": ".json",
}
PANEL = """p0/fs = x
p0/ss = y
p0/res = 1e4
p0/corner_x = 0
p0/corner_y = 0
p0/min_fs = 0
p0/max_fs = 7
p0/min_ss = 0
p0/max_ss = 3
"""
WITH_BEAM = ("crystfel", "nexus", "dials", "pyfai")
NEEDS_BEAM = ("dials", "pyfai")


def given(name: str) -> dict[str, Any]:
    if name == "pyfai":
        pytest.importorskip("pyFAI")
    return {"beam": BEAM} if name in NEEDS_BEAM else {}


@pytest.mark.parametrize("name", FORMATS)
def test_a_geometry_comes_back_from_every_format_whatever_its_ending(name: str, tmp_path: Path) -> None:
    beam = given(name).get("beam")
    path = xs.save_geometry(GEOMETRY, tmp_path / f"detector{FORMATS[name]}", **given(name))
    other = path.rename(tmp_path / "detector.txt")  # the content says what it is
    back = xs.open_geometry(other)
    seen = GEOMETRY if name == "pyfai" or beam is None else beam.align(GEOMETRY)
    np.testing.assert_allclose(back.positions(), seen.positions(), rtol=0, atol=1e-11)
    assert xs.open_geometry(str(other), format=name) == back


@pytest.mark.parametrize("name", WITH_BEAM)
def test_geometry_and_beam_of_a_file_belong_together(name: str, tmp_path: Path) -> None:
    given(name)
    path = xs.save_geometry(GEOMETRY, tmp_path / f"detector{FORMATS[name]}", beam=BEAM)
    back, beam = xs.open_geometry(path), xs.open_beam(path)
    assert beam.photon_energy == pytest.approx(9500)
    for quantity in ("q", "azimuth"):
        ours, theirs = pixel_array(GEOMETRY, BEAM, quantity), pixel_array(back, beam, quantity)
        np.testing.assert_allclose(theirs, ours, rtol=1e-6)


@pytest.mark.parametrize("name", ["psana", "xsmall"])
def test_a_beam_that_has_no_place_is_refused_with_what_to_type(name: str, tmp_path: Path) -> None:
    path = tmp_path / f"detector{FORMATS[name]}"
    with pytest.raises(ParameterError, match=r"beam\.align\(geometry\)"):
        xs.save_geometry(GEOMETRY, path, beam=BEAM)
    xs.save_geometry(BEAM.align(GEOMETRY), path)
    with pytest.raises(FileFormatError, match="says nothing of the beam"):
        xs.open_beam(path)


@pytest.mark.parametrize("name", NEEDS_BEAM)
def test_a_beam_that_is_needed_is_asked_for(name: str, tmp_path: Path) -> None:
    with pytest.raises(ParameterError, match=r"beam=xs\.Beam\(photon_energy=9500, distance=0\.1\)"):
        xs.save_geometry(GEOMETRY, tmp_path / f"detector{FORMATS[name]}")


def test_options_of_another_format_are_refused(tmp_path: Path) -> None:
    path = xs.save_geometry(GEOMETRY, tmp_path / "detector.data")
    with pytest.raises(ParameterError, match=r"(?s)no option 'corner'.*wide_pixels"):
        xs.open_geometry(path, corner="psana")
    with pytest.raises(ParameterError, match="no option 'layout'"):
        xs.save_geometry(GEOMETRY, tmp_path / "again.data", layout="slab")
    slab = xs.save_geometry(GEOMETRY, tmp_path / "slab.geom", layout="slab")
    np.testing.assert_allclose(xs.open_geometry(slab, segment_rows=6).positions(), GEOMETRY.positions(), atol=1e-13)


def test_what_is_no_geometry_is_named(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("the detector stands at a tenth of a metre\n")
    with pytest.raises(FileFormatError, match=r"notes\.txt is not a geometry"):
        xs.open_geometry(tmp_path / "notes.txt")
    with pytest.raises(FileFormatError, match=r"none\.data"):
        xs.open_geometry(tmp_path / "none.data")
    with pytest.raises(GeometryError, match="EXtra-geom"):
        xs.open_geometry(5)
    with pytest.raises(ParameterError, match=r"\.geom \(CrystFEL\)"):
        xs.save_geometry(GEOMETRY, tmp_path / "detector.tiff")
    with pytest.raises(ParameterError, match="unknown format"):
        xs.open_geometry(tmp_path / "notes.txt", format="tiff")


@pytest.mark.parametrize("name", FORMATS)
def test_a_file_that_is_there_stays_unless_it_is_to_be_replaced(name: str, tmp_path: Path) -> None:
    path = xs.save_geometry(GEOMETRY, tmp_path / f"detector{FORMATS[name]}", **given(name))
    before = path.read_bytes()
    with pytest.raises(FileFormatError, match="overwrite=True"):
        xs.save_geometry(GEOMETRY, path, **given(name))
    assert path.read_bytes() == before
    xs.save_geometry(GEOMETRY, path, overwrite=True, **given(name))
    assert not [file for file in tmp_path.iterdir() if ".part" in file.name]


def test_a_geometry_that_a_format_cannot_say_leaves_the_old_file(tmp_path: Path) -> None:
    path = xs.save_geometry(GEOMETRY, tmp_path / "detector.data")
    before = path.read_bytes()
    two = xs.Geometry.from_panels([xs.Panel(origin=(0, 0, 0.1), segment=0, column=9 * i, **STEP) for i in range(2)])  # type: ignore[arg-type]
    with pytest.raises(GeometryError, match="one flat panel per segment"):
        xs.save_geometry(two, path, overwrite=True)
    assert path.read_bytes() == before
    assert [file.name for file in tmp_path.iterdir()] == ["detector.data"]


@pytest.mark.parametrize(
    ("text", "energy", "distance"),
    [
        ("photon_energy = 9.5 keV\nclen = 92.5 mm", 9500, 0.0925),
        ("photon_energy = 9.5keV\nclen = 0.0925", 9500, 0.0925),
        ("photon_energy = 9500\nclen = 0.0925 m", 9500, 0.0925),
        ("wavelength = 1.2398419843320026 A", 10000, None),
        ("photon_energy = /LCLS/photon_energy_eV\nclen = /LCLS/detector_1/EncoderValue", None, None),
    ],
)
def test_units_of_crystfel_are_read_with_and_without_a_space(
    text: str, energy: float | None, distance: float | None
) -> None:
    beam = xs.open_beam(f"{text}\n{PANEL}")
    assert beam.photon_energy == (energy if energy is None else pytest.approx(energy))
    assert beam.distance == distance


@pytest.mark.parametrize("text", ["photon_energy = 9.5 pigeons", "clen = 92.5 inch", "wavelength = 1.3", "clen = nan"])
def test_an_unknown_unit_in_a_crystfel_file_raises(text: str) -> None:
    with pytest.raises(GeometryError, match=r"line 1: invalid"):
        xs.open_beam(f"{text}\n{PANEL}")


@pytest.mark.parametrize(
    ("place", "attribute", "value"),
    [
        ("detector/transformations/distance", "units", "furlong"),
        ("beam/incident_energy", "units", "kcal"),
        ("detector/transformations/distance", "offset_units", "furlong"),
    ],
)
def test_an_unknown_unit_in_a_nexus_file_raises(place: str, attribute: str, value: str, tmp_path: Path) -> None:
    path = tmp_path / "detector.nxs"
    write_nexus_geometry(path, GEOMETRY, BEAM)
    with h5py.File(path, "a") as file:
        item = file[f"entry/instrument/{place}"]
        item.attrs["offset"] = [1.0, 0, 0]
        item.attrs["offset_units"] = "mm"
        item.attrs[attribute] = value
    with pytest.raises(FileFormatError, match=value):
        xs.open_geometry(path)


def test_an_object_of_extra_geom_is_taken_over(tmp_path: Path) -> None:
    extra_geom = pytest.importorskip("extra_geom")
    theirs = extra_geom.AGIPD_1MGeometry.example()
    geometry = xs.open_geometry(theirs, distance=0.2)
    np.testing.assert_allclose(geometry.positions()[..., :2], theirs.get_pixel_positions()[..., :2], atol=1e-9)
    path = xs.save_geometry(geometry, tmp_path / "agipd.geom", format="extra_geom")
    np.testing.assert_allclose(xs.open_geometry(path).positions()[..., :2], geometry.positions()[..., :2], atol=3e-8)


@pytest.mark.parametrize(
    ("clen", "res", "match"),
    [("200", "13333", "place of a panel"), ("0.1", "0.013", "size of a pixel"), ("0.1", "1e9", "size of a pixel")],
)
def test_sizes_in_another_unit_than_that_of_the_format_are_refused(clen: str, res: str, match: str) -> None:
    panel = (
        "p0/fs = x;p0/ss = y;p0/corner_x = 0;p0/corner_y = 0;p0/min_fs = 0;p0/max_fs = 7;p0/min_ss = 0;p0/max_ss = 3"
    )
    text = f"clen = {clen};res = {res};{panel}".replace(";", chr(10))
    with pytest.raises(GeometryError, match=match):
        xs.open_geometry(text)
    assert xs.open_geometry(text.replace(f"clen = {clen}", "clen = 0.1").replace(f"res = {res}", "res = 13333")).shape


def test_pixels_of_metres_are_refused_of_poni_files_too(tmp_path: Path) -> None:
    pixels = '{"pixel1": 75, "pixel2": 7.5e-05, "max_shape": [4, 8], "orientation": 3}'
    lines = ["poni_version: 2.1", "Detector: Detector", f"Detector_config: {pixels}", "Distance: 0.1", "Poni1: 0"]
    (tmp_path / "a.poni").write_text("\n".join([*lines, "Poni2: 0", "Rot1: 0", "Rot2: 0", "Rot3: 0"]))
    with pytest.raises(GeometryError, match=r"a\.poni.*size of a pixel"):
        xs.open_geometry(tmp_path / "a.poni")
