"""The results of one record under the names that the record gives them, out of small data of many records."""

from __future__ import annotations

from typing import Any, TypeVar, overload

import xarray as xr

from xsmall.errors import DataError
from xsmall.events.ragged import lists
from xsmall.vocabulary import SAMPLE_DIMENSION

__all__ = ["as_dataset", "own_names"]


Opened = TypeVar("Opened")


@overload
def as_dataset(obj: xr.DataTree) -> xr.Dataset: ...
@overload
def as_dataset(obj: Opened) -> Opened: ...
def as_dataset(obj: Any) -> Any:
    """The events of small data that were opened as a tree; anything else as it is."""
    return obj.to_dataset() if isinstance(obj, xr.DataTree) else obj


def own_names(small: xr.Dataset, *wanted: str) -> xr.Dataset:
    """Take prefixes of records and detectors off the names of what one record returned, and make lists of what is flat.

    Parameters
    ----------
    small
        Small data: of one record, of :func:`~xsmall.reduce`, or of a production, as opened.
    wanted
        Variables that tell the record, the first of which no other record has.

    Returns
    -------
    The results of the record; ``small`` as it is where they have their own names already, or are not there.

    Raises
    ------
    DataError
        Several records that return these variables.

    Examples
    --------
    >>> import numpy as np, xarray as xr
    >>> from xsmall.events.own_names import own_names
    >>> n = xr.DataArray(np.zeros((2, 3)), dims=("event", "epix_k"))
    >>> own_names(xr.Dataset({"epix_speckle_n_k": n, "epix_roi_sum": n[:, 0]}), "n_k")["n_k"].dims
    ('event', 'k')
    """
    if all(name in small.variables for name in wanted):
        return small
    ends = [str(n).removesuffix(wanted[0]) for n in small.data_vars if str(n).endswith(f"_{wanted[0]}")]
    prefixes = [p for p in ends if all(f"{p}{name}" in small.variables for name in wanted)]
    if not prefixes:
        return small
    if len(prefixes) > 1:
        raise DataError(
            "results of several records",
            found=", ".join(f"{p}{wanted[0]}" for p in prefixes),
            expected="those of one",
            fix=f'small.drop_vars([name for name in small.data_vars if name.startswith("{prefixes[1]}")])',
        )
    return _without_prefix(_results_of_record(small, prefixes[0]), prefixes[0])


def _results_of_record(flat: xr.Dataset, prefix: str) -> xr.Dataset:
    """The variables of a record, lists per event where they lie behind each other, and all coordinates."""
    own = [n for n in flat.data_vars if str(n).startswith(prefix)]
    dims = {d for n in own for d in flat[n].dims}
    counts = [n for n, v in flat.data_vars.items() if v.attrs.get(SAMPLE_DIMENSION) in dims]
    return lists(flat.drop_vars([n for n in flat.data_vars if n not in own and n not in counts]))


def _without_prefix(part: xr.Dataset, prefix: str) -> xr.Dataset:
    words = prefix.split("_")[:-1]
    leads = ["".join(f"{word}_" for word in words[:n]) for n in range(len(words), 0, -1)]
    renamed: dict[str, str] = {}
    for name in map(str, [*part.variables, *part.dims]):
        new = next((name.removeprefix(lead) for lead in leads if name.startswith(lead)), name)
        if new and new not in part.variables and new not in part.dims and new not in renamed.values():
            renamed[name] = new
    return part.rename(renamed)
