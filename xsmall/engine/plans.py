"""What a lazy result will cost, told before it is computed."""

from __future__ import annotations

import math
from collections import OrderedDict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from threading import Lock
from typing import Any

import dask
from dask.utils import format_bytes

from xsmall.engine.blocks import BATCH_BYTES, Batch
from xsmall.engine.machine import machine
from xsmall.engine.progress import expect
from xsmall.engine.record import GROUP, Output
from xsmall.engine.rule import Rule
from xsmall.errors import DataError

__all__ = ["Plan", "Plans", "plan", "remember"]


@dataclass(frozen=True)
class Plan:
    """What one pass over frames costs.

    Attributes
    ----------
    what
        What is computed.
    bytes_to_read
        Raw bytes that are read, each as often as it is.
    tasks
        Tasks that read.
    peak_bytes
        What one process uses at the most, what it has imported and finished results aside.
    result_bytes
        Bytes of all that comes out.
    machine
        Who it is planned for.
    events
        Events that are read, each as often as it is.
    """

    what: str
    bytes_to_read: int
    tasks: int
    peak_bytes: int
    result_bytes: int
    machine: str
    events: int = 0
    packets: str = ""
    """Layer of the graph that reads, which another pass may take along."""
    along: tuple[str, ...] = ()
    """Those that this one takes along."""
    lists: int = 0
    """Variables of lists, whose lengths nobody knows: they are in no number."""

    def _lists(self) -> str:
        return f", and {self.lists} variables of lists, as long as they are" if self.lists else ""

    def __str__(self) -> str:
        return (
            f"{self.what}\n"
            f"  to read:          {format_bytes(self.bytes_to_read)}\n"
            f"  tasks:            {self.tasks}\n"
            f"  peak per process: {format_bytes(self.peak_bytes)}\n"
            f"  result:           {format_bytes(self.result_bytes)}{self._lists()}\n"
            f"  planned for:      {self.machine}"
        )


class Plans(tuple[Plan, ...]):
    """The passes of some lazy results; prints what each costs, and has their sums.

    Attributes
    ----------
    bytes_to_read, tasks, result_bytes
        Sums over all passes.
    peak_bytes
        The largest peak of any.
    """

    __slots__ = ()

    @property
    def bytes_to_read(self) -> int:
        """Raw bytes that all passes read."""
        return sum(p.bytes_to_read for p in self)

    @property
    def tasks(self) -> int:
        """Tasks of all passes."""
        return sum(p.tasks for p in self)

    @property
    def result_bytes(self) -> int:
        """Bytes of all results."""
        return sum(p.result_bytes for p in self)

    @property
    def peak_bytes(self) -> int:
        """What one process uses at the most."""
        return max((p.peak_bytes for p in self), default=0)

    def __repr__(self) -> str:
        return "\n".join(map(str, self)) or "nothing to read: all of it is in memory, or no pass over frames"


_PLANS: OrderedDict[str, Plan] = OrderedDict()
_LOCK = Lock()
_MOST = 4096
_SUMS_KEPT = 4
"""How often a thread holds what sums over events need: its own, two that are joined, and what comes of them."""


def remember(name: str, made: Plan) -> None:
    """Keep the plan behind a dask array, by its name."""
    expect(name, made)
    with _LOCK:
        _PLANS[name] = made
        _PLANS.move_to_end(name)
        while len(_PLANS) > _MOST:
            _PLANS.popitem(last=False)


def plan(*results: Any) -> Plans:
    """Tell what lazy results will cost: bytes to read, tasks and peak memory of each pass over frames.

    Parameters
    ----------
    *results
        What ``.sd.cube``, ``.sd.average``, ``.sd.reduce`` or a method of one reduction returned, or anything made of
        it: Datasets or DataArrays. A pass that several share is told once, and so are the reductions and images of the
        same frames that one pass computes: it is the plan of ``dask.compute(*results)``, in this order. Small data
        behind a cube that takes them along, ``(cube, small)``, are a pass of their own there.

    Returns
    -------
    The passes; printed, a few lines for each. Of a result in memory there is none.

    Raises
    ------
    DataError
        Something that is no Dataset, DataArray or dask array.

    Notes
    -----
    Nothing is computed. What is planned is what this process built last; results opened from a file have no plan.

    Examples
    --------
    >>> import xsmall as xs
    >>> sim = xs.simulate(400, shape=(1, 64, 64), seed=1)
    >>> mean = sim.run["jungfrau/raw"].sd.calibrate(sim.constants).sd.average()
    >>> xs.plan(mean).bytes_to_read == 400 * 64 * 64 * 2
    True
    """
    found: dict[str, Plan] = {}
    last: dict[str, Any] = {}  # layers of the last graph that has one of this name: those that dask computes
    for result in results:
        if not dask.is_dask_collection(result) and not hasattr(result, "dims"):
            raise DataError(
                "only results have a plan", found=type(result).__name__, expected="a Dataset or DataArray",
                fix="xs.plan(result)",
            )  # fmt: skip
        graph = result.__dask_graph__() if dask.is_dask_collection(result) else None
        layers = getattr(graph, "layers", {})
        last |= dict.fromkeys(layers, layers)
        found |= {name: _PLANS[name] for name in layers if name in _PLANS}
    along = {packets for name, made in found.items() for packets in made.along if name in last.get(packets, ())}
    each = {id(made): made for made in found.values()}
    return Plans(made for made in each.values() if made.packets not in along)


def plan_of_pass(
    batches: Sequence[Batch], outputs: Iterable[Output], sizes: tuple[int, ...], what: str, packets: str
) -> Plan:
    """What a pass of records will cost: each thread reads a batch, and holds the results of a block."""
    who = machine()
    frames = batches[0].frames
    n, shape = frames.shape[0], frames.shape[1:]
    read = at_once = floats = 0
    for batch in batches:
        for array in batch.lazy().values():
            together = Rule(array).together if array.ndim else 1
            read += array.nbytes
            at_once += min(array.nbytes, max(BATCH_BYTES, together * array.nbytes // max(1, len(array))))
        floats += GROUP * math.prod(batch.frames.shape[1:]) * 8 * (2 if batch.variance is not None else 1)
    told = list(outputs)
    result, summed = (
        sum(o.array_dtype.itemsize * math.prod(o.array_shape) for o in told if o.summed == of_all)
        for of_all in (False, True)
    )
    return Plan(
        what=f"{what} of {n} events of {' x '.join(map(str, shape))} pixels",
        bytes_to_read=read,
        tasks=len(sizes),
        peak_bytes=who.threads * (at_once + floats + 2 * result * max(sizes, default=0) + _SUMS_KEPT * summed),
        result_bytes=result * n + summed,
        machine=str(who),
        events=n * len(batches),
        packets=packets,
        lists=sum(o.is_ragged for o in told),
    )
