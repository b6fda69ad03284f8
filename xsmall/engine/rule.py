"""The rule by which events of a lazy array come about: read from its source, or computed chunk by chunk.

A task must not carry the graph of a run. What it carries is the rule for its own events: of an array that lies in a
file the object that reads it; of any other the tasks that its chunks need, found by walking down the graph from them.
Either is as small for a run of a million events as for one of a thousand.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from itertools import product
from typing import Any, NamedTuple

import dask.array as da
import numpy as np
import numpy.typing as npt
from dask._task_spec import GraphNode, convert_legacy_graph
from dask.array.core import getter, getter_inline, getter_nofancy
from dask.array.optimization import optimize
from dask.blockwise import Blockwise, BlockwiseDep
from dask.core import get, keys_in_tasks
from dask.layers import ArraySliceDep

__all__ = ["Rule", "read_together", "source_behind"]

DaskKey = Any
Tasks = dict[DaskKey, Any]
_READERS = (getter, getter_inline, getter_nofancy)
_MOST_WRAPPERS = 6
_FEW_TASKS = 3
_LARGE = 1 << 16  # bytes of an array that blocks share rather than carry
_ATTACHED = ""  # name of the layer of what was lent


class Axis(NamedTuple):
    """Borders of the chunks along an axis, and the number of the first chunk that they tell of."""

    borders: npt.NDArray[np.int64]
    first: int = 0

    @classmethod
    def of(cls, chunks: tuple[int, ...]) -> Axis:
        """Axis of all chunks."""
        return cls(np.cumsum((0, *chunks), dtype=np.int64))

    def over(self, start: int, stop: int) -> range:
        """Numbers of the chunks that hold some of the places from ``start`` to ``stop``."""
        low = int(np.searchsorted(self.borders, start, side="right")) - 1
        high = int(np.searchsorted(self.borders, stop, side="left"))
        return range(self.first + max(low, 0), self.first + max(high, low, 0))

    def place(self, chunk: int) -> tuple[int, int]:
        """First place of a chunk, and the one after its last."""
        i = chunk - self.first
        return int(self.borders[i]), int(self.borders[i + 1])

    def cut(self, chunks: range) -> Axis:
        """Keep what is known of some chunks."""
        return Axis(self.borders[chunks.start - self.first : chunks.stop - self.first + 1], chunks.start)


class Rule:
    """How the values of a dask array come about, for all of its events or for some."""

    __slots__ = ("_axes", "_layers", "_lent", "_name", "_offset", "_order", "_source", "dtype", "shape")

    def __init__(self, array: da.Array) -> None:
        self.dtype = array.dtype
        self.shape = array.shape
        self._name = array.name
        self._axes = [Axis.of(sizes) for sizes in array.chunks]
        self._source = source_behind(array)
        self._offset = 0
        self._lent: frozenset[DaskKey] = frozenset()
        self._layers: Mapping[str, Any] = {} if self._source is not None else array.dask.layers
        self._order = [] if self._source is not None else _downwards(array.dask.dependencies)

    def __getstate__(self) -> tuple[Any, ...]:
        return tuple(getattr(self, name) for name in self.__slots__)

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        for name, value in zip(self.__slots__, state, strict=True):
            setattr(self, name, value)

    @property
    def source(self) -> Any:
        """What reads the values as they are, each under its own label; None of others."""
        return self._source

    @property
    def step(self) -> int | None:
        """Events that lie together on disk, where parts of a chunk can be read; else None."""
        return None if self._source is None else _storage_step(self._source)

    @property
    def together(self) -> int:
        """Events that are read together, whoever wants one of them."""
        axis = self._axes[0].borders
        return (int(np.diff(axis).max()) if len(axis) > 1 else 1) if self.step is None else self.step

    def sizes(self, start: int, stop: int) -> list[int]:
        """Events of each chunk between two events."""
        axis = self._axes[0]
        places = [axis.place(i) for i in axis.over(start, stop)]
        return [min(b, stop) - max(a, start) for a, b in places]

    def cut(self, events: tuple[int, int], segments: slice = slice(None)) -> Rule:
        """The rule of some events, which holds what they need and no more; events keep their numbers."""
        out = self._copy()
        if self._source is not None:
            if isinstance(self._source, np.ndarray):  # data that travel
                out._offset = self._offset + events[0]
                out._source = self._source[events[0] - self._offset : events[1] - self._offset]
                out._offset = events[0]
            out._axes = [self._axes[0].cut(self._axes[0].over(*events)), *self._axes[1:]]
            return out
        chunks = self._chunks(events, segments)
        out._axes = [axis.cut(c) for axis, c in zip(self._axes, chunks, strict=True)]
        needed = [(name, found) for name, _, found, _ in self._needed(self._keys(*chunks))]
        out._layers = {
            name: _layer_part(found) if isinstance(found, Blockwise) else dict(found) for name, found in needed
        }
        out._order = [name for name, *_ in needed]
        return out

    def shared(self, one: tuple[int, int], other: tuple[int, int]) -> Tasks:
        """What two blocks of events both need, however far they are apart, by its key: a user's own dark image, say.

        It is what every block needs; where it is no more than a few bytes nothing is said of it.
        """
        if self._source is not None:
            return {}
        graphs = [list(self._needed(self._keys(*self._chunks(events, slice(None))))) for events in (one, other)]
        needed = [{key for _, _, found, _ in graph for key in found} for graph in graphs]
        common = needed[0] & needed[1]
        tops = [
            {dep for *_, deps in graph for key, of in deps.items() if key not in common for dep in of & common}
            for graph in graphs
        ]
        top = tops[0] & tops[1]
        tasks = {key: task for _, _, found, _ in graphs[0] for key, task in found.items() if key in top}
        heavy = any(not _is_small(task) for task in tasks.values())
        return tasks if heavy else {}

    def lend(self, keys: Iterable[DaskKey]) -> None:
        """Leave some tasks, and what only they need, out of what :meth:`cut` returns from now on."""
        self._lent = frozenset(keys)

    def attached(self, values: Mapping[DaskKey, Any]) -> Rule:
        """The rule with the values of what was lent."""
        out = self._copy()
        if self._lent:
            out._layers = {**self._layers, _ATTACHED: values}
            out._order = [*self._order, _ATTACHED]
            out._lent = frozenset()
        return out

    def _copy(self) -> Rule:
        out = Rule.__new__(Rule)
        out.__setstate__(self.__getstate__())
        return out

    def _chunks(self, events: tuple[int, int], segments: slice) -> list[range]:
        spans = self._spans(events, segments)
        return [axis.over(*span) for axis, span in zip(self._axes, spans, strict=True)]

    def _keys(self, *chunks: range) -> list[DaskKey]:
        return [(self._name, *i) for i in product(*chunks)]

    def read(self, events: tuple[int, int], segments: slice = slice(None)) -> npt.NDArray[Any]:
        """Make the values of some events, here and now."""
        return read_together([self], events, segments)[0]

    def _spans(self, events: tuple[int, int], segments: slice) -> list[tuple[int, int]]:
        """Range of places along each axis."""
        spans = [events, *((0, n) for n in self.shape[1:])]
        if len(spans) > 1:
            first, stop, _ = segments.indices(self.shape[1])
            spans[1] = first, stop
        return spans

    def _direct(self, spans: list[tuple[int, int]]) -> npt.NDArray[Any]:
        (start, stop), *others = spans
        whole = [slice(*span) for span in others]
        return np.asarray(self._source[(slice(start - self._offset, stop - self._offset), *whole)])

    def _layer_of(self, key: DaskKey) -> str | None:
        name = key[0] if isinstance(key, tuple) and key else key
        if key in self._layers.get(_ATTACHED, ()):
            return _ATTACHED
        if isinstance(name, str) and name in self._layers:
            layer = self._layers[name]
            if isinstance(layer, Blockwise) or key in layer:
                return name
        others = (n for n, layer in self._layers.items() if not isinstance(layer, Blockwise) and key in layer)
        return next(others, None)

    def __contains__(self, key: object) -> bool:
        """Tell whether something in a task is a key of the graph."""
        try:
            return self._layer_of(key) is not None
        except TypeError:  # what cannot be hashed, or a tuple of it
            return False

    def _needed(
        self, keys: Iterable[DaskKey]
    ) -> Iterator[tuple[str, set[DaskKey], Mapping[DaskKey, Any], Mapping[DaskKey, set[DaskKey]]]]:
        """Walk down from some keys; yields (name of a layer, keys wanted of it, its tasks, what each depends on)."""
        wanted: dict[str, set[DaskKey]] = defaultdict(set)
        for key in keys:
            wanted[str(self._layer_of(key))].add(key)
        for name in self._order:
            mine = wanted.pop(name, None)
            if not mine:
                continue
            layer = self._layers[name]
            if name == _ATTACHED:
                found, below = {key: layer[key] for key in mine}, {}
            elif isinstance(layer, Blockwise):
                found, below = layer.cull(mine, ())
            else:
                found, below = self._walk(layer, mine)
            for dep in {dep for deps in below.values() for dep in deps} - self._lent:
                of = self._layer_of(dep)
                if of is None:
                    raise KeyError(dep)
                if of != name:
                    wanted[of].add(dep)
            yield name, mine, found, below

    def _walk(self, layer: Mapping[DaskKey, Any], keys: set[DaskKey]) -> tuple[Tasks, dict[DaskKey, set[DaskKey]]]:
        """Tasks of a layer that some of its keys need, and what each depends on."""
        tasks: Tasks = {}
        below: dict[DaskKey, set[DaskKey]] = {}
        waiting = list(keys)
        while waiting:
            key = waiting.pop()
            if key in tasks:
                continue
            task = tasks[key] = layer[key]
            known = getattr(task, "dependencies", None)
            deps = set(keys_in_tasks(self, [task]) if known is None else known) - self._lent
            waiting += [dep for dep in deps if dep in layer]
            below[key] = deps
        return tasks, below

    def tasks(self, keys: Iterable[DaskKey]) -> Tasks:
        """Everything that some keys need."""
        return {key: task for _, _, found, _ in self._needed(keys) for key, task in found.items()}


def read_together(rules: list[Rule], events: tuple[int, int], segments: slice = slice(None)) -> list[npt.NDArray[Any]]:
    """Make the values of some events of several arrays; what they share is made once."""
    spans = [rule._spans(events, segments) for rule in rules]
    chunks = [
        None if rule._source is not None else [a.over(*s) for a, s in zip(rule._axes, span, strict=True)]
        for rule, span in zip(rules, spans, strict=True)
    ]
    tasks: Tasks = {}
    keys: list[list[DaskKey]] = []
    for rule, found in zip(rules, chunks, strict=True):
        mine = [] if found is None else [(rule._name, *i) for i in product(*found)]
        tasks |= rule.tasks(mine) if mine else {}
        keys.append(mine)
    if any(str(_layer_name(key)).startswith("getitem") for key in tasks):
        tasks = dict(optimize(tasks, keys))  # slices go down into what reads
    made = _computed(tasks, keys)
    return [
        rule._direct(span) if found is None else _chunks_joined(rule, span, list(product(*found)), blocks)
        for rule, span, found, blocks in zip(rules, spans, chunks, made, strict=True)
    ]


def _computed(tasks: Tasks, keys: list[list[DaskKey]]) -> list[list[Any]]:
    """Compute some keys. A chunk of frames is mostly a task or two, of which dask finds the order for longer than this.

    What few tasks make on the way is held until the last is done, which is no more than that one takes anyway.
    """
    if len(tasks) > _FEW_TASKS:
        return get(tasks, keys)  # type: ignore[no-any-return]
    graph, values = convert_legacy_graph(tasks), dict[DaskKey, Any]()
    waiting = [key for of in keys for key in of]
    while waiting:
        key = waiting.pop()
        missing = [needed for needed in graph[key].dependencies if needed not in values]
        if missing:
            waiting += [key, *missing]
        elif key not in values:
            values[key] = graph[key](values)
    return [[values[key] for key in of] for of in keys]


def _chunks_joined(rule: Rule, spans: list[tuple[int, int]], chunks: list[Any], blocks: list[Any]) -> npt.NDArray[Any]:
    """Put chunks side by side, each copied once; a single one is handed out as it is."""
    out = None if len(chunks) == 1 else np.empty([b - a for a, b in spans], rule.dtype)
    for at, block in zip(chunks, blocks, strict=True):
        places = [axis.place(i) for axis, i in zip(rule._axes, at, strict=True)]
        common = [(max(a, low), min(b, high)) for (a, b), (low, high) in zip(spans, places, strict=True)]
        part = block[tuple(slice(a - low, b - low) for (a, b), (low, _) in zip(common, places, strict=True))]
        if out is None:
            return np.asarray(part)
        out[tuple(slice(a - low, b - low) for (a, b), (low, _) in zip(common, spans, strict=True))] = part
    return np.empty([b - a for a, b in spans], rule.dtype) if out is None else out


def _is_small(task: object) -> bool:
    """Tell whether something in a graph is data of few bytes, or an object that reads them; anything else is work."""
    held = getattr(task, "value", None if isinstance(task, GraphNode) else task)  # dask wraps data in a DataNode
    if held is None or callable(held) or isinstance(held, tuple | list | str):
        return _is_source(held)
    return _is_source(held) or getattr(held, "nbytes", 0) < _LARGE


def _is_source(held: object) -> bool:
    return hasattr(held, "__getitem__") and hasattr(held, "shape") and not isinstance(held, np.ndarray)


def _layer_name(key: DaskKey) -> Any:
    return key[0] if isinstance(key, tuple) else key


def _downwards(dependencies: Mapping[str, Iterable[str]]) -> list[str]:
    """Names of layers, each before those that it depends on."""
    order: list[str] = []
    seen: set[str] = set()
    for first in dependencies:
        waiting = [(first, False)]
        while waiting:
            name, done = waiting.pop()
            if done:
                order.append(name)
            elif name not in seen:
                seen.add(name)
                waiting.append((name, True))
                waiting += [(below, False) for below in dependencies.get(name, ())]
    return order[::-1]


def source_behind(array: da.Array) -> Any:
    """What is behind an array that ``da.from_array`` made and nothing has touched since; else None."""
    layers = array.dask.layers
    top = layers.get(array.name)
    if len(layers) > 2 or not isinstance(top, Blockwise) or top.task.func not in _READERS or len(top.indices) != 2:
        return None
    (source, whole), (part, _) = top.indices
    slices = top.io_deps.get(part)
    plain = len(top.task.args) == 2 and not (top.task.kwargs or {}).get("lock")
    if whole is not None or not isinstance(slices, ArraySliceDep) or slices.chunks != array.chunks or not plain:
        return None
    key = getattr(source, "key", None)
    if isinstance(key, str) and key in layers:
        held = layers[key][key]
        source = getattr(held, "value", held)
    if isinstance(source, np.ndarray | da.Array) or getattr(source, "ndim", array.ndim) != array.ndim:
        return source if isinstance(source, np.ndarray) and source.ndim == array.ndim else None
    return source if hasattr(source, "__getitem__") else None


def _storage_step(source: Any) -> int | None:
    """Events that lie together where an array is kept: it says so, or has chunks; None where nobody knows."""
    if isinstance(source, np.ndarray):
        return 1
    for _ in range(_MOST_WRAPPERS):
        said = getattr(source, "storage_events", None)
        chunks = getattr(source, "shards", None) or getattr(source, "chunks", None)
        if isinstance(said, int):
            return said
        if isinstance(chunks, tuple) and chunks and isinstance(chunks[0], int):
            return max(1, chunks[0])
        if type(source).__module__.startswith("h5py") and getattr(source, "chunks", 0) is None:
            return 1  # contiguous: any part can be read
        inner = getattr(source, "array", None)  # xarray's wrappers of what it has opened
        source = getattr(source, "_array", None) if inner is None else inner
        if source is None:
            break
    return None


class _Slices(BlockwiseDep):  # type: ignore[misc]
    """The slices of some chunks of an array: what :class:`dask.layers.ArraySliceDep` says of all of them."""

    produces_tasks = False

    def __init__(self, whole: ArraySliceDep, wanted: set[tuple[int, ...]]) -> None:
        self.numblocks = whole.numblocks
        axes = [sorted(set(along)) for along in zip(*wanted, strict=True)]
        self._places = [
            {i: (start[i], start[i + 1]) for i in along} for along, start in zip(axes, whole.starts, strict=True)
        ]

    def __getitem__(self, idx: tuple[int, ...]) -> tuple[slice, ...]:
        return tuple(slice(*place[i], None) for place, i in zip(self._places, idx, strict=True))


class _FewChunks(BlockwiseDep):  # type: ignore[misc]
    """What a rule of dask's says of some chunks."""

    produces_tasks = False

    def __init__(self, whole: BlockwiseDep, wanted: set[tuple[int, ...]]) -> None:
        self.numblocks = whole.numblocks
        self._values = {i: whole[i] for i in wanted}

    def __getitem__(self, idx: tuple[int, ...]) -> Any:
        return self._values[idx]


def _layer_part(layer: Blockwise) -> Blockwise:
    """A layer that was culled, without what it says of other chunks."""
    blocks = {key[1:] for key in layer.get_output_keys()}
    deps = {}
    at = {symbol: i for i, symbol in enumerate(layer.output_indices)}
    indices = {name: index for name, index in layer.indices if index is not None and isinstance(name, str)}
    for name, dep in layer.io_deps.items():
        index = indices.get(name)
        if index is None or dep.produces_tasks or dep.produces_keys or any(symbol not in at for symbol in index):
            deps[name] = dep
            continue
        wanted = {tuple(0 if n == 1 else b[at[i]] for i, n in zip(index, dep.numblocks, strict=True)) for b in blocks}
        few = isinstance(dep, ArraySliceDep) and bool(wanted) and bool(index)
        deps[name] = _Slices(dep, wanted) if few else _FewChunks(dep, wanted)
    return Blockwise(
        layer.output, layer.output_indices, layer.task, layer.indices, layer.numblocks,
        concatenate=layer.concatenate, new_axes=layer.new_axes, output_blocks=blocks, annotations=layer.annotations,
        io_deps=deps,
    )  # fmt: skip
