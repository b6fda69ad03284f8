"""What raw runs in Zarr and in HDF5 share: the check of their layout, and the tree that is made of their groups."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final

import numpy as np
import xarray as xr

from xsmall import vocabulary as v
from xsmall.errors import FileFormatError
from xsmall.io.layout import RUN_LAYOUT, RUN_NUMBER, is_frames

__all__ = ["RUN_IN_WORDS", "check_layout", "is_run", "stored_tree"]

RUN_IN_WORDS: Final = "raw run"


def is_run(layout: object) -> bool:
    """Whether the attribute that names a layout names that of runs, of whatever number."""
    return str(layout).rpartition(" ")[0] == RUN_LAYOUT


def check_layout(path: Path, layout: object) -> None:
    """Refuse what is no run, or a run that this version cannot know."""
    name, _, number = str(layout or "").rpartition(" ")
    expected = f"{RUN_LAYOUT} {RUN_NUMBER}"
    if name != RUN_LAYOUT or not number.isdigit() or int(number) < 1:
        raise FileFormatError(
            f"{path}: not a raw run",
            found=layout or f"no attribute {v.LAYOUT}",
            expected=expected,
            fix=f"`xsmall info {path.name}` says what it is",
        )
    if int(number) != RUN_NUMBER:
        newer = int(number) > RUN_NUMBER
        raise FileFormatError(
            f"{path}: written by {'a newer' if newer else 'an older'} xsmall",
            found=layout,
            expected=expected,
            fix="upgrade xsmall" if newer else "write the run again from its source",
        )


def stored_tree(nodes: Mapping[str, xr.Dataset], lazy: Callable[[str, str, xr.Variable], Any]) -> xr.DataTree:
    """Hold what is small and keep frames lazy."""
    result = {}
    for group, node in nodes.items():
        parts: dict[str, xr.Variable] = {}
        for name, x in node.variables.items():
            if is_frames(x) and x.size:
                parts[str(name)] = xr.Variable(x.dims, lazy(group, str(name), x), x.attrs)
            else:
                held = x.load()
                data = held.values.astype(np.str_) if held.dtype.kind in "OT" else held.values
                parts[str(name)] = xr.Variable(x.dims, data, x.attrs)
        attrs = {k: a for k, a in node.attrs.items() if k != v.LAYOUT}
        coords = {str(name): parts.pop(str(name)) for name in node.coords}
        result[group] = _with_positions(xr.Dataset(parts, coords, attrs))
    return xr.DataTree.from_dict(result)


def _with_positions(dataset: xr.Dataset) -> xr.Dataset:
    """Give frames that carry the rule of a geometry their x, y, z back."""
    if v.GEOMETRY not in dataset.coords:
        return dataset
    from xsmall.frames.pixels import assign_geometry, geometry_of

    for name, x in dataset.data_vars.items():
        geometry = geometry_of(x) if set(v.PIXEL_DIMS) <= set(x.dims) else None
        if geometry is not None:
            return dataset.assign({name: assign_geometry(x, geometry)})
    return dataset
