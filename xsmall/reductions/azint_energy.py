"""Azimuthal integration by q where the photon energy differs between events."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from xsmall.detector.cache import CACHE
from xsmall.engine.record import Reducer
from xsmall.errors import DataError
from xsmall.reductions.azint_reducers import RingStatistic, results
from xsmall.reductions.azint_table import BinTable
from xsmall.vocabulary import WITHOUT_ENERGY

__all__ = ["EnergyAzintReducer"]


class Ordered(NamedTuple):
    """The pixels that are used, by their azimuthal bin and then by the radial quantity.

    Attributes
    ----------
    position
        (pixel,) the radial quantity.
    start
        (sector + 1,) where each azimuthal bin begins.
    weight
        (pixel + 1,) what the pixels before each weigh together, or empty: 1 each.
    """

    position: npt.NDArray[np.float64]
    start: npt.NDArray[np.int64]
    weight: npt.NDArray[np.float64]

    @property
    def nbytes(self) -> int:
        """Bytes of all."""
        return sum(array.nbytes for array in self)


def _ordered(table: BinTable) -> Ordered:
    """Sort the pixels, once per process: how many lie in a bin is then found without looking at them."""
    position, sector, weight = table.position().ravel(), table.sector().ravel(), table.weight().ravel()
    use = np.isfinite(position) & (sector >= 0 if sector.size else True)
    around = sector[use] if sector.size else np.zeros(int(use.sum()), np.int32)
    order = np.lexsort((position[use], around)) if sector.size else np.argsort(position[use], kind="stable")
    start = np.searchsorted(around[order], np.arange(table.shape[0] + 1))
    sums = np.concatenate([[0.0], np.cumsum(weight[use][order], dtype=np.float64)]) if weight.size else np.empty(0)
    return Ordered(position[use][order], start.astype(np.int64), sums)


class EnergyAzintReducer(Reducer):
    """Bins each event by its own q; the table, q of each pixel at the mean energy, is that of all events."""

    def __init__(self, table: BinTable, kind: RingStatistic) -> None:
        from xsmall.kernels.azint_energy import CHAINS, EVENTS, borders_at, scatter_scaled
        from xsmall.kernels.bins import first_bins

        beam = table.frames.beam
        if beam is None or beam.photon_energy is None:
            raise DataError("photon energies of events without their mean", fix=".sd.assign_beam(photon_energy=...)")
        self._scatter, self._borders_at, self._chains = scatter_scaled, borders_at, CHAINS
        self._events = EVENTS
        self._table, self._kind = table, kind
        self._mean_energy = beam.photon_energy
        self._position, self._sector, self._weight = table.position(), table.sector(), table.weight()
        self._ordered = CACHE.get(("azint", "ordered", table.bins, table.frames.places), lambda: _ordered(table))
        self._edges = table.edges()
        self._first = first_bins(self._edges)
        self._scale: npt.NDArray[np.float64] = np.empty(0)

    def begin(self, k: int) -> None:
        """Start a group of ``k`` events, whose energies the engine has set."""
        if self.energy is None or len(self.energy) != k:
            raise DataError("no photon energy came with the events", found=self.energy, expected=f"{k} energies")
        n = self._table.shape[0] * self._table.shape[1] + 1  # the last bin takes what is not used
        self._scale = np.where(self.energy > 0, self.energy / self._mean_energy, np.nan)
        self._sums, self._variance = np.zeros((2, k, n, self._chains))
        self._lost, self._lost_variance = np.zeros((2, k, n), dtype=np.int64)
        self._lost_weight, self._unused_weight = np.zeros((2, k, n))

    def add(
        self,
        s: int,
        frames: npt.NDArray[np.floating[Any]],
        variance: npt.NDArray[np.floating[Any]] | None = None,
    ) -> None:
        """Scatter segment ``s``."""
        flat = frames.reshape(len(frames), -1)
        self._add(s, flat, self._sums, self._lost, self._lost_weight)
        if variance is not None:
            variances = np.where(np.isfinite(flat), variance.reshape(len(frames), -1), np.nan)
            self._add(s, variances, self._variance, self._lost_variance, self._unused_weight)

    def _add(self, s: int, flat: npt.NDArray[np.floating[Any]], *into: npt.NDArray[Any]) -> None:
        """Scatter frames (event, pixel) into sums of events, some events at a time."""
        table = self._sector[s], self._weight[s], self._edges, self._first
        for start in range(0, len(flat), self._events):
            some = slice(start, start + self._events)
            frames = tuple(flat[some])  # as one array they need not be contiguous
            frames += frames[-1:] * (self._events - len(frames))  # compiled for one length of the tuple
            self._scatter(frames, self._position[s], self._scale[some], *table, *(sums[some] for sums in into))

    def end(self) -> Mapping[str, npt.NDArray[Any]]:
        """Divide by what the valid pixels weigh."""
        counts, norm = self._of_all()
        n_valid = counts - self._lost[:, :-1]
        norm = norm - self._lost_weight[:, :-1] if self._weight.size else n_valid.astype(np.float64)
        out = (self._table, self._kind, self._sums[:, :-1].sum(axis=2), n_valid, norm)
        if not self._table.frames.variance:
            found = results(*out)
        else:
            known = self._lost_variance[:, :-1] == self._lost[:, :-1]
            found = results(*out, self._variance[:, :-1].sum(axis=2), known)
        return {**found, WITHOUT_ENERGY: ~np.isfinite(self._scale)}

    def _of_all(self) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.float64]]:
        """How many pixels the bins of each event have, valid or not, and what they weigh: (event, bin)."""
        sectors, n = self._table.shape
        borders = np.empty((len(self._scale), sectors, n + 1), dtype=np.int64)
        position, start, weight = self._ordered
        for j, scale in enumerate(self._scale):
            for t in range(sectors):
                self._borders_at(position[start[t] : start[t + 1]], scale, self._edges, borders[j, t])
                borders[j, t] += start[t]
        shape = len(self._scale), sectors * n
        counts = np.diff(borders, axis=2).reshape(shape)
        return counts, np.diff(weight[borders], axis=2).reshape(shape) if weight.size else np.empty(0)
