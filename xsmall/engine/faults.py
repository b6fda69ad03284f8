"""Parts of a file that cannot be read: who asks for them gets an error, and a pass over a run goes on without them.

That a chunk is rotten is known when it is read, deep inside a lazy array. The reader hands the error to
:func:`unreadable`. Outside of a pass that raises it. Inside, the pass has said so before it computes a batch
(:func:`reading`), and the reader gets a number to fill the hole with. Which events of the batch the hole ends up in,
after whatever was selected, joined or computed on the way, the pass finds by computing the batch once more with
another number: what differs rests on data that are not there.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from xsmall.calls import warn_user
from xsmall.errors import DamagedDataError, DamagedDataWarning

__all__ = ["Holes", "collecting", "holes_in", "met", "reading", "tell", "unreadable"]


@dataclass
class Holes:
    """What could not be read while a batch was computed."""

    other: bool = False
    """Whether holes are filled with the second number."""
    kinds: int = 0
    """Bits of what a reader may know against frames that makes holes of them, see :mod:`xsmall.engine.flagged`."""
    met: int = 0
    """Those of them that were met."""
    reasons: dict[str, None] = field(default_factory=dict)
    """Each reason once, in the order they were met."""

    def filling(self, dtype: np.dtype[Any]) -> Any:
        """Give the number that holes are filled with: 0, or as far from it as the type goes."""
        if not self.other:
            return dtype.type(0)
        if dtype.kind == "f":
            return dtype.type(np.nan)
        return dtype.type(True) if dtype.kind == "b" else np.iinfo(dtype).max


_holes: ContextVar[Holes | None] = ContextVar("holes", default=None)
_collected: ContextVar[dict[str, None] | None] = ContextVar("collected", default=None)


@contextmanager
def reading(*, other: bool = False, kinds: int = 0) -> Iterator[Holes]:
    """Let what is read in this thread have holes, and collect why."""
    holes = Holes(other, kinds)
    token = _holes.set(holes)
    try:
        yield holes
    finally:
        _holes.reset(token)


def unreadable(error: DamagedDataError, dtype: np.dtype[Any]) -> Any:
    """Say that a part of a file cannot be read; every reader of frames calls this.

    Parameters
    ----------
    error
        Names file, part and reason.
    dtype
        Of the array that is read.

    Returns
    -------
    The number that the part is to be filled with, inside of a pass over a run.

    Raises
    ------
    DamagedDataError
        ``error``, where somebody asks for these very frames.
    """
    holes = _holes.get()
    if holes is None:
        raise error
    holes.reasons[str(error)] = None
    return holes.filling(dtype)


def met(kinds: int) -> int:
    """Say that frames are read against which something of these kinds is known, and be told what to put others for."""
    holes = _holes.get()
    if holes is None:
        return 0
    holes.met |= holes.kinds & kinds
    return holes.kinds & kinds if holes.other else 0


@contextmanager
def collecting() -> Iterator[dict[str, None]]:
    """Collect what cannot be read in this thread, each reason once, for whoever tells it himself; nothing warns."""
    reasons: dict[str, None] = {}
    token = _collected.set(reasons)
    try:
        yield reasons
    finally:
        _collected.reset(token)


def tell(holes: Holes) -> None:
    """Warn of what could not be read, once for each reason; what a worker met, the user's process hears of."""
    collected = _collected.get()
    if collected is not None:
        collected |= holes.reasons
        return
    for reason in holes.reasons:
        if _in_a_worker():
            from distributed import warn

            warn(reason, DamagedDataWarning)
        else:
            warn_user(reason, DamagedDataWarning)


def _in_a_worker() -> bool:
    """Whether this runs in a worker of a cluster; distributed is not imported to find out that it does not."""
    if "distributed" not in sys.modules:
        return False
    from distributed import get_worker

    try:
        get_worker()
    except ValueError:
        return False
    return True


def holes_in(made: Sequence[npt.NDArray[Any]], again: Sequence[npt.NDArray[Any]]) -> npt.NDArray[np.bool_]:
    """Which segments of events (event, segment) rest on what could not be read.

    ``made`` and ``again`` are the arrays of a batch, frames first, computed with the two fillings.
    """
    found = np.zeros(made[0].shape[:2], bool)
    for a, b in zip(made, again, strict=True):
        differ = ~((a == b) | ((a != a) & (b != b)))  # NaN is like NaN
        of_segments = differ.any(axis=tuple(range(2, differ.ndim)))
        found |= of_segments if of_segments.ndim == found.ndim else of_segments[:, None]
    return found
