"""The bins of azimuthal integration as a value, and their tables on some frames, made once per process."""

from __future__ import annotations

from collections.abc import Callable, Hashable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from xsmall.detector.cache import CACHE
from xsmall.detector.frames import Frames
from xsmall.detector.geometry.pixel import pixel_array
from xsmall.errors import GeometryError, ParameterError
from xsmall.frames.per_pixel import StaticMask
from xsmall.vocabulary import AREA, AZIMUTH, POLARIZATION, SOLID_ANGLE, Q

__all__ = ["AzintBins", "Table"]

"""Bin numbers, weights and edges of this process."""

Floats = npt.NDArray[np.float64]
FULL_TURN = 360.0


@dataclass(frozen=True)
class AzintBins:
    """Which pixels go to which bin, and what they weigh there; arguments as in :func:`~xsmall.azint`.

    Parameters
    ----------
    bins
        Number of radial bins, or their edges.
    quantity
        What they run over: ``"q"``, ``"two_theta"`` or ``"radius"``.
    range
        (low, high) of the bins where ``bins`` is a number; None: what the unmasked pixels span.
    azimuth_bins
        Number of sectors, their edges in degrees, or None for one without borders.
    mask
        Pixels that may be used, or None for all.
    solid_angle
        Whether pixels weigh by their solid angle.
    polarization
        (plane, fraction) that pixels weigh by, or None.
    """

    bins: int | tuple[float, ...] = 500
    quantity: str = Q
    range: tuple[float, float] | None = None
    azimuth_bins: int | tuple[float, ...] | None = None
    mask: StaticMask | None = None
    solid_angle: bool = False
    polarization: tuple[float, float] | None = None

    @property
    def shape(self) -> tuple[int, int]:
        """Azimuthal and radial bins."""
        radial = self.bins if isinstance(self.bins, int) else len(self.bins) - 1
        around = self.azimuth_bins
        return (1 if around is None else around if isinstance(around, int) else len(around) - 1), radial

    def azimuth_edges(self) -> Floats | None:
        """Borders of the azimuthal bins in degrees, or None where there is one bin without borders."""
        around = self.azimuth_bins
        if around is None:
            return None
        return np.linspace(-FULL_TURN / 2, FULL_TURN / 2, around + 1) if isinstance(around, int) else np.array(around)

    @property
    def weighs(self) -> bool:
        """Whether pixels of one bin weigh differently."""
        return self.solid_angle or self.polarization is not None


@dataclass(frozen=True)
class Table:
    """Bins on some frames; arrays are made on first use and shared by the process."""

    bins: AzintBins
    frames: Frames

    def edges(self) -> Floats:
        """Borders of the radial bins: (bin + 1,)."""
        return self._kept("edges", self._edges)

    @property
    def shape(self) -> tuple[int, int]:
        """Azimuthal and radial bins."""
        return self.bins.shape

    def index(self) -> npt.NDArray[np.integer[Any]]:
        """Bin of each pixel, azimuth first: (segment, pixel); the number of bins stands for none."""
        return self._kept("index", self._index)

    def counts(self) -> npt.NDArray[np.int64]:
        """Pixels of each bin, and last of none: (bin + 1,)."""
        return self._kept("counts", lambda: np.bincount(self.index().ravel(), minlength=self._n + 1))

    def weight(self) -> npt.NDArray[np.float32]:
        """What a pixel of full efficiency would read here, by the corrections asked for: (segment, pixel), or empty."""
        return self._kept("weight", self._weight)

    def norm(self) -> Floats:
        """Sum of the weights of each bin, and last of none: (bin + 1,)."""
        weight = self.weight()
        if not weight.size:
            return self.counts().astype(np.float64)
        return self._kept("norm", lambda: np.bincount(self.index().ravel(), weight.ravel(), minlength=self._n + 1))

    def position(self) -> Floats:
        """The radial quantity of each pixel, NaN where the mask leaves it out: (segment, pixel)."""
        return self._kept("position", self._position)

    def sector(self) -> npt.NDArray[np.int32]:
        """Azimuthal bin of each pixel, -1 outside: (segment, pixel), or empty where there is one bin."""
        return self._kept("sector", self._sector)

    def check(self) -> None:
        """Raise unless geometry, beam and mask are there and some pixel falls into a bin."""
        if not self.counts()[: self._n].any():
            quantity = self.bins.quantity
            values = self._used(self._pixels(quantity))
            known = f"{values.min():.6g} to {values.max():.6g}" if values.size else "no pixel: all are masked"
            edges, around = self.edges(), self.bins.azimuth_bins
            raise ParameterError(
                "the bins cover no pixel",
                found=f"{quantity} bins from {edges[0]:.6g} to {edges[-1]:.6g}, azimuth bins {around}",
                expected=f"bins that overlap the pixels' {quantity}: {known}",
                fix=f"azint(bins=500, quantity={quantity!r}) spans what the pixels cover",
            )

    @property
    def _n(self) -> int:
        return self.shape[0] * self.shape[1]

    def _kept(self, what: str, make: Callable[[], npt.NDArray[Any]]) -> npt.NDArray[Any]:
        frames = self.frames
        geometry = None if frames.geometry is None else frames.geometry.token
        key: Hashable = ("azint", what, self.bins, frames.part, geometry, frames.beam)
        return CACHE.get(key, make)

    def _pixels(self, name: str, **named: float) -> Floats:
        """A quantity of the pixels of the frames: (segment, row, column)."""
        frames = self.frames
        if frames.geometry is None:
            raise GeometryError(
                "azimuthal integration needs to know where the pixels are",
                found="frames without geometry",
                expected="the scalar coordinate 'geometry'",
                fix='.sd.assign_geometry(xs.open_geometry("geometry.data"))',
            )
        return frames.part.take(pixel_array(frames.geometry, frames.beam, name, **named))

    def _used(self, values: Floats) -> Floats:
        """Finite values of the pixels that the mask leaves."""
        use = np.isfinite(values)
        if self.bins.mask is not None:
            use &= self.bins.mask.on(self.frames)
        return values[use]

    def _edges(self) -> Floats:
        bins, limits = self.bins.bins, self.bins.range
        if not isinstance(bins, int):
            return np.array(bins)
        if limits is None:
            values = self._used(self._pixels(self.bins.quantity))
            if not values.size:
                raise ParameterError(
                    "no pixel is left to integrate",
                    found="a mask that leaves out every pixel of the frames",
                    expected="a mask with True where a pixel may be used",
                    fix="azint(mask=~mask) if True meant a bad pixel",
                )
            low, high = values.min(), values.max()
            limits = (low, np.nextafter(high, np.inf) if high > low else low + 1e-6 * max(abs(low), 1.0))
        return np.linspace(*limits, bins + 1)

    def _position(self) -> Floats:
        position = np.array(self._pixels(self.bins.quantity))
        if self.bins.mask is not None:
            position[~self.bins.mask.on(self.frames)] = np.nan
        return position.reshape(position.shape[0], -1)

    def _sector(self) -> npt.NDArray[np.int32]:
        around = self.bins.azimuth_edges()
        if around is None:
            return np.empty((self.frames.shape[0], 0), dtype=np.int32)
        azimuth = self._pixels(AZIMUTH)
        return np.stack([_bin(_turned(a.ravel(), around[0]), around) for a in azimuth]).astype(np.int32)

    def _index(self) -> npt.NDArray[np.integer[Any]]:
        chosen, n = self.bins, self._n
        radial = self._pixels(chosen.quantity)
        azimuth = None if chosen.azimuth_bins is None else self._pixels(AZIMUTH)
        use = None if chosen.mask is None else chosen.mask.on(self.frames)
        out = np.full((radial.shape[0], radial[0].size), n, dtype=np.uint16 if n < 1 << 16 else np.int32)
        edges, around = self.edges(), self.bins.azimuth_edges()
        for s in range(radial.shape[0]):
            where = _bin(radial[s].ravel(), edges)
            if azimuth is not None and around is not None:
                sector = _bin(_turned(azimuth[s].ravel(), around[0]), around)
                where = np.where((where < 0) | (sector < 0), -1, sector * self.shape[1] + where)
            if use is not None:
                where[~use[s].ravel()] = -1
            np.copyto(out[s], where, where=where >= 0, casting="unsafe")
        return out

    def _weight(self) -> npt.NDArray[np.float32]:
        chosen = self.bins
        if not chosen.weighs:
            return np.empty((self.frames.shape[0], 0), dtype=np.float32)
        weight = np.ones(self.frames.shape)
        if chosen.solid_angle:
            area = self._pixels(AREA)
            assert self.frames.geometry is not None
            beam = self.frames.beam
            distance = self.frames.geometry.distance if beam is None or beam.distance is None else beam.distance
            weight *= self._pixels(SOLID_ANGLE) * (distance**2 / np.nanmedian(area))
        if chosen.polarization is not None:
            plane, fraction = chosen.polarization
            weight *= self._pixels(POLARIZATION, plane=plane, fraction=fraction)
        return weight.reshape(weight.shape[0], -1).astype(np.float32)


def _bin(values: Floats, edges: Floats) -> npt.NDArray[np.int64]:
    """Bin of each value, closed left and open right; -1 outside and where the value is not finite."""
    where = np.searchsorted(edges, values, side="right") - 1
    where[(where >= edges.size - 1) | ~np.isfinite(values)] = -1
    return where


def _turned(azimuth: Floats, start: float) -> Floats:
    """Azimuth in degrees, brought into the full turn that begins at ``start``."""
    turned = start + np.mod(azimuth - start, FULL_TURN)
    turned[turned >= start + FULL_TURN] = start  # a rounded tiny negative angle
    return turned
