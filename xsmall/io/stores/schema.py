"""What is written: groups and arrays, encoded once for both formats, with their chunks on disk."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import xarray as xr
from xarray.conventions import encode_dataset_coordinates

from xsmall.engine.pairs import is_marked, mark_of
from xsmall.events.labels import check_labels, in_utc
from xsmall.io.layout import TIME, UNFINISHED, is_frames
from xsmall.io.stores.storable import check, storable_attrs, times_in_ns
from xsmall.vocabulary import CHECKSUM, EVENT, LAYOUT

__all__ = ["CHUNK_BYTES", "Schema", "SchemaArray", "encoded", "schema_of"]

CHUNK_BYTES: Final = 8 * 2**20
"""Bytes of a chunk on disk: a few frames, so that single ones can be looked at and a disk is read in long strokes."""


@dataclass(frozen=True, eq=False)
class SchemaArray:
    """An array as it is stored.

    Parameters
    ----------
    group, name
        Where it lies.
    dims, shape, dtype
        Of the whole; of text ``object`` or ``U``.
    chunks
        Shape of a chunk on disk; empty for a scalar.
    attrs
        Attributes as the file holds them.
    data
        Its values, in memory or lazy.
    pair
        Whether it is one of a value and its variance, which goes into the file as the number of :data:`PAIR`.
    """

    group: str
    name: str
    dims: tuple[str, ...]
    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    chunks: tuple[int, ...]
    attrs: Mapping[str, Any]
    data: Any
    pair: bool = False

    @property
    def path(self) -> str:
        """Group and name in one."""
        return f"{self.group.rstrip('/')}/{self.name}"

    @property
    def is_text(self) -> bool:
        """Whether it holds text."""
        return self.dtype.kind in "OU"

    @property
    def is_lazy(self) -> bool:
        """Whether its values are computed when they are written."""
        return hasattr(self.data, "dask")

    @property
    def nbytes(self) -> int:
        """Bytes of its numbers before compression."""
        return 0 if self.is_text else math.prod(self.shape) * self.dtype.itemsize

    @property
    def fill(self) -> Any:
        """What plain readers show where a chunk is lost: where there is one, what nobody takes for a value."""
        if self.is_text:
            return ""
        if self.dtype.kind == "f":
            return np.nan
        if self.dtype.kind == "b":
            return False
        limits = np.iinfo(self.dtype)
        return limits.max if self.dtype.kind == "u" else limits.min  # the lowest of int64 is NaT for times


@dataclass(frozen=True)
class Schema:
    """Groups with their attributes, the root first, and all arrays."""

    groups: Mapping[str, Mapping[str, Any]]
    arrays: tuple[SchemaArray, ...]

    @property
    def nbytes(self) -> int:
        """Bytes of all numbers before compression."""
        return sum(array.nbytes for array in self.arrays)


def schema_of(nodes: Mapping[str, xr.Dataset], *, whole_events: bool, chunk_events: int | None) -> Schema:
    """Encode the nodes of a tree.

    Parameters
    ----------
    nodes
        Datasets by their path, ``/`` among them.
    whole_events
        Keep all pixels of an event in one chunk, as detectors are read.
    chunk_events
        Frames in one chunk; None for about 8 MiB, as for all that is not frames.

    Raises
    ------
    DataError
        Something that no file can hold; events without a label among labelled ones.
    """
    groups: dict[str, Mapping[str, Any]] = {}
    arrays: list[SchemaArray] = []
    for where, node in nodes.items():
        check_labels(node, "this Dataset" if where == "/" else where)
        bare = in_utc(node).copy()
        check(where, bare)
        for variable in bare.variables.values():
            variable.encoding = mark_of(variable)
        variables, attrs = encode_dataset_coordinates(bare)
        groups[where] = storable_attrs(attrs)
        for name, variable in variables.items():
            one = encoded(where, str(name), variable, whole_events=whole_events, chunk_events=chunk_events)
            arrays.append(one)
    root = {**groups.pop("/", {}), LAYOUT: UNFINISHED}
    root.pop(CHECKSUM, None)  # of the store that this was read from
    return Schema({"/": root} | groups, tuple(arrays))


def encoded(
    group: str, name: str, variable: xr.Variable, *, whole_events: bool = False, chunk_events: int | None = None
) -> SchemaArray:
    """Encode one variable; see :func:`schema_of`."""
    data: Any = variable.data if variable.chunks is not None else np.asarray(variable.values)
    attrs = storable_attrs(variable.attrs)
    if data.dtype.kind == "M":
        lazy = variable.chunks is not None
        data = data.map_blocks(times_in_ns, dtype=np.int64, meta=np.empty(0, np.int64)) if lazy else times_in_ns(data)
        attrs |= {k: v for k, v in TIME.items() if k != "dtype"}
    elif data.dtype.kind in "OUST":
        data = _text_array(np.asarray(data))
    elif not data.dtype.isnative:
        data = data.astype(data.dtype.newbyteorder("="))
    chunks = _chunk_sizes(variable, data.dtype.itemsize, whole_events, chunk_events if is_frames(variable) else None)
    dims = tuple(map(str, variable.dims))
    pair = is_marked(variable)
    return SchemaArray(group, name, dims, tuple(variable.shape), data.dtype, chunks, attrs, data, pair)


def _text_array(values: npt.NDArray[Any]) -> npt.NDArray[Any]:
    if values.dtype.kind == "S":
        values = np.strings.decode(values, "utf-8")
    if values.dtype.kind == "U":
        return values if values.dtype.itemsize else values.astype("U1")
    return values.astype(object)


def _chunk_sizes(variable: xr.Variable, itemsize: int, whole_events: bool, chunk_events: int | None) -> tuple[int, ...]:
    """Cut the first dims first, so that a frame, a spectrum or an image lies together; events before all others."""
    held = variable.chunks or tuple((n,) for n in variable.shape)
    shape = [
        n if d == EVENT or whole_events else max(c, default=0)  # pixels stay as they were cut
        for d, n, c in zip(variable.dims, variable.shape, held, strict=True)
    ]
    shape = [max(1, n) for n in shape]
    for axis, n in enumerate(shape):
        others = math.prod(shape) // n * itemsize
        if variable.dims[axis] == EVENT:
            most = max(1, CHUNK_BYTES // others)
            shape[axis] = min(n, chunk_events or _events_per_chunk(n, max(1, held[axis][0]), most))
        elif others * n > CHUNK_BYTES and not whole_events:
            fit = max(1, CHUNK_BYTES // others)
            even = next(k for k in range(min(fit, n), 0, -1) if n % k == 0)
            shape[axis] = even if 2 * even > fit else fit  # of a prime length there would be as many chunks
    return tuple(shape)


def _events_per_chunk(n: int, held: int, most: int) -> int:
    """Events of a chunk on disk: lazy blocks should be whole chunks, or whole parts of one, to be cut once only."""
    if most >= n:
        return n
    if held <= most:
        return most - most % held
    near = [*range(most, most // 2, -1), *range(most + 1, 2 * most)]
    return next((k for k in near if held % k == 0), most)
