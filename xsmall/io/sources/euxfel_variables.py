"""What the European XFEL records once per train, as variables of events: pulse energies, motors, beam positions."""

from collections.abc import Mapping, Sequence
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import xarray as xr

from xsmall import vocabulary as v
from xsmall.errors import DataError, ParameterError

__all__ = ["left_out", "train_variables"]

_SHOWN: Final = 6


def train_variables(
    run: Any, path: str, trains: npt.NDArray[np.int64], wanted: Mapping[str, Sequence[Any]]
) -> dict[str, xr.Variable]:
    """Give for each event the value of its train, NaN where the train has none.

    Parameters
    ----------
    run
        What extra_data opened.
    path
        Its folder, for errors.
    trains
        Train of each event.
    wanted
        ``{name: (source, key)}``, or ``(source, key, index)`` for one of several values of a train.

    Raises
    ------
    ParameterError
        No such source or key, or several values per train without an index.
    DataError
        Several records per train.
    """
    return {name: _variable_of_key(run, path, trains, name, tuple(place)) for name, place in wanted.items()}


def _variable_of_key(
    run: Any, path: str, trains: npt.NDArray[np.int64], name: str, place: tuple[Any, ...]
) -> xr.Variable:
    if len(place) not in (2, 3):
        raise ParameterError(
            f"{path}: invalid place of {name}", found=place, expected="(source, key) or (source, key, index)"
        )
    source, key = str(place[0]), str(place[1])
    if source not in run.all_sources:
        alike = [s for s in sorted(run.all_sources) if source.split("/")[0].lower() in s.lower()]
        raise ParameterError(
            f"{path}: no such source", found=repr(source), expected=", ".join(alike or sorted(run.all_sources)[:8])
        )
    keys = run.keys_for_source(source)
    if key not in keys and f"{key}.value" not in keys:
        known = sorted(k.removesuffix(".value") for k in keys if not k.endswith(".timestamp"))
        raise ParameterError(f"{path}: {source} has no such key", found=repr(key), expected=", ".join(known[:20]))
    data = run[source, key]
    values, ids = data.ndarray(), np.asarray(data.train_id_coordinates(), np.int64)
    if len(place) == 3 and values.ndim == 2 and isinstance(place[2], int) and 0 <= place[2] < values.shape[1]:
        values = values[:, place[2]]
    elif values.ndim != 1 or len(place) == 3:
        raise ParameterError(
            f"{path}: {name} is not one number per train",
            found=f"shape {values.shape[1:]} in {source}, {key}",
            fix=f'variables={{"{name}": ("{source}", "{key}", 0)}}' if values.ndim == 2 else None,
        )
    if np.unique(ids).size != ids.size:
        raise DataError(f"{path}: {source} has several records per train", found=f"{ids.size} records", expected="one")
    order = np.argsort(ids)
    at = np.searchsorted(ids[order], trains)
    there = np.zeros(trains.shape, bool)
    there[at < ids.size] = ids[order][at[at < ids.size]] == trains[at < ids.size]
    found = np.full(trains.shape, np.nan)
    found[there] = values[order][at[there]]
    return xr.Variable(v.EVENT, found, {v.SOURCE: f"{source} {key}"})


def left_out(run: Any, detectors: Sequence[str], chosen: Sequence[str], variables: Mapping[str, Sequence[Any]]) -> str:
    """Say which sources of a run were not opened, and how they are; nothing where there are none."""
    named = {str(place[0]) for place in variables.values()}
    own = tuple(f"{name}/" for name in detectors)
    others = sorted(s for s in run.all_sources if s not in named and not s.startswith(own or "\0"))
    said = [f"{name}: not among detectors=" for name in detectors if name not in chosen]
    if not detectors:
        said.append("no area detector that is known has frames")
    if others:
        more = f" and {len(others) - _SHOWN} more" if len(others) > _SHOWN else ""
        said.append(
            f"{', '.join(others[:_SHOWN])}{more}: variables={{name: (source, key)}} opens what comes once per train"
        )
    return "; ".join(said)
