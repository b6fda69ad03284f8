"""Lists per event of a stored run, read when they are asked for: in a file they lie one behind the other."""

from typing import Any

import dask
import dask.array as da
import numpy as np
import numpy.typing as npt
import xarray as xr

from xsmall.errors import FileFormatError
from xsmall.events.ragged import ListBlock, lists_of_counts, ragged_attrs
from xsmall.vocabulary import EVENT, SAMPLE_DIMENSION

__all__ = ["lazy_lists"]

_EVENTS = 4096
"""Events of one chunk of lists."""


def lazy_lists(node: xr.Dataset, path: object) -> xr.Dataset:
    """Bring contiguous ragged arrays back to lists per event, block by block when they are computed.

    Parameters
    ----------
    node
        A group of a stored run: counts with the attribute ``sample_dimension``, and lazy values.
    path
        Name of the group, for errors.

    Raises
    ------
    FileFormatError
        Counts that do not add up to the number of values.
    """
    out = node
    for name, count in node.data_vars.items():
        dim = str(count.attrs.get(SAMPLE_DIMENSION, ""))
        if dim not in node.sizes or count.dims[:1] != (EVENT,):
            continue
        n = count.values.astype(np.int64)
        if (n < 0).any() or int(n.sum()) != node.sizes[dim]:
            raise FileFormatError(
                f"{path}: the lists do not fit their counts",
                found=f"{name} counts {int(n.sum())} values, there are {node.sizes[dim]}",
                expected="one value for each that is counted",
                fix="copy the file again from where it was written",
            )
        for key, values in node.variables.items():
            if values.dims == (dim,):
                out = out.drop_vars([key])
                if key in node.data_vars:
                    attrs = {**values.attrs, **ragged_attrs(dim, values.dtype)}
                    out = out.assign({key: xr.Variable(count.dims, _lazy_lists(values, n), attrs)})
        out = out.drop_vars([name])
    return out


def _lazy_lists(values: xr.Variable, n: npt.NDArray[np.int64]) -> da.Array:
    """An array of objects of the shape of the counts."""
    flat = da.asarray(values.data)
    ends = np.concatenate([[0], np.cumsum(n.reshape(n.shape[0], -1).sum(axis=1))])
    blocks = []
    for start in range(0, max(1, n.shape[0]), _EVENTS):
        counts = n[start : start + _EVENTS]
        piece = flat[int(ends[start]) : int(ends[min(start + _EVENTS, n.shape[0])])]
        split = dask.delayed(_split_lists, pure=True)(piece, counts)
        blocks.append(da.from_delayed(split, counts.shape, meta=np.empty((0,) * n.ndim, object)))
    return da.concatenate(blocks, axis=0)


def _split_lists(values: npt.NDArray[Any], counts: npt.NDArray[np.int64]) -> npt.NDArray[np.object_]:
    return lists_of_counts(values, counts).view(ListBlock)
