"""The segment types of LCLS: pixel grids, wide pixels and ASICs, as data.

Where psana1 and psana2 differ the type name in the file decides. Two names mean different things to the two, and the
text does not say for which it was written; they are read as psana2 reads them unless ``psana=1`` is said:

* ``EPIX10KA:V1``: wide pixels of 225 um (psana1: 250 um). ``EPIX10KA:V2`` has 225 um; only psana1 knows that name, so a
  text with both names is one of psana1 and is read so (:func:`xsmall.detector.geometry.psana.psana_version`).
* ``JUNGFRAU:V2``: wide pixels at their true centres (psana1: at the centres of regular pixels, unless told otherwise).

Deliberate differences from psana2:

* ``EPIXHR1X4:V1``: rows are evenly spaced; psana2 has rows 70 to 73 in wrong places. Its ASICs are 144 x 192.
* ``EPIXUHR3X2:V1``: true centres move columns 191|192 and 383|384, symmetrically by 81.25 um.
* ``JUNGFRAU:V2``: pixel areas are 1, 2 (wide) and 4 (wide corner) regular pixels, where psana2 counts upwards.
* ``EPIX100:V1`` has ASICs (352 x 384), which psana leaves undefined.
"""

import re
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import Final, Literal, TypeAlias

from xsmall.detector.geometry.panel import PixelAxis
from xsmall.errors import GeometryError

__all__ = ["PsanaVersion", "SegmentType", "WidePixels", "is_segment_type", "segment_type"]

WidePixels: TypeAlias = Literal["nominal", "true"]
PsanaVersion: TypeAlias = Literal[1, 2]

_X: Final = (1.0, 0.0)
_Y: Final = (0.0, 1.0)
_DOWN: Final = (0.0, -1.0)  # rows go against y


@dataclass(frozen=True)
class SegmentType:
    """Pixel grid of a segment in its own frame, origin at the centre of the sensor unless the type says otherwise.

    Parameters
    ----------
    name
        As in a psana geometry file.
    rows, columns
        Pixels along each axis.
    pitch
        Regular pitch along rows and columns, in um.
    slow, fast
        Unit vectors (x, y) from row to row and from column to column.
    depth
        Thickness of the sensor in um.
    centred
        Whether the origin is the centre of the sensor; otherwise it is pixel (0, 0).
    blocks
        (start, length) of the stretches of columns that are pixels; empty where all are.
    """

    name: str
    rows: PixelAxis
    columns: PixelAxis
    pitch: tuple[float, float]
    slow: tuple[float, float] = _DOWN
    fast: tuple[float, float] = _X
    depth: float = 400.0
    centred: bool = True
    blocks: tuple[tuple[int, int], ...] = ()

    @property
    def shape(self) -> tuple[int, int]:
        """Rows and columns in memory; columns that are no pixels count."""
        return self.rows.size, self.n_columns

    @property
    def n_columns(self) -> int:
        """Columns in memory."""
        if not self.blocks:
            return self.columns.size
        step = self.blocks[1][0] - self.blocks[0][0]
        return step * len(self.blocks)

    @property
    def asic_shape(self) -> tuple[int, int]:
        """Rows and columns of an ASIC."""
        return self.rows.length, self.columns.length

    @property
    def asic_corners(self) -> tuple[tuple[int, int], ...]:
        """First row and column of each ASIC, row by row."""
        return tuple((r, c) for r in self.rows.starts for c in self.columns.starts)

    @property
    def origin(self) -> tuple[float, float]:
        """Centre (x, y) in um of pixel (0, 0), taken for a regular pixel."""
        if not self.centred:
            return 0.0, 0.0
        down = self.rows.nominal()[-1] / 2 * self.pitch[0]
        across = self.columns.nominal()[-1] / 2 * self.pitch[1]
        return (
            -down * self.slow[0] - across * self.fast[0],
            -down * self.slow[1] - across * self.fast[1],
        )


@dataclass(frozen=True)
class _SegmentRow:
    """A line of the table: (ASICs, pixels per ASIC) along each axis, joins in pitches, size of wide pixels in um."""

    rows: tuple[int, int]
    columns: tuple[int, int]
    pitch: float
    row_joins: tuple[float, ...] = ()
    column_joins: tuple[float, ...] = ()
    wide: float | None = None
    slow: tuple[float, float] = _DOWN
    always_true: bool = False
    depth: float = 400.0

    def build(self, name: str, true_centres: bool) -> SegmentType:
        wide = 1.0 if self.wide is None else self.wide / self.pitch
        true = (true_centres or self.always_true) and wide != 1.0

        def axis(shape: tuple[int, int], joins: tuple[float, ...]) -> PixelAxis:
            asics, length = shape
            if asics == 1:
                return PixelAxis(length)
            return PixelAxis(length, asics, joins or (2 * wide - 1,) * (asics - 1), wide, true)

        rows, columns = axis(self.rows, self.row_joins), axis(self.columns, self.column_joins)
        return SegmentType(name, rows, columns, (self.pitch, self.pitch), slow=self.slow, depth=self.depth)


_TABLE: Final = MappingProxyType(
    {
        "SENS2X1:V1": _SegmentRow((1, 185), (2, 194), 109.92, wide=274.80),
        "EPIX100:V1": _SegmentRow((2, 352), (2, 384), 50.0, wide=175.0, slow=_Y),
        "EPIX10KA:V1": _SegmentRow((2, 176), (2, 192), 100.0, wide=225.0),
        "EPIX10KA:V2": _SegmentRow((2, 176), (2, 192), 100.0, wide=225.0),
        "EPIXHR2X2:V1": _SegmentRow((2, 144), (2, 192), 100.0, wide=225.0),
        "EPIXHR1X4:V1": _SegmentRow((1, 144), (4, 192), 100.0, column_joins=(4.5, 3.5, 4.5)),
        "EPIXUHR3X2:V1": _SegmentRow((2, 168), (3, 192), 100.0, wide=262.5),
        "JUNGFRAU:V1": _SegmentRow((2, 256), (4, 256), 75.0, (3.0,), (3.0, 3.0, 3.0)),
        "JUNGFRAU:V2": _SegmentRow((2, 256), (4, 256), 75.0, wide=150.0, slow=_Y, always_true=True),
    }
)
_OF_PSANA1: Final = MappingProxyType(
    {
        "EPIX10KA:V1": replace(_TABLE["EPIX10KA:V1"], wide=250.0),
        "JUNGFRAU:V2": replace(_TABLE["JUNGFRAU:V2"], always_true=False),
    }
)
_FIXED_MATRICES: Final = MappingProxyType(
    {"EPIXMASIC:V1": (192, 384, 50.0, 500.0), "EPIXUHRASIC:V1": (168, 192, 100.0, 500.0)}
)
_NUMBER = r"(\d{1,6}(?:\.\d{1,12})?)"
_MATRIX = re.compile(rf"MTRX:(V2:)?(\d{{1,6}}):(\d{{1,6}}):{_NUMBER}:{_NUMBER}")
_ARCHON_BANKS, _ARCHON_BANK, _ARCHON_REAL, _ARCHON_ROWS = 16, 300, 264, 1200
_ARCHON_PITCH: Final = (20.0, 10.0)
_ANY: Final = (75, 75)  # psana's shape of MTRXANY:V1 until the data say otherwise
_RUNTIME: Final = frozenset({"MTRXANY:V1", "ARCHON:V1", "ARCHON:V2"})


def is_segment_type(name: str) -> bool:
    """Whether ``name`` is a type with pixels rather than an object that holds others.

    Examples
    --------
    >>> from xsmall.detector.geometry.segments import is_segment_type
    >>> is_segment_type("JUNGFRAU:V2"), is_segment_type("MTRX:V2:512:512:54:54"), is_segment_type("CAMERA")
    (True, True, False)
    """
    return name in _TABLE or name in _FIXED_MATRICES or name in _RUNTIME or name.startswith(("MTRX:", "PNCCD:V1"))


def segment_type(
    name: str,
    *,
    wide_pixels: WidePixels = "nominal",
    shape: tuple[int, int] | None = None,
    psana: PsanaVersion = 2,
) -> SegmentType:
    """Pixel grid of the segment type ``name``.

    Parameters
    ----------
    name
        As in a psana geometry file, ``"EPIX10KA:V1"`` or ``"MTRX:V2:512:512:54:54"``.
    wide_pixels
        Centres of the wide pixels at the joins of ASICs: "nominal" where regular pixels would have them (psana's
        default), "true" where they are. ``JUNGFRAU:V2`` of psana2 always has true ones.
    shape
        Rows and columns, for the types whose shape only the data know (``MTRXANY:V1``, ``ARCHON``).
    psana
        Which psana the name is of, where the two differ: see the head of this module.

    Returns
    -------
    The grid; no per-pixel array is made.

    Raises
    ------
    GeometryError
        Where the type is not known or its numbers are invalid.

    Notes
    -----
    The numbers are those of psana's segment classes, with the exceptions that the head of this module lists.

    Examples
    --------
    >>> from xsmall.detector.geometry.segments import segment_type
    >>> segment_type("JUNGFRAU:V2").shape
    (512, 1024)
    >>> segment_type("SENS2X1:V1").asic_corners
    ((0, 0), (0, 194))
    """
    if wide_pixels not in ("nominal", "true"):
        raise GeometryError("unknown convention of wide pixels", found=wide_pixels, expected="'nominal' or 'true'")
    if psana not in (1, 2):
        raise GeometryError("unknown version of psana", found=psana, expected="1 or 2")
    if psana == 1 and name in _OF_PSANA1:
        return _OF_PSANA1[name].build(name, wide_pixels == "true")
    if name in _TABLE:
        return _TABLE[name].build(name, wide_pixels == "true")
    if name in _FIXED_MATRICES:
        rows, columns, pitch, depth = _FIXED_MATRICES[name]
        return SegmentType(name, PixelAxis(rows), PixelAxis(columns), (pitch, pitch), depth=depth)
    if name == "PNCCD:V1":
        return _matrix(name, 512, 512, (75.0, 75.0), first=True, depth=400.0)
    if name == "MTRXANY:V1":
        rows, columns = shape or _ANY
        return _matrix(name, rows, columns, (75.0, 75.0), first=False, depth=400.0)
    if name in _RUNTIME:
        return _archon(name, (shape or (_ARCHON_ROWS, 0))[0])
    match = _MATRIX.fullmatch(name)
    if match is None:
        known = ", ".join((*_TABLE, *_FIXED_MATRICES, "PNCCD:V1", *sorted(_RUNTIME)))
        raise GeometryError(
            f"unknown segment type {name!r}",
            expected=f"{known}, MTRX:rows:columns:um:um or MTRX:V2:rows:columns:um:um",
        )
    second, rows, columns = match[1], int(match[2]), int(match[3])
    return _matrix(name, rows, columns, (float(match[4]), float(match[5])), first=second is None, depth=100.0)


def _matrix(
    name: str, rows: int, columns: int, pitch: tuple[float, float], *, first: bool, depth: float
) -> SegmentType:
    """Plain grid: the first version has its origin in pixel (0, 0) and rows along x, the second is centred."""
    if min(pitch) <= 0:
        raise GeometryError(f"pixels of segment type {name!r} have no size", found=pitch, expected="um above 0")
    if first:
        slow, fast = _X, _Y
        return SegmentType(name, PixelAxis(rows), PixelAxis(columns), pitch, slow, fast, depth, centred=False)
    return SegmentType(name, PixelAxis(rows), PixelAxis(columns), pitch, depth=depth)


def _archon(name: str, rows: int) -> SegmentType:
    """16 banks of 264 pixels and 36 columns that are no pixels, behind them (V1) or before them (V2)."""
    lead = 0 if name == "ARCHON:V1" else _ARCHON_BANK - _ARCHON_REAL
    blocks = tuple((i * _ARCHON_BANK + lead, _ARCHON_REAL) for i in range(_ARCHON_BANKS))
    columns = PixelAxis(_ARCHON_REAL * _ARCHON_BANKS)
    return SegmentType(name, PixelAxis(rows), columns, _ARCHON_PITCH, blocks=blocks)
