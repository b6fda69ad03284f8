"""What raw runs in Zarr and in HDF5 share: the check of their layout, and the tree that is made of their groups.

A chunk that is not in the file is missing data, never the zeros that the format would give. Of frames it makes
``present`` False, of numbers per event NaN; a variable that has no form for what is missing is left out by name, and
without its labels a run is not opened at all. The root counts what is lost.
"""

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import dask.array as da
import numpy as np
import numpy.typing as npt
import xarray as xr
from dask.base import tokenize

from xsmall import vocabulary as v
from xsmall.detector.types import DETECTOR_TYPES, Decoding
from xsmall.engine.pairs import mark_of
from xsmall.errors import FileFormatError, XsmallError
from xsmall.io.layout import RUN_LAYOUT, RUN_NUMBER, event_bytes, is_frames
from xsmall.io.sources.chunks import events_per_chunk
from xsmall.io.sources.foreign_runs import checked_group
from xsmall.io.sources.stored_array import ChunkNumber, StoredArray, native
from xsmall.io.sources.stored_lists import lazy_lists
from xsmall.io.sources.xtc2.format import Damage

__all__ = [
    "RUN_IN_WORDS",
    "UNREAD",
    "StoredGroups",
    "check_layout",
    "check_stored",
    "is_run",
    "not_opened",
    "stored_tree",
    "whole_dataset",
]

RUN_IN_WORDS: Final = "raw run"
UNREAD: Final[dict[str, Any]] = {"chunks": None, "create_default_indexes": False}
"""How xarray opens a file without reading its labels, which may be damaged."""
_MOST_HELD: Final = 64 * 2**20
"""Bytes of a variable per event that is read on opening; a larger one stays lazy."""
_MOST_DECLARED: Final = 256 * 2**20
_MOST_RATIO: Final = 1000
"""A variable that declares more than this many times what is stored, and more bytes than above, is not read."""
_MOST_CHUNKS: Final = 5_000_000
_MISTAKES: Final = {
    "conflicting sizes": (
        "one length of each dim in a group",
        "write what has another length again, or name its dim otherwise",
    ),
    "dimension_names": (
        "names of dims for each array",
        'write them: group.create_array(..., dimension_names=("event", "segment", "row", "column"))',
    ),
}
"""Of those who write a store by hand: words of what a library says, and what to do."""
_SHOWN: Final = 8


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


def not_opened(path: Path, error: Exception, labels: Callable[[], Iterable[StoredArray]]) -> FileFormatError:
    """Say why a library stumbled over a run: the labels that cannot be read, or else what the library says."""
    why = f"{type(error).__name__}: {error}"
    try:
        bad = [f"{a.chunk_name(place)}: {said}" for a in labels() for place, said in a.damaged_chunks().items()]
    except Exception:  # the descriptions are damaged too: the first error says what can be said
        bad = []
    expected, fix = next((told for word, told in _MISTAKES.items() if word in why), (None, None))
    return FileFormatError(
        f"{path}: cannot be read",
        found=bad[0] if bad else why,
        expected="labels that can be read" if bad else expected,
        fix=fix if fix and not bad else "copy it again from where it was written",
    )


class StoredGroups(ABC):
    """The groups of a stored run, as its format gives them."""

    path: Path
    nodes: Mapping[str, xr.Dataset]
    """Groups by path, their variables not read yet."""

    @abstractmethod
    def array(self, name: str, x: xr.Variable) -> StoredArray:
        """Give the array of a variable, by its path in the file, to be read by slices."""

    @abstractmethod
    def stored_events(self, x: xr.Variable) -> int:
        """Events of a chunk of the file."""

    @abstractmethod
    def stored_bytes(self, array: StoredArray) -> int:
        """Bytes that an array takes in the file."""


@dataclass
class _Lost:
    """What turned out to be lost while a run is opened."""

    missing: list[str] = field(default_factory=list)
    damaged: list[str] = field(default_factory=list)

    def attrs(self, before: Mapping[Any, Any]) -> dict[str, Any]:
        """Counts for the root, added to what the run had lost before it was stored."""
        out: dict[str, Any] = {}
        for name, found in ((v.MISSING_CHUNKS, self.missing), (v.DAMAGED_CHUNKS, self.damaged)):
            if found or name in before:
                out[name] = int(before.get(name, 0)) + len(found)
        told = [str(before[v.UNREADABLE])] if before.get(v.UNREADABLE) else []
        told += [*self.missing, *self.damaged][:_SHOWN]
        return out | ({v.UNREADABLE: "\n".join(told)} if told else {})


def stored_tree(groups: StoredGroups, chunks: int | str | None, *, verify: bool) -> xr.DataTree:
    """Hold what is small, keep frames lazy, and say what is lost."""
    lost = _Lost()
    result = {}
    for group, node in groups.nodes.items():
        _check_labels_fit(groups.path, group, node)
        node = checked_group(groups.path, group, node)
        made = _plain_labels(_with_positions(_Node(groups, group, node, lost).dataset(chunks, verify=verify)))
        result[group] = lazy_lists(made, f"{groups.path}, {group}")
    result["/"] = result["/"].assign_attrs(lost.attrs(result["/"].attrs))
    try:
        return xr.DataTree.from_dict(result)
    except ValueError as error:  # sizes or labels of groups that contradict each other
        raise FileFormatError(f"{groups.path}: the groups of this run do not fit together", found=error) from error


def _plain_labels(node: xr.Dataset) -> xr.Dataset:
    """Label pixels, and give presence its type, where a file of somebody else's hand has neither."""
    if v.RAW not in node or node[v.RAW].dims != v.FRAME_DIMS:
        return node
    node = node.assign_coords({d: np.arange(node.sizes[d]) for d in v.PIXEL_DIMS if d not in node.coords})
    present = node.coords.get(v.PRESENT)
    return node if present is None or present.dtype == bool else node.assign_coords({v.PRESENT: present.astype(bool)})


def _check_labels_fit(path: Path, group: str, node: xr.Dataset) -> None:
    """Refuse a detector that labels frames it does not have."""
    of_segments = [x for x in node.data_vars.values() if x.dims[:2] == (v.EVENT, v.SEGMENT)]
    without_pixels = v.ROW not in node.sizes and of_segments  # waveforms and the like: no pixels
    if without_pixels or any(map(is_frames, node.data_vars.values())):
        return
    if v.EVENT in node.sizes and v.SEGMENT in node.sizes:
        raise FileFormatError(
            f"{path}: the frames of the detector {group.strip('/')!r} are not there",
            found=f"variables {', '.join(map(str, node.variables))}",
            expected="frames (event, segment, row, column)",
            fix="copy the file again from where it was written",
        )


def whole_dataset(groups: StoredGroups, group: str = "/") -> xr.Dataset:
    """Open a group, large arrays lazy; nothing of it may be missing, nor declare what is not stored."""
    node = groups.nodes[group]
    made: dict[str, xr.Variable] = {}
    for name, x in node.variables.items():
        array = groups.array(f"{group.rstrip('/')}/{name}", x)
        check_stored(groups, array)
        is_large = x.ndim >= 3 or x.nbytes > _MOST_HELD
        if is_large and x.size and array.dtype == x.dtype and x.dtype.kind in "biuf":
            data = da.from_array(
                array, array.chunks, name=f"stored-{name}-{tokenize(array)}", meta=np.empty((0,) * x.ndim, array.dtype)
            )
            made[str(name)] = xr.Variable(x.dims, data, x.attrs, mark_of(x))
        else:
            made[str(name)] = _loaded(x)
    coords = {str(name): made.pop(str(name)) for name in node.coords}
    return xr.Dataset(made, coords, {k: a for k, a in node.attrs.items() if k != v.CHECKSUM})


def check_stored(groups: StoredGroups, array: StoredArray) -> None:
    """Refuse an array of which parts are not in the file, or which declares far more than is stored."""
    declared, stored = math.prod(array.shape) * array.dtype.itemsize, groups.stored_bytes(array)
    if math.prod(array.grid()) > _MOST_CHUNKS or declared > max(_MOST_DECLARED, _MOST_RATIO * stored):
        found = f"{array.name} declares {declared} bytes, of which {stored} are stored"
    else:
        missing = array.missing_chunks()
        if not missing:
            return
        more = f", and {len(missing) - 1} more" if len(missing) > 1 else ""
        found = f"{array.chunk_name(missing[0])} is not there{more}"
    raise FileFormatError(
        f"{groups.path}: cannot be read",
        found=found,
        expected="all of it",
        fix="copy it again from where it was written",
    )


class _Node:
    """One group on its way to a dataset."""

    def __init__(self, groups: StoredGroups, group: str, node: xr.Dataset, lost: _Lost) -> None:
        self.groups, self.node, self.lost = groups, node, lost
        self.group = group.rstrip("/")
        self.left_out = [str(node.attrs[v.LEFT_OUT])] if v.LEFT_OUT in node.attrs else []
        self.gone: list[tuple[npt.NDArray[np.bool_], bool]] = []  # (event, segment) or (event,), whether damaged

    def dataset(self, chunks: int | str | None, *, verify: bool) -> xr.Dataset:
        """Make it."""
        coords: dict[str, xr.Variable] = {}
        parts: dict[str, xr.Variable] = {}
        for name, x in self.node.variables.items():
            array = self.groups.array(f"{self.group}/{name}", x)
            if math.prod(array.grid()) > _MOST_CHUNKS:
                raise self._error(f"{name} declares {math.prod(array.grid())} chunks", "chunks of about 8 MiB")
            if _stays_lazy(x):
                made: xr.Variable | None = self._lazy(str(name), x, array, chunks, verify=verify)
            else:
                made = self._held(str(name), x, array)
            if made is not None:
                (coords if name in self.node.coords else parts)[str(name)] = made
        attrs = {k: a for k, a in self.node.attrs.items() if k not in (v.LAYOUT, v.LEFT_OUT, v.CHECKSUM)}
        if self.left_out:
            attrs[v.LEFT_OUT] = "; ".join(self.left_out)
        dataset = xr.Dataset(parts, coords, attrs)
        return dataset.assign_coords(self._flags(dataset)) if self.gone else dataset

    # ---- frames -----------------------------------------------------------------------------------------------------

    def _lazy(
        self, name: str, x: xr.Variable, array: StoredArray, chunks: int | str | None, *, verify: bool
    ) -> xr.Variable:
        kind = DETECTOR_TYPES.get(str(x.attrs.get(v.DETECTOR_TYPE)).lower())
        if name == v.RAW and kind is not None and kind.decoding is Decoding.CODE and array.dtype.kind not in "iu":
            raise self._error(f"raw words of {kind.name} as {array.dtype}", "integers, whose bits hold the gain")
        missing = frozenset(array.missing_chunks())
        array.lost = missing
        self.lost.missing += [f"{array.chunk_name(place)}: it is not there" for place in sorted(missing)]
        damaged = array.damaged_chunks() if verify else {}
        array.lost |= frozenset(damaged)
        self.lost.damaged += [f"{array.chunk_name(place)}: {why}" for place, why in damaged.items()]
        for places, is_damage in ((missing, False), (damaged, True)):
            if places:
                self.gone.append((_events_in_chunks(array, places, by_segment=x.dims[1:2] == (v.SEGMENT,)), is_damage))
        n = events_per_chunk(event_bytes(x), chunks, self.groups.stored_events(x))
        meta = np.empty((0,) * x.ndim, array.dtype)
        data = da.from_array(array, (n, *x.shape[1:]), name=f"stored-{name}-{tokenize(array, n)}", meta=meta)
        return xr.Variable(x.dims, data, x.attrs, mark_of(x))

    def _flags(self, dataset: xr.Dataset) -> dict[str, xr.Variable]:
        """``present`` and ``damage`` with what is lost."""
        dims = (v.EVENT, v.SEGMENT)
        shape = tuple(dataset.sizes.get(dim, 1) for dim in dims)
        present, damage = np.ones(shape, bool), np.zeros(shape, np.uint16)
        if v.PRESENT in dataset.coords:
            present &= dataset[v.PRESENT].transpose(*dims).values.astype(bool)  # those of h5py come as numbers
        if v.DAMAGE in dataset.coords:
            damage = damage | dataset[v.DAMAGE].transpose(*dims).values
        for mask, is_damage in self.gone:
            mask = mask if mask.ndim == 2 else mask[:, None]
            present &= ~mask
            if is_damage:
                damage = np.where(mask, damage | damage.dtype.type(Damage.CORRUPTED), damage)
        if v.SEGMENT not in dataset.sizes:
            return {}
        return {v.PRESENT: xr.Variable(dims, present), v.DAMAGE: xr.Variable(dims, damage)}

    # ---- what is small ----------------------------------------------------------------------------------------------

    def _held(self, name: str, x: xr.Variable, array: StoredArray) -> xr.Variable | None:
        """Read a variable; where that is not possible say so in its place, or refuse the run."""
        stored = self.groups.stored_bytes(array)
        missing = array.missing_chunks()
        if not missing and x.nbytes > max(_MOST_DECLARED, _MOST_RATIO * stored):
            self._leave_out(name, f"declares {x.nbytes} bytes, of which {stored} are stored")
            return None
        if not missing:
            try:
                return _loaded(x)
            except XsmallError:
                raise
            except Exception as error:  # of whatever library decodes it
                why = f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}"
                bad = array.damaged_chunks() or dict.fromkeys(array.places(), why)
        else:
            bad = dict.fromkeys(missing, "it is not there")
        told = [f"{array.chunk_name(place)}: {why}" for place, why in bad.items()]
        filled = self._filled(name, x, array, frozenset(bad))
        if filled is None and self._is_label(name, x):
            raise self._error(f"{told[0]}; without {name} events or pixels have no labels", "every chunk of it")
        (self.lost.missing if missing else self.lost.damaged).extend(told)
        if filled is None:
            self._leave_out(name, told[0])
        return filled

    def _filled(self, name: str, x: xr.Variable, array: StoredArray, bad: frozenset[ChunkNumber]) -> xr.Variable | None:
        """Give what can be read, and what stands for nothing where it cannot; None where there is no such thing."""
        if x.dims[:1] != (v.EVENT,) or x.nbytes > _MOST_DECLARED:
            return None
        array.lost = bad | frozenset(array.damaged_chunks())
        if name in (v.PRESENT, v.DAMAGE) and x.dtype.kind in "biu":
            values = array[...] if array.ndim == 0 else array[(slice(None),) * array.ndim]
            mask = np.zeros(array.shape, bool)
            for place in array.lost:
                mask[array.part(place)] = True
            fill = x.dtype.type(0 if name == v.PRESENT else Damage.CORRUPTED)
            return xr.Variable(x.dims, np.where(mask, fill, values.astype(x.dtype)), x.attrs)
        if x.dtype.kind != "f" or array.dtype != x.dtype or name in x.dims:
            return None
        return xr.Variable(x.dims, array[(slice(None),) * array.ndim], x.attrs, mark_of(x))

    def _is_label(self, name: str, x: xr.Variable) -> bool:
        return name in self.node.coords and (name in x.dims or x.dims != (v.EVENT,))

    def _leave_out(self, name: str, why: str) -> None:
        """Leave a variable out, and say so; labels cannot be left out."""
        if self._is_label(name, self.node.variables[name]):
            raise self._error(f"{name} {why}", "labels that are stored")
        self.left_out.append(f"{name}: {why}")

    def _error(self, found: str, expected: str) -> FileFormatError:
        return FileFormatError(
            f"{self.groups.path}: the group {self.group or '/'} cannot be read",
            found=found,
            expected=expected,
            fix="copy the file again from where it was written",
        )


def _stays_lazy(x: xr.Variable) -> bool:
    of_events = x.dims[:1] == (v.EVENT,) and x.size > 0 and x.dtype.kind in "biuf"
    return of_events and (is_frames(x) or (x.ndim > 1 and x.nbytes > _MOST_HELD))


def _events_in_chunks(array: StoredArray, places: Iterable[ChunkNumber], *, by_segment: bool) -> npt.NDArray[np.bool_]:
    """Which events lie in some chunks, (event, segment) or (event,)."""
    axes = 2 if by_segment else 1
    mask: npt.NDArray[np.bool_] = np.zeros(array.shape[:axes], bool)
    for place in places:
        mask[array.part(place)[:axes]] = True
    return mask


def _loaded(x: xr.Variable) -> xr.Variable:
    held = x.load()
    data = held.values.astype(np.str_) if held.dtype.kind in "OT" else native(held.values)
    return xr.Variable(x.dims, data, x.attrs, mark_of(x))


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
