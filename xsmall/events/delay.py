"""The delay of each event: nominal, from a scan variable, stage or encoder, and corrected by the time tool."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, Final, Literal

import numpy as np
import numpy.typing as npt
import xarray as xr

from xsmall.errors import DataError, ParameterError
from xsmall.events.borders import as_decimals, rounded
from xsmall.events.shots import flag_of, laser_is_off, number_per_event, shots_are_dropped
from xsmall.vocabulary import (
    DELAY,
    DELAY_NOMINAL,
    LASER_ON,
    LONG_NAME,
    PICOSECOND,
    SIGN_CERTAINTY,
    SOURCE,
    TIME_TOOL,
    TIME_TOOL_SIGN,
    UNITS,
)

__all__ = ["delay"]

_MM_PER_PS: Final = 0.299792458  # speed of light
_TIMES: Final = {"s": 1e12, "ns": 1e3, "ps": 1.0, "fs": 1e-3}
_LENGTHS: Final = {"m": 1e3, "mm": 1.0, "um": 1e-3}
_CERTAIN: Final = 4.0
"""Standard errors by which the evidence has to differ from none."""
_FEWEST: Final = 50
_GROUPS: Final = 60


def delay(
    small: xr.Dataset,
    *,
    stage: str,
    unit: str | None = None,
    passes: int | None = None,
    zero: float = 0.0,
    stage_sign: Literal[1, -1] = 1,
    time_tool: str | None = None,
    calibration: Sequence[float] | None = None,
    time_tool_unit: str | None = None,
    sign: Literal[1, -1, "find"] = 1,
    signal: str | None = None,
    normalize: str | None = None,
) -> xr.Dataset:
    """Make the delay between laser and X-rays in ps: nominal delay plus what the time tool measured.

    Parameters
    ----------
    small
        Variables per event.
    stage
        Name of the scan variable, stage or encoder (event) that says the nominal delay.
    unit
        Its unit: ``"s"``, ``"ns"``, ``"ps"``, ``"fs"``, or for the place of a stage ``"m"``, ``"mm"``, ``"um"``.
        Default: what its attribute ``units`` says; it is never guessed.
    passes
        Of a stage that says its place: how often light runs along it, 2 for one retro-reflector.
    zero
        Value of the stage, in its unit, at a delay of 0.
    stage_sign
        -1 where a larger value of the stage means a smaller delay.
    time_tool
        Name of the position of the edge (event); NaN where there was no fit. None: the nominal delay alone.
    calibration
        Coefficients of a polynomial that makes ps of the position, constant first: ``[c0, c1, c2]`` is
        c0 + c1 p + c2 p^2. Default: the position is a time already, in ``time_tool_unit``.
    time_tool_unit
        Unit of a position without calibration; what its attribute ``units`` says by default.
    sign
        1 or -1: how the time of the time tool enters the delay. ``"find"``: the one with which ``signal`` follows
        its own curve.
    signal
        Name of the variable (event), or of a single region, that changes with the delay; for ``sign="find"``.
    normalize
        Name of the intensity that ``signal`` is divided by before.

    Returns
    -------
    The Dataset with ``delay`` (event), ps, float64, and the coordinate ``delay_nominal``: the decimal numbers that one
    writes, so that steps of 25 fs lie on the borders of bins whatever unit and float width they come in. Without a fit
    ``delay`` is NaN; shots without laser have their nominal delay, since there is nothing that the time tool could
    measure. The attributes of ``delay`` say what it was made of, ``time_tool_sign`` with which sign and, where that was
    found, ``time_tool_sign_certainty``, in standard errors. Lazy where the variables are; ``sign="find"`` computes
    them.

    Raises
    ------
    ParameterError
        Unknown variables, a unit that nobody says, a stage in mm without ``passes``, or a delay that was corrected
        before.
    DataError
        ``sign="find"`` where the signal does not tell; variables that are no numbers.

    Notes
    -----
    The sign is found among shots with laser, X-rays and a fit. The mean of ``signal`` at each nominal delay is a curve.
    Where it rises, shots that come later lie above it; so the deviations from it, times its slope and the times of the
    time tool, add up to a number of the right sign.

    Examples
    --------
    >>> import xarray as xr, xsmall as xs
    >>> small = xr.Dataset({"motor": ("event", [0.0, 0.15]), "edge": ("event", [0.02, float("nan")])})
    >>> made = xs.delay(small, stage="motor", unit="mm", passes=2, time_tool="edge", time_tool_unit="ps")
    >>> made.delay.round(3).values.tolist(), made.delay_nominal.round(3).values.tolist()
    ([0.02, nan], [0.0, 1.001])
    """
    if not _is_sign(sign) and not (isinstance(sign, str) and sign == "find"):
        raise ParameterError("the sign of the time tool is 1 or -1", found=repr(sign), fix='sign="find", signal="..."')
    nominal = _nominal(small, stage, unit, passes, zero, stage_sign)
    attrs: dict[str, Any] = {UNITS: PICOSECOND, SOURCE: stage}
    named = nominal.assign_attrs({**attrs, LONG_NAME: "nominal delay of the laser"})
    out = small.assign_coords({DELAY_NOMINAL: named})  # cubes average data variables
    if time_tool is None:
        if any(x is not None for x in (calibration, time_tool_unit, signal, normalize)) or sign != 1:
            raise ParameterError("these arguments mean nothing without a time tool", fix='time_tool="tt_position"')
        return out.assign({DELAY: named})
    measured = _measured_delay(small, time_tool, calibration, time_tool_unit)
    certainty = None
    if sign == "find":
        sign, certainty = _find_sign(small, nominal, measured, signal, normalize)
    elif signal is not None or normalize is not None:
        raise ParameterError("signal and normalize serve to find the sign", fix='sign="find"')
    corrected = nominal + sign * measured
    laser_on = flag_of(small, LASER_ON)
    if laser_on is None and LASER_ON in small.variables and not small[LASER_ON].ndim:
        laser_on = small[LASER_ON].variable  # one for all events
    if laser_on is not None:
        corrected = corrected.where(xr.DataArray(laser_on) != 0, nominal)
    how = {TIME_TOOL: time_tool, TIME_TOOL_SIGN: int(sign)}
    attrs |= {LONG_NAME: "delay of the laser, corrected by the time tool", **how}
    corrected.attrs = attrs if certainty is None else {**attrs, SIGN_CERTAINTY: round(certainty, 1)}
    return out.assign({DELAY: corrected})


def _is_sign(value: object) -> bool:
    number = isinstance(value, int | float | np.number) and not isinstance(value, bool)
    return number and value in (1, -1)


def _per_event_array(small: xr.Dataset, name: str) -> xr.DataArray:
    return xr.DataArray(number_per_event(small, name))


def _nominal(
    small: xr.Dataset, stage: str, unit: str | None, passes: int | None, zero: float, stage_sign: int
) -> xr.DataArray:
    values = _per_event_array(small, stage)
    if TIME_TOOL in values.attrs:
        raise ParameterError(
            f"{stage} was corrected by the time tool before",
            found=f"time tool {values.attrs[TIME_TOOL]!r}",
            expected="the nominal delay",
            fix=f'stage="{DELAY_NOMINAL}"' if DELAY_NOMINAL in small else 'stage="scan_..."',
        )
    if not _is_sign(stage_sign):
        raise ParameterError(
            "stage_sign is 1 or -1", found=repr(stage_sign), fix="stage_sign=-1 where a larger value means earlier"
        )
    if isinstance(zero, bool) or not isinstance(zero, int | float | np.number) or not math.isfinite(zero):  # type: ignore[redundant-expr]
        raise ParameterError("zero is a value of the stage, one finite number", found=repr(zero), fix="zero=0.0")
    said = _unit_of_time(values, stage, unit, "unit", {**_TIMES, **_LENGTHS})
    if said in _LENGTHS:
        if isinstance(passes, bool) or not isinstance(passes, int | np.integer) or passes < 1:
            raise ParameterError(
                f"{stage} says the place of a stage in {said}: how often light runs along it has to be said",
                found=f"passes={passes!r}",
                fix="passes=2 for one retro-reflector",
            )
        scale = _LENGTHS[said] * passes / _MM_PER_PS
    elif passes is not None:
        raise ParameterError(f"{stage} is a time in {said}: it has no passes", fix='unit="mm", or no passes')
    else:
        scale = _TIMES[said]
    out: xr.DataArray = xr.apply_ufunc(
        _times_of_stage, values, kwargs={"zero": zero, "scale": scale, "sign": stage_sign}, dask="parallelized",
        output_dtypes=[np.float64],
    )  # fmt: skip
    return out


def _times_of_stage(places: npt.NDArray[Any], *, zero: float, scale: float, sign: int) -> npt.NDArray[np.float64]:
    """Times in ps of places of a stage: the decimal numbers that one writes, whatever unit they come from."""
    read = as_decimals(places)
    return rounded(sign * scale * (read - zero), scale * np.maximum(np.abs(read), abs(zero)))


def _unit_of_time(values: xr.DataArray, name: str, given: str | None, argument: str, known: dict[str, float]) -> str:
    told = values.attrs.get(UNITS)
    said = told if given is None else given
    if not isinstance(said, str) or said not in known:
        raise ParameterError(
            f"the unit of {name} is not known",
            found=repr(said),
            expected=f"one of {sorted(known)}",
            fix=f'{argument}="ps"',
        )
    if given is not None and isinstance(told, str) and told in known and told != given:
        raise ParameterError(f"{name} is in another unit", found=f"{argument}={given!r}, its attribute says {told!r}",
                             fix=f"{argument}={told!r}")  # fmt: skip
    return str(said)


def _measured_delay(
    small: xr.Dataset, time_tool: str, calibration: Sequence[float] | None, unit: str | None
) -> xr.DataArray:
    position = _per_event_array(small, time_tool).astype(np.float64)
    position = position.where(np.isfinite(position))
    if calibration is None:
        return position * _TIMES[_unit_of_time(position, time_tool, unit, "time_tool_unit", _TIMES)]
    if unit is not None:
        raise ParameterError("a calibrated position is in ps: it has no other unit", fix="calibration without a unit")
    try:
        coefficients = np.asarray(calibration, dtype=np.float64)
    except (TypeError, ValueError):
        coefficients = np.array(np.nan)
    if coefficients.ndim != 1 or coefficients.size < 2 or not np.isfinite(coefficients).all():
        raise ParameterError(
            "calibration is a polynomial of degree 1 or more, constant first",
            found=repr(calibration),
            fix="calibration=[c0, c1]",
        )
    out = xr.zeros_like(position) + coefficients[-1]
    for c in coefficients[-2::-1]:
        out = out * position + c
    made: xr.DataArray = out.where(position.notnull())
    return made


def _find_sign(
    small: xr.Dataset, nominal: xr.DataArray, measured: xr.DataArray, signal: str | None, normalize: str | None
) -> tuple[Literal[1, -1], float]:
    """Return the sign with the sharper signal, and by how many standard errors it is sharper."""
    if signal is None:
        raise ParameterError("the sign is found with a signal", fix='sign="find", signal="spot_sum", normalize="i0"')
    values = number_per_event(small, signal, or_flag=True).values.astype(np.float64)
    if normalize is not None:
        intensity = _per_event_array(small, normalize).values.astype(np.float64)
        values = np.divide(values, intensity, out=np.full(values.shape, np.nan), where=intensity > 0)
    when, moved = nominal.values, measured.values
    use = np.isfinite(values) & np.isfinite(when) & np.isfinite(moved)
    for left_out in (laser_is_off(small), shots_are_dropped(small)):
        use = use if left_out is None else use & ~left_out
    if use.sum() < _FEWEST:
        raise DataError(
            "too few events to find the sign of the time tool",
            found=f"{int(use.sum())} with laser, X-rays, a fit and a signal",
            expected=f"{_FEWEST} at least",
            fix="sign=1 or sign=-1",
        )
    certainty = _evidence(values[use], when[use], moved[use])
    if abs(certainty) < _CERTAIN:
        raise DataError(
            f"{signal} does not tell the sign of the time tool",
            found=f"one is likelier by {abs(certainty):.1f} standard errors",
            expected=f"{_CERTAIN:g} at least: an edge inside the scan, and jitter that is resolved",
            fix="sign=1 or sign=-1",
        )
    return (1 if certainty > 0 else -1), abs(certainty)


def _evidence(values: npt.NDArray[np.float64], when: npt.NDArray[np.float64], moved: npt.NDArray[np.float64]) -> float:
    """By how many standard errors the sign is positive: whether what is above the curve came later on its rise."""
    borders = np.unique(np.quantile(when, np.linspace(0, 1, min(_GROUPS, when.size // 20) + 1)))
    group = np.clip(np.searchsorted(borders, when, side="right") - 1, 0, max(borders.size - 2, 0))
    n = np.bincount(group)
    some = n > 0
    if some.sum() < 3:
        return 0.0
    centre, mean = (np.bincount(group, x)[some] / n[some] for x in (when, values))
    slope = np.gradient(mean, centre)
    expected = np.interp(when, centre, slope) * (moved - moved.mean())
    products = expected * (values - np.interp(when, centre, mean))
    error = math.sqrt(float((products**2).sum()))
    return float(products.sum()) / error if error else 0.0
