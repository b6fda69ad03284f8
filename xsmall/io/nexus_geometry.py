"""Geometry in NeXus files: NXdetector with one NXdetector_module per ASIC."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from xsmall.detector.geometry.beam import HC, Beam
from xsmall.detector.geometry.geometry import Geometry
from xsmall.detector.geometry.overlap import MAX_PANELS
from xsmall.detector.geometry.panel import Floats, Panel
from xsmall.detector.geometry.rotation import rotation
from xsmall.errors import FileFormatError, GeometryError
from xsmall.io.layout import HDF5_VERSION

__all__ = [
    "add_nexus_geometry",
    "check_writable",
    "nexus_group",
    "nx_class",
    "read_nexus_geometry",
    "write_nexus_geometry",
]

DETECTOR = "/entry/instrument/detector"
_LENGTHS = {
    name: factor
    for factor, names in (
        (1.0, ("m", "metre", "meter", "metres", "meters")),
        (1e-2, ("cm", "centimetre", "centimeter")),
        (1e-3, ("mm", "millimetre", "millimeter", "millimetres", "millimeters")),
        (1e-6, ("um", "micron", "microns", "micrometre", "micrometer", "micrometres", "micrometers")),
    )
    for name in names
}
_ANGLES = {"deg": 1.0, "degree": 1.0, "degrees": 1.0, "rad": 180 / np.pi, "radian": 180 / np.pi, "radians": 180 / np.pi}
_ENERGIES = {"eV": 1.0, "ev": 1.0, "keV": 1e3, "kev": 1e3, "J": 1 / 1.602176634e-19}
_WAVELENGTHS = {"angstrom": 1.0, "Angstrom": 1.0, "A": 1.0, "nm": 10.0, "pm": 0.01, "m": 1e10}
_SAME_ENERGY = 1.001
_MAX_CHAIN = 64


def write_nexus_geometry(path: str | Path, geometry: Geometry, beam: Beam | None = None) -> None:
    """Write a geometry as a NeXus file.

    Parameters
    ----------
    path
        File to make; one that exists is not overwritten.
    geometry
        One module per ASIC; wide pixels at the joins are written as regular ones.
    beam
        Where given, its distance, centre and tilts become transformations that all modules depend on, and its photon
        energy an NXbeam.

    Raises
    ------
    FileFormatError
        Where the file exists or cannot be written.
    GeometryError
        For hexagonal pixels.

    Notes
    -----
    Layout of NXmx: ``fast_pixel_direction``, ``slow_pixel_direction`` and ``module_offset``, the latter to the outer
    corner of the first pixel. NeXus' frame is ours.

    Examples
    --------
    >>> import tempfile, pathlib, xsmall as xs
    >>> from xsmall.io.nexus_geometry import read_nexus_geometry, write_nexus_geometry
    >>> panel = xs.Panel(origin=(0, 0, 0.1), slow=(0, -1e-4, 0), fast=(1e-4, 0, 0), shape=(4, 8))
    >>> geometry = xs.Geometry.from_panels([panel])
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     write_nexus_geometry(pathlib.Path(folder) / "geometry.nxs", geometry)
    ...     back, _ = read_nexus_geometry(pathlib.Path(folder) / "geometry.nxs")
    >>> bool(abs(back.positions() - geometry.positions()).max() < 1e-12)
    True
    """
    check_writable(geometry)
    try:
        with h5py.File(path, "x", libver=HDF5_VERSION) as file:
            add_nexus_geometry(file, geometry, beam)
    except OSError as error:
        raise FileFormatError(f"{path} cannot be written", found=error, fix="give a path that does not exist") from None


def check_writable(geometry: Geometry) -> None:
    """Refuse a geometry that NeXus cannot say.

    Raises
    ------
    GeometryError
        Hexagonal pixels.
    """
    if any(asic.column_axis.stagger for asic in geometry.asics()):
        raise GeometryError("NeXus modules have rectangular pixels only", found="rows shifted by half a pixel")


def add_nexus_geometry(file: Any, geometry: Geometry, beam: Beam | None = None) -> None:
    """Add the detector to an open file; see :func:`write_nexus_geometry`."""
    entry = nexus_group(file, "entry", "NXentry")
    instrument = nexus_group(entry, "instrument", "NXinstrument")
    detector = nexus_group(instrument, "detector", "NXdetector")
    end = "." if beam is None else _write_beam(instrument, detector, beam, geometry.distance)
    detector["depends_on"] = end
    for i, asic in enumerate(geometry.asics()):
        _write_module(nexus_group(detector, f"module_{i:04d}", "NXdetector_module"), asic, end)


def nexus_group(parent: Any, name: str, kind: str) -> Any:
    """Give a group of a class of NeXus, which is made where it is not there."""
    group = parent.require_group(name)
    group.attrs["NX_class"] = kind
    return group


def _write_beam(instrument: Any, detector: Any, beam: Beam, mean_z: float) -> str:
    """Chain of transformations from the frame of the geometry to the sample; returns the path of its first."""
    if beam.photon_energy is not None:
        group = nexus_group(instrument, "beam", "NXbeam")
        group["incident_energy"] = beam.photon_energy
        group["incident_energy"].attrs["units"] = "eV"
        group["incident_wavelength"] = beam.wavelength
        group["incident_wavelength"].attrs["units"] = "angstrom"
    beam.need_all()
    steps = nexus_group(detector, "transformations", "NXtransformations")
    distance = mean_z if beam.distance is None else beam.distance
    here = _transformation(steps, "distance", distance, (0, 0, 1), "translation", "m", ".")
    for axis, name in enumerate(("tilt_x", "tilt_y", "tilt_z")):
        here = _transformation(steps, name, getattr(beam, name), np.eye(3)[axis], "rotation", "deg", here)
    return _translation(steps, "center", -np.array([*beam.center, mean_z]), here)


def _transformation(group: Any, name: str, value: float, vector: Any, kind: str, units: str, depends_on: str) -> str:
    group[name] = float(value)
    item = group[name]
    item.attrs["transformation_type"] = kind
    item.attrs["vector"] = np.asarray(vector, dtype=np.float64)
    item.attrs["units"] = units
    item.attrs["depends_on"] = depends_on
    path: str = item.name
    return path


def _translation(group: Any, name: str, by: Floats, depends_on: str) -> str:
    length = float(np.linalg.norm(by))
    vector = by / length if length else np.array([0.0, 0.0, 1.0])
    return _transformation(group, name, length, vector, "translation", "m", depends_on)


def _write_module(group: Any, asic: Panel, end: str) -> None:
    segment, rows, columns = asic.memory
    group["data_origin"] = np.array([segment, rows.start, columns.start])
    group["data_size"] = np.array([1, *asic.shape])
    fast, slow = np.array(asic.fast), np.array(asic.slow)
    offset = _translation(group, "module_offset", np.array(asic.origin) - (fast + slow) / 2, end)
    for name, step in (("fast_pixel_direction", fast), ("slow_pixel_direction", slow)):
        _translation(group, name, step, offset)


def read_nexus_geometry(path: str | Path, detector: str | None = None) -> tuple[Geometry, Beam]:
    """Read the modules of an NXdetector.

    Parameters
    ----------
    path
        HDF5 file.
    detector
        Path of the NXdetector in it; needed where there are several.

    Returns
    -------
    The geometry in the lab frame with all transformations applied, and a beam along z through its origin with the mean
    z of the modules as distance, and the photon energy where the file has an NXbeam.

    Raises
    ------
    FileFormatError
        Naming file and place, where something is missing or invalid.
    """
    try:
        with h5py.File(path, "r") as file:
            group = _find_detector(file, detector, str(path))
            modules = [m for m in group.values() if nx_class(m) == "NXdetector_module"]
            if not 0 < len(modules) <= MAX_PANELS:
                found = f"{len(modules)} modules in {group.name}"
                expected = (
                    "NXdetector_module groups, or pixel sizes, beam centre, distance and orientation of one panel"
                )
                raise FileFormatError(f"{path}: no geometry", found=found, expected=expected)
            geometry = Geometry.from_panels([_read_module(m, str(path)) for m in modules])
            energy = _beam_energy(group.parent, str(path))
    except FileFormatError:
        raise
    except GeometryError as error:
        raise FileFormatError(f"{path}: {error}") from None
    except (OSError, KeyError, TypeError, ValueError, IndexError, AttributeError) as error:
        raise FileFormatError(f"{path} cannot be read as a NeXus geometry", found=str(error)[:200]) from None
    return geometry, Beam(photon_energy=energy, distance=geometry.distance if geometry.distance > 0 else None)


def nx_class(item: Any) -> str:
    """Class of NeXus that a group says it has."""
    kind = item.attrs.get("NX_class", "")
    return kind.decode() if isinstance(kind, bytes) else str(kind)


def _find_detector(file: Any, detector: str | None, path: str) -> Any:
    """The NXdetector asked for, or the only one."""
    if detector is not None:
        if detector not in file or nx_class(file[detector]) != "NXdetector":
            raise FileFormatError(
                f"{path}: no NXdetector {detector!r}", expected=", ".join(_detectors_in(file)[:8]) or "one in the file"
            )
        return file[detector]
    found = _detectors_in(file)
    if len(found) > 1:
        fix = f"detector={found[0]!r}"
        raise FileFormatError(f"{path}: which NXdetector?", found=", ".join(found[:8]), expected="one", fix=fix)
    if not found:
        raise FileFormatError(f"{path}: no NXdetector", expected="NeXus with the geometry of a detector")
    return file[found[0]]


def _detectors_in(file: Any) -> list[str]:
    found: list[str] = []
    file.visititems(lambda _, item: found.append(str(item.name)) if nx_class(item) == "NXdetector" else None)
    return found


def _beam_energy(instrument: Any, path: str) -> float | None:
    """Photon energy in eV of the NXbeam beside the detector, where it has a number with a unit."""
    for item in instrument.values():
        if nx_class(item) != "NXbeam":
            continue
        said: list[float] = []
        for name, units in (("incident_energy", _ENERGIES), ("incident_wavelength", _WAVELENGTHS)):
            if name in item and item[name].size == 1:  # an energy per event is no part of a geometry
                value = _number_in_unit(item[name], units, path)
                said.append(value if name == "incident_energy" else HC / max(value, 1e-300))  # 0 is out of range too
        if said and max(said) > min(said) * _SAME_ENERGY:
            raise FileFormatError(
                f"{path}: energy and wavelength of the beam contradict each other",
                found=f"{said[0]:g} eV, and a wavelength of {said[1]:g} eV",
                expected="the same photons",
                fix="correct the one that is wrong, or leave it out",
            )
        if said:
            return said[0]
    return None


def _number_in_unit(item: Any, units: Mapping[str, float], path: str) -> float:
    """One finite number of a field, in our unit."""
    unit, values = _attribute_text(item.attrs.get("units", "")), np.atleast_1d(np.asarray(item[()], dtype=np.float64))
    if unit not in units or values.size != 1 or not np.isfinite(values).all():
        raise FileFormatError(
            f"{path}: value of {item.name}",
            found=f"{values[:4]} {unit!r}",
            expected=f"one number in {', '.join(units)}",
        )
    return float(values[0]) * units[unit]


def _read_module(group: Any, path: str) -> Panel:
    origin, size = (np.atleast_1d(group[name][()]).astype(int) for name in ("data_origin", "data_size"))
    if origin.size not in (2, 3) or origin.size != size.size or (origin.size == 3 and size[0] != 1):
        found = f"origin {origin}, size {size}"
        raise FileFormatError(f"{path}: {group.name} is no block of a segment", found=found)
    ends = {name: _chain(group[name], path) for name in ("fast_pixel_direction", "slow_pixel_direction")}
    (fast, corner), (slow, _) = ends["fast_pixel_direction"], ends["slow_pixel_direction"]
    return Panel(
        origin=tuple(corner + (fast + slow) / 2),
        slow=tuple(slow),
        fast=tuple(fast),
        shape=(int(size[-2]), int(size[-1])),
        segment=int(origin[0]) if origin.size == 3 else 0,
        row=int(origin[-2]),
        column=int(origin[-1]),
        name=group.name.rpartition("/")[2],
    )


def _chain(item: Any, path: str) -> tuple[Floats, Floats]:
    """The step of a pixel direction turned into the lab frame, and where the point before that step ends up."""
    step = _step_value(item, path) * _unit_vector(item, path)
    at = _offset(item, path)
    for _ in range(_MAX_CHAIN):
        above = item.attrs.get("depends_on", ".")
        above = above.decode() if isinstance(above, bytes) else str(above)
        if above == ".":
            return step, at
        item = item.file[above] if above.startswith("/") else item.parent[above]
        if isinstance(item, h5py.Group):
            raise FileFormatError(f"{path}: {item.name} is no transformation")
        if _kind_of_step(item) == "rotation":
            turn = _about(_unit_vector(item, path), _step_value(item, path))
            step, at = turn @ step, turn @ at + _offset(item, path)
        else:
            at = at + _step_value(item, path) * _unit_vector(item, path) + _offset(item, path)
    raise FileFormatError(f"{path}: transformations that depend on each other without end", found=item.name)


def _kind_of_step(item: Any) -> str:
    kind = item.attrs.get("transformation_type", "translation")
    return kind.decode() if isinstance(kind, bytes) else str(kind)


def _step_value(item: Any, path: str) -> float:
    """Value in m or degrees."""
    return _number_in_unit(item, _ANGLES if _kind_of_step(item) == "rotation" else _LENGTHS, path)


def _unit_vector(item: Any, path: str) -> Floats:
    vector = np.asarray(item.attrs["vector"], dtype=np.float64)
    length = np.linalg.norm(vector)
    if vector.shape != (3,) or not np.isfinite(vector).all() or length == 0:
        raise FileFormatError(f"{path}: vector of {item.name}", found=vector)
    unit: Floats = vector / length
    return unit


def _attribute_text(value: Any) -> str:
    return value.decode() if isinstance(value, bytes) else str(value)


def _offset(item: Any, path: str) -> Floats:
    """Offset of a transformation in m; ``offset_units`` is needed where the step itself is no length."""
    if "offset" not in item.attrs:
        return np.zeros(3)
    offset: Floats = np.asarray(item.attrs["offset"], dtype=np.float64)
    units = _attribute_text(item.attrs.get("offset_units", "m" if not offset.any() else item.attrs.get("units", "")))
    if offset.shape != (3,) or not np.isfinite(offset).all() or units not in _LENGTHS:
        raise FileFormatError(
            f"{path}: offset of {item.name}",
            found=f"{offset} {units!r}",
            expected=f"three numbers, offset_units one of {', '.join(_LENGTHS)}",
        )
    scaled: Floats = offset * _LENGTHS[units]
    return scaled


def _about(axis: Floats, degrees: float) -> Floats:
    """Right-handed rotation about any axis."""
    for i in range(3):
        if abs(axis[i]) == 1:  # exact quarter turns
            angles = [0.0, 0.0, 0.0]
            angles[i] = degrees * float(axis[i])
            return rotation(*angles)
    c, s = np.cos(np.radians(degrees)), np.sin(np.radians(degrees))
    cross = np.array([[0, -axis[2], axis[1]], [axis[2], 0, -axis[0]], [-axis[1], axis[0], 0]])
    turn: Floats = c * np.eye(3) + s * cross + (1 - c) * np.outer(axis, axis)
    return turn
