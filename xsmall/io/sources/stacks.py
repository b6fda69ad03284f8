"""Frames in HDF5 files of anybody: plain stacks, CXI, NXmx and the masters of Eiger detectors.

A file says where its frames are, or the user names the dataset. Links to other files are followed, and files that are
not there are named. What a file says of beam, pixels and geometry is read by :mod:`xsmall.io.sources.nexus`.
"""

import os
from collections.abc import Sequence
from difflib import get_close_matches
from pathlib import Path
from typing import Any, Final, NamedTuple

import dask.array as da
import h5py
import numpy as np
import numpy.typing as npt
import xarray as xr
from dask.base import tokenize

from xsmall import vocabulary as v
from xsmall.detector.types import detector_type as known_type
from xsmall.errors import FileFormatError, ParameterError, XsmallError, alike
from xsmall.frames.beam import assign_beam
from xsmall.frames.pixels import assign_geometry
from xsmall.io.files import identify, names_its_file
from xsmall.io.hdf5 import check_filters, missing_sources, open_hdf5, stacks_in
from xsmall.io.sources.chunks import events_per_chunk
from xsmall.io.sources.hdf5_array import Hdf5Array
from xsmall.io.sources.images import images_as_frames
from xsmall.io.sources.nexus import About, about, together
from xsmall.io.sources.source import RunSource, RunSpec, call_for, find_source

__all__ = ["StackRun", "open_frames"]

_KNOWN: Final = ("/entry_1/data_1/data", "/entry_1/instrument_1/detector_1/data", "/entry/data/data")
_ENDINGS: Final = (".h5", ".hdf5", ".cxi", ".nxs", ".hdf", ".nx")
_IMAGES: Final = (".cbf", ".edf", ".tif", ".tiff")
_UNITS: Final = (v.ADU, "keV", "eV", v.PHOTON)
_NUMBERED: Final = "data_"  # data_000001, data_000002 ... of an Eiger master
_SHOWN: Final = 8
_DIMS: Final = {2: v.FRAME_DIMS[2:], 3: (v.EVENT, *v.FRAME_DIMS[2:]), 4: v.FRAME_DIMS}


@names_its_file
def open_frames(
    path: str | os.PathLike[str] | Sequence[str | os.PathLike[str]],
    *,
    dataset: str | None = None,
    dims: Sequence[str] | None = None,
    detector_type: str | None = None,
    units: str | None = None,
    chunks: int | str | None = None,
) -> xr.DataArray:
    """Open frames of any HDF5 file (a stack, CXI, NXmx, the master of an Eiger), or single images, lazily.

    Parameters
    ----------
    path
        The file; a pattern or a list of files gives their frames behind each other. Files that are no HDF5 are read as
        images by fabio (CBF, EDF, TIFF ...).
    dataset
        Where in the file the frames are. May be left out where the file follows a known layout
        (``/entry_1/data_1/data``, ``/entry/data/data``, ``/entry/data/data_000001`` ...) or has one stack only.
    dims
        Names of the dataset's dims in their order, of ``event``, ``segment``, ``row``, ``column``. Default: (row,
        column), (event, row, column) or (event, segment, row, column), by their number.
    detector_type
        Which detector it is, if its raw words are to be calibrated, such as ``"jungfrau"``.
    units
        Unit of the values, such as ``"ADU"`` or ``"keV"``. Default: what the dataset says, if it does.
    chunks
        Events of one chunk, or its bytes as text (``"100 MB"``). Default: about 64 MiB.

    Returns
    -------
    DataArray ``raw`` (event, segment, row, column) in the type of the file. ``event`` is the time of each event where
    the file has one, else its number. ``present`` (event, segment) is False where frames, or parts of them, were never
    written or are in a file that is not there. What the file says goes along: geometry and beam are assigned;
    ``usable`` (segment, row, column) is its mask, True where a pixel may be used, to be handed to what takes ``mask=``.
    ``attrs["left_out"]`` names what could not be used and why.

    Raises
    ------
    FileFormatError
        No such file or dataset, no frames or several stacks in it, or a linked file that is not there.
    ParameterError
        Invalid ``dims``, or an unknown detector type.
    MissingDependency
        The data are compressed with a filter that is not installed, which is named; or images, and no fabio.

    Notes
    -----
    Reads headers, the mask and numbers per event, no frames; of images the first one, and headers. TIFF that is
    compressed is read by Pillow. Sources: NXmx application definition of NeXus, and
    Maia, "The Coherent X-ray Imaging Data Bank", Nature Methods 9, 854 (2012) for CXI.

    Examples
    --------
    >>> import h5py, numpy as np, pathlib, tempfile, xsmall as xs
    >>> path = pathlib.Path(tempfile.mkdtemp()) / "stack.h5"
    >>> with h5py.File(path, "w") as file:
    ...     file["images"] = np.zeros((5, 16, 32), "u2")
    >>> xs.open_frames(path).shape
    (5, 1, 16, 32)
    """
    kind = None if detector_type is None else known_type(detector_type).name
    spec = RunSpec.of(path)
    if not spec.paths:
        raise FileFormatError(f"{spec.given}: no file", expected="the path of an HDF5 file")
    for one in spec.paths:
        _refuse_runs(one)
    if spec.paths and not any(h5py.is_hdf5(one) or one.suffix in _ENDINGS for one in spec.paths):
        pieces = [_images(spec.paths, dataset, dims, chunks)]
    else:
        pieces = [piece for one in spec.paths for piece in _pieces_of_file(one, dataset, dims, chunks)]
    _refuse_twice(spec.paths, pieces)
    forms = {f"{piece.data.dtype} {piece.data.shape[1:]}": piece.path for piece in pieces}
    if len(forms) > 1:
        raise FileFormatError(
            f"{spec.given}: the frames differ",
            found="; ".join(f"{form} in {path}" for form, path in forms.items()),
            expected="frames of one type and shape",
        )
    _check_units(units)
    data = da.concatenate([piece.data for piece in pieces]) if len(pieces) > 1 else pieces[0].data
    found = together([piece.found for piece in pieces], [len(piece.data) for piece in pieces])
    coords: dict[str, Any] = {v.EVENT: np.arange(data.shape[0]) if found.labels is None else found.labels}
    coords |= {dim: found.pixels.get(dim, np.arange(n)) for dim, n in zip(v.PIXEL_DIMS, data.shape[1:], strict=True)}
    coords[v.PRESENT] = ((v.EVENT, v.SEGMENT), np.concatenate([piece.present for piece in pieces]))
    frames = _told_of_file(xr.DataArray(data, coords, v.FRAME_DIMS, v.RAW), found)
    said = {piece.units for piece in pieces}
    given = {
        v.SOURCE: "; ".join(map(str, spec.paths)),
        v.DETECTOR_TYPE: kind,
        v.UNITS: units or (said.pop() if len(said) == 1 else None),
    }
    return frames.assign_attrs({name: value for name, value in given.items() if value is not None})


def _refuse_runs(path: Path) -> None:
    """Refuse runs and folders: they know more of their events than frames alone would say."""
    source = find_source(RunSpec(str(path), (path,)))
    if path.is_dir() or not (source is None or isinstance(source, StackRun)):
        raise FileFormatError(
            f"{path}: no file of frames",
            found="a folder" if source is None else source.title,
            expected="an HDF5 file with a stack of frames, or images",
            fix=call_for(path) if source is not None else f"xs.open_frames({str(_all_frames_in(path))!r})",
        )


def _all_frames_in(folder: Path) -> Path:
    """The master of other files of a folder, or a pattern for all of them."""
    masters = [path for path in sorted(folder.glob("*master*")) if path.suffix in _ENDINGS]
    return masters[0] if masters else folder / "*.h5"


def _refuse_twice(paths: Sequence[Path], pieces: "Sequence[_PartOfStack]") -> None:
    """Refuse files whose frames another one of them brings, such as those of a master."""
    named = list(dict.fromkeys(path.resolve() for path in paths))
    brought = {path: frozenset[Path]().union(*(p.files for p in pieces if p.path.resolve() == path)) for path in named}
    twice = {path: [other for other in named if other != path and path in brought[other]] for path in named}
    if not any(twice.values()):
        return
    kept = [str(path) for path, others in twice.items() if not others]
    found = [f"{others[0].name} brings those of {path.name}" for path, others in twice.items() if others]
    raise FileFormatError(
        "frames would be there twice",
        found="; ".join(found[:_SHOWN]),
        expected="each frame once",
        fix=f"xs.open_frames({(kept[0] if len(kept) == 1 else kept)!r})",
    )


def _check_units(units: str | None) -> None:
    """Refuse a unit that is misspelt: one that nobody knows would be taken for a unit of its own."""
    known = {one.lower(): one for one in _UNITS}
    near = [] if units is None or units in _UNITS else get_close_matches(units.lower(), known, n=1, cutoff=0.75)
    if near:
        fix = f"units={known[near[0]]!r}"
        raise ParameterError("unknown unit", found=repr(units), expected=", ".join(_UNITS), fix=fix)


class StackRun(RunSource):
    """Files of frames in a known layout, or images, as a run of one detector."""

    name = "stack"
    title = "frames in HDF5 (CXI, NXmx, Eiger), or images (CBF, EDF, TIFF)"

    def recognises(self, spec: RunSpec) -> bool:
        """Go by the groups that CXI and NXmx have, and by the endings of images."""
        return bool(spec.paths) and (_are_images(spec) or all(map(_is_known_layout, spec.paths)))

    def heading(self, spec: RunSpec) -> str:
        """Say which of the two it is."""
        return "images" if _are_images(spec) else "frames in HDF5 (CXI, NXmx, Eiger)"

    def open(
        self,
        spec: RunSpec,
        *,
        chunks: int | str | None,
        dataset: str | None = None,
        dims: Sequence[str] | None = None,
        detector_type: str | None = None,
        units: str | None = None,
    ) -> xr.DataTree:
        """Open the frames as the detector ``detector``; see :func:`open_frames`."""
        raw = open_frames(
            spec.paths, dataset=dataset, dims=dims, detector_type=detector_type, units=units, chunks=chunks
        )
        events = xr.Dataset(coords={v.EVENT: raw[v.EVENT]})
        return xr.DataTree.from_dict({"/": xr.Dataset(), f"/{v.EVENTS_NODE}": events, "/detector": raw.to_dataset()})


def _are_images(spec: RunSpec) -> bool:
    return bool(spec.paths) and all(path.is_file() and path.suffix.lower() in _IMAGES for path in spec.paths)


def _is_known_layout(path: Path) -> bool:
    """Whether a file has its frames where CXI or NXmx have them."""
    if not path.is_file() or not h5py.is_hdf5(path):
        return False
    try:
        with open_hdf5(path) as file:
            return any(_is_link_or_dataset(file, name) for name in (*_KNOWN, f"/entry/data/{_NUMBERED}000001"))
    except FileFormatError:
        return False


class _PartOfStack(NamedTuple):
    """The frames of one dataset, and what its file says of them."""

    path: Path
    data: da.Array
    present: npt.NDArray[np.bool_]
    found: About
    units: str | None
    files: frozenset[Path] = frozenset()
    """Where its frames lie, links followed."""


def _images(
    paths: tuple[Path, ...], dataset: str | None, dims: Sequence[str] | None, chunks: int | str | None
) -> _PartOfStack:
    for name, value in (("dataset", dataset), ("dims", dims)):
        if value is not None:
            raise ParameterError(
                f"{paths[0]}: images have no {name}", found=f"{name}={value!r}", fix=f"leave {name}= out"
            )
    data = images_as_frames(paths, chunks)
    return _PartOfStack(paths[0], data, np.ones(data.shape[:2], bool), About(), None)


def _pieces_of_file(
    path: Path, dataset: str | None, dims: Sequence[str] | None, chunks: int | str | None
) -> list[_PartOfStack]:
    pieces = []
    with open_hdf5(path) as file:
        for name in _stacks(file, path, dataset):
            item = _followed(file, path, name)
            data, present = _lazy(item, path, dims, chunks)
            unit = item.attrs.get(v.UNITS)
            unit = unit.decode() if isinstance(unit, bytes) else unit
            unit = unit if isinstance(unit, str) else None
            pieces.append(_PartOfStack(path, data, present, About(), unit, _files_of(item)))
        if pieces:  # an Eiger master describes all its files at once
            shape = (sum(len(piece.data) for piece in pieces), *pieces[0].data.shape[1:])
            found = about(file, path, _stacks(file, path, dataset)[0], shape)
            others = [] if dataset is not None else _other_stacks(file, _stacks(file, path, dataset))
            if others:
                found.left_out.append(f"other frames, dataset= opens them: {', '.join(others[:_SHOWN])}")
            start = 0
            for k, piece in enumerate(pieces):
                stop = start + len(piece.data)
                there = piece.present if found.present is None else piece.present & found.present[start:stop]
                pieces[k] = piece._replace(found=found.cut(slice(start, stop), shape[0]), present=there)
                start = stop
    return pieces


def _files_of(item: Any) -> frozenset[Path]:
    """The files that hold the frames of a dataset."""
    own = Path(item.file.filename).resolve()
    names = {source.file_name for source in item.virtual_sources()} - {"."} if item.is_virtual else set()
    return frozenset({own, *((own.parent / name).resolve() for name in names)})


def _told_of_file(frames: xr.DataArray, found: About) -> xr.DataArray:
    """Let frames carry what the file says."""
    if found.usable is not None:
        frames = frames.assign_coords({v.USABLE: (v.PIXEL_DIMS, found.usable)})
    if found.geometry is not None:
        frames = assign_geometry(frames, found.geometry)
    try:
        frames = frames if found.photon_energy is None else assign_beam(frames, photon_energy=found.photon_energy)
        frames = frames if found.distance is None else assign_beam(frames, distance=found.distance)
        placed = dict(found.placed)
        center = [placed.pop(name) for name in (v.CENTER_X, v.CENTER_Y) if name in placed]
        if len(center) == 2:
            frames = assign_beam(frames, center=(center[0], center[1]), **placed)
        elif placed:
            frames = assign_beam(frames, **placed)
    except XsmallError as error:  # a number that is none, such as one of another unit
        found.left_out.append(f"beam: {'; '.join(str(error).split(chr(10)))}")
    # NaN, not 0: what needs a centre or tilt then says that it is not known
    frames = frames.assign_coords({name: ((), np.nan, {v.UNITS: v.UNITS_OF[name]}) for name in found.lost})
    return frames.assign_attrs({v.LEFT_OUT: "; ".join(found.left_out)}) if found.left_out else frames


# ---- where the frames are -------------------------------------------------------------------------------------------


def _stacks(file: Any, path: Path, dataset: str | None) -> list[str]:
    """Names of the datasets that hold the frames, in their order."""
    if dataset is not None:
        if file.get(dataset, getlink=True) is None:
            known = list(dict.fromkeys([*_numbered_stacks(file), *stacks_in(file)]))
            near = alike(dataset, known)
            raise FileFormatError(
                f"{path}: no dataset {dataset!r}",
                expected=", ".join(known[:_SHOWN]) or "there is no stack in it",
                fix=f"dataset={(near or known)[0]!r}" if known else f"`xsmall info {path.name}`",
            )
        return [dataset]
    for name in _KNOWN:
        if _is_link_or_dataset(file, name):
            return [name]
    numbered = _numbered_stacks(file)
    if numbered:
        return numbered
    found = stacks_in(file)
    if len(found) == 1:
        return found
    raise FileFormatError(
        f"{path}: {'which of these are the frames?' if found else 'there are no frames in this file'}",
        found=", ".join(found[:_SHOWN]) or "no numbers of three or four dims",
        expected="one stack of frames",
        fix=f"xs.open_frames({str(path)!r}, dataset={found[0]!r})" if found else f"`xsmall info {path.name}`",
    )


def _other_stacks(file: Any, chosen: Sequence[str]) -> list[str]:
    """Stacks beside those that are taken, such as those of a second detector."""
    taken = [file[name] for name in chosen]
    return [name for name in stacks_in(file) if name.endswith("/data") and file[name] not in taken]


def _numbered_stacks(file: Any) -> list[str]:
    """Datasets of an Eiger master, which are links to other files."""
    group = file.get("/entry/data")
    names = sorted(n for n in group if n.startswith(_NUMBERED)) if isinstance(group, h5py.Group) else []
    return [f"/entry/data/{name}" for name in names]


def _is_link_or_dataset(file: Any, name: str) -> bool:
    try:
        link = file.get(name, getlink=True)
    except KeyError:
        return False
    return isinstance(link, h5py.ExternalLink) or (link is not None and isinstance(file.get(name), h5py.Dataset))


def _followed(file: Any, path: Path, name: str) -> Any:
    """The dataset behind a name, in whatever file; a file that is not there is named."""
    try:
        item = file[name]
    except (KeyError, OSError) as error:
        link = file.get(name, getlink=True)
        where = f"{path.parent / link.filename}" if isinstance(link, h5py.ExternalLink) else str(path)
        raise FileFormatError(
            f"{path}: {name} cannot be opened",
            found=f"{where}: {error}",
            expected="the files that this one refers to, where they were",
            fix=f"copy {Path(where).name} beside {path.name}",
        ) from error
    if not isinstance(item, h5py.Dataset) or item.ndim not in _DIMS or item.dtype.kind not in "iuf":
        raise FileFormatError(f"{path}: {name} has no frames", found=repr(item), expected="numbers of 2, 3 or 4 dims")
    return item


# ---- as arrays ------------------------------------------------------------------------------------------------------


def _lazy(
    item: Any, path: Path, dims: Sequence[str] | None, chunks: int | str | None
) -> tuple[da.Array, npt.NDArray[np.bool_]]:
    """The frames of a dataset as (event, segment, row, column), and which segments of events are there."""
    check_filters(item, path)
    order = _checked_dims(dims, item, path)
    array = Hdf5Array(identify(item.file.filename), item.name, item.shape, item.dtype, item.chunks)
    there = _there(item, array, order)
    sizes = dict(zip(order, item.shape, strict=True))
    per_event = array.dtype.itemsize * int(np.prod([n for d, n in sizes.items() if d != v.EVENT], dtype=np.int64))
    stored = dict(zip(order, array.chunks, strict=True)).get(v.EVENT, 1) if item.chunks else 1
    n = events_per_chunk(per_event, chunks, stored)
    cut = tuple(min(n, size) if d == v.EVENT else size for d, size in sizes.items())
    name = f"stack-{tokenize(array, cut)}"
    data = da.from_array(array, cut, name=name, meta=np.empty((0,) * array.ndim, array.dtype))
    lacking = [d for d in v.FRAME_DIMS if d not in order]
    whole = data[(None,) * len(lacking)] if lacking else data
    axes = [*lacking, *order]
    turned = [axes.index(d) for d in v.FRAME_DIMS]
    return (whole if turned == [0, 1, 2, 3] else whole.transpose(turned)), there


def _there(item: Any, array: Hdf5Array, order: tuple[str, ...]) -> npt.NDArray[np.bool_]:
    """Which segments of events (event, segment) are in the file as a whole."""
    sizes = dict(zip(order, item.shape, strict=True))
    mask = np.ones((sizes.get(v.EVENT, 1), sizes.get(v.SEGMENT, 1)), bool)

    def rule_out(part: Sequence[slice]) -> None:
        at = dict(zip(order, part, strict=True))
        mask[at.get(v.EVENT, slice(None)), at.get(v.SEGMENT, slice(None))] = False

    if item.is_virtual:
        gone = array.lost_sources = frozenset(missing_sources(item))
        for source in item.virtual_sources():
            if source.file_name in gone:
                low, high = source.vspace.get_select_bounds()
                rule_out([slice(a, b + 1) for a, b in zip(low, high, strict=True)])
        return mask
    missing = array.missing_chunks()
    array.lost = frozenset(missing)
    for place in missing:
        rule_out(array.part(place))
    return mask


def _checked_dims(dims: Sequence[str] | None, item: Any, path: Path) -> tuple[str, ...]:
    if dims is None:
        return tuple(_DIMS[item.ndim])
    order = tuple(dims)
    right = len(order) == item.ndim == len(set(order)) and {v.ROW, v.COLUMN} <= set(order) <= set(v.FRAME_DIMS)
    if not right:
        raise ParameterError(
            f"{path}: these are not the dims of {item.name}",
            found=f"dims={order} for the shape {item.shape}",
            expected=f"a name for each, of {v.FRAME_DIMS}, with row and column",
            fix=f"dims={_DIMS[item.ndim]}",
        )
    return order
