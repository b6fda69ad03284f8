"""Walks the regions of interest of each segment."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from xsmall.detector.frames import Frames
from xsmall.detector.geometry.pixel import pixel_array
from xsmall.engine.entries import LostCounts
from xsmall.engine.record import GROUP, Reducer
from xsmall.frames.per_pixel import StaticMask
from xsmall.reductions.box import Window
from xsmall.vocabulary import (
    AREA,
    COLUMN,
    COM_COLUMN,
    COM_ROW,
    FULL_SUM,
    MAX,
    MEAN,
    MIN,
    MOMENT_PREFIX,
    N_SATURATED,
    N_VALID,
    ROW,
    SUM,
    VARIANCE_SUFFIX,
    X,
    Y,
)

__all__ = ["IN_PIXELS", "IN_SPACE", "RoiReducer", "kept_shape"]

IN_PIXELS: Final = tuple(f"{MOMENT_PREFIX}{a}_{b}" for a, b in ((ROW, ROW), (ROW, COLUMN), (COLUMN, COLUMN)))
IN_SPACE: Final = tuple(f"{MOMENT_PREFIX}{a}_{b}" for a, b in ((X, X), (X, Y), (Y, Y)))
"""Central second moments."""

Array = npt.NDArray[Any]
Floats = npt.NDArray[np.float64]
_TOTAL, _MOST, _N = 0, 1, 4  # places in the sums of a region


def kept_shape(found: Sequence[Window]) -> tuple[tuple[int, ...], slice, slice]:
    """Shape of the pixels that are kept of a region, and the rows and columns of the arrays that they are."""
    row, column = (
        slice(min(s.start for s in spans), max(s.stop for s in spans))
        for spans in ([w.row for w in found], [w.column for w in found])
    )
    shape = (row.stop - row.start, column.stop - column.start)
    return (shape if len(found) == 1 else (len(found), *shape)), row, column


class RoiReducer(Reducer):
    """Sums, extremes and moments of regions, each in one or several windows."""

    def __init__(
        self,
        frames: Frames,
        regions: Sequence[Sequence[Window]],
        mask: StaticMask | None,
        *,
        also: tuple[str, ...],
        saturation: float | None,
        areas: Sequence[str],
    ) -> None:
        from xsmall.kernels.entries import box_of_entries
        from xsmall.kernels.roi import box, box_variance

        self._kernel, self._variance_kernel, self._box_of_entries = box, box_variance, box_of_entries
        self.takes_entries = not (also or areas)
        self._frames = frames
        self._regions = regions
        use = None if mask is None else mask.on(frames)
        self._windows = [
            (b, window, window.use(use), np.empty(window.shape[1], dtype=frames.dtype))
            for b, found in enumerate(regions)
            for window in found
        ]
        self._sums = np.zeros((GROUP, len(regions), 9))
        self._extremes = _Extremes(len(regions), saturation) if {MIN, N_SATURATED} & set(also) else None
        self._moments = [_PlaceMoments(frames, regions, where) for where in (IN_PIXELS, IN_SPACE)
                         if set(where) & set(also) or (where is IN_SPACE and {X, Y} & set(also))]  # fmt: skip
        self._also = also
        self._size = np.array([sum(int(w.inside.sum()) for w in found) for found in regions])
        self._areas = areas
        self._kept: list[Array] = []
        self._k = 0

    def begin(self, k: int) -> None:
        """Start a group of ``k`` events."""
        self._k = k
        self._sums.fill(0)
        self._sums[..., _MOST] = np.nan
        for part in (self._extremes, *self._moments):
            if part is not None:
                part.begin()
        shapes = [kept_shape(found)[0] for found in self._regions if self._areas]
        self._kept = [np.full((k, *shape), np.nan, self._frames.dtype) for shape in shapes]

    def add(self, s: int, frames: Array, variance: Array | None = None) -> None:
        """Reduce what lies in segment ``s``."""
        for w, (b, window, use, line) in enumerate(self._windows):
            if window.segment != s:
                continue
            top, left = window.row.start, window.column.start
            row, column = window.row_labels - window.row_labels[0], window.column_labels - window.column_labels[0]
            for j in range(self._k):
                out = self._sums[j, b] if len(self._regions[b]) == 1 else np.zeros(9)
                self._kernel(frames[j], top, left, use, row, column, line, out)
                if variance is not None:
                    self._variance_kernel(frames[j], variance[j], top, left, use, row, column, out, out[5:])
                if len(self._regions[b]) > 1:
                    _join_windows(self._sums[j, b], out)
                if self._extremes is not None:
                    self._extremes.add(j, b, frames[j], top, left, use)
                for moments in self._moments:
                    moments.add(j, w, b, frames[j], None if variance is None else variance[j], top, left, use)
            if self._kept:
                self._keep(b, window, use, frames)

    def _lacks(self, pixels: npt.NDArray[np.int64]) -> Array:
        """How many pixels each window has of those given."""
        segment, row, column = np.unravel_index(pixels, self._frames.shape)
        out = np.zeros(len(self._windows), np.int64)
        for w, (_, window, use, _) in enumerate(self._windows):
            r, c = row - window.row.start, column - window.column.start
            near = (segment == window.segment) & (r >= 0) & (c >= 0) & (r < use.shape[0]) & (c < use.shape[1])
            out[w] = use[r[near], c[near]].sum()
        return out

    def never(self, pixels: npt.NDArray[np.int64]) -> None:
        """Hear which pixels no event has."""
        self._lacking: LostCounts[Array] = LostCounts(self._lacks, pixels)

    def entries(self, j: int, pixel: Array, value: Array, lost: npt.NDArray[np.int64]) -> None:
        """Reduce the pixels of event ``j`` that are not zero."""
        lacking, (_, rows, columns) = self._lacking(lost), self._frames.shape
        for w, (b, window, use, _) in enumerate(self._windows):
            first = window.segment * rows * columns
            here = slice(*np.searchsorted(pixel, [first, first + rows * columns]))
            row, column = window.row_labels - window.row_labels[0], window.column_labels - window.column_labels[0]
            out = np.zeros(9)
            place = columns, window.row.start, window.column.start, use, row, column
            self._box_of_entries(pixel[here] - first, value[here], *place, out)
            valid = int(np.count_nonzero(use)) - int(lacking[w])
            if valid > out[_N]:  # the others are zero
                out[_MOST] = max(out[_MOST], 0.0) if out[_N] else 0.0
            out[_N] = valid
            if len(self._regions[b]) == 1:
                self._sums[j, b] = out
            else:
                _join_windows(self._sums[j, b], out)

    def _keep(self, b: int, window: Window, use: npt.NDArray[np.bool_], frames: Array) -> None:
        """Copy the pixels of a window."""
        found = self._regions[b]
        _, row, column = kept_shape(found)
        out = self._kept[b] if len(found) == 1 else self._kept[b][:, [w.segment for w in found].index(window.segment)]
        here = out[:, window.row.start - row.start :, window.column.start - column.start :]
        here = here[:, : window.shape[0], : window.shape[1]]
        np.copyto(here, frames[:, window.row, window.column], where=use)

    def end(self) -> Mapping[str, Array]:
        """Finish the group."""
        total, largest, moment_row, moment_column, n, *variances = np.moveaxis(self._sums[: self._k], -1, 0)
        one = np.array([len(found) == 1 for found in self._regions])  # several segments have no common rows
        with np.errstate(divide="ignore", invalid="ignore"):
            some, weighted = n > 0, (total != 0) & one
            first_row = np.array([found[0].row_labels[0] for found in self._regions])
            first_column = np.array([found[0].column_labels[0] for found in self._regions])
            out = {
                SUM: np.where(some, total, np.nan),
                MEAN: np.where(some, total / n, np.nan),
                MAX: largest.astype(self._frames.dtype),
                COM_ROW: np.where(weighted, first_row + moment_row / total, np.nan),
                COM_COLUMN: np.where(weighted, first_column + moment_column / total, np.nan),
                N_VALID: n.astype(np.int32),
            }
            found = {FULL_SUM: np.where(some, total / n * self._size, np.nan)}
            for part in (self._extremes, *self._moments):
                found |= {} if part is None else part.end(self._k)
            out |= {name: found[name] for name in self._also}
            if self._frames.variance:
                of_sum, of_most, along_row, along_column = variances
                of_each = {
                    SUM: of_sum,
                    MEAN: of_sum / n**2,
                    MAX: of_most,
                    COM_ROW: np.where(weighted, along_row / total**2, np.nan),
                    COM_COLUMN: np.where(weighted, along_column / total**2, np.nan),
                    FULL_SUM: of_sum * (self._size / n) ** 2,
                } | {k.removesuffix(VARIANCE_SUFFIX): v for k, v in found.items() if k.endswith(VARIANCE_SUFFIX)}
                out |= {f"{k}{VARIANCE_SUFFIX}": np.where(some, v, np.nan) for k, v in of_each.items() if k in out}
        return out | {f"{prefix}{AREA}": kept for prefix, kept in zip(self._areas, self._kept, strict=True)}


def _join_windows(state: Floats, out: Floats) -> None:
    """Add what was found in one window of a region to what was found in the others."""
    if out[_N] and not out[_MOST] <= state[_MOST]:
        state[_MOST], state[6] = out[_MOST], out[6]
    state[[_TOTAL, _N, 5]] += out[[_TOTAL, _N, 5]]


class _Extremes:
    """Lowest pixel and number of saturated ones of each region."""

    def __init__(self, n: int, saturation: float | None) -> None:
        from xsmall.kernels.roi import extremes

        self._kernel = extremes
        self._level = np.inf if saturation is None else saturation
        self._state = np.zeros((GROUP, n, 2))

    def begin(self) -> None:
        self._state[:] = np.inf, 0

    def add(self, j: int, b: int, frame: Array, top: int, left: int, use: Array) -> None:
        self._kernel(frame, top, left, use, self._level, self._state[j, b])

    def end(self, k: int) -> dict[str, Array]:
        low, n = np.moveaxis(self._state[:k], -1, 0)
        return {MIN: np.where(np.isfinite(low), low, np.nan), N_SATURATED: n.astype(np.int32)}


class _PlaceMoments:
    """Centre of mass and second moments of each region, in rows and columns or in space."""

    def __init__(self, frames: Frames, regions: Sequence[Sequence[Window]], names: tuple[str, ...]) -> None:
        from xsmall.kernels.roi import moments

        self._kernel = moments
        self._names = names
        self._variance = frames.variance
        self._origin = np.zeros((len(regions), 2))
        self._places: list[tuple[Floats, Floats, npt.NDArray[np.bool_]]] = []
        self._one = np.array([names is IN_SPACE or len(found) == 1 for found in regions])
        for b, found in enumerate(regions):
            if names is IN_PIXELS:
                grids = [list(np.meshgrid(w.row_labels, w.column_labels, indexing="ij")) for w in found]
            else:
                assert frames.geometry is not None
                x, y = (frames.part.take(pixel_array(frames.geometry, None, name)) for name in (X, Y))
                grids = [[v[w.segment, w.row, w.column] for v in (x, y)] for w in found]
            self._origin[b] = [np.nanmean(np.concatenate([g[i].ravel() for g in grids])) for i in (0, 1)]
            for grid in grids:
                p, q = (np.ascontiguousarray(g - o) for g, o in zip(grid, self._origin[b], strict=True))
                self._places.append((p, q, np.isfinite(p) & np.isfinite(q)))
        self._sums = np.zeros((2, GROUP, len(regions), 6))

    def begin(self) -> None:
        self._sums.fill(0)

    def add(
        self, j: int, w: int, b: int, frame: Array, variance: Array | None, top: int, left: int, use: Array
    ) -> None:
        p, q, placed = self._places[w]
        use = use & placed
        self._kernel(frame, frame, top, left, use, p, q, self._sums[0, j, b])
        if variance is not None:
            self._kernel(frame, variance, top, left, use, p, q, self._sums[1, j, b])

    def end(self, k: int) -> dict[str, Array]:
        s, sp, sq, spp, spq, sqq = np.moveaxis(self._sums[0, :k], -1, 0)
        v, vp, vq, vpp, _, vqq = np.moveaxis(self._sums[1, :k], -1, 0)
        total = np.where((s != 0) & self._one, s, np.nan)
        p, q = sp / total, sq / total
        out = dict(zip(self._names, (spp / total - p * p, spq / total - p * q, sqq / total - q * q), strict=True))
        if self._names is IN_SPACE:
            out |= {X: p + self._origin[:, 0], Y: q + self._origin[:, 1]}
            if self._variance:
                out[f"{X}{VARIANCE_SUFFIX}"] = (vpp - 2 * p * vp + p * p * v) / total**2
                out[f"{Y}{VARIANCE_SUFFIX}"] = (vqq - 2 * q * vq + q * q * v) / total**2
        return out
