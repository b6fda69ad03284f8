"""Bootstrap: the cube of many runs that might have been, drawn from the blocks of events of the one there is."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any, Final, NamedTuple

import numpy as np
import numpy.typing as npt
import xarray as xr

from xsmall.cube.binning import Binning
from xsmall.cube.images import are_images
from xsmall.cube.moments import (
    BinnedEvents,
    Index,
    Moments,
    Pairs,
    finish,
    finish_pairs,
    lane_of_values,
    pairs_of_values,
)
from xsmall.cube.room import check_room, check_variables
from xsmall.cube.sorting import said, sort_events
from xsmall.cube.values import COVARIANCES, MOMENTS, Fold, folded, with_error
from xsmall.cube.variables import Wanted, data_inside, labelled, small_variables
from xsmall.engine.pairs import is_variance
from xsmall.engine.parameters import parameters_attr, parameters_of
from xsmall.errors import ParameterError
from xsmall.events.held import with_events
from xsmall.events.ragged import dims_of_events
from xsmall.kernels import moments as kernel
from xsmall.kernels import pairs as pair_kernel
from xsmall.vocabulary import COUNT, DIMENSIONLESS, EVENT, LEFT_OUT, LONG_NAME, REPLICA, UNITS

__all__ = ["bootstrap"]

_BLOCKS_PER_BIN: Final = 32
"""Blocks that a bin meets at least, as far as it has events: fewer of them know their own spread badly."""


_ADVICE: Final = "small.sd.bootstrap(bins, n=100, seed=0)"


class _Drawn(NamedTuple):
    """What all variables are drawn with."""

    weights: npt.NDArray[np.float64]
    """How often each block is in each replica (replica, block)."""
    n_bins: int


class _BlockMoments(NamedTuple):
    """Moments of some events by block and bin."""

    keys: Index
    """block * bins + bin of each row."""
    moments: Moments | Pairs


def bootstrap(
    small: xr.Dataset,
    bins: Mapping[str, Binning | Any],
    *,
    n: int = 100,
    block: int | None = None,
    seed: int = 0,
    weights: str | None = None,
    coordinates: Sequence[str] | bool = False,
    dropped_shots: bool = False,
) -> xr.Dataset:
    """Draw replicas of a cube: what it might have been, had other events of the same kind been taken.

    The spread between replicas is the error of anything that is computed from each of them: a ratio, a relative
    difference, the parameter of a fit. It includes what the events of a block have in common, such as a drift.

    Parameters
    ----------
    small
        Variables per event (event, ...), lazy or not, as for :func:`xsmall.cube.cube.cube`.
    bins
        Bins by the name of the variable, as there.
    n
        Replicas.
    block
        How many events, consecutive by label, are drawn together. Where nothing is said: the largest power
        of two of which the typical bin still meets 32 blocks. Longer than what fluctuates together, and at least 20 for
        each bin.
    seed
        Of the draws: the same numbers each time, for every variable, and on every machine.
    weights
        Variable that ratios are wanted to, as for a cube; then ``.sd.ratio()`` and ``normalize=`` work on replicas.
    coordinates
        Names of coordinates of the events to take as well, True for all of them, as there.
    dropped_shots
        Whether events without X-rays go into the bins.

    Returns
    -------
    A cube with one more dim, ``replica``, in front: means, ``_std``, ``_stderr``, ``_count`` and with ``weights``
    covariances of each replica, float64; ``count`` (replica, bins). Images are left out and named in
    ``attrs["left_out"]``; lazy variables stay lazy.

    Raises
    ------
    ParameterError
        A number of replicas below 2, a block below 1, a seed that is none, or what a cube refuses.
    PlanError
        Replicas that do not fit into memory.
    DataError
        What a cube refuses.

    Notes
    -----
    Each replica takes every block as often as a Poisson variable of mean 1 says. Moments of the blocks are gathered in
    one pass over the events, and replicas are sums of them: 100 replicas cost about as much as the cube itself, and
    replicas x bins x values x 40 bytes of memory. The standard deviation over ``replica`` of a mean agrees with
    ``_stderr`` where events are independent (A. C. Davison and D. V. Hinkley, Bootstrap Methods and their Application,
    1997, 8.2.3).

    Examples
    --------
    >>> import numpy as np, xarray as xr, xsmall as xs
    >>> values = np.random.default_rng(1).normal(5, 1, 4000)
    >>> small = xr.Dataset({"on": ("event", np.arange(4000) % 2 == 0), "signal": ("event", values)})
    >>> replicas = small.sd.bootstrap({"on": xs.categories()})
    >>> change = replicas.sd.difference("on", relative=True)["signal"].std("replica")
    >>> bool(abs(change / (2**0.5 / 2000**0.5 / 5) - 1) < 0.3)
    True
    """
    for what, value, least in (("number of replicas", n, 2), ("length of blocks", block, 1), ("seed", seed, 0)):
        whole = isinstance(value, int | np.integer) and not isinstance(value, bool)
        automatic = what == "length of blocks" and value is None
        if not automatic and (not whole or value is None or value < least):
            raise ParameterError(
                f"invalid {what}", found=repr(value), expected=f"a whole number, {least} or more", fix=_ADVICE
            )
    events = sort_events(small, bins, weights, dropped_shots=dropped_shots)
    names, sizes, index = events.bound
    n_bins = math.prod(sizes)
    data = small_variables(small, events.bound, weights, coordinates)
    left = [name for name, array in data.items() if are_images(array) or is_variance(name, small.variables)]
    check_room(n_bins, {name: array for name, array in data.items() if name not in left}, replicas=int(n))
    order = _order(small)
    length = _block(index[order]) if block is None else int(block)
    number = np.empty(len(index), np.int64)
    number[order] = np.arange(len(index)) // length
    drawn = _Drawn(np.random.default_rng(seed).poisson(1.0, (n, int(number.max(initial=0)) + 1)).astype(float), n_bins)
    shape, dims = (n, *sizes), (REPLICA, *names)
    variables: dict[str, xr.Variable] = {COUNT: xr.Variable(dims, _drawn_counts(index, number, drawn).reshape(shape), {
        UNITS: DIMENSIONLESS, LONG_NAME: "events"})}  # fmt: skip
    for name, array in data.items():
        if name in left:
            continue
        is_own = name in small.variables and name != weights
        paired = events.weight is not None and is_own and small[name].dtype.kind != "b"
        given = BinnedEvents(index, events.weight if paired else None, number)
        ordered = array.transpose(EVENT, ...)
        found = with_error(folded(data_inside(ordered), given, shape, f"bootstrap-{name}", _fold(drawn, paired=paired)))
        wanted = Wanted((), events.weight, {} if weights is None else small[weights].attrs)
        variables |= labelled(name, found, dims, ordered, wanted)
    kept = small.drop_dims(dims_of_events(small))
    kept = kept.drop_vars([name for name in kept.variables if name in names])
    out = xr.Dataset(coords=events.coords).assign_coords(kept.coords).assign(kept.data_vars)
    check_variables(variables, out)
    out = out.assign(variables)
    out = out.assign_coords({REPLICA: (REPLICA, np.arange(n), {LONG_NAME: "replica of the cube"})})
    told = {"n": n, "block": length, "seed": seed, **({} if weights is None else {"weights": weights}),
            **({"coordinates": coordinates} if coordinates else {})}  # fmt: skip
    steps = {"small": parameters_of(small.attrs)}
    out.attrs = {**small.attrs, **parameters_attr("bootstrap", steps, bins=said(bins), **told), "n_events": len(index),
                 LEFT_OUT: ", ".join(left), **events.attrs(weights)}  # fmt: skip
    return with_events(out, small, index) if small.get_index(EVENT).is_unique else out


def _order(small: xr.Dataset) -> Index:
    """Events as they came, by their label: what follows each other in time is drawn together, wherever it stands."""
    if EVENT not in small.coords:
        return np.arange(small.sizes[EVENT])
    return np.argsort(small[EVENT].values, kind="stable")


def _block(index: Index) -> int:
    """Events of a block: as many as leave the typical bin enough blocks."""
    place = np.flatnonzero(index >= 0)
    place = place[np.argsort(index[place], kind="stable")]
    bins, number, block = index[place], place, 1
    while bins.size and block < len(index):
        number = number // 2  # of blocks twice as long; equal ones stay neighbours
        new = np.append(True, (np.diff(bins) != 0) | (np.diff(number) != 0))
        bins, number = bins[new], number[new]
        met = np.bincount(bins)
        if np.median(met[met > 0]) < _BLOCKS_PER_BIN:
            break
        block *= 2
    return block


def _drawn_counts(index: Index, number: Index, drawn: _Drawn) -> npt.NDArray[np.int64]:
    """Events of each bin in each replica (replica, bin)."""
    some = index >= 0
    blocks = drawn.weights.shape[1]
    of = np.bincount(number[some] * drawn.n_bins + index[some], minlength=blocks * drawn.n_bins)
    return np.rint(drawn.weights @ of.reshape(blocks, drawn.n_bins)).astype(np.int64)


def _fold(drawn: _Drawn, *, paired: bool) -> Fold:
    types = {**MOMENTS.types, **(COVARIANCES.types if paired else {})}
    return Fold("bootstrap", partial(_lane, n_bins=drawn.n_bins), _parts_joined, partial(_replicas, drawn=drawn), types)


def _lane(values: npt.NDArray[Any], events: BinnedEvents, n_rows: int, *, n_bins: int) -> list[_BlockMoments]:
    """Moments of the blocks and bins that a lane meets."""
    del n_rows  # those of all replicas
    assert events.block is not None
    known = events.bins >= 0
    keys, place = np.unique((events.block * n_bins + events.bins)[known], return_inverse=True)
    rows = np.full(len(events.bins), -1, np.int64)
    rows[known] = place
    if events.weight is None:
        return [_BlockMoments(keys, lane_of_values(values, rows, len(keys)))]
    return [_BlockMoments(keys, pairs_of_values(values, BinnedEvents(rows, events.weight), len(keys)))]


def _parts_joined(a: list[_BlockMoments], b: list[_BlockMoments]) -> list[_BlockMoments]:
    return [*a, *b]


def _all_parts(parts: list[_BlockMoments]) -> _BlockMoments:
    """All parts in one; a block that lies in two lanes is merged."""
    keys = np.unique(np.concatenate([part.keys for part in parts]))
    first = parts[0].moments
    n_values = first.mean.shape[1]
    out = type(first).empty(len(keys), n_values)
    filled = np.zeros(len(keys), bool)
    for part in parts:
        rows = np.searchsorted(keys, part.keys)
        fresh = ~filled[rows]
        filled[rows] = True
        if isinstance(out, Pairs) and isinstance(part.moments, Pairs):
            _merge_pairs(out, part.moments, rows)
        kernel.merge_rows(rows, fresh, *part.moments[:3], *out[:3])
    return _BlockMoments(keys, out)


def _merge_pairs(out: Pairs, part: Pairs, rows: Index) -> None:
    """Merge what belongs to the weights, before the moments are: into empty rows it is a copy."""
    for i, row in enumerate(rows.tolist()):
        mine = [m[row] for m in (out.n, out.mean, *out[3:])]
        pair_kernel.merge_pairs(*mine, *(m[i] for m in (part.n, part.mean, *part[3:])))


def _replicas(parts: list[_BlockMoments], shape: tuple[int, ...], *, drawn: _Drawn) -> dict[str, npt.NDArray[Any]]:
    """Moments of all replicas: sums over blocks, as often as each was drawn."""
    keys, found = _all_parts(parts)
    n_values, n = found.mean.shape[1], len(drawn.weights)
    out = type(found).empty(n * drawn.n_bins, n_values)
    by_bin = [m.reshape(n, drawn.n_bins, n_values) for m in out]
    for bin_ in np.unique(keys % drawn.n_bins):
        rows = np.flatnonzero(keys % drawn.n_bins == bin_)
        for into, made in zip(by_bin, _of_bin(found, rows, drawn.weights[:, keys[rows] // drawn.n_bins]), strict=True):
            into[:, bin_] = made
    means = Moments(*out[:3])
    return finish(means, shape) | (finish_pairs(out, shape) if isinstance(out, Pairs) else {})


def _of_bin(found: Moments | Pairs, rows: Index, weights: npt.NDArray[np.float64]) -> list[npt.NDArray[Any]]:
    """Fields of the moments of one bin, each (replica, value)."""
    count = found.n[rows].astype(float)
    n = weights @ count
    some = np.maximum(n, 1.0)

    def centred(mean: npt.NDArray[np.float64]) -> tuple[Any, Any, Any]:
        """Mean of all blocks, deviations from it times counts, and the mean deviation of each replica."""
        middle = (mean * count).sum(axis=0) / np.maximum(count.sum(axis=0), 1.0)
        away = np.where(count > 0, mean - middle, 0.0)
        return middle, away, weights @ (count * away) / some

    middle, away, step = centred(found.mean[rows])
    m2 = np.maximum(weights @ (found.m2[rows] + count * away**2) - n * step**2, 0.0)
    out = [n, np.where(n > 0, middle + step, 0.0), m2]
    if isinstance(found, Pairs):
        middle_w, away_w, step_w = centred(found.weight[rows])
        w_m2 = np.maximum(weights @ (found.weight_m2[rows] + count * away_w**2) - n * step_w**2, 0.0)
        cross = weights @ (found.cross[rows] + count * away * away_w) - n * step * step_w
        out += [np.where(n > 0, middle_w + step_w, 0.0), w_m2, cross]
    return out
