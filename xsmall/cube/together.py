"""Reductions of the frames of a cube, in the pass of the cube."""

from __future__ import annotations

from collections.abc import Sequence
from threading import local
from typing import Any

import numpy.typing as npt

from xsmall.engine.blocks import Batch
from xsmall.engine.one_pass import Job, RecordsWalk, joined_pieces, no_pieces
from xsmall.engine.packets import Results
from xsmall.engine.passes import PlannedPass
from xsmall.engine.transform import Cast, Transform

__all__ = ["Reductions", "float_batch"]


class Reductions:
    """Records of some passes, run over the frames of a cube by all threads; what comes of each, by its events.

    Parameters
    ----------
    passes
        The passes.
    transform
        What makes floats of the frames.
    """

    def __init__(self, passes: Sequence[PlannedPass], transform: Transform) -> None:
        self._transform = transform
        self._passes = passes
        cast = Cast(transform.dtype)
        self._jobs = [Job(made.records, made.frames, cast) for made in passes]
        self._outputs = [job.outputs for job in self._jobs]
        self._found: dict[int, list[dict[Any, list[npt.NDArray[Any]]]]] = {}
        self._of_thread = local()
        self.variance = any(made.frames.variance for made in passes)
        """Whether any of them needs the variances of the values."""

    def take(self, first: int, frames: Batch) -> None:
        """Reduce some frames that are floats, beginning with event ``first``."""
        found = []
        for walk, outputs, made in zip(self._walks(), self._outputs, self._passes, strict=True):
            pieces = no_pieces(outputs)
            variance = frames.variance if made.frames.variance else None
            energy = None if made.energy is None else frames.energy
            walk.take(frames._replace(variance=variance, energy=energy), pieces)
            found.append(pieces)
        self._found[first] = found

    def _walks(self) -> list[RecordsWalk]:
        held: dict[str, list[RecordsWalk]] = self._of_thread.__dict__
        if "walks" not in held:
            held["walks"] = [RecordsWalk(job) for job in self._jobs]
        return held["walks"]

    def results(self) -> list[Results]:
        """What came of all events, in order, a packet for each pass."""
        in_order = [self._found[first] for first in sorted(self._found)]
        out = []
        for number, outputs in enumerate(self._outputs):
            pieces = no_pieces(outputs)
            for found in in_order:
                for key, values in found[number].items():
                    pieces[key] += values
            out.append(joined_pieces(pieces, outputs, {}))
        return out


def float_batch(transform: Transform, group: Batch, into: npt.NDArray[Any]) -> Batch:
    """Make floats of the whole frames of a few events.

    Parameters
    ----------
    transform
        What makes them.
    group
        The frames, and their variances where these are read.
    into
        Buffer (kind, event, segment, row, column): of the values, and of the variances where they are made.
    """
    made = len(into) > 1 and group.variance is None
    for s in range(group.frames.shape[1]):
        raw, here = group.segment(slice(None), s), group.here(slice(None), s)
        transform.apply(s, raw, here, into[0, :, s], *([into[1, :, s]] if made else []))
    return Batch(into[0], group.present, into[1] if made else group.variance, group.energy)
