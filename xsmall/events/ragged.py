"""Ragged variables: a list per event whose length differs, such as droplets, photons or peaks.

In memory, lazy or not, such a variable is an array of objects over ``event``, each a 1-D array. Selecting, sorting and
concatenating events then just works, and no length has to be known before it is computed. In a file it is a contiguous
ragged array of the CF conventions: a count per event and all lists behind each other. :func:`flatten` and :func:`lists`
go from one form to the other.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
import xarray as xr

from xsmall.errors import DataError
from xsmall.vocabulary import DIMENSIONLESS, EVENT, N_PREFIX, RAGGED_DIM, RAGGED_DTYPE, SAMPLE_DIMENSION, UNITS

__all__ = [
    "ListBlock",
    "check_flat",
    "counts_of",
    "dims_of_events",
    "flatten",
    "is_ragged",
    "list_counts",
    "lists",
    "lists_of_counts",
    "object_array",
    "ragged_attrs",
]


def ragged_attrs(dim: str, dtype: npt.DTypeLike) -> dict[str, str]:
    """Attributes that mark a variable of lists: the dim that its values get in a file, and their dtype."""
    return {RAGGED_DIM: dim, RAGGED_DTYPE: np.dtype(dtype).str}


def is_ragged(variable: xr.Variable | xr.DataArray) -> bool:
    """Whether the elements of a variable are lists of values."""
    return RAGGED_DIM in variable.attrs and variable.dtype == object


def object_array(values: Iterable[npt.NDArray[Any]], shape: tuple[int, ...] | None = None) -> npt.NDArray[np.object_]:
    """Make an array of objects whose elements are the 1-D arrays ``values``, whatever their lengths."""
    held = list(values)
    out = np.empty(len(held), dtype=object)
    for i, value in enumerate(held):
        out[i] = value
    return out if shape is None else out.reshape(shape)


def lists_of_counts(values: npt.NDArray[Any], counts: npt.NDArray[np.integer[Any]]) -> npt.NDArray[np.object_]:
    """Cut values that lie behind each other into lists, of the shape of their lengths ``counts``."""
    ends = np.cumsum(counts).tolist()
    spans = [slice(start, end) for start, end in zip([0, *ends], ends, strict=False)]
    return object_array((values[span] for span in spans), counts.shape)


class ListBlock(np.ndarray):
    """Lists of some events, whose single element is an array without dims: a lazy array takes it for that."""

    def __getitem__(self, key: Any) -> Any:
        found = super().__getitem__(key)
        if self.dtype != object or (isinstance(found, np.ndarray) and found.dtype == object):
            return found
        one = np.empty((), object)
        one[()] = found
        return one


def counts_of(values: npt.NDArray[np.object_]) -> npt.NDArray[np.int64]:
    """Lengths of the lists, of the shape of ``values``."""
    flat = np.fromiter((len(v) for v in values.ravel()), dtype=np.int64, count=values.size)
    return flat.reshape(values.shape)


def flatten(small: xr.Dataset) -> xr.Dataset:
    """Bring lists per event into contiguous ragged arrays of the CF conventions; computes what is ragged.

    Parameters
    ----------
    small
        Small data with ragged variables, such as :func:`~xsmall.droplet` returns; without any they come back as they
        are.

    Returns
    -------
    The Dataset with the values of each list dim behind each other, such as ``sum`` (droplet,), and beside them the
    count of each event with the attribute ``sample_dimension``, such as ``n_droplets`` (event,). Row ``i`` of the lists
    belongs to the event ``np.repeat(small.event, small.n_droplets)[i]``, which is added as a coordinate
    ``<dim>_event``.

    Raises
    ------
    DataError
        Lists of one list dim with different lengths in the same event; a variable named like its list dim; lists in the
        flat form whose events were selected or sorted without them.

    Notes
    -----
    Cost: all lists are held in memory once; :func:`~xsmall.save` writes them piece by piece instead.

    Examples
    --------
    >>> import xsmall as xs
    >>> sim = xs.simulate(4, shape=(2, 32, 64), seed=1)
    >>> cal = sim.run["jungfrau"]["raw"].sd.calibrate(sim.constants)
    >>> flat = xs.flatten(cal.sd.droplet(threshold=4.0, threshold_low=1.0))
    >>> flat["sum"].dims, int(flat["n_droplets"].sum()) == flat.sizes["droplet"]
    (('droplet',), True)
    """
    check_flat(small)
    ragged = {name: v for name, v in small.data_vars.items() if is_ragged(v)}
    if not ragged:
        return small
    held = xr.Dataset({name: v.variable for name, v in ragged.items()}).compute()
    out = small.drop_vars(list(ragged))
    counts: dict[str, tuple[Hashable, npt.NDArray[np.int64]]] = {}
    for name, v in held.data_vars.items():
        dim, n = str(v.attrs[RAGGED_DIM]), counts_of(v.values)
        first, known = counts.setdefault(dim, (name, n))
        if not np.array_equal(known, n):
            raise DataError(
                f"lists of {dim!r} that do not go together",
                found=f"{name!r} and {first!r} have lists of different lengths",
                expected="one length per event",
                fix=f"keep one of them: .drop_vars({name!r})",
            )
        if name == dim:
            raise DataError(
                f"{name!r} has the name of its list dim",
                found=f"a variable {name!r} of lists with the dim {dim!r}",
                expected="another name: xarray takes a variable named like its dim for an index",
                fix=f'.rename({name}="{name}_value")',
            )
        out[name] = (dim, _lists_flattened(v.values, v.attrs), _attrs_without_lists(v.attrs))
    for dim, (name, n) in counts.items():
        out = _with_count(out, dim, held[name].dims, n)
    return out


def lists(flat: xr.Dataset) -> xr.Dataset:
    """Bring contiguous ragged arrays back to lists per event: the inverse of :func:`flatten`.

    Parameters
    ----------
    flat
        A Dataset with counts that carry the attribute ``sample_dimension``, as files hold it.

    Returns
    -------
    The Dataset in which each variable over such a dim is an array of objects over the dims of its count. In memory:
    the lists are read.

    Raises
    ------
    DataError
        Counts that do not belong to the values, as after ``isel`` or ``sortby`` along ``event`` alone.

    Examples
    --------
    >>> import xsmall as xs
    >>> sim = xs.simulate(4, shape=(2, 32, 64), seed=1)
    >>> found = sim.run["jungfrau"]["raw"].sd.calibrate(sim.constants).sd.droplet(threshold=4.0)
    >>> again = xs.lists(xs.flatten(found))
    >>> again["sum"].dims, again["sum"].dtype
    (('event',), dtype('O'))
    """
    check_flat(flat)
    out = flat
    for count in list_counts(flat):
        out = _without_dim(out, flat, str(count.attrs[SAMPLE_DIMENSION]), count, count.values)
    return out


def dims_of_events(small: xr.Dataset) -> list[str]:
    """``event``, and the dims of contiguous ragged arrays: along them lie the lists of all events behind each other."""
    return [EVENT, *dict.fromkeys(str(c.attrs[SAMPLE_DIMENSION]) for c in list_counts(small))]


def check_flat(flat: xr.Dataset) -> None:
    """Refuse contiguous ragged arrays whose events were selected or sorted without them.

    Raises
    ------
    DataError
        Counts that do not add up to the values, or values of other events than their place says.
    """
    for count in list_counts(flat):
        dim, n = str(count.attrs[SAMPLE_DIMENSION]), count.values
        found = f"counts of {int(n.sum())} in all, {flat.sizes[dim]} values"
        fits = int(n.sum()) == flat.sizes[dim]
        label = f"{dim}_{EVENT}"
        if fits and label in flat.coords and EVENT in flat.coords and count.dims[:1] == (EVENT,):
            of = np.repeat(flat[EVENT].values, n.sum(axis=tuple(range(1, n.ndim))))
            fits = bool((flat[label].values == of).all())
            found = f"{label} in another order than {EVENT}"
        if not fits:
            raise DataError(
                f"lists of {dim!r} that are not those of these events",
                found=found,
                expected="a Dataset whose events were neither selected nor sorted after opening",
                fix=f"xs.lists(...) first, then select events; the values know theirs: {label}",
            )


def list_counts(flat: xr.Dataset) -> list[xr.DataArray]:
    """Counts of a flat Dataset: the variables that say how many values belong to each event."""
    return [c for c in flat.data_vars.values() if c.attrs.get(SAMPLE_DIMENSION) in flat.dims]


def _lists_flattened(values: npt.NDArray[np.object_], attrs: Mapping[Any, Any]) -> npt.NDArray[Any]:
    empty = np.empty(0, dtype=np.dtype(attrs[RAGGED_DTYPE]))
    return np.concatenate([empty, *values.ravel()]).astype(empty.dtype, copy=False)


def _attrs_without_lists(attrs: Mapping[Any, Any]) -> dict[Any, Any]:
    return {k: v for k, v in attrs.items() if k not in (RAGGED_DIM, RAGGED_DTYPE)}


def _with_count(out: xr.Dataset, dim: str, dims: tuple[Hashable, ...], n: npt.NDArray[np.int64]) -> xr.Dataset:
    """Mark the count that is there already as CF wants it, or add one; label each value by its event."""
    there = [name for name, v in out.data_vars.items() if v.attrs.get(SAMPLE_DIMENSION) == dim]
    name = str(there[0]) if there else f"{N_PREFIX}{dim}s"
    out = out.assign({name: (dims, n, {UNITS: DIMENSIONLESS, SAMPLE_DIMENSION: dim})})
    if dims[:1] == (EVENT,) and EVENT in out.coords:
        per_event = n.sum(axis=tuple(range(1, n.ndim)))
        out = out.assign_coords({f"{dim}_{EVENT}": (dim, np.repeat(out[EVENT].values, per_event))})
    return out


def _without_dim(
    out: xr.Dataset, flat: xr.Dataset, dim: str, count: xr.DataArray, n: npt.NDArray[np.integer[Any]]
) -> xr.Dataset:
    for name, v in flat.variables.items():
        if dim not in v.dims:
            continue
        out = out.drop_vars([name])
        if name in flat.data_vars:
            values = lists_of_counts(v.values, n)
            out[name] = (count.dims, values, {**v.attrs, **ragged_attrs(dim, v.dtype)})
    return out
