"""The accumulator of frames: rows of pixels by bin, in blocks of memory that are used again."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Final, NamedTuple

import numpy as np
import numpy.typing as npt

from xsmall.cube.moments import (
    COVARIANCE,
    DTYPES,
    EXTREMES,
    LARGEST,
    LEAST,
    PAIRS,
    SPREAD,
    SPREADS,
    WEIGHT,
    WEIGHT_STD,
    Index,
    statistics_types,
)
from xsmall.engine.team import Team
from xsmall.kernels import moments as kernel
from xsmall.kernels import pairs

__all__ = ["Block", "Row", "Rows", "fields_of", "merge_rows", "statistics_of_rows"]

_STRIP = 1 << 16
"""Pixels that a thread merges at a time."""

_BASE: Final = ("n", "mean", "m2")
_FIELDS: Final[Mapping[str, tuple[str, ...]]] = {
    SPREADS: ("spread",), PAIRS: ("weight", "weight_m2", "cross"), EXTREMES: ("low", "high")
}  # fmt: skip
_EMPTY: Final[Mapping[str, float]] = {"low": np.inf, "high": -np.inf}
"""What a field holds where nothing was added; 0 elsewhere."""


def fields_of(more: Iterable[str]) -> tuple[str, ...]:
    """Names of the arrays of an accumulator: those of the moments, and of what is gathered beside."""
    kinds = set(more)
    return (*_BASE, *(field for kind, fields in _FIELDS.items() if kind in kinds for field in fields))


class Row(NamedTuple):
    """Moments of the pixels of one bin, each (pixel,)."""

    n: npt.NDArray[Any]
    mean: npt.NDArray[np.float64]
    m2: npt.NDArray[np.float64]
    spread: npt.NDArray[np.float64] | None = None
    """Sum of known variances."""
    weight: npt.NDArray[np.float64] | None = None
    """Mean of the weights,"""
    weight_m2: npt.NDArray[np.float64] | None = None
    """their M2,"""
    cross: npt.NDArray[np.float64] | None = None
    """and the sum of products of deviations of value and weight."""
    low: npt.NDArray[np.float64] | None = None
    high: npt.NDArray[np.float64] | None = None

    def cut(self, pixels: slice) -> Row:
        """Some of the pixels."""
        return Row(*(None if m is None else m[pixels] for m in self))  # type: ignore[arg-type]

    def copy_from(self, other: Row) -> None:
        """Take over what another row has."""
        for mine, theirs in zip(self, other, strict=True):
            if mine is not None:
                mine[...] = theirs

    def take(self, a: Row, b: Row) -> None:
        """Become what two rows are together; this may be the first of them."""
        self.take_more(a, b)
        kernel.merge(*a[:3], *b[:3], *self[:3])

    def take_more(self, a: Row, b: Row) -> None:
        """The same of what lies beside the moments, while these still are those of the first row."""
        if self.spread is not None and a.spread is not None and b.spread is not None:
            np.add(a.spread, b.spread, out=self.spread)
        if self.cross is not None:
            first, second = ((r.n, r.mean, r.weight, r.weight_m2, r.cross) for r in (a, b))
            pairs.merge_pairs(*first, *second, self.weight, self.weight_m2, self.cross)
        if self.low is not None and a.low is not None and b.low is not None:
            np.minimum(a.low, b.low, out=self.low)
        if self.high is not None and a.high is not None and b.high is not None:
            np.maximum(a.high, b.high, out=self.high)


Rows = dict[int, Row]
"""Moments of some events: rows by bin; a bin without an event has none."""


class Block:
    """Rows of an accumulator in one piece of memory, which is used again and again; what no bin needs is not touched.

    Parameters
    ----------
    n_rows, n_pixels
        Rows at the most, and pixels of each.
    more
        What is gathered beside the moments.
    by_bin
        Each bin has the row of its number, so that all of them are a result; else they are taken as they come.
    """

    def __init__(self, n_rows: int, n_pixels: int, more: Iterable[str] = (), *, by_bin: bool = False) -> None:
        self.fields = fields_of(more)
        types = (np.uint32 if field == "n" else np.float64 for field in self.fields)
        self.arrays = tuple(np.zeros((n_rows, n_pixels), dtype) for dtype in types)
        self._by_bin = by_bin
        self._row_of: dict[int, int] = {}
        self._used: set[int] = set()

    def clear(self) -> None:
        """Begin again."""
        self._row_of.clear()

    def row(self, i: int, pixels: slice = slice(None)) -> Row:
        """Row number ``i``, whatever is in it."""
        return Row(**{field: m[i, pixels] for field, m in zip(self.fields, self.arrays, strict=True)})

    def rows(self) -> Rows:
        """The rows by bin."""
        return {bin_: self.row(i) for bin_, i in sorted(self._row_of.items())}

    def holds(self, bins: Index) -> npt.NDArray[np.bool_]:
        """Which of some bins have a row."""
        return np.array([bin_ in self._row_of for bin_ in bins.tolist()], bool)

    def place(self, bins: Index) -> Index:
        """Rows of some bins, which get one where they have none: what is in it is not of theirs."""
        for bin_ in bins.tolist():
            self._row_of.setdefault(bin_, bin_ if self._by_bin else len(self._row_of))
        return np.array([self._row_of[bin_] for bin_ in bins.tolist()], np.int64)

    def fill(self, bins: Index) -> Index:
        """Rows of some bins, which will be filled whole."""
        rows = self.place(bins)
        self._used.update(rows.tolist())
        return rows

    def empty(self, bins: Index, team: Team) -> None:
        """Make rows of no events for some bins."""
        rows = [int(i) for i in self.place(bins)]
        used = self._used.intersection(rows)
        self._used.update(rows)
        special = any(field in _EMPTY for field in self.fields)
        team.map(lambda i: clear_row(self.row(i)), rows if special else sorted(used))

    def take(self, rows: Rows, team: Team) -> None:
        """Merge the moments of other events into these."""
        common = set(self._row_of)
        self.fill(np.array(list(rows), np.int64))
        mine = self.rows()

        def take_strip(of: tuple[int, int]) -> None:
            bin_, p = of
            own, theirs = (r[bin_].cut(slice(p, p + _STRIP)) for r in (mine, rows))
            if bin_ in common:
                own.take(own, theirs)
            else:
                own.copy_from(theirs)

        team.map(take_strip, _strips_of(rows))

    def take_lane(self, lane: Row, rows: Index, fresh: npt.NDArray[np.bool_], at: int, size: int) -> None:
        """Merge a few pixels of a lane, each field (row, pixel), into some rows; ``fresh`` ones hold nothing yet."""
        if len(self.fields) > len(_BASE):
            for i, number in enumerate(rows.tolist()):
                mine = self.row(number, slice(at, at + size))
                theirs = Row(*(None if m is None else m[i] for m in lane))  # type: ignore[arg-type]
                if fresh[i]:
                    mine.copy_from(theirs)
                else:
                    mine.take_more(mine, theirs)
        kernel.merge_rows(rows, fresh, *lane[:3], *self.arrays[:3], at, size)

    def statistics(self, n_bins: int, team: Team) -> dict[str, npt.NDArray[Any]]:
        """Turn what was gathered by bin into statistics, in place: the block is used up."""
        held = dict(zip(self.fields, self.arrays, strict=True))
        held["n"] = held["n"].view(np.int32)
        out = {name: held[field] for name, field in _STATISTIC_OF.items() if field in held}
        rows = self.rows()
        team.map(lambda bin_: _finish(rows.get(bin_), {name: m[bin_] for name, m in out.items()}), range(n_bins))
        return out


_STATISTIC_OF: Final[Mapping[str, str]] = {
    "mean": "mean", "std": "m2", "count": "n", SPREAD: "spread", WEIGHT: "weight", WEIGHT_STD: "weight_m2",
    COVARIANCE: "cross", LEAST: "low", LARGEST: "high",
}  # fmt: skip
"""The field whose memory each statistic takes over."""


def clear_row(row: Row) -> None:
    """Make a row of no events."""
    for field, values in row._asdict().items():
        if values is not None:
            values[...] = _EMPTY.get(field, 0)


def _strips_of(rows: Rows) -> list[tuple[int, int]]:
    return [(bin_, p) for bin_, row in rows.items() for p in range(0, len(row.n), _STRIP)]


def merge_rows(a: Rows, b: Rows, team: Team) -> Rows:
    """Merge the moments of two sets of events; neither is changed, and what only one of them has is not copied."""
    common = {bin_: Row(*(None if m is None else np.empty_like(m) for m in a[bin_])) for bin_ in a if bin_ in b}  # type: ignore[arg-type]

    def merge_strip(of: tuple[int, int]) -> None:
        bin_, p = of
        mine, theirs, made = (rows[bin_].cut(slice(p, p + _STRIP)) for rows in (a, b, common))
        made.take(mine, theirs)

    team.map(merge_strip, _strips_of(common))
    return dict(sorted((a | b | common).items()))


def statistics_of_rows(
    rows: Rows, n_bins: int, n_pixels: int, team: Team, more: Iterable[str] = ()
) -> dict[str, npt.NDArray[Any]]:
    """Mean, standard deviation (n - 1) and count, each (bin, pixel), NaN and 0 in bins without an event.

    Where variances were summed also the variance of the mean, sum(variance) / n^2; where weights were gathered their
    mean and spread and the covariance; and the least and largest values.
    """
    types = statistics_types(more)
    out: dict[str, npt.NDArray[Any]] = {name: np.empty((n_bins, n_pixels), dtype) for name, dtype in types.items()}
    team.map(lambda bin_: _finish(rows.get(bin_), {name: m[bin_] for name, m in out.items()}), range(n_bins))
    return out


def _finish(row: Row | None, out: dict[str, npt.NDArray[Any]]) -> None:
    """Statistics of one bin, perhaps into the memory of the row itself."""
    if row is None:
        for values in out.values():
            values[...] = 0 if values.dtype.kind == "i" else np.nan
        return
    n = row.n.astype(np.float64) if len(out) > len(DTYPES) else np.empty(0)
    if row.spread is not None:
        out[SPREAD][...] = np.divide(row.spread, n**2, out=np.full(n.shape, np.nan), where=n > 0)
    if row.cross is not None and row.weight is not None and row.weight_m2 is not None:
        several = np.where(n > 1, n - 1, np.nan)
        out[COVARIANCE][...] = row.cross / several
        out[WEIGHT_STD][...] = np.sqrt(row.weight_m2 / several)
        out[WEIGHT][...] = np.where(n > 0, row.weight, np.nan)
    if row.low is not None and row.high is not None:
        out[LEAST][...] = np.where(n > 0, row.low, np.nan)
        out[LARGEST][...] = np.where(n > 0, row.high, np.nan)
    kernel.statistics(*row[:3], *(out[name] for name in DTYPES))
