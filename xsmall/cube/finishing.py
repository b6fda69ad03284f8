"""Moments of lanes merged and finished, as tasks of a cluster: block of bins by block, so that workers share it."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, Final

import dask
import dask.array as da
import numpy as np
import numpy.typing as npt
from dask.delayed import Delayed

from xsmall.cube.accumulator import Rows, merge_rows, statistics_of_rows
from xsmall.cube.moments import GROUP_OF_LANES, Index, chain, statistics_types
from xsmall.cube.values import Statistics, picked
from xsmall.engine.blocks import Opaque
from xsmall.engine.machine import Machine
from xsmall.engine.team import my_turn

__all__ = ["Blocks", "bin_blocks", "finished_by_block", "shaped"]

Blocks = list[tuple[int, int]]
"""First and last place of each block along the first dim of the bins."""

_LEAST_BLOCK: Final = 32 * 2**20
"""Bytes of a block at the least: less is not worth a task."""


def bin_blocks(shape: tuple[int, ...], result_bytes: int, who: Machine) -> Blocks:
    """Cut bins into as many blocks as there are workers, if they are worth it."""
    n = shape[0] if shape else 1
    blocks = max(1, min(n, who.workers if who.cluster else 1, result_bytes // _LEAST_BLOCK))
    return [(n * i // blocks, n * (i + 1) // blocks) for i in range(blocks)]


def finished_by_block(
    tasks: list[Delayed],
    units: Sequence[range],
    name: str,
    met: Sequence[Index],
    blocks: Blocks,
    common: Delayed,
    shape: tuple[int, ...],
    pixels: tuple[int, ...],
    more: tuple[str, ...],
) -> Statistics:
    """Statistics of all lanes: each bin is merged from the lanes that meet it, in the fixed order, and finished.

    Parameters
    ----------
    tasks
        Rows of some lanes each.
    units
        The lanes of each task: one, some, or a group.
    name
        Last part of the names of the tasks.
    met
        Bins that each task meets.
    blocks
        See :func:`bin_blocks`; the result has a chunk for each.
    common
        What all tasks know.
    shape, pixels
        Numbers of bins, and of what a bin has.
    more
        What is gathered beside the moments.
    """
    inner = math.prod(shape[1:])
    found = []
    for number, (low, high) in enumerate(blocks):
        own = f"{name}-{number}" if len(blocks) > 1 else name
        bins = range(low * inner, high * inner)
        last_two = _last_two(_parts(tasks, own, met, bins), units, own)
        mine = (high - low, *shape[1:]) if shape else ()
        done = dask.delayed(_finish_task, pure=False)(
            *last_two, bins.start, mine, pixels, common, dask_key_name=f"finish-{own}"
        )
        found.append(picked(done, own, (*mine, *pixels), statistics_types(more)))
    return found[0] if len(found) == 1 else {key: da.concatenate([of[key] for of in found]) for key in found[0]}


def _parts(tasks: list[Delayed], name: str, met: Sequence[Index], bins: range) -> Mapping[int, Delayed]:
    """What the tasks that meet some bins have of them, by the number of the task."""
    out = {}
    for i, (task, of_task) in enumerate(zip(tasks, met, strict=True)):
        inside = int(((of_task >= bins.start) & (of_task < bins.stop)).sum())
        if inside == len(of_task) > 0:
            out[i] = task
        elif inside:
            out[i] = dask.delayed(_some_bins_task, pure=False)(
                task, bins.start, bins.stop, dask_key_name=f"bins-{name}-{i}"
            )
    return out


def _last_two(parts: Mapping[int, Delayed], units: Sequence[range], name: str) -> tuple[Delayed | Rows, Delayed | Rows]:
    """Merge the rows of tasks in the fixed order of lanes, until two are left: these merge as they are finished."""

    def merge_two(a: Delayed, b: Delayed) -> Delayed:
        return dask.delayed(_merge_task, pure=False)(a, b, dask_key_name=f"merge-{name}-{next(count)}")

    count = iter(range(len(units)))
    groups: dict[int, list[Delayed]] = {}
    for i, part in parts.items():
        groups.setdefault(units[i][0] // GROUP_OF_LANES, []).append(part)
    found = list(groups.values())
    left = [chain(group, merge_two) for group in found] if len(found) > 1 else found[0] if found else []
    if len(left) < 2:
        return left[0] if left else {}, {}
    return chain(left[:-1], merge_two), left[-1]


def _some_bins_task(rows: Rows, low: int, high: int) -> Rows:
    return {bin_: row for bin_, row in rows.items() if low <= bin_ < high}


def _merge_task(a: Rows, b: Rows) -> Rows:
    with my_turn() as team:
        return merge_rows(a, b, team)


def _finish_task(
    rows: Rows, others: Rows, first: int, shape: tuple[int, ...], trailing: tuple[int, ...], common: Opaque
) -> dict[str, npt.NDArray[Any]]:
    """Statistics of a block, whose first bin is given, of the moments of two sets of events."""
    n_bins, n_pixels = (int(np.prod(of, dtype=np.int64)) for of in (shape, trailing))
    own, of_others = ({bin_ - first: row for bin_, row in of.items()} for of in (rows, others))
    with my_turn() as team:
        found = statistics_of_rows(own, n_bins, n_pixels, team, common.value[0].more, others=of_others)
    return shaped(found, shape, trailing)


def shaped(
    found: dict[str, npt.NDArray[Any]], shape: tuple[int, ...], trailing: tuple[int, ...]
) -> dict[str, npt.NDArray[Any]]:
    """Statistics with the dims of the bins, and of what a bin has."""
    return {name: values.reshape(*shape, *trailing) for name, values in found.items()}
