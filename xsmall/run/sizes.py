"""How large what a run becomes is, and how much memory it takes to make it; nothing is computed."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np

from xsmall.engine.blocks import BATCH_BYTES
from xsmall.engine.record import GROUP
from xsmall.run.average import together
from xsmall.run.detectors import Detector
from xsmall.vocabulary import EVENT

__all__ = ["Variable", "peak_bytes", "variables_of"]

_MOMENTS_BYTES: Final = 28
"""Of an accumulator, per pixel."""
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
            dims = (EVENT, *(() if output.is_ragged else tuple(f"{name}_{d}" for d in output.dims)))
            shape = (n, *output.array_shape)
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
        met = [sum(len(np.unique(own[a:b])) for own in detector.sums.values()) for a, b in spans]
        moments = _MOMENTS_BYTES * pixels * max(met, default=0)
        buffers += twice * (together(frames) + GROUP) * pixels * itemsize + moments
    events = max((stop - start for start, stop in spans), default=0)
    return read + buffers + events * sum(x.bytes_per_event for x in variables_of(detector, events))
