"""What a reduction is: a record that says what it returns and makes the reducer that computes it.

A record is a frozen dataclass, small and picklable; it holds rules and arguments, never tables. The engine
(:mod:`xsmall.engine.one_pass`) asks it three things: what comes back (:meth:`Record.outputs`), which coordinates label
that (:meth:`Record.coords`), and, where the frames are, for a :class:`Reducer` that does the work.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from inspect import get_annotations
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import numpy.typing as npt

from xsmall.calls import tells_its_names
from xsmall.detector.frames import Frames
from xsmall.engine.asked import Remembering, chained
from xsmall.errors import ArgumentError, ParameterError

if TYPE_CHECKING:
    import xarray as xr


def no_record(following: Any) -> Any:
    """What ``record | following`` gives where what follows is no record; a function is told how to become one."""
    if not callable(following) or hasattr(following, "__ror__"):
        return NotImplemented
    name = getattr(following, "__name__", "")
    raise ArgumentError(
        "a function becomes a record before it follows another",
        found=f"| {name if name.isidentifier() else 'a function'}",
        expected="a record",
        fix="xs.photon(9.5, image=True) | xs.record(lambda frame: np.nansum(frame))",
    )


@tells_its_names
@dataclass(frozen=True)
class Output:
    """One variable of a record's result, for one event (the dim ``event`` is put in front by the engine).

    A list whose length differs between events has the shape ``(None,)``: its reducer returns an array of objects (k,),
    each a 1-D array of ``dtype``; see :mod:`xsmall.events.ragged`. What is made of all events together is ``summed``:
    it has no dim ``event``, and comes from :meth:`Reducer.totals`.
    """

    dims: tuple[str, ...]
    shape: tuple[int | None, ...]
    dtype: np.dtype[Any]
    attrs: Mapping[str, Any] = field(default_factory=dict)
    summed: bool = False

    @property
    def is_ragged(self) -> bool:
        """Whether the variable is a list of its own length in each event."""
        return self.shape == (None,)

    @property
    def array_shape(self) -> tuple[int, ...]:
        """Shape of what the reducer returns for one event."""
        return () if self.is_ragged else tuple(n for n in self.shape if n is not None)

    @property
    def array_dtype(self) -> np.dtype[Any]:
        """Dtype of what the reducer returns."""
        return np.dtype(object) if self.is_ragged else self.dtype


@dataclass(frozen=True)
class Input:
    """Something of each event that a record takes beside the frames.

    Parameters
    ----------
    keyword
        Its name for the record.
    name
        Its name in the pass; two records may take the same thing under names of their own.
    shape, dtype
        Of what it has for one event.
    """

    keyword: str
    name: str
    shape: tuple[int, ...]
    dtype: np.dtype[Any]


GROUP = 4
"""Events that go through the reducers together: four hide the latency of scattered sums and still fit the cache."""
MANY = 64
"""The same where all reducers take one event after the other, and frames are there as they are or fit the cache."""
IN_CACHE = 2 * 2**20
"""Bytes of frames that are made of what is read, and are still in the cache when they are reduced."""


def together(reducers: Iterable[Reducer], event_bytes: int = 0) -> int:
    """Events that go through reducers together; ``event_bytes`` are made of each, 0 where it is there as it is."""
    most = min((reducer.most_together for reducer in reducers), default=GROUP)
    return min(most, max(GROUP, IN_CACHE // event_bytes)) if event_bytes else most


class Totals(ABC):
    """What a reducer has gathered of all its events, which can be joined with that of others, in any order.

    Examples
    --------
    >>> import numpy as np, xsmall as xs
    >>> class Counts(xs.Totals):
    ...     def __init__(self, counts):
    ...         self.counts = counts
    ...
    ...     def joined(self, other):
    ...         return Counts(self.counts + other.counts)
    ...
    ...     def finish(self):
    ...         return {"counts": self.counts}
    ...
    ...     def arrays(self):
    ...         return {"counts": self.counts}
    >>> Counts(np.array([1, 0])).joined(Counts(np.array([2, 5]))).finish()["counts"].tolist()
    [3, 5]
    """

    @abstractmethod
    def joined(self, other: Any) -> Totals:
        """Make what was gathered of both, changing neither; it must not depend on the order, bit for bit."""

    @abstractmethod
    def finish(self) -> Mapping[str, npt.NDArray[Any]]:
        """Return the variables that are summed."""

    @abstractmethod
    def arrays(self) -> dict[str, npt.NDArray[Any]]:
        """Return all that was gathered as arrays by their keys; not copies: what is written to them is gathered."""


class Reducer(ABC):
    """Computes the variables of one record for one group of events after the other.

    The engine calls ``begin(k)``, then ``add(s, frames)`` once for each segment in order, then ``end()``; and so on
    for the next group. One reducer is used by one thread. A group has at most ``most_together`` events; results must
    not depend on how events are grouped, bit for bit.
    """

    energy: npt.NDArray[np.float64] | None = None
    """Photon energies (k,) in eV of the group that begins, set by the engine where they differ between events."""

    most_together: int = GROUP
    """Events of a group at most; :data:`MANY` where compiled code takes one after the other, and a group is a call."""

    takes_whole_frames: ClassVar[bool] = False
    """Whether the engine calls :meth:`whole` once for each group, in place of :meth:`add` for each segment."""

    takes_entries: bool = False
    """Whether the engine may call :meth:`entries` once for each event of sparse frames, in place of :meth:`add`."""

    beside: Mapping[str, tuple[npt.NDArray[Any], npt.NDArray[np.bool_]]] = {}
    """What lies beside the frames of the group that begins, by its name in the pass: values (k, ...), and which events
    have them (k,)."""

    @abstractmethod
    def begin(self, k: int) -> None:
        """Start a group of ``k`` events."""

    @abstractmethod
    def add(
        self,
        s: int,
        frames: npt.NDArray[np.floating[Any]],
        variance: npt.NDArray[np.floating[Any]] | None = None,
    ) -> None:
        """Take segment ``s`` (a position, not a label) of the group: (k, row, column), NaN where not valid.

        ``variance`` is that of each value, of the same shape, and comes when ``Frames.variance`` is set. The arrays
        are the engine's buffers: they must neither be kept nor written to.
        """

    def whole(
        self, frames: npt.NDArray[np.floating[Any]], variance: npt.NDArray[np.floating[Any]] | None, here: Any
    ) -> None:
        """Take the group: (k, segment, row, column), and which events have a segment at all (k,); see :meth:`add`."""
        raise NotImplementedError(f"{type(self).__name__} takes whole frames and does not say how")

    def never(self, pixels: npt.NDArray[np.int64]) -> None:
        """Hear, before all else, which pixels of sparse frames are valid in no event."""
        raise NotImplementedError(f"{type(self).__name__} takes entries and does not say how")

    def entries(self, j: int, pixel: npt.NDArray[Any], value: npt.NDArray[Any], lost: npt.NDArray[np.int64]) -> None:
        """Take event ``j`` of the group: which of its pixels are not zero, in order, their values, and the lost ones.

        Pixels are counted over segment, row and column. ``lost`` is the same array where events lack the same pixels.
        """
        raise NotImplementedError(f"{type(self).__name__} takes entries and does not say how")

    @abstractmethod
    def end(self) -> Mapping[str, npt.NDArray[Any]]:
        """Return the variables of the group, each ``(k, *shape)``, as arrays of their own."""

    def totals(self) -> Totals | None:
        """Return what was gathered of all groups, where the record has variables that are summed."""
        return None


class Record(Remembering, ABC):
    """A reduction as a value: subclasses are frozen dataclasses whose fields are its arguments.

    Examples
    --------
    >>> from dataclasses import dataclass
    >>> import numpy as np, xsmall as xs
    >>> class Counter(xs.Reducer):
    ...     def begin(self, k):
    ...         self.n = np.zeros(k, np.int32)
    ...
    ...     def add(self, s, frames, variance=None):
    ...         self.n += (frames > 6.0).sum(axis=(1, 2), dtype=np.int32)
    ...
    ...     def end(self):
    ...         return {"n_bright": self.n}
    >>> @dataclass(frozen=True)
    ... class Bright(xs.Record):
    ...     name = "bright"
    ...
    ...     def outputs(self, frames):
    ...         return {"n_bright": xs.Output((), (), np.dtype("int32"))}
    ...
    ...     def reducer(self, frames):
    ...         return Counter()
    >>> sim = xs.simulate(5, shape=(2, 32, 64), seed=1)
    >>> cal = sim.run["jungfrau"]["raw"].sd.calibrate(sim.constants)
    >>> found = xs.apply(cal, Bright()).compute()["n_bright"]
    >>> bool((found == (cal > 6).sum(("segment", "row", "column"))).all())
    True
    """

    name: ClassVar[str]
    """What it is called: that of the class in lower case, where the class does not say."""

    def __init_subclass__(cls, **options: Any) -> None:
        super().__init_subclass__(**options)
        if not hasattr(cls, "name") and "name" not in get_annotations(cls):
            cls.name = cls.__name__.lower()

    @abstractmethod
    def outputs(self, frames: Frames) -> Mapping[str, Output]:
        """Say what comes back for ``frames``; wrong arguments raise here, before anything is read."""

    @abstractmethod
    def reducer(self, frames: Frames) -> Reducer:
        """Make the reducer, where the frames are; big tables are built here and cached per process."""

    @property
    def beside(self) -> Mapping[str, xr.DataArray]:
        """What is to lie beside the frames, by its name for the record; reducers find it in ``Reducer.beside``."""
        return {}

    def bound(self, inputs: Mapping[str, Input], left_out: str) -> Record:
        """Make the record that knows what lies beside the frames; ``left_out`` tells how many of its events do not."""
        raise NotImplementedError(f"{type(self).__name__} has nothing beside the frames: {inputs}, {left_out}")

    def __or__(self, following: Record) -> Record:
        """Chain two records: ``xs.roi(...) | xs.projection("row")`` projects each region."""
        if not isinstance(following, Record):
            return no_record(following)  # type: ignore[unreachable]  # users are not typed
        return chained(self, following, following.after(self))

    def after(self, first: Record) -> Record:
        """Make the record that does this with what ``first`` finds: of records that can follow others.

        Raises
        ------
        ParameterError
            This cannot follow ``first``.
        """
        raise ParameterError(
            f"{self.name} cannot follow {first.name}",
            found=f"{first.name} | {self.name}",
            expected="regions before what is done in them, or lists before their histogram",
            fix='xs.roi(box) | xs.projection("row")',
        )

    def seeing(self, frames: xr.DataArray) -> Record:
        """Make the record that has seen the labels of the frames, of records that need them; none computes these."""
        del frames
        return self

    def coords(self, frames: Frames) -> Mapping[str, xr.Variable]:
        """Coordinates of the dims that the record adds (bin centres, labels), if any."""
        del frames
        return {}
