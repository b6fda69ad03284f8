"""Raw runs that were written by hand, with h5py or zarr: dims by name and shape, labels and flags as coordinates.

The layout is told in the page on files (``docs/howto/write_raw_hdf5.md``): ``raw`` is (event, segment, row, column),
``present`` and ``damage`` are (event, segment), every event variable is as long as ``event``.
"""

from difflib import get_close_matches
from pathlib import Path
from typing import Final

import xarray as xr

from xsmall import vocabulary as v
from xsmall.detector.types import DETECTOR_TYPES
from xsmall.errors import FileFormatError

__all__ = ["checked_group", "named_dims"]

_UNNAMED: Final = "phony_dim_"
_OF_SEGMENTS: Final = (v.PRESENT, v.DAMAGE)
_OF_EVENTS: Final = (v.STEP, v.RUN, v.FIDUCIAL, v.PULSE_ID, v.SOURCE_TIMESTAMP)


def named_dims(group: str, node: xr.Dataset) -> xr.Dataset:
    """Give the dims of a group of HDF5 without dimension scales their names.

    An event variable of another length than the labels belongs to no events: it is left out, and that is said.
    """
    if not any(str(dim).startswith(_UNNAMED) for dim in node.dims):
        return node
    label, frames = node.variables.get(v.EVENT), node.variables.get(v.RAW)
    n = None if label is None or label.ndim != 1 else label.shape[0]
    pixels = frames.shape[1:] if frames is not None and frames.ndim == len(v.FRAME_DIMS) else None
    made: dict[str, xr.Variable] = {}
    left_out = [str(node.attrs[v.LEFT_OUT])] if v.LEFT_OUT in node.attrs else []
    for name, x in node.variables.items():
        dims = _dims_of_array(str(name), x.shape, n, pixels)
        kept = [d if not str(d).startswith(_UNNAMED) else new for d, new in zip(x.dims, dims, strict=True)]
        if n is not None and x.ndim and kept[0] == dims[0] == f"{name}_0" and _is_of_events(str(name), group):
            left_out.append(f"{name}: {x.shape[0]} values for {n} events")
        else:
            made[str(name)] = xr.Variable(kept, x._data, x.attrs, x.encoding)
    coords = {name: made.pop(name) for name in list(made) if name in (v.EVENT, *v.PIXEL_DIMS) or name in node.coords}
    told = {v.LEFT_OUT: "; ".join(left_out)} if left_out else {}
    return xr.Dataset(made, xr.Coordinates(coords, indexes={}), node.attrs | told)


def _is_of_events(name: str, group: str) -> bool:
    """Whether a variable can only be over events; flags and labels of them are refused later, where they are not."""
    return group == f"/{v.EVENTS_NODE}" and name not in (*_OF_SEGMENTS, *_OF_EVENTS, v.EVENT_CODE)


def _dims_of_array(name: str, shape: tuple[int, ...], n: int | None, pixels: tuple[int, ...] | None) -> tuple[str, ...]:
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


def checked_group(path: Path, group: str, node: xr.Dataset) -> xr.Dataset:
    """Let frames carry what says of them when they were and what is missing, whoever wrote the file.

    Raises
    ------
    FileFormatError
        Frames of another number of dims, or without the label of their events; event variables without labels; flags
        or labels of other events or segments.
    """
    frames, label = node.variables.get(v.RAW), node.variables.get(v.EVENT)
    if frames is not None:
        _check_file_frames(path, group, frames, label)
    elif group == f"/{v.EVENTS_NODE}" and label is None and any(x.ndim for x in node.variables.values()):
        raise FileFormatError(
            f"{path}: {group} says nothing of when its events were",
            found=f"{', '.join(map(str, node.variables))}, no {v.EVENT}",
            expected=f"the label of each event, such as its time, in {group}/{v.EVENT}",
        )
    _check_type(path, group, node)
    if label is None:
        return node
    wanted = dict.fromkeys(_OF_SEGMENTS, (v.EVENT, v.SEGMENT)) | dict.fromkeys(_OF_EVENTS, (v.EVENT,))
    found = {name: node.variables[name] for name in wanted if name in node.variables and node.variables[name].ndim}
    for name, x in found.items():
        if x.dims[:1] != (v.EVENT,) or not set(x.dims) <= set(wanted[name]):
            lengths = dict(node.sizes) | ({} if frames is None else dict(zip(v.FRAME_DIMS, frames.shape, strict=True)))
            raise FileFormatError(
                f"{path}: {group}/{name} does not fit the events",
                found=f"the shape {x.shape} of {x.dims}",
                expected=f"{wanted[name]}: {tuple(lengths[d] for d in wanted[name] if d in lengths)}",
                fix=f"write {group}/{name} again, or leave it out",
            )
    return (
        node if group == f"/{v.EVENTS_NODE}" else node.set_coords([name for name in found if name not in node.coords])
    )


def _check_type(path: Path, group: str, node: xr.Dataset) -> None:
    """Refuse a misspelt detector type: its raw words would be taken for numbers. XTC2 has types of its own."""
    for name, x in node.data_vars.items():
        said = str(x.attrs.get(v.DETECTOR_TYPE, ""))
        near = get_close_matches(said.lower(), DETECTOR_TYPES, n=1, cutoff=0.8)
        if near and said.lower() not in DETECTOR_TYPES and v.DETECTOR_ID not in x.attrs:
            raise FileFormatError(
                f"{path}: unknown detector type of {group}/{name}",
                found=repr(said),
                expected=f"a type such as {near[0]!r}",
                fix=f'file["{group.strip("/")}/{name}"].attrs["{v.DETECTOR_TYPE}"] = "{near[0]}"',
            )


def _check_file_frames(path: Path, group: str, frames: xr.Variable, label: xr.Variable | None) -> None:
    wrong = None
    if frames.ndim != len(v.FRAME_DIMS):
        wrong = f"{v.RAW} of shape {frames.shape}", f"{v.FRAME_DIMS}, with one segment too"
    elif label is None:
        wrong = f"no {v.EVENT} beside {v.RAW}", f"the label of each event, such as its time in {v.EVENT}"
    elif label.shape != frames.shape[:1]:
        wrong = f"{label.shape} labels of {frames.shape[0]} events", "a label for each event"
    if wrong:
        raise FileFormatError(f"{path}: {group} is no detector", found=wrong[0], expected=wrong[1])
