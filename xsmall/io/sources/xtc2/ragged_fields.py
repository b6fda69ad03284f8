"""Fields whose length differs from event to event: lists of numbers, and text.

Lists are given as the package gives all lists, an array of objects (event, segment) whose elements are 1-D arrays. What
has several dims, such as an image of a region that changes, is given flat, with its shape beside it.
"""

from collections.abc import Sequence
from functools import cached_property
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from xsmall.errors import DataError
from xsmall.io.sources.xtc2.fields import (
    EventField,
    FieldKey,
    event_fields_of,
    is_number,
    of_records,
    positions,
)
from xsmall.io.sources.xtc2.pieces import fill
from xsmall.io.sources.xtc2.run_index import RunFiles, run_of

__all__ = ["ListArray", "TextArray", "list_dims", "shapes_of"]

WIDEST: Final = 64
"""Characters of text that is held in an array of one width; longer text is held as objects."""


class _VariableArray:
    """A field of one value for each segment of each event, whose bytes differ in number."""

    ndim = 2

    def __init__(self, files: RunFiles, key: FieldKey) -> None:
        self.files = files
        self.key = key
        self.field = event_fields_of(files)[key]
        self.shape = (run_of(files).size, len(self.field.segments))
        self.dtype: np.dtype[Any] = np.dtype(object)

    def __getstate__(self) -> dict[str, Any]:
        return {k: v for k, v in self.__dict__.items() if not k.startswith("_at")}

    def __dask_tokenize__(self) -> tuple[object, ...]:
        return (type(self).__qualname__, self.files, *self.key)

    @cached_property
    def _at(self) -> dict[int, npt.NDArray[np.int64]]:
        return positions(self.files, self.key, 1, 0)

    @cached_property
    def _at_bytes(self) -> dict[int, npt.NDArray[np.int64]]:
        return {stream: _sizes(self.files, self.key, stream) for stream in self._at}

    def __getitem__(self, key: Any) -> npt.NDArray[Any]:
        """Read; each part of ``key`` is an integer, a slice or a 1-D array of positions (outer indexing)."""
        keys = list(key) if isinstance(key, tuple) else [key]
        keys += [slice(None)] * (2 - len(keys))
        events, segments = (np.atleast_1d(np.arange(n)[k]) for n, k in zip(self.shape, keys, strict=True))
        out = self._read(events, segments)
        drop = tuple(axis for axis, k in enumerate(keys) if is_number(k))
        return out.squeeze(axis=drop) if drop else out

    def _read(self, events: npt.NDArray[np.int64], segments: npt.NDArray[np.int64]) -> npt.NDArray[Any]:
        run = run_of(self.files)
        out = self.empty(events.size * segments.size)
        for stream, table in self._at.items():
            index, records = run.streams[stream], run.rows[stream][events]
            at = of_records(table, index, records)[:, segments].reshape(-1)
            size = of_records(self._at_bytes[stream], index, records)[:, segments].reshape(-1)
            numbers = np.flatnonzero(at >= 0)
            where = np.repeat(index.offset[records], segments.size)[numbers] + at[numbers]
            order = np.argsort(where, kind="stable")
            numbers, where = numbers[order], where[order]
            pieces = [np.empty(n, np.uint8) for n in size[numbers].tolist()]
            fill(index.chain, where.tolist(), pieces, holes=False)
            for n, piece in zip(numbers.tolist(), pieces, strict=True):
                out[n] = self.value(piece)
        return out.reshape(events.size, segments.size)

    def empty(self, n: int) -> npt.NDArray[Any]:
        """Values of ``n`` records that are missing."""
        raise NotImplementedError

    def value(self, data: npt.NDArray[np.uint8]) -> Any:
        """Make a value of its bytes."""
        raise NotImplementedError


class ListArray(_VariableArray):
    """Lists of numbers (event, segment): 1-D arrays, empty where the field is missing.

    Parameters
    ----------
    files
        The bytes to decode.
    key
        The field.
    """

    def __init__(self, files: RunFiles, key: FieldKey) -> None:
        super().__init__(files, key)
        if self.field.dtype is None:
            raise DataError(f"{files.path}: {'.'.join(key)} changes its type", found=f"{self.field.shapes} forms")
        self.element: np.dtype[Any] = self.field.dtype

    def empty(self, n: int) -> npt.NDArray[Any]:
        """Lists without values."""
        out = np.empty(n, object)
        for k in range(n):
            out[k] = np.empty(0, self.element)
        return out

    def value(self, data: npt.NDArray[np.uint8]) -> npt.NDArray[Any]:
        """View the bytes as numbers."""
        return data.view(self.element)


class TextArray(_VariableArray):
    """Text (event, segment), empty where it is missing.

    Parameters
    ----------
    files
        The bytes to decode.
    key
        The field.
    """

    def __init__(self, files: RunFiles, key: FieldKey) -> None:
        super().__init__(files, key)
        if self.field.longest <= WIDEST:
            self.dtype = np.dtype(f"<U{max(1, self.field.longest)}")

    def empty(self, n: int) -> npt.NDArray[Any]:
        """Empty text."""
        return np.full(n, "", self.dtype)

    def value(self, data: npt.NDArray[np.uint8]) -> str:
        """Cut at the first NUL: what stands behind it is junk."""
        return data.tobytes().split(b"\0", 1)[0].decode("utf-8", "replace")


def shapes_of(files: RunFiles, key: FieldKey) -> npt.NDArray[np.int64]:
    """Shapes of a field (event, segment, rank), 0 where it is missing; known from the headers."""
    run, field = run_of(files), event_fields_of(files)[key]
    out = np.zeros((run.size, len(field.segments), field.rank), np.int64)
    for stream in positions(files, key, 1, 0):
        index = run.streams[stream]
        table = _by_layout(files, key, stream, lambda place: place.shape, field.rank)
        out = np.maximum(out, of_records(table, index, run.rows[stream]))
    return out


def _sizes(files: RunFiles, key: FieldKey, stream: int) -> npt.NDArray[np.int64]:
    def size(place: Any) -> list[int]:
        return [int(np.prod(place.shape, dtype=np.int64)) * place.field.dtype.itemsize]

    return _by_layout(files, key, stream, size, 1)[:, :, 0]


def _by_layout(files: RunFiles, key: FieldKey, stream: int, number: Any, n: int) -> npt.NDArray[np.int64]:
    """Numbers of a field's place by layout and segment, 0 where it is missing."""
    index, field = run_of(files).streams[stream], event_fields_of(files)[key]
    segments = {s: k for k, s in enumerate(field.segments)}
    out = np.zeros((len(index.layouts), len(segments), n), np.int64)
    for k, (layout, by_names) in enumerate(zip(index.layouts, index.places, strict=True)):
        for names_id, fields in by_names.items():
            names = index.tables[layout.configure][names_id]
            if (names.detector, names.alg) == key[:2] and names.segment in segments:
                for place in fields:
                    if place.field.name == key.field:
                        out[k, segments[names.segment]] = number(place)
    return out


def list_dims(files: RunFiles, fields: Sequence[EventField], names: dict[FieldKey, str]) -> dict[FieldKey, str]:
    """Name the list dim of every ragged field: those whose lengths are the same in all events share one."""
    dims: dict[FieldKey, str] = {}
    known: dict[tuple[Any, ...], str] = {}
    for field in fields:
        if field.is_ragged:
            lengths = tuple(
                _by_layout(files, field.key, s, lambda p: [int(np.prod(p.shape, dtype=np.int64))], 1).tobytes()
                for s in range(len(run_of(files).streams))
            )
            dims[field.key] = known.setdefault((field.key.alg, field.segments, lengths), f"{names[field.key]}_item")
    return dims
