"""What turns raw frames into floating frames, and the memory of which array came from which.

Calibration is a transform. The engine joins it to a reduction's pass when an array provably is the untouched result of
:func:`transform_frames`: dask names are unique, so an array of the same name is the same array. A later ``cal * 2`` has
another name and is taken as it comes.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import OrderedDict
from dataclasses import dataclass
from itertools import pairwise
from threading import Lock
from typing import Any, TypeAlias

import dask
import dask.array as da
import numpy as np
import numpy.typing as npt
from dask.delayed import Delayed

from xsmall.detector.padded import are_padded
from xsmall.detector.types import DetectorType
from xsmall.engine.blocks import Batch, Unopened, is_in_memory, map_chunks, rests_on_futures, unopened_blocks
from xsmall.engine.flagged import knows_flags
from xsmall.engine.record import GROUP

FloatFrames: TypeAlias = npt.NDArray[np.floating[Any]]


class Transform(ABC):
    """Makes floating frames of raw ones, one segment at a time; holds its tables, may be shared by threads."""

    dtype: np.dtype[Any]
    """What comes out: float32 or float64."""

    knows_variance: bool = False
    """Whether :meth:`apply` can fill ``variance``."""

    @abstractmethod
    def apply(
        self,
        s: int,
        raw: Any,
        present: npt.NDArray[np.bool_],
        out: FloatFrames,
        variance: FloatFrames | None = None,
    ) -> None:
        """Fill ``out`` (k, row, column) from segment ``s`` of ``k`` events; NaN where ``present[k]`` is False.

        ``raw`` is an array (k, row, column); of a transform that needs more beside the frames a tuple: that array, and
        of the same events what :func:`transform_frames` was given as ``beside``.

        Where ``variance`` is given it is filled with the variance of each value, in the square of its unit. The
        result for one event must not depend on the others, bit for bit. ``raw`` may be read-only, and must not be
        written to.
        """


class Cast(Transform):
    """The transform of frames that need none: numbers as floats, missing segments as NaN.

    Of a detector whose words they are, segments that a writer has padded are NaN too.
    """

    def __init__(self, dtype: np.dtype[Any], words: DetectorType | None = None) -> None:
        self.dtype = dtype
        self.words = words

    def apply(
        self,
        s: int,
        raw: npt.NDArray[Any],
        present: npt.NDArray[np.bool_],
        out: FloatFrames,
        variance: FloatFrames | None = None,
    ) -> None:
        """Copy ``raw`` to ``out``."""
        del s, variance
        np.copyto(out, raw, casting="same_kind" if raw.dtype.kind == "f" else "unsafe")
        if self.words is not None:
            present = present & ~are_padded(raw, self.words, present)
        out[~present] = np.nan

    def flagged(self, batch: Batch) -> Batch:
        """A batch in memory of which padded segments are not ``present``, for who takes its frames as they are."""
        if self.words is None:
            return batch
        events = slice(None)
        padded = [
            are_padded(batch.frames[:, i], self.words, batch.here(events, i)) for i in range(batch.frames.shape[1])
        ]
        whole = ~np.stack(padded, axis=1)
        if whole.all():
            return batch
        return batch._replace(present=whole if batch.present is None else batch.present & whole)


def float_dtype(dtype: np.dtype[Any]) -> np.dtype[Any]:
    """Smallest of float32 and float64 that holds every value of ``dtype``."""
    narrow = np.can_cast(dtype, np.float32, casting="safe")
    return np.dtype(np.float32 if narrow else np.float64)


def transform_stack(batch: Batch, transform: Transform, first: int = 0, *, variance: bool = False) -> FloatFrames:
    """Transform whole frames that are in memory, the first segment being number ``first``.

    Returns the values, or with ``variance`` the variance of each.
    """
    shape = batch.frames.shape
    out = np.empty(shape, dtype=transform.dtype)
    values = np.empty((GROUP, *shape[2:]), dtype=transform.dtype)
    for start in range(0, shape[0], GROUP):
        group = slice(start, min(start + GROUP, shape[0]))
        for i in range(shape[1]):
            raw, here, into = batch.segment(group, i), batch.here(group, i), out[group, i]
            if variance:
                transform.apply(first + i, raw, here, values[: len(into)], into)
            else:
                transform.apply(first + i, raw, here, into)
    return out


@dataclass(frozen=True)
class Origin:
    """Where an array came from: raw frames with what lies beside them, and the transform, perhaps still to be built.

    ``key`` is what two arrays share that came from the same frames by the same transform.
    """

    raw: Batch
    transform: Delayed
    variance: bool
    """Whether the array is the variance of the values rather than the values."""
    key: str


_ORIGINS: OrderedDict[str, Origin] = OrderedDict()
_ORIGINS_LOCK = Lock()
_MOST_ORIGINS = 512


def origin_of(array: object) -> Origin | None:
    """Look up the origin of a dask array that :func:`transform_frames` made in this process, else None."""
    with _ORIGINS_LOCK:
        return _ORIGINS.get(array.name) if isinstance(array, da.Array) else None


def _remember(name: str, origin: Origin) -> None:
    with _ORIGINS_LOCK:
        _ORIGINS[name] = origin
        _ORIGINS.move_to_end(name)
        while len(_ORIGINS) > _MOST_ORIGINS:
            _ORIGINS.popitem(last=False)


def transform_frames(
    data: npt.NDArray[Any] | da.Array,
    present: npt.NDArray[np.bool_] | None,
    transform: Transform | Delayed,
    *,
    dtype: np.dtype[Any],
    label: str,
    variance: bool = False,
    beside: tuple[npt.NDArray[Any] | da.Array, ...] = (),
    kinds: int = 0,
) -> FloatFrames | da.Array:
    """Apply a transform to frames (event, segment, row, column): at once to NumPy, lazily to dask.

    Parameters
    ----------
    data
        Raw frames.
    present
        Which segments are there (event, segment); None means all.
    transform
        The transform, or a Delayed that builds it; its key must be made from what determines it.
    dtype
        What comes out, known before the transform is built.
    label
        First part of the dask name of the result.
    variance
        Return the variance of the values instead of the values.
    beside
        What the transform needs beside the frames, see :class:`~xsmall.engine.blocks.Batch`; lazy if the frames are or
        not at all.
    kinds
        What makes segments unusable, see :mod:`xsmall.engine.flagged`.
    """
    batch = Batch(data, present, beside=beside, kinds=kinds)
    if not batch.lazy():
        ready = transform.compute() if isinstance(transform, Delayed) else transform
        return transform_stack(batch, ready, variance=variance)
    delayed = as_delayed(transform, label)
    key = str(dask.base.tokenize(*batch, delayed.key))
    name = f"{label}-{'variance-' if variance else ''}{key}"
    out = map_chunks(
        _transform_block, batch, name=name, transform=delayed, variance=variance, dtype=dtype,
        meta=np.empty((0, 0, 0, 0), dtype=dtype),
    )  # fmt: skip
    _remember(name, Origin(batch, delayed, variance, key))
    return out


def follows(data: object) -> bool:
    """Whether the words of lazy frames can be followed to where they went."""
    if not isinstance(data, da.Array) or is_in_memory(data) or rests_on_futures(data):
        return False
    return knows_flags(data.dask)


def usable_floats(data: da.Array, present: npt.NDArray[np.bool_] | None, dtype: np.dtype[Any], kinds: int) -> da.Array:
    """Lazy frames as floats, NaN where they rest on segments that are none, see :mod:`xsmall.engine.flagged`."""
    batch = Batch(data.rechunk({1: -1, 2: -1, 3: -1}), present, kinds=kinds)
    borders = np.cumsum((0, *batch.frames.chunks[0])).tolist()
    token = dask.base.tokenize(*batch, dtype)
    holders = unopened_blocks(batch, list(pairwise(borders)), f"usable-blocks-{token}")
    return da.map_blocks(
        _read_floats, holders, transform=Cast(dtype), name=f"usable-{token}", chunks=batch.frames.chunks,
        new_axis=[1, 2, 3], dtype=dtype, meta=np.empty((0,) * 4, dtype),
    )  # fmt: skip


def _read_floats(holder: npt.NDArray[np.object_], *, transform: Transform) -> FloatFrames:
    block: Unopened = holder.item()
    return transform_stack(block.read(0, len(block)), transform)


def as_delayed(transform: Transform | Delayed, label: str) -> Delayed:
    """Wrap a transform that is ready, so that the graph holds it once."""
    if isinstance(transform, Delayed):
        return transform
    return dask.delayed(transform, name=f"{label}-transform-{dask.base.tokenize(transform)}", traverse=False)


def _transform_block(batch: Batch, first: int, *, transform: Transform, variance: bool) -> FloatFrames:
    return transform_stack(batch, transform, first, variance=variance)
