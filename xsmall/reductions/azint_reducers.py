"""Reducers of azimuthal integration: pixels as a whole, pixels that are shared among bins, and rings at once."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from xsmall.detector.frames import Frames
from xsmall.engine.entries import LostCounts
from xsmall.engine.record import GROUP, IN_CACHE, MANY, Reducer
from xsmall.reductions.azint_table import BinTable, shared_strips_of, shares_of
from xsmall.vocabulary import INTENSITY, N_VALID, NORM, SUM, VARIANCE_SUFFIX

__all__ = ["AzintReducer", "RingStatistic", "RingsReducer", "SharesReducer", "results"]

Array = npt.NDArray[Any]


@dataclass(frozen=True)
class RingStatistic:
    """What is told of a ring.

    Parameters
    ----------
    statistic
        ``"mean"``, ``"sum"`` or ``"median"``.
    clip
        Standard deviations beyond which pixels are taken out of the mean, or None.
    rounds
        How often.
    norm
        Whether the sum of the weights is told too.
    """

    statistic: str = "mean"
    clip: float | None = None
    rounds: int = 5
    norm: bool = False

    @property
    def needs_rings(self) -> bool:
        """Whether all pixels of a ring are needed at once."""
        return self.statistic == "median" or self.clip is not None


def results(
    table: BinTable,
    kind: RingStatistic,
    total: Array,
    n_valid: Array,
    norm: Array,
    variances: Array | None = None,
    known: Array | None = None,
) -> dict[str, Array]:
    """Divide by what the valid pixels weigh: arrays (event, bin) to variables (event, *bins)."""
    some = n_valid > _FEW if table.bins.split != "no" else n_valid > 0
    per = np.ones_like(norm, dtype=np.float64) if kind.statistic == SUM else norm
    with np.errstate(divide="ignore", invalid="ignore"):
        out = {INTENSITY: np.where(some, total / per, np.nan), N_VALID: n_valid}
        if variances is not None:  # a valid pixel without a variance makes that of its bin unknown
            out[f"{INTENSITY}{VARIANCE_SUFFIX}"] = np.where(
                some & (known if known is not None else True), variances / per**2, np.nan
            )
    if kind.norm:
        out[NORM] = np.where(some, norm, 0.0)
    out[N_VALID] = np.where(some, n_valid, 0) if table.bins.split != "no" else n_valid.astype(np.int32)
    shape = table.shape if table.bins.azimuth_bins is not None else table.shape[1:]
    return {name: values.reshape(len(values), *shape) for name, values in out.items()}


_FEW = 1e-6  # of a pixel: what is left of shares that were subtracted from each other
_STATE_BYTES = 32
"""Bytes of a bin and an event: two sums, the number and the weight of lost pixels."""


class AzintReducer(Reducer):
    """Scatters four frames at a time."""

    takes_entries = True

    def __init__(self, table: BinTable, kind: RingStatistic) -> None:
        from xsmall.kernels.azint import LANES, scatter
        from xsmall.kernels.entries import add_to_bins

        self._scatter, self._add_to_bins, self._lanes = scatter, add_to_bins, LANES
        self._table, self._kind, self._counts = table, kind, table.counts()[:-1]
        self._index, self._strips, self._weight = table.index(), table.strips(), table.weight()
        self._n = self._counts.size
        self._k = 0
        if not table.frames.variance:  # which is copied, and left out where its value is
            self.most_together = max(GROUP, min(MANY, IN_CACHE // (_STATE_BYTES * self._n)) // LANES * LANES)

    def begin(self, k: int) -> None:
        """Start a group of ``k`` events."""
        self._k = k
        fours = -(-k // self._lanes)
        self._sums = np.zeros((fours, self._n + 1, 2, self._lanes))
        self._lost = np.zeros((fours, self._n + 1, self._lanes), dtype=np.int64)
        self._lost_weight = np.zeros(self._lost.shape)
        if self._table.frames.variance:
            self._variance, self._lost_variance = np.zeros_like(self._sums), np.zeros_like(self._lost)
            self._unused = np.zeros_like(self._lost_weight)

    def add(
        self,
        s: int,
        frames: npt.NDArray[np.floating[Any]],
        variance: npt.NDArray[np.floating[Any]] | None = None,
    ) -> None:
        """Scatter segment ``s``."""
        flat = frames.reshape(len(frames), -1)
        self._add(s, flat, self._sums, self._lost, self._lost_weight)
        if variance is not None and self._table.frames.variance:
            variances = np.where(np.isfinite(flat), variance.reshape(len(frames), -1), np.nan)
            self._add(s, variances, self._variance, self._lost_variance, self._unused)

    def _add(self, s: int, flat: npt.NDArray[np.floating[Any]], *into: npt.NDArray[Any]) -> None:
        """Scatter frames (event, pixel), four at a time."""
        where = self._strips[s], self._index[s], self._weight[s]
        for i, states in enumerate(zip(*into, strict=True)):
            frames = tuple(flat[i * self._lanes : (i + 1) * self._lanes])
            frames += frames[-1:] * (self._lanes - len(frames))  # a short group repeats its last event
            self._scatter(*frames, *where, *states)

    def _lacks(self, pixels: npt.NDArray[np.int64]) -> Array:
        """Number and weight of pixels by their bins: (2, bin + 1)."""
        bins, n = self._index.reshape(-1)[pixels], self._n + 1
        weight = self._weight.reshape(-1)[pixels] if self._weight.size else None
        return np.stack([np.bincount(bins, None if i == 0 else weight, n) for i in range(2)])

    def never(self, pixels: npt.NDArray[np.int64]) -> None:
        """Hear which pixels no event has."""
        self._lacking: LostCounts[Array] = LostCounts(self._lacks, pixels)

    def entries(self, j: int, pixel: Array, value: Array, lost: npt.NDArray[np.int64]) -> None:
        """Scatter the pixels of event ``j`` that are not zero."""
        i, lane = divmod(j, self._lanes)
        self._add_to_bins(pixel, value, self._index.reshape(-1), self._sums[i, :, 0, lane])
        self._lost[i, :, lane], self._lost_weight[i, :, lane] = self._lacking(lost)

    def end(self) -> Mapping[str, npt.NDArray[Any]]:
        """Divide by what the valid pixels weigh."""
        n_valid = norm = self._counts - self._by_event(self._lost)
        if self._weight.size:
            norm = self._table.norm()[:-1] - self._by_event(self._lost_weight)
        total = self._by_event(self._sums[:, :, 0] + self._sums[:, :, 1])  # .sum(axis=2) takes six times as long
        if not self._table.frames.variance:
            return results(self._table, self._kind, total, n_valid, norm)
        variances = self._by_event(self._variance[:, :, 0] + self._variance[:, :, 1])
        known = self._by_event(self._lost_variance) == self._by_event(self._lost)
        return results(self._table, self._kind, total, n_valid, norm, variances, known)

    def _by_event(self, state: Array) -> Array:
        """Turn (four, bin + 1, lane) into (event, bin)."""
        turned = np.ascontiguousarray(state[:, :-1].transpose(0, 2, 1))
        return turned.reshape(-1, self._n)[: self._k]


class SharesReducer(Reducer):
    """Scatters pixels that are shared among bins."""

    def __init__(self, table: BinTable, kind: RingStatistic) -> None:
        from xsmall.kernels.azint_split import scatter_shares

        self._scatter = scatter_shares
        self._table, self._kind = table, kind
        start, self._bins, self._share = shares_of(table)
        segments, pixels = table.frames.shape[0], int(np.prod(table.frames.shape[1:]))
        self._starts = [start[s * pixels : (s + 1) * pixels + 1] for s in range(segments)]
        self._strips, self._weight = shared_strips_of(table), table.weight()

    def begin(self, k: int) -> None:
        """Start a group of ``k`` events."""
        n = self._table.shape[0] * self._table.shape[1]
        self._sums, self._lost, self._lost_weight, self._variances, self._lost_variances, self._unused = np.zeros(
            (6, k, n)
        )

    def add(self, s: int, frames: Array, variance: Array | None = None) -> None:
        """Scatter segment ``s``."""
        table = self._starts[s], self._bins, self._share, self._strips[s], self._weight[s]
        flat = frames.reshape(len(frames), -1)
        self._scatter(flat, *table, False, self._sums, self._lost, self._lost_weight)
        if variance is not None:
            variances = np.where(np.isfinite(flat), variance.reshape(len(frames), -1), np.nan)
            self._scatter(variances, *table, True, self._variances, self._lost_variances, self._unused)

    def end(self) -> Mapping[str, Array]:
        """Divide by what the valid pixels weigh."""
        n_valid = self._table.counts()[:-1] - self._lost
        norm = n_valid if not self._weight.size else self._table.norm()[:-1] - self._lost_weight
        if not self._table.frames.variance:
            return results(self._table, self._kind, self._sums, n_valid, norm)
        known = self._lost_variances - self._lost < _FEW
        return results(self._table, self._kind, self._sums, n_valid, norm, self._variances, known)


class RingsReducer(Reducer):
    """Gathers the pixels of each ring: medians, and means without outliers."""

    def __init__(self, table: BinTable, kind: RingStatistic, frames: Frames) -> None:
        from xsmall.kernels.azint_rings import clipped_means, medians

        self._medians, self._clipped = medians, clipped_means
        self._table, self._kind, self._frames = table, kind, frames
        index = table.index().reshape(-1)
        self._n = table.shape[0] * table.shape[1]
        counts = np.bincount(index, minlength=self._n + 1)[: self._n]
        self._start = np.concatenate([[0], np.cumsum(counts)]).astype(np.int64)
        self._pixel = np.argsort(index, kind="stable")[: self._start[-1]].astype(np.int32)
        self._weight = table.weight().reshape(-1)
        self._scratch = np.empty(max(int(counts.max(initial=0)), 1))
        self._keep = np.zeros(index.size, bool)
        self._buffer = np.empty((GROUP, *frames.shape), frames.dtype)
        self._k = 0

    def begin(self, k: int) -> None:
        """Start a group of ``k`` events."""
        self._k = k

    def add(self, s: int, frames: Array, variance: Array | None = None) -> None:
        """Take segment ``s``."""
        del variance  # refused where it is asked for
        self._buffer[: self._k, s] = frames

    def end(self) -> Mapping[str, Array]:
        """Go through the rings of each event."""
        found, norm = np.zeros((2, self._k, self._n))
        n_valid = np.zeros((self._k, self._n), np.int64)
        rings = self._start, self._pixel, self._weight
        for j in range(self._k):
            frame = self._buffer[j].reshape(-1)
            if self._kind.clip is None:
                self._medians(frame, *rings, self._scratch, found[j], n_valid[j])
            else:
                how = self._kind.clip, self._kind.rounds
                self._clipped(frame, *rings, *how, found[j], n_valid[j], norm[j], self._keep)
        if self._kind.clip is None:
            return results(self._table, self._kind, found, n_valid, np.ones_like(found))
        some = np.where(n_valid > 0, norm, 1.0)
        return results(self._table, self._kind, found * some, n_valid, some)
