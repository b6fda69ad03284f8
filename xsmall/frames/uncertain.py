"""Arithmetic of values that have a variance: what plain xarray would do to both alike."""

from __future__ import annotations

import numpy as np
import xarray as xr

from xsmall.engine.pairs import paired
from xsmall.errors import DataError, ParameterError
from xsmall.frames.variance import EVENTS, PIXELS, same_labels, values_and_variance
from xsmall.vocabulary import EVENT, UNITS, VARIANCE_SUFFIX

__all__ = ["add", "scale"]


def scale(pair: xr.Dataset, factor: float | xr.DataArray) -> xr.Dataset:
    """Multiply values and, by the square, their variance.

    Parameters
    ----------
    pair
        Values and their variance, see :func:`~xsmall.with_variance`.
    factor
        A number without an error of its own, or an array of them over some of the dims (``1 / i0``), joined by labels.

    Returns
    -------
    Dataset of the same variables; the unit stays, as the factor is taken to have none. Lazy where it was.

    Raises
    ------
    DataError
        No pair of values and variance.
    ParameterError
        A factor that is no number, or whose labels differ from those of the values.

    Examples
    --------
    >>> import numpy as np, xarray as xr, xsmall as xs
    >>> frames = xr.DataArray(np.full((2, 1, 4, 4), 10.0), dims=("event", "segment", "row", "column"), name="cal")
    >>> half = xs.with_variance(frames, 4.0).sd.scale(1 / 2)
    >>> float(half["cal"][0, 0, 0, 0]), float(half["cal_variance"][0, 0, 0, 0])
    (5.0, 1.0)
    """
    values, variance = _pair_of(pair)
    if isinstance(factor, xr.DataArray):
        _check_same_labels(values, factor)
        if not set(factor.dims) <= set(values.dims):
            raise ParameterError("a factor has dims of its own", found=factor.dims, expected=f"some of {values.dims}")
        factor = factor.drop_vars([c for c in factor.coords if c not in factor.dims])
    elif isinstance(factor, bool) or not _is_plain_number(factor) or not np.isfinite(factor):
        raise ParameterError(
            "a factor is a number or an array of them", found=repr(factor), fix="xs.scale(pair, 1 / 2)"
        )
    return _again(pair, values * factor, variance * factor**2)


def add(pair: xr.Dataset, other: xr.Dataset | xr.DataArray | float, *, sign: int = 1) -> xr.Dataset:
    """Add to values, or subtract from them: variances of independent values add up, whatever the sign.

    Parameters
    ----------
    pair
        Values and their variance, see :func:`~xsmall.with_variance`.
    other
        Another such pair, of the same name or another; or values without an error: an array or a number.
    sign
        1 to add, -1 to subtract.

    Returns
    -------
    Dataset of the variables of ``pair``. Lazy where one of them is.

    Raises
    ------
    DataError
        No pair of values and variance.
    ParameterError
        Labels or units that differ, or another sign.

    Notes
    -----
    Errors of the two are taken as independent: a frame minus itself has twice its variance, which is wrong.

    Examples
    --------
    >>> import numpy as np, xarray as xr, xsmall as xs
    >>> frames = xr.DataArray(np.full((2, 1, 4, 4), 10.0), dims=("event", "segment", "row", "column"), name="cal")
    >>> on, off = xs.with_variance(frames, 4.0), xs.with_variance(frames / 2, 1.0)
    >>> less = on.sd.add(off, sign=-1)
    >>> float(less["cal"][0, 0, 0, 0]), float(less["cal_variance"][0, 0, 0, 0])
    (5.0, 5.0)
    """
    if sign not in (1, -1):
        raise ParameterError("the sign is 1 or -1", found=repr(sign), fix="xs.add(a, b, sign=-1) subtracts")
    values, variance = _pair_of(pair)
    more, of_other = _pair_of(other) if isinstance(other, xr.Dataset) else (other, None)
    if isinstance(more, xr.DataArray):
        _check_same_labels(values, more)
        units = [a.attrs.get(UNITS) for a in (values, more)]
        if None not in units and units[0] != units[1]:
            raise ParameterError("values of different units do not add up", found=units, expected="one unit")
        more = more.drop_vars([c for c in more.coords if c not in more.dims])
    total = variance
    if of_other is not None:
        total = variance + of_other.drop_vars([c for c in of_other.coords if c not in of_other.dims])
    return _again(pair, values + sign * more, total)


def _is_plain_number(factor: object) -> bool:
    return isinstance(factor, int | float | np.number)


def _pair_of(obj: xr.Dataset) -> tuple[xr.DataArray, xr.DataArray]:
    kind = EVENTS if EVENT in getattr(obj, "dims", ()) else PIXELS
    values, variance = values_and_variance(obj, kind)
    if variance is None:
        raise DataError(
            "values without a variance",
            found=values.name,
            expected=f"{values.name} and {values.name}{VARIANCE_SUFFIX}",
            fix="plain arithmetic is right here; xs.with_variance(values, variance) makes a pair",
        )
    return values, variance


def _again(pair: xr.Dataset, values: xr.DataArray, variance: xr.DataArray) -> xr.Dataset:
    """The pair with new values, which keep attributes and type of what they were."""
    old, name = _pair_of(pair)[0], f"{_pair_of(pair)[0].name}{VARIANCE_SUFFIX}"
    made = {
        n: new.astype(pair[n].dtype if pair[n].dtype.kind == "f" else new.dtype).transpose(*old.dims).variable
        for n, new in ((str(old.name), values), (name, variance))
    }
    for n, variable in made.items():
        variable.attrs = dict(pair[n].attrs)
    return paired(pair.assign(made))


def _check_same_labels(values: xr.DataArray, other: xr.DataArray) -> None:
    for dim in set(values.dims) & set(other.dims):
        known = dim in values.indexes and dim in other.indexes
        if values.sizes[dim] != other.sizes[dim] or (known and not same_labels(values, other, dim)):
            raise ParameterError(
                f"labels of {dim!r} differ", found=f"{values.sizes[dim]} and {other.sizes[dim]} of them",
                expected="the same labels", fix="a, b = xr.align(a, b)",
            )  # fmt: skip
