"""How large what a run becomes is, and how much memory it takes to make it; nothing is computed."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np

from xsmall.engine.blocks import BATCH_BYTES
from xsmall.engine.record import GROUP
from xsmall.run.average import FrameMoments, together
from xsmall.run.detectors import Detector
from xsmall.vocabulary import CHANNEL, EVENT, PIXEL_DIMS

__all__ = ["Variable", "block_bytes", "images_of_cube", "peak_bytes", "variables_of"]

_MOMENTS_BYTES: Final = 28
"""Of an accumulator, per pixel."""
_STATISTICS: Final = {"mean": 8, "std": 8, "stderr": 8, "count": 4}
"""Bytes of what a cube says of a pixel of its images."""
_TABLE_BYTES: Final = 8
"""Of the tables of calibration, per pixel and gain stage."""


@dataclass(frozen=True)
class Variable:
    """A variable of an output before it is made.

    Attributes
    ----------
    name, dims, shape, dtype
        As in the output.
    nbytes
        Before compression; None for lists, whose lengths are not known.
    """

    name: str
    dims: tuple[str, ...]
    shape: tuple[int, ...]
    dtype: str
    nbytes: int | None

    @property
    def bytes_per_event(self) -> int:
        """Bytes of one event."""
        return 0 if self.nbytes is None or self.dims[:1] != (EVENT,) else self.nbytes // max(1, self.shape[0])


def variables_of(detector: Detector, n: int) -> Iterator[Variable]:
    """Variables of one detector in a run of ``n`` events, as :mod:`xsmall.run.output` names them."""
    name = detector.name
    for record, outputs in detector.prepared.described.items():
        for variable, output in outputs.items():
            if output.summed:
                nbytes = math.prod(output.array_shape) * output.array_dtype.itemsize
                yield Variable(
                    f"{name}/{record}_{variable}", output.dims, output.array_shape, str(output.dtype), nbytes
                )
                continue
            single = detector.waves is not None and detector.waves.single  # then the output has no dim of channels
            own = () if output.is_ragged else zip(output.dims, output.array_shape, strict=True)
            sizes = {f"{name}_{d}": size for d, size in own if not (single and d == CHANNEL)}
            dims, shape = (EVENT, *sizes), (n, *sizes.values())
            size = None if output.is_ragged else math.prod(shape) * output.array_dtype.itemsize
            yield Variable(f"{name}_{record}_{variable}", dims, shape, str(output.dtype), size)


def peak_bytes(detector: Detector, spans: Sequence[tuple[int, int]], limit: int = BATCH_BYTES) -> int:
    """Memory of a thread: what is read at once, tables, buffers, accumulators, and results of a block.

    Parameters
    ----------
    detector
        The detector.
    spans
        The events of its blocks.
    limit
        Bytes of frames that are read at once; a chunk of the run is the least.
    """
    frames = detector.prepared.frames
    pixels, itemsize = math.prod(frames.shape), frames.dtype.itemsize
    chunk = max(detector.raw.chunks[0], default=1) if detector.raw.chunks else 1
    read = 2 * max(min(limit, detector.raw.nbytes), chunk * pixels * detector.raw.dtype.itemsize)
    stages = 0 if detector.constants is None else detector.constants.sizes.get("gain_stage", 1)
    twice = 2 if frames.variance else 1
    buffers = twice * GROUP * pixels * itemsize + _TABLE_BYTES * stages * pixels
    if detector.sums:
        moments = _MOMENTS_BYTES * pixels * max(_bins_met(detector, spans), default=0)
        buffers += twice * (together(frames) + GROUP) * pixels * itemsize + moments
    for other in detector.prepared.beside.values():  # frames that a function takes of another detector
        if other.transform is not None and other.batch.lazy():
            frames_beside = other.batch.frames
            most = max(frames_beside.chunks[0], default=1) * frames_beside[:1].nbytes
            read += 2 * max(min(limit, frames_beside.nbytes), most)
    events = max((stop - start for start, stop in spans), default=0)
    return read + buffers + events * sum(x.bytes_per_event for x in variables_of(detector, events))


def block_bytes(detector: Detector, spans: Sequence[tuple[int, int]]) -> int:
    """Bytes on the disk of all finished blocks, which lie there until the output is written; lists come on top."""
    frames = detector.prepared.frames
    moments = sum(x.itemsize for x in FrameMoments.empty(frames).arrays().values()) * math.prod(frames.shape)
    events = sum(stop - start for start, stop in spans)
    per_event = sum(x.bytes_per_event for x in variables_of(detector, events))
    return events * per_event + moments * sum(_bins_met(detector, spans))


def images_of_cube(detector: Detector, cube: str, bins: Mapping[str, int]) -> Variable:
    """The images of one detector in a cube with so many bins, all that is said of them together."""
    frames = detector.prepared.frames
    told = _STATISTICS | ({"variance": 8} if frames.variance else {})
    shape = (*bins.values(), *frames.shape)
    name, dtype = f"cube {cube}: {detector.name}", " + ".join(told)
    return Variable(name, (*bins, *PIXEL_DIMS), shape, dtype, math.prod(shape) * sum(told.values()))


def _bins_met(detector: Detector, spans: Sequence[tuple[int, int]]) -> list[int]:
    """Bins of all sums that the events of each block are in."""
    return [sum(len(np.setdiff1d(own[a:b], [-1])) for own in detector.sums.values()) for a, b in spans]
