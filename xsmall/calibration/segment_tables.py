"""Tables of a detector, made segment by segment where they are used: the graph carries what makes them."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Mapping
from itertools import pairwise
from threading import Lock
from typing import Any, Generic, TypeVar, cast
from weakref import WeakValueDictionary

import dask
import dask.array as da
import numpy as np
from dask.delayed import Delayed

from xsmall.engine.blocks import rests_on_futures

__all__ = ["SegmentTables", "make_tables"]

T = TypeVar("T")

_OF_CELLS = 5  # dims of constants (memory cell, ..., segment, row, column)


class SegmentTables(ABC, Generic[T]):
    """Builds a segment's tables on first use and keeps them as long as it lives.

    Pickles only what it was made of, and each process keeps one instance per token: so a graph carries constants that
    are lazy as what reads them, and a process reads each segment once.

    Parameters
    ----------
    token
        What stands for all arguments.
    arrays
        Constants (..., segment, row, column), NumPy or dask.
    *options
        What subclasses need more.
    """

    def __init__(self, token: str, arrays: Mapping[str, Any], *options: Any) -> None:
        self.token = token
        self._arrays = dict(arrays)
        self._options = options
        self._made: dict[int, T] = {}
        self._locks: dict[int, Lock] = {}

    @abstractmethod
    def pack(self, held: Mapping[str, Any]) -> T:
        """Make the tables of a segment of its constants (..., row, column), which are in memory."""

    def of_segment(self, s: int) -> T:
        """Tables of segment ``s``; threads that ask at the same time wait for one of them to make these.

        Segments that lie in one chunk of lazy constants are read, and made, together.
        """
        made = self._made.get(s)
        if made is not None:
            return made
        first, stop = self._together(s)
        with self._locks.setdefault(first, Lock()):
            if s not in self._made:
                part = {name: array[..., first:stop, :, :] for name, array in self._arrays.items()}
                read = dask.compute(part, scheduler="synchronous")[0]
                for i in range(first, stop):
                    self._made[i] = self.pack({name: array[..., i - first, :, :] for name, array in read.items()})
            return self._made[s]

    def whole(self, cell: int) -> dict[str, Any]:
        """Read the constants of one memory cell of all segments; those without memory cells as they are."""
        part = {n: array[cell : cell + 1] if array.ndim == _OF_CELLS else array for n, array in self._arrays.items()}
        read: dict[str, Any] = dask.compute(part, scheduler="synchronous")[0]
        return read

    def _together(self, s: int) -> tuple[int, int]:
        """First and last segment, exclusive, of the chunk that ``s`` lies in: the longest among the lazy constants."""
        found = s, s + 1
        for array in self._arrays.values():
            if isinstance(array, da.Array):
                edges = pairwise(np.cumsum((0, *array.chunks[-3])).tolist())
                mine = next(edge for edge in edges if edge[0] <= s < edge[1])
                found = max(found, mine, key=lambda edge: edge[1] - edge[0])
        return found

    def __reduce__(self) -> tuple[Any, ...]:
        return _build, (type(self), self.token, self._arrays, *self._options)

    def __dask_tokenize__(self) -> str:
        return self.token


class _TablesRule:
    """What tables are made of, as one opaque object: dask would read the constants in it."""

    __slots__ = ("arguments",)

    def __init__(self, *arguments: Any) -> None:
        self.arguments = arguments

    def __reduce__(self) -> tuple[Any, ...]:
        return _TablesRule, self.arguments


_READY: WeakValueDictionary[str, Any] = WeakValueDictionary()
_LATEST: deque[Any] = deque(maxlen=2)
"""What was asked for last (values and flags of a run, say) stays, so that looking again does not read again."""
_READY_LOCK = Lock()


def _build(kind: type[Any], token: str, arrays: Mapping[str, Any], *options: Any) -> Any:
    with _READY_LOCK:
        ready = _READY.get(token)
        if ready is None:
            ready = _READY[token] = kind(token, arrays, *options)
        if not any(kept is ready for kept in _LATEST):
            _LATEST.append(ready)
        return ready


def _tables_of_rule(rule: _TablesRule) -> Any:
    return _build(*rule.arguments)


K = TypeVar("K", bound=SegmentTables[Any])


def make_tables(kind: type[K], arrays: Mapping[str, Any], *options: Any, lazy: bool) -> K | Delayed:
    """Make tables of a kind; with ``lazy`` say how: then they live as long as they are used, not as the graph does.

    The graph holds the rule alone. Constants that a cluster holds are brought by its scheduler.
    """
    names = {name: array.name if isinstance(array, da.Array) else array for name, array in arrays.items()}
    token = str(dask.base.tokenize(kind.__name__, names, options))
    key = f"{kind.__name__}-{token}"
    if any(map(rests_on_futures, arrays.values())):
        build = dask.delayed(_build, name=False, pure=False, traverse=False)
        constants = dask.delayed(dict(arrays), name=f"constants-{token}")
        return cast("Delayed", build(kind, token, constants, *options, dask_key_name=key))
    if not lazy:
        return cast("K", _build(kind, token, arrays, *options))
    rule = dask.delayed(_TablesRule(kind, token, dict(arrays), *options), name=f"rule-{token}", traverse=False)
    return cast("Delayed", dask.delayed(_tables_of_rule, name=False, pure=False)(rule, dask_key_name=key))
