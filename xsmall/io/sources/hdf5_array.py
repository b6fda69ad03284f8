"""Reading HDF5 arrays lazily with h5py: by slices, from files that each process opens once."""

import threading
from functools import lru_cache
from typing import Any, Final

import h5py
import numpy as np
import numpy.typing as npt

from xsmall.errors import FileFormatError
from xsmall.io.files import Identity, open_file

_GAP: Final = 4
"""Rows that are rather read than left out: picking rows one by one is slow in HDF5, fancy indexing slower."""
_lock = threading.Lock()


@lru_cache(maxsize=32)
def _open(identity: Identity) -> Any:
    open_file(identity)  # says so if the file has changed since it was opened
    return h5py.File(identity.path, "r")


def _dataset(identity: Identity, name: str) -> Any:
    with _lock:
        file = _open(identity)
    try:
        return file[name]
    except KeyError:
        raise FileFormatError(f"{identity.path}: no dataset {name}") from None


class Hdf5Array:
    """A dataset of a file as an array that reads when it is indexed; small in every task, usable in every process."""

    def __init__(self, identity: Identity, name: str, shape: tuple[int, ...], dtype: np.dtype[Any]) -> None:
        self.identity = identity
        self.name = name
        self.shape = shape
        self.dtype = dtype
        self.ndim = len(shape)

    def __dask_tokenize__(self) -> tuple[object, ...]:
        return (type(self).__qualname__, *self.identity, self.name)

    def __getitem__(self, key: Any) -> npt.NDArray[Any]:
        """Read; each part of ``key`` is an integer, a slice or a 1-D array of positions (outer indexing)."""
        keys = list(key) if isinstance(key, tuple) else [key]
        keys += [slice(None)] * (self.ndim - len(keys))
        dataset = _dataset(self.identity, self.name)
        first = np.atleast_1d(np.arange(self.shape[0])[keys[0]])
        inner = tuple(k if isinstance(k, slice) and (k.step or 1) > 0 else slice(None) for k in keys[1:])
        data = np.empty(
            (first.size, *(len(range(n)[k]) for n, k in zip(self.shape[1:], inner, strict=True))), self.dtype
        )
        for out, rows in _strokes(first):
            stroke = slice(int(rows[0]), int(rows[-1]) + 1)  # rows rise
            if (np.diff(rows) == 1).all() and (np.diff(out) == 1).all():
                dataset.read_direct(data, (stroke, *inner), slice(int(out[0]), int(out[-1]) + 1))
            else:
                data[out] = dataset[(stroke, *inner)][rows - rows[0]]
        for axis, k in reversed(list(enumerate(keys[1:], start=1))):
            if not isinstance(k, slice) or (k.step or 1) < 0:
                data = data[(slice(None),) * axis + (k,)]
        return data[0] if np.ndim(keys[0]) == 0 and not isinstance(keys[0], slice) else data


def _strokes(rows: npt.NDArray[np.intp]) -> list[tuple[npt.NDArray[np.intp], npt.NDArray[np.intp]]]:
    """Group rows, in whatever order they are wanted, into strokes that are read at once: (where they go, rows)."""
    if not rows.size:
        return []
    order = np.argsort(rows, kind="stable")
    cuts = np.flatnonzero(np.diff(rows[order]) > _GAP) + 1
    return [(part, rows[part]) for part in np.split(order, cuts)]
