"""Azimuthal integration by q where the photon energy differs between events."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from xsmall.engine.record import Reducer
from xsmall.errors import DataError
from xsmall.reductions.azint_reducers import RingStatistic, results
from xsmall.reductions.azint_table import BinTable
from xsmall.vocabulary import WITHOUT_ENERGY

__all__ = ["EnergyAzintReducer"]


class EnergyAzintReducer(Reducer):
    """Bins each event by its own q; the table, q of each pixel at the mean energy, is that of all events."""

    def __init__(self, table: BinTable, kind: RingStatistic) -> None:
        from xsmall.kernels.azint_energy import scatter_scaled
        from xsmall.kernels.bins import first_bins

        beam = table.frames.beam
        if beam is None or beam.photon_energy is None:
            raise DataError("photon energies of events without their mean", fix=".sd.assign_beam(photon_energy=...)")
        self._scatter = scatter_scaled
        self._table, self._kind = table, kind
        self._mean_energy = beam.photon_energy
        self._position, self._sector, self._weight = table.position(), table.sector(), table.weight()
        self._edges = table.edges()
        self._first = first_bins(self._edges)
        self._scale: npt.NDArray[np.float64] = np.empty(0)

    def begin(self, k: int) -> None:
        """Start a group of ``k`` events, whose energies the engine has set."""
        if self.energy is None or len(self.energy) != k:
            raise DataError("no photon energy came with the events", found=self.energy, expected=f"{k} energies")
        n = self._table.shape[0] * self._table.shape[1]
        self._scale = self.energy / self._mean_energy
        self._sums, self._weights, self._variance = (np.zeros((k, n)) for _ in range(3))
        self._counts, self._known = (np.zeros((k, n), dtype=np.int64) for _ in range(2))
        self._unused_weights = np.zeros((k, n))

    def add(
        self,
        s: int,
        frames: npt.NDArray[np.floating[Any]],
        variance: npt.NDArray[np.floating[Any]] | None = None,
    ) -> None:
        """Scatter segment ``s``."""
        tables = self._sector[s], self._weight[s], self._edges, self._first
        for j, scale in enumerate(self._scale):
            frame = frames[j].reshape(-1)
            places = self._position[s], scale, *tables
            self._scatter(frame, *places, self._sums[j], self._counts[j], self._weights[j])
            if variance is not None:
                spread = np.where(np.isfinite(frame), variance[j].reshape(-1), np.nan)
                self._scatter(spread, *places, self._variance[j], self._known[j], self._unused_weights[j])

    def end(self) -> Mapping[str, npt.NDArray[Any]]:
        """Divide by what the valid pixels weigh."""
        out = (self._table, self._kind, self._sums, self._counts, self._weights)
        if not self._table.frames.variance:
            found = results(*out)
        else:
            found = results(*out, self._variance, self._known == self._counts)
        return {**found, WITHOUT_ENERGY: ~np.isfinite(self._scale)}
