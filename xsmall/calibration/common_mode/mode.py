"""Common mode as a value: what is estimated from which pixels, and what it is taken from.

A :class:`CommonMode` is a list of steps, done in order: :class:`Exclude` takes bright pixels out of all later
estimates, :class:`Subtract` cuts the segment into units, estimates an offset for each and subtracts it. The numbers
that psana and smalldata_tools give to such lists are in :mod:`xsmall.calibration.common_mode.numbers`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Final, Literal, get_args

import numpy as np

from xsmall.calls import tells_its_names
from xsmall.errors import DataError, ParameterError

__all__ = ["CommonMode", "Exclude", "Subtract", "UnitGrid"]

Estimator = Literal["median", "integer_median", "histogram_median", "mean", "peak", "unbonded"]
AppliedTo = Literal["used", "all", "nothing"]
Failed = Literal["keep", "nan"]

CSPAD_SECTION = (185, 388)
_OF_ESTIMATOR: Final = {
    "sigma_max": "peak", "min_peak": "peak", "fallback": "peak", "half_range": "histogram_median"
}  # fmt: skip
_LEAST_HALF_RANGE, _GREATEST_HALF_RANGE = 10, 4999  # psana takes 10 for less, and makes at most 10000 bins


@tells_its_names
@dataclass(frozen=True, kw_only=True)
class Exclude:
    """A step that takes pixels out of the estimates of all later steps; it changes no pixel.

    Parameters
    ----------
    n_sigma
        Pixels at or above so many times their dark noise are bright; None: none is.
    neighbours
        The four nearest neighbours of a bright pixel go too.
    within
        Pixels beyond plus or minus so many ADU go; None: no limit.
    mask
        The mask and the gain stages count; False lets bad pixels take part, as some of psana's algorithms do.

    Examples
    --------
    >>> import xsmall as xs
    >>> xs.Exclude(n_sigma=10, neighbours=True, within=30).needs_noise
    True
    """

    n_sigma: float | None = None
    neighbours: bool = False
    within: float | None = None
    mask: bool = True

    def __post_init__(self) -> None:
        for name, value in (("n_sigma", self.n_sigma), ("within", self.within)):
            _check_positive(name, value)
        if self.n_sigma is None and self.within is None:
            raise ParameterError("an Exclude step that excludes nothing", fix="give n_sigma= (noise) or within= (ADU)")
        if self.neighbours and self.n_sigma is None:
            raise ParameterError(
                "neighbours are those of pixels that are bright by their noise",
                found="neighbours=True without n_sigma",
                fix="n_sigma=10",
            )

    @property
    def needs_noise(self) -> bool:
        """Whether the step compares with the dark noise of each pixel."""
        return self.n_sigma is not None


@tells_its_names
@dataclass(frozen=True, kw_only=True)
class Subtract:
    """A step that estimates one offset per unit of a segment and subtracts it.

    Parameters
    ----------
    name
        What the unit is called in results: ``"bank"``, ``"row"``, ``"column"``, ``"segment"`` ...
    rows, columns
        Size of a unit; None is the whole height or width of the segment.
    pixels
        In place of ``rows`` and ``columns``: so many consecutive pixels of the segment in memory order.
    interleave
        So many units share the columns of a unit in turn: with 2, its even and its odd pixels are a unit each.
    estimator
        ``"median"`` (exact), ``"integer_median"`` (of values cut to whole ADU, the lower of two),
        ``"histogram_median"`` (of values cut to whole ADU, interpolated within the bin, plus 0.8 ADU: psana's for the
        FCCD960; 0.2 ADU below a positive median, 0.8 ADU above a negative one), ``"mean"``, ``"peak"`` (mean of the
        peak of pixels without photons in a histogram of 1 ADU), ``"unbonded"`` (mean of the unbonded pixels of a CSPAD
        section).
    within, below
        Only values of at most plus or minus so many ADU, or of less than so many ADU, take part; None: no limit.
    max_correction
        Largest correction in ADU; a larger estimate is not applied. None: no limit.
    limit_included
        Whether a correction of exactly ``max_correction`` is applied.
    min_count
        Smallest number of pixels that make an estimate.
    columns_used
        First and one past the last column of a unit that take part, e.g. an overscan; None: all.
    mask
        The mask, the gain stages and earlier exclusions count; False lets every pixel take part.
    applied_to
        ``"used"``: pixels that may take part (good, in the right gain stage, not excluded); ``"all"``: every pixel of
        the unit; ``"nothing"``: the estimate is only recorded.
    sigma_max, min_peak, fallback
        Of ``"peak"``: largest width of the peak (standard deviation in ADU), count that its highest bin must exceed,
        and whether the unbonded pixels are taken where there is no such peak.
    half_range
        Of ``"histogram_median"``: the bins reach from minus to plus so many ADU to begin with, and further where more
        than half of the pixels lie beyond; 10 to 4999.
    failed
        What becomes of the pixels of a unit that no correction could be made for: ``"keep"`` leaves them as they are,
        which is what psana does, ``"nan"`` makes them NaN, so that no uncorrected pixel enters a result.

    Examples
    --------
    >>> import xsmall as xs
    >>> xs.Subtract(name="row", rows=1, columns=64, max_correction=10).estimator
    'median'
    """

    name: str
    rows: int | None = None
    columns: int | None = None
    pixels: int | None = None
    interleave: int = 1
    estimator: Estimator = "median"
    within: float | None = None
    below: float | None = None
    max_correction: float | None = None
    limit_included: bool = True
    min_count: int = 1
    columns_used: tuple[int, int] | None = None
    mask: bool = True
    applied_to: AppliedTo = "used"
    sigma_max: float | None = None
    min_peak: int = 100
    fallback: bool = False
    half_range: float = 30
    failed: Failed = "keep"

    def __post_init__(self) -> None:
        for name in ("rows", "columns", "pixels", "within", "max_correction", "min_count", "sigma_max", "min_peak"):
            _check_positive(name, getattr(self, name))
        _check_whole_number("interleave", self.interleave, 1, None)
        _check_whole_number("half_range", self.half_range, _LEAST_HALF_RANGE, _GREATEST_HALF_RANGE)
        for name, value, known in (
            ("estimator", self.estimator, get_args(Estimator)),
            ("applied_to", self.applied_to, get_args(AppliedTo)),
            ("failed", self.failed, get_args(Failed)),
        ):
            if value not in known:
                raise ParameterError(f"{name} is not known", found=repr(value), expected="one of " + ", ".join(known))
        for name, estimator in _OF_ESTIMATOR.items():
            if self.estimator != estimator and getattr(self, name) != getattr(Subtract, name):
                raise ParameterError(
                    f"only {estimator!r} takes {name}",
                    found=f"{name}={getattr(self, name)} with estimator={self.estimator!r}",
                    fix=f"estimator={estimator!r}, or no {name}",
                )
        if not self.limit_included and self.max_correction is None:
            raise ParameterError(
                "there is no limit that could be included or not",
                found="limit_included=False without max_correction",
                fix="max_correction=10, in ADU",
            )
        if self.pixels is not None and not (self.rows is None and self.columns is None):
            raise ParameterError(
                "a unit is given twice", found=f"pixels={self.pixels} beside rows or columns", fix="give one of them"
            )
        if self.columns_used is not None and not 0 <= self.columns_used[0] < self.columns_used[1]:
            raise ParameterError("columns_used is not a range", found=self.columns_used, expected="(first, stop)")
        if self.columns_used is not None and self.estimator not in ("median", "integer_median", "mean"):
            raise ParameterError(f"columns_used cannot be used with estimator {self.estimator!r}")
        if self.estimator == "histogram_median" and not (self.within is None and self.below is None):
            raise ParameterError(
                "a histogram median counts every value",
                found="within or below",
                fix="half_range=, or Exclude(within=...)",
            )
        if self.interleave > 1 and (self.columns_used is not None or self.estimator == "unbonded" or self.fallback):
            raise ParameterError(
                "interleaved units have no columns of their own",
                found=f"interleave={self.interleave} with columns_used or unbonded pixels",
                fix="interleave=1",
            )

    def unit(self, shape: tuple[int, int]) -> tuple[int, int]:
        """Return rows and columns of a unit in a segment of ``shape``."""
        if self.pixels is None:
            return self.rows or shape[0], self.columns or shape[1]
        if shape[1] % self.pixels == 0:
            return 1, self.pixels
        if self.pixels % shape[1] == 0:
            return self.pixels // shape[1], shape[1]
        raise ParameterError(
            "units of consecutive pixels would end within a row",
            found=f"{self.pixels} pixels per unit, rows of {shape[1]}",
            expected="a divisor or a multiple of the pixels of a row",
            fix="CommonMode of Subtract steps with rows= and columns=",
        )


@dataclass(frozen=True)
class UnitGrid:
    """The units of one step on given pixels.

    Attributes
    ----------
    name
        Name of the step.
    rows, columns
        Pixels that a unit reaches over.
    row, column
        Labels of the first row and the first column of the units.
    offset
        Index of its first unit among the units of all steps; they lie there row by row.
    interleave
        So many units share these columns in turn.
    """

    name: str
    rows: int
    columns: int
    row: tuple[int, ...]
    column: tuple[int, ...]
    offset: int
    interleave: int = 1

    @property
    def shape(self) -> tuple[int, int]:
        """Units along rows and columns."""
        return len(self.row), len(self.column)


@tells_its_names
@dataclass(frozen=True)
class CommonMode:
    """The offset that pixels read out together share: how it is estimated, and what it is subtracted from.

    It works on ADU with the pedestal subtracted, before the gain is divided out.

    Parameters
    ----------
    steps
        What is done, in order; none is no correction.
    gain_stages
        Gain stages (positions in the constants) whose pixels take part; None: all.
    segment_shape
        Rows and columns of a segment of the detector, None where that varies: with it, units that a slice has cut
        are refused also at its far edge.
    number
        Number that stands for the steps in smalldata_tools or psana, if any.
    origin
        Where the steps come from, for people and provenance.
    raw
        No pedestal is subtracted and nothing corrected (number -1 of smalldata_tools).

    Examples
    --------
    >>> import xsmall as xs
    >>> rows = xs.Subtract(name="row", rows=1, columns=64, max_correction=10, min_count=11)
    >>> mode = xs.CommonMode(steps=(rows,), gain_stages=(0,))
    >>> print(mode.describe())
    median of each row (1 x 64 pixels), up to 10 ADU, from 11 pixels on
    """

    steps: tuple[Exclude | Subtract, ...] = ()
    gain_stages: tuple[int, ...] | None = None
    segment_shape: tuple[int, int] | None = None
    number: int | None = None
    origin: str = "given"
    raw: bool = False

    def __post_init__(self) -> None:
        names = [step.name for step in self.subtractions]
        if len(set(names)) < len(names):
            raise ParameterError("two steps of a common mode have the same name", found=names, fix="rename one")
        for step in self.subtractions:
            if step.estimator == "unbonded" or step.fallback:
                shape = step.rows, step.columns
                if shape not in {CSPAD_SECTION, (None, None)}:
                    raise ParameterError(
                        "unbonded pixels are known of CSPAD sections only", found=shape, expected=CSPAD_SECTION
                    )

    @cached_property
    def subtractions(self) -> tuple[Subtract, ...]:
        """The steps that change pixels."""
        return tuple(step for step in self.steps if isinstance(step, Subtract))

    @property
    def needs_noise(self) -> bool:
        """Whether the dark noise of each pixel is needed."""
        return any(isinstance(step, Exclude) and step.needs_noise for step in self.steps)

    def strict(self) -> CommonMode:
        """Return the same common mode that makes pixels NaN where no correction could be made."""
        steps = tuple(replace(step, failed="nan") if isinstance(step, Subtract) else step for step in self.steps)
        return replace(self, steps=steps, origin=f"{self.origin}, strict")

    def describe(self) -> str:
        """Say in one line what is done."""
        if self.raw:
            return "raw words, nothing subtracted"
        return "; ".join(_describe_step(step) for step in self.steps) or "no common mode"

    def grids(self, row: Sequence[int], column: Sequence[int]) -> tuple[UnitGrid, ...]:
        """Lay the units of each subtraction over pixels with the labels ``row`` and ``column``.

        Parameters
        ----------
        row, column
            Positions of the pixels in the whole segment: consecutive, whole units.

        Raises
        ------
        DataError
            The labels are not consecutive, or begin or end within a unit: a correction from part of its pixels would
            be another one.
        """
        out, offset = [], 0
        shape = self.segment_shape or (int(row[-1]) + 1, int(column[-1]) + 1)
        for step in self.subtractions:
            rows, columns = step.unit(shape)
            if step.estimator == "unbonded" or step.fallback:
                _check_section(rows, columns)
            if step.columns_used is not None and step.columns_used[1] > columns:
                raise ParameterError(
                    f"columns_used of step {step.name!r} lies outside the unit",
                    found=step.columns_used,
                    expected=f"0 <= first < stop <= {columns}",
                )
            if columns % step.interleave:
                raise ParameterError(
                    f"interleaved units of step {step.name!r} would differ in size",
                    found=f"interleave={step.interleave}, {columns} columns",
                    expected="a divisor of the columns of a unit",
                )
            first = [c + i for c in _firsts("column", column, columns) for i in range(step.interleave)]
            grid = UnitGrid(step.name, rows, columns, _firsts("row", row, rows), tuple(first), offset, step.interleave)
            out.append(grid)
            offset += grid.shape[0] * grid.shape[1]
        if not self.subtractions:
            return ()
        if any(isinstance(step, Exclude) and step.neighbours for step in self.steps):
            _firsts("row", row, shape[0])
            _firsts("column", column, shape[1])
        return tuple(out)


def _check_positive(name: str, value: float | None) -> None:
    if value is not None and not (np.isfinite(value) and value > 0):
        raise ParameterError(f"{name} has to be a positive number or None", found=repr(value))


def _check_whole_number(name: str, value: float, least: int, greatest: int | None) -> None:
    if not np.isfinite(value) or value != int(value) or value < least or (greatest is not None and value > greatest):
        upper = "on" if greatest is None else f"to {greatest}"
        raise ParameterError(
            f"{name} has to be a whole number", found=repr(value), expected=f"a whole number from {least} {upper}"
        )


def _check_section(rows: int, columns: int) -> None:
    if (rows, columns) != CSPAD_SECTION:
        raise DataError(
            "unbonded pixels are known of whole CSPAD sections only",
            found=f"a unit of {rows} x {columns} pixels",
            expected=f"{CSPAD_SECTION[0]} x {CSPAD_SECTION[1]}",
        )


def _firsts(dim: str, labels: Sequence[int], size: int) -> tuple[int, ...]:
    """Return the first label of each unit of ``size`` pixels; refuse labels that do not make whole units."""
    at = np.asarray(labels)
    whole = at.size > 0 and at[0] % size == 0 and at.size % size == 0 and bool(np.all(np.diff(at) == 1))
    if not whole:
        found = f"{at.size} labels from {at[0]} to {at[-1]}" if at.size else "no pixels"
        raise DataError(
            f"the common mode needs whole units of {size} pixels along {dim!r}",
            found=found,
            expected=f"consecutive labels that begin and end at multiples of {size}",
            fix="calibrate the whole segment first, then slice the result; "
            f"of a simulated run take a shape with a multiple of {size} {dim}s",
        )
    return tuple(int(first) for first in at[::size])


def _describe_step(step: Exclude | Subtract) -> str:
    if isinstance(step, Exclude):
        parts = [f"{step.n_sigma:g} sigma" if step.n_sigma else "", f"{step.within:g} ADU" if step.within else ""]
        near = " and their neighbours" if step.neighbours else ""
        bad = "" if step.mask else " (bad ones take part)"
        return "without pixels beyond " + " or ".join(p for p in parts if p) + near + bad
    size = f"{step.pixels} consecutive" if step.pixels else f"{step.rows or 'all'} x {step.columns or 'all'}"
    apart = f", one in {step.interleave}" if step.interleave > 1 else ""
    what = {"peak": "zero-photon peak", "unbonded": "mean of the unbonded pixels"}
    text = f"{what.get(step.estimator, step.estimator.replace('_', ' '))} of each {step.name} ({size} pixels{apart})"
    conditions = (
        ("of columns {0[0]} to {0[1]} (excluded)", step.columns_used),
        ("of values within {:g} ADU", step.within),
        ("of values below {:g} ADU", step.below),
        ("at first within {:g} ADU", step.half_range if step.estimator == "histogram_median" else None),
        ("no wider than {:g} ADU", step.sigma_max),
        ("else the mean of the unbonded pixels", step.fallback or None),
        ("up to {:g} ADU", step.max_correction),
        ("from {} pixels on", step.min_count if step.min_count > 1 else None),
        ("NaN where there is none", True if step.failed == "nan" else None),
        ("bad pixels included", True if not step.mask and step.estimator != "unbonded" else None),
    )
    text += "".join(", " + words.format(value) for words, value in conditions if value is not None)
    return text + {"used": "", "all": ", from all pixels", "nothing": ", only recorded"}[step.applied_to]
