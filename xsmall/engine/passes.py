"""Passes over frames that are planned, so that another one over the same frames can take them along.

A cube of images reads and calibrates all frames; reductions of these frames do so too. Where both are in one
computation the cube's tasks run the records of the reductions as well: its graph has, under the name of the layer that
they come from, tasks that take their packets out of those of the cube. Graphs that are merged have one layer of a name,
that of the last. The packets are the same to the bit, so it is never wrong which of the two that is.
"""

from __future__ import annotations

import math
from collections import OrderedDict
from collections.abc import Iterable, Mapping, Sequence
from itertools import accumulate, pairwise
from threading import Lock
from typing import Any, Final, NamedTuple

import dask
import dask.array as da
import numpy as np
import numpy.typing as npt
from dask._task_spec import Task, TaskRef
from dask.delayed import Delayed
from dask.highlevelgraph import HighLevelGraph, MaterializedLayer

from xsmall.detector.frames import Frames
from xsmall.engine.blocks import Batch
from xsmall.engine.packets import Results
from xsmall.engine.record import Record

__all__ = ["PlannedPass", "passes_behind", "remember_pass", "source_token", "taken_along", "with_packets_of"]

_MOST: Final = 512
_PASSES: Final[OrderedDict[str, PlannedPass]] = OrderedDict()
_LOCK: Final = Lock()


class PlannedPass(NamedTuple):
    """A pass of records over frames that are read block by block."""

    source: str
    """Says which frames it reads, and how floats are made of them, see :func:`source_token`."""
    energy: npt.NDArray[np.float64] | None
    """Photon energy of each event, where they differ."""
    records: Mapping[str, Record]
    frames: Frames
    sizes: tuple[int, ...]
    """Events of its blocks."""

    @property
    def result_bytes(self) -> int:
        """Bytes of all that comes out; lists count as what they hold at the least."""
        outputs = (o for record in self.records.values() for o in record.outputs(self.frames).values())
        per_event = sum(o.array_dtype.itemsize * math.prod(o.array_shape) for o in outputs)
        return per_event * sum(self.sizes)

    def bare(self) -> PlannedPass:
        """What a task needs of it: the energies come with the frames."""
        return self if self.energy is None else self._replace(energy=self.energy[:0])


def source_token(batch: Batch, transform: object) -> str:
    """Say which frames are read and what makes floats of them; photon energies are another matter."""
    token: str = dask.base.tokenize(*batch._replace(energy=None), transform)
    return token


def remember_pass(name: str, made: PlannedPass) -> None:
    """Keep a pass by the name of the layer of its packets."""
    with _LOCK:
        _PASSES[name] = made
        _PASSES.move_to_end(name)
        while len(_PASSES) > _MOST:
            _PASSES.popitem(last=False)


def passes_behind(arrays: Iterable[Any]) -> dict[str, PlannedPass]:
    """Passes that lazy arrays come from, by the name of the layer of their packets."""
    graphs = {id(array.dask): array.dask for array in arrays if isinstance(array, da.Array)}
    return {name: _PASSES[name] for graph in graphs.values() for name in graph.layers if name in _PASSES}


def taken_along(
    passes: Mapping[str, PlannedPass], tasks: Sequence[Delayed], borders: Sequence[tuple[int, int]]
) -> HighLevelGraph:
    """Make the graph in which the packets of passes come from tasks that ran their records.

    Parameters
    ----------
    passes
        The passes by the name of their layer, in the order of the results that each task returns beside its own: a list
        of :data:`Results`, of its events.
    tasks
        The tasks.
    borders
        First and last event of each.
    """
    whole = HighLevelGraph.merge(*(task.dask for task in tasks))
    below = {task.__dask_layers__()[0] for task in tasks}
    layers, dependencies = dict(whole.layers), dict(whole.dependencies)
    for number, (name, made) in enumerate(passes.items()):
        packets: dict[Any, Any] = {}
        for i, (start, stop) in enumerate(pairwise(accumulate((0, *made.sizes)))):
            own = [
                (task.key, (max(a, start) - a, min(b, stop) - a))
                for task, (a, b) in zip(tasks, borders, strict=True)
                if a < stop and b > start
            ]
            refs = (TaskRef(key) for key, _ in own)
            packets[name, i] = Task((name, i), _packet, number, [span for _, span in own], *refs)
        layers[name], dependencies[name] = MaterializedLayer(packets), below
    return HighLevelGraph(layers, dependencies)


def _packet(number: int, spans: list[tuple[int, int]], *made: tuple[Any, list[Results]]) -> Results:
    """The packet of a block: some events of what tasks found."""
    parts = [
        {key: values[start:stop] for key, values in found[number].items()}
        for (_, found), (start, stop) in zip(made, spans, strict=True)
    ]
    return {key: np.concatenate([part[key] for part in parts]) for key in parts[0]}


def with_packets_of(array: Any, graph: HighLevelGraph) -> Any:
    """The same lazy array, with the packets of the passes behind it from another graph that makes them."""
    if not isinstance(array, da.Array) or not passes_behind([array]).keys() & graph.layers.keys():
        return array
    merged = HighLevelGraph.merge(array.dask, graph)
    return da.Array(merged, array.name, chunks=array.chunks, dtype=array.dtype, meta=array._meta)
