"""What turns groups of events into photons: of droplets, or of single pixels."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt

from xsmall.detector.frames import Frames
from xsmall.detector.geometry.beam import Beam
from xsmall.detector.geometry.pixel import pixel_array
from xsmall.engine.entries import LostCounts, filled
from xsmall.engine.record import GROUP, MANY, Reducer
from xsmall.events.ragged import lists_of_counts
from xsmall.frames.per_pixel import StaticMask, StaticNoise
from xsmall.kernels.stack import flat_frames
from xsmall.reductions.droplet_tables import (
    between_pixels,
    in_rising_order,
    in_sigma,
    per_noise,
    rising,
    sorted_part,
    words_of_mask,
)
from xsmall.reductions.entry_lists import EntryLists
from xsmall.reductions.region import Place, inside
from xsmall.reductions.threshold import Threshold, number
from xsmall.vocabulary import (
    COLUMN,
    N_ABOVE,
    N_BELOW,
    N_DROPLETS,
    N_K,
    N_PHOTONS,
    N_VALID,
    PHOTON,
    PHOTONS,
    ROW,
    SEGMENT,
    Q,
)

__all__ = ["PhotonReducer", "PixelReducer"]

Floats = npt.NDArray[np.floating[Any]]


class _Photons(Reducer):
    """Gathers the photons of a group of events, segment by segment; subclasses find them."""

    def __init__(
        self,
        frames: Frames,
        *,
        mask: StaticMask | None,
        value: float,
        follows_energy: bool,
        max_k: int,
        also: tuple[str, ...],
        image: bool,
        sparse: bool,
        places: Sequence[Place],
    ) -> None:
        from xsmall.kernels.photon_count import MOST, count_pixels

        self._most, self._count_pixels = MOST, count_pixels
        self._order = rising(frames.part)
        self._given, self._frames = frames, replace(frames, part=sorted_part(frames.part))
        given, frames = self._given, self._frames
        self._value, self._follows_energy = value, follows_energy
        self._also, self._stacked, self._max_k = also, bool(places), max_k
        self._top = np.finfo(frames.dtype).max
        self._use = self._usable(mask)
        held = [in_rising_order(inside(p, given), given.part) for p in places] or [np.ones(frames.shape, bool)]
        self._regions = [np.stack([h[s] & self._use[s] for h in held]) for s in range(frames.shape[0])]
        self._pixels = [held.sum(axis=(1, 2)) for held in self._regions]
        self._counts = np.zeros(frames.shape[1:], np.int32)
        self._out = np.empty(0), np.empty(0)
        self._image = image
        self.most_together = GROUP if image or sparse else MANY  # those are kept one by one
        self._entries = EntryLists(frames.shape, self._unsorted(self._use), self._top) if sparse else None

    def _usable(self, mask: StaticMask | None) -> npt.NDArray[np.bool_]:
        """Pixels that the mask leaves, in rising order."""
        if mask is None:
            return np.ones(self._frames.shape, bool)
        return np.array(in_rising_order(mask.on(self._given), self._given.part))

    @abstractmethod
    def _list(self, s: int, frames: Floats, energies: Floats, first: int, tallies: Any) -> tuple[int, int, int]:
        """Append photons to the lists, see :func:`xsmall.kernels.photon_lists.list_photons_of_droplets`."""

    @abstractmethod
    def _without_bright(self, s: int, frame: Floats, value: float) -> Floats:
        """The frame with NaN where there is more than can be counted."""

    def _level(self, s: int, frame: Floats) -> Floats:
        """What has to be finite for a pixel to be valid."""
        del s
        return frame

    def begin(self, k: int) -> None:
        """Start a group of ``k`` events with empty lists."""
        n, segments = len(self._regions[0]), len(self._regions)
        self._stop = 0
        self._start = np.zeros((segments, k), np.int64)
        self._length = np.zeros_like(self._start)
        self._n_k = np.zeros((k, n, self._max_k + 1), np.int64)
        self._above, self._valid = np.zeros((k, n), np.int64), np.zeros((k, n), np.int64)
        self._droplets = np.zeros((k, 2), np.int64)
        self._energies = np.full(k, self._value)
        if self.energy is not None and self._follows_energy:
            self._energies[:] = self.energy / 1e3
        self._pictures = np.empty((k, *self._frames.shape), np.float32) if self._image else None
        if self._entries is not None:
            self._entries.begin(k)

    def add(self, s: int, frames: Floats, variance: Floats | None = None) -> None:
        """Append the photons of segment ``s``."""
        del variance  # a count of photons has that of counting
        if self._order is not None:  # neighbours in the array are to be neighbours on the detector
            frames = frames[self._order]
        if self._pictures is None and self._entries is None:
            self._take(s, 0, frames)
            return
        for j in range(len(frames)):
            self._keep(s, j, self._take(s, j, frames[j : j + 1]))

    def _take(self, s: int, j: int, frames: Floats, again: bool = False) -> Floats:
        """Append the photons of segment ``s`` of the events from ``j`` on; return the last frame as it was counted."""
        of = slice(j, j + len(frames))
        energies: Floats = self._energies[of]
        last: Floats = frames[-1]
        tallies = (
            self._start[s, of], self._length[s, of], self._droplets[of], self._valid[of], self._above[of],
            self._n_k[of], self._regions[s], self._pixels[s], self._counts, self._pictures is not None,
        )  # fmt: skip
        i = 0
        while True:
            i, need, self._stop = self._list(s, frames, energies, i, tallies)
            if i == len(frames):
                return last
            if need > 0:
                self._make_room(need)
                continue
            one = np.full_like(frames[i], np.nan) if again else self._without_bright(s, frames[i], float(energies[i]))
            last = self._take(s, j + i, one[None], again=True)
            i += 1

    def _make_room(self, n: int) -> None:
        """Lengthen the lists to take ``n`` photons and more."""
        row, column = np.empty(2 * n), np.empty(2 * n)
        for wide, old in zip((row, column), self._out, strict=True):
            wide[: self._stop] = old[: self._stop]
        self._out = row, column

    def _keep(self, s: int, j: int, frame: Floats) -> None:
        """Keep the picture or the entries of segment ``s`` of event ``j``, whose photons came last."""
        level = self._level(s, frame if 0 < self._energies[j] < np.inf else np.full_like(frame, np.nan))
        if self._entries is not None:
            pixel, counts = self._pixels_of(*(v[self._start[s, j] : self._stop] for v in self._out))
            self._entries.add(j, s, pixel, counts, self._unsorted(level))
        if self._pictures is not None:
            valid = (np.abs(level) <= self._top) & self._use[s]
            self._pictures[j, s] = np.where(valid, self._counts, np.nan)
            self._counts.fill(0)

    def end(self) -> Mapping[str, npt.NDArray[Any]]:
        """Hand out the lists of each event, its segments in order, and the counts."""
        self._n_k[..., 0] = self._valid - self._n_k[..., 1:].sum(axis=-1) - self._above
        counts = {N_K: self._n_k, N_ABOVE: self._above, N_VALID: self._valid}
        out: dict[str, npt.NDArray[Any]] = {
            name: (v if self._stacked else v[:, 0]).astype(np.int32) for name, v in counts.items()
        }
        out |= {N_PHOTONS: self._length.sum(axis=0).astype(np.int32)} | self._of_droplets()
        if self._entries is not None:
            return out | self._entries.end(np.dtype(np.int32))
        return out | (self._lists() if self._pictures is None else {PHOTONS: self._unsorted(self._pictures)})

    def _lists(self) -> dict[str, npt.NDArray[Any]]:
        frames, length = self._frames, self._length.T.ravel()  # segment after segment of each event
        behind = np.cumsum(length)
        moved = self._start.T.ravel() - (behind - length)
        at = np.arange(self._stop) + np.repeat(moved, length) if len(self._length) > 1 else slice(self._stop)
        n = self._length.sum(axis=0)
        flat: dict[str, npt.NDArray[Any]] = {
            ROW: self._out[0][at] + frames.row[0],
            COLUMN: self._out[1][at] + frames.column[0],
            SEGMENT: np.repeat(np.tile(np.array(frames.segment, np.int32), len(n)), length),
        }
        for name in self._also:
            assert frames.geometry is not None
            whole = pixel_array(frames.geometry, frames.beam or Beam(), name)
            flat[name] = between_pixels(whole, flat[SEGMENT], flat[ROW], flat[COLUMN])
            if name == Q and self.energy is not None:
                mean = frames.beam.photon_energy if frames.beam is not None else None
                flat[name] *= np.repeat(self.energy / np.float64(mean), n)
        return {name: lists_of_counts(v, n) for name, v in flat.items()}

    def _of_droplets(self) -> dict[str, npt.NDArray[Any]]:
        return {}

    def _unsorted(self, pictures: npt.NDArray[Any]) -> npt.NDArray[Any]:
        """Rows and columns (..., row, column) in the order that they came in."""
        if self._order is None:
            return pictures
        out = np.empty_like(pictures)
        out[(..., *self._order[1:])] = pictures
        return out

    def _pixels_of(
        self, row: npt.NDArray[np.float64], column: npt.NDArray[np.float64]
    ) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
        """The pixels of a segment that hold photons, in the order that they came in, and how many."""
        r, c = (np.floor(v + 0.5).astype(np.int64) for v in (row, column))
        if self._order is not None:
            r, c = (np.ravel(at)[v] for at, v in zip(self._order[1:], (r, c), strict=True))
        pixel, counts = np.unique(r * self._frames.shape[2] + c, return_counts=True)
        return pixel, counts


class PixelReducer(_Photons):
    """Whole photons of pixels, and those that two neighbours share."""

    def __init__(self, frames: Frames, *, thr_fraction: float, **shared: Any) -> None:
        from xsmall.kernels.photon_lists import list_photons_of_pixels

        super().__init__(frames, **shared)
        self._kernel, self._least = list_photons_of_pixels, thr_fraction
        kept = shared["image"] or shared["sparse"] or self._order is not None
        self.takes_entries = not kept and frames.units == PHOTON and self._value == 1.0

    def _list(self, s: int, frames: Floats, energies: Floats, first: int, tallies: Any) -> tuple[int, int, int]:
        rule = self._use[s], self._top, self._least
        found: tuple[int, int, int] = self._kernel(
            flat_frames(frames), frames.shape[1:], energies, *rule, first, self._stop, self._out, tallies
        )
        return found

    def _without_bright(self, s: int, frame: Floats, value: float) -> Floats:
        from xsmall.kernels.photon_count import MOST_IN_ALL

        frame = np.where(frame > self._most * value, frame.dtype.type(np.nan), frame)
        light = frame[self._use[s] & (frame > 0)].sum(dtype=np.float64)
        return frame if light <= MOST_IN_ALL * value else np.full_like(frame, np.nan)

    def never(self, pixels: npt.NDArray[np.int64]) -> None:
        """Hear which pixels no event has."""
        self._inside = np.stack(self._regions).transpose(1, 0, 2, 3).reshape(len(self._regions[0]), -1)
        self._n_pixels = np.count_nonzero(self._inside, axis=1)
        self._whole = np.where(np.bincount(pixels, minlength=self._use.size) > 0, np.nan, 0.0)
        self._lacking: LostCounts[npt.NDArray[np.int64]] = LostCounts(self._of_regions, pixels)

    def _of_regions(self, pixels: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
        return np.asarray(np.count_nonzero(self._inside[:, pixels], axis=1))

    def entries(self, j: int, pixel: npt.NDArray[Any], value: npt.NDArray[Any], lost: npt.NDArray[np.int64]) -> None:
        """Take the photons of event ``j``, which are there already, unless there are parts of one."""
        shape = self._frames.shape
        if value.dtype.kind not in "iu" or (value < 0).any() or value.sum(dtype=np.float64) > self._most:
            frame = self._whole.reshape(shape).astype(self._frames.dtype)
            filled(frame, pixel, value, lost)
            for s in range(shape[0]):
                self._take(s, j, frame[s : s + 1])
            return
        self._valid[j] = self._n_pixels - self._lacking(lost)
        used = self._use.reshape(-1)[pixel]
        pixel, value = pixel[used], value[used]
        if self._stop + value.sum() > self._out[0].size:
            self._make_room(self._stop + int(value.sum()))
        for s, first in enumerate(range(0, self._use.size, shape[1] * shape[2])):
            here = slice(*np.searchsorted(pixel, [first, first + shape[1] * shape[2]]))
            at = np.repeat(pixel[here] - first, value[here])
            self._start[s, j], self._length[s, j] = self._stop, at.size
            of = slice(self._stop, self._stop + at.size)
            for out, places in zip(self._out, (at // shape[2], at % shape[2]), strict=True):
                out[of] = places
            self._stop += at.size
            row, column = (out[of] for out in self._out)
            self._count_pixels(row, column, self._regions[s], self._counts, False, self._n_k[j], self._above[j])


class PhotonReducer(_Photons):
    """Photons of droplets."""

    def __init__(
        self,
        frames: Frames,
        *,
        thresholds: tuple[Threshold, Threshold],
        noise: StaticNoise | None,
        grow: tuple[bool, bool],
        cuts: tuple[float, float, float, float],
        how: tuple[float, int],
        **shared: Any,
    ) -> None:
        from xsmall.kernels.droplet import Members, Workspace, find
        from xsmall.kernels.photon import Scratch
        from xsmall.kernels.photon_lists import list_photons_of_droplets

        super().__init__(frames, **shared)
        self._droplets_of, self._photons_of = find, list_photons_of_droplets
        frames, real = self._frames, frames.dtype.type
        high, low = (real(number(t)) for t in thresholds)
        self._thresholds = high, low, self._top
        self._grow = tuple(True if wanted else None for wanted in (*grow, False))
        self._cuts, self._how = cuts, how
        self._words = words_of_mask(shared["mask"], self._given)
        self._per_noise = per_noise(noise, self._given)
        self._work = Workspace(*frames.shape[1:])
        self._members = Members(*frames.shape[1:]).arrays
        self._scratch = Scratch(*frames.shape[1:]).arrays

    def _level(self, s: int, frame: Floats) -> Floats:
        return in_sigma(frame, None if self._per_noise is None else self._per_noise[s])

    def _list(self, s: int, frames: Floats, energies: Floats, first: int, tallies: Any) -> tuple[int, int, int]:
        noise = None if self._per_noise is None else self._per_noise[s]
        limits = self._thresholds, self._grow, self._cuts
        work = self._work.arrays, self._members, self._scratch
        found: tuple[int, int, int] = self._photons_of(
            flat_frames(frames), frames.shape[1:], energies, noise, self._words[s], limits, self._how, work, first,
            self._stop, self._out, tallies,
        )  # fmt: skip
        return found

    def _find_droplets(self, s: int, frame: Floats) -> int:
        """Find the droplets of a frame: they stay in the workspace."""
        per_noise = None if self._per_noise is None else self._per_noise[s]
        frame = np.ascontiguousarray(frame)
        given = frame, per_noise, None, self._words[s], self._thresholds, self._grow, self._work.arrays, self._members
        return int(self._droplets_of(*given))

    def _without_bright(self, s: int, frame: Floats, value: float) -> Floats:
        from xsmall.kernels.photon_count import clear_bright

        found, left = self._find_droplets(s, frame), frame.copy()
        return left if clear_bright(left, found, self._work.found, self._members, self._cuts, value) else frame

    def _of_droplets(self) -> dict[str, npt.NDArray[Any]]:
        names = N_DROPLETS, N_BELOW
        return {name: self._droplets[:, i].astype(np.int32) for i, name in enumerate(names)}
