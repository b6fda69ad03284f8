"""Moments of sparse frames per bin: sums over what is not zero, and a count of what was valid."""

from __future__ import annotations

import operator
from collections.abc import Sequence
from typing import Any, NamedTuple

import dask
import dask.array as da
import numpy as np
import numpy.typing as npt
from dask.utils import format_bytes

from xsmall.cube.moments import DTYPES, STDERR, Index, Moments, finish, standard_error
from xsmall.engine.machine import machine
from xsmall.errors import PlanError

__all__ = ["statistics_of_entries"]

_BYTES = 64
"""Of each pixel of each bin: sums and results."""


class BinSums(NamedTuple):
    """What some events add to the bins."""

    slot: npt.NDArray[np.int64]
    """Bin and pixel, counted together, of each value,"""
    value: npt.NDArray[np.float64]
    """the values, or their sums where they are whole numbers, which makes no difference,"""
    square: npt.NDArray[np.float64]
    """and their squares;"""
    border: npt.NDArray[np.int64]
    """where runs of lost pixels begin and end, bins one behind the other with one place more than pixels,"""
    step: npt.NDArray[np.int64]
    """and how many do: 1 where one begins, -1 where one ends."""


def statistics_of_entries(
    lists: tuple[Any, Any, Any],
    used: npt.NDArray[np.bool_],
    index: Index,
    shape: tuple[int, ...],
    label: str,
    memory: int | None = None,
) -> dict[str, Any]:
    """Statistics of sparse frames per bin, each (*bins, segment, row, column); those of the dense ones.

    Parameters
    ----------
    lists
        Pixels, values and runs of lost pixels (event,), NumPy or dask.
    used
        Pixels that may be used (segment, row, column).
    index
        Bin of each event, counted over all dims of the bins, -1 for none.
    shape
        Numbers of bins.
    label
        First part of dask names.
    memory
        Bytes that may be used.

    Raises
    ------
    PlanError
        Bins and pixels that do not fit into memory.
    """
    n_bins = int(np.prod(shape, dtype=np.int64))
    needs, has = n_bins * used.size * _BYTES, machine(memory).memory
    if needs > has:
        raise PlanError(
            "this cube of sparse frames does not fit into memory",
            found=f"{n_bins} bins of {used.size} pixels: {format_bytes(needs)}",
            expected=f"at most {format_bytes(has)}",
            fix="fewer bins, or reduce the events first: small.sd.azint(...)",
        )
    count = np.bincount(index[index >= 0], minlength=n_bins)
    if not any(isinstance(part, da.Array) for part in lists):
        return _summed_parts([_sums_of_lists(*lists, index, used.size)], count, used, shape)
    chunks = next(part.chunks for part in lists if isinstance(part, da.Array))
    same = [part.rechunk(chunks) if isinstance(part, da.Array) else da.from_array(part, chunks) for part in lists]
    token = f"{label}-{dask.base.tokenize(same, used, index, shape)}"
    borders = np.concatenate([[0], np.cumsum(chunks[0])])
    blocks = zip(*(part.to_delayed(optimize_graph=False).ravel() for part in same), strict=True)
    parts = [
        dask.delayed(_sums_of_lists, pure=False)(*block, index[a:b], used.size, dask_key_name=f"part-{token}-{i}")
        for i, (block, a, b) in enumerate(zip(blocks, borders[:-1], borders[1:], strict=True))
    ]
    done = dask.delayed(_summed_parts, pure=False)(parts, count, used, shape, dask_key_name=f"whole-{token}")
    pick = dask.delayed(operator.getitem, pure=False)
    dtypes = {**DTYPES, STDERR: np.float64}
    return {
        name: da.from_delayed(
            pick(done, name, dask_key_name=f"{name}-{token}"), (*shape, *used.shape), dtype=dtype,
            name=f"{name}s-{token}",
        )
        for name, dtype in dtypes.items()
    }  # fmt: skip


def _sums_of_lists(
    pixel: npt.NDArray[np.object_],
    value: npt.NDArray[np.object_],
    lost: npt.NDArray[np.object_],
    index: Index,
    n_pixels: int,
) -> BinSums:
    """Bring the lists of some events into the pixels of the bins."""
    binned = np.flatnonzero(index >= 0)
    bins = index[binned]
    slot = _lists_concatenated([pixel[i] for i in binned]) + n_pixels * np.repeat(bins, [len(pixel[i]) for i in binned])
    values = np.concatenate([np.empty(0), *(value[i] for i in binned)])
    border = _lists_concatenated([lost[i] for i in binned]) + (n_pixels + 1) * np.repeat(
        bins, [len(lost[i]) for i in binned]
    )
    step = np.where(np.arange(border.size) % 2, -1, 1)
    border, where = np.unique(border, return_inverse=True)
    step = np.bincount(where, step, border.size).astype(np.int64)
    if not (values == np.rint(values)).all():  # only sums of whole numbers are the same in any order
        return BinSums(slot, values, values**2, border, step)
    slot, where = np.unique(slot, return_inverse=True)
    sums, squares = (np.bincount(where, v, slot.size).astype(np.float64) for v in (values, values**2))
    return BinSums(slot, sums, squares, border, step)


def _lists_concatenated(lists: Sequence[npt.NDArray[Any]]) -> npt.NDArray[np.int64]:
    return np.concatenate([np.empty(0, np.int64), *lists])


def _summed_parts(
    parts: Sequence[BinSums], count: npt.NDArray[np.int64], used: npt.NDArray[np.bool_], shape: tuple[int, ...]
) -> dict[str, npt.NDArray[Any]]:
    """Add up the parts in order, and divide by what was valid."""
    n_bins, n_pixels = count.size, used.size
    total, square = np.zeros((2, n_bins * n_pixels))
    lost = np.zeros((n_bins, n_pixels + 1), np.int64)
    for part in parts:
        np.add.at(total, part.slot, part.value)
        np.add.at(square, part.slot, part.square)
        np.add.at(lost.reshape(-1), part.border, part.step)
    n = np.where(used.reshape(-1), count[:, None] - np.cumsum(lost, axis=1)[:, :-1], 0)
    some = np.maximum(n, 1)
    mean = total.reshape(n.shape) / some
    # n * square - total**2 is exact for whole numbers: what is constant has no spread at all
    m2 = np.maximum(n * square.reshape(n.shape) - total.reshape(n.shape) ** 2, 0.0) / some
    found = finish(Moments(n.astype(np.uint32), mean, m2), (*shape, *used.shape))
    return found | {STDERR: standard_error(found["std"], found["count"])}
