"""NeXus geometry: back and forth, and bad files."""

from pathlib import Path

import h5py
import numpy as np
import pytest

from xsmall.detector.geometry.beam import Beam
from xsmall.detector.geometry.geometry import Geometry, Panel
from xsmall.detector.geometry.pixel import pixel_array
from xsmall.errors import FileFormatError, ParameterError
from xsmall.io.nexus_geometry import read_nexus_geometry, write_nexus_geometry

BEAM = Beam(photon_energy=9500, distance=0.15, center=(2e-3, -1e-3), tilt_x=2, tilt_y=-3, tilt_z=10)
PANEL = Panel(origin=(-1e-3, 0, 0.1), slow=(1e-6, 1e-4, 0), fast=(1e-4, 0, 2e-6), shape=(4, 8))
GEOMETRY = Geometry.from_panels([PANEL, Panel(origin=(1e-3, 0, 0.1), slow=PANEL.slow, fast=PANEL.fast, shape=(4, 8))])


@pytest.mark.parametrize("detector", ["cspad", "epix10kaquad"])
def test_positions_go_through_a_nexus_file(shared: Path, tmp_path: Path, detector: str) -> None:
    geometry = Geometry.from_psana(shared / f"data/geometry/geometry-def-{detector}.data")
    plain = Geometry.from_panels(geometry.asics(), shape=geometry.shape)
    write_nexus_geometry(tmp_path / "g.nxs", geometry)
    back, _ = read_nexus_geometry(tmp_path / "g.nxs")
    assert back.shape == geometry.shape
    np.testing.assert_allclose(back.positions(), plain.positions(), rtol=0, atol=1e-12)


def test_the_beam_goes_along_as_transformations(tmp_path: Path) -> None:
    write_nexus_geometry(tmp_path / "g.nxs", GEOMETRY, BEAM)
    back, beam = read_nexus_geometry(tmp_path / "g.nxs")
    assert beam.photon_energy == 9500
    for name in ("q", "azimuth", "solid_angle"):
        np.testing.assert_allclose(pixel_array(back, beam, name), pixel_array(GEOMETRY, BEAM, name), rtol=1e-9)


def test_units_and_chains_of_other_writers_are_read(tmp_path: Path) -> None:
    path = tmp_path / "g.nxs"
    write_nexus_geometry(path, GEOMETRY)
    with h5py.File(path, "r+") as file:
        module = file["entry/instrument/detector/module_0000"]
        file["turn"] = np.pi / 2
        file["turn"].attrs.update(transformation_type="rotation", vector=[0.0, 0, 2], units="rad", depends_on=".")
        file["turn"].attrs["offset"] = [0.0, 5.0, 0.0]
        file["turn"].attrs["offset_units"] = "mm"
        module["module_offset"].attrs["depends_on"] = "/turn"
        value = module["fast_pixel_direction"][()]
        module["fast_pixel_direction"][()] = value * 1e3
        module["fast_pixel_direction"].attrs["units"] = "mm"
        module["fast_pixel_direction"].attrs["depends_on"] = "module_offset"
    x, y, z = np.moveaxis(GEOMETRY.positions()[0], -1, 0)
    back, _ = read_nexus_geometry(path)
    np.testing.assert_allclose(back.positions()[0], np.stack([-y, x + 5e-3, z], axis=-1), atol=1e-15)


def test_bad_files_raise_one_error_that_names_them(tmp_path: Path) -> None:
    path = tmp_path / "g.nxs"
    with pytest.raises(FileFormatError, match=r"g\.nxs"):
        read_nexus_geometry(path)
    path.write_bytes(b"not HDF5")
    with pytest.raises(FileFormatError, match=r"g\.nxs"):
        read_nexus_geometry(path)
    path.unlink()
    write_nexus_geometry(path, GEOMETRY)
    with pytest.raises(FileFormatError, match="does not exist"):
        write_nexus_geometry(path, GEOMETRY)
    with pytest.raises(FileFormatError, match="no NXdetector"):
        read_nexus_geometry(path, "/entry")


def test_a_wavelength_of_nothing_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "g.nxs"
    write_nexus_geometry(path, GEOMETRY, Beam(photon_energy=9500, distance=0.1))
    with h5py.File(path, "a") as file:
        del file["entry/instrument/beam/incident_energy"]
        file["entry/instrument/beam/incident_wavelength"][()] = 0.0
    with pytest.raises(ParameterError, match="photon_energy"):
        read_nexus_geometry(path)


@pytest.mark.parametrize(
    ("attribute", "value", "says"),
    [
        ("depends_on", "/entry/instrument/detector/module_0000/module_offset", "without end"),
        ("depends_on", "/nowhere", "cannot be read"),
        ("units", "furlong", "value of"),
        ("vector", [0.0, 0.0, 0.0], "vector of"),
        ("vector", [0.0, np.nan, 0.0], "vector of"),
    ],
)
def test_bad_transformations_are_named(tmp_path: Path, attribute: str, value: object, says: str) -> None:
    path = tmp_path / "g.nxs"
    write_nexus_geometry(path, GEOMETRY)
    with h5py.File(path, "r+") as file:
        file["entry/instrument/detector/module_0000/module_offset"].attrs[attribute] = value
    with pytest.raises(FileFormatError, match=says):
        read_nexus_geometry(path)


def test_a_file_with_several_detectors_asks_which(tmp_path: Path) -> None:
    path = tmp_path / "g.nxs"
    write_nexus_geometry(path, GEOMETRY)
    with h5py.File(path, "r+") as file:
        file["entry/instrument"].copy("detector", "second")
    with pytest.raises(FileFormatError, match="which NXdetector"):
        read_nexus_geometry(path)
    assert read_nexus_geometry(path, "/entry/instrument/second")[0].shape == GEOMETRY.shape


ROUNDED = 1.305  # angstrom


@pytest.mark.parametrize(
    ("field", "value", "unit"),
    [
        ("incident_wavelength", 1.9, "angstrom"),
        ("incident_wavelength", ROUNDED, "angstrom"),
        ("incident_energy", 7.1, "keV"),
        ("incident_wavelength", 13.05, "nm"),
        ("incident_wavelength", 0.0, "angstrom"),
    ],
)
def test_an_energy_and_a_wavelength_that_contradict_each_other_are_refused(
    field: str, value: float, unit: str, tmp_path: Path
) -> None:
    path = tmp_path / "a.nxs"
    write_nexus_geometry(path, GEOMETRY, BEAM)  # of 9500 eV, and says both
    with h5py.File(path, "r+") as file:
        said = file["entry/instrument/beam"][field]
        said[...] = value
        said.attrs["units"] = unit
    if value == ROUNDED:
        assert read_nexus_geometry(path)[1].photon_energy == 9500
        return
    with pytest.raises(FileFormatError, match="contradict each other"):
        read_nexus_geometry(path)
