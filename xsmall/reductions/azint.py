"""Azimuthal integration: mean intensity in bins of q, angle, radius or any other quantity, and of azimuth if wanted."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar, Final

import numpy as np
import numpy.typing as npt
import xarray as xr

from xsmall.detector.frames import Frames
from xsmall.engine.asked import ask
from xsmall.engine.record import Output, Record, Reducer
from xsmall.errors import ParameterError, alike
from xsmall.frames.per_pixel import StaticMask, StaticValues
from xsmall.reductions.azint_energy import EnergyAzintReducer
from xsmall.reductions.azint_reducers import AzintReducer, RingsReducer, RingStatistic, SharesReducer
from xsmall.reductions.azint_table import FULL_TURN, AzintBins, BinTable
from xsmall.reductions.chain import in_regions
from xsmall.reductions.edges import as_bins, as_range, labels_of_bins
from xsmall.reductions.filters import filtered, static_mask
from xsmall.reductions.normalize import normalized
from xsmall.reductions.region import Place
from xsmall.reductions.roi import Roi
from xsmall.vocabulary import (
    AZIMUTH,
    DEGREE,
    DIMENSIONLESS,
    INTENSITY,
    MEAN,
    MEDIAN,
    N_VALID,
    NORM,
    RADIUS,
    SUM,
    TWO_THETA,
    UNITS,
    UNITS_OF,
    VARIANCE_SUFFIX,
    WITHOUT_ENERGY,
    Q,
    X,
    Y,
    Z,
)

__all__ = ["Azint", "azint", "azint_bins", "polarization_of"]

QUANTITIES: Final = (Q, TWO_THETA, RADIUS, X, Y, Z, AZIMUTH)
SPLITS: Final = ("no", "box", "full")
NUMBER_OF_BINS: Final = 500
"""Bins where nothing is said."""


@ask
def azint(
    bins: int | Sequence[float] | npt.NDArray[Any] | None = None,
    *,
    quantity: str | xr.DataArray = Q,
    range: tuple[float, float] | None = None,  # noqa: A002 the word of numpy.histogram
    width: float | None = None,
    azimuth_bins: int | Sequence[float] | npt.NDArray[Any] | None = None,
    split: str = "no",
    statistic: str = MEAN,
    clip: float | None = None,
    mask: Any = None,
    threshold: Any = None,
    noise: Any = None,
    solid_angle: bool = False,
    polarization_plane: float | None = None,
    polarization_fraction: float | None = None,
    efficiency: Any = (),
    i0: xr.DataArray | None = None,
    norm: bool = False,
) -> Record:
    """Average the pixels in rings around the beam.

    Parameters
    ----------
    bins
        Number of bins, or their edges in the unit of ``quantity``; 500 where neither this nor ``width`` is given. Bins
        are closed left and open right.
    quantity
        ``"q"`` (1/angstrom), ``"two_theta"``, ``"azimuth"`` (degrees), ``"radius"``, ``"x"``, ``"y"``, ``"z"`` (m); or
        any number for each pixel, a DataArray (segment, row, column) whose name is that of the dim. Where
        ``photon_energy`` is a coordinate of the events, each event is binned by its own q.
    range
        (low, high) of the bins where ``bins`` is a number; without it what the unmasked pixels span.
    width
        Of the bins, in place of their number: edges are multiples of it.
    azimuth_bins
        Number of sectors of the full turn from -180 degrees, or their edges in degrees (a turn at most, they may pass
        180); without it one sector.
    split
        How a pixel that reaches over several bins is shared among them: ``"no"``, the one that holds its centre takes
        it; ``"full"``, by the area that its corners span in the plane of quantity and azimuth; ``"box"``, by that of
        a box about the centre that reaches as far as the farthest corner. The last two are pyFAI's pixel splittings.
    statistic
        ``"mean"``; ``"sum"`` of the signal, without corrections; or ``"median"``.
    clip
        Take pixels out of the mean that lie more than this many standard deviations of their bin from it, up to five
        times, as pyFAI's ``sigma_clip`` does.
    mask
        Boolean (segment, row, column), True where a pixel may be used: a DataArray, cut by its labels, or an array of
        the shape of the frames. A DataArray (event, segment, row, column) is a mask for each event.
    threshold, noise
        Lowest value that counts, or (lowest, highest), as in :func:`~xsmall.roi`: what is below counts as 0.
    solid_angle
        Correct for the solid angle of a pixel, relative to that of a pixel that faces the sample at the distance of
        the detector.
    polarization_plane, polarization_fraction
        Correct for polarization: direction of the electric field in degrees from +x towards +y, and the fraction
        polarized along it. There is no default plane.
    efficiency
        A number for each pixel (segment, row, column) that its signal is proportional to, or several: a flat field,
        absorption in a sensor or a window. Pixels where it is not above 0 are not used.
    i0
        Of each event (event,), such as the pulse energy: intensities are divided by it; NaN where it is not above 0.
    norm
        Return the sum of the weights too, by which results can be merged, see :func:`~xsmall.merge_azint`.

    Returns
    -------
    A record. Its variables over (event, quantity), or (event, azimuth, quantity): ``intensity`` (float64, unit of the
    data), NaN where no pixel is valid, and ``n_valid`` (int32; float64 of split pixels), their number. With variances
    also ``intensity_variance``, with ``norm`` also ``norm`` (float64). Where each event has its own q also
    ``without_energy`` (event): its photon energy is not known, and it has no valid pixel. Coordinates: bin centres, and
    ``<quantity>_bounds`` with the edges.

    Raises
    ------
    GeometryError, ParameterError
        No geometry, a beam without what the quantity needs, edges that do not rise, bins that cover no pixel; options
        that do not go together.

    See Also
    --------
    roi : ``xs.roi(places) | xs.azint(...)`` integrates in each of several regions.

    Notes
    -----
    With corrections the mean is sum(signal) / sum(efficiency), efficiency being the product of the relative solid
    angle, the polarization factor and the given ones of each valid pixel: the maximum-likelihood mean of counts, which
    is also what pyFAI computes; its variance is sum(variance of the signal) / sum(efficiency)^2. Shares enter both sums
    as factors, and squared that of variances. Tables take 2 bytes per pixel (4 from 65536 bins on, 4 more with
    corrections, some 20 where pixels are split), are made on first use and kept per process. Cost: about that of
    reading the frame twice; three times as much where pixels are split, ten and more for medians.

    Examples
    --------
    >>> import xsmall as xs
    >>> sim = xs.simulate(4, shape=(2, 32, 64), seed=1)
    >>> cal = sim.run["jungfrau"]["raw"].sd.calibrate(sim.constants)
    >>> det = cal.sd.assign_geometry(sim.geometry).sd.assign_beam(photon_energy=9500, distance=0.1)
    >>> det.sd.azint(bins=50)["intensity"].dims
    ('event', 'q')
    >>> i0 = sim.run["events"]["i0"]
    >>> det.sd.azint(width=0.01, split="full", solid_angle=True, i0=i0)["intensity"].dims
    ('event', 'q')
    """
    fixed, of_events = static_mask(mask)
    polarization = polarization_of(polarization_plane, polarization_fraction)
    chosen = azint_bins(
        bins, quantity, range, width, azimuth_bins, split=split, mask=fixed, efficiency=efficiency,
        solid_angle=bool(solid_angle), polarization=polarization,
    )  # fmt: skip
    kind = _ring_statistic(chosen, statistic, clip, bool(norm))
    record = normalized(Azint(chosen, kind), i0, (INTENSITY,))
    return filtered(record, threshold, noise, of_events)


def azint_bins(
    bins: Any, quantity: Any, limits: Any, width: Any, azimuth_bins: Any, *, split: str, efficiency: Any,
    usual: int = NUMBER_OF_BINS, **more: Any,
) -> AzintBins:  # fmt: skip
    """Check which pixels go to which bin."""
    values, units, name = None, None, quantity
    if isinstance(quantity, xr.DataArray):
        values, units, name = StaticValues.of(quantity), quantity.attrs.get(UNITS), quantity.name
    if not isinstance(name, str) or (values is None and name not in QUANTITIES):
        near = alike(name, QUANTITIES) if isinstance(name, str) else []
        raise ParameterError(
            "pixels cannot be binned by this",
            found=repr(name)[:80] if values is None else "a DataArray without a name",
            expected=f"one of {QUANTITIES}, or a DataArray (segment, row, column) with a name",
            fix=f"quantity={near[0]!r}" if near else 'quantity=cal.sd.pixel("q").rename("my_q")',
        )
    radial = as_bins(usual if bins is None else bins, "bins")
    if width is not None:
        if isinstance(width, bool) or not isinstance(width, int | float | np.number) or not 0 < width < np.inf:
            raise ParameterError("invalid width of bins", found=repr(width), expected="a number above 0")
        if not isinstance(radial, int):
            raise ParameterError("width and edges at once", fix="leave width out: edges say it already")
        if bins is not None:
            raise ParameterError(
                "width and number of bins at once",
                found=f"bins={bins}, width={width}",
                expected="one of them",
                fix=f"width={width}, with a range where its ends matter",
            )
    if limits is not None:
        if not isinstance(radial, int):
            raise ParameterError("range and edges at once", fix="leave range out: edges say it already")
        limits = as_range(limits)
    around = None if azimuth_bins is None else as_bins(azimuth_bins, "azimuth_bins")
    if isinstance(around, tuple) and around[-1] - around[0] > FULL_TURN * (1 + 1e-12):
        raise ParameterError("azimuth_bins of more than a turn", found=f"{around[0]} to {around[-1]} degrees")
    if split not in SPLITS:
        meant = next(iter(alike(str(split), SPLITS)), "full")
        raise ParameterError(
            "unknown splitting of pixels", found=repr(split), expected=f"one of {SPLITS}", fix=f'split="{meant}"'
        )
    if split != "no" and (values is not None or name == AZIMUTH):
        raise ParameterError(
            "invalid splitting of pixels",
            found=f"split={split!r}, quantity={name!r}",
            expected="a quantity of the geometry other than azimuth where pixels are split",
            fix='split="no", or quantity="q"',
        )
    given = efficiency if isinstance(efficiency, tuple | list) else (efficiency,)
    factors = tuple(StaticValues.of(f) for f in given)
    wide = None if width is None else float(width)
    return AzintBins(radial, name, limits, around, efficiency=factors, values=values, units=units, width=wide,
                     split=split, **more)  # fmt: skip


def polarization_of(plane: float | None, fraction: float | None) -> tuple[float, float] | None:
    if (plane is None) != (fraction is None):
        raise ParameterError(
            "polarization needs its plane and its fraction",
            found=f"plane {plane}, fraction {fraction}",
            fix="polarization_plane=0, polarization_fraction=0.99: field along x",
        )
    if plane is None or fraction is None:
        return None
    if not 0 <= fraction <= 1:
        raise ParameterError("fraction of polarization", found=fraction, expected="0 to 1")
    return float(plane), float(fraction)


def _ring_statistic(bins: AzintBins, statistic: str, clip: Any, norm: bool) -> RingStatistic:
    if statistic not in (MEAN, SUM, MEDIAN):
        raise ParameterError("statistic of azint", found=repr(statistic), expected=f"{MEAN!r}, {SUM!r} or {MEDIAN!r}")
    if clip is not None and not (isinstance(clip, int | float | np.number) and clip > 0 and statistic == MEAN):
        raise ParameterError(
            "invalid clip", found=f"clip={clip!r}, statistic={statistic!r}", expected="a number above 0, of the mean"
        )
    if statistic == SUM and bins.weighs:
        raise ParameterError(
            "a sum has no corrections",
            found="statistic='sum' with solid_angle, polarization or efficiency",
            expected="the mean with corrections, which are divided by",
            fix="statistic='mean', norm=True: their product is the sum of the signal",
        )
    kind = RingStatistic(statistic, None if clip is None else float(clip), norm=norm)
    if kind.needs_rings and (bins.split != "no" or (norm and statistic == MEDIAN)):
        raise ParameterError(
            "medians and clipped means are of whole pixels",
            found=f"split={bins.split!r}, norm={norm}",
            fix="split='no', norm=False",
        )
    return kind


@dataclass(frozen=True)
class Azint(Record):
    """Bins with mask and corrections, and what is told of them; made by :func:`azint`."""

    name: ClassVar[str] = "azint"

    bins: AzintBins
    kind: RingStatistic = field(default_factory=RingStatistic)

    def after(self, first: Record) -> Record:
        """Integrate in each region of ``xs.roi``."""
        return in_regions(first, self) if isinstance(first, Roi) else super().after(first)

    def within(self, place: Place, masks: tuple[StaticMask, ...]) -> Azint:
        """The integral of a place, with further masks."""
        return replace(self, bins=replace(self.bins, places=(*self.bins.places, place, *masks)))

    def outputs(self, frames: Frames) -> Mapping[str, Output]:
        """Describe intensity and n_valid over the bins."""
        table = BinTable(self.bins, frames)
        table.check()
        own_q = self._own_q(frames)
        if own_q and (self.bins.split != "no" or self.kind.needs_rings):
            raise ParameterError(
                "each event has a q of its own, which is for whole pixels and means",
                found=f"split={self.bins.split!r}, statistic={self.kind.statistic!r}, clip={self.kind.clip}",
                expected="split='no' without clip, or one photon energy",
                fix='quantity="two_theta", or .sd.assign_beam(photon_energy=9500)',
            )
        if frames.variance and self.kind.needs_rings:
            raise ParameterError(
                "medians and clipped means have no propagated variance",
                found="frames with variance",
                fix='the values alone: obj["calibrated"].sd.azint(...)',
            )
        several = self.bins.azimuth_bins is not None
        dims = (AZIMUTH, self.bins.quantity) if several else (self.bins.quantity,)
        shape = table.shape if several else table.shape[1:]
        units = {} if frames.units is None else {UNITS: frames.units}
        double, none = np.dtype(np.float64), {UNITS: DIMENSIONLESS}
        count = np.dtype(np.int32) if self.bins.split == "no" else double
        out = {INTENSITY: Output(dims, shape, double, units), N_VALID: Output(dims, shape, count, none)}
        if self.kind.norm:
            out[NORM] = Output(dims, shape, double, none)
        if frames.variance:
            squared = {} if frames.units is None else {UNITS: f"({frames.units})2"}
            out[f"{INTENSITY}{VARIANCE_SUFFIX}"] = Output(dims, shape, double, squared)
        if own_q:
            out[WITHOUT_ENERGY] = Output((), (), np.dtype(bool))
        return out

    def _own_q(self, frames: Frames) -> bool:
        return frames.energy_varies and self.bins.quantity == Q and self.bins.values is None

    def coords(self, frames: Frames) -> Mapping[str, xr.Variable]:
        """Centres and edges of the bins."""
        table = BinTable(self.bins, frames)
        units = self.bins.units if self.bins.values is not None else UNITS_OF[self.bins.quantity]
        out = labels_of_bins(self.bins.quantity, table.edges(), units)
        around = self.bins.azimuth_edges()
        return out if around is None else {**labels_of_bins(AZIMUTH, around, DEGREE), **out}

    def reducer(self, frames: Frames) -> Reducer:
        """Make the reducer, and the tables where they are not yet there."""
        table = BinTable(self.bins, frames)
        if self._own_q(frames):
            return EnergyAzintReducer(table, self.kind)
        if self.kind.needs_rings:
            return RingsReducer(table, self.kind, frames)
        return AzintReducer(table, self.kind) if self.bins.split == "no" else SharesReducer(table, self.kind)
