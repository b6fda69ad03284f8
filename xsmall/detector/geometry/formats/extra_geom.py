"""EXtra-geom's detectors: AGIPD, JUNGFRAU, LPD, DSSC and the others built of tiles, taken over and handed back."""

from typing import Any

import numpy as np

from xsmall.detector.geometry.geometry import Geometry
from xsmall.detector.geometry.panel import Floats, Panel, PixelAxis
from xsmall.errors import GeometryError, MissingDependency

__all__ = ["from_extra_geom", "to_extra_geom"]

SAME = 1e-9  # m


def from_extra_geom(detector: Any, *, distance: float = 0.0) -> Geometry:
    """Take over a geometry object of EXtra-geom.

    Parameters
    ----------
    detector
        Such as ``AGIPD_1MGeometry.from_quad_positions(...)``; anything with ``modules`` of tiles.
    distance
        In m, added to z: EXtra-geom mostly has z = 0 at the detector.

    Returns
    -------
    A geometry with one segment per module and one panel per tile, in the same frame (z along the beam, y up). Hexagonal
    pixels (DSSC) are rows shifted by half a pixel. Pixels lie within 1 nm of EXtra-geom's, which is checked.

    Raises
    ------
    GeometryError
        For an object without tiles, or whose pixels are laid out in a way that is not known here.
    """
    try:
        tiles = [[(t.corner_pos, t.ss_vec, t.fs_vec, t.ss_pixels, t.fs_pixels) for t in m] for m in detector.modules]
        known = np.asarray(detector.get_pixel_positions(), dtype=np.float64)
    except (AttributeError, TypeError):
        raise GeometryError(
            "no geometry of EXtra-geom",
            found=type(detector).__name__,
            expected="a path, text, or a geometry of EXtra-geom",
            fix='xs.open_geometry("geometry.data")',
        ) from None
    if known.ndim != 4:
        raise GeometryError("pixels of modules expected", found=f"positions {known.shape}")
    shifts = _pixel_shifts(detector)
    along_beam = np.array([0.0, 0.0, distance])
    panels = []
    for segment, module in enumerate(tiles):
        for number, (corner, slow, fast, rows, columns) in enumerate(module):
            place = detector._tile_slice(number)
            centre = along_beam + np.asarray(corner) + shifts[0] * np.asarray(slow) + shifts[1] * np.asarray(fast)
            panels.append(
                Panel(
                    origin=tuple(centre),
                    slow=tuple(slow),
                    fast=tuple(fast),
                    shape=(rows, columns),
                    columns=PixelAxis(columns, stagger=shifts[2]),
                    segment=segment,
                    row=place[0].start or 0,
                    column=place[1].start or 0,
                    name=str(getattr(detector, "detector_type_name", "")),
                )
            )
    geometry = Geometry.from_panels(panels, shape=known.shape[:3])
    _check_layout(geometry, known, distance)
    return geometry


def _pixel_shifts(detector: Any) -> tuple[float, float, float]:
    """Centre of the first pixel in pixels from the corner of its tile, and the shift of odd rows."""
    tile = detector.modules[0][0]
    slow, fast = (np.asarray(v, dtype=np.float64) for v in (tile.ss_vec, tile.fs_vec))
    place = detector._tile_slice(0)
    at = detector.get_pixel_positions()[0][place][:2, 0] - np.asarray(tile.corner_pos)
    across = np.array([slow, fast]).T
    first, second = (np.linalg.lstsq(across, point, rcond=None)[0] for point in at[:2])
    return float(first[0]), float(first[1]), round(float(second[1] - first[1]), 9) + 0.0


def _check_layout(geometry: Geometry, known: Floats, distance: float) -> None:
    """Refuse a layout that was not understood."""
    off = geometry.positions() - known - np.array([0.0, 0.0, distance])
    worst = float(np.nanmax(np.abs(off)))
    if worst > SAME or (np.isnan(off) != np.isnan(known)).any():
        raise GeometryError("pixels of EXtra-geom that are laid out in an unknown way", found=f"up to {worst:g} m off")


def to_extra_geom(geometry: Geometry, kind: type | None = None) -> Any:
    """Hand a geometry back as an object of EXtra-geom.

    Parameters
    ----------
    geometry
        Of tiles as EXtra-geom's detector has them.
    kind
        Class of EXtra-geom, such as ``AGIPD_1MGeometry``; where not given the one whose tiles these are.

    Returns
    -------
    An object of that class, its pixels within 1 nm of ours.

    Raises
    ------
    MissingDependency
        Where EXtra-geom is not installed.
    GeometryError
        Where the tiles are not those of the class.

    Examples
    --------
    >>> import xsmall as xs
    >>> from extra_geom import AGIPD_1MGeometry  # doctest: +SKIP
    >>> geometry = xs.open_geometry(AGIPD_1MGeometry.example(), distance=0.2)  # doctest: +SKIP
    >>> theirs = xs.to_extra_geom(geometry)  # doctest: +SKIP
    """
    try:
        import extra_geom
        from extra_geom.base import GeometryFragment
    except ImportError:
        raise MissingDependency.of("extra-geom", "extra", "a geometry of EXtra-geom") from None
    if kind is None:
        kind = _geometry_class(geometry, extra_geom)
    modules: list[list[Any]] = [[] for _ in range(geometry.shape[0])]
    for panel in geometry.asics():
        slow, fast = np.array(panel.slow), np.array(panel.fast)
        # hexagons reach two thirds of a row below their centre, rectangles half a row
        corner = np.array(panel.origin) - (2 / 3 if panel.column_axis.stagger else 0.5) * slow - 0.5 * fast
        modules[panel.memory[0]].append(GeometryFragment(corner, slow, fast, *panel.shape))
    made = kind(modules)
    known = np.asarray(made.get_pixel_positions())
    if known.shape[:3] != geometry.shape:
        raise GeometryError("tiles of another detector", found=geometry.shape, expected=known.shape[:3])
    _check_layout(geometry, known, 0.0)
    return made


def _geometry_class(geometry: Geometry, extra_geom: Any) -> type:
    """The class whose modules have this shape and tiles."""
    tile, modules = geometry.asics()[0].shape, geometry.shape[0]
    for name in dir(extra_geom):
        kind = getattr(extra_geom, name)
        shape = getattr(kind, "expected_data_shape", None)
        if not isinstance(kind, type) or shape is None:
            continue
        same_tile = (getattr(kind, "frag_ss_pixels", 0), getattr(kind, "frag_fs_pixels", 0)) == tile
        if same_tile and tuple(shape[1:]) == geometry.shape[1:] and shape[0] in (0, modules):
            fitting: type = kind
            return fitting
    raise GeometryError(
        "no detector of EXtra-geom has these tiles",
        found=f"{geometry.shape} of {tile}",
        fix='xs.to_extra_geom(geometry, kind="...")',
    )
