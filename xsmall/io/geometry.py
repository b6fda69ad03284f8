"""Geometries in files of every program that is known here: one way to open, one to save."""

from __future__ import annotations

import inspect
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

from xsmall.detector.geometry.beam import DISTANCE_RANGE, Beam
from xsmall.detector.geometry.geometry import Geometry
from xsmall.detector.geometry.text import read_text
from xsmall.errors import FileFormatError, GeometryError, ParameterError, XsmallError
from xsmall.io.constants.of_run import asked_of_database, geometry_of_database, is_of_database
from xsmall.io.files import names_its_file
from xsmall.io.geometry_formats import FORMATS, corners_beside
from xsmall.io.stores.place import write_file

__all__ = ["open_beam", "open_geometry", "save_geometry"]

_HDF5: Final = b"\x89HDF\r\n\x1a\n"
_LOOKED_AT: Final = 20
_PITCH: Final = (1e-7, 0.1)  # m
_PLACE: Final = (0.0, DISTANCE_RANGE[1])


@names_its_file
def open_geometry(source: str | os.PathLike[str] | Any, *, format: str | None = None, **options: Any) -> Geometry:
    """Read the geometry of a detector from a file of psana, CrystFEL, NeXus, DIALS, pyFAI or xsmall.

    Parameters
    ----------
    source
        Path of the file; of text formats also the text itself (anything with a line break); a geometry object of
        EXtra-geom; or what psana's database has: for frames of an LCLS-II run, or for ``"exp=mfx101332224,run=7"`` with
        ``detector``.
    format
        "psana", "crystfel", "nexus", "dials", "pyfai", "extra_geom" or "xsmall"; where not given, the content says it.
    **options
        What only one format has. psana: ``wide_pixels``, ``segment_shape``, ``psana`` (see
        :meth:`Geometry.from_psana`). CrystFEL: ``corner``, ``segment_rows``, ``camera_length`` in m. NeXus:
        ``detector``, its path in the file. EXtra-geom: ``distance`` in m. psana's database: ``detector``, ``run`` and
        ``dir`` as in :func:`open_constants`, and those of psana.

    Returns
    -------
    The geometry in the lab frame. What the file says of the beam is read by :func:`open_beam`.

    Raises
    ------
    FileFormatError
        The file cannot be read, or is of none of these formats.
    GeometryError
        Naming file and place of what is missing or invalid.
    ParameterError
        An option that this format does not have.
    CalibrationError
        psana's database has no geometry, or does not answer.

    Examples
    --------
    >>> import xsmall as xs
    >>> text = "IP 0 CAMERA 0 0 0 100000 90 0 0 0 0 0" + chr(10) + "CAMERA 0 EPIX100:V1 0 0 0 0 0 0 0 0 0 0"
    >>> xs.open_geometry(text)
    <Geometry 1 x 704 x 768 (segment x row x column), 1 panels: EPIX100:V1; mean z 0.1 m>
    """
    if format is None and is_of_database(source):
        asked = asked_of_database(
            source, options.pop("detector", None), options.pop("run", None), options.pop("dir", None)
        )
        source, format = geometry_of_database(asked), "psana"  # noqa: A001
    name = _recognised(source) if format is None else _known_format(format)
    made = FORMATS[name].read(_source_given(source, name), **_checked_options(name, FORMATS[name].read, options))
    _check_sizes(made)
    return made


def _check_sizes(geometry: Geometry) -> None:
    """Refuse pixels and places that nobody builds: a number in another unit than its format has."""
    lengths = {
        "the size of a pixel": (_PITCH, "75 um is 7.5e-5"),
        "the place of a panel": (_PLACE, "92.5 mm is 0.0925"),
    }
    for panel in geometry.panels:
        for (what, ((low, high), example)), found in zip(lengths.items(), (panel.pitch, panel.origin), strict=True):
            for length in map(abs, found):
                if not low <= length <= high:
                    raise GeometryError(
                        f"{what} is outside the range of its unit",
                        found=f"{length:g} m, panel {panel.name or panel.segment}",
                        expected=f"{low:g} to {high:g} m",
                        fix=f"write it in the unit of the format; in m {example}",
                    )


@names_its_file
def open_beam(source: str | os.PathLike[str], *, format: str | None = None, **options: Any) -> Beam:
    """Read the beam that belongs to the geometry of a file: photon energy and distance, where they stand in it.

    Parameters
    ----------
    source, format
        As in :func:`open_geometry`.
    **options
        As in :func:`open_geometry`; CrystFEL: ``corner``, ``segment_rows``, ``camera_length``; NeXus: ``detector``.

    Returns
    -------
    The beam for the geometry that :func:`open_geometry` reads from the same file. A .poni file that was refined with a
    detector of :func:`to_pyfai` is read by :func:`beam_from_poni`.

    Raises
    ------
    FileFormatError
        The file cannot be read, or its format says nothing of the beam.
    ParameterError
        A value outside the range of its unit, or an option that this format does not have.

    Examples
    --------
    >>> import xsmall as xs
    >>> panel = "p0/fs = x;p0/ss = y;p0/res = 1e4;p0/corner_x = 0;p0/corner_y = 0;p0/min_fs = 0;p0/max_fs = 7"
    >>> text = "photon_energy = 9.5 keV;clen = 92.5 mm;p0/min_ss = 0;p0/max_ss = 3;" + panel
    >>> beam = xs.open_beam(text.replace(";", chr(10)))
    >>> beam.photon_energy, beam.distance
    (9500.0, 0.0925)
    """
    name = _recognised(source) if format is None else _known_format(format)
    read = FORMATS[name].beam
    if read is None:
        raise FileFormatError(
            f"a {name} geometry says nothing of the beam", fix="xs.Beam(photon_energy=9500, distance=0.1)"
        )
    return read(_source_given(source, name), **_checked_options(name, read, options))


def save_geometry(
    geometry: Geometry,
    path: str | os.PathLike[str],
    *,
    format: str | None = None,
    beam: Beam | None = None,
    overwrite: bool = False,
    **options: Any,
) -> Path:
    """Write the geometry of a detector for psana, CrystFEL, NeXus, DIALS, pyFAI, EXtra-geom or xsmall.

    Parameters
    ----------
    geometry
        What to write.
    path
        Where to. The ending says the format where ``format`` does not: ``.data`` psana, ``.geom`` CrystFEL, ``.nxs``
        NeXus, ``.expt`` DIALS, ``.poni`` pyFAI, ``.json`` xsmall.
    format
        "psana", "crystfel", "nexus", "dials", "pyfai", "extra_geom" or "xsmall".
    beam
        Photon energy, distance, centre and tilts. DIALS and pyFAI need it; psana, EXtra-geom and xsmall have no place
        for it: put it into the panels with :meth:`Beam.align`.
    overwrite
        Replace a file that is there.
    **options
        What only one format has. CrystFEL: ``layout``, ``data``, ``adu_per_photon``. DIALS: ``trusted_range``.

    Returns
    -------
    The path. The file is complete or not there. Beside a ``.poni`` file stands one that ends in ``.detector.h5``, with
    the corners of all pixels, which the ``.poni`` file names.

    Raises
    ------
    FileFormatError
        The file exists.
    WriteError
        Another job is writing it, or it cannot be written.
    GeometryError
        The format cannot say what this geometry is, such as hexagonal pixels.
    ParameterError
        An unknown format or option, or a beam that is needed, or that there is no place for.

    Examples
    --------
    >>> import pathlib, tempfile, xsmall as xs
    >>> panel = xs.Panel(origin=(0, 0, 0.1), slow=(0, -1e-4, 0), fast=(1e-4, 0, 0), shape=(4, 8))
    >>> geometry = xs.Geometry.from_panels([panel])
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = xs.save_geometry(geometry, pathlib.Path(folder) / "detector.geom")
    ...     back = xs.open_geometry(path)
    >>> bool(abs(back.positions() - geometry.positions()).max() < 1e-12)
    True
    """
    target = Path(path)
    name = _of_ending(target) if format is None else _known_format(format)
    kind = FORMATS[name]
    options = _checked_options(name, kind.write, options)
    if beam is None and kind.needs_beam:
        raise ParameterError(f"a {name} geometry needs a beam", fix="beam=xs.Beam(photon_energy=9500, distance=0.1)")
    if beam is not None and not kind.holds_beam:
        raise ParameterError(
            f"a {name} geometry has no place for a beam", fix=f"xs.save_geometry(beam.align(geometry), {str(target)!r})"
        )
    for file in [target, corners_beside(target)] if name == "pyfai" else [target]:
        if file.exists() and not overwrite:
            raise FileFormatError(f"{file} exists", fix="save_geometry(..., overwrite=True)")
    if name != "pyfai":
        return write_file(target, lambda draft: kind.write(draft, geometry, beam, **options), overwrite=overwrite)
    part = target.with_name(f".{target.stem}.{os.getpid()}.part{target.suffix}")  # it names the file beside it
    try:
        kind.write(part, geometry, beam, **options)
        part.replace(target)
    except OSError as error:
        raise FileFormatError(f"{target} cannot be written", found=error) from None
    finally:
        part.unlink(missing_ok=True)
    return target


# ---- which format ---------------------------------------------------------------------------------------------------


def _known_format(format: str) -> str:
    if format not in FORMATS:
        raise ParameterError("unknown format of a geometry", found=repr(format), expected=", ".join(FORMATS))
    return format


def _of_ending(path: Path) -> str:
    for name, kind in FORMATS.items():
        if path.suffix.lower() in kind.endings:
            return name
    endings = ", ".join(f"{kind.endings[0]} ({kind.program})" for kind in FORMATS.values() if kind.endings)
    raise ParameterError("unknown ending of a geometry", found=path.name, expected=f"{endings}, or format=")


def _recognised(source: Any) -> str:
    """Name the format by the content, which cannot lie as an ending can."""
    if not isinstance(source, str | os.PathLike):
        return "extra_geom"  # whose reader says what is wrong with anything else
    if not (isinstance(source, str) and "\n" in source):
        try:
            with Path(source).open("rb") as file:
                if file.read(8) == _HDF5:
                    return "nexus"
        except IsADirectoryError:
            raise _is_folder(Path(source)) from None
        except OSError as error:
            raise FileFormatError(
                f"{source} cannot be read", found=error.strerror, expected="a file", fix="check the path"
            ) from None
    text, name = read_text(source if isinstance(source, str) else Path(source))
    if text.lstrip().startswith("{"):
        return "xsmall" if '"xsmall geometry"' in text[:200] else "dials"
    lines = [line.strip() for line in text.splitlines() if line.strip() and line.lstrip()[0] not in "#;"]
    keys = {line.replace("=", ":").partition(":")[0].strip().lower() for line in lines}
    if {"poni1", "poni2"} & keys:
        return "pyfai"
    if any("=" in line for line in lines):
        return "crystfel"
    if any(len(line.split()) == 13 for line in lines):
        return "psana"
    raise FileFormatError(
        f"{name} is not a geometry",
        found=repr(text[:60]),
        expected=", ".join(kind.program for kind in FORMATS.values()),
        fix='xs.open_geometry(..., format="psana") where you know it better',
    )


def _is_folder(folder: Path) -> FileFormatError:
    """The error that names the geometry in a folder, such as the calibration folder of psana."""
    below = ("*", *(f"{'*/' * depth}geometry/*" for depth in range(4)))
    files = [path for one in below for path in sorted(folder.glob(one))[-_LOOKED_AT:] if path.is_file()]
    found = [path for path in files if _can_be_read(path)]
    return FileFormatError(
        f"{folder} is a folder",
        found=", ".join(str(path.relative_to(folder)) for path in (found or files)[:8]) or "no file in it",
        expected="the file of a geometry",
        fix=f"xs.open_geometry({str(found[-1])!r})" if found else "check the path",
    )


def _can_be_read(path: Path) -> bool:
    try:
        name = _recognised(path)
        FORMATS[name].read(_source_given(path, name))
    except (XsmallError, OSError):
        return False
    return True


def _source_given(source: Any, name: str) -> Any:
    """Hand on what a reader takes: text, a Path, or of EXtra-geom the object."""
    if name == "extra_geom" or (isinstance(source, str) and "\n" in source):
        return source
    if not isinstance(source, str | os.PathLike):
        raise FileFormatError("not a file", found=type(source).__name__, expected="a path")
    return Path(source)


def _checked_options(name: str, function: Callable[..., Any], options: dict[str, Any]) -> dict[str, Any]:
    """Refuse options that the format does not have."""
    taken = [p.name for p in inspect.signature(function).parameters.values() if p.kind is p.KEYWORD_ONLY]
    unknown = [option for option in options if option not in taken]
    if unknown:
        raise ParameterError(
            f"a {name} geometry has no option {unknown[0]!r}", expected=", ".join(taken) or "no option"
        )
    return options
