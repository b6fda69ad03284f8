"""Raw HDF5 that was written with plain h5py: dims by name and shape, where the file has no dimension scales.

The layout is told in the page on files (``docs/howto/write_raw_hdf5.md``): ``raw`` is (event, segment, row, column),
``present`` and ``damage`` are (event, segment), everything else as long as ``event`` is over events.
"""

from pathlib import Path
from typing import Final

import xarray as xr

from xsmall import vocabulary as v
from xsmall.errors import FileFormatError

__all__ = ["named_dims"]

_UNNAMED: Final = "phony_dim_"
_OF_SEGMENTS: Final = frozenset({v.PRESENT, v.DAMAGE})
_COORDS: Final = frozenset(
    {v.EVENT, *v.PIXEL_DIMS, v.PRESENT, v.DAMAGE, v.STEP, v.RUN, v.FIDUCIAL, v.PULSE_ID, v.SOURCE_TIMESTAMP}
)


def named_dims(path: Path, group: str, node: xr.Dataset) -> xr.Dataset:
    """Give the dims of a group without dimension scales their names.

    Raises
    ------
    FileFormatError
        Frames of another number of dims, or without the label of their events.
    """
    if not any(str(dim).startswith(_UNNAMED) for dim in node.dims):
        return node
    label = node.variables.get(v.EVENT)
    frames = node.variables.get(v.RAW)
    if frames is not None:
        _check(path, group, frames, label)
    n = None if label is None or label.ndim != 1 else label.shape[0]
    pixels = frames.shape[1:] if frames is not None else None
    made: dict[str, xr.Variable] = {}
    for name, x in node.variables.items():
        dims = _dims(str(name), x.shape, n, pixels)
        kept = [d if not str(d).startswith(_UNNAMED) else new for d, new in zip(x.dims, dims, strict=True)]
        made[str(name)] = xr.Variable(kept, x._data, x.attrs, x.encoding)
    coords = {name: made.pop(name) for name in list(made) if name in _COORDS or name in node.coords}
    return xr.Dataset(made, xr.Coordinates(coords, indexes={}), node.attrs)


def _dims(name: str, shape: tuple[int, ...], n: int | None, pixels: tuple[int, ...] | None) -> tuple[str, ...]:
    own = tuple(f"{name}_{k}" for k in range(len(shape)))
    if name in (v.EVENT, *v.PIXEL_DIMS, v.EVENT_CODE) and len(shape) == 1:
        return (name,)
    if pixels is not None and shape == pixels:
        return v.PIXEL_DIMS
    if n is None or shape[:1] != (n,):
        return own
    if pixels is not None and shape[1:] == pixels:
        return v.FRAME_DIMS
    if name in _OF_SEGMENTS and len(shape) == 2:
        return (v.EVENT, v.SEGMENT)
    if name == v.EVENT_CODES and len(shape) == 2:
        return (v.EVENT, v.EVENT_CODE)
    return (v.EVENT, *own[1:])


def _check(path: Path, group: str, frames: xr.Variable, label: xr.Variable | None) -> None:
    wrong = None
    if frames.ndim != len(v.FRAME_DIMS):
        wrong = f"{v.RAW} of shape {frames.shape}", f"{v.FRAME_DIMS}, with one segment too"
    elif label is None:
        wrong = f"no {v.EVENT} beside {v.RAW}", f"the label of each event, such as its time in {v.EVENT}"
    elif label.shape != frames.shape[:1]:
        wrong = f"{label.shape} labels of {frames.shape[0]} events", "a label for each event"
    if wrong:
        raise FileFormatError(f"{path}: {group} is no detector", found=wrong[0], expected=wrong[1])
