"""The accumulator of frames: rows of pixels by bin, in blocks of memory that are used again."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from xsmall.cube.moments import DTYPES, SPREAD, Index
from xsmall.engine.team import Team
from xsmall.kernels import moments as kernel

__all__ = ["Block", "Row", "Rows", "merge_rows", "statistics_of_rows"]

_STRIP = 1 << 16
"""Pixels that a thread merges at a time."""


class Row(NamedTuple):
    """Count, mean and M2 of the pixels of one bin, each (pixel,); ``spread``: the sum of known variances."""

    n: npt.NDArray[Any]
    mean: npt.NDArray[np.float64]
    m2: npt.NDArray[np.float64]
    spread: npt.NDArray[np.float64] | None = None

    def cut(self, pixels: slice) -> Row:
        """Some of the pixels."""
        spread = None if self.spread is None else self.spread[pixels]
        return Row(self.n[pixels], self.mean[pixels], self.m2[pixels], spread)

    def copy_from(self, other: Row) -> None:
        """Take over what another row has."""
        for mine, theirs in zip(self, other, strict=True):
            if mine is not None:
                mine[...] = theirs

    def take(self, a: Row, b: Row) -> None:
        """Become what two rows are together; this may be the first of them."""
        kernel.merge(*a[:3], *b[:3], *self[:3])
        if self.spread is not None and a.spread is not None and b.spread is not None:
            np.add(a.spread, b.spread, out=self.spread)


Rows = dict[int, Row]
"""Moments of some events: rows by bin; a bin without an event has none."""


class Block:
    """Rows of an accumulator in one piece of memory, which is used again and again; what no bin needs is not touched.

    Parameters
    ----------
    n_rows, n_pixels
        Rows at the most, and pixels of each.
    variance
        Whether variances are summed beside.
    by_bin
        Each bin has the row of its number, so that all of them are a result; else they are taken as they come.
    """

    def __init__(self, n_rows: int, n_pixels: int, *, variance: bool, by_bin: bool = False) -> None:
        types = (np.uint32, np.float64, np.float64, *([np.float64] if variance else []))
        self.arrays = tuple(np.zeros((n_rows, n_pixels), dtype) for dtype in types)
        self._by_bin = by_bin
        self._row_of: dict[int, int] = {}
        self._used: set[int] = set()

    def clear(self) -> None:
        """Begin again."""
        self._row_of.clear()

    def rows(self) -> Rows:
        """The rows by bin."""
        return {bin_: Row(*(m[i] for m in self.arrays)) for bin_, i in sorted(self._row_of.items())}

    def place(self, bins: Index) -> Index:
        """Rows of some bins, which get one where they have none: what is in it is not of theirs."""
        for bin_ in bins.tolist():
            self._row_of.setdefault(bin_, bin_ if self._by_bin else len(self._row_of))
        return np.array([self._row_of[bin_] for bin_ in bins.tolist()], np.int64)

    def empty(self, bins: Index, team: Team) -> None:
        """Make rows of no events for some bins."""
        used = [int(i) for i in self.place(bins) if int(i) in self._used]
        self._used.update(self._row_of.values())
        team.map(lambda i: [m[i].fill(0) for m in self.arrays], used)

    def take(self, rows: Rows, team: Team) -> None:
        """Merge the moments of other events into these."""
        common = set(self._row_of)
        self.place(np.array(list(rows), np.int64))
        self._used.update(self._row_of.values())
        mine = self.rows()

        def take_strip(of: tuple[int, int]) -> None:
            bin_, p = of
            own, theirs = (r[bin_].cut(slice(p, p + _STRIP)) for r in (mine, rows))
            if bin_ in common:
                own.take(own, theirs)
            else:
                own.copy_from(theirs)

        team.map(take_strip, _strips_of(rows))

    def statistics(self, n_bins: int, team: Team) -> dict[str, npt.NDArray[Any]]:
        """Turn what was gathered by bin into statistics, in place: the block is used up."""
        n, mean, m2, *more = self.arrays
        out = {"mean": mean, "std": m2, "count": n.view(np.int32), **({SPREAD: more[0]} if more else {})}
        rows = self.rows()
        team.map(lambda bin_: _finish(rows.get(bin_), {name: m[bin_] for name, m in out.items()}), range(n_bins))
        return out


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
    rows: Rows, n_bins: int, n_pixels: int, team: Team, *, variance: bool
) -> dict[str, npt.NDArray[Any]]:
    """Mean, standard deviation (n - 1) and count, each (bin, pixel), NaN and 0 in bins without an event.

    Where variances were summed also the variance of the mean, sum(variance) / n^2.
    """
    types = {**DTYPES, SPREAD: np.float64} if variance else DTYPES
    out: dict[str, npt.NDArray[Any]] = {name: np.empty((n_bins, n_pixels), dtype) for name, dtype in types.items()}
    team.map(lambda bin_: _finish(rows.get(bin_), {name: m[bin_] for name, m in out.items()}), range(n_bins))
    return out


def _finish(row: Row | None, out: dict[str, npt.NDArray[Any]]) -> None:
    """Statistics of one bin, perhaps into the memory of the row itself."""
    if row is None:
        for values in out.values():
            values[...] = 0 if values.dtype.kind == "i" else np.nan
        return
    if row.spread is not None:
        n = row.n.astype(np.float64)
        out[SPREAD][...] = np.divide(row.spread, n**2, out=np.full(n.shape, np.nan), where=n > 0)
    kernel.statistics(*row[:3], *(out[name] for name in DTYPES))
