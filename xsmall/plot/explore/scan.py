"""A scan by region: the mean of each region against a scan variable, or the difference of on and off."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any, Final

import numpy as np
import xarray as xr

from xsmall.cube.binning import Binning
from xsmall.cube.bins import as_binning, categories
from xsmall.cube.bins import bins as make_bins
from xsmall.cube.compare import difference
from xsmall.cube.cube import cube
from xsmall.errors import ParameterError
from xsmall.plot.explore.shapes import DrawnShape
from xsmall.reductions.reduce import reduce
from xsmall.reductions.roi import roi
from xsmall.vocabulary import EVENT

__all__ = ["SIGNAL", "Scan", "reduce_line", "scan_of", "variables_of"]

_NAME: Final = "roi"
SIGNAL: Final = f"{_NAME}_mean"
_DEFAULT_BINS: Final = 20


@dataclass(frozen=True, eq=False)
class Scan:
    """What came out of a scan, over its bins and the regions, and how it is made again."""

    result: xr.Dataset
    by: str
    said: str
    code: str


def variables_of(obj: xr.DataArray, events: xr.Dataset | None) -> dict[str, xr.DataArray]:
    """Numbers per event that may be scanned by, switched by, or divided by."""
    found = {str(name): coord for name, coord in obj.coords.items()}
    if events is not None:
        found |= {str(name): events[name] for name in events.variables if name not in found}
    return {n: v for n, v in found.items() if n != EVENT and v.dims == (EVENT,) and v.dtype.kind in "biuf"}


def reduce_line(masked: bool) -> str:
    """The line of code that reduces the regions of all events."""
    return f'small = cal.sd.reduce({{"{_NAME}": xs.roi(regions{", mask=mask" if masked else ""})}})'


def scan_of(
    obj: xr.DataArray,
    regions: Mapping[str, DrawnShape],
    by: str,
    bins: Binning | Any,
    on: str | None,
    per: str | None,
    events: xr.Dataset | None,
    mask: xr.DataArray | None,
) -> Scan:
    """Reduce the regions of all events, and bin them by ``by`` and ``on``, for a weight of 1 where ``per`` names one.

    Raises
    ------
    ParameterError
        No region, or a variable that is not there.
    """
    if not regions:
        raise ParameterError("which regions?", found="none drawn", fix='.add(xs.Circle((0, 0), 1e-3), "spot")')
    known = variables_of(obj, events)
    named = [name for name in (by, on, per) if name is not None]
    for name in named:
        if name not in known:
            raise ParameterError("no such variable of the events", found=repr(name), expected=f"one of {sorted(known)}")
    along = as_binning(_even_bins(known[by]) if bins is None else bins, by)
    small = reduce(obj, {_NAME: roi(dict(regions), mask=mask)})
    code = reduce_line(mask is not None)
    beside = [name for name in named if name not in small.coords]
    if beside and events is not None:
        small = xr.merge([small, events[beside].reset_coords()[beside]], join="inner")
        code = f"small = xr.merge([{code[8:]}, events[{beside}].reset_coords()[{beside}]], join='inner')"
    asked: dict[str, Any] = {by: along} | ({} if on is None else {on: categories([False, True])})
    kept = [SIGNAL, *beside]
    made = cube(small[kept], asked, weights=per).compute()
    said = ", ".join(f'"{name}": {_code_of(binning)}' for name, binning in asked.items())
    code += f"\ncube = small[{kept}].sd.cube({{{said}}}" + ("" if per is None else f', weights="{per}"') + ")"
    if on is None:
        made = made if per is None else made.sd.ratio()
        return Scan(made, by, "mean of each region", code + ("" if per is None else "\ncube.sd.ratio()"))
    normalize = None if per is None else "sums"
    out = difference(made, on, relative=True, normalize=normalize)
    code += f'\ncube.sd.difference("{on}", relative=True' + ("" if per is None else ', normalize="sums"') + ")"
    return Scan(out, by, f"{on}: (on - off) / off", code)


def _even_bins(values: xr.DataArray) -> Binning:
    """Bins over what the variable did, its rare ends left out."""
    numbers = np.asarray(values.values, dtype=np.float64)
    numbers = numbers[np.isfinite(numbers)]
    if numbers.size == 0 or numbers.min() == numbers.max():
        raise ParameterError("nothing to scan by", found=f"{values.name} never changes", fix="bins=xs.edges([0, 1])")
    low, high = (float(v) for v in np.percentile(numbers, (0.5, 99.5)))
    step = float(f"{(high - low) / _DEFAULT_BINS:.1g}")
    first = np.floor(low / step)
    n = int(np.ceil(high / step) - first) + 1
    return make_bins(float(f"{first * step:.6g}"), float(f"{(first + n) * step:.6g}"), n=n)


def _code_of(binning: Binning) -> str:
    """The call of ``xs`` that makes a binning."""
    made: Any = binning  # a dataclass, each
    said = [(f.name, getattr(made, f.name)) for f in fields(made) if getattr(made, f.name) != f.default]
    words = ", ".join(f"{name}={value!r}" for name, value in said)
    return f"xs.{type(binning).__name__.lower()}({words})"
