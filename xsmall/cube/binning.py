"""Kinds of bins: frozen value objects with one method, :meth:`Binning.assign`, that gives each event its bin.

Bins with borders are closed on the left and open on the right. An event outside of all bins, or without a value, has
the number -1 and is counted by its reason; it never enters a bin unseen. Users make them with
:mod:`xsmall.cube.bins`.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from xsmall.errors import DataError, ParameterError
from xsmall.events.borders import are_regular, around, as_read, logarithmic, regular, slack

__all__ = ["Assignment", "Binning", "Bins", "Categories", "Edges", "Quantiles", "Steps"]


_MOST_EXACT = 2**53
"""Whole numbers beyond it are not all floats."""


@dataclass(frozen=True, eq=False)
class Assignment:
    """Which event is in which bin of one variable.

    Attributes
    ----------
    index
        Number of the bin of each event, -1 where it is in none: (event,), int64.
    labels
        One label per bin: the centre of bins with borders, the value of a step or category.
    bounds
        Lower and upper border of each bin, (bin, 2), or None for categories.
    n_below, n_above, n_between, n_missing
        Events in no bin: below the first, above the last, between bins (or of a category that was not listed),
        and without a value (NaN).
    tolerance
        How far from its label a value of a step may be; None for other bins.
    """

    index: npt.NDArray[np.int64]
    labels: npt.NDArray[Any]
    bounds: npt.NDArray[Any] | None
    n_below: int = 0
    n_above: int = 0
    n_between: int = 0
    n_missing: int = 0
    tolerance: float | None = None

    @property
    def n_outside(self) -> int:
        """Events with a value that is in no bin."""
        return self.n_below + self.n_above + self.n_between

    def report(self) -> dict[str, int]:
        """Numbers of the events left out, by reason, as attributes of the bins' coordinate."""
        return {
            "n_below": self.n_below,
            "n_above": self.n_above,
            "n_between": self.n_between,
            "n_missing": self.n_missing,
        }


class Binning(ABC):
    """A way to sort events into bins of one variable."""

    @abstractmethod
    def assign(self, values: npt.ArrayLike, name: str = "variable") -> Assignment:
        """Give each of ``values`` (event,) the number of its bin; ``name`` is used in messages.

        Cost: one binary search per event.

        Raises
        ------
        DataError
            The values are not of a kind that these bins can sort.
        ParameterError
            There are values, and not one of them is in a bin.
        """


@dataclass(frozen=True)
class Bins(Binning):
    """Bins of equal width, or of equal ratio, from ``start`` to ``stop``; made by :func:`bins`."""

    start: float
    stop: float
    n: int
    log: bool = False

    def edges(self) -> npt.NDArray[np.float64]:
        """Borders of the bins, (n + 1,), float64: the decimal numbers a user would write."""
        return (logarithmic if self.log else regular)(self.start, self.stop, self.n)

    def assign(self, values: npt.ArrayLike, name: str = "variable") -> Assignment:
        return _by_edges(np.asarray(values), self.edges(), name, regular=True, log=self.log)


@dataclass(frozen=True)
class Edges(Binning):
    """Bins between given borders; made by :func:`edges` or by a bare array."""

    borders: tuple[Any, ...]

    def assign(self, values: npt.ArrayLike, name: str = "variable") -> Assignment:
        borders = np.asarray(self.borders)
        return _by_edges(np.asarray(values), borders, name, regular=are_regular(borders))


@dataclass(frozen=True)
class Steps(Binning):
    """Bins around the values at which a motor stood; made by :func:`steps`."""

    tolerance: float
    at: tuple[float, ...] | None = None

    def assign(self, values: npt.ArrayLike, name: str = "variable") -> Assignment:
        data = as_read(_as_numbers(np.asarray(values), name, "steps", keep=True))
        there = ~np.isnan(data)
        if self.at is None:
            labels, low, high = self._found(data[np.isfinite(data)], name)
            first, last = low, high
        else:
            labels = np.asarray(self.at)
            low, high = around(self.at, self.tolerance)
            first, last = (x.astype(data.dtype).astype(np.float64) for x in (low, high))
            reach = slack(np.sort(labels), data.dtype).max()
            first, last = first - reach, last + reach
        rank = np.argsort(first)
        place = np.searchsorted(first[rank], data, side="right") - 1
        index = np.where(there & (place >= 0), rank[np.clip(place, 0, None)], -1)
        beyond = there & (index >= 0) & (data > last[index])
        index[beyond] = -1
        below, above = there & (data < first.min()), there & (data > last.max())
        _refuse_empty(index, data[there], low.min(), high.max(), name)
        return Assignment(
            index.astype(np.int64),
            labels,
            np.stack([low, high], axis=1),
            n_below=int(below.sum()),
            n_above=int(above.sum()),
            n_between=int((there & (index < 0) & ~below & ~above).sum()),
            n_missing=int((~there).sum()),
            tolerance=self.tolerance,
        )

    def _found(
        self, data: npt.NDArray[Any], name: str
    ) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64], npt.NDArray[np.float64]]:
        """Labels, lowest and highest value of the groups that ``data`` fall into."""
        if not data.size:
            raise _nothing_to_find(name, "xs.steps(tolerance=..., at=[...])")
        last_place = 4 * float(np.spacing(np.abs(data).max()))  # 1.1 - 1.0 is 0.1 to whoever wrote them
        gap = self.tolerance + (last_place if self.tolerance else 0.0)
        ordered = np.sort(data)
        first = np.flatnonzero(np.r_[True, np.diff(ordered.astype(np.float64)) > gap])
        last = np.r_[first[1:], ordered.size] - 1
        low, high = ordered[first], ordered[last]
        if np.any(high - low > 2 * self.tolerance + last_place):
            widest = int(np.argmax(high - low))
            raise ParameterError(
                f"{name} does not stand in steps of tolerance {self.tolerance:g}",
                found=f"values from {low[widest]:g} to {high[widest]:g} without a gap",
                expected="groups at most two tolerances wide, more than one tolerance apart",
                fix="xs.bins(start, stop, width=...) for a fly scan, or another tolerance",
            )
        labels = np.array([float(str(x)) for x in ordered[(first + last) // 2]])  # 0.7, not what float32 makes of it
        return labels, low.astype(np.float64), high.astype(np.float64)


@dataclass(frozen=True)
class Quantiles(Binning):
    """Bins with equal numbers of events; made by :func:`quantiles`."""

    n: int

    def assign(self, values: npt.ArrayLike, name: str = "variable") -> Assignment:
        data = _as_numbers(np.asarray(values), name, "quantiles")
        finite = data[np.isfinite(data)]
        if not finite.size:
            raise _nothing_to_find(name, "xs.bins(start, stop, n=...)")
        borders = _on_values(np.quantile(finite, np.linspace(0, 1, self.n + 1)), np.unique(finite))
        borders[-1] = np.nextafter(borders[-1], np.inf)  # so that the largest value is in the last bin
        if np.any(np.diff(borders) <= 0):
            raise ParameterError(
                f"{name} has too few different values for {self.n} bins of equal numbers",
                found=f"{np.unique(finite).size} different values in {finite.size} events",
                fix="fewer quantiles, or xs.steps(tolerance=...) or xs.edges([...])",
            )
        return _by_edges(data, borders, name, read=False)


@dataclass(frozen=True)
class Categories(Binning):
    """One bin per value; made by :func:`categories`."""

    labels: tuple[Any, ...] | None = None

    def assign(self, values: npt.ArrayLike, name: str = "variable") -> Assignment:
        data, there = _category_values(np.asarray(values), name)
        if self.labels is not None:
            labels = _labels_like(self.labels, data, name)
        elif data.dtype.kind == "b":
            labels = np.array([False, True])
        else:
            labels = np.unique(data[there])
            if not labels.size:
                raise _nothing_to_find(name, "xs.categories([...])")
        rank = np.argsort(labels, kind="stable")
        place = np.clip(np.searchsorted(labels[rank], data), 0, labels.size - 1)
        found = there & (labels[rank][place] == data)
        index = np.where(found, rank[place], -1).astype(np.int64)
        if there.any() and not found.any():
            raise ParameterError(
                f"the categories of {name} cover no event",
                found=f"values {np.unique(data[there])[:8].tolist()}, categories {labels[:8].tolist()}",
                fix="xs.categories() takes the values that are there",
            )
        return Assignment(index, labels, None, n_between=int((there & ~found).sum()), n_missing=int((~there).sum()))


# ---- helpers ----------------------------------------------------------------------------------------------------


def _by_edges(
    values: npt.NDArray[Any],
    borders: npt.NDArray[Any],
    name: str,
    *,
    regular: bool = False,
    log: bool = False,
    read: bool = True,
) -> Assignment:
    """Sort ``values`` into bins between ``borders``, closed on the left.

    ``regular``: a value within the last places of a border is on it. ``read``: in the precision of the values.
    """
    if borders.dtype.kind == "M":
        if values.dtype.kind != "M":
            raise DataError(f"the edges of {name} are times, its values are not", found=values.dtype)
        data, there, compared = values.astype(borders.dtype), ~np.isnat(values), borders
        centres = borders[:-1] + (borders[1:] - borders[:-1]) // 2
    else:
        numbers = _as_numbers(values, name, "bins with borders", keep=True)
        data = as_read(numbers) if read else numbers
        if data.dtype != numbers.dtype and np.any(np.diff(borders.astype(data.dtype)) <= 0):
            data = numbers
        there, compared = ~np.isnan(data), borders.astype(data.dtype)
        if np.any(np.diff(compared) <= 0):
            raise ParameterError(f"the bins of {name} are narrower than its precision", found=data.dtype)
        if regular:
            compared = compared.astype(np.float64) - slack(borders, data.dtype)
        centres = np.sqrt(borders[:-1] * borders[1:]) if log else 0.5 * (borders[:-1] + borders[1:])
    n = borders.size - 1
    place = np.searchsorted(compared, data, side="right") - 1
    below, above = there & (place < 0), there & (place >= n)
    index = np.where(there & ~below & ~above, place, -1).astype(np.int64)
    _refuse_empty(index, data[there], borders[0], borders[-1], name)
    return Assignment(
        index,
        centres,
        np.stack([borders[:-1], borders[1:]], axis=1),
        n_below=int(below.sum()),
        n_above=int(above.sum()),
        n_missing=int((~there).sum()),
    )


def _on_values(borders: npt.NDArray[np.float64], values: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Borders that interpolation has put beside a value by its last places only, on that value."""
    reach = slack(borders, borders.dtype)
    near = values[np.clip(np.searchsorted(values, borders - reach), 0, values.size - 1)]
    out: npt.NDArray[np.float64] = np.where(np.abs(near - borders) <= reach, near, borders)
    return out


def _refuse_empty(index: npt.NDArray[Any], there: npt.NDArray[Any], low: Any, high: Any, name: str) -> None:
    """Raise when there are values and none is in a bin: a slip of the unit, more likely than not."""
    if there.size and not (index >= 0).any():
        first, last = there.min(), there.max()
        finite = there[np.isfinite(there)] if there.dtype.kind == "f" else there
        if finite.size:
            first, last = finite.min(), finite.max()
        span = (
            f"xs.bins({first:.4g}, {last:.4g}, n=20); "
            if there.dtype.kind in "iuf" and -np.inf < first < last < np.inf
            else ""
        )
        raise ParameterError(
            f"the bins of {name} cover no event",
            found=f"values from {first} to {last}, bins from {low} to {high}",
            fix=f"{span}bins in the unit of {name}",
        )


def _as_numbers(values: npt.NDArray[Any], name: str, what: str, *, keep: bool = False) -> npt.NDArray[Any]:
    """Values as floats (float64, or the precision they have), or an error for what is no number."""
    if values.dtype.kind not in "iuf" or values.ndim != 1:
        kind = {"b": "xs.categories()", "U": "xs.categories()", "O": "xs.categories()", "M": "xs.edges([...])",
                "m": f'small.assign({name}=small["{name}"] / np.timedelta64(1, "ps"))'}  # fmt: skip
        raise DataError(
            f"{name} cannot be sorted into {what}",
            found=f"{values.dtype} of shape {values.shape}",
            expected="one number per event",
            fix=kind.get(values.dtype.kind),
        )
    out = values if keep and values.dtype.kind == "f" else values.astype(np.float64)
    if values.dtype.kind in "iu" and values.dtype.itemsize >= out.dtype.itemsize:
        large = (values > _MOST_EXACT) | (values < -_MOST_EXACT if values.dtype.kind == "i" else False)
        if large.any():
            raise DataError(
                f"{name} has whole numbers that floats do not tell apart",
                found=str(values[large][0]),
                expected=f"at most 2**53, which {what} are exact for",
                fix=f'small.assign({name}=small["{name}"] - small["{name}"].min()), or xs.categories()',
            )
    return out


def _category_values(values: npt.NDArray[Any], name: str) -> tuple[npt.NDArray[Any], npt.NDArray[np.bool_]]:
    """Values that can be compared exactly, and where there is one."""
    if values.ndim == 1:
        if values.dtype.kind in "biuUS":
            return values, np.ones(values.shape, bool)
        if values.dtype.kind in "OT":
            there = np.array([isinstance(v, str) for v in values], bool)
            if there.any() and pd.isna(values[~there]).all():
                return np.array([v if known else "" for v, known in zip(values, there, strict=True)], np.str_), there
        if values.dtype.kind == "f":
            there = np.isfinite(values)
            if np.all(values[there] == np.floor(values[there])):
                return values, there
    raise DataError(
        f"{name} has no categories",
        found=f"{values.dtype} of shape {values.shape}",
        expected="true/false, whole numbers or text, one per event",
        fix="xs.steps(tolerance=...) or xs.bins(...) for numbers with a fraction",
    )


def _labels_like(labels: tuple[Any, ...], data: npt.NDArray[Any], name: str) -> npt.NDArray[Any]:
    """Labels in the dtype of the data, or an error where they are of another kind or would change their value."""
    given = np.array(labels)
    groups = ("b", "iuf", "U", "S")
    same = any(given.dtype.kind in g and data.dtype.kind in g for g in groups)
    if same and data.dtype.kind in "iuf":
        cast = given.astype(data.dtype)
        if np.array_equal(cast, given):
            return cast
    elif same:
        return given
    raise ParameterError(
        f"the categories of {name} are not of the kind of its values",
        found=f"categories {list(labels)[:8]}, values of {data.dtype}",
        fix="xs.categories() takes the values that are there",
    )


def _nothing_to_find(name: str, fix: str) -> DataError:
    return DataError(f"{name} has no finite value to make bins of", expected="one event at least", fix=fix)
