"""Values for a weight of 1: ratios and regressions with their errors, from the moments of a cube."""

from __future__ import annotations

from typing import Final

import xarray as xr

from xsmall.cube.pool import as_made, count_of, means_of, not_pooled
from xsmall.cube.variables import unit_of_ratio
from xsmall.errors import DataError, ParameterError
from xsmall.vocabulary import (
    COUNT,
    COUNT_SUFFIX,
    COVARIANCE_SUFFIX,
    LEFT_OUT,
    NORMALIZED,
    OFFSET_SUFFIX,
    RATIO,
    REPLICA,
    STD_SUFFIX,
    STDERR_SUFFIX,
    UNITS,
    WEIGHT_SUFFIX,
    WEIGHTS,
)

__all__ = ["ratio"]

SUMS, RATIOS, THROUGH_ZERO, REGRESSION = "sums", "ratios", "through_zero", "regression"
_ESTIMATORS: Final = (SUMS, RATIOS, THROUGH_ZERO, REGRESSION)


def ratio(cube: xr.Dataset, estimator: str = SUMS) -> xr.Dataset:
    """Give each mean of a cube for a weight of 1, such as the signal for a pulse intensity of 1, with its error.

    Parameters
    ----------
    cube
        A cube made with ``weights=``, such as ``small.sd.cube(bins, weights="i0")``, merged or joined or not.
    estimator
        ``"sums"``: sum of the values over the sum of the weights. ``"ratios"``: mean of the ratios of single events,
        of a cube made with ``statistics="ratio"``. ``"through_zero"``: slope of the values over the weights by least
        squares, through zero. ``"regression"``: slope of a straight line with an offset.

    Returns
    -------
    Dataset of the same dims and names: each value per weight, ``<name>_stderr``, its ``<name>_count`` where it has one,
    for ``"regression"`` also ``<name>_offset`` and ``<name>_offset_stderr``, the value at a weight of 0; and ``count``.
    What has no covariance (the weight itself, true and false, binned variables) is left out and named in
    ``attrs["left_out"]``.
    NaN where there are too few events (2, or 3 for ``"regression"``) or no spread of the weight. Units are those of the
    value over those of the weight. Lazy where the cube is.

    Raises
    ------
    DataError
        A cube without weights, or for ``"ratios"`` without these; or one that was computed with as a whole.
    ParameterError
        An unknown estimator.

    Notes
    -----
    Errors come from the spread between events and the covariance of value and weight, so a signal that follows the
    weight has a smaller one than its own spread would say. ``"sums"``: the delta method (Cochran, Sampling Techniques,
    1977, 6.3), right for any noise, to first order in 1/n. ``"ratios"``: the spread of the ratios over the root of
    their number; weak events count like strong ones. The regressions take the noise to be the same for all weights.
    Where value and weight are proportional, all of them agree; ``"sums"`` is the one for photon counts, whose variance
    grows with the weight. A detector offset spoils all but ``"regression"``, which shows it.

    Examples
    --------
    >>> import xarray as xr, xsmall as xs
    >>> small = xr.Dataset({"on": ("event", [True, True]), "i0": ("event", [1.0, 2.0]), "s": ("event", [2.0, 4.0])})
    >>> out = small.sd.cube({"on": xs.categories([True])}, weights="i0").sd.ratio()
    >>> float(out.s[0]), round(float(out.s_stderr[0]), 6)
    (2.0, 0.0)
    """
    if estimator not in _ESTIMATORS:
        raise ParameterError("unknown estimator of a ratio", found=repr(estimator), expected=f"one of {_ESTIMATORS}")
    names = [str(v) for v in cube.data_vars if f"{v}{COVARIANCE_SUFFIX}" in cube]
    if not names:
        raise DataError(
            "this cube does not know how values and weights go together",
            found=sorted(map(str, cube.data_vars))[:8],
            expected="a cube made with weights=",
            fix='small.sd.cube(bins, weights="i0").sd.ratio()',
        )
    if estimator == RATIOS:
        _check_has_ratios(cube, names)
    cube = as_made(cube)
    fixed = [v for v in not_pooled(cube) if not set(cube[v].dims) & set(cube[COUNT].dims)]
    out = cube.drop_vars([v for v in cube.data_vars if v != COUNT and v not in fixed])
    for name in names:
        n = count_of(cube, name)
        unit = unit_of_ratio(cube[name].attrs.get(UNITS), cube[f"{name}{WEIGHT_SUFFIX}"].attrs.get(UNITS))
        found = _ratio_estimate(cube, name, n, estimator)
        for key, value in found.items():
            attrs = {k: v for k, v in cube[name].attrs.items() if k != UNITS}
            per_weight = OFFSET_SUFFIX not in key
            said = unit if per_weight else cube[name].attrs.get(UNITS)
            out[key] = value.transpose(*cube[name].dims)
            out[key].attrs = {**(attrs if key == name else {}), **({} if said is None else {UNITS: said})}
        if f"{name}{COUNT_SUFFIX}" in cube:
            out[f"{name}{COUNT_SUFFIX}"] = cube[f"{name}{COUNT_SUFFIX}"]
    beside = {f"{name}{suffix}" for name in names for suffix in (WEIGHT_SUFFIX, f"_{RATIO}")}
    without = [n for n in means_of(cube) if n not in names and n not in beside]
    out.attrs |= {NORMALIZED: f"{estimator}, per {cube.attrs.get(WEIGHTS)}", LEFT_OUT: ", ".join(without)}
    return out


def _check_has_ratios(cube: xr.Dataset, names: list[str]) -> None:
    lacking = [name for name in names if f"{name}_{RATIO}" not in cube]
    if lacking and REPLICA in cube.dims:
        raise DataError(
            "replicas do not know the ratios of single events", found=lacking[:8],
            expected="replicas of a variable that is one",
            fix=f'small.assign({lacking[0]}=small["{lacking[0]}"] / small["i0"]).sd.bootstrap(bins)',
        )  # fmt: skip
    if lacking:
        raise DataError(
            "this cube does not know the ratios of single events", found=lacking[:8],
            expected='a cube made with statistics="ratio"',
            fix='small.sd.cube(bins, weights="i0", statistics="ratio").sd.ratio("ratios")',
        )  # fmt: skip


def _ratio_estimate(cube: xr.Dataset, name: str, n: xr.DataArray, estimator: str) -> dict[str, xr.DataArray]:
    """Value per weight and its standard error."""
    if estimator == RATIOS:
        of_events = f"{name}_{RATIO}"
        return {name: cube[of_events], f"{name}{STDERR_SUFFIX}": cube[f"{of_events}{STDERR_SUFFIX}"]}
    x, w = cube[name], cube[f"{name}{WEIGHT_SUFFIX}"]
    of_x, of_w = cube[f"{name}{STD_SUFFIX}"] ** 2, cube[f"{name}{WEIGHT_SUFFIX}{STD_SUFFIX}"] ** 2
    both = cube[f"{name}{COVARIANCE_SUFFIX}"]
    stderr = f"{name}{STDERR_SUFFIX}"

    def variance(b: xr.DataArray) -> xr.DataArray:
        """Variance of value - b weight between events."""
        return (of_x - 2 * b * both + b**2 * of_w).clip(min=0)

    if estimator == SUMS:
        value = x / w
        return {name: value, stderr: (variance(value) / n.where(n > 1)) ** 0.5 / w}
    m = n - 1
    if estimator == THROUGH_ZERO:
        squares = of_w.where(n > 1, 0.0) * m + n * w**2
        value = (both.where(n > 1, 0.0) * m + n * x * w) / squares
        left = variance(value) + (x - value * w) ** 2 * n / m.where(m > 0)
        return {name: value, stderr: (left / squares) ** 0.5}
    squares = (of_w * m).where(of_w > 0)
    value = both / of_w.where(of_w > 0)
    left = variance(value) * m / (n - 2).where(n > 2)
    offset = f"{name}{OFFSET_SUFFIX}"
    return {
        name: value,
        stderr: (left / squares) ** 0.5,
        offset: x - value * w,
        f"{offset}{STDERR_SUFFIX}": (left * (1 / n + w**2 / squares)) ** 0.5,
    }
