"""Values and their variance that belong together: the mark by which both say so, until somebody computes with them."""

from __future__ import annotations

from collections.abc import Collection, Hashable
from typing import Final

import numpy as np
import xarray as xr

from xsmall.errors import DataError
from xsmall.vocabulary import DAMAGE, EVENT, FIDUCIAL, PRESENT, PULSE_ID, RUN, UNUSABLE, VARIANCE_SUFFIX

__all__ = [
    "FILL_VALUE",
    "PAIR",
    "check_pair",
    "check_small",
    "is_marked",
    "is_variance",
    "mark_of",
    "paired",
    "unpaired",
]

PAIR: Final = float(np.uint64(0x7FF8_0000_0000_0000 | 0x153 << 42).view(np.float64))
"""The mark of a value and its variance: a NaN with a number of its own among the bits that NaN leaves free.

It stands in ``encoding`` as what a file fills missing values with. xarray hands the encoding on with whatever it
chooses, orders, joins or copies, and drops it from whatever it computes: just what a variance does not survive. What a
file is filled with is the one thing in it that xarray writes down and reads again, so the mark goes through a file when
it is there, and does not come back when it is not. The number is in the bits that all widths of floats have.
"""

FILL_VALUE: Final = "_FillValue"
_PACKING: Final = frozenset({FILL_VALUE, "missing_value", "scale_factor", "add_offset", "_Unsigned"})
"""What says in ``encoding`` how other numbers stand for these in the file that they were read from."""

_FLAGS: Final = (PRESENT, DAMAGE, UNUSABLE)
_COUNTERS: Final = (PULSE_ID, FIDUCIAL, "train_id", RUN)
"""Coordinates of events that are whole numbers; of the counters as long as each event has one."""


def paired(obj: xr.Dataset) -> xr.Dataset:
    """Mark each value and its variance in a Dataset as belonging together; whoever makes them calls this."""
    names = {str(v) for v in obj.variables}
    both = [v for n in names if is_variance(n, names) for v in (n, n.removesuffix(VARIANCE_SUFFIX))]
    if not both:
        return obj
    marked = {}
    for name in sorted(both):
        variable = obj.variables[name].copy(deep=False)
        if variable.dtype.kind in "biu":  # a file has no NaN among whole numbers
            variable = variable.astype(np.float64, keep_attrs=True)
        kept = {k: x for k, x in variable.encoding.items() if k not in _PACKING}
        if np.dtype(kept.get("dtype", variable.dtype)).kind != "f":
            kept.pop("dtype", None)
        variable.encoding = {**kept, FILL_VALUE: PAIR}
        marked[name] = variable
    return obj.assign({n: v for n, v in marked.items() if n in obj.data_vars})


def unpaired(obj: xr.Dataset) -> list[str]:
    """Names of the variances in a Dataset that were computed with, or put beside their values by hand."""
    names = {str(v) for v in obj.variables}
    pairs = {n: (n, n.removesuffix(VARIANCE_SUFFIX)) for n in sorted(names) if is_variance(n, names)}
    return [n for n, pair in pairs.items() if not all(is_marked(obj.variables[m]) for m in pair)]


def is_marked(variable: xr.Variable) -> bool:
    """Whether a variable was made by xsmall as one of a pair, and not computed with since; through files too."""
    fill = variable.encoding.get(FILL_VALUE)
    if not isinstance(fill, float | np.floating):
        return False
    return bool(np.float64(fill).view(np.uint64) == np.float64(PAIR).view(np.uint64))


def mark_of(variable: xr.Variable) -> dict[str, float]:
    """The encoding that carries the mark of a pair, for who makes a new variable of an old one; none without it."""
    return {FILL_VALUE: PAIR} if is_marked(variable) else {}


def check_pair(obj: xr.Dataset, name: str, fix: str | None = None) -> None:
    """Refuse a variance that has seen arithmetic, by which it does not scale as its values do."""
    variance = f"{name}{VARIANCE_SUFFIX}"
    if not _is_averaged(obj) and is_marked(obj.variables[name]) and is_marked(obj.variables[variance]):
        return
    raise DataError(
        f"{variance} may not be the variance of {name} any more: arithmetic of xarray scales both alike",
        found="a pair that was computed with, or put together by hand",
        expected="what xsmall made, chosen from, ordered or joined but not computed with",
        fix=fix
        or f"xs.scale and xs.add compute with both; xs.with_variance(dataset[{name!r}], dataset[{variance!r}]) "
        "says that the two belong together",
    )


def check_small(small: xr.Dataset, name: str) -> None:
    """Refuse a variance among small data that may not be that of its values, and say how to choose events instead."""
    variance = f"{name}{VARIANCE_SUFFIX}"
    check_pair(
        small,
        name,
        f"small.isel(event=...) and small.sd.select(...) choose events, where(...) looks like arithmetic; "
        f"small.assign(xs.with_variance(small[{name!r}], small[{variance!r}])) says that the two belong together; "
        f"small.drop_vars({variance!r}) goes without",
    )


def _is_averaged(obj: xr.Dataset) -> bool:
    """Whether events were averaged by coarsen: it keeps the mark, but makes fractions of what is whole numbers."""
    fractions = {n: c for n, c in obj.coords.items() if EVENT in c.dims and c.dtype.kind == "f"}
    counters = [fractions[n] for n in _COUNTERS if n in fractions and fractions[n].chunks is None]
    return any(n in fractions for n in _FLAGS) or any(np.isfinite(c.values).all() for c in counters)


def is_variance(name: str, among: Collection[Hashable]) -> bool:
    """Whether one of some names is that of the variance of another."""
    return name.endswith(VARIANCE_SUFFIX) and name.removesuffix(VARIANCE_SUFFIX) in among
