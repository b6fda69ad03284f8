"""Whether the coordinates x, y, z of pixels are those of the geometry, by which everything goes."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
import xarray as xr

from xsmall.detector.geometry.geometry import Geometry
from xsmall.detector.geometry.grids import centres_of, panels_of
from xsmall.detector.part import Labels, Part
from xsmall.errors import GeometryError
from xsmall.frames.small import is_lazy, small
from xsmall.vocabulary import PIXEL_DIMS, POSITION

__all__ = ["check_positions"]

_LOOKED_AT = 5
"""Rows, and columns, of each segment that are compared."""
_NEARLY = 1e-6
"""In m, and of the value: what single precision and files do to a position."""
_MOVES_NOTHING = ("xsmall", "getitem", "rechunk", "concatenate", "transpose", "stack", "reshape", "finalize")
"""Layers of graphs that choose and order, by the beginning of their names."""


def check_positions(obj: xr.DataArray | xr.Dataset, geometry: Geometry) -> None:
    """Raise where x, y or z were changed after they were assigned: the rule of the geometry says where pixels are.

    Of lazy ones that were only cut, ordered or joined since nothing is computed; of others some pixels of each segment.

    Raises
    ------
    GeometryError
        Positions that are not those of the geometry.
    """
    coords = {name: obj.coords.variables[name] for name in POSITION if name in obj.coords}
    given = {k: v for k, v in coords.items() if v.dims and set(v.dims) <= set(PIXEL_DIMS)}
    own = {k: v for k, v in given.items() if v.dtype.kind in "fiu" and not _is_made_of_rule(v, k, geometry)}
    if not own:
        return
    at = {
        dim: _places_looked_at(len(labels)) for dim, labels in zip(PIXEL_DIMS[1:], Part.of(obj).labels[1:], strict=True)
    }
    part = _part_at(Part.of(obj), at)
    for name, whole in _positions_by_rule(geometry, part, own).items():
        found = _values_looked_at(own[name], at)
        with np.errstate(invalid="ignore"):
            moved = np.abs(found - whole) > _NEARLY * (1 + np.abs(whole))
        if moved.any():
            where = tuple(int(i[0]) for i in np.nonzero(moved))
            place = dict(
                zip(PIXEL_DIMS, (labels[i] for labels, i in zip(part.labels, where, strict=True)), strict=True)
            )
            raise GeometryError(
                f"the coordinate {name!r} is not that of the geometry, by which pixels are found",
                found=f"{np.broadcast_to(found, whole.shape)[where]:.6g} m at {place}",
                expected=f"{whole[where]:.6g} m",
                fix="where the detector was moved, a geometry that is moved: .sd.assign_geometry(geometry); where the "
                "beam was, .sd.assign_beam(center=(0.001, 0.0), distance=0.1)",
            )


def _is_made_of_rule(variable: xr.Variable, name: str, geometry: Geometry) -> bool:
    """Whether a lazy coordinate was made of this geometry and only cut, ordered or joined since."""
    layers = [str(layer) for layer in variable.data.dask.layers] if is_lazy(variable) else []
    made = any(layer.startswith(f"xsmall-{name}-{geometry.token:016x}") for layer in layers)
    return made and all(layer.startswith(_MOVES_NOTHING) for layer in layers)


def _places_looked_at(n: int) -> npt.NDArray[np.intp]:
    return np.unique(np.linspace(0, n - 1, min(n, _LOOKED_AT)).astype(np.intp))


def _part_at(part: Part, at: Mapping[str, npt.NDArray[np.intp]]) -> Part:
    """The pixels of a part that are looked at."""

    def chosen(labels: Labels, places: npt.NDArray[np.intp]) -> Labels:
        return tuple(labels[i] for i in places)

    _, row, column = PIXEL_DIMS
    return Part(part.segment, chosen(part.row, at[row]), chosen(part.column, at[column]))


def _values_looked_at(variable: xr.Variable, at: Mapping[str, npt.NDArray[np.intp]]) -> npt.NDArray[Any]:
    """Values of the pixels that are looked at: (segment, row, column), of length 1 where they have no such dim."""
    chosen = small(variable.isel({dim: places for dim, places in at.items() if dim in variable.dims}))
    values = chosen.transpose(*(dim for dim in PIXEL_DIMS if dim in chosen.dims)).to_numpy().astype(np.float64)
    return values[tuple(slice(None) if dim in chosen.dims else None for dim in PIXEL_DIMS)]


def _positions_by_rule(geometry: Geometry, part: Part, names: Iterable[str]) -> dict[str, npt.NDArray[np.float64]]:
    """Positions of the pixels of a part by the rule, NaN where no panel is."""
    axes = [POSITION.index(name) for name in names]
    out = np.full((len(axes), part.size), np.nan)
    for panel, rows, columns, pixel in panels_of(geometry, part):
        out[:, pixel] = centres_of(panel, rows, columns, axes)
    return {POSITION[axis]: values.reshape(part.shape) for axis, values in zip(axes, out, strict=True)}
