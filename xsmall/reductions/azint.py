"""Azimuthal integration: mean intensity in bins of q, two_theta or radius, and of azimuth where asked for."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt
import xarray as xr

from xsmall.detector.frames import Frames
from xsmall.engine.record import Output, Record, Reducer
from xsmall.errors import ParameterError
from xsmall.frames.per_pixel import StaticMask
from xsmall.reductions.azint_energy import EnergyAzintReducer
from xsmall.reductions.azint_table import FULL_TURN, AzintBins, Table
from xsmall.reductions.edges import as_bins, as_edges, labels_of_bins
from xsmall.vocabulary import (
    AZIMUTH,
    DEGREE,
    DIMENSIONLESS,
    INTENSITY,
    N_VALID,
    RADIUS,
    TWO_THETA,
    UNITS,
    UNITS_OF,
    VARIANCE_SUFFIX,
    Q,
)

__all__ = ["Azint", "azint"]

QUANTITIES = (Q, TWO_THETA, RADIUS)


def azint(
    bins: int | Sequence[float] | npt.NDArray[Any] = 500,
    *,
    quantity: str = Q,
    range: tuple[float, float] | None = None,  # noqa: A002 the word of numpy.histogram
    azimuth_bins: int | Sequence[float] | npt.NDArray[Any] | None = None,
    mask: Any = None,
    solid_angle: bool = False,
    polarization_plane: float | None = None,
    polarization_fraction: float | None = None,
) -> Azint:
    """Average the pixels in rings around the beam.

    Parameters
    ----------
    bins
        Number of bins, or their edges in the unit of ``quantity``. Bins are closed left and open right.
    quantity
        ``"q"`` (1/angstrom), ``"two_theta"`` (degrees) or ``"radius"`` (m). Where ``photon_energy`` is a coordinate of
        the events, each event is binned by its own q; an event without energy (NaN) has no valid pixel.
    range
        (low, high) of the bins where ``bins`` is a number; without it what the unmasked pixels span.
    azimuth_bins
        Number of sectors of the full turn from -180 degrees, or their edges in degrees (a turn at most, they may pass
        180); without it one sector.
    mask
        Boolean (segment, row, column), True where a pixel may be used: a DataArray, cut by its labels, or an array of
        the shape of the frames.
    solid_angle
        Correct for the solid angle of a pixel, relative to that of a pixel that faces the sample at the distance of
        the detector.
    polarization_plane, polarization_fraction
        Correct for polarization: direction of the electric field in degrees from +x towards +y, and the fraction
        polarized along it. There is no default plane.

    Returns
    -------
    A record. Its variables over (event, quantity), or (event, azimuth, quantity): ``intensity`` (float64, unit of the
    data), the mean over the valid pixels of a bin, NaN where none is; ``n_valid`` (int32), their number. With
    variances also ``intensity_variance``. Coordinates: bin centres, and ``<quantity>_bounds`` with the edges.

    Raises
    ------
    GeometryError, ParameterError
        No geometry, a beam without what the quantity needs, edges that do not rise, bins that cover no pixel.

    Notes
    -----
    With corrections the mean is sum(signal) / sum(efficiency), efficiency being the product of the relative solid angle
    and the polarization factor of each valid pixel: the maximum-likelihood mean of counts, which is also what pyFAI
    computes; its variance is sum(variance of the signal) / sum(efficiency)^2. Pixels belong to one bin as a whole, none
    is split. Tables take 2 bytes per pixel (4 from 65536 bins on, 4 more with corrections), are made on first use and
    kept per process.

    Examples
    --------
    >>> import xsmall as xs
    >>> sim = xs.simulate(4, shape=(2, 32, 64), seed=1)
    >>> cal = sim.run["jungfrau"]["raw"].sd.calibrate(sim.constants)
    >>> det = cal.sd.assign_geometry(sim.geometry).sd.assign_beam(photon_energy=9500, distance=0.1)
    >>> det.sd.azint(bins=50)["intensity"].dims
    ('event', 'q')
    """
    if quantity not in QUANTITIES:
        raise ParameterError("azint bins by another quantity", found=repr(quantity), expected=f"one of {QUANTITIES}")
    radial = as_bins(bins, "bins")
    if range is not None:
        if not isinstance(radial, int):
            raise ParameterError("range and edges at once", fix="leave range out: edges say it already")
        range = as_edges(range, "range")[:2]  # type: ignore[assignment]  # noqa: A001
    around = None if azimuth_bins is None else as_bins(azimuth_bins, "azimuth_bins")
    if isinstance(around, tuple) and around[-1] - around[0] > FULL_TURN * (1 + 1e-12):
        raise ParameterError("azimuth_bins of more than a turn", found=f"{around[0]} to {around[-1]} degrees")
    if (polarization_plane is None) != (polarization_fraction is None):
        raise ParameterError(
            "polarization needs its plane and its fraction",
            found=f"plane {polarization_plane}, fraction {polarization_fraction}",
            fix="polarization_plane=0, polarization_fraction=0.99: field along x",
        )
    if polarization_fraction is not None and not 0 <= polarization_fraction <= 1:
        raise ParameterError("fraction of polarization", found=polarization_fraction, expected="0 to 1")
    polarization = (
        None
        if polarization_plane is None or polarization_fraction is None
        else (float(polarization_plane), float(polarization_fraction))
    )
    return Azint(AzintBins(radial, quantity, range, around, StaticMask.of(mask), bool(solid_angle), polarization))


@dataclass(frozen=True)
class Azint(Record):
    """Bins with mask and corrections; made by :func:`azint`."""

    name: ClassVar[str] = "azint"

    bins: AzintBins

    def outputs(self, frames: Frames) -> Mapping[str, Output]:
        """Describe intensity and n_valid over the bins."""
        table = Table(self.bins, frames)
        table.check()
        several = self.bins.azimuth_bins is not None
        dims = (AZIMUTH, self.bins.quantity) if several else (self.bins.quantity,)
        shape = table.shape if several else table.shape[1:]
        units = {} if frames.units is None else {UNITS: frames.units}
        out = {
            INTENSITY: Output(dims, shape, np.dtype(np.float64), units),
            N_VALID: Output(dims, shape, np.dtype(np.int32), {UNITS: DIMENSIONLESS}),
        }
        if frames.variance:
            spread = {} if frames.units is None else {UNITS: f"({frames.units})2"}
            out[f"{INTENSITY}{VARIANCE_SUFFIX}"] = Output(dims, shape, np.dtype(np.float64), spread)
        return out

    def coords(self, frames: Frames) -> Mapping[str, xr.Variable]:
        """Centres and edges of the bins."""
        table = Table(self.bins, frames)
        out = labels_of_bins(self.bins.quantity, table.edges(), UNITS_OF[self.bins.quantity])
        around = self.bins.azimuth_edges()
        return out if around is None else {**labels_of_bins(AZIMUTH, around, DEGREE), **out}

    def reducer(self, frames: Frames) -> Reducer:
        """Make the reducer, and the tables where they are not yet there."""
        if frames.energy_varies and self.bins.quantity == Q:
            return EnergyAzintReducer(Table(self.bins, frames))
        return AzintReducer(Table(self.bins, frames))


class AzintReducer(Reducer):
    """Scatters four frames at a time."""

    def __init__(self, table: Table) -> None:
        from xsmall.kernels.azint import LANES, scatter

        self._scatter = scatter
        self._table = table
        self._index, self._weight = table.index(), table.weight()
        n = table.shape[0] * table.shape[1]
        self._sums = np.zeros((n + 1, 2, LANES))
        self._lost = np.zeros((n + 1, LANES), dtype=np.int64)
        self._lost_weight = np.zeros((n + 1, LANES))
        self._variance = np.zeros_like(self._sums) if table.frames.variance else None
        self._lost_variance, self._unused = np.zeros_like(self._lost), np.zeros_like(self._lost_weight)
        self._lanes = LANES
        self._k = 0

    def begin(self, k: int) -> None:
        """Start a group of ``k`` events."""
        self._k = k
        for state in (self._sums, self._lost, self._lost_weight, self._variance, self._lost_variance):
            if state is not None:
                state.fill(0)

    def add(
        self,
        s: int,
        frames: npt.NDArray[np.floating[Any]],
        variance: npt.NDArray[np.floating[Any]] | None = None,
    ) -> None:
        """Scatter segment ``s``."""
        events = [min(j, self._k - 1) for j in range(self._lanes)]  # a short group repeats its last event
        lanes = [np.ascontiguousarray(frames[j]).reshape(-1) for j in events]
        self._scatter(*lanes, self._index[s], self._weight[s], self._sums, self._lost, self._lost_weight)
        if variance is not None and self._variance is not None:
            spread = [
                np.ascontiguousarray(np.where(np.isfinite(frames[j]), variance[j], np.nan)).reshape(-1) for j in events
            ]
            lost = self._lost_variance, self._unused
            self._scatter(*spread, self._index[s], self._weight[s], self._variance, *lost)

    def end(self) -> Mapping[str, npt.NDArray[Any]]:
        """Divide by what the valid pixels weigh."""
        table = self._table
        n_valid = self._by_event(table.counts()[:-1, None] - self._lost[:-1])
        norm = n_valid
        if self._weight.size:
            norm = self._by_event(table.norm()[:-1, None] - self._lost_weight[:-1])
        total = self._by_event(self._sums[:-1].sum(axis=1))
        some = n_valid > 0
        with np.errstate(divide="ignore", invalid="ignore"):
            out = {INTENSITY: np.where(some, total / norm, np.nan), N_VALID: n_valid.astype(np.int32)}
            if self._variance is not None:
                spread = self._by_event(self._variance[:-1].sum(axis=1))
                # a valid pixel without a variance makes that of its bin unknown
                known = some & self._by_event(self._lost_variance[:-1] == self._lost[:-1])
                out[f"{INTENSITY}{VARIANCE_SUFFIX}"] = np.where(known, spread / norm**2, np.nan)
        return out

    def _by_event(self, state: npt.NDArray[Any]) -> npt.NDArray[Any]:
        """Turn (bin, lane) into (event, *bins)."""
        shape = self._table.shape if self._table.bins.azimuth_bins is not None else self._table.shape[1:]
        return state[:, : self._k].T.reshape(self._k, *shape)
