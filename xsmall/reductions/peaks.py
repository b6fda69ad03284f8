"""Peaks of crystals and others on a background, and whether an event is a hit: the rule of peakfinder8."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Final, Literal

import numpy as np
import numpy.typing as npt

from xsmall.detector.cache import CACHE
from xsmall.detector.frames import Frames
from xsmall.detector.geometry.beam import Beam
from xsmall.detector.geometry.pixel import pixel_array
from xsmall.engine.record import Output, Record, Reducer
from xsmall.errors import GeometryError, ParameterError
from xsmall.events.ragged import lists_of_counts
from xsmall.frames.per_pixel import StaticMask
from xsmall.reductions.arguments import one_of, real_number, whole_number
from xsmall.reductions.box import in_order
from xsmall.reductions.droplet_tables import PLACES, between_pixels, check_places, rising, sorted_part
from xsmall.reductions.filters import filtered, static_mask
from xsmall.vocabulary import (
    BACKGROUND,
    BACKGROUND_NOISE,
    COLUMN,
    DIMENSIONLESS,
    IS_HIT,
    MAX,
    N_PEAKS,
    N_PIXELS,
    PEAK,
    RADIUS,
    ROW,
    SAMPLE_DIMENSION,
    SEGMENT,
    SNR,
    SUM,
    UNITS,
    UNITS_OF,
    Q,
)

__all__ = ["Peaks", "peaks"]

_RADIAL, _SEGMENT = "radial", "segment"
_MEASURED: Final = (SUM, MAX, N_PIXELS, ROW, COLUMN, BACKGROUND, BACKGROUND_NOISE, SNR)
_FIX: Final = "xs.peaks(threshold=20, snr=5, sizes=(2, 200))"


def peaks(
    threshold: float = 0.0,
    *,
    snr: float = 5.0,
    sizes: tuple[int, int] = (2, 200),
    background_radius: int = 3,
    background: Literal["radial", "segment"] = "radial",
    tile: tuple[int, int] | None = None,
    hit: int | None = None,
    mask: Any = None,
    also: Sequence[str] = (),
) -> Record:
    """Find peaks on a background that changes with the distance from the beam: the rule of peakfinder8.

    Parameters
    ----------
    threshold
        Value that pixels of a peak exceed, in the unit of the data.
    snr
        Signal-to-noise ratio: pixels exceed so many standard deviations above the mean of their ring, and the sum of a
        peak is at least so many times the noise around it.
    sizes
        Fewest and most pixels of a peak.
    background_radius
        The local background is taken up to twice so many pixels from the centre of a peak.
    background
        ``"radial"``: rings one pixel wide around the beam, which needs a geometry; ``"segment"``: one mean and noise
        for each segment, for flat backgrounds.
    tile
        Rows and columns of tiles, such as ASICs, that peaks and their background do not cross; without it segments. A
        peak has at least one pixel that is not at the border of its tile.
    hit
        Number of peaks from which on an event is a hit, which ``is_hit`` then says.
    mask
        Boolean (segment, row, column), or of each event, as in :func:`~xsmall.roi`.
    also
        The place of the centroid as ``"x"``, ``"y"``, ``"z"``, ``"radius"`` (m), ``"two_theta"`` (degrees), ``"q"``
        (1/angstrom), which need a geometry, and a beam.

    Returns
    -------
    A record. ``n_peaks`` (event), int32, and with ``hit`` ``is_hit`` (event), bool. Lists per event over ``peak``:
    ``sum`` above the local background and ``max``, the highest pixel above it, in the unit of the data; ``n_pixels``
    (int32); ``row``, ``column``, centroid in the labels of the detector, and ``segment`` (int32); ``background`` and
    ``background_noise``, mean and standard deviation around the peak; ``snr``, sum over noise; and what ``also`` asks
    for; all others float64, ordered by segment, tile and first pixel.

    Raises
    ------
    ParameterError
        Numbers out of order, an unknown property.
    DataError
        Frames with rows or columns left out, in which neighbours are none.
    GeometryError
        Rings, or a place, and no geometry.

    Notes
    -----
    Mean and spread of each ring are found in five rounds, each without the pixels beyond ``snr`` spreads of the round
    before. Pixels above the threshold of their ring that touch by edge or corner are one peak; it is kept where its
    highest pixel exceeds all background pixels around it. The centroid is weighted by the pixels' values. Lists are
    those of peakfinder8 (A. Barty et al., J. Appl. Cryst. 47 (2014) 1118) to the rounding of its float32 sums, but for
    a peak without any background around it: there the ring's stands in. A ring in which peaks hold many of its pixels,
    close to the beam, hides them, as in any program of this rule. Pixels that are NaN or masked are neither in a
    peak nor in a background. Cost: some 30 ns per pixel, most of it for the rings.

    Examples
    --------
    >>> import xsmall as xs
    >>> sim = xs.simulate(4, shape=(2, 32, 64), seed=1)
    >>> cal = sim.run["jungfrau"]["raw"].sd.calibrate(sim.constants).sd.assign_geometry(sim.geometry)
    >>> found = cal.sd.peaks(threshold=5.0, snr=4.0, sizes=(1, 20), hit=3)
    >>> [len(sums) for sums in found["sum"].values] == found["n_peaks"].values.tolist()
    True
    """
    floor = real_number("threshold", threshold, "a number in the unit of the data", _FIX)
    ratio = real_number("snr", snr, "a number above 0", _FIX, above=0.0)
    one_of("background", background, (_RADIAL, _SEGMENT))
    fewest, most = _two_integers("sizes", sizes)
    if fewest > most:
        raise ParameterError("sizes out of order", found=repr(sizes), expected="(fewest, most)", fix=_FIX)
    cut = None if tile is None else _two_integers("tile", tile)
    wanted = tuple(dict.fromkeys([also] if isinstance(also, str) else also))
    for name in wanted:
        one_of("also", name, PLACES)
    reach = 2 * whole_number("background_radius", background_radius, _FIX)
    enough = None if hit is None else whole_number("hit", hit, _FIX)
    fixed, of_events = static_mask(mask)
    made = Peaks(floor, ratio, (fewest, most), reach, background == _RADIAL, cut, enough, fixed, wanted)
    return filtered(made, mask=of_events)


def _two_integers(what: str, values: object) -> tuple[int, int]:
    pair = tuple(values) if isinstance(values, Sequence) and not isinstance(values, str) else ()
    if len(pair) != 2:
        raise ParameterError(f"invalid {what}", found=repr(values), expected="two integers", fix=_FIX)
    return whole_number(what, pair[0], _FIX), whole_number(what, pair[1], _FIX)


@dataclass(frozen=True)
class Peaks(Record):
    """Thresholds, sizes, background and mask; made by :func:`peaks`."""

    name: ClassVar[str] = "peaks"

    threshold: float
    snr: float
    sizes: tuple[int, int]
    reach: int
    radial: bool
    tile: tuple[int, int] | None = None
    hit: int | None = None
    mask: StaticMask | None = None
    also: tuple[str, ...] = ()

    def outputs(self, frames: Frames) -> Mapping[str, Output]:
        """Describe the count, whether it is a hit, and the lists."""
        for dim, labels in ((ROW, frames.row), (COLUMN, frames.column)):
            in_order(labels, dim, "peaks")
        if self.mask is not None:
            self.mask.on(frames)
        if self.radial and frames.geometry is None:
            raise GeometryError(
                "there are no rings without a geometry",
                found="frames without geometry",
                expected='frames that know where their pixels are, or background="segment"',
                fix='.sd.assign_geometry(xs.Geometry.from_psana("geometry.data"))',
            )
        check_places("peaks", self.also, frames)
        count = {UNITS: DIMENSIONLESS, SAMPLE_DIMENSION: PEAK}
        out = {N_PEAKS: Output((), (), np.dtype(np.int32), count)}
        if self.hit is not None:
            out[IS_HIT] = Output((), (), np.dtype(bool), {})
        units = {} if frames.units is None else {UNITS: frames.units}
        of_data = (SUM, MAX, BACKGROUND, BACKGROUND_NOISE)
        for name in (*_MEASURED, SEGMENT, *self.also):
            dtype = np.dtype(np.int32 if name in (N_PIXELS, SEGMENT) else np.float64)
            attrs = units if name in of_data else {UNITS: UNITS_OF.get(name, DIMENSIONLESS)}
            out[name] = Output((PEAK,), (None,), dtype, attrs)
        return out

    def reducer(self, frames: Frames) -> Reducer:
        """Make the reducer."""
        return PeaksReducer(self, frames)

    def rings(self, frames: Frames) -> npt.NDArray[np.int32]:
        """Number of each pixel's ring (segment, row, column), -1 for those that are masked; made once per process."""
        return CACHE.get(("peak rings", self.radial, self.mask, frames.places), lambda: self._rings(frames))

    def _rings(self, frames: Frames) -> npt.NDArray[np.int32]:
        if self.radial:
            geometry = frames.geometry
            assert geometry is not None
            radius = frames.part.take(pixel_array(geometry, frames.beam or Beam(), RADIUS))
            panel = geometry.panels[0]
            number = np.rint(radius / min(np.linalg.norm(panel.slow), np.linalg.norm(panel.fast)))
        else:
            number = np.broadcast_to(np.arange(frames.shape[0])[:, None, None], frames.shape)
        use = np.isfinite(number) if self.mask is None else self.mask.on(frames) & np.isfinite(number)
        out = np.where(use, number, -1).astype(np.int32)
        out.flags.writeable = False
        return out


class PeaksReducer(Reducer):
    """Finds the peaks of whole frames: rings reach over all segments."""

    takes_whole_frames = True

    def __init__(self, record: Peaks, frames: Frames) -> None:
        self._order = rising(frames.part)
        ring = record.rings(frames)
        self._ring = ring if self._order is None else np.ascontiguousarray(ring[self._order])
        self._frames = frames = replace(frames, part=sorted_part(frames.part))
        self._record = record
        n = max(int(self._ring.max(initial=-1)) + 1, 1)
        self._stats = (np.empty(n), np.empty(n), np.empty(n))
        self._sums = np.empty((n, 3))
        rows, columns = frames.shape[1:]
        self._tile = record.tile or (rows, columns)
        self._seen = np.zeros((rows, columns), bool)
        self._pixels = np.empty(rows * columns, np.int32)
        self._room = np.empty((256, len(_MEASURED)))

    def begin(self, k: int) -> None:
        """Start a group of ``k`` events."""
        self._found: list[list[npt.NDArray[np.float64]]] = [[] for _ in range(k)]

    def add(self, s: int, frames: Any, variance: Any = None) -> None:
        """Segments alone have no rings: whole frames are taken."""
        raise NotImplementedError

    def whole(self, frames: npt.NDArray[np.floating[Any]], variance: Any, here: Any) -> None:
        """Find the peaks of each event."""
        from xsmall.kernels.peaks import rings

        del variance, here  # the noise is that of the background; what is not there is NaN
        record = self._record
        for j, event in enumerate(frames):
            stack = event if self._order is None else np.ascontiguousarray(event[self._order])
            rings(stack, self._ring, record.snr, record.threshold, *self._stats, self._sums)
            self._found[j] = [self._of_segment(stack[s], s) for s in range(len(stack))]

    def _of_segment(self, frame: npt.NDArray[np.floating[Any]], s: int) -> npt.NDArray[np.float64]:
        from xsmall.kernels.peaks import find

        record = self._record
        for _ in range(2):  # again where there was no room for all
            n = find(
                frame, self._ring[s], self._stats, record.sizes, (record.snr, record.reach), self._tile, self._seen,
                self._pixels, self._room,
            )  # fmt: skip
            if n <= len(self._room):
                break
            self._room = np.empty((2 * n, len(_MEASURED)))
        return self._room[:n].copy()

    def end(self) -> Mapping[str, npt.NDArray[Any]]:
        """Hand out the lists of each event, its segments in order."""
        lengths = [sum(map(len, event)) for event in self._found]
        flat = np.concatenate([np.empty((0, len(_MEASURED))), *(part for event in self._found for part in event)])
        number = np.repeat(
            np.tile(np.arange(self._frames.shape[0]), len(self._found)),
            [len(part) for event in self._found for part in event],
        )
        values: dict[str, npt.NDArray[Any]] = dict(zip(_MEASURED, flat.T, strict=True))
        values[N_PIXELS] = values[N_PIXELS].astype(np.int32)
        values[SEGMENT] = np.array(self._frames.segment, np.int32)[number]
        values[ROW] = values[ROW] + self._frames.row[0]
        values[COLUMN] = values[COLUMN] + self._frames.column[0]
        values |= {name: self._place(name, values, lengths) for name in self._record.also}
        count = np.array(lengths, np.int32)
        out: dict[str, npt.NDArray[Any]] = {name: lists_of_counts(v, count) for name, v in values.items()}
        hit = {} if self._record.hit is None else {IS_HIT: count >= self._record.hit}
        return {N_PEAKS: count} | hit | out

    def _place(self, name: str, values: Mapping[str, npt.NDArray[Any]], lengths: list[int]) -> npt.NDArray[np.float64]:
        """Where the centroids are, or what they are at; q at the photon energy of the event."""
        beam, geometry = self._frames.beam or Beam(), self._frames.geometry
        assert geometry is not None
        found = between_pixels(pixel_array(geometry, beam, name), values[SEGMENT], values[ROW], values[COLUMN])
        if name == Q and self.energy is not None and beam.photon_energy is not None:
            found = found * np.repeat(self.energy / beam.photon_energy, lengths)
        return found
