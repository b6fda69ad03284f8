"""Which pixels are at an edge, at a join of two ASICs, not bonded, next to a bad one: the bare pixels, on NumPy arrays.

Everything here works on the last two dims (row, column) of one panel and says True where the rule holds; what is made
of that is decided in :mod:`xsmall.frames.mask`. Pixel for pixel the rules are psana's, where psana is right.
"""

from __future__ import annotations

from typing import Any, Final, Literal

import numpy as np
import numpy.typing as npt

from xsmall.errors import DataError, ParameterError

__all__ = [
    "CONVENTIONS",
    "central_pixels",
    "edge_pixels",
    "mask_from_array",
    "neighbours_of",
    "unbonded_neighbours",
    "unbonded_pixels",
]

BoolArray = npt.NDArray[np.bool_]
Pattern = Literal["diamond", "disk", "square"]

CSPAD_2X1: Final = "SENS2X1"
"""The one segment type with pixels that are not bonded; its two ASICs have 194 columns each."""
_UNBONDED_STEP: Final = 10
_CSPAD_SHAPE: Final = (185, 388)


def _band_width(width: Any, what: str, limit: int) -> int:
    if isinstance(width, bool) or not isinstance(width, int | np.integer) or not 0 <= width <= limit:
        raise ParameterError(
            f"invalid width of the {what}",
            found=width,
            expected=f"an integer number of pixels from 0 to {limit}",
            fix="give a width that leaves a pixel of the panel",
        )
    return int(width)


def edge_pixels(shape: tuple[int, int], rows: int = 1, columns: int = 1) -> BoolArray:
    """Mark the outer pixels of a panel.

    Parameters
    ----------
    shape
        Rows and columns of the panel (a whole panel, not one ASIC).
    rows, columns
        How many rows and columns, at both ends.

    Returns
    -------
    Boolean array of that shape, True at the edge.

    Raises
    ------
    ParameterError
        A width that is negative or leaves nothing.

    Examples
    --------
    >>> int(edge_pixels((4, 5)).sum())
    14
    """
    n_rows = _band_width(rows, "edge in rows", shape[0] // 2)
    n_columns = _band_width(columns, "edge in columns", shape[1] // 2)
    marked = np.ones(shape, dtype=bool)
    marked[n_rows : shape[0] - n_rows, n_columns : shape[1] - n_columns] = False
    return marked


def central_pixels(shape: tuple[int, int], asic: tuple[int, int], rows: int = 1, columns: int = 1) -> BoolArray:
    """Mark the pixels on both sides of each join of two ASICs (the wide ones, where the sensor has wide pixels).

    Parameters
    ----------
    shape
        Rows and columns of the panel.
    asic
        Rows and columns of one ASIC; joins lie at their multiples.
    rows, columns
        How many rows and columns, on each side of each join.

    Returns
    -------
    Boolean array of that shape, True at a join.

    Examples
    --------
    >>> int(central_pixels((512, 1024), (256, 256)).sum())
    5108
    """
    n_rows = _band_width(rows, "centre in rows", asic[0] // 2)
    n_columns = _band_width(columns, "centre in columns", asic[1] // 2)
    marked = np.zeros(shape, dtype=bool)
    for join in range(asic[0], shape[0], asic[0]):
        marked[join - n_rows : join + n_rows, :] = True
    for join in range(asic[1], shape[1], asic[1]):
        marked[:, join - n_columns : join + n_columns] = True
    return marked


def unbonded_pixels(segment_type: str, shape: tuple[int, int]) -> BoolArray:
    """Mark the pixels that are not bonded to the read-out: every tenth on the diagonal of each CSPAD ASIC.

    Other segment types have none.

    Examples
    --------
    >>> int(unbonded_pixels("SENS2X1:V1", (185, 388)).sum())
    38
    """
    marked = np.zeros(shape, dtype=bool)
    if segment_type.startswith(CSPAD_2X1):
        _check_cspad(shape)
        diagonal = np.arange(0, shape[0], _UNBONDED_STEP)
        marked[diagonal, diagonal] = True
        marked[diagonal, diagonal + shape[1] // 2] = True
    return marked


def unbonded_neighbours(segment_type: str, shape: tuple[int, int], neighbours: int) -> BoolArray:
    """Mark the pixels that touch one that is not bonded, within the same ASIC; the unbonded themselves stay unmarked.

    Parameters
    ----------
    segment_type
        Name of the segment type, such as ``"SENS2X1:V1"``; only the CSPAD has unbonded pixels.
    shape
        Rows and columns of the panel.
    neighbours
        4 (up, down, left, right) or 8 (the corners too).

    Raises
    ------
    ParameterError
        Another number of neighbours.

    Examples
    --------
    >>> int(unbonded_neighbours("SENS2X1:V1", (185, 388), 4).sum())
    148
    """
    if neighbours not in (4, 8):
        raise ParameterError(
            "neighbours of unbonded pixels come in two kinds",
            found=neighbours,
            expected="4 or 8",
            fix="unbonded_neighbours=4",
        )
    marked = np.zeros(shape, dtype=bool)
    unbonded = unbonded_pixels(segment_type, shape)
    if unbonded.any():
        half = shape[1] // 2
        pattern: Pattern = "diamond" if neighbours == 4 else "square"
        for asic in (np.s_[:, :half], np.s_[:, half:]):
            marked[asic] = neighbours_of(unbonded[asic], 1, pattern)
    return marked & ~unbonded


def _check_cspad(shape: tuple[int, int]) -> None:
    if shape != _CSPAD_SHAPE:
        raise DataError("a CSPAD 2x1 of another size", found=shape, expected=_CSPAD_SHAPE)


def neighbours_of(bad: npt.NDArray[Any], radius: int, pattern: Pattern = "diamond") -> BoolArray:
    """Mark the bad pixels and all that lie within ``radius`` of one, each panel for itself.

    Parameters
    ----------
    bad
        Boolean (..., row, column), True where bad.
    radius
        In pixels; 0 marks the bad ones alone.
    pattern
        ``"diamond"``: |rows| + |columns| <= radius (psana's ``r``); ``"disk"``: rows^2 + columns^2 <= radius^2
        (psana's ``c``); ``"square"``: both <= radius.

    Returns
    -------
    Boolean array of the same shape.

    Notes
    -----
    Cost: one cumulative sum and 2 x radius + 1 comparisons per pixel, whatever the number of bad pixels.

    Examples
    --------
    >>> import numpy as np
    >>> bad = np.zeros((5, 5), dtype=bool)
    >>> bad[2, 2] = True
    >>> int(neighbours_of(bad, 1).sum()), int(neighbours_of(bad, 1, "square").sum())
    (5, 9)
    """
    reach = _pattern_reach(radius, pattern)
    if bad.dtype != np.bool_:
        raise DataError("bad pixels are given as booleans", found=bad.dtype, expected="bool, True = bad")
    n_rows, n_columns = bad.shape[-2:]
    ahead = np.zeros((*bad.shape[:-1], n_columns + 1), dtype=np.int32)
    np.cumsum(bad, axis=-1, out=ahead[..., 1:])
    column = np.arange(n_columns)
    marked = np.zeros_like(bad)
    for shift in range(-radius, radius + 1):
        first, last = max(0, -shift), min(n_rows, n_rows - shift)
        if first >= last:
            continue
        low = np.maximum(column - reach[abs(shift)], 0)
        high = np.minimum(column + reach[abs(shift)] + 1, n_columns)
        source = ahead[..., first + shift : last + shift, :]
        marked[..., first:last, :] |= source[..., high] > source[..., low]
    return marked


def _pattern_reach(radius: Any, pattern: str) -> list[int]:
    """How far to the sides the pattern reaches, for each distance in rows."""
    if isinstance(radius, bool) or not isinstance(radius, int | np.integer) or radius < 0:
        raise ParameterError("a radius in pixels is an integer from 0", found=radius, expected="0, 1, 2, ...")
    if pattern == "diamond":
        return [radius - d for d in range(radius + 1)]
    if pattern == "disk":
        return [int(np.sqrt(radius * radius - d * d) + 1e-9) for d in range(radius + 1)]
    if pattern == "square":
        return [int(radius)] * (radius + 1)
    raise ParameterError(
        "unknown pattern of neighbours", found=pattern, expected="'diamond', 'disk' or 'square'", fix="pattern='disk'"
    )


# ---- arrays of ones and zeros -----------------------------------------------------------------------------------

CONVENTIONS: Final = ("good=1", "bad=1", "flags")
"""How an integer array may say which pixels to use."""


def mask_from_array(values: npt.ArrayLike, *, convention: str | None = None) -> BoolArray:
    """Make a boolean mask, True = use the pixel, of an array whose convention is named.

    Parameters
    ----------
    values
        A boolean array is taken as it is (True = use). An integer array needs its convention.
    convention
        ``"good=1"``: 1 = use, 0 = do not (psana, smalldata_tools' ``mask``). ``"bad=1"``: 1 = do not use
        (smalldata_tools' ``ROI_mask``, pyFAI). ``"flags"``: any bit that is set makes the pixel bad (NeXus,
        European XFEL, xsmall's own flags).

    Raises
    ------
    ParameterError
        Integers without a convention, or an unknown one.
    DataError
        Values other than 0 and 1 where the convention has only these; a dtype that is no mask.

    Examples
    --------
    >>> import numpy as np, xsmall as xs
    >>> xs.mask_from_array(np.array([0, 1, 1]), convention="bad=1")
    array([ True, False, False])
    """
    array = np.asarray(values)
    if array.dtype == np.bool_:
        if convention == "bad=1":
            return ~array
        _known_convention(convention)
        return array
    if convention is None:
        raise ParameterError(
            "an array of numbers does not say whether 1 means good or bad",
            found=f"dtype {array.dtype}",
            expected="a boolean array (True = use the pixel), or the convention by name",
            fix="xs.mask_from_array(array, convention='good=1'), or 'bad=1', or 'flags'",
        )
    _known_convention(convention)
    if array.dtype.kind == "f" and convention != "flags" and np.isin(array, (0.0, 1.0)).all():
        array = array.astype(np.uint8)
    if array.dtype.kind not in "ui":
        raise DataError("a mask is made of integers or booleans", found=array.dtype, expected="bool or integers")
    if convention == "flags":
        return np.asarray(array == 0)
    if array.size and (array.min() < 0 or array.max() > 1):
        raise DataError(
            f"a mask of the convention {convention!r} has other values than 0 and 1",
            found=f"{array.min()} to {array.max()}",
            expected="0 and 1",
            fix="convention='flags' if these are bits",
        )
    return np.asarray(array == (1 if convention == "good=1" else 0))


def _known_convention(convention: str | None) -> None:
    if convention is not None and convention not in CONVENTIONS:
        raise ParameterError("unknown convention of a mask", found=convention, expected=" or ".join(CONVENTIONS))


# ---- psana's geometry mask ----------------------------------------------------------------------------------------


def psana_unbonded(segment_type: str, shape: tuple[int, int], bits: int) -> BoolArray:
    """Mark the pixels that psana's mask bits 4, 8 and 16 take away: 16 goes before 8 before 4.

    Bit 8 marks the unbonded pixels with their four neighbours except (0, 0) and (0, 194), which it leaves; bit 16 marks
    the blocks of 3 x 3.
    """
    unbonded = unbonded_pixels(segment_type, shape)
    if bits & 16:
        return unbonded | unbonded_neighbours(segment_type, shape, 8)
    if bits & 8:
        marked = unbonded | unbonded_neighbours(segment_type, shape, 4)
        if unbonded.any():
            marked[0, [0, shape[1] // 2]] = False
        return marked
    return unbonded if bits & 4 else np.zeros(shape, dtype=bool)
