"""What turns raw frames into floating frames, and the memory of which array came from which.

Calibration is a transform. The engine joins it to a reduction's pass when an array provably is the untouched result of
:func:`transform_frames`: dask names are unique, so an array of the same name is the same array. A later ``cal * 2`` has
another name and is taken as it comes.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import OrderedDict
from dataclasses import dataclass
from threading import Lock
from typing import Any, TypeAlias

import dask
import dask.array as da
import numpy as np
import numpy.typing as npt
from dask.delayed import Delayed

from xsmall.lazy.record import GROUP

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
        raw: npt.NDArray[Any],
        present: npt.NDArray[np.bool_],
        out: FloatFrames,
        variance: FloatFrames | None = None,
    ) -> None:
        """Fill ``out`` (k, row, column) from segment ``s`` of ``k`` events; NaN where ``present[k]`` is False.

        Where ``variance`` is given it is filled with the variance of each value, in the square of its unit. The
        result for one event must not depend on the others, bit for bit. ``raw`` may be read-only, and must not be
        written to.
        """


class Cast(Transform):
    """The transform of frames that need none: numbers as floats, missing segments as NaN."""

    def __init__(self, dtype: np.dtype[Any]) -> None:
        self.dtype = dtype

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
        out[~present] = np.nan


def float_dtype(dtype: np.dtype[Any]) -> np.dtype[Any]:
    """Smallest of float32 and float64 that holds every value of ``dtype``."""
    narrow = np.can_cast(dtype, np.float32, casting="safe")
    return np.dtype(np.float32 if narrow else np.float64)


def all_present(present: npt.NDArray[np.bool_] | None, n: int, n_segments: int) -> npt.NDArray[np.bool_]:
    """Spell out a ``present`` that is None where every segment is there."""
    return np.ones((n, n_segments), dtype=bool) if present is None else present


def transform_stack(
    raw: npt.NDArray[Any], present: npt.NDArray[np.bool_] | None, transform: Transform, *, variance: bool = False
) -> FloatFrames:
    """Transform a stack of whole frames (event, segment, row, column) that are in memory.

    Returns the values, or with ``variance`` the variance of each.
    """
    here = all_present(present, raw.shape[0], raw.shape[1])
    out = np.empty(raw.shape, dtype=transform.dtype)
    values = np.empty((GROUP, *raw.shape[2:]), dtype=transform.dtype) if variance else out
    for start in range(0, raw.shape[0], GROUP):
        group = slice(start, min(start + GROUP, raw.shape[0]))
        for s in range(raw.shape[1]):
            if variance:
                k = group.stop - group.start
                transform.apply(s, raw[group, s], here[group, s], values[:k], out[group, s])
            else:
                transform.apply(s, raw[group, s], here[group, s], out[group, s])
    return out


@dataclass(frozen=True)
class Origin:
    """Where an array came from: the raw frames, their presence and the transform (perhaps still to be built)."""

    raw: da.Array
    present: npt.NDArray[np.bool_] | None
    transform: Transform | Delayed
    variance: bool
    """Whether the array is the variance of the values rather than the values."""

    @property
    def key(self) -> tuple[str, object]:
        """What two arrays share that came from the same frames by the same transform."""
        return self.raw.name, self.transform.key if isinstance(self.transform, Delayed) else id(self.transform)


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
    """
    if not isinstance(data, da.Array):
        ready = transform.compute() if isinstance(transform, Delayed) else transform
        return transform_stack(data, present, ready, variance=variance)
    delayed = as_delayed(transform, label)
    name = f"{label}-{dask.base.tokenize(data.name, present, delayed.key, variance)}"
    whole = data.rechunk({1: -1, 2: -1, 3: -1})
    out = da.map_blocks(
        _transform_block,
        whole,
        per_chunk(present, whole.chunks[0], f"{name}-present")[:, None, None, None],
        transform=delayed,
        variance=variance,
        dtype=dtype,
        chunks=whole.chunks,
        meta=np.empty((0, 0, 0, 0), dtype=dtype),
        name=name,
    )
    _remember(name, Origin(data, present, delayed, variance))
    return out


def as_delayed(transform: Transform | Delayed, label: str) -> Delayed:
    """Wrap a transform that is ready, so that the graph holds it once."""
    if isinstance(transform, Delayed):
        return transform
    return dask.delayed(transform, name=f"{label}-transform-{dask.base.tokenize(transform)}", traverse=False)


def per_chunk(values: npt.NDArray[Any] | None, chunks: tuple[int, ...], name: str) -> da.Array:
    """Make the 1-D dask array of what each chunk's events have in ``values`` (event, ...), one object to a chunk."""
    cells = np.empty(len(chunks), dtype=object)
    stops = np.cumsum(chunks)
    for i, (size, stop) in enumerate(zip(chunks, stops, strict=True)):
        cells[i] = None if values is None else values[stop - size : stop]
    return da.from_array(cells, chunks=1, name=name)


def _transform_block(
    raw: npt.NDArray[Any], present: npt.NDArray[np.object_], *, transform: Transform, variance: bool
) -> FloatFrames:
    return transform_stack(raw, present.item(), transform, variance=variance)
