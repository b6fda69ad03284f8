"""The bins of azimuthal integration as a value, and their tables on some frames, made once per process."""

from __future__ import annotations

from collections.abc import Callable, Hashable
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple, TypeVar

import numpy as np
import numpy.typing as npt

from xsmall.detector.cache import CACHE
from xsmall.detector.frames import Frames
from xsmall.detector.geometry.pixel import corner_array, pixel_array
from xsmall.errors import GeometryError, ParameterError
from xsmall.frames.per_pixel import StaticMask, StaticValues
from xsmall.reductions.edges import check_number
from xsmall.reductions.region import Place, inside
from xsmall.vocabulary import AREA, AZIMUTH, POLARIZATION, SOLID_ANGLE, Q

__all__ = ["AzintBins", "BinTable", "shared_strips_of", "shares_of"]

Floats = npt.NDArray[np.float64]
FULL_TURN = 360.0
_NEARLY = 1e-9


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
    efficiency
        More numbers per pixel that pixels weigh by.
    values
        The quantity itself, where it is none of the geometry's.
    units
        Of the quantity.
    width
        Of the radial bins, in place of their number.
    split
        ``"no"``, ``"box"`` or ``"full"``: how pixels are shared among bins.
    places
        Boxes, regions and masks that pixels have to lie in.
    """

    bins: int | tuple[float, ...] = 500
    quantity: str = Q
    range: tuple[float, float] | None = None
    azimuth_bins: int | tuple[float, ...] | None = None
    mask: StaticMask | None = None
    solid_angle: bool = False
    polarization: tuple[float, float] | None = None
    efficiency: tuple[StaticValues, ...] = ()
    values: StaticValues | None = None
    units: str | None = None
    width: float | None = None
    split: str = "no"
    places: tuple[Place, ...] = ()

    @property
    def sectors(self) -> int:
        """Number of azimuthal bins."""
        around = self.azimuth_bins
        return 1 if around is None else around if isinstance(around, int) else len(around) - 1

    def azimuth_edges(self) -> Floats | None:
        """Borders of the azimuthal bins in degrees, or None where there is one bin without borders."""
        around = self.azimuth_bins
        if around is None:
            return None
        return np.linspace(-FULL_TURN / 2, FULL_TURN / 2, around + 1) if isinstance(around, int) else np.array(around)

    @property
    def weighs(self) -> bool:
        """Whether pixels of one bin weigh differently."""
        return self.solid_angle or self.polarization is not None or bool(self.efficiency)


class Segments(tuple[Any, ...]):
    """A table of each segment."""

    @property
    def nbytes(self) -> int:
        """Bytes of all."""
        return sum(table.nbytes for table in self)


Tabled = TypeVar("Tabled", npt.NDArray[Any], Segments, "Shares")


@dataclass(frozen=True)
class BinTable:
    """Bins on some frames; arrays are made on first use and shared by the process."""

    bins: AzintBins
    frames: Frames

    def edges(self) -> Floats:
        """Borders of the radial bins: (bin + 1,)."""
        return self._kept("edges", self._edges)

    @cached_property
    def shape(self) -> tuple[int, int]:
        """Azimuthal and radial bins."""
        return self.bins.sectors, self.edges().size - 1

    def index(self) -> npt.NDArray[np.integer[Any]]:
        """Bin of each pixel, azimuth first: (segment, pixel); the number of bins stands for none."""
        return self._kept("index", self._index)

    def strips(self) -> Segments:
        """Which neighbouring pixels of each segment have one bin."""
        return self._kept("strips", self._strips)

    def counts(self) -> npt.NDArray[Any]:
        """Pixels of each bin, and last of none: (bin + 1,); split ones by their shares."""
        if self.bins.split != "no":
            _, bins, share = shares_of(self)
            return self._kept("shared counts", lambda: np.bincount(bins, share, minlength=self._n + 1))
        return self._kept("counts", lambda: np.bincount(self.index().ravel(), minlength=self._n + 1))

    def weight(self) -> npt.NDArray[np.float32]:
        """What a pixel of full efficiency would read here, by the corrections asked for: (segment, pixel), or empty."""
        return self._kept("weight", self._weight)

    def norm(self) -> Floats:
        """Sum of the weights of each bin, and last of none: (bin + 1,)."""
        weight = self.weight()
        if not weight.size:
            return self.counts().astype(np.float64)
        if self.bins.split != "no":
            start, bins, share = shares_of(self)
            each = np.repeat(weight.ravel(), np.diff(start)).astype(np.float64) * share
            return self._kept("shared norm", lambda: np.bincount(bins, each, minlength=self._n + 1))
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

    def _kept(self, what: str, make: Callable[[], Tabled]) -> Tabled:
        """A table of these bins by its name, made once per process."""
        key: Hashable = ("azint", what, self.bins, self.frames.places)
        return CACHE.get(key, make)

    def _pixels(self, name: str, **named: float) -> Floats:
        """A quantity of the pixels of the frames: (segment, row, column)."""
        frames = self.frames
        if name == self.bins.quantity and self.bins.values is not None:
            return self.bins.values.on(frames)
        if frames.geometry is None:
            raise GeometryError(
                "azimuthal integration needs to know where the pixels are",
                found="frames without geometry",
                expected="the scalar coordinate 'geometry'",
                fix='.sd.assign_geometry(xs.open_geometry("geometry.data"))',
            )
        return frames.part.take(pixel_array(frames.geometry, frames.beam, name, **named))

    def _used(self, values: Floats) -> Floats:
        """Finite values of the pixels that mask and efficiency leave."""
        return values[np.isfinite(values) & self.use()]

    def use(self) -> npt.NDArray[np.bool_]:
        """Pixels that mask, places and efficiency leave: (segment, row, column)."""
        use = np.ones(self.frames.shape, dtype=bool) if self.bins.mask is None else self.bins.mask.on(self.frames)
        for place in self.bins.places:
            use = use & inside(place, self.frames)
        for given in self.bins.efficiency:
            values = given.on(self.frames)
            use = use & np.isfinite(values) & (values > 0)
        return use

    def _edges(self) -> Floats:
        bins, limits = self.bins.bins, self.bins.range
        if not isinstance(bins, int):
            return np.array(bins)
        if limits is None:
            values = self._used(self._pixels(self.bins.quantity))
            if self.bins.split != "no":
                corners = self.corners()[0][self.use().reshape(-1)]
                values = np.concatenate([values, corners[np.isfinite(corners)]])
            if not values.size:
                raise ParameterError(
                    "no pixel is left to integrate",
                    found="a mask, or an efficiency, that leaves out every pixel of the frames",
                    expected="a mask with True where a pixel may be used",
                    fix="azint(mask=~mask) if True meant a bad pixel",
                )
            low, high = values.min(), values.max()
            limits = (low, np.nextafter(high, np.inf) if high > low else low + 1e-6 * max(abs(low), 1.0))
        width = self.bins.width
        if width is None:
            return np.linspace(*limits, bins + 1)
        low, high = np.floor(limits[0] / width + _NEARLY), np.ceil(limits[1] / width - _NEARLY)
        check_number(int(high - low), "bins of this width")
        return np.asarray(np.arange(low, max(high, low + 1) + 1) * width)

    def _position(self) -> Floats:
        position = np.array(self._pixels(self.bins.quantity))
        position[~self.use()] = np.nan
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
        use = self.use()
        out = np.full((radial.shape[0], radial[0].size), n, dtype=np.uint16 if n < 1 << 16 else np.int32)
        edges, around = self.edges(), self.bins.azimuth_edges()
        for s in range(radial.shape[0]):
            where = _bin(radial[s].ravel(), edges)
            if azimuth is not None and around is not None:
                sector = _bin(_turned(azimuth[s].ravel(), around[0]), around)
                where = np.where((where < 0) | (sector < 0), -1, sector * self.shape[1] + where)
            where[~use[s].ravel()] = -1
            np.copyto(out[s], where, where=where >= 0, casting="unsafe")
        return out

    def _strips(self) -> Segments:
        from xsmall.kernels.azint import arrange

        return Segments(arrange(index, self._n) for index in self.index())

    def _weight(self) -> npt.NDArray[np.float32]:
        chosen = self.bins
        if not chosen.weighs:
            return np.empty((self.frames.shape[0], 0), dtype=np.float32)
        weight = np.ones(self.frames.shape)
        if chosen.solid_angle:
            seen, geometry, beam = self._pixels(SOLID_ANGLE), self.frames.geometry, self.frames.beam
            assert geometry is not None
            distance = geometry.distance if beam is None or beam.distance is None else beam.distance
            regular = np.nanmedian(pixel_array(geometry, None, AREA))  # of the detector: a part may hold wide ones only
            weight *= seen * (distance**2 / regular)
        if chosen.polarization is not None:
            plane, fraction = chosen.polarization
            weight *= self._pixels(POLARIZATION, plane=plane, fraction=fraction)
        for given in chosen.efficiency:
            weight *= np.where(self.use(), given.on(self.frames), 1.0)
        return weight.reshape(weight.shape[0], -1).astype(np.float32)

    def corners(self) -> tuple[Floats, Floats]:
        """Radial quantity and azimuth in degrees at the corners of all pixels, or of boxes around them: (pixel, 4).

        A box has the centre of the pixel in its middle and reaches as far as its farthest corner. NaN where a pixel
        has no place.
        """
        self._pixels(self.bins.quantity)  # raises where something is missing
        geometry, part = self.frames.geometry, self.frames.part
        assert geometry is not None
        found = []
        for name in (self.bins.quantity, AZIMUTH):
            corners = np.moveaxis(corner_array(geometry, self.frames.beam, name), -1, 0)
            found.append(np.stack([part.take(c).reshape(-1) for c in corners], axis=1))
        radial, azimuth = found
        if self.bins.split == "full":
            return radial, azimuth
        middle = [self._pixels(name).reshape(-1, 1) for name in (self.bins.quantity, AZIMUTH)]
        turned = (azimuth - middle[1] + FULL_TURN / 2) % FULL_TURN - FULL_TURN / 2
        reach = np.abs(radial - middle[0]).max(axis=1), np.abs(turned).max(axis=1)
        (low, high), (first, last) = ((m[:, 0] - r, m[:, 0] + r) for m, r in zip(middle, reach, strict=True))
        return np.stack([low, high, high, low], axis=1), np.stack([first, first, last, last], axis=1)


class Shares(NamedTuple):
    """Shares of the pixels in the bins, see :func:`xsmall.kernels.azint_split.share_out`."""

    start: npt.NDArray[np.int64]
    bins: npt.NDArray[np.int32]
    share: npt.NDArray[np.float32]

    @property
    def nbytes(self) -> int:
        """Bytes of all."""
        return sum(array.nbytes for array in self)


def shares_of(table: BinTable) -> Shares:
    """Shares of the pixels in the bins, made once per process."""
    return table._kept("shares", lambda: _bin_shares(table))


def shared_strips_of(table: BinTable) -> Segments:
    """What neighbouring pixels of each segment have in common, made once per process."""
    return table._kept("shared strips", lambda: _arranged_shares(table))


def _arranged_shares(table: BinTable) -> Segments:
    from xsmall.kernels.azint_split import arrange_shares

    start, bins, share = shares_of(table)
    segments, n = table.frames.shape[0], table.shape[0] * table.shape[1]
    pixels = (start.size - 1) // segments
    starts = [start[s * pixels : (s + 1) * pixels + 1] for s in range(segments)]
    return Segments(arrange_shares(of_segment, bins, share, n) for of_segment in starts)


def _bin_shares(table: BinTable) -> Shares:
    from xsmall.kernels.azint_split import share_out
    from xsmall.kernels.bins import first_bins

    radial, azimuth = table.corners()
    radial = np.where(table.use().reshape(-1, 1), radial, np.nan)
    center = np.stack([table._pixels(name).reshape(-1) for name in (table.bins.quantity, AZIMUTH)], axis=1)
    edges, around = table.edges(), table.bins.azimuth_edges()
    start = np.empty(len(radial) + 1, np.int64)
    where = (radial, azimuth, center, edges, first_bins(edges), np.empty(0) if around is None else around, start)
    bins, share = np.empty(0, np.int32), np.empty(0, np.float32)
    n = share_out(*where, bins, share)
    bins, share = np.empty(n, np.int32), np.empty(n, np.float32)
    share_out(*where, bins, share)
    return Shares(start, bins, share)


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
