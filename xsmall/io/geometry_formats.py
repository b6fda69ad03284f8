"""The formats of geometries: how each is read and written."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import h5py
import xarray as xr

from xsmall.detector.geometry.beam import Beam
from xsmall.detector.geometry.formats import crystfel, dials, extra_geom, poses, pyfai
from xsmall.detector.geometry.geometry import Geometry
from xsmall.detector.geometry.text import read_text
from xsmall.errors import FileFormatError, GeometryError, XsmallError
from xsmall.frames.beam import beam_of
from xsmall.frames.pixels import geometry_of
from xsmall.io import nexus_geometry
from xsmall.io.sources.stacks import open_frames

__all__ = ["FORMATS", "GeometryFormat", "corners_beside"]

_RULE: Final = "xsmall_geometry"
_TOKEN: Final = "token"  # noqa: S105 # of the rule: what rots on a disk does not fit it any more


@dataclass(frozen=True)
class GeometryFormat:
    """One way to write a geometry down.

    Attributes
    ----------
    program
        Whose it is.
    endings
        Of files, the usual one first.
    read, beam
        Make the geometry, and the beam where a file says something of it, of a path or a text.
    write
        Called with path, geometry, beam and options; the beam is None where none was given.
    holds_beam
        Whether a beam can be written too, and whether one must be.
    """

    program: str
    endings: tuple[str, ...]
    read: Callable[..., Geometry]
    beam: Callable[..., Beam] | None
    write: Callable[..., None]
    holds_beam: bool = True
    needs_beam: bool = False


def _write_psana(path: Path, geometry: Geometry, beam: None) -> None:  # noqa: ARG001
    path.write_text(geometry.to_psana(), encoding="utf-8")


def _write_crystfel(
    path: Path,
    geometry: Geometry,
    beam: Beam | None,
    *,
    layout: Any = "segments",
    data: str = "/entry_1/data_1/data",
    adu_per_photon: float | None = None,
) -> None:
    text = crystfel.to_crystfel(geometry, beam, layout=layout, data=data, adu_per_photon=adu_per_photon)
    path.write_text(text, encoding="utf-8")


def _crystfel_beam(
    source: str | Path, *, corner: Any = "crystfel", segment_rows: int | None = None, camera_length: float | None = None
) -> Beam:
    """Photon energy of the file, and as distance the mean z of its panels: camera length and what each is behind it."""
    beam = crystfel.beam_from_crystfel(source)
    if camera_length is None and beam.distance is None:
        return beam
    geometry = crystfel.from_crystfel(source, corner=corner, segment_rows=segment_rows, camera_length=camera_length)
    return beam.replace(distance=geometry.distance)


def _write_nexus(path: Path, geometry: Geometry, beam: Beam | None) -> None:
    nexus_geometry.write_nexus_geometry(path, geometry, beam)


def _write_dials(
    path: Path, geometry: Geometry, beam: Beam, *, trusted_range: tuple[float, float] = (-10.0, 2e6)
) -> None:
    path.write_text(dials.to_dials(geometry, beam, trusted_range=trusted_range), encoding="utf-8")


def _write_poni(path: Path, geometry: Geometry, beam: Beam) -> None:
    """Write the pose, and beside it a NeXus file with the corners of the pixels for pyFAI and the rule for xsmall."""
    corners = corners_beside(path)
    part = corners.with_name(f".{corners.name}.{os.getpid()}.part")
    try:
        integrator = pyfai.to_pyfai(geometry, beam)
        integrator.detector.save(str(part))
        with h5py.File(part, "a") as file:
            file.attrs[_RULE] = geometry.to_json()
        part.replace(corners)
    finally:
        part.unlink(missing_ok=True)
    pyfai.save_poni(path, integrator, corners)


def corners_beside(path: Path) -> Path:
    """Name the file of pixel corners that stands beside a .poni file, also while that is being written."""
    stem = path.stem.removeprefix(".").removesuffix(f".{os.getpid()}.part")
    return path.with_name(f"{stem}.detector.h5")


def _read_poni(source: str | Path) -> tuple[Geometry, Beam]:
    """Geometry and beam of a .poni file: our own rule where its detector file holds one, else pyFAI's detector."""
    named = re.search(r'"filename": "([^"]+)"', read_text(source)[0])
    corners = Path(named[1]) if named else None
    if corners is not None and isinstance(source, Path) and not corners.is_file():
        corners = source.with_name(corners.name)  # both were moved
    if corners is not None and corners.is_file():
        with h5py.File(corners, "r") as file:
            if _RULE in file.attrs:
                return Geometry.from_json(str(file.attrs[_RULE])), poses.beam_from_poni(source)
    return pyfai.from_poni(source)


def _write_extra_geom(path: Path, geometry: Geometry, beam: None) -> None:  # noqa: ARG001
    extra_geom.to_extra_geom(geometry).write_crystfel_geom(str(path))


def _write_xsmall(path: Path, geometry: Geometry, beam: None) -> None:  # noqa: ARG001
    text = json.dumps({_TOKEN: geometry.token, **json.loads(geometry.to_json())}, indent=1)
    path.write_text(text, encoding="utf-8")


def _read_xsmall(source: str | Path) -> Geometry:
    text, name = read_text(source)
    try:
        rule = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise FileFormatError(f"{name} cannot be read", found=error, expected="the JSON of a geometry") from error
    token = rule.pop(_TOKEN, None) if isinstance(rule, dict) else None
    geometry = Geometry.from_json(json.dumps(rule, separators=(",", ":")))
    if token is not None and token != geometry.token:
        raise GeometryError(
            f"{name} has changed since it was written",
            found=f"the token {token}, of another geometry than the one that follows it",
            expected=geometry.token,
            fix=f"copy it again; or take the line {_TOKEN!r} out, if it was changed by hand",
        )
    return geometry


def _read_nexus(source: Path, *, detector: str | None = None) -> Geometry:
    try:
        return nexus_geometry.read_nexus_geometry(source, detector)[0]
    except FileFormatError:
        found = None if detector is not None else geometry_of(_flat(source))
        if found is None:
            raise
        return found


def _nexus_beam(source: Path, *, detector: str | None = None) -> Beam:
    try:
        return nexus_geometry.read_nexus_geometry(source, detector)[1]
    except FileFormatError:
        found = None if detector is not None else beam_of(_flat(source))
        if found is None:
            raise
        return found


def _flat(source: Path) -> xr.DataArray:
    """Frames that know their geometry without modules, such as those of an Eiger master; or that know nothing."""
    try:
        return open_frames(source)
    except XsmallError:
        return xr.DataArray()


FORMATS: Final[dict[str, GeometryFormat]] = {
    "psana": GeometryFormat("psana", (".data",), Geometry.from_psana, None, _write_psana, holds_beam=False),
    "crystfel": GeometryFormat("CrystFEL", (".geom",), crystfel.from_crystfel, _crystfel_beam, _write_crystfel),
    "nexus": GeometryFormat("NeXus", (".nxs", ".h5", ".hdf5", ".cxi"), _read_nexus, _nexus_beam, _write_nexus),
    "dials": GeometryFormat(
        "DIALS",
        (".expt",),
        lambda source: dials.from_dials(source)[0],
        lambda source: dials.from_dials(source)[1],
        _write_dials,
        needs_beam=True,
    ),
    "pyfai": GeometryFormat(
        "pyFAI",
        (".poni",),
        lambda source: _read_poni(source)[0],
        lambda source: _read_poni(source)[1],
        _write_poni,
        needs_beam=True,
    ),
    "extra_geom": GeometryFormat(
        "EXtra-geom", (), extra_geom.from_extra_geom, None, _write_extra_geom, holds_beam=False
    ),
    "xsmall": GeometryFormat("xsmall", (".json",), _read_xsmall, None, _write_xsmall, holds_beam=False),
}
