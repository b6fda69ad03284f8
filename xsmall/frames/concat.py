"""Runs behind each other: :func:`concat` of frames, small data or whole runs."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final, TypeVar

import numpy as np
import xarray as xr

from xsmall.engine.pairs import check_pair, unpaired
from xsmall.errors import DataError, ParameterError
from xsmall.events.labels import in_utc, labels_of
from xsmall.frames.beam import BEAM_COORDS
from xsmall.vocabulary import (
    CONFIG_NODE,
    DAMAGE,
    DETECTOR_TYPE,
    EVENT,
    EVENTS_NODE,
    GEOMETRY,
    LEFT_OUT,
    LOST,
    PARAMETERS,
    POSITION,
    PRESENT,
    RUN,
    SEGMENT,
    SEGMENT_IDS,
    SOURCE,
    UNITS,
    VARIANCE_SUFFIX,
)

__all__ = ["concat"]

Concatenated = TypeVar("Concatenated", xr.DataArray, xr.Dataset, xr.DataTree)

_KINDS: Final = (xr.DataArray, xr.Dataset, xr.DataTree)
_ALIKE: Final = (UNITS, DETECTOR_TYPE, SEGMENT_IDS)
"""Attributes that have to agree: values of two units, or two detectors, are not one series."""
_FOLLOWS: Final = (GEOMETRY, *POSITION)


def concat(runs: Sequence[Concatenated], *, run: Sequence[int] | None = None) -> Concatenated:
    """Put the events of several runs behind each other: frames, small data, or whole runs.

    Parameters
    ----------
    runs
        DataArrays, Datasets or DataTrees of one kind, each with labelled events.
    run
        The number of each run. Default: what the run says itself, by its coordinate or attribute ``run``.

    Returns
    -------
    The same kind, its events in the order given, lazy where the runs are, in their own types. The coordinate ``run``
    tells events apart, where all numbers are known. Photon energy, distance, centre and tilts that differ between runs
    are kept per event. ``present`` and ``damage`` are filled up where a run has none. What only some runs have, or what
    differs and has no place per event, is named in ``attrs["left_out"]``; sources, and what they had lost, are joined.

    Raises
    ------
    DataError
        Geometries, units, detectors, types or labels of pixels or bins that differ; events without labels, or the same
        events twice.
    ParameterError
        Nothing to join, or ``run`` of another length.

    Notes
    -----
    Nothing is computed but labels.

    Examples
    --------
    >>> import numpy as np, xsmall as xs
    >>> one = xs.simulate(4, shape=(1, 16, 32), seed=1).run["jungfrau/raw"]
    >>> two = one.assign_coords(event=one.event + np.timedelta64(1, "h"))
    >>> both = xs.concat([one, two], run=[7, 8])
    >>> both.dtype, both["run"].values.tolist()
    (dtype('uint16'), [7, 7, 7, 7, 8, 8, 8, 8])
    """
    _check_kinds(runs, run)
    numbers: list[int | None] = list(run) if run is not None else [None for _ in runs]
    if isinstance(runs[0], xr.DataTree):
        return _trees(runs, numbers)
    if isinstance(runs[0], xr.Dataset):
        return _concat_datasets(runs, numbers)
    names = {array.name for array in runs}
    name = names.pop() if len(names) == 1 else None
    held = "__values__"
    joined = _concat_datasets([_as_dataset(array, held) for array in runs], numbers)
    return joined[held].rename(name).assign_attrs(joined.attrs)


def _as_dataset(array: xr.DataArray, name: str) -> xr.Dataset:
    return array.rename(name).to_dataset().assign_attrs(array.attrs)


def _check_kinds(runs: Sequence[Any], run: Sequence[int] | None) -> None:
    kinds = {next((kind for kind in _KINDS if isinstance(one, kind)), type(one)) for one in runs}
    if len(kinds) != 1 or not kinds <= set(_KINDS):
        raise ParameterError(
            "runs of one kind are joined",
            found=", ".join(kind.__name__ for kind in kinds) or "nothing",
            expected="DataArrays, Datasets or DataTrees",
            fix="xs.concat([run1, run2])",
        )
    if run is not None and len(run) != len(runs):
        raise ParameterError("a number for each run", found=f"{len(run)} numbers", expected=f"{len(runs)}")


# ---- whole runs -----------------------------------------------------------------------------------------------------


def _trees(runs: Sequence[xr.DataTree], numbers: list[int | None]) -> xr.DataTree:
    numbers = [one.attrs.get(RUN) if n is None else n for one, n in zip(runs, numbers, strict=True)]
    nodes: dict[str, xr.Dataset] = {}
    left_out: list[str] = []
    held = [{node.path: node.to_dataset(inherit=False) for node in one.subtree} for one in runs]
    for path in dict.fromkeys(path for one in held for path in one):
        parts = [one[path] for one in held if path in one]
        if len(parts) < len(runs):
            left_out.append(f"{path}: not in all runs")
        elif all(EVENT in part.sizes for part in parts):
            nodes[path] = _concat_datasets(parts, numbers, path)
        elif path != "/" and all(part.identical(parts[0]) for part in parts):
            nodes[path] = parts[0]
        elif path != "/" and path.endswith(f"/{CONFIG_NODE}"):
            left_out.append(f"{path}: differs between the runs")
    attrs = _joined_attrs([one.attrs for one in runs], left_out)
    for name in {n for one in runs for n, value in one.attrs.items() if _is_count(n, value)}:
        attrs[name] = sum(int(one.attrs.get(name, 0)) for one in runs)
    nodes["/"] = xr.Dataset(attrs=attrs)
    if f"/{EVENTS_NODE}" not in nodes:
        raise DataError("these runs have no events in common", found=left_out, expected=f"the node {EVENTS_NODE!r}")
    return xr.DataTree.from_dict(nodes)


def _is_count(name: Any, value: object) -> bool:
    return isinstance(value, int | np.integer) and str(name) != RUN


# ---- frames and small data ------------------------------------------------------------------------------------------


def _concat_datasets(
    parts: Sequence[xr.Dataset], numbers: Sequence[int | None], where: str = "these runs"
) -> xr.Dataset:
    for k, part in enumerate(parts):
        if EVENT not in part.sizes:
            raise DataError(f"{where}: number {k} has no events", found=dict(part.sizes), expected=f"the dim {EVENT!r}")
    parts = [in_utc(part) for part in parts]
    _check_event_labels(parts, where)
    _check_alike(parts, where)
    left_out: list[str] = []
    parts = [_by_event(part, parts, left_out) for part in parts]
    of_events = [_events_only(part) for part in parts]
    common = [n for n in of_events[0].variables if all(n in part.variables for part in of_events)]
    left_out += [f"{n}: not in all runs" for n in _others(of_events, common)]
    kept = [part.drop_vars([n for n in part.variables if n not in common]) for part in of_events]
    joined = xr.concat(
        kept, EVENT, data_vars="all", coords="all", compat="override", join="override", combine_attrs="override"
    )
    fixed = {n: x for n, x in parts[0].variables.items() if EVENT not in x.dims}
    for name, x in fixed.items():
        if name in _FOLLOWS or name in x.dims or all(_same_variable(part.variables.get(name), x) for part in parts):
            joined = joined.assign_coords({name: x}) if name in parts[0].coords else joined.assign({name: x})
        else:
            left_out.append(f"{name}: differs between the runs")
    known = [_number_of_run(part, n) for part, n in zip(parts, numbers, strict=True)]
    if RUN not in joined.coords and all(n is not None for n in known):
        labels = np.concatenate([np.full(part.sizes[EVENT], n) for part, n in zip(parts, known, strict=True)])
        joined = joined.assign_coords({RUN: (EVENT, labels)})
    return joined.assign_attrs(_joined_attrs([part.attrs for part in parts], left_out))


def _check_event_labels(parts: Sequence[xr.Dataset], where: str) -> None:
    indexes = [labels_of(part, where) for part in parts]
    joined = indexes[0].append(list(indexes[1:]))
    twice = joined[joined.duplicated()]
    if len(twice):
        raise DataError(
            f"{where}: the same events twice",
            found=f"{len(twice)} labels, the first {twice[0]}",
            expected="each event once",
            fix="give each run once",
        )


def _check_alike(parts: Sequence[xr.Dataset], where: str) -> None:
    """Refuse what would make two series look like one, and pairs of value and variance of which some are none."""
    first = parts[0]
    for part in parts:
        for variance in sorted({n for one in parts for n in unpaired(one)} - set(unpaired(first))):
            if variance in part.variables:
                check_pair(part, variance.removesuffix(VARIANCE_SUFFIX))
    for k, part in enumerate(parts[1:], start=1):
        for name in dict.fromkeys(n for n in first.variables if n in part.variables):
            a, b = first.variables[name], part.variables[name]
            of_one = f"{name!r} of number {k}"
            if a.dims != b.dims or a.dtype.kind != b.dtype.kind or (a.ndim >= 3 and a.dtype != b.dtype):
                raise DataError(f"{where}: {of_one} is of another kind", found=_form(b), expected=_form(a))
            for attr in _ALIKE:
                if a.attrs.get(attr) != b.attrs.get(attr):
                    raise DataError(
                        f"{where}: {attr} of {of_one} differs", found=b.attrs.get(attr), expected=a.attrs.get(attr)
                    )
            if name in a.dims and name != EVENT and not np.array_equal(a.values, b.values):
                raise DataError(
                    f"{where}: the labels {of_one} differ", found=_first_values(b), expected=_first_values(a)
                )
        for dim, n in first.sizes.items():
            if dim != EVENT and part.sizes.get(dim, n) != n:
                raise DataError(f"{where}: {dim!r} of number {k} has another size", found=part.sizes[dim], expected=n)
        tokens = [x.coords[GEOMETRY].item() if GEOMETRY in x.coords else None for x in (first, part)]
        if tokens[0] != tokens[1]:
            raise DataError(
                f"{where}: number {k} has another geometry",
                found="no geometry" if tokens[1] is None else f"token {tokens[1]}",
                expected="no geometry" if tokens[0] is None else f"token {tokens[0]}",
                fix=".sd.assign_geometry(geometry) of one geometry on both, or keep them apart",
            )


def _form(x: xr.Variable) -> str:
    return f"{x.dtype} over {x.dims}"


def _first_values(x: xr.Variable) -> str:
    return f"{x.values.ravel()[:4].tolist()} ... of {x.size}"


def _by_event(part: xr.Dataset, parts: Sequence[xr.Dataset], left_out: list[str]) -> xr.Dataset:
    """Bring what may differ between runs to one value per event, and flags to all runs if any has them."""
    for name in BEAM_COORDS:
        held = [other.coords.get(name) for other in parts]
        if name not in part.coords or all(x is not None and x.ndim == 0 and x == held[0] for x in held):
            continue
        if any(x is None for x in held):
            left_out += [text] if (text := f"{name}: not in all runs") not in left_out else []
            part = part.drop_vars(name)
        elif part.coords[name].ndim == 0:
            x = part.coords[name]
            values = np.full(part.sizes[EVENT], x.item())
            part = part.drop_vars(name).assign_coords({name: (EVENT, values, x.attrs)})
    for name, value, dtype in ((PRESENT, True, bool), (DAMAGE, 0, np.uint16)):
        if SEGMENT in part.sizes and name not in part.coords and any(name in other.coords for other in parts):
            shape = part.sizes[EVENT], part.sizes[SEGMENT]
            part = part.assign_coords({name: ((EVENT, SEGMENT), np.full(shape, value, dtype))})
    return part


def _events_only(part: xr.Dataset) -> xr.Dataset:
    fixed = [n for n, x in part.variables.items() if EVENT not in x.dims]
    return part.drop_vars(fixed)


def _others(parts: Iterable[xr.Dataset], common: Sequence[Any]) -> list[str]:
    return sorted({str(n) for part in parts for n in part.variables if n not in common})


def _same_variable(a: xr.Variable | None, b: xr.Variable) -> bool:
    if a is None or a.dims != b.dims or a.shape != b.shape:
        return False
    if a.chunks is not None or b.chunks is not None:  # never computed: the same array, or another
        return bool(getattr(a.data, "name", 0) == getattr(b.data, "name", 1))
    equal: bool = a.equals(b)  # type: ignore[no-untyped-call]
    return equal


def _number_of_run(part: xr.Dataset, number: int | None) -> Any:
    """Number of a run: what was given, or what its attributes or those of its frames say."""
    if number is not None:
        return number
    told = [part.attrs, *(x.attrs for x in part.variables.values())]
    return next((attrs[RUN] for attrs in told if isinstance(attrs.get(RUN), int | np.integer)), None)


def _joined_attrs(all_attrs: Sequence[Mapping[Any, Any]], left_out: list[str]) -> dict[Any, Any]:
    """Attributes that agree; sources, losses and parameters of all."""
    first = all_attrs[0]
    out = {k: a for k, a in first.items() if all(k in one and np.array_equal(one[k], a) for one in all_attrs)}
    for name in (SOURCE, LOST):
        told = dict.fromkeys(str(one[name]) for one in all_attrs if name in one)
        if told:
            out[name] = "; ".join(told)
    made = [str(one[PARAMETERS]) for one in all_attrs if PARAMETERS in one]
    if made and PARAMETERS not in out:
        out[PARAMETERS] = json.dumps({"function": "concat", "runs": made})
    told_before = [str(one[LEFT_OUT]) for one in all_attrs if one.get(LEFT_OUT)]
    everything = list(dict.fromkeys([*told_before, *left_out]))
    return out | ({LEFT_OUT: "; ".join(everything)} if everything else {})
