"""Moments of frames: lanes of events, filled one after the other by all threads and merged in the fixed order."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import pairwise
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from xsmall.cube.accumulator import HeldMoments, HeldRow, RowBlock, Rows, clear_row
from xsmall.cube.filling import AddedEvents, Filler, Lane, RowsOfBlock, Tile, Way
from xsmall.cube.moments import GROUP_OF_LANES, BinnedEvents, Index, groups, in_groups
from xsmall.cube.pieces import Pieces
from xsmall.cube.together import Reductions
from xsmall.engine.blocks import Batch, Unopened
from xsmall.engine.team import Team
from xsmall.engine.transform import Cast, Transform
from xsmall.kernels import add_frames as kernel

__all__ = ["Filled", "rows_of_lanes", "with_kept_groups"]


class Filled(NamedTuple):
    """Moments of some lanes, merged, and the block that all of them lie in."""

    held: HeldMoments
    block: RowBlock


def rows_of_lanes(
    frames: Unopened | Batch,
    events: BinnedEvents,
    numbers: range,
    way: Way,
    tile: Tile,
    transform: Transform,
    team: Team,
    *,
    n_bins: int | None = None,
    beside: Reductions | None = None,
) -> Filled:
    """Moments of some lanes and one tile, merged in the fixed order.

    Parameters
    ----------
    frames
        The frames of the tile's segments, whole rows and columns, from the first of the lanes to the last; unopened, or
        in memory.
    events
        Bins and weights of these events.
    numbers
        The lanes, one group of them, or all.
    way, tile, transform
        What is done.
    team
        Who does it.
    n_bins
        Where these are all lanes, the bins of the cube: the block has them in order.
    beside
        Reductions of the same frames, of a tile of whole frames and where no lanes are kept: they take all events.
    """
    kept = None if way.kept is None else way.kept.tile(tile.name)
    cast = transform if isinstance(transform, Cast) else None
    part = cast is not None and tile.rows != (0, way.shape[0])
    wanted = events.bins if beside is None else np.zeros_like(events.bins)
    read = Pieces(frames, wanted, team, slice(*tile.rows) if part else None, cast)
    fill = Filler(transform, tile, way, read, at_once=kept is None, beside=beside)
    together = in_groups(numbers)
    stock = _Stock(events, way, numbers, int(np.prod(tile.pixels(way.shape[1]))), n_bins, whole_lanes=fill.whole_lanes)
    for some in together:
        of_group = kept if len(some) > 1 and len(way.lanes) > GROUP_OF_LANES else None
        done = None if of_group is None else of_group.get(_name_of_lanes(some))
        stock.begin_group()
        if done is not None:
            stock.put(stock.group, done, team)
        for number in some if done is None else ():
            lane, name = stock.begin_lane(), _name_of_lanes(range(number, number + 1))
            finished = None if kept is None else kept.get(name)
            if finished is not None:
                stock.put(lane, finished, team)
            else:
                _fill_lane(read, events, stock.span(range(number, number + 1)), fill, stock, lane, team, way)
                if kept is not None:
                    kept.put(name, lane.rows())
            stock.group.join(lane, team)
        if of_group is not None:
            if done is None:
                of_group.put(_name_of_lanes(some), stock.group.rows())
            of_group.drop(
                [_name_of_lanes(range(number, number + 1)) for number in some]
            )  # also where a kill came in between
        stock.total.join(stock.group, team)
    return Filled(stock.total, stock.block)


def with_kept_groups(units: list[range], way: Way, tiles: Iterable[Tile]) -> list[range]:
    """Lanes of each task; of a group that is kept whole, of any tile, they are one: it cannot be taken apart."""
    if way.kept is None:
        return units
    kept = [way.kept.tile(tile.name) for tile in tiles]
    out: list[range] = []
    for group in in_groups(range(len(way.lanes))):
        own = [unit for unit in units if unit[0] in group]
        out += [group] if len(own) > 1 and any(of.has(_name_of_lanes(group)) for of in kept) else own
    return out


def _name_of_lanes(numbers: range) -> str:
    return f"lane-{numbers[0]}" if len(numbers) == 1 else f"lanes-{numbers[0]}-{numbers[-1]}"


class _Stock:
    """The memory that the moments of a tile lie in: of all lanes, of the group that is gathered now, and of its lane.

    What only one lane meets is never moved: a bin of a lane lies with those of all lanes as long as they do not have
    it, else with those of its group as long as that does not.
    """

    def __init__(
        self, events: BinnedEvents, way: Way, numbers: range, n_pixels: int, n_bins: int | None, *, whole_lanes: bool
    ) -> None:
        self._first = way.lanes[numbers[0]][0]
        self._lanes = way.lanes
        self._whole_lanes = whole_lanes

        def block(some: list[range]) -> RowBlock:
            met = (events.bins[self.span(part)] for part in some)
            return RowBlock(max(len(np.unique(bins[bins >= 0])) for bins in met), n_pixels, way.more)

        together = in_groups(numbers)
        self.block = block([numbers]) if n_bins is None else RowBlock(n_bins, n_pixels, way.more, by_bin=True)
        self._of_group = block(together) if len(together) > 1 else self.block
        several = len(numbers) > 1 and not whole_lanes
        self._of_lane = block([numbers[i : i + 1] for i in range(len(numbers))]) if several else self.block
        self.total, self.group = HeldMoments(), HeldMoments()

    def span(self, numbers: range) -> slice:
        """The events of some lanes, counted from the first of all."""
        return slice(self._lanes[numbers[0]][0] - self._first, self._lanes[numbers[-1]][1] - self._first)

    def begin_group(self) -> None:
        """Begin to gather the next group of lanes."""
        self.group = HeldMoments()
        if self._of_group is not self.block:
            self._of_group.clear()

    def begin_lane(self) -> HeldMoments:
        """Begin with the next lane of the group."""
        if self._of_lane is not self.block:
            self._of_lane.clear()
        return HeldMoments()

    def put(self, held: HeldMoments, rows: Rows, team: Team) -> None:
        """Copy moments that are finished already into those of a lane or a group that has none yet."""
        places = {bin_: held.put(bin_, self._held_row(bin_)) for bin_ in rows}  # places are given out one by one
        team.map(lambda bin_: places[bin_].row().copy_from(rows[bin_]), list(rows))

    def lane(self, held: HeldMoments, bins: list[int]) -> Lane:
        """Places for the bins of a lane; of whole lanes those in which their group has them already."""
        merged = [self._whole_lanes and bin_ in self.group for bin_ in bins]
        places = [self.group[b] if both else self._held_row(b) for b, both in zip(bins, merged, strict=True)]
        for bin_, place in zip(bins, places, strict=True):
            held.put(bin_, place)
        return Lane(places, [not both for both in merged])

    def _held_row(self, bin_: int) -> HeldRow:
        if bin_ in self.group:
            return self._of_lane.held_row(bin_)
        return (self._of_group if bin_ in self.total else self.block).held_row(bin_)


def _fill_lane(
    read: Pieces,
    events: BinnedEvents,
    span: slice,
    fill: Filler,
    stock: _Stock,
    held: HeldMoments,
    team: Team,
    way: Way,
) -> None:
    """Gather the moments of a lane."""
    own = events.bins[span]
    bins = np.unique(own[own >= 0])
    if not bins.size and fill.beside is None:
        return
    lane = stock.lane(held, bins.tolist())
    cleared = bool(way.more) and not fill.whole_lanes
    if cleared:
        team.map(lambda place: clear_row(place.row()), lane.places)
    begun = np.full(len(bins), cleared)
    for low in range(span.start, span.stop, fill.span):
        high = min(low + fill.span, span.stop)
        batches = list(_batches(events, slice(low, high), way.batch, bins, lane, begun))
        if batches or fill.beside is not None:
            last = len(events.bins) if way.kept is None else span.stop  # other lanes may be there already
            fill.add(low, high, read.between(low, high, last), batches, lane)


def _batches(
    events: BinnedEvents, span: slice, batch: int, bins: Index, lane: Lane, begun: npt.NDArray[np.bool_]
) -> Iterator[AddedEvents]:
    """Yield the events of a span batch by batch; notes which bins have ``begun``."""
    begin = np.where(lane.fresh, kernel.BEGIN, kernel.MERGE)
    for start in range(span.start, span.stop, batch):
        some = events.cut(slice(start, min(start + batch, span.stop)))
        order, first, of = groups(some.bins)
        if of.size:
            number = np.searchsorted(bins, of).astype(np.int64)
            how = np.where(begun[number], kernel.ADD, begin[number])
            begun[number] = True
            at = slice(start - span.start, start - span.start + len(some.bins))
            places = [lane.places[n] for n in number.tolist()]
            yield AddedEvents(at, (order, first, number), list(_rows_by_block(order, first, places, how)), some.weight)


def _rows_by_block(
    order: Index, first: Index, places: list[HeldRow], how: npt.NDArray[np.uint8]
) -> Iterator[RowsOfBlock]:
    """Put the groups of a batch together by the block that they go into."""
    of_groups = [order[a:b] for a, b in pairwise(first.tolist())]
    for block in dict.fromkeys(place.block for place in places):
        chosen = [g for g, place in enumerate(places) if place.block is block]
        own = [of_groups[g] for g in chosen]
        rows = np.array([places[g].number for g in chosen], np.int64)
        yield RowsOfBlock(block, np.concatenate(own), np.cumsum([0, *map(len, own)]), rows, how[chosen])
