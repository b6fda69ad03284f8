"""Arrays of a file that are read by slices: what chunks mean for them, and what happens where one cannot be read.

A chunk that is known to be lost when a run is opened is filled: 0, or NaN in floats, and the run says ``present``
False. A chunk that turns out unreadable later raises :class:`~xsmall.errors.DamagedDataError`, which names it.
"""

import itertools
import math
import threading
from abc import ABC, abstractmethod
from collections import OrderedDict
from collections.abc import Iterator
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from xsmall.engine.faults import unreadable
from xsmall.errors import DamagedDataError, XsmallError
from xsmall.io.files import Identity
from xsmall.io.sources.straight import StoredChunk, read_chunk, shared

__all__ = ["StoredArray", "missing_value", "native"]

ChunkNumber = tuple[int, ...]
"""A chunk, by its number along each dim."""
ChunkSlices = tuple[slice, ...]

_GAP: Final = 4
"""Rows that are rather read than left out: picking rows one by one is slow, in HDF5 above all."""
_MOST_KNOWN: Final = 4096


class StoredArray(ABC):
    """An array of a file that reads when it is indexed; small in every task, usable in every process.

    Parameters
    ----------
    identity
        Identifies the file: it is compared when something is read.
    name
        Path of the array in the file.
    shape, dtype
        Of the array.
    chunks
        Shape of what is stored together; the whole shape where the array is not chunked.
    lost
        Chunks that are filled rather than read.
    """

    def __init__(
        self,
        identity: Identity,
        name: str,
        shape: tuple[int, ...],
        dtype: np.dtype[Any],
        chunks: tuple[int, ...] | None = None,
        lost: frozenset[ChunkNumber] = frozenset(),
    ) -> None:
        self.identity = identity
        self.name = name
        self.shape = shape
        self.dtype = dtype.newbyteorder("=")
        self.ndim = len(shape)
        self.chunks = chunks or tuple(max(1, n) for n in shape)
        self.lost = lost

    def __dask_tokenize__(self) -> tuple[object, ...]:
        return (type(self).__qualname__, *self.identity, self.name, sorted(self.lost))

    # ---- what a format brings ---------------------------------------------------------------------------------------

    @abstractmethod
    def _read(self, region: ChunkSlices) -> npt.NDArray[Any]:
        """Read a block; raises whatever the library of the format raises."""

    @abstractmethod
    def _state(self, place: ChunkNumber) -> object:
        """What tells apart a chunk that was mended from the damaged one; None where it is not there."""

    @abstractmethod
    def chunk_name(self, place: ChunkNumber) -> str:
        """How a chunk is called in errors."""

    @abstractmethod
    def check_same(self) -> None:
        """Raise unless the file is still the one that was opened."""

    def _stored(self, place: ChunkNumber) -> StoredChunk | None:
        """The bytes of a chunk that is stored as it is; None where the library has to read it."""
        del place
        return None

    # ---- chunks -----------------------------------------------------------------------------------------------------

    @property
    def path(self) -> str:
        """Path of the file or store, as errors show it."""
        return self.identity.path

    def grid(self) -> ChunkNumber:
        """Number of chunks along each dim."""
        return tuple(-(-n // c) for n, c in zip(self.shape, self.chunks, strict=True))

    def places(self, region: ChunkSlices | None = None) -> Iterator[ChunkNumber]:
        """Chunks that a block touches; all of them where nothing is said."""
        if region is None:
            region = tuple(slice(0, n) for n in self.shape)
        spans = (range(s.start // c, -(-s.stop // c)) for s, c in zip(region, self.chunks, strict=True))
        return itertools.product(*spans)

    def part(self, place: ChunkNumber) -> ChunkSlices:
        """Which elements lie in a chunk."""
        extents = zip(place, self.chunks, self.shape, strict=True)
        return tuple(slice(k * c, min((k + 1) * c, n)) for k, c, n in extents)

    def missing_chunks(self) -> list[ChunkNumber]:
        """Chunks that are not in the file."""
        return [place for place in self.places() if self._state(place) is None]

    def damaged_chunks(self) -> dict[ChunkNumber, str]:
        """Read every chunk once and say which cannot be read, and why."""
        found = {place: self._failure(place, self.part(place))[1] for place in self.places() if place not in self.lost}
        return {place: why for place, why in found.items() if why is not None}

    # ---- reading ----------------------------------------------------------------------------------------------------

    def __getitem__(self, key: Any) -> npt.NDArray[Any]:
        """Read; each part of ``key`` is an integer, a slice or a 1-D array of positions (outer indexing)."""
        keys = list(key) if isinstance(key, tuple) else [key]
        keys += [slice(None)] * (self.ndim - len(keys))
        first = np.atleast_1d(np.arange(self.shape[0])[keys[0]])
        inner = tuple(_span(k, n) for k, n in zip(keys[1:], self.shape[1:], strict=True))
        rest = tuple(_key_within(k, s, n) for k, s, n in zip(keys[1:], inner, self.shape[1:], strict=True))
        strokes = list(_rows_at_once(first))
        if len(strokes) == 1 and _is_consecutive(*strokes[0]):  # nearly always: handed out as it was read
            data = self._block((_stroke(strokes[0][1]), *inner))
        else:
            data = np.empty((first.size, *(s.stop - s.start for s in inner)), self.dtype)
            for out, rows in strokes:
                data[out] = self._block((_stroke(rows), *inner))[rows - rows[0]]
        self.check_same()
        for axis, k in reversed(list(enumerate(rest, start=1))):
            if not (isinstance(k, slice) and k == slice(None)):
                data = data[(slice(None),) * axis + (k,)]
        return data[0] if np.ndim(keys[0]) == 0 and not isinstance(keys[0], slice) else data

    def _block(self, region: ChunkSlices) -> npt.NDArray[Any]:
        """Read a block, with what is known to be lost filled; raises an error of ours that names the chunk."""
        if not math.prod(s.stop - s.start for s in region):
            return np.empty(tuple(s.stop - s.start for s in region), self.dtype)
        if not any(place in self.lost or self._why(place) for place in self.places(region)):
            straight = self._straight(region)
            if straight is not None:
                return straight
            try:
                return native(self._read(region))
            except XsmallError:
                raise
            except Exception:  # of whatever library decodes it: found again below, chunk by chunk
                self.check_same()
        return self._piecewise(region)

    def _straight(self, region: ChunkSlices) -> npt.NDArray[Any] | None:
        """Read a block without the library; None where that cannot be done, and the library says what is wrong."""
        out: npt.NDArray[Any] | None = None
        for place in self.places(region):
            stored = self._stored(place)
            if stored is None:
                return None
            first = out is None
            out = np.empty(tuple(s.stop - s.start for s in region), self.dtype) if out is None else out
            try:
                if not read_chunk(out, region, self.part(place), self.chunks, stored):
                    if first:
                        return None
                    here, into = self._shared(place, region)  # such as the last chunk, a part of which is beyond
                    out[into] = self._read(here)
            except Exception:  # of files and libraries: told below, chunk by chunk
                return None
        return out

    def _shared(self, place: ChunkNumber, region: ChunkSlices) -> tuple[ChunkSlices, ChunkSlices]:
        """What a chunk and a block have in common: in the array, and in the block."""
        here = shared(self.part(place), region)
        return here, tuple(slice(h.start - r.start, h.stop - r.start) for h, r in zip(here, region, strict=True))

    def _piecewise(self, region: ChunkSlices) -> npt.NDArray[Any]:
        """Read chunk by chunk what can be read."""
        out = np.full(tuple(s.stop - s.start for s in region), missing_value(self.dtype), self.dtype)
        holes: dict[ChunkNumber, ChunkSlices] = {}
        reasons: dict[ChunkNumber, str] = {}
        for place in self.places(region):
            if place in self.lost:
                continue
            here, into = self._shared(place, region)
            data, why = self._failure(place, here)
            if why is None:
                out[into] = data
            else:
                holes[place], reasons[place] = into, why
        if holes:
            filling = unreadable(self._error(reasons), self.dtype)
            for into in holes.values():
                out[into] = filling
        return out

    def _failure(self, place: ChunkNumber, region: ChunkSlices) -> tuple[npt.NDArray[Any] | None, str | None]:
        """Read a chunk or a part of it: data, or the reason why not, which is remembered."""
        known = self._why(place)
        if known is not None:
            return None, known
        state = self._state(place)
        if state is None:
            return None, "it is not there"
        try:
            return self._read(region), None
        except Exception as error:
            why = f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else 'no reason given'}"
        with _lock:
            _known[self._key(place)] = state, why
            while len(_known) > _MOST_KNOWN:
                _known.popitem(last=False)
        return None, why

    def _why(self, place: ChunkNumber) -> str | None:
        """Why a chunk could not be read before, unless it was mended since."""
        found = _known.get(self._key(place))
        return found[1] if found is not None and found[0] == self._state(place) else None

    def _key(self, place: ChunkNumber) -> tuple[object, ...]:
        return (self.identity, self.name, place)

    def _error(self, found: dict[ChunkNumber, str]) -> DamagedDataError:
        place, reason = next(iter(found.items()))
        events = self.part(place)[0]
        more = f" and {len(found) - 1} more" if len(found) > 1 else ""
        return DamagedDataError(
            f"{self.path}, {self.chunk_name(place)}{more}: cannot be read",
            found=f"{reason}; it holds {self.name.strip('/')} of events {events.start} to {events.stop - 1}",
            expected="the bytes that were written",
            fix="xs.open_run(path, verify=True) reads all once and flags such events as missing",
        )


_lock = threading.Lock()
_known: OrderedDict[tuple[object, ...], tuple[object, str]] = OrderedDict()
"""Chunks that could not be read, with their state then and the reason."""


def native(array: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """The same numbers in this machine's order of bytes, which netCDF4 wants to see in the type too."""
    dtype = array.dtype.newbyteorder("=")
    return array.view(dtype) if dtype == array.dtype and array.dtype.kind in "biufmM" else array.astype(dtype)


def missing_value(dtype: np.dtype[Any]) -> Any:
    """What stands where there is nothing: NaN, NaT, empty text, or 0."""
    if dtype.kind == "f":
        return np.nan
    return np.array("NaT", dtype) if dtype.kind in "mM" else np.zeros((), dtype)


def _span(key: Any, n: int) -> slice:
    """Positions from the first to the last that are wanted."""
    wanted = np.atleast_1d(np.arange(n)[key])
    return slice(int(wanted.min()), int(wanted.max()) + 1) if wanted.size else slice(0, 0)


def _key_within(key: Any, span: slice, n: int) -> Any:
    """The key, counted from the beginning of what was read."""
    wanted = np.arange(n)[key] - span.start
    if isinstance(key, slice) and key.step in (None, 1):
        return slice(None)
    return int(wanted) if np.ndim(key) == 0 and not isinstance(key, slice) else wanted


def _stroke(rows: npt.NDArray[np.intp]) -> slice:
    return slice(int(rows[0]), int(rows[-1]) + 1)  # rows rise


def _is_consecutive(out: npt.NDArray[np.intp], rows: npt.NDArray[np.intp]) -> bool:
    return bool((np.diff(rows) == 1).all() and (np.diff(out) == 1).all())


def _rows_at_once(rows: npt.NDArray[np.intp]) -> Iterator[tuple[npt.NDArray[np.intp], npt.NDArray[np.intp]]]:
    """Group rows, in whatever order they are wanted, into strokes that are read at once: (where they go, rows)."""
    if rows.size:
        order = np.argsort(rows, kind="stable")
        cuts = np.flatnonzero(np.diff(rows[order]) > _GAP) + 1
        yield from ((part, rows[part]) for part in np.split(order, cuts))
