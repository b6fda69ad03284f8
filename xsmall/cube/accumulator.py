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
    MEAN_RATIO,
    PAIRS,
    PROPAGATED,
    RATIO_STD,
    RATIOS,
    VARIANCES,
    WEIGHT,
    WEIGHT_STD,
    statistics_types,
)
from xsmall.engine.team import Team
from xsmall.kernels import moments as kernel
from xsmall.kernels import pairs

__all__ = [
    "HeldMoments",
    "HeldRow",
    "Row",
    "RowBlock",
    "Rows",
    "clear_row",
    "fields_of",
    "merge_rows",
    "statistics_of_rows",
]

_STRIP = 1 << 16
"""Pixels that a thread merges at a time."""

_BASE: Final = ("n", "mean", "m2")
_FIELDS: Final[Mapping[str, tuple[str, ...]]] = {
    VARIANCES: ("variances",), PAIRS: ("weight", "weight_m2", "cross"), RATIOS: ("ratio", "ratio_m2"),
    EXTREMES: ("low", "high"),
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
    variances: npt.NDArray[np.float64] | None = None
    """Sum of known variances."""
    weight: npt.NDArray[np.float64] | None = None
    """Mean of the weights,"""
    weight_m2: npt.NDArray[np.float64] | None = None
    """their M2,"""
    cross: npt.NDArray[np.float64] | None = None
    """and the sum of products of deviations of value and weight."""
    ratio: npt.NDArray[np.float64] | None = None
    """Mean of the ratios of value and weight,"""
    ratio_m2: npt.NDArray[np.float64] | None = None
    """and their M2."""
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

    def take(self, other: Row) -> None:
        """Merge the moments of other events into these."""
        self._take_more(other)
        kernel.merge_into(*self[:3], *other[:3])

    def _take_more(self, other: Row) -> None:
        """The same of what lies beside the moments, while these still are those of the first events."""
        if self.variances is not None and other.variances is not None:
            self.variances[...] += other.variances
        if self.cross is not None:
            mine, theirs = ((r.n, r.mean, r.weight, r.weight_m2, r.cross) for r in (self, other))
            pairs.merge_pairs(*mine, *theirs)
        if self.ratio is not None:
            pairs.merge_ratios(*(m for r in (self, other) for m in (r.n, r.ratio, r.ratio_m2)))
        if self.low is not None and other.low is not None:
            np.minimum(self.low, other.low, out=self.low)
        if self.high is not None and other.high is not None:
            np.maximum(self.high, other.high, out=self.high)


Rows = dict[int, Row]
"""Moments of some events: rows by bin; a bin without an event has none."""


class RowBlock:
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
        self.arrays = tuple(np.empty((n_rows, n_pixels), dtype) for dtype in types)
        self._by_bin = by_bin
        self._next = 0

    def clear(self) -> None:
        """Begin again."""
        self._next = 0

    def held_row(self, bin_: int) -> HeldRow:
        """A row for a bin that has none; what is in it is not of this bin."""
        number = bin_ if self._by_bin else self._next
        self._next += 1
        return HeldRow(self, number)

    def statistics(self, held: HeldMoments, n_bins: int, team: Team) -> dict[str, npt.NDArray[Any]]:
        """Turn what was gathered by bin into statistics, in place: the block is used up."""
        arrays = dict(zip(self.fields, self.arrays, strict=True))
        arrays["n"] = arrays["n"].view(np.int32)
        out = {name: arrays[field] for name, field in _STATISTIC_OF.items() if field in arrays}
        rows = held.rows()
        team.map(lambda bin_: _finish_bin(rows.get(bin_), {name: m[bin_] for name, m in out.items()}), range(n_bins))
        return out


class HeldRow(NamedTuple):
    """Where the moments of a bin lie."""

    block: RowBlock
    number: int
    """Of the row."""

    def row(self, pixels: slice = slice(None)) -> Row:
        """The row, or some pixels of it."""
        fields = zip(self.block.fields, self.block.arrays, strict=True)
        return Row(**{field: m[self.number, pixels] for field, m in fields})


class HeldMoments:
    """Moments of some events, by bin: where each lies."""

    def __init__(self) -> None:
        self._held_rows: dict[int, HeldRow] = {}

    def __contains__(self, bin_: int) -> bool:
        return bin_ in self._held_rows

    def __getitem__(self, bin_: int) -> HeldRow:
        return self._held_rows[bin_]

    def put(self, bin_: int, held_row: HeldRow) -> HeldRow:
        """Say where a bin lies that is not here yet."""
        self._held_rows[bin_] = held_row
        return held_row

    def rows(self) -> Rows:
        """The rows by bin."""
        return {bin_: held_row.row() for bin_, held_row in sorted(self._held_rows.items())}

    def join(self, other: HeldMoments, team: Team) -> None:
        """Take over the moments of other events: those of bins that are new here stay where they are."""
        rows = self._held_rows
        both = [bin_ for bin_, held in other._held_rows.items() if rows.setdefault(bin_, held) is not held]
        mine = {bin_: self._held_rows[bin_].row() for bin_ in both}
        theirs = {bin_: other._held_rows[bin_].row() for bin_ in both}

        def take_strip(of: tuple[int, int]) -> None:
            bin_, p = of
            mine[bin_].cut(slice(p, p + _STRIP)).take(theirs[bin_].cut(slice(p, p + _STRIP)))

        team.map(take_strip, _strips_of(mine))


_STATISTIC_OF: Final[Mapping[str, str]] = {
    "mean": "mean", "std": "m2", "count": "n", PROPAGATED: "variances", WEIGHT: "weight", WEIGHT_STD: "weight_m2",
    COVARIANCE: "cross", MEAN_RATIO: "ratio", RATIO_STD: "ratio_m2", LEAST: "low", LARGEST: "high",
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
        made.copy_from(mine)
        made.take(theirs)

    team.map(merge_strip, _strips_of(common))
    return dict(sorted((a | b | common).items()))


def statistics_of_rows(
    rows: Rows, n_bins: int, n_pixels: int, team: Team, more: Iterable[str] = (), *, others: Rows | None = None
) -> dict[str, npt.NDArray[Any]]:
    """Mean, standard deviation (n - 1) and count, each (bin, pixel), NaN and 0 in bins without an event.

    Where variances were summed also the variance of the mean, sum(variance) / n^2; where weights were gathered their
    mean and spread and the covariance; mean and spread of the ratios; and the least and largest values. ``others`` are
    moments of further events, which are merged into those before; neither is changed.
    """
    types = statistics_types(more)
    out: dict[str, npt.NDArray[Any]] = {name: np.empty((n_bins, n_pixels), dtype) for name, dtype in types.items()}

    def finish_strip(of: tuple[int, int]) -> None:
        bin_, p = of
        pixels = slice(p, p + _STRIP)
        made = {name: m[bin_, pixels] for name, m in out.items()}
        found = [of_events[bin_].cut(pixels) for of_events in (rows, others or {}) if bin_ in of_events]
        row = found[0] if found else None
        if len(found) > 1:  # in the memory of the statistics
            row = Row(**{field: made[name] for name, field in _STATISTIC_OF.items() if name in made})
            row = row._replace(n=row.n.view(np.uint32))
            row.copy_from(found[0])
            row.take(found[1])
        _finish_bin(row, made)

    team.map(finish_strip, [(bin_, p) for bin_ in range(n_bins) for p in range(0, n_pixels, _STRIP)])
    return out


def _finish_bin(row: Row | None, out: dict[str, npt.NDArray[Any]]) -> None:
    """Statistics of one bin, perhaps into the memory of the row itself."""
    if row is None:
        for values in out.values():
            values[...] = 0 if values.dtype.kind == "i" else np.nan
        return
    n = row.n.astype(np.float64) if len(out) > len(DTYPES) else np.empty(0)
    if row.variances is not None:
        out[PROPAGATED][...] = np.divide(row.variances, n**2, out=np.full(n.shape, np.nan), where=n > 0)
    several = np.where(n > 1, n - 1, np.nan)
    if row.ratio is not None and row.ratio_m2 is not None:
        out[RATIO_STD][...] = np.sqrt(row.ratio_m2 / several)
        out[MEAN_RATIO][...] = np.where(n > 0, row.ratio, np.nan)
    if row.cross is not None and row.weight is not None and row.weight_m2 is not None:
        out[COVARIANCE][...] = row.cross / several
        out[WEIGHT_STD][...] = np.sqrt(row.weight_m2 / several)
        out[WEIGHT][...] = np.where(n > 0, row.weight, np.nan)
    if row.low is not None and row.high is not None:
        out[LEAST][...] = np.where(n > 0, row.low, np.nan)
        out[LARGEST][...] = np.where(n > 0, row.high, np.nan)
    kernel.statistics(*row[:3], *(out[name] for name in DTYPES))
