"""Frames that a reader knows to be missing or damaged in part, wherever their values go.

The words of such a segment look like any others: ``present`` and ``damage`` say that they are none, and stand beside
the event, not in the value. ``shift``, ``rolling`` or a mean over events take the values elsewhere and leave the
coordinates behind. A pass over computed frames therefore reads a batch that met such words twice, with other words in
their place (:mod:`xsmall.engine.faults`): what differs rests on them.
"""

from __future__ import annotations

import zlib
from collections.abc import Mapping
from functools import lru_cache
from typing import Any

import dask.array as da
import numpy as np
import numpy.typing as npt
from dask._task_spec import DataNode, convert_legacy_graph
from dask.base import tokenize
from dask.highlevelgraph import HighLevelGraph
from dask.order import order

from xsmall.engine.faults import met
from xsmall.engine.rule import source_behind
from xsmall.vocabulary import DAMAGE, PRESENT

__all__ = ["DAMAGED", "MISSING", "FlaggedFrames", "differing", "flagged", "knows_flags", "told_of_moved", "with_others"]

MISSING, DAMAGED = 1, 2
"""Bits of what is known of a segment of an event."""


class FlaggedFrames:
    """Frames (event, segment, row, column) of a reader, and what it knows against their segments.

    Parameters
    ----------
    array
        What reads them.
    known
        Bits against each (event, segment), packed: tasks carry it, and it is the same for most events.
    kinds
        Bits whose words are always others.
    """

    def __init__(self, array: Any, known: bytes, kinds: int = 0) -> None:
        self.array = array
        self.shape, self.dtype, self.ndim = array.shape, array.dtype, len(array.shape)
        self._known = known
        self._kinds = kinds

    def __reduce__(self) -> tuple[Any, ...]:
        return FlaggedFrames, (self.array, self._known, self._kinds)

    def __dask_tokenize__(self) -> Any:
        return FlaggedFrames.__name__, tokenize(self.array), self._known, self._kinds

    def __getitem__(self, key: Any) -> npt.NDArray[Any]:
        """Read as ``array`` does, with other words in place of those that are none where a pass asks for these."""
        read: npt.NDArray[Any] = self.array[key]
        against = _unpacked(self._known, self.shape[:2])
        events = key[0] if isinstance(key, tuple) else key
        kinds = self._kinds or met(int(np.bitwise_or.reduce(against[events], axis=None)))
        if not kinds:
            return read
        bad = (np.broadcast_to(against[:, :, None, None], self.shape)[key] & np.uint8(kinds)) != 0
        return np.where(bad, _other_words(read), read)

    def against(self, events: slice, segments: slice) -> npt.NDArray[np.uint8]:
        """Bits of what is known of some segments of some events."""
        return _unpacked(self._known, self.shape[:2])[events, segments]

    def others(self, kinds: int) -> FlaggedFrames:
        """The same with other words wherever something of these kinds is known against a segment."""
        return FlaggedFrames(self.array, self._known, kinds)


def _other_words(words: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """A number that each of some is not: as far from it as the type goes."""
    if words.dtype.kind == "f":
        at, other = np.isnan(words), words.dtype.type(np.nan)
    else:
        other = np.iinfo(words.dtype).max
        at = words == other
    out = np.full_like(words, other)
    out[at] = 0
    return out


@lru_cache(maxsize=16)
def _unpacked(known: bytes, shape: tuple[int, int]) -> npt.NDArray[np.uint8]:
    return np.frombuffer(zlib.decompress(known), np.uint8).reshape(shape)


def flagged(frames: da.Array, present: npt.NDArray[np.bool_] | None, damage: npt.NDArray[Any] | None) -> da.Array:
    """Let lazy frames know which of their segments are missing or damaged.

    Parameters
    ----------
    frames
        Lazy frames (event, segment, row, column) that nothing has touched.
    present, damage
        What is known of each (event, segment), as the coordinates say it.
    """
    source = source_behind(frames)
    against = np.zeros(frames.shape[:2], np.uint8)
    for kind, bad in ((MISSING, None if present is None else present != 1), (DAMAGED, damage)):
        if bad is not None:
            against[np.broadcast_to(np.asarray(bad != 0), against.shape)] |= np.uint8(kind)
    if source is None or isinstance(source, np.ndarray) or frames.dtype.kind not in "iuf" or not against.any():
        return frames
    told = FlaggedFrames(source, zlib.compress(against.tobytes(), 1))
    name = f"{frames.name}-flagged-{tokenize(told._known)}"
    return da.from_array(told, frames.chunks, name=name, asarray=False, meta=np.empty((0,) * frames.ndim, frames.dtype))


def knows_flags(graph: HighLevelGraph) -> bool:
    """Whether some frames in a graph know that segments of theirs are missing or damaged."""
    held = (layer.values() for layer in graph.layers.values() if layer.is_materialized() and len(layer) == 1)
    return any(isinstance(getattr(x, "value", x), FlaggedFrames) for values in held for x in values)


def with_others(tasks: Mapping[Any, Any], kinds: int) -> dict[Any, Any]:
    """What some tasks would be with other words in place of those that are none, by the key of each that changes."""
    graph = convert_legacy_graph(dict(tasks))
    changed: dict[Any, Any] = {}
    for key in order(graph):
        task = graph[key]
        held = getattr(task, "value", None)
        if isinstance(held, FlaggedFrames):
            changed[key] = DataNode(_other_key(key), held.others(kinds))
        elif below := {dep: _other_key(dep) for dep in task.dependencies if dep in changed}:
            changed[key] = task.substitute(below, key=_other_key(key))
    return changed


def differing(a: Any, b: Any) -> bool:
    """Whether two arrays that were computed alike are others; NaN is like NaN."""
    a, b = np.asarray(a), np.asarray(b)
    return a.shape != b.shape or not bool(np.all((a == b) | ((a != a) & (b != b))))


def told_of_moved(kinds: int) -> str:
    """Say that values rest on what is none although no coordinate says so, and what to type instead."""
    rules = {MISSING: (PRESENT, f"raw[{PRESENT!r}]"), DAMAGED: (DAMAGE, f"(raw[{DAMAGE!r}] == 0)")}
    known = [rule for kind, rule in rules.items() if kind & (kinds or MISSING)]
    return (
        "some values rest on segments that are missing or damaged, and no coordinate says so (shift, roll, rolling, "
        "diff and a mean over events leave it behind, arithmetic of two arrays and drop_vars lose it): they are left "
        "out, with those that the coordinates name. Calibrate first, or "
        f"raw.where({' & '.join(text for _, text in known)}).drop_vars({[name for name, _ in known]}): "
        "NaN goes where the values go"
    )


def _other_key(key: Any) -> Any:
    return (f"other-{key[0]}", *key[1:]) if isinstance(key, tuple) else f"other-{key}"
