"""What lies beside the frames of a pass: frames of other detectors and values of events, joined to its events.

A fast and a slow detector have chunks of their own. Each block of the pass therefore gets the span of the other source
that its events need, and walks it in step: a part of it is read when the first event needs it, and kept until another
part is needed.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import dask.array as da
import numpy as np
import numpy.typing as npt
from dask.delayed import Delayed

from xsmall.engine.blocks import Batch, Unopened, event_blocks, is_in_memory, rests_on_futures
from xsmall.engine.transform import Transform

__all__ = ["Beside", "Companion", "held_block", "joined_blocks"]

Span = tuple[int, int]
_MOST_JOINED = 4
"""Blocks that are made one, so that no chunk of another source is read by two tasks."""


@dataclass(frozen=True)
class Companion:
    """Another source, and where in it each event of the pass is.

    Parameters
    ----------
    batch
        Frames (event, segment, row, column), or anything else of events (event, a, b, c), lazy or in memory.
    transform
        What makes floats of them; None leaves them as they are.
    at
        (event of the pass) event of this source, -1 where it has none.
    """

    batch: Batch
    transform: Transform | Delayed | None
    at: npt.NDArray[np.int64]

    @property
    def is_held(self) -> bool:
        """True if any chunk is computed already (here or on a cluster): then the scheduler must deliver the chunks."""
        return any(is_in_memory(a) or rests_on_futures(a) for a in self.batch.lazy().values())

    def ready(self) -> Transform | None:
        """The transform, built here and now where it is not yet."""
        return self.transform.compute() if isinstance(self.transform, Delayed) else self.transform

    def span(self, start: int, stop: int) -> Span:
        """First event that some events of the pass need, and the one after the last."""
        needed = self.at[start:stop][self.at[start:stop] >= 0]
        return (int(needed.min()), int(needed.max()) + 1) if needed.size else (0, 0)


class Beside:
    """The part of a companion that a block of events needs: hands it out group by group.

    Parameters
    ----------
    source
        The events of the companion's span, unopened or in memory.
    at
        (event of the block) event of the span, below 0 where there is none.
    """

    def __init__(self, source: Unopened | Batch, at: npt.NDArray[np.int64]) -> None:
        self._source = source
        self._at = at
        self._first = 0
        self._batch: Batch | None = None
        self._read = -1
        if isinstance(source, Batch):
            self._batch, self._read = source, 0
            self._parts: list[Span] = [(0, len(source.frames))]
            self._shape: tuple[int, ...] = source.frames.shape[1:]
        else:
            self._parts, self._shape = source.parts(), source.event_shape
        self._stops = np.array([stop for _, stop in self._parts])

    def move_to(self, first: int) -> None:
        """Count events from ``first`` on: what is read already is kept."""
        self._first = first

    def take(self, start: int, k: int, transform: Transform | None) -> tuple[npt.NDArray[Any], npt.NDArray[np.bool_]]:
        """Values (k, ...) for ``k`` events of the block from number ``start`` on, and which of them have some (k,)."""
        start += self._first
        found: list[npt.NDArray[Any] | None] = [
            None if event < 0 else self._one(int(event), transform) for event in self._at[start : start + k]
        ]
        there = np.array([f is not None for f in found])
        some = next((f for f in found if f is not None), np.zeros(self._shape, np.float32))
        return np.stack([np.zeros_like(some) if f is None else f for f in found]), there

    def _one(self, event: int, transform: Transform | None) -> npt.NDArray[Any] | None:
        """Values of one event of the span; None where all of its segments are missing."""
        part = int(np.searchsorted(self._stops, event, side="right"))
        if part != self._read and isinstance(self._source, Unopened):
            self._batch, self._read = self._source.read(*self._parts[part]), part
        batch = self._batch
        assert batch is not None
        i = event - self._parts[part][0]
        if batch.present is not None and not batch.present[i].any():
            return None
        one = slice(i, i + 1)
        if transform is None:
            return np.asarray(batch.frames[i])
        out = np.empty(batch.frames.shape[1:], transform.dtype)
        for s in range(len(out)):
            transform.apply(s, batch.segment(one, s), batch.here(one, s), out[None, s])
        return out


def joined_blocks(
    frames: da.Array, beside: Mapping[str, tuple[da.Array, npt.NDArray[np.int64]]], fewest: int = 1
) -> list[Span]:
    """Blocks of events of a pass; as far as few of them make one, borders are those of chunks beside them too."""
    blocks = event_blocks(frames, fewest) or [(0, 0)]
    borders = {name: set(np.cumsum((0, *other.chunks[0])).tolist()) for name, (other, _) in beside.items()}
    out: list[Span] = []
    first, n = 0, 0
    for start, stop in blocks:
        n += 1
        between = all(_next_event(at, stop) in borders[name] for name, (_, at) in beside.items())
        if between or n == _MOST_JOINED or stop == blocks[-1][1]:
            out.append((first, stop))
            first, n = stop, 0
        del start
    return out


def _next_event(at: npt.NDArray[np.int64], event: int) -> int:
    """Event of the other source that comes first from an event of the pass on; 0, always a border, at the end."""
    later = at[event:][at[event:] >= 0]
    return int(later[0]) if later.size else 0


def held_block(batch: Batch, start: int, stop: int) -> Batch:
    """Some events as Delayed arrays, which the scheduler brings from wherever they are."""
    part = batch.cut(slice(start, stop))
    lazy = {i: a.rechunk(-1).to_delayed(optimize_graph=False).item() for i, a in part.lazy().items()}
    return part.put(lazy)
