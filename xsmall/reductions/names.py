"""Names of what several records return in one Dataset: none stands for two things."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import xarray as xr

from xsmall.engine.record import Output
from xsmall.errors import ParameterError
from xsmall.vocabulary import EVENT, PIXEL_DIMS

__all__ = ["check_names", "clashing_dims"]

Returned = Mapping[str, Mapping[str, Output]]
"""What each record returns, by its name and that of the variable."""
RecordCoords = Mapping[str, Mapping[str, xr.Variable]]
"""Coordinates of each record."""


def clashing_dims(described: Returned, coords: RecordCoords, frames: xr.DataArray) -> dict[tuple[str, str], str]:
    """New names of the dims that two records size or label differently, or that mean something else in the frames.

    Dims that only a coordinate of a record runs over, such as the pixels that sparse frames use, keep their names.
    """
    seen: dict[str, list[tuple[str, int | None, xr.Variable | None]]] = {}
    for name, outputs in described.items():
        sizes = {d: n for o in outputs.values() for d, n in zip(o.dims, o.shape, strict=True)}
        for dim, size in sizes.items():
            seen.setdefault(dim, []).append((name, size, coords[name].get(dim)))
    taken, fixed = _kept_names(described, frames), _dims_of_coords_alone(described, coords)
    renamed = {}
    for dim, uses in seen.items():
        size, label = fixed.get(dim, uses[0][1:])
        others = uses if dim in fixed else uses[1:]
        differ = any(n is None or n != size or not _same_label(label, other) for _, n, other in others)
        if differ or dim in taken:
            for name, _, _ in uses:
                own = {dim, *(k for k, v in coords[name].items() if dim in v.dims)}
                renamed.update({(name, k): _prefixed(name, k, described[name]) for k in own})
    return renamed


def _dims_of_coords_alone(described: Returned, coords: RecordCoords) -> dict[str, tuple[int, xr.Variable | None]]:
    """Size and label of dims that a record has in its coordinates and in none of its variables."""
    found: dict[str, tuple[int, xr.Variable | None]] = {}
    for name, labels in coords.items():
        own = {dim for output in described[name].values() for dim in output.dims}
        sizes = {str(dim): n for label in labels.values() for dim, n in label.sizes.items()}
        found |= {dim: (n, labels.get(dim)) for dim, n in sizes.items() if dim not in own}
    return found


def _prefixed(name: str, key: str, outputs: Mapping[str, Output]) -> str:
    """Name of a dim of one record, which is not that of a variable."""
    return f"{name}_{key}" if key not in outputs else f"{name}_{key}_0"


def _same_label(a: xr.Variable | None, b: xr.Variable | None) -> bool:
    if a is None or b is None:
        return a is b
    return bool(np.array_equal(a.values, b.values))


def _kept_names(described: Returned, frames: xr.DataArray) -> set[str]:
    """Names of the coordinates of the frames that a result keeps: of its events, and scalars."""
    gone = set(PIXEL_DIMS)
    if all(output.summed for outputs in described.values() for output in outputs.values()):
        gone.add(EVENT)
    kept = {str(name) for name, v in frames.coords.variables.items() if not gone & set(v.dims)}
    return kept if EVENT in gone else kept | {EVENT}


def check_names(described: Returned, coords: RecordCoords, frames: xr.DataArray) -> None:
    """Raise where a variable would take the name of another one, of a coordinate of the frames, or of a label.

    Raises
    ------
    ParameterError
        Two things of one name.
    """
    renamed = clashing_dims(described, coords, frames)
    labels = {renamed.get((name, key), key) for name, found in coords.items() for key in found}
    labels |= {renamed.get((name, d), d) for name, found in described.items() for o in found.values() for d in o.dims}
    of_frames = _kept_names(described, frames)
    made: dict[str, str] = {}
    for name, outputs in described.items():
        for variable in outputs:
            called = f"{name}_{variable}"
            if called in made:
                other = f"a variable of the record {made[called]!r}"
            elif called in of_frames:
                other = "a coordinate of the frames"
            elif called in labels:
                other = "a dim of the result"
            else:
                made[called] = name
                continue
            raise ParameterError(
                f"two things would be called {called!r}",
                found=f"{variable!r} of the record {name!r}, and {other}",
                expected="another name of the record",
                fix=f'{{"{_free_name(name, described)}": ...}} in place of {{"{name}": ...}}',
            )


def _free_name(name: str, described: Returned) -> str:
    """A name that no record has, nor begins with."""
    words = (f"my_{name}", *(f"my_{name}_{i}" for i in range(2, len(described) + 3)))
    return next(w for w in words if not any(f"{other}_".startswith(f"{w}_") for other in described))
