"""Moments of many events per bin: lanes of events, batches in lanes, one fixed order of merges.

A lane is a range of events whose borders come from the bins of the events alone. Inside a lane, events are taken in
batches of consecutive ones, and a batch bin by bin, so that each bin's accumulator is read and written once per batch.
Lanes are merged one after the other, eight to a group, and so are the groups. So the result does not depend on chunks,
scheduler, number of workers or size of tiles, bit for bit.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, NamedTuple, TypeVar

import numpy as np
import numpy.typing as npt

from xsmall.kernels import moments as kernel
from xsmall.kernels import pairs
from xsmall.kernels.add_frames import add_frames, all_go_on, flat

BATCH = 256
"""Events that are taken bin by bin together, at the most."""

FEWEST_BATCH = 16

FEWEST_LANE = 128
MOST_LANES = 64
EVENTS_PER_BIN = 4
"""Events of a lane for each bin that it meets at least, so that merging stays cheap beside filling;"""

FEWER_PER_BIN, ENOUGH_LANES = 2, 16
"""and where there would not be enough lanes for many workers to share."""

GROUP_OF_LANES = 8
"""Lanes that are merged before they go on together: few accumulators wait, and workers need not wait for all others."""

BATCH_PIXELS = 2**28
"""Pixels of whole frames in a batch at the most: a rule on the shape of a detector, never on the machine."""

DTYPES: Mapping[str, type] = {"mean": np.float64, "std": np.float64, "count": np.int32}
"""Statistics that come out of an accumulator, and their types."""

STDERR = "stderr"
"""Made of ``std`` and ``count`` where it is asked for."""

VARIANCES, PAIRS, RATIOS, EXTREMES = "variances", "pairs", "ratios", "extremes"
"""What is gathered beside the moments where it is asked for: sums of known variances; pairs of value and weight; their
ratios; the least and the largest values."""

PROPAGATED, WEIGHT, WEIGHT_STD, COVARIANCE, MEAN_RATIO, RATIO_STD, LEAST, LARGEST = (
    "variance", "weight", "weight_std", "covariance", "ratio", "ratio_std", "min", "max"
)  # fmt: skip
"""Statistics that come of it, float64: the propagated variance of the mean; mean and spread of the weights, and their
covariance with the values; mean and spread of the ratios; the least and the largest value."""

_MORE: Mapping[str, tuple[str, ...]] = {
    VARIANCES: (PROPAGATED,), PAIRS: (WEIGHT, WEIGHT_STD, COVARIANCE), RATIOS: (MEAN_RATIO, RATIO_STD),
    EXTREMES: (LEAST, LARGEST),
}  # fmt: skip


def statistics_types(more: Iterable[str]) -> dict[str, type]:
    """All statistics that come out, and their types."""
    kinds = set(more)
    return {**DTYPES, **{name: np.float64 for kind, names in _MORE.items() if kind in kinds for name in names}}


Index = npt.NDArray[np.int64]


class BinnedEvents(NamedTuple):
    """What is known of some events before a frame is read."""

    bins: Index
    """Bin of each, counted over all dims of the bins, -1 for none."""
    weight: npt.NDArray[np.float64] | None = None
    """Weight of each; finite where it has a bin."""
    block: Index | None = None
    """Number of the block that each is drawn with, of a bootstrap."""

    def cut(self, events: slice) -> BinnedEvents:
        """Some of them."""
        return BinnedEvents(*(None if m is None else m[events] for m in self))  # type: ignore[arg-type]


Lanes = list[tuple[int, int]]
T = TypeVar("T")


class Moments(NamedTuple):
    """Count (n), mean and M2 of every bin and value, each (bin, value)."""

    n: npt.NDArray[np.uint32]
    mean: npt.NDArray[np.float64]
    m2: npt.NDArray[np.float64]

    @classmethod
    def empty(cls, n_bins: int, n_values: int) -> Moments:
        """Moments of no events."""
        shape = (n_bins, n_values)
        return cls(np.zeros(shape, np.uint32), np.zeros(shape), np.zeros(shape))


def lanes(index: Index) -> Lanes:
    """Cut the events into lanes: long enough for the bins that they meet, the same whatever is accumulated."""
    n = len(index)
    lane = FEWEST_LANE
    while lane * MOST_LANES < n:
        lane *= 2
    while lane < n and bins_met(index, lane) * EVENTS_PER_BIN > lane:
        lane *= 2
    while lane > FEWEST_LANE and n > 0 and -(-n // lane) < ENOUGH_LANES:
        if bins_met(index, lane // 2) * FEWER_PER_BIN > lane // 2:
            break
        lane //= 2
    return [(start, min(start + lane, n)) for start in range(0, n, lane)] or [(0, 0)]


def bins_met(index: Index, lane: int) -> float:
    """How many bins a lane of so many events meets, on average."""
    if not len(index):
        return 0.0
    wanted = index >= 0
    number = np.arange(len(index)) // lane
    pairs = number[wanted] * (int(index.max()) + 1) + index[wanted]
    return len(np.unique(pairs)) / (int(number[-1]) + 1)


def batch_events(index: Index, borders: Lanes, frame_pixels: int) -> int:
    """Events of a batch: a few for each bin that a lane meets, and no more than memory takes of such frames."""
    longest = borders[0][1] - borders[0][0]
    wanted = EVENTS_PER_BIN * bins_met(index, max(1, longest))
    batch = FEWEST_BATCH
    while batch < min(BATCH, wanted):
        batch *= 2
    while batch > FEWEST_BATCH and batch * frame_pixels > BATCH_PIXELS:
        batch //= 2
    return batch


def groups(index: Index) -> tuple[Index, Index, Index]:
    """Order the events of a batch by bin: (order, first of each group and the end, bin of each group)."""
    order = np.argsort(index, kind="stable")
    order = order[np.searchsorted(index[order], 0) :]
    bins, first = np.unique(index[order], return_index=True)
    return order, np.append(first, order.size).astype(np.int64), bins.astype(np.int64)


def lane_of_values(values: npt.NDArray[Any], index: Index, n_bins: int) -> Moments:
    """Moments of one lane of any variable (event, ...); what is not finite is skipped."""
    out = Moments.empty(n_bins, int(np.prod(values.shape[1:], dtype=np.int64)))
    for _, frames, (order, first, bins) in _batches_of(values, index):
        add_frames(*flat(frames), order, first, bins, all_go_on(bins), *out, 0, frames.shape[1], 0)
    return out


def _batches_of(
    values: npt.NDArray[Any], index: Index
) -> Iterator[tuple[slice, npt.NDArray[Any], tuple[Index, Index, Index]]]:
    """Yield (events, values (event, pixel) as floats, groups by bin) of a lane batch by batch."""
    dtype = np.float32 if values.dtype == np.float32 else np.float64
    flat = values.reshape(len(values), int(np.prod(values.shape[1:], dtype=np.int64)))
    for start in range(0, len(flat), BATCH):
        some = slice(start, min(start + BATCH, len(flat)))
        of = groups(index[some])
        if of[2].size:
            yield some, np.ascontiguousarray(flat[some], dtype=dtype), of


class Pairs(NamedTuple):
    """Moments of values with those of the weights of their events, each (bin, value)."""

    n: npt.NDArray[np.uint32]
    mean: npt.NDArray[np.float64]
    m2: npt.NDArray[np.float64]
    weight: npt.NDArray[np.float64]
    weight_m2: npt.NDArray[np.float64]
    cross: npt.NDArray[np.float64]

    @classmethod
    def empty(cls, n_bins: int, n_values: int) -> Pairs:
        """Pairs of no events."""
        shape = (n_bins, n_values)
        return cls(np.zeros(shape, np.uint32), *(np.zeros(shape) for _ in range(5)))


def pairs_of_values(values: npt.NDArray[Any], events: BinnedEvents, n_bins: int) -> Pairs:
    """Moments of one lane of any variable (event, ...) with the weights of its events; see :func:`lane_of_values`."""
    assert events.weight is not None
    out = Pairs.empty(n_bins, int(np.prod(values.shape[1:], dtype=np.int64)))
    for some, frames, (order, first, bins) in _batches_of(values, events.bins):
        weight = events.weight[some]
        pairs.add_pairs(frames, weight, order, first, bins, *out[:2], *out[3:], 0, frames.shape[1], 0)
        add_frames(*flat(frames), order, first, bins, all_go_on(bins), *out[:3], 0, frames.shape[1], 0)
    return out


def merge_pairs(a: Pairs, b: Pairs) -> Pairs:
    """Merge the pairs of two sets of events."""
    out = Pairs(*(m.copy() for m in a))  # type: ignore[arg-type]
    mine, theirs = (Pairs(*(m.reshape(-1) for m in one)) for one in (out, b))  # type: ignore[arg-type]
    pairs.merge_pairs(*mine[:2], *mine[3:], *theirs[:2], *theirs[3:])
    kernel.merge_into(*mine[:3], *theirs[:3])
    return out


def finish_pairs(found: Pairs, shape: tuple[int, ...]) -> dict[str, npt.NDArray[Any]]:
    """Mean and standard deviation (n - 1) of the weights, and their covariance with the values, (*bins, ...)."""
    n = found.n.astype(np.float64)
    several = np.where(n > 1, n - 1, np.nan)
    made = {
        WEIGHT: np.where(n > 0, found.weight, np.nan),
        WEIGHT_STD: np.sqrt(found.weight_m2 / several),
        COVARIANCE: found.cross / several,
    }
    return {name: values.reshape(shape) for name, values in made.items()}


def merge(a: Moments, b: Moments) -> Moments:
    """Merge the moments of two sets of events."""
    out = Moments(np.empty_like(a.n), np.empty_like(a.mean), np.empty_like(a.m2))
    kernel.merge(*(m.reshape(-1) for one in (a, b, out) for m in one))
    return out


def in_groups(numbers: range) -> list[range]:
    """Cut numbers of lanes into groups; each group begins at a multiple of its size."""
    return [numbers[i : i + GROUP_OF_LANES] for i in range(0, len(numbers), GROUP_OF_LANES)]


def merge_lanes(numbers: range, lane: Callable[[int], T], merge_two: Callable[[T, T], T]) -> T:
    """Merge lanes in the fixed order: one after the other in groups, then the groups; ``lane`` makes one by its number.

    No lane is made before it is needed, so that few are there at the same time.
    """
    if len(numbers) <= GROUP_OF_LANES:
        return chain(map(lane, numbers), merge_two)
    return chain((merge_lanes(group, lane, merge_two) for group in in_groups(numbers)), merge_two)


def chain(parts: Iterable[T], merge_two: Callable[[T, T], T]) -> T:
    """Merge one after the other."""
    each = iter(parts)
    out = next(each)
    for part in each:
        out = merge_two(out, part)
    return out


def finish(moments: Moments, shape: tuple[int, ...]) -> dict[str, npt.NDArray[Any]]:
    """Mean, standard deviation (n - 1) and count, in the shape (*bins, ...)."""
    out: dict[str, npt.NDArray[Any]] = {name: np.empty(moments.n.shape, dtype) for name, dtype in DTYPES.items()}
    kernel.statistics(*(m.reshape(-1) for m in moments), *(values.reshape(-1) for values in out.values()))
    return {name: values.reshape(shape) for name, values in out.items()}


def standard_error(std: npt.NDArray[np.float64], count: npt.NDArray[np.int32]) -> npt.NDArray[np.float64]:
    """Standard error of the mean, from the spread and the count; NaN where the spread is."""
    out = np.empty(std.shape)
    kernel.standard_error(std.reshape(-1), count.reshape(-1), out.reshape(-1))
    return out
