"""Averages of the frames of a block: they join the pass of the reductions, so that frames are read and made once.

There may be several, each over bins of events: the average of all events has one bin, the images of a cube have many.
Frames are added in groups of consecutive events whose borders are multiples of a fixed number, so that the result does
not depend on what is read together; blocks are merged in a fixed tree.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Final, NamedTuple

import numpy as np
import numpy.typing as npt

from xsmall.cube.moments import groups
from xsmall.detector.frames import Frames
from xsmall.engine.interrupt import check
from xsmall.engine.record import GROUP, Output, Record, Reducer
from xsmall.kernels import moments as kernel
from xsmall.kernels.add_frames import add_frames, add_variances, all_go_on, flat

__all__ = ["Average", "Averager", "FrameMoments", "merged", "statistics_of"]

Array = npt.NDArray[Any]

_BUFFER_BYTES: Final = 64 * 2**20
_MOST_TOGETHER: Final = 64


class FrameMoments(NamedTuple):
    """Count (n), mean and M2 of each pixel, flat; and the sum of the variances of its values, where they are known."""

    n: npt.NDArray[np.uint32]
    mean: npt.NDArray[np.float64]
    m2: npt.NDArray[np.float64]
    variances: npt.NDArray[np.float64] | None = None

    @classmethod
    def empty(cls, frames: Frames, *bins: int) -> FrameMoments:
        """Moments of no frame; in front the bins, if any."""
        shape = (*bins, int(np.prod(frames.shape)))
        return cls(
            np.zeros(shape, np.uint32), np.zeros(shape), np.zeros(shape), np.zeros(shape) if frames.variance else None
        )

    def of(self, i: int) -> FrameMoments:
        """The moments of one bin."""
        return FrameMoments(self.n[i], self.mean[i], self.m2[i], None if self.variances is None else self.variances[i])

    def arrays(self) -> dict[str, Array]:
        """The arrays by their names."""
        return {name: values for name, values in self._asdict().items() if values is not None}


def together(frames: Frames) -> int:
    """Events that are added together: a power of two that follows from the shape of the frames alone."""
    fit = _BUFFER_BYTES // (int(np.prod(frames.shape)) * frames.dtype.itemsize)
    return int(min(_MOST_TOGETHER, max(GROUP, 1 << max(0, int(fit).bit_length() - 1))))


MomentsByBin = dict[tuple[str, int], FrameMoments]
"""Moments by the name of the average and the bin."""


class Averager(Reducer):
    """Takes the frames of a pass and adds them up; it returns nothing for single events.

    Parameters
    ----------
    frames
        What is known of the frames.
    index
        For each average the bin of each event of the block, -1 for none.
    """

    def __init__(self, frames: Frames, index: Mapping[str, npt.NDArray[np.int64]]) -> None:
        self._size = together(frames)
        self._segments, rows, columns = frames.shape
        self._pixels = rows * columns
        held = (self._segments, self._size + GROUP, self._pixels)
        self._frames = np.empty(held, frames.dtype)
        self._variances = np.empty(held, frames.dtype) if frames.variance else None
        self._filled = np.zeros(self._size + GROUP, bool)
        self._base = self._next = self._k = 0
        self._bins = {name: np.unique(own[own >= 0]) for name, own in index.items()}
        self._index = {  # among the bins that the block meets
            name: np.where(own >= 0, np.searchsorted(self._bins[name], own), -1) for name, own in index.items()
        }
        self._moments = {name: FrameMoments.empty(frames, len(met)) for name, met in self._bins.items()}

    def move_to(self, event: int) -> None:
        """Say which event of the block comes next; those that were passed by are left out."""
        self._next = event
        while self._next - self._base >= self._size:
            self._flush()

    def begin(self, k: int) -> None:
        """Start a group of ``k`` events."""
        self._k = k

    def add(
        self, s: int, frames: npt.NDArray[np.floating[Any]], variance: npt.NDArray[np.floating[Any]] | None = None
    ) -> None:
        """Keep segment ``s`` of the group."""
        at = self._next - self._base
        into = slice(at, at + self._k)
        self._frames[s, into] = frames.reshape(self._k, -1)
        if self._variances is not None and variance is not None:
            self._variances[s, into] = variance.reshape(self._k, -1)

    def end(self) -> Mapping[str, Array]:
        """Add what is complete."""
        at = self._next - self._base
        self._filled[at : at + self._k] = True
        self.move_to(self._next + self._k)
        return {}

    def finish(self) -> MomentsByBin:
        """Add what is left, and return the moments of each bin."""
        self._flush()
        return {
            (name, int(number)): self._moments[name].of(i)
            for name, met in self._bins.items()
            for i, number in enumerate(met)
        }

    def _flush(self) -> None:
        filled = self._filled[: self._size]
        if filled.any():
            for name, own in self._index.items():
                here = np.full(self._size, -1, np.int64)
                part = own[self._base : self._base + self._size]
                here[: len(part)] = np.where(filled[: len(part)], part, -1)
                self._add(here, self._moments[name])
        for held in (self._frames, self._variances):
            if held is not None:
                held[:, :GROUP] = held[:, self._size :]
        self._filled[:GROUP] = self._filled[self._size :]
        self._filled[GROUP:] = False
        self._base += self._size

    def _add(self, index: npt.NDArray[np.int64], moments: FrameMoments) -> None:
        group = groups(index)
        if not group[2].size:
            return
        for s in range(self._segments):
            check()
            where = 0, self._pixels, s * self._pixels
            add_frames(*flat(self._frames[s]), *group, all_go_on(group[2]), *moments[:3], *where)
            if moments.variances is not None and self._variances is not None:
                add_variances(self._frames[s], self._variances[s], *group, moments.variances, *where)


@dataclass(frozen=True)
class Average(Record):
    """A record that hands out one averager, for the passes over the pieces of one block."""

    name: ClassVar[str] = "average"

    averager: Averager

    def outputs(self, frames: Frames) -> Mapping[str, Output]:
        """Say that nothing comes back for single events."""
        del frames
        return {}

    def reducer(self, frames: Frames) -> Reducer:
        """Hand out the averager."""
        del frames
        return self.averager


def merged(parts: Sequence[FrameMoments], frames: Frames) -> FrameMoments:
    """Merge the moments of blocks, neighbours first, in a fixed tree."""
    level = list(parts) or [FrameMoments.empty(frames)]
    while len(level) > 1:
        pairs = [_merge_two(level[i], level[i + 1]) for i in range(0, len(level) - 1, 2)]
        level = pairs + level[len(level) - len(level) % 2 :]
    return level[0]


def _merge_two(a: FrameMoments, b: FrameMoments) -> FrameMoments:
    variances = None if a.variances is None or b.variances is None else a.variances + b.variances
    out = FrameMoments(np.empty_like(a.n), np.empty_like(a.mean), np.empty_like(a.m2), variances)
    kernel.merge(*a[:3], *b[:3], *out[:3])
    return out


def statistics_of(moments: FrameMoments, shape: tuple[int, ...]) -> dict[str, Array]:
    """Mean, standard deviation (n - 1), standard error, count, and, where variances are known, that of the mean."""
    n = moments.n.size
    mean, std, stderr, count = np.empty(n), np.empty(n), np.empty(n), np.empty(n, np.int32)
    kernel.statistics(*moments[:3], mean, std, count)
    kernel.standard_error(std, count, stderr)
    out: dict[str, Array] = {"mean": mean, "std": std, "stderr": stderr, "count": count}
    if moments.variances is not None:
        number = count.astype(np.float64)
        out["variance"] = np.divide(moments.variances, number**2, out=np.full(n, np.nan), where=number > 0)
    return {name: values.reshape(shape) for name, values in out.items()}
