"""Fast sources in the exposures of a slow detector: :func:`integrate`."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Final, Literal

import dask.array as da
import numpy as np
import numpy.typing as npt
import pandas as pd
import xarray as xr

from xsmall import vocabulary as v
from xsmall.engine.pairs import check_small, paired
from xsmall.errors import DataError, ParameterError, alike
from xsmall.events.labels import labels_of
from xsmall.events.name_rules import where_known
from xsmall.events.unknown import only_known

__all__ = ["integrate"]

_AT_THE_END: Final = frozenset({v.STEP, v.RUN, v.SOURCE_TIMESTAMP, v.PULSE_ID, v.FIDUCIAL})
"""Variables that say which event it is: an exposure has those of its end."""
_BLOCK_BYTES: Final = 64 * 2**20


def integrate(
    small: xr.Dataset | xr.DataTree,
    into: str | xr.Dataset | xr.DataArray | xr.DataTree,
    *,
    statistic: Literal["mean", "sum"] = "mean",
) -> xr.Dataset:
    """Average or sum what every shot has over the exposures of a detector that integrates several shots.

    An exposure holds the events after the previous one up to and including the event that carries the slow detector:
    psana's rule of ``intg_det`` and ``EndOfBatch``. The first one begins with the first event.

    Parameters
    ----------
    small
        Small data or event variables (event, ...), or a run, whose event variables are taken.
    into
        The slow detector: its name in the run, or in small data that have ``<name>_present``; or its frames, Dataset or
        node, whose events (those with a segment that is ``present``) end the exposures.
    statistic
        ``"mean"`` or ``"sum"`` of the values that are there.

    Returns
    -------
    Dataset over ``event``, one for each exposure, labelled by its end, which is the label of the slow frame: the two
    join. ``n_events``: fast events in it (int64). Each variable under its own name: sums of integers and bool are
    int64, all else float64; NaN where an exposure has no value; ``<name>_count`` where some values are missing, or may
    be. ``<name>_variance`` stays the variance of that very value. Step, run and other labels, and coordinates, are
    those of the end; ``spans_steps`` says where the events of an exposure belong to several steps. ``attrs``:
    ``tail_events``, events behind the last exposure, which are left out; ``left_out``: what cannot be summed.

    Raises
    ------
    ParameterError
        No slow detector of that name, or another statistic.
    DataError
        Events without labels, or not a single exposure.

    Notes
    -----
    Lazy variables stay lazy; each exposure is summed in one piece, so that chunks change no bit. Frames are reduced
    first: ``cal.sd.roi(...)`` and its like give what is integrated here.

    Examples
    --------
    >>> import numpy as np, xarray as xr, xsmall as xs
    >>> small = xr.Dataset(
    ...     {"i0": ("event", [1.0, 2, 3, 4, 5]), "epix_present": ("event", [False, True, False, True, False])},
    ...     {"event": np.arange(5)},
    ... )
    >>> slow = small.sd.integrate(into="epix")
    >>> slow.i0.values.tolist(), slow.n_events.values.tolist(), slow.event.values.tolist(), slow.attrs["tail_events"]
    ([1.5, 3.5], [2, 2], [1, 3], 1)
    """
    if statistic not in ("mean", "sum"):
        raise ParameterError("unknown statistic", found=repr(statistic), expected="'mean' or 'sum'")
    run = small if isinstance(small, xr.DataTree) else None
    if run is not None:
        if v.EVENTS_NODE not in run.children:
            raise ParameterError("no run", found=f"nodes {list(run.children)}", expected="what xs.open_run opened")
        small = run.children[v.EVENTS_NODE].to_dataset(inherit=False)
    assert isinstance(small, xr.Dataset)
    exposures = _exposures(small, _exposure_ends(small, run, into), str(into) if isinstance(into, str) else "into")
    return _integrated(small, exposures, statistic, f"{into}_{v.PRESENT}" if isinstance(into, str) else "")


@dataclass(frozen=True)
class _Exposures:
    """Which events make which exposure: ``order`` puts them behind each other, the tail and what is no event not."""

    ends: pd.Index
    order: npt.NDArray[np.int64]
    counts: npt.NDArray[np.int64]
    tail: int

    @property
    def starts(self) -> npt.NDArray[np.int64]:
        """Where each exposure begins in ``order``, and where the last ends."""
        return np.concatenate([[0], np.cumsum(self.counts)])

    def pick(self, x: xr.Variable) -> xr.Variable:
        """Bring a variable into the order of exposures."""
        if self.order.size and (np.diff(self.order) == 1).all():
            return x.isel({v.EVENT: slice(int(self.order[0]), int(self.order[-1]) + 1)})
        return x.isel({v.EVENT: self.order})


def _exposure_ends(small: xr.Dataset, run: xr.DataTree | None, into: Any) -> pd.Index:
    """Labels of the events that carry the slow detector, rising."""
    if isinstance(into, str):
        name = f"{into}_{v.PRESENT}"
        if run is not None and into in run.children:
            into = run.children[into].to_dataset(inherit=False)
        elif name in small.variables and small[name].dims == (v.EVENT,):
            labels = labels_of(small, "the small data")
            return labels[small[name].values.astype(bool) & labels.notna()].sort_values()
        else:
            said = [str(n).removesuffix(f"_{v.PRESENT}") for n in small.variables if str(n).endswith(f"_{v.PRESENT}")]
            known = [n for n in run.children if n != v.EVENTS_NODE] if run is not None else said
            near = alike(into, known)
            raise ParameterError(
                "no slow detector of this name",
                found=repr(into),
                expected=", ".join(known) or f"small data with {name}",
                fix=f"into={near[0]!r}" if near else "into=frames of the slow detector, such as run['epix/raw']",
            )
    if isinstance(into, xr.DataTree):
        into = into.to_dataset(inherit=False)
    if not isinstance(into, xr.Dataset | xr.DataArray):
        raise ParameterError("no slow detector", found=type(into).__name__, expected="its name, or its frames")
    labels = labels_of(into, "the slow detector")
    there = labels.notna()
    present = into.coords.get(v.PRESENT)
    if present is not None and v.EVENT in present.dims:
        there &= present.any([d for d in present.dims if d != v.EVENT]).values
    return labels[there].sort_values()


def _exposures(small: xr.Dataset, ends: pd.Index, name: str) -> _Exposures:
    labels = labels_of(small, "the small data")
    if not len(ends):
        raise DataError(
            "there is no exposure", found=f"no event that carries {name}", expected="one that ends an exposure"
        )
    if labels.dtype.kind != ends.dtype.kind and {labels.dtype.kind, ends.dtype.kind} - set("iuf"):
        raise DataError("other labels than those of the slow detector", found=f"{labels.dtype} and {ends.dtype}")
    known = np.flatnonzero(labels.notna())
    values = labels[known].to_numpy()
    number = np.searchsorted(ends.to_numpy(), values, side="left")
    inside = number < len(ends)
    # events in the order of their labels: floating-point sums do not depend on the order of a file
    order = np.lexsort((values[inside], number[inside]))
    counts = np.bincount(number[inside], minlength=len(ends))
    return _Exposures(ends, known[inside][order], counts.astype(np.int64), int((~inside).sum()))


def _integrated(small: xr.Dataset, exposures: _Exposures, statistic: str, marker: str) -> xr.Dataset:
    variables: dict[str, xr.Variable] = {}
    coords: dict[str, xr.Variable] = {}
    left_out = []
    for name, array in small.variables.items():
        name, x = str(name), array
        kept = coords if name in small.coords else variables
        if v.EVENT not in x.dims:
            kept[name] = x
        elif kept is coords or name in _AT_THE_END:
            if x.dims == (v.EVENT,) and (exposures.counts.all() or x.dtype.kind in "fM"):
                kept[name] = _at_the_end(x, exposures)
            elif kept is variables:
                left_out.append(f"{name}: an exposure has no event")
        elif x.dtype.kind not in "biuf":
            left_out.append(f"{name}: {x.dtype}")
        elif x.dims == v.FRAME_DIMS:
            left_out.append(f"{name}: frames are reduced first")
        elif name != marker:
            variables |= _integrated_variable(small, name, exposures, statistic)
    if v.STEP in small.variables and small[v.STEP].dims == (v.EVENT,) and small[v.STEP].chunks is None:
        steps, starts = exposures.pick(small[v.STEP].variable).values, exposures.starts
        spans = np.array([np.unique(steps[a:b]).size > 1 for a, b in pairwise(starts)])
        if spans.any():
            variables[v.SPANS_STEPS] = xr.Variable(v.EVENT, spans)
    variables[v.N_EVENTS] = xr.Variable(v.EVENT, exposures.counts, {v.LONG_NAME: "events in this exposure"})
    coords[v.EVENT] = xr.Variable(v.EVENT, exposures.ends, small[v.EVENT].attrs)
    attrs = {**small.attrs, v.TAIL_EVENTS: exposures.tail, v.STATISTIC: statistic}
    said = [str(small.attrs[v.LEFT_OUT])] if v.LEFT_OUT in small.attrs else []
    out = xr.Dataset(variables, coords, attrs)
    return paired(out.assign_attrs({v.LEFT_OUT: "; ".join(said + left_out)}) if said + left_out else out)


def _at_the_end(x: xr.Variable, exposures: _Exposures) -> xr.Variable:
    """Value of the last event of each exposure; NaN, NaT where one has no event."""
    last = np.maximum(exposures.starts[1:] - 1, 0)
    picked = exposures.pick(x).isel({v.EVENT: last})
    return picked if exposures.counts.all() else where_known(picked, xr.Variable(v.EVENT, exposures.counts > 0))


def _integrated_variable(small: xr.Dataset, name: str, exposures: _Exposures, statistic: str) -> dict[str, xr.Variable]:
    """One variable in its exposures, and how many values each has, where that is not the number of its events."""
    x = exposures.pick(only_known(small, name).transpose(v.EVENT, ...))
    base = name.removesuffix(v.VARIANCE_SUFFIX)
    of_base = None
    if base != name and base in small.data_vars and small[base].dims == small[name].dims:
        check_small(small, base)
        of_base = exposures.pick(small[base].variable.transpose(v.EVENT, ...))
        x = where_known(x.astype(np.float64), of_base.notnull())  # a value that is missing has no part in the sum
    exact = x.dtype.kind in "biu" and statistic == "sum"
    total = xr.Variable(x.dims, _by_exposure(x.data, exposures.counts, _exact if exact else _exposure_sums), x.attrs)
    if exact:
        return {name: total}
    n, certain = _counted(x, exposures)
    if of_base is not None:  # one variance that is missing, and that of the sum is not known
        total = where_known(total, n == _counted(of_base, exposures)[0])
    some = where_known(n.astype(np.float64), n > 0)
    power = {"sum": 0, "mean": 2 if of_base is not None else 1}[statistic]
    total = xr.Variable(x.dims, (total / some**power if power else where_known(total, n > 0)).data, x.attrs)
    if small[name].dtype.kind == "b":
        total.attrs[v.UNITS] = v.DIMENSIONLESS
    counted = {} if certain or of_base is not None else {f"{name}{v.COUNT_SUFFIX}": n}
    return {name: total} | counted


def _counted(x: xr.Variable, exposures: _Exposures) -> tuple[xr.Variable, bool]:
    """Count the values that are there, and say whether all are for certain."""
    if x.dtype.kind in "biu" or (x.chunks is None and bool(np.isfinite(x.values).all())):
        counts = exposures.counts.reshape(-1, *[1] * (x.ndim - 1))
        return xr.Variable(x.dims, np.broadcast_to(counts, (counts.shape[0], *x.shape[1:]))), True
    return xr.Variable(x.dims, _by_exposure(x.data, exposures.counts, _valid)), False


def _exact(values: npt.NDArray[Any], counts: npt.NDArray[np.int64]) -> npt.NDArray[Any]:
    """Sum integers."""
    return _summed_exposures(values.astype(np.int64), counts)


def _exposure_sums(values: npt.NDArray[Any], counts: npt.NDArray[np.int64]) -> npt.NDArray[Any]:
    """Sum the values of each exposure that are there, behind each other along the first axis."""
    wide = values.astype(np.float64)
    return _summed_exposures(np.where(np.isfinite(wide), wide, 0.0), counts)


def _valid(values: npt.NDArray[Any], counts: npt.NDArray[np.int64]) -> npt.NDArray[Any]:
    """Count the values of each exposure that are there."""
    return _summed_exposures(np.isfinite(values).astype(np.int64), counts)


def _summed_exposures(values: npt.NDArray[Any], counts: npt.NDArray[np.int64]) -> npt.NDArray[Any]:
    out = np.zeros((counts.size, *values.shape[1:]), values.dtype)
    filled = np.flatnonzero(counts)
    if filled.size:
        starts = (np.cumsum(counts) - counts)[filled]
        out[filled] = np.add.reduceat(values, starts, axis=0)
    return out


def _by_exposure(data: Any, counts: npt.NDArray[np.int64], function: Any) -> Any:
    """Apply a function of (values, counts) to whole exposures: at once, or a piece of a lazy array at a time."""
    if not isinstance(data, da.Array):
        return function(np.asarray(data), counts)
    per_event = max(1, data.dtype.itemsize * int(np.prod(data.shape[1:], dtype=np.int64)))
    ends = np.cumsum(counts)
    piece = ends * per_event // _BLOCK_BYTES
    borders = [0, *(np.flatnonzero(np.diff(piece)) + 1).tolist(), counts.size]
    kind = function(np.zeros((0,) * data.ndim, data.dtype), counts[:0]).dtype
    parts = []
    for a, b in pairwise(borders):
        first, last = int(ends[a] - counts[a]), int(ends[b - 1])
        block = data[first:last].rechunk({0: -1}) if last > first else data[:0].rechunk({0: -1})
        parts.append(block.map_blocks(function, counts=counts[a:b], dtype=kind, chunks=((b - a,), *block.chunks[1:])))
    return da.concatenate(parts) if len(parts) > 1 else parts[0]
