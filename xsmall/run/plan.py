"""What a production would cost, told before anything is computed: sizes of all variables, tasks, memory."""

from __future__ import annotations

import math
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from dask.utils import format_bytes

from xsmall.engine.blocks import BATCH_BYTES
from xsmall.engine.record import GROUP
from xsmall.run.average import together
from xsmall.run.detectors import Detector
from xsmall.run.produce import Plan, plan_run
from xsmall.run.recipe import Recipe, open_recipe
from xsmall.vocabulary import EVENT

__all__ = ["Forecast", "Variable", "forecast"]

IMAGE_BYTES: Final = 100_000
"""More than this per event is an image rather than small data."""
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


@dataclass(frozen=True)
class Forecast:
    """What a run will cost; made by :func:`forecast`.

    Attributes
    ----------
    run
        Its number.
    variables
        All variables over events.
    raw_bytes
        Bytes of frames that are read, before compression.
    blocks
        Tasks.
    peak_bytes
        Memory that a thread needs, about.
    skipped
        Detectors that the run lacks.
    """

    run: int
    variables: tuple[Variable, ...]
    raw_bytes: int
    blocks: int
    peak_bytes: int
    skipped: Mapping[str, str]

    @property
    def nbytes(self) -> int:
        """Bytes of all variables whose size is known."""
        return sum(x.nbytes or 0 for x in self.variables)

    def warnings(self) -> Iterator[str]:
        """Say what would be better done in another way."""
        for x in self.variables:
            if x.bytes_per_event > IMAGE_BYTES:
                yield (
                    f"{x.name} has {format_bytes(x.bytes_per_event)} in each event: these are images; "
                    "a smaller box, fewer bins, or a cube of the frames"
                )

    def text(self) -> str:
        """All of it, a line for each variable."""
        lines = [
            f"run {self.run}: reads {format_bytes(self.raw_bytes)} of frames, writes {format_bytes(self.nbytes)} "
            f"before compression; {self.blocks} tasks, about {format_bytes(self.peak_bytes)} of memory for each thread"
        ]
        for x in self.variables:
            size = "as long as the lists are" if x.nbytes is None else format_bytes(x.nbytes)
            shape = ", ".join(f"{d} {n}" for d, n in zip(x.dims, x.shape, strict=True))
            lines.append(f"  {x.name} ({shape}) {x.dtype}: {size}")
        lines += [f"  without {name}: {why}" for name, why in self.skipped.items()]
        lines += [f"  warning: {text}" for text in self.warnings()]
        return "\n".join(lines)


def forecast(recipe: str | os.PathLike[str] | Mapping[str, Any] | Recipe, run: int) -> Forecast:
    """Tell what the output of a run will cost; reads headers and constants, computes nothing.

    Parameters
    ----------
    recipe
        As for :func:`xsmall.produce`.
    run
        Number of the run.

    Returns
    -------
    Sizes of all variables, tasks and memory.

    Raises
    ------
    XsmallError
        Something of the recipe does not fit the run, or the run cannot be opened.

    Examples
    --------
    >>> import pathlib, tempfile, xsmall as xs
    >>> from xsmall.io.stores.runs import write_run
    >>> folder = pathlib.Path(tempfile.mkdtemp())
    >>> path = write_run(xs.simulate(20, shape=(1, 16, 32)).run, folder / "raw0012.zarr")
    >>> reductions = {"rows": {"kind": "projection", "onto": "row"}}
    >>> recipe = {"source": str(path), "detectors": {"jungfrau": {"reductions": reductions}}}
    >>> found = xs.forecast(recipe, 12)
    >>> found.raw_bytes, [x.name for x in found.variables]
    (20480, ['jungfrau_rows_projection', 'jungfrau_rows_n_valid'])
    """
    plan = plan_run(open_recipe(recipe), run)
    variables = [x for d in plan.detectors.values() for x in _variables(d, plan)]
    return Forecast(
        run=run,
        variables=tuple(variables),
        raw_bytes=sum(d.raw.nbytes for d in plan.detectors.values()),
        blocks=sum(map(len, plan.blocks.values())),
        peak_bytes=max((_peak(d, plan) for d in plan.detectors.values()), default=0),
        skipped=plan.skipped,
    )


def _variables(detector: Detector, plan: Plan) -> Iterator[Variable]:
    """Variables of one detector, as :mod:`xsmall.run.output` names them."""
    n, name = plan.events.n, detector.name
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


def _peak(detector: Detector, plan: Plan) -> int:
    """Memory of a thread: what is read at once, tables, buffers, accumulators, and results of a block."""
    frames = detector.prepared.frames
    pixels, itemsize = math.prod(frames.shape), frames.dtype.itemsize
    chunk = max(detector.raw.chunks[0], default=1) if detector.raw.chunks else 1
    read = 2 * max(min(BATCH_BYTES, detector.raw.nbytes), chunk * pixels * detector.raw.dtype.itemsize)
    stages = 0 if detector.constants is None else detector.constants.sizes.get("gain_stage", 1)
    twice = 2 if frames.variance else 1
    buffers = twice * GROUP * pixels * itemsize + _TABLE_BYTES * stages * pixels
    if detector.sums:
        spans = plan.blocks[detector.name]
        met = [sum(len(np.unique(own[a:b])) for own in detector.sums.values()) for a, b in spans]
        buffers += twice * (together(frames) + GROUP) * pixels * itemsize + _MOMENTS_BYTES * pixels * max(
            met, default=0
        )
    events = max((stop - start for start, stop in plan.blocks[detector.name]), default=0)
    return read + buffers + events * sum(x.bytes_per_event for x in _variables(detector, plan))
