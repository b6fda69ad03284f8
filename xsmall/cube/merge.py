"""Cubes of several runs made one, and neighbouring bins joined: exact, from the moments."""

from __future__ import annotations

import json
from collections.abc import Hashable, Iterable, Sequence
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import xarray as xr

from xsmall.cube.alike import check_alike
from xsmall.cube.pool import as_made, bounds_of, in_order_of, is_count, means_of, not_pooled, pooled
from xsmall.engine.pairs import paired
from xsmall.engine.parameters import parameters_attr, parameters_of
from xsmall.errors import ParameterError
from xsmall.events.held import held_by
from xsmall.events.select import merged_selections
from xsmall.vocabulary import (
    BIN_EDGE,
    BINNED_EVENTS,
    BOUNDS_SUFFIX,
    COUNT,
    IMAGES_JOINED,
    N_WITHOUT_IMAGE,
    N_WITHOUT_SMALL_DATA,
    PARAMETERS,
    SOURCE,
    TOLERANCE,
)

__all__ = ["merge_cubes"]

_PART: Final = "part_of_the_merge"


def merge_cubes(
    first: xr.Dataset, *others: xr.Dataset, dim: str | None = None, labels: Sequence[Any] | None = None
) -> xr.Dataset:
    """Merge cubes of several runs, as if all events had been binned together; or put them side by side.

    Parameters
    ----------
    first, *others
        Cubes with the same variables. Steps and categories may differ: the result has all of them, matched by value
        (steps within their tolerance). Bins with borders are the same in all.
    dim
        Name of a new dim, such as ``"run"``: the cubes stand side by side along it instead of being added. What is one
        number per cube, such as ``photon_energy`` or ``distance``, may then differ and runs along it too.
    labels
        Labels along ``dim``, one for each cube; where nothing is said the number of its run, else its source.

    Returns
    -------
    One cube: counts add up, means and spreads are those of all events (to 1e-12, by the formula of Chan, Golub and
    LeVeque 1983), numbers of events left out add up, and all sources are kept. Lazy where the cubes are.

    Raises
    ------
    ParameterError
        Cubes that differ in bins, variables, axes, labels, units, distance, photon energy, geometry or detector, in
        the arguments of reductions or how frames were calibrated, each named; or events that are in two of them.
    DataError
        A cube that was computed with as a whole: its spreads, counts and errors do not fit each other any more.

    Warns
    -----
    UserWarning
        Reductions were given other masks or other noise, or events were selected by other cuts, which may be right for
        each run.

    Notes
    -----
    A cube knows its events by the coordinate ``binned_events``; where the events had no labels, nobody can tell that
    the same ones come twice. An overlap of less than 1 event in 500 may go unseen.

    Examples
    --------
    >>> import xarray as xr, xsmall as xs
    >>> small = xr.Dataset({"on": ("event", [False, True, True]), "s": ("event", [1.0, 3.0, 5.0])})
    >>> parts = [small.isel(event=cut).sd.cube({"on": xs.categories()}) for cut in (slice(0, 2), slice(2, 3))]
    >>> xs.merge_cubes(*parts)["s"].values.tolist()
    [1.0, 4.0]
    """
    cubes = [first, *others]
    for given in cubes:
        if not isinstance(given, xr.Dataset) or COUNT not in given:  # type: ignore[redundant-expr] # users are not typed
            raise ParameterError(
                "only cubes can be merged",
                found=type(given).__name__,
                expected=f"Datasets with {COUNT!r}",
                fix="xs.merge_cubes(*cubes)",
            )
    if dim is not None and not isinstance(dim, str):  # users are not typed
        raise ParameterError("a new dim has a name", found=repr(dim), fix='dim="run"')
    if dim is None and labels is not None:
        raise ParameterError("labels are those of a new dim", fix='dim="run", labels=[41, 42]')
    if len(cubes) == 1 and dim is None:
        return first
    for other in others:
        check_alike(first, other, side_by_side=dim is not None)
    if dim is None:
        _check_events_once(cubes)
    _check_counts(cubes)
    cubes = [as_made(c) for c in cubes]
    aligned = _same_bins(cubes)
    names = _labels_of_cubes(cubes, dim, labels) if dim is not None else None
    constant = [n for n in not_pooled(first) if not set(first[n].dims) & set(first[COUNT].dims)]
    bare = [_bare(c, aligned[0]).drop_vars(constant) for c in aligned]
    stacked = xr.concat(
        bare, dim or _PART, data_vars="all", coords="minimal", compat="override", join="exact", combine_attrs="override"
    )
    out = pooled(stacked, _PART) if dim is None else stacked.assign_coords({str(dim): names})
    out = out.assign({name: first[name].variable for name in constant})[list(first.data_vars)]
    out = out.assign_coords({k: c.variable for k, c in aligned[0].coords.items() if k not in out.coords})
    if dim is not None:
        out = out.assign_coords(_differing_scalars(cubes, dim))
    return paired(_told_of_cubes(out, cubes, added=dim is None))


def _check_counts(cubes: Sequence[xr.Dataset]) -> None:
    """Refuse cubes whose counts were changed by arithmetic: ``cube / 2`` halves them too."""
    for cube in cubes:
        held, count = held_by(cube), cube[COUNT]
        if held is None:
            continue
        n = None if count.chunks is not None else float(count.sum())
        if count.dtype.kind not in "iu" or (n is not None and n > held.n):
            raise ParameterError(
                "the count of a cube is no number of events any more",
                found=f"{count.dtype}, {'lazy' if n is None else n} in all; the cube was made of {held.n} events",
                expected="counts as they were made: arithmetic with a whole cube changes them too",
                fix="xs.merge_cubes(...) of the cubes as they were, then compute with the result",
            )


def _bare(cube: xr.Dataset, first: xr.Dataset) -> xr.Dataset:
    """Variables in the order of the first cube, without coordinates but those of the bins, which all share."""
    dims = set(first[COUNT].dims)
    return cube.drop_vars([c for c in cube.coords if c not in dims])[list(first.data_vars)]


def _labels_of_cubes(cubes: Sequence[xr.Dataset], dim: str, labels: Sequence[Any] | None) -> list[Any]:
    if dim in cubes[0].variables or dim in cubes[0].dims:
        raise ParameterError(f"the cubes have {dim!r} already", found=dict(cubes[0].sizes), fix='dim="run"')
    one = isinstance(labels, str) or not isinstance(labels, Iterable)
    given = [_run_of_cube(c) for c in cubes] if labels is None else [labels] if one else labels
    names = [x if isinstance(x, Hashable) else None for x in given]
    if len(names) != len(cubes) or len(set(names)) != len(names) or None in names:
        raise ParameterError(
            f"cubes along {dim!r} need a label each",
            found=names if labels is None else repr(labels),
            expected=f"{len(cubes)} different labels",
            fix=f"xs.merge_cubes(*cubes, dim={dim!r}, labels={list(range(1, len(cubes) + 1))})",
        )
    return names


def _run_of_cube(cube: xr.Dataset) -> Any:
    """The number of the run that a cube holds, if it is one, else its source."""
    held = held_by(cube)
    return held.runs[0] if held is not None and len(held.runs) == 1 else cube.attrs.get(SOURCE)


def _differing_scalars(cubes: Sequence[xr.Dataset], dim: str) -> dict[str, xr.Variable]:
    """Coordinates of one number that differ from cube to cube, along the new dim."""
    out = {}
    for name, coord in cubes[0].coords.items():
        values = [c[name].variable for c in cubes]
        if name != BINNED_EVENTS and coord.ndim == 0 and not all(values[0].equals(v) for v in values[1:]):  # type: ignore[no-untyped-call]
            out[str(name)] = xr.Variable(dim, [v.values[()] for v in values], coord.attrs)
    return out


# ---- the same events -----------------------------------------------------------------------------------------------


def _check_events_once(cubes: Sequence[xr.Dataset]) -> None:
    """Refuse the same events twice."""
    for i, cube in enumerate(cubes):
        for j in range(i):
            one, two = held_by(cubes[j]), held_by(cube)
            known = one is not None and two is not None
            if cubes[j] is cube or (known and one.shared(two)):  # type: ignore[union-attr, arg-type]
                spans = [f"{h.n} events from {h.first} to {h.last}" for h in (one, two) if h is not None]
                raise ParameterError(
                    "the same events are in two of the cubes",
                    found=f"cubes {j} and {i}" + (f": {' and '.join(spans)}" if spans else ": the same cube"),
                    expected="each event once",
                    fix="leave one of them out; dim='run' puts them side by side",
                )


# ---- the same bins ------------------------------------------------------------------------------------------------


def _same_bins(cubes: Sequence[xr.Dataset]) -> list[xr.Dataset]:
    """Give all cubes all steps and categories; refuse other borders."""
    out = [in_order_of(c, cubes[0]) for c in cubes]
    for dim in map(str, cubes[0][COUNT].dims):
        if all(_alike_along(out[0], c, dim) for c in out[1:]):
            continue
        bounded = f"{dim}{BOUNDS_SUFFIX}" in out[0].coords
        if bounded and not all(TOLERANCE in c[dim].attrs for c in out):
            raise ParameterError(
                f"the bins of {dim} differ",
                found=" and ".join(f"{c[dim].values[:3].tolist()} ..." for c in out[:2]),
                fix="the same bins for all runs",
            )
        out = _with_all_steps(out, dim) if bounded else _with_all(out, dim)
    return out


def _alike_along(a: xr.Dataset, b: xr.Dataset, dim: str) -> bool:
    return all(
        np.array_equal(a[label].values, b[label].values)
        for label in (dim, f"{dim}{BOUNDS_SUFFIX}")
        if label in a.coords or label in b.coords
    )


def _with_all(cubes: Sequence[xr.Dataset], dim: str, labels: npt.NDArray[Any] | None = None) -> list[xr.Dataset]:
    """Cubes over all labels; what a cube does not have is empty there."""
    if labels is None:
        labels = np.unique(np.concatenate([c[dim].values for c in cubes]))
    return [c.reindex({dim: labels}, fill_value={str(v): 0 for v in c.data_vars if is_count(c, str(v))}) for c in cubes]


def _with_all_steps(cubes: Sequence[xr.Dataset], dim: str) -> list[xr.Dataset]:
    """Cubes over all steps; steps within their tolerance are the same, labelled by the first cube that has it."""
    tolerance = max(float(c[dim].attrs[TOLERANCE]) for c in cubes)
    bounds = f"{dim}{BOUNDS_SUFFIX}"
    labels: list[float] = []
    low: list[float] = []
    high: list[float] = []
    renamed = []
    for cube in cubes:
        mine = []
        for label, (a, b) in zip(cube[dim].values.tolist(), bounds_of(cube, dim).tolist(), strict=True):
            away = np.abs(np.array(labels) - label) if labels else np.array([np.inf])
            k = int(np.argmin(away))
            if away[k] > tolerance + 4 * np.spacing(abs(label)):
                k = len(labels)
                labels, low, high = [*labels, label], [*low, a], [*high, b]
            low[k], high[k] = min(low[k], a), max(high[k], b)
            mine.append(k)
        if len(set(mine)) != len(mine):
            raise ParameterError(
                f"steps of {dim} cannot be told apart with tolerance {tolerance:g}",
                found=f"{cube[dim].values.tolist()[:8]}",
                fix="xs.steps(tolerance=..., at=[...]) with the same positions for all runs",
            )
        renamed.append(cube.assign_coords({dim: cube[dim].copy(data=np.array(labels)[mine])}))
    order = np.argsort(labels)
    borders = np.stack([np.array(low)[order], np.array(high)[order]], axis=1)
    if (borders[1:, 0] <= borders[:-1, 1]).any():
        raise ParameterError(
            f"the steps of {dim} overlap in the two cubes",
            found=f"borders {borders[:4].tolist()} ...",
            fix="xs.steps(tolerance=..., at=[...]) with the same positions for all runs",
        )
    full = _with_all([c.drop_vars(bounds) for c in renamed], dim, np.array(labels)[order])
    return [c.assign_coords({bounds: ((dim, BIN_EDGE), borders)}) for c in full]


# ---- what is told -------------------------------------------------------------------------------------------------


def _told_of_cubes(out: xr.Dataset, cubes: Sequence[xr.Dataset], *, added: bool) -> xr.Dataset:
    """Numbers of events left out, sources and parameters of all cubes."""
    for name in out.variables:
        each = [c[name].attrs for c in cubes if name in c.variables]
        attrs = dict(out[name].attrs)
        if added:
            attrs |= _summed_attrs(each, ("n_",))
        attrs |= _sources_of_all(each)
        out[name].attrs = attrs
    if added:
        for name in means_of(out):
            _join_images(out[name], [c[name].attrs for c in cubes])
    held = [held_by(c) for c in cubes]
    out = out.drop_vars(BINNED_EVENTS, errors="ignore")
    if all(h is not None for h in held):
        total = held[0]
        for one in held[1:]:
            total = total | one  # type: ignore[operator]
        out = out.assign_coords({BINNED_EVENTS: total.coordinate()})  # type: ignore[union-attr]
    each = [c.attrs for c in cubes]
    told = _summed_attrs(each, ("n_",)) | _sources_of_all(each) | _merged_parameters(each) | merged_selections(each)
    out.attrs = {**cubes[0].attrs, **told}
    return out


def _summed_attrs(each: Sequence[dict[Any, Any]], starts: tuple[str, ...]) -> dict[str, Any]:
    keys = {k for attrs in each for k, v in attrs.items() if str(k).startswith(starts) and np.isscalar(v)}
    return {k: sum(attrs.get(k, 0) for attrs in each) for k in sorted(keys)}


def _sources_of_all(each: Iterable[dict[Any, Any]]) -> dict[str, str]:
    lines = [line for attrs in each for line in str(attrs.get(SOURCE) or "").splitlines()]
    return {SOURCE: "\n".join(dict.fromkeys(lines))} if lines else {}


def _merged_parameters(each: Sequence[dict[Any, Any]]) -> dict[str, str]:
    known: list[Any] = []
    for attrs in each:
        said = parameters_of(attrs)
        parts = said["cubes"] if isinstance(said, dict) and said.get("function") == "merge_cubes" else [said]
        known += [p for p in parts if p is not None and p not in known]
    if not known:
        return {}
    return parameters_attr("merge_cubes", {}, cubes=known) if len(known) > 1 else {PARAMETERS: json.dumps(known[0])}


def _join_images(array: xr.DataArray, each: Sequence[dict[Any, Any]]) -> None:
    """Images without small data: those that no cube has used, where several were offered the same images."""
    if not all(IMAGES_JOINED in attrs for attrs in each):
        return
    joined: dict[str, list[int]] = {}
    for attrs in each:
        for images, (offered, used) in json.loads(attrs[IMAGES_JOINED]).items():
            before = joined.get(images, [offered, 0])
            joined[images] = [offered, before[1] + used]
    array.attrs[IMAGES_JOINED] = json.dumps(joined)
    array.attrs[N_WITHOUT_SMALL_DATA] = sum(offered - used for offered, used in joined.values())
    array.attrs[N_WITHOUT_IMAGE] = sum(attrs.get(N_WITHOUT_IMAGE, 0) for attrs in each)
