"""Values and their variance: where both are in a Dataset, which is which, and whether they still belong together."""

from __future__ import annotations

from collections.abc import Collection, Hashable
from typing import Final

import dask.array as da
import numpy as np
import xarray as xr

from xsmall.errors import DataError
from xsmall.events.ragged import is_ragged
from xsmall.vocabulary import EVENT, FRAME_DIMS, PIXEL_DIMS, PRESENT, UNITS, UNPAIRED, VARIANCE_SUFFIX

__all__ = ["mark_unpaired", "paired", "square_of", "values_and_variance", "with_variance"]

_PAIR: Final = "variance_pair"
"""Key of ``encoding`` that a value and its variance have. xarray hands it on with whatever it chooses, orders, joins or
copies, and drops it from whatever it computes: just what a variance does not survive."""

_SCALED: Final = "computed with by what scales values and variances alike"

FRAMES = "frames"
PIXELS = "pixels"
EVENTS = "events"
_EXPECTED = {FRAMES: f"of one detector's frames {FRAME_DIMS}", PIXELS: "over pixels", EVENTS: "over events"}


def values_and_variance(
    obj: xr.DataArray | xr.Dataset, of: str = FRAMES, name: str = "these data"
) -> tuple[xr.DataArray, xr.DataArray | None]:
    """Find the values and, in a Dataset, their variance ``<name>_variance``.

    Parameters
    ----------
    obj
        An array, or a Dataset with one variable of values and perhaps their variance.
    of
        What the values run over: ``"frames"`` (event, segment, row, column), any ``"pixels"``, or ``"events"``.
    name
        What the error calls them.

    Raises
    ------
    DataError
        None or several variables of values; a variance of other dims than its values, or that may not be theirs any
        more.
    """
    if isinstance(obj, xr.DataArray):
        return obj, None
    if not isinstance(obj, xr.Dataset):
        raise DataError(
            f"{name} are neither an array nor a Dataset",
            found=type(obj).__name__,
            expected="a DataArray, or a Dataset of values and their variance",
        )
    found = [str(v) for v in obj.data_vars if _runs_over(obj[v], of)]
    values = [v for v in found if not _is_variance(v, found)]
    if not values and of == FRAMES and any(is_ragged(v) for v in obj.data_vars.values()):
        raise DataError(
            "lists are no frames",
            found=", ".join(map(str, obj.data_vars))[:200],
            expected="frames, or photons as sparse frames, which are reduced as frames are",
            fix="xs.apply(cal, xs.droplet(4.0, 1.0) | xs.photon(9.5, sparse=True))",
        )
    if len(values) != 1:
        raise DataError(
            f"{name} have to be one variable {_EXPECTED[of]}, perhaps with its variance",
            found=f"{len(values)} such variables in the Dataset: {values[:8]}",
            expected="<name>, and perhaps <name>_variance",
            fix='choose: dataset["jungfrau"], or dataset[["jungfrau", "jungfrau_variance"]]',
        )
    variance = f"{values[0]}{VARIANCE_SUFFIX}"
    if variance not in found:
        return obj[values[0]], None
    _check_pair(obj, values[0])
    if obj[variance].dims != obj[values[0]].dims:
        raise DataError(
            f"{variance} has other dims than its values", found=obj[variance].dims, expected=obj[values[0]].dims
        )
    return obj[values[0]], obj[variance]


def paired(obj: xr.Dataset) -> xr.Dataset:
    """Mark each value and its variance in a Dataset as belonging together; whoever makes them calls this."""
    names = {str(v) for v in obj.variables}
    both = [v for n in names if _is_variance(n, names) for v in (n, n.removesuffix(VARIANCE_SUFFIX))]
    if not both:
        return obj
    marked = {}
    for name in sorted(both):
        variable = obj.variables[name].copy(deep=False)
        variable.encoding = {**variable.encoding, _PAIR: True}
        marked[name] = variable
    return obj.assign({n: v for n, v in marked.items() if n in obj.data_vars})


def with_variance(values: xr.DataArray, variance: xr.DataArray | float) -> xr.Dataset:
    """Put values and their variance together, which reductions, pictures, averages and cubes then propagate.

    Parameters
    ----------
    values
        Frames, or anything over events or pixels, with a name.
    variance
        Variance of each value, in the square of its unit: of the same dims and labels, or one number for all.

    Returns
    -------
    Dataset of ``<name>`` and ``<name>_variance``. It stays a pair through what chooses, orders or joins (``isel``,
    ``sel``, ``xs.concat``, ``rename``, ``compute``, saving), and through :func:`~xsmall.scale` and
    :func:`~xsmall.add`; after any other arithmetic it is refused until it is declared again.

    Raises
    ------
    DataError
        Values without a name, a variance of other dims, sizes or labels, or that is negative.

    Notes
    -----
    Nothing lazy is computed; a negative variance is seen where it is in memory.

    Examples
    --------
    >>> import numpy as np, xarray as xr, xsmall as xs
    >>> frames = xr.DataArray(np.full((2, 1, 4, 4), 10.0), dims=("event", "segment", "row", "column"), name="cal")
    >>> both = xs.with_variance(frames, 4.0)
    >>> float(both.sd.roi(xs.Box(segment=0))["sum_variance"][0, 0])
    64.0
    """
    if getattr(values, "name", None) is None:
        raise DataError(
            "values need a name to have a variance", found=type(values).__name__, expected="a DataArray with a name",
            fix='values.rename("cal")',
        )  # fmt: skip
    if isinstance(variance, xr.DataArray):
        return _put_together(values, variance)
    one = np.result_type(values.dtype, np.float32).type(variance)
    lazy = isinstance(values.variable._data, da.Array)
    same = da.full(values.shape, one, chunks=values.chunks) if lazy else np.full(values.shape, one)
    return _put_together(values, values.copy(data=same))


def _put_together(values: xr.DataArray, variance: xr.DataArray) -> xr.Dataset:
    if set(variance.dims) != set(values.dims) or any(variance.sizes[d] != n for d, n in values.sizes.items()):
        raise DataError(
            "a variance has the dims of its values", found=dict(variance.sizes), expected=dict(values.sizes)
        )
    for dim in values.dims:
        if dim in values.indexes and dim in variance.indexes and not same_labels(values, variance, dim):
            raise DataError(
                "a variance has the labels of its values", found=f"{dim} differs", expected="the same labels",
                fix="values, variance = xr.align(values, variance)",
            )  # fmt: skip
    variance = variance.transpose(*values.dims)
    if not isinstance(variance.data, da.Array) and bool((variance < 0).any()):
        raise DataError("a variance is negative", found=float(variance.min()), expected="0 or more, NaN where unknown")
    unit = {UNITS: square_of(str(values.attrs[UNITS]))} if UNITS in values.attrs else {}
    spread = variance.variable.copy(deep=False)
    spread.attrs = {k: v for k, v in variance.attrs.items() if k not in (UNITS, UNPAIRED)} | unit
    return paired(values.to_dataset().assign({f"{values.name}{VARIANCE_SUFFIX}": spread}))


def mark_unpaired(obj: xr.Dataset) -> tuple[xr.Dataset, list[str]]:
    """Let variances that were computed with say so in their attributes, for a file would make pairs of them again.

    Parameters
    ----------
    obj
        What is about to be saved.

    Returns
    -------
    The Dataset, and the names of these variances.
    """
    names = {str(v) for v in obj.variables}
    variances = [n for n in sorted(names) if _is_variance(n, names)]
    pairs = {n: [obj.variables[m] for m in (n, n.removesuffix(VARIANCE_SUFFIX))] for n in variances}
    found = [n for n, pair in pairs.items() if n in obj.data_vars and not all(map(_is_marked, pair))]
    return obj.assign({n: obj[n].assign_attrs({UNPAIRED: _SCALED}) for n in found}), found


def same_labels(a: xr.DataArray, b: xr.DataArray, dim: Hashable) -> bool:
    """Whether two arrays have the same labels along a dim, whatever lies beside these."""
    return bool(a.indexes[dim].equals(b.indexes[dim]))


def square_of(unit: str) -> str:
    """The square of a unit as it is written here: ``keV2``."""
    return unit if unit == "1" else f"{unit}2"


def _check_pair(obj: xr.Dataset, name: str) -> None:
    """Refuse a variance that has seen arithmetic, by which it does not scale as its values do."""
    variance = f"{name}{VARIANCE_SUFFIX}"
    present = obj.coords.get(PRESENT)
    averaged = present is not None and present.dtype.kind == "f"  # coarsen keeps the mark, and averages this
    if not averaged and all(_is_marked(obj.variables[n]) for n in (name, variance)):
        return
    raise DataError(
        f"{variance} may not be the variance of {name} any more: arithmetic of xarray scales both alike",
        found="a pair that was computed with, or put together by hand",
        expected="what xsmall made, chosen from, ordered or joined but not computed with",
        fix=f"xs.scale and xs.add compute with both; xs.with_variance(dataset[{name!r}], dataset[{variance!r}]) says "
        "that the two belong together",
    )


def _is_marked(variable: xr.Variable) -> bool:
    """Made by xsmall and not computed with since; or as it was read from a file, which says its type there."""
    return UNPAIRED not in variable.attrs and (bool(variable.encoding.get(_PAIR)) or "dtype" in variable.encoding)


def _runs_over(variable: xr.DataArray, of: str) -> bool:
    if of == FRAMES:
        return set(variable.dims) == set(FRAME_DIMS)
    return EVENT in variable.dims if of == EVENTS else bool(set(variable.dims) & set(PIXEL_DIMS))


def _is_variance(name: str, among: Collection[str]) -> bool:
    return name.endswith(VARIANCE_SUFFIX) and name.removesuffix(VARIANCE_SUFFIX) in among
