"""Correlation of speckle in time: g2 by lag, and between each two events."""

from __future__ import annotations

from typing import Any

import dask
import dask.array as da
import numpy as np
import numpy.typing as npt
import xarray as xr
from dask.utils import format_bytes

from xsmall.detector.frames import Frames
from xsmall.engine.parameters import parameters_attr
from xsmall.errors import DataError, ParameterError, PlanError
from xsmall.events.own_names import as_dataset
from xsmall.reductions.by_pixel_and_time import Correlated, Entries, entries_of, inputs_of, times_of
from xsmall.reductions.edges import as_edges, labels_of_bins
from xsmall.vocabulary import (
    DIMENSIONLESS,
    EVENT,
    G2,
    N_EVENTS,
    N_PAIRS,
    ROI,
    STDERR_SUFFIX,
    TAU,
    TWO_TIME,
    UNITS,
)

__all__ = ["g2", "two_time"]

_FINE, _COARSE = 16, 8
MOST_BYTES = 4 * 2**30
"""Size of a matrix of two times from which on it is refused."""


def g2(
    obj: xr.DataArray | xr.Dataset | xr.DataTree,
    regions: Any,
    *,
    like: xr.DataArray | None = None,
    mask: Any = None,
    lags: Any = None,
    blocks: int = 20,
) -> xr.Dataset:
    """Correlate pixels in time, by the lag between events, in regions such as rings of q.

    Parameters
    ----------
    obj
        Sparse frames or lists of photons, as :func:`~xsmall.photon` returns, also as part of what was produced; or
        frames (event, segment, row, column).
    regions
        A mapping of names to boxes, regions of space or masks: ``{"ring": xs.Band("q", 1.0, 1.2)}``.
    like
        For lists of places: the frames they were found in, which know where pixels are. Their values are not read.
    mask
        Boolean (segment, row, column), True where a pixel may be used; the one that photons were found with.
    lags
        Edges of bins of the lag in s, or in units of the labels where these are whole numbers. Without it: one bin for
        each of the first 16 multiples of the usual time between events, then 8 bins of twice that width, 8 of four
        times, and so on (multi-tau).
    blocks
        Blocks of pixels that errors are estimated with.

    Returns
    -------
    Dataset over (roi, tau), float64, lazy where ``obj`` is: ``g2``, 1 without correlation; ``g2_stderr``; ``n_pairs``,
    pairs of events with that lag; and ``n_events`` (roi), events that have the pixels of the region. NaN where no pair
    has the lag. Coordinates: the middle of the bins and their edges.

    Raises
    ------
    DataError
        Neither frames nor lists, events without time or with the same, fewer than two events; when computed, lists of
        photons that were found on fewer pixels than are correlated.
    ParameterError
        Regions without names, edges that do not rise or begin below or at 0, fewer than two blocks.

    Notes
    -----
    g2 = sum I(p, t) I(p, t') / (sum S(t) S(t') / n) over pairs of events with the lag and pixels p of a region, with
    S(t) the sum of an event over its n pixels: each event has its own mean, so pulse energies need not be known. Lags
    come from the times of the events: where shots were dropped there are fewer pairs, not wrong lags. Events that lack
    pixels of a region are left out of it; pixels that all events lack are masked. Light that differs between pixels of
    a region adds its contrast at all lags: use narrow rings. Errors: the spread between blocks of neighbouring pixels
    (jackknife), good where speckle is small beside a block. Cost: by photons, some 3 ns for each pair of photons of a
    pixel or, where a pixel has many, for each photon and bin; memory for sparse frames some 20 bytes per photon beside
    them. Frames are held in memory whole: use sparse frames for many.

    Examples
    --------
    >>> import numpy as np, xarray as xr, xsmall as xs
    >>> light = np.random.default_rng(1).exponential(1.0, (1, 1, 20, 20)) * np.ones((50, 1, 1, 1))
    >>> times = np.arange(50).astype("M8[ms]").astype("M8[ns]")
    >>> frames = xr.DataArray(light, {"event": times}, ("event", "segment", "row", "column"))
    >>> found = xs.g2(frames, {"all": xs.Box()})
    >>> bool((abs(found["g2"].dropna("tau") - found["g2"][0, 0]) < 1e-9).all())  # speckle that stands still
    True
    """
    obj = as_dataset(obj)
    given = inputs_of(obj, regions, like, mask)
    if isinstance(blocks, bool) or blocks < 2:
        raise ParameterError("invalid blocks", found=repr(blocks), expected="2 or more", fix="blocks=20")
    times, order, unit = times_of(obj, "g2")
    if times.size < 2:
        raise DataError("g2 needs two events", found=f"{times.size}", expected="more of them")
    edges = _lag_edges(times, unit, lags)
    shape = len(given.regions), edges.size - 1
    job = _Lags(given, order, times, edges, int(blocks))
    dims = (ROI, TAU), (ROI, TAU), (ROI, TAU), (ROI,)
    names = G2, f"{G2}{STDERR_SUFFIX}", N_PAIRS, N_EVENTS
    arrays = _run_lags(job, given, [shape, shape, shape, shape[:1]])
    out = xr.Dataset(
        {name: (d, a, {UNITS: DIMENSIONLESS}) for name, d, a in zip(names, dims, arrays, strict=True)},
        coords={
            ROI: list(given.regions),
            **labels_of_bins(TAU, np.float64(unit) * edges.astype(np.float64), "s" if unit != 1.0 else DIMENSIONLESS),
        },
    )
    out.attrs = parameters_attr("g2", {}, regions={k: repr(v) for k, v in regions.items()}, blocks=int(blocks))
    return out


def two_time(
    obj: xr.DataArray | xr.Dataset | xr.DataTree, regions: Any, *, like: xr.DataArray | None = None, mask: Any = None
) -> xr.Dataset:
    """Correlate the pixels of each two events, in regions such as rings of q.

    Parameters
    ----------
    obj, regions, like, mask
        As in :func:`g2`.

    Returns
    -------
    Dataset with ``two_time`` (roi, event, other_event), float64, lazy where ``obj`` is: 1 where two events have nothing
    in common, NaN on the diagonal, where an event has no light, and for events that lack pixels of a region. Events are
    in the order of their times.

    Raises
    ------
    DataError, ParameterError
        As in :func:`g2`.
    PlanError
        A matrix of more than 4 GiB.

    Notes
    -----
    n sum I(p, t) I(p, t') / (S(t) S(t')); see :func:`g2`. What g2 averages over time is seen here event by event: use
    it where a sample ages.

    Examples
    --------
    >>> import numpy as np, xarray as xr, xsmall as xs
    >>> light = np.random.default_rng(1).exponential(1.0, (4, 1, 20, 20))
    >>> times = np.arange(4).astype("M8[ms]").astype("M8[ns]")
    >>> frames = xr.DataArray(light, {"event": times}, ("event", "segment", "row", "column"))
    >>> xs.two_time(frames, {"all": xs.Box()})["two_time"].shape
    (1, 4, 4)
    """
    obj = as_dataset(obj)
    given = inputs_of(obj, regions, like, mask)
    times, order, _ = times_of(obj, "two_time")
    shape = len(given.regions), times.size, times.size
    size = 8 * shape[0] * times.size**2
    if size > MOST_BYTES:
        raise PlanError(
            "a matrix of two times that is too large",
            found=f"{format_bytes(size)} for {times.size} events and {len(given.regions)} regions",
            expected=f"at most {format_bytes(MOST_BYTES)}",
            fix="a part of the run: .isel(event=slice(0, 5000))",
        )
    (matrix,) = _run_lags(_TwoTimes(given, order), given, [shape])
    labels = obj[EVENT].values[order]
    out = xr.Dataset({TWO_TIME: ((ROI, EVENT, f"other_{EVENT}"), matrix, {UNITS: DIMENSIONLESS})})
    out = out.assign_coords({ROI: list(given.regions), EVENT: labels, f"other_{EVENT}": labels})
    out.attrs = parameters_attr("two_time", {}, regions={k: repr(v) for k, v in regions.items()})
    return out


def _run_lags(job: _Lags | _TwoTimes, given: Correlated, shapes: list[tuple[int, ...]]) -> list[Any]:
    """Run at once, or make lazy arrays of what a job returns."""
    if not given.is_lazy:
        return list(job(*given.arrays))
    made = dask.delayed(job, pure=True, nout=len(shapes))(*given.arrays)
    return [da.from_delayed(made[i], shape, dtype=np.float64) for i, shape in enumerate(shapes)]


def _lag_edges(times: npt.NDArray[np.int64], unit: float, lags: Any) -> npt.NDArray[np.int64]:
    """Edges of the bins of lags in the unit of the times."""
    if lags is not None:
        given = np.array(as_edges(lags, "lags"))
        edges = np.ceil(np.round(given / unit, 3)).astype(np.int64)  # lags are whole numbers of units
        if edges[0] <= 0 or (np.diff(edges) <= 0).any():
            whole = unit == 1.0
            raise ParameterError(
                "invalid lags", found=", ".join(f"{edge:.4g}" for edge in given[:4]),
                expected="edges that rise, from above 0" + (", a whole number in each" if whole else ""),
                fix="lags=np.arange(1, 11)" if whole else "lags=np.geomspace(1e-3, 10, 31)",
            )  # fmt: skip
        return edges
    period = max(int(np.median(np.diff(times))), 1)
    steps, last = [0.5], (times[-1] - times[0]) / period
    width = 1
    while steps[-1] <= last:
        n = _FINE if width == 1 else _COARSE
        steps += [steps[-1] + width * (i + 1) for i in range(n)]
        width *= 2
    found = np.array(steps)
    found = found[: int(np.searchsorted(found, last, side="right")) + 1]
    return np.unique(np.ceil(found * period).astype(np.int64))


class _PairTask:
    """What is to be done with the arrays: a value that travels to where they are."""

    def __init__(self, given: Correlated, order: npt.NDArray[np.intp]) -> None:
        self.frames, self.order, self.usable = given.frames, order, given.usable
        self.held = np.stack([h.ravel() for h in given.regions.values()])

    def _entries(self, arrays: tuple[Any, ...]) -> Entries:
        return entries_of(arrays, self.frames, self.held, self.order, self.usable)


class _Lags(_PairTask):
    """The job of :func:`g2`."""

    def __init__(
        self,
        given: Correlated,
        order: npt.NDArray[np.intp],
        times: npt.NDArray[np.int64],
        edges: npt.NDArray[np.int64],
        blocks: int,
    ) -> None:
        super().__init__(given, order)
        self.times, self.edges, self.blocks = times, edges, blocks

    def __call__(self, *arrays: Any) -> tuple[npt.NDArray[np.float64], ...]:
        """g2, its error, pairs of events, and events, by region."""
        from xsmall.kernels.g2 import pair_sums

        entries = self._entries(arrays)
        held = entries.held
        pixels = held.sum(axis=1)
        entries = entries._replace(complete=entries.complete & (pixels > 0)[:, None])  # without pixels no event counts
        by_label = _by_label(self.frames)  # blocks are the same whatever the order of the pixels
        number = np.empty(held.shape, np.int64)
        number[:, by_label] = np.cumsum(held[:, by_label], axis=1) - 1
        block = np.where(held, number, -1)
        n_blocks = min(self.blocks, max(int(pixels.max(initial=0)), 1))
        block = np.where(block < 0, -1, block * n_blocks // np.maximum(pixels, 1)[:, None]).astype(np.int16)
        n = self.edges.size - 1
        sums = np.zeros((len(held), n_blocks, n))
        shares = np.zeros((len(held), n_blocks))
        norm, pairs = np.zeros((len(held), n)), np.zeros((len(held), n))
        for g in range(len(held)):  # regions may lack other events each
            of, kept = slice(g, g + 1), entries.complete[g]
            pair_sums(*entries[:3], self.times, kept, self.edges, block[of], sums[of])
            per_event, shares[g] = _totals(entries, kept, block[g], n_blocks)
            norm[g], pairs[g] = (self._of_events(w, entries.complete[g]) for w in (per_event, np.ones(self.times.size)))
        return (*_ratio(sums, norm, shares, pixels, block), pairs, entries.complete.sum(axis=1).astype(np.float64))

    def _of_events(self, weights: npt.NDArray[np.float64], complete: npt.NDArray[np.bool_]) -> npt.NDArray[np.float64]:
        """Sums of products over pairs of events, by lag."""
        from xsmall.kernels.g2 import pair_sums

        event = np.flatnonzero(complete).astype(np.int32)
        out = np.zeros((1, 1, self.edges.size - 1))
        begin = np.array([0, event.size])
        pair_sums(begin, event, weights[event], self.times, complete, self.edges, np.zeros((1, 1), np.int16), out)
        return np.asarray(out[0, 0])


def _totals(
    entries: Entries, kept: npt.NDArray[np.bool_], block: npt.NDArray[np.int16], n_blocks: int
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """Sum of each event that is kept over a region, and the part of all that each block has."""
    from xsmall.kernels.g2 import event_sums

    per_event, per_block = np.zeros(kept.size), np.zeros(n_blocks)
    event_sums(*entries[:3], kept, block, per_event, per_block)
    whole = per_block.sum()
    return per_event, per_block / (whole if whole else 1.0)


def _ratio(
    sums: npt.NDArray[np.float64],
    norm: npt.NDArray[np.float64],
    shares: npt.NDArray[np.float64],
    pixels: npt.NDArray[np.int64],
    block: npt.NDArray[np.int16],
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """g2 and its error: each block left out once."""
    n_blocks = sums.shape[1]
    with np.errstate(divide="ignore", invalid="ignore"):
        whole = sums.sum(axis=1) * pixels[:, None] / norm
        without = np.empty_like(sums)
        for b in range(n_blocks):
            left = pixels - (block == b).sum(axis=1)
            rest = norm * ((1 - shares[:, b]) ** 2)[:, None]
            without[:, b] = (sums.sum(axis=1) - sums[:, b]) * left[:, None] / rest
        stderr = np.sqrt((n_blocks - 1) * without.var(axis=1))
    bad = ~np.isfinite(whole)
    whole[bad], stderr[bad] = np.nan, np.nan
    return whole, stderr


def _by_label(frames: Frames) -> npt.NDArray[np.intp]:
    """Numbers of the pixels in the order of their labels."""
    orders = [np.argsort(np.asarray(labels), kind="stable") for labels in frames.part]
    return np.arange(int(np.prod(frames.shape))).reshape(frames.shape)[np.ix_(*orders)].ravel()


class _TwoTimes(_PairTask):
    """The job of :func:`two_time`."""

    def __call__(self, *arrays: Any) -> tuple[npt.NDArray[np.float64], ...]:
        """The matrix of each region."""
        from xsmall.kernels.g2 import two_time_sums

        entries = self._entries(arrays)
        n = len(self.order)
        out = np.zeros((len(self.held), n, n))
        two_time_sums(*entries[:3], entries.held, out)
        for g, held in enumerate(entries.held):
            per_event, _ = _totals(entries, np.ones(n, bool), np.where(held, 0, -1).astype(np.int16), 1)
            per_event[~entries.complete[g]] = np.nan
            out[g] += out[g].T
            with np.errstate(divide="ignore", invalid="ignore"):
                out[g] *= held.sum() / np.outer(per_event, per_event)
            np.fill_diagonal(out[g], np.nan)
        out[~np.isfinite(out)] = np.nan
        return (out,)
