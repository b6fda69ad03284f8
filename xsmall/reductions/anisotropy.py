"""Anisotropy of scattering: Legendre polynomials fitted to each ring."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Final

import numpy as np
import numpy.typing as npt
import xarray as xr

from xsmall.detector.frames import Frames
from xsmall.engine.asked import ask
from xsmall.engine.record import Output, Record, Reducer
from xsmall.errors import ParameterError
from xsmall.reductions.azint import azint_bins, polarization_of
from xsmall.reductions.azint_table import AzintBins, BinTable
from xsmall.reductions.edges import labels_of_bins
from xsmall.reductions.filters import filtered, static_mask
from xsmall.reductions.normalize import normalized
from xsmall.vocabulary import (
    ANISOTROPY,
    AZIMUTH,
    DIMENSIONLESS,
    N_VALID,
    ORDER,
    STDERR_SUFFIX,
    TWO_THETA,
    UNITS,
    UNITS_OF,
    VARIANCE_SUFFIX,
    Q,
)

__all__ = ["Anisotropy", "anisotropy"]

ORDERS: Final = (0, 2, 4)
_WORST: Final = 1e10  # condition of a fit: beyond it a ring does not tell its amplitudes apart
_PLACES: Final = np.array([[0, 1, 2], [1, 3, 4], [2, 4, 5]])  # of the six products in the symmetric matrix
_ERROR: Final = f"{ANISOTROPY}{STDERR_SUFFIX}"
_VARIANCE: Final = f"{ANISOTROPY}{VARIANCE_SUFFIX}"


@ask
def anisotropy(
    axis: Any,
    bins: int | Sequence[float] | npt.NDArray[Any] | None = None,
    *,
    orders: Sequence[int] = ORDERS,
    quantity: str = Q,
    range: tuple[float, float] | None = None,  # noqa: A002 the word of numpy.histogram
    width: float | None = None,
    mask: Any = None,
    threshold: Any = None,
    noise: Any = None,
    solid_angle: bool = False,
    polarization_plane: float | None = None,
    polarization_fraction: float | None = None,
    efficiency: Any = (),
    i0: xr.DataArray | None = None,
) -> Record:
    """Fit Legendre polynomials to the intensity around each ring.

    Parameters
    ----------
    axis
        Direction across the beam that the sample is symmetric about, such as the field of the pump laser: degrees from
        +x towards +y.
    bins, range, width, quantity
        Rings, as in :func:`~xsmall.azint`.
    orders
        ``(0, 2, 4)``, ``(0, 2)`` or ``(0,)``.
    mask, threshold, noise, solid_angle, polarization_plane, polarization_fraction, efficiency, i0
        As in :func:`~xsmall.azint`. Scattered polarized light is not isotropic by itself: correct for it.

    Returns
    -------
    A record. ``anisotropy`` (event, order, quantity), float64 in the unit of the data: the amplitudes S of
    I = S0 P0(c) + S2 P2(c) + S4 P4(c), where c is the cosine of the angle between the scattering vector and the axis;
    ``anisotropy_stderr``, their standard errors from the scatter of the pixels about the fit; ``n_valid`` (event,
    quantity), int32. With variances also ``anisotropy_variance``, propagated from those of the pixels. NaN where a ring
    has too few pixels, or sees too little of the angle, to tell the amplitudes apart.

    Raises
    ------
    GeometryError, ParameterError
        As :func:`~xsmall.azint`; other orders, an axis that is no angle, a photon energy of each event.

    Notes
    -----
    The scattering vector is k' - k, so that c = cos(theta) cos(azimuth - axis), with two theta the scattering angle: it
    reaches 1 nowhere but at small angles. Least squares with pixels weighted by their efficiency; S0 is the mean that
    :func:`~xsmall.azint` gives where the ring is complete. Cost: some 10 ns per pixel.

    Examples
    --------
    >>> import xsmall as xs
    >>> sim = xs.simulate(4, shape=(2, 32, 64), seed=1)
    >>> cal = sim.run["jungfrau"]["raw"].sd.calibrate(sim.constants)
    >>> det = cal.sd.assign_geometry(sim.geometry).sd.assign_beam(photon_energy=9500, distance=0.1)
    >>> det.sd.anisotropy(90, bins=20, orders=(0, 2))["anisotropy"].dims
    ('event', 'order', 'q')
    """
    if isinstance(axis, bool) or not isinstance(axis, int | float | np.number) or not abs(float(axis)) <= 360:
        raise ParameterError("invalid axis", found=repr(axis), expected="degrees from +x towards +y, -360 to 360")
    wanted = tuple(orders) if isinstance(orders, tuple | list) else (orders,)
    if wanted not in (ORDERS[:1], ORDERS[:2], ORDERS):
        raise ParameterError("orders of the fit", found=repr(orders), expected="(0, 2, 4), (0, 2) or (0,)")
    fixed, of_events = static_mask(mask)
    chosen = azint_bins(
        bins, quantity, range, width, None, split="no", mask=fixed, efficiency=efficiency, usual=100,
        solid_angle=bool(solid_angle), polarization=polarization_of(polarization_plane, polarization_fraction),
    )  # fmt: skip
    record = normalized(Anisotropy(chosen, float(axis), len(wanted)), i0, (ANISOTROPY, _ERROR))
    return filtered(record, threshold, noise, of_events)


@dataclass(frozen=True)
class Anisotropy(Record):
    """Rings, axis and number of polynomials; made by :func:`anisotropy`."""

    name: ClassVar[str] = "anisotropy"

    bins: AzintBins
    axis: float
    n_orders: int = 3

    def outputs(self, frames: Frames) -> Mapping[str, Output]:
        """Describe the amplitudes, their errors and n_valid."""
        if frames.energy_varies and self.bins.quantity == Q:
            raise ParameterError(
                "anisotropy is for one photon energy",
                found="a photon energy of each event",
                fix='quantity="two_theta", or .sd.assign_beam(photon_energy=9500)',
            )
        table = BinTable(self.bins, frames)
        table.check()
        n = table.shape[1]
        double = np.dtype(np.float64)
        units = {} if frames.units is None else {UNITS: frames.units}
        dims, shape = (ORDER, self.bins.quantity), (self.n_orders, n)
        out = {name: Output(dims, shape, double, units) for name in (ANISOTROPY, _ERROR)}
        out[N_VALID] = Output((self.bins.quantity,), (n,), np.dtype(np.int32), {UNITS: DIMENSIONLESS})
        if frames.variance:
            squared = {} if frames.units is None else {UNITS: f"({frames.units})2"}
            out[_VARIANCE] = Output(dims, shape, double, squared)
        return out

    def coords(self, frames: Frames) -> Mapping[str, xr.Variable]:
        """Orders of the polynomials, centres and edges of the bins."""
        units = self.bins.units if self.bins.values is not None else UNITS_OF[self.bins.quantity]
        bins = labels_of_bins(self.bins.quantity, BinTable(self.bins, frames).edges(), units)
        return {ORDER: xr.Variable((ORDER,), np.array(ORDERS[: self.n_orders])), **bins}

    def reducer(self, frames: Frames) -> Reducer:
        """Make the reducer, and the tables where they are not yet there."""
        return AnisotropyReducer(self, frames)


class AnisotropyReducer(Reducer):
    """Adds up the normal equations of each ring and solves them."""

    def __init__(self, record: Anisotropy, frames: Frames) -> None:
        from xsmall.kernels.anisotropy import fit_sums, outer_sums

        self._fit, self._outer = fit_sums, outer_sums
        table = BinTable(record.bins, frames)
        self._frames, self._m, self._n = frames, record.n_orders, table.shape[1]
        self._index = table.index()
        weight = table.weight()
        self._weight = (weight if weight.size else np.ones(self._index.shape)).astype(np.float64)
        half, around = np.radians(table._pixels(TWO_THETA)) / 2, np.radians(table._pixels(AZIMUTH) - record.axis)
        self._cos2 = np.nan_to_num((np.cos(half) * np.cos(around)) ** 2).reshape(self._index.shape)
        self._whole = np.zeros((self._n + 1, 6))
        for s, index in enumerate(self._index):
            outer_sums(self._weight[s], self._weight[s], index, self._cos2[s], self._whole)

    def begin(self, k: int) -> None:
        """Start a group of ``k`` events."""
        n = self._n + 1
        self._right, self._squares = np.zeros((k, n, 3)), np.zeros((k, n))
        self._lost, self._variances = np.zeros((2, k, n, 6))
        self._count = np.zeros((k, n), np.int64)

    def add(self, s: int, frames: npt.NDArray[np.floating[Any]], variance: Any = None) -> None:
        """Add segment ``s``."""
        index, weight, cos2 = self._index[s], self._weight[s], self._cos2[s]
        for j in range(len(frames)):
            frame = frames[j].reshape(-1)
            sums = self._right[j], self._lost[j], self._squares[j], self._count[j]
            self._fit(frame, index, weight, cos2, *sums)
            if variance is not None:
                self._outer(frame, variance[j].reshape(-1), index, cos2, self._variances[j])

    def end(self) -> Mapping[str, npt.NDArray[Any]]:
        """Solve."""
        m, n = self._m, self._count[:, :-1]
        normal = self._matrix(self._whole - self._lost)
        right = self._right[:, :-1, :m]
        fits = n > m
        fits &= np.linalg.cond(np.where(fits[..., None, None], normal, np.eye(m))) < _WORST
        inverse = np.linalg.inv(np.where(fits[..., None, None], normal, np.eye(m)))
        found = np.einsum("ebij,ebj->ebi", inverse, right)
        rest = self._squares[:, :-1] - np.einsum("ebi,ebi->eb", found, right)
        with np.errstate(divide="ignore", invalid="ignore"):
            scatter = np.maximum(rest, 0) / (n - m)
            error = np.sqrt(scatter[..., None] * np.einsum("ebii->ebi", inverse))
        out = {ANISOTROPY: found, _ERROR: error}
        if self._frames.variance:
            variances = self._matrix(self._variances)
            out[_VARIANCE] = np.einsum("ebij,ebjk,ebki->ebi", inverse, variances, inverse)
        whole = {name: np.moveaxis(np.where(fits[..., None], v, np.nan), -1, 1) for name, v in out.items()}
        return {**whole, N_VALID: n.astype(np.int32)}

    def _matrix(self, products: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
        """Symmetric matrices (event, bin, order, order) of products (event, bin + 1, 6)."""
        return np.asarray(products[:, :-1][..., _PLACES[: self._m, : self._m]])
