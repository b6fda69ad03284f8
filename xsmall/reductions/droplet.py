"""Droplets: charge that photons leave in a few connected pixels, found with two thresholds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Final, Literal

import numpy as np
import numpy.typing as npt

from xsmall.calls import warn_user
from xsmall.detector.frames import Frames
from xsmall.detector.geometry.beam import Beam
from xsmall.detector.geometry.pixel import pixel_array
from xsmall.engine.asked import ask
from xsmall.engine.record import MANY, Output, Record, Reducer
from xsmall.errors import ParameterError
from xsmall.events.ragged import lists_of_counts
from xsmall.frames.per_pixel import StaticMask, StaticNoise
from xsmall.kernels.stack import flat_frames
from xsmall.reductions.arguments import whole_number
from xsmall.reductions.box import in_order
from xsmall.reductions.droplet_tables import (
    PLACES,
    between_pixels,
    check_places,
    per_noise,
    rising,
    sorted_part,
    words_of_mask,
)
from xsmall.reductions.threshold import Sigma, Threshold, check_noise, check_unit, number, thresholds_of
from xsmall.vocabulary import (
    COLUMN,
    DIMENSIONLESS,
    DROPLET,
    FIRST_PREFIX,
    IS_CUT,
    KILOELECTRONVOLT,
    LAST_PREFIX,
    MAX,
    N_DROPLETS,
    N_PIXELS,
    N_SEGMENTS,
    ROW,
    SAMPLE_DIMENSION,
    SEGMENT,
    SUM,
    TOUCHES,
    UNITS,
    UNITS_OF,
    VARIANCE_SUFFIX,
    Q,
)

__all__ = ["Droplet", "droplet"]

OUTLINE: Final = (f"{FIRST_PREFIX}{ROW}", f"{LAST_PREFIX}{ROW}", f"{FIRST_PREFIX}{COLUMN}", f"{LAST_PREFIX}{COLUMN}")
ALSO: Final = (MAX, *OUTLINE, TOUCHES, *PLACES)
"""What droplets can tell beside what they always tell."""
_FIRST_ROOM: Final = 4096
"""Droplets that the lists of a group have room for at first: a frame that does not fit is gone through again."""
BRIGHTEST: Final = 1000.0
"""keV of a pixel above which nobody looks for single photons: a threshold there was meant in eV."""


@ask
def droplet(
    threshold: float | Sigma,
    threshold_low: float | Sigma | None = None,
    *,
    noise: Any = None,
    mask: Any = None,
    neighbours: Literal[4, 8] = 4,
    grow: Literal["ring", "flood"] = "ring",
    sums: tuple[float, float] | None = None,
    sizes: tuple[int, int] | None = None,
    also: Sequence[str] = (),
    max_droplets: int | None = None,
) -> Droplet:
    """Find droplets: connected pixels above two thresholds.

    Parameters
    ----------
    threshold
        In the unit of the data, or ``xs.sigma(5)``: 5 times the noise of each pixel; pixels at or above it are seeds.
    threshold_low
        Of the same kind; the neighbours of a seed join it when they are at or above this. Without it only seeds count.
    noise
        For thresholds in sigma: standard deviation of each pixel without light (segment, row, column), in the unit of
        the data; or the constants themselves, of which ``noise / gain`` of the first gain stage is taken (keV). A
        DataArray is cut by its labels. Pixels whose noise is 0 or NaN are not used.
    mask
        Boolean (segment, row, column), True where a pixel may be used: a DataArray, cut by its labels, or an array of
        the shape of the frames.
    neighbours
        4: pixels that share an edge are neighbours; 8: those that share a corner too.
    grow
        ``"ring"``: the ring around the seeds is one pixel wide; ``"flood"``: all pixels at or above ``threshold_low``
        that are connected with a seed join.
    sums
        Keep droplets whose sum lies in (lowest, highest), in the unit of the data, both ends included.
    sizes
        Keep droplets whose number of pixels lies in (fewest, most), both included.
    also
        More properties: ``"max"`` (highest pixel); ``"first_row"``, ``"last_row"``, ``"first_column"``,
        ``"last_column"`` (the outline, as labels); ``"touches"`` (whether the droplet lies at the border of its segment
        or beside a pixel that is masked or not finite: part of its charge may be missing); and the place of the
        centroid as ``"x"``, ``"y"``, ``"z"``, ``"radius"`` (m), ``"two_theta"`` (degrees), ``"q"`` (1/angstrom), which
        need a geometry, and a beam.
    max_droplets
        Without it each event has a list of its own length. With it the lists are padded to this length; longer ones
        are cut, which ``is_cut`` says per event and a warning when it happens.

    Returns
    -------
    A record. ``n_droplets`` (event), int32, counts them, and ``n_segments`` (event), int32, the segments in which a
    pixel was valid: where there is none, nothing is known of droplets, and averages leave the event out. Lists per
    event: ``sum`` (dtype of the frames, unit of the data), ``n_pixels`` (int32), ``row`` and ``column`` (float64,
    centroid weighted by the pixels' values, in the labels of the detector), ``segment`` (int32, its label), and what
    ``also`` asks for, ordered by segment and first pixel.
    With variances also ``sum_variance`` and, to first order, ``row_variance`` and ``column_variance``.
    :func:`~xsmall.flatten` puts the lists behind each other, as files hold them. With ``max_droplets`` the variables
    are (event, droplet): beyond the count floats are NaN and integers -1, and ``is_cut`` (event) is True where
    droplets are missing from the list.

    Raises
    ------
    ParameterError
        Thresholds that are not positive, of two kinds or out of order, in sigma without noise; noise in another unit
        than the data; a maximum below 1; cuts out of order; an unknown property.
    DataError
        Frames with rows or columns left out, in which neighbours are none.
    GeometryError
        A place is asked for and there is no geometry.

    Notes
    -----
    Droplets do not cross segments. The noise is not taken from the variance of the data, in which that of counting
    photons would make every photon a small multiple of its own error. Variances hold for the pixels of a droplet as
    they were found: that thresholds favour high values is not in them, nor, for the centroid, where within a pixel a
    photon fell. Pixels that are NaN or masked are neither seeds nor members. Places are interpolated between the
    centres of pixels. Cost: little more than reading the frame as long as few pixels are above the threshold; some 30
    bytes per droplet.

    Examples
    --------
    >>> import xsmall as xs
    >>> sim = xs.simulate(4, shape=(2, 32, 64), seed=1)
    >>> cal = sim.run["jungfrau"]["raw"].sd.calibrate(sim.constants)
    >>> found = cal.sd.droplet(threshold=4.0, threshold_low=1.0, also=["max", "touches"])
    >>> [len(sums) for sums in found["sum"].values] == found["n_droplets"].values.tolist()
    True
    >>> cal.sd.droplet(threshold=4.0, max_droplets=100)["sum"].dims
    ('event', 'droplet')
    """
    high, low = thresholds_of(threshold, threshold_low)
    frozen, units = check_noise(noise, high)
    _one_of("neighbours", neighbours, (4, 8))
    _one_of("grow", grow, ("ring", "flood"))
    if grow == "flood" and threshold_low is None:
        raise ParameterError(
            "nothing is flooded without a lower threshold",
            found='grow="flood" with one threshold',
            expected="threshold_low, down to which pixels join",
            fix='droplet(4.0, threshold_low=1.0, grow="flood")',
        )
    for name in [also] if isinstance(also, str) else also:
        _one_of("also", name, ALSO)
    cuts = (*_cut_limits("sums", sums, -np.inf), *_cut_limits("sizes", sizes, 1.0))
    wanted = tuple(dict.fromkeys([also] if isinstance(also, str) else also))
    most = None if max_droplets is None else whole_number("max_droplets", max_droplets, "max_droplets=1000")
    how = (grow == "flood", neighbours == 8)
    return Droplet(high, low, most, StaticMask.of(mask), frozen, units, how, cuts, wanted)


def _one_of(what: str, value: object, allowed: tuple[object, ...]) -> None:
    if value not in allowed:
        raise ParameterError(f"invalid {what}", found=repr(value), expected=" or ".join(map(repr, allowed)))


def _cut_limits(what: str, limits: object, lowest: float) -> tuple[float, float]:
    """Check the limits of a cut; none keeps everything."""
    if limits is None:
        return lowest, np.inf
    try:
        low, high = (float(v) for v in limits)  # type: ignore[attr-defined]
    except (TypeError, ValueError):
        low, high = np.nan, np.nan
    if not low <= high:
        raise ParameterError(
            f"invalid {what}",
            found=repr(limits),
            expected="(lowest, highest), in order",
            fix=f"droplet(..., {what}=(2, 12))",
        )
    return low, high


@dataclass(frozen=True)
class Droplet(Record):
    """Thresholds, cuts, mask and what is listed; made by :func:`droplet`."""

    name: ClassVar[str] = "droplet"

    threshold: Threshold
    threshold_low: Threshold
    max_droplets: int | None = None
    mask: StaticMask | None = None
    noise: StaticNoise | None = None
    noise_units: str | None = None
    how: tuple[bool, bool] = (False, False)
    """(flood, diagonal)."""
    cuts: tuple[float, float, float, float] = (-np.inf, np.inf, 1.0, np.inf)
    """Lowest and highest sum, fewest and most pixels."""
    also: tuple[str, ...] = ()

    def outputs(self, frames: Frames) -> Mapping[str, Output]:
        """Describe the count and the lists of droplets."""
        for dim, labels in ((ROW, frames.row), (COLUMN, frames.column)):
            in_order(labels, dim, "droplet")
        if self.mask is not None:
            self.mask.on(frames)
        if self.noise is not None:
            check_unit(self.noise_units, frames)
            self.noise.on(frames)
        elif frames.units is None:
            warn_user(
                f"the frames do not say their unit: threshold={number(self.threshold)} is taken in whatever they are. "
                'Calibrate them, or say it: .assign_attrs(units="ADU")',
            )
        elif frames.units == KILOELECTRONVOLT and number(self.threshold) > BRIGHTEST:
            warn_user(
                f"threshold={number(self.threshold)} keV finds no single photons: 4.75 keV is 4.75, not 4750",
            )
        check_places("droplets", self.also, frames)
        listed = self._listed(frames)
        padded = self.max_droplets is not None
        count = {UNITS: DIMENSIONLESS} if padded else {UNITS: DIMENSIONLESS, SAMPLE_DIMENSION: DROPLET}
        whole = np.dtype(np.int32)
        out = {N_DROPLETS: Output((), (), whole, count), N_SEGMENTS: Output((), (), whole, {UNITS: DIMENSIONLESS})}
        for name, (dtype, attrs) in listed.items():
            held = _padded(dtype) if padded else dtype
            out[name] = Output((DROPLET,), (self.max_droplets,), held, attrs)
        if padded:
            out[IS_CUT] = Output((), (), np.dtype(bool), {})
        return out

    def _listed(self, frames: Frames) -> dict[str, tuple[np.dtype[Any], dict[str, str]]]:
        """Dtype and attributes of each list."""
        real, whole, double = frames.dtype, np.dtype(np.int32), np.dtype(np.float64)
        units = {} if frames.units is None else {UNITS: frames.units}
        squared = {} if frames.units is None else {UNITS: f"({frames.units})2"}
        none = {UNITS: DIMENSIONLESS}
        out = {SUM: (real, units), N_PIXELS: (whole, none), ROW: (double, none), COLUMN: (double, none)}
        out[SEGMENT] = (whole, none)
        known = {MAX: (real, units), TOUCHES: (np.dtype(bool), {}), **dict.fromkeys(OUTLINE, (whole, none))}
        known |= {place: (double, {UNITS: UNITS_OF[place]}) for place in PLACES}
        out |= {name: known[name] for name in self.also}
        if frames.variance:
            out |= {f"{SUM}{VARIANCE_SUFFIX}": (real, squared)}
            out |= {f"{v}{VARIANCE_SUFFIX}": (double, none) for v in (ROW, COLUMN)}
        return out

    def reducer(self, frames: Frames) -> Reducer:
        """Make the reducer."""
        return DropletReducer(self, frames)


class DropletReducer(Reducer):
    """Gathers the droplets of a group of events, segment by segment, and hands them out event by event."""

    most_together = MANY

    def __init__(self, record: Droplet, frames: Frames) -> None:
        from xsmall.kernels.droplet import Workspace, find_valid, list_droplets

        self._list, self._find_valid = list_droplets, find_valid
        self._order = rising(frames.part)
        given, frames = frames, replace(frames, part=sorted_part(frames.part))
        self._record, self._frames = record, frames
        self._dtypes = {name: dtype for name, (dtype, _) in record._listed(frames).items()}
        self._use = words_of_mask(record.mask, given)
        real = frames.dtype.type
        levels = number(record.threshold), number(record.threshold_low)
        self._thresholds = (real(levels[0]), real(levels[1]), np.finfo(frames.dtype).max)
        self._details = any(name not in PLACES for name in record.also)
        self._how = tuple(True if wanted else None for wanted in (*record.how, self._details))
        self._per_noise = per_noise(record.noise, given)
        self._work = Workspace(*frames.shape[1:], variance=frames.variance).arrays
        self._origin = (float(frames.row[0]), float(frames.column[0]), 1.0, 1.0)
        self._out = self._room(_FIRST_ROOM)

    def _room(self, n: int) -> tuple[npt.NDArray[Any], ...]:
        """Lists with room for ``n`` droplets; see :func:`xsmall.kernels.droplet.list_droplets`."""
        from xsmall.kernels.droplet import DETAILS

        real, details, variances = self._frames.dtype, n if self._details else 0, n if self._frames.variance else 0
        return (
            np.empty(n, real), np.empty(n, np.int32), np.empty(n), np.empty(n), np.empty(n, np.int32),
            np.empty(details, real), np.empty((details, DETAILS), np.int32),
            np.empty(variances, real), np.empty(variances), np.empty(variances),
        )  # fmt: skip

    def begin(self, k: int) -> None:
        """Start a group of ``k`` events with empty lists."""
        self._borders = np.zeros((self._frames.shape[0], k + 1), dtype=np.int64)
        self._is_valid = np.zeros((self._frames.shape[0], k), dtype=bool)

    def add(
        self,
        s: int,
        frames: npt.NDArray[np.floating[Any]],
        variance: npt.NDArray[np.floating[Any]] | None = None,
    ) -> None:
        """Append the droplets of segment ``s``."""
        place = (self._frames.segment[s], *self._origin)
        if self._order is not None:  # neighbours in the array are to be neighbours on the detector
            frames = frames[self._order]
            variance = None if variance is None else variance[self._order]
        stack, shape, borders = flat_frames(frames), frames.shape[1:], self._borders[s]
        per_noise = None if self._per_noise is None else self._per_noise[s]
        borders[0] = self._borders[s - 1, -1] if s else 0
        j, use, cuts = 0, self._use[s], self._record.cuts
        self._find_valid(stack, shape, use, self._is_valid[s])
        while True:
            j, more = self._list(
                stack, shape, per_noise, variance, use, self._thresholds, self._how, self._work, place, cuts, borders,
                j, self._out,
            )  # fmt: skip
            if j == len(frames):
                return
            wider = self._room(2 * int(borders[j] + more))
            for old, new in zip(self._out, wider, strict=True):
                new[: min(borders[j], len(old))] = old[: borders[j]]
            self._out = wider

    def _gathered(self) -> tuple[tuple[npt.NDArray[Any], ...], npt.NDArray[np.int64]]:
        """The lists event after event, the segments of each in order; and how long they are."""
        length = np.diff(self._borders, axis=1).T  # (event, segment)
        stop = int(self._borders[-1, -1])
        if len(self._borders) == 1:  # they are in order
            if 2 * stop < self._out[0].size:
                return tuple(v[:stop].copy() for v in self._out), length.sum(axis=1)
            out, self._out = self._out, self._room(self._out[0].size)
            return tuple(v[:stop] for v in out), length.sum(axis=1)
        shift = self._borders[:, :-1].T.ravel() - (np.cumsum(length) - length.ravel())
        order = np.arange(stop) + np.repeat(shift, length.ravel())
        return tuple(v[order] if len(v) else v for v in self._out), length.sum(axis=1)

    def end(self) -> Mapping[str, npt.NDArray[Any]]:
        """Hand out the lists of each event, its segments in order."""
        (total, size, row, column, segment, highest, extent, *variances), n = self._gathered()
        flat = {SUM: total, N_PIXELS: size, ROW: row, COLUMN: column, SEGMENT: segment, MAX: highest}
        for i, name in enumerate((*OUTLINE, TOUCHES)):
            if name in self._dtypes:
                flat[name] = extent[:, i]
        for i, name in enumerate(OUTLINE):
            if name in flat:
                start, step = self._origin[i // 2], self._origin[2 + i // 2]
                flat[name] = start + step * flat[name]
        flat |= {f"{name}{VARIANCE_SUFFIX}": v for name, v in zip((SUM, ROW, COLUMN), variances, strict=True)}
        flat |= self._places(flat, n)
        return self._listed({name: flat[name].astype(t, copy=False) for name, t in self._dtypes.items()}, n)

    def _places(self, flat: Mapping[str, npt.NDArray[Any]], n: npt.NDArray[np.int64]) -> dict[str, npt.NDArray[Any]]:
        """Where the centroids lie in space, interpolated between the centres of pixels."""
        frames, out = self._frames, {}
        for name in set(self._record.also) & set(PLACES):
            assert frames.geometry is not None
            whole = pixel_array(frames.geometry, frames.beam or Beam(), name)
            out[name] = between_pixels(whole, flat[SEGMENT], flat[ROW], flat[COLUMN])
            if name == Q and self.energy is not None:
                mean = frames.beam.photon_energy if frames.beam is not None else None
                out[name] *= np.repeat(self.energy / np.float64(mean), n)
        return out

    def _listed(self, flat: dict[str, npt.NDArray[Any]], n: npt.NDArray[np.int64]) -> dict[str, npt.NDArray[Any]]:
        """Lists per event, or padded ones where a length was asked for."""
        n_segments = self._is_valid.sum(axis=0, dtype=np.int32)
        most, counts = self._record.max_droplets, {N_DROPLETS: n.astype(np.int32), N_SEGMENTS: n_segments}
        if most is None:
            return counts | {name: lists_of_counts(v, n) for name, v in flat.items()}
        borders = np.cumsum(n)
        listed = np.arange(most) < n[:, None]
        source = ((borders - n)[:, None] + np.arange(most))[listed]
        out: dict[str, npt.NDArray[Any]] = {}
        for name, v in flat.items():
            out[name] = np.full(listed.shape, np.nan if v.dtype.kind == "f" else -1, dtype=_padded(v.dtype))
            out[name][listed] = v[source]
        cut = n > most
        if cut.any():
            warn_user(
                f"lists of droplets are cut at max_droplets={most}: events with up to {n.max()} droplets; is_cut tells "
                "which. Leave max_droplets out to keep all.",
            )
        return counts | out | {IS_CUT: cut}


def _padded(dtype: np.dtype[Any]) -> np.dtype[Any]:
    """A dtype that can say that there is nothing: -1 for truth values too."""
    return np.dtype(np.int8) if dtype.kind == "b" else dtype
