"""Runs of the European XFEL, found with extra_data and read here: modules by trains and pulses.

extra_data says which file holds which train of which module; frames are read by slices with what is not there told in
``present``, since a module that misses a train is no module of zeros.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any, ClassVar, Final

import dask.array as da
import numpy as np
import numpy.typing as npt
import xarray as xr
from dask.base import tokenize

from xsmall import vocabulary as v
from xsmall.errors import DataError, MissingDependency, ParameterError
from xsmall.io.files import Identity, identify
from xsmall.io.sources.chunks import events_per_chunk
from xsmall.io.sources.euxfel_variables import left_out, train_variables
from xsmall.io.sources.hdf5_array import Hdf5Array, open_dataset
from xsmall.io.sources.source import RunSource, RunSpec

__all__ = ["EuxfelRun"]

_FILES: Final = "*-S[0-9][0-9][0-9][0-9][0-9].h5"
_TYPES: Final = {"AGIPD": "agipd", "LPD": "lpd", "DSSC": "dssc", "JUNGFRAU": "jungfrau_euxfel"}
_PIXELS: Final = "data.image.pixels"
_WITHOUT_SENSOR: Final = 2
"""Rows of ePix100 at both ends of a frame of 708 rows that calibrate the electronics."""
_GAINS: Final = 3
_PULSES: Final = 16
"""Bits of a label below the train: the pulse; the highest is set where frames go by memory cell."""
_BY_CELL: Final = 1 << (_PULSES - 1)


class EuxfelRun(RunSource):
    """A folder of a run, raw or corrected."""

    name: ClassVar[str] = "euxfel"
    title: ClassVar[str] = "a run of the European XFEL"

    def recognises(self, spec: RunSpec) -> bool:
        """Go by the names of the files in the folder."""
        return spec.path is not None and spec.path.is_dir() and any(spec.path.glob(_FILES))

    def open(
        self,
        spec: RunSpec,
        *,
        chunks: int | str | None,
        detectors: Sequence[str] | None = None,
        variables: Mapping[str, Sequence[Any]] | None = None,
        parallel_gain: bool = False,
    ) -> xr.DataTree:
        """Open AGIPD, LPD, DSSC, JUNGFRAU and ePix100 detectors, or those of ``detectors``, a node each.

        The label ``event`` is a number made of train and pulse: all detectors that go by pulse share it. ``train_id``,
        ``pulse_id`` or ``memory_cell``, and ``time`` (of the train, UTC, NaT in old files) stand beside it.

        ``variables`` adds what is recorded once per train to the event variables: ``{"xgm_pulse_energy":
        ("SA1_XTD2_XGM/DOOCS/MAIN", "pulseEnergy.photonFlux")}``, or ``(source, key, index)``; NaN where a train has
        none. ``parallel_gain`` says that LPD was read in three gains, whose frames lie behind each other in a train:
        high gain is the detector itself, the others are the nodes ``<detector>_medium_gain`` and
        ``<detector>_low_gain`` over the same events. Of ePix100 the two first and two last rows, which have no sensor,
        are cut.
        """
        assert spec.path is not None
        path = str(spec.path)
        known = {d.name: d for d in _run_layout(path, self.identity(spec), parallel_gain)}
        run = _run_directory(path)
        chosen = list(known) if detectors is None else list(detectors)
        for name in chosen:
            if name not in known:
                raise ParameterError(
                    f"{path}: no such detector", found=repr(name), expected=", ".join(known) or "no detector at all"
                )
        nodes = {"/": xr.Dataset(attrs={v.SOURCE: path})}
        labels = np.unique(np.concatenate([known[n].labels for n in chosen])) if chosen else np.empty(0, np.int64)
        events = xr.Dataset(coords=_event_coords(path, self.identity(spec), labels))
        if variables:
            trains = labels >> _PULSES
            events = events.assign(train_variables(run, path, trains, variables))
        told = left_out(run, tuple(known), tuple(chosen), variables or {})
        events = events.assign_attrs({v.LEFT_OUT: told} if told else {})
        nodes[f"/{v.EVENTS_NODE}"] = events
        for name in chosen:
            nodes[f"/{name}"] = _detector_dataset(path, self.identity(spec), known[name], chunks, parallel_gain)
        return xr.DataTree.from_dict(nodes)

    def advice(self, spec: RunSpec) -> str | None:
        """Name the folder of a single file: a run is all of them."""
        path = spec.path
        if path is None or not path.is_file() or not path.match(_FILES):
            return None
        return f"xs.open_run({str(path.parent)!r})"

    def identity(self, spec: RunSpec) -> tuple[Identity, ...]:
        """Every file of the folder."""
        return tuple(identify(file) for path in spec.paths for file in sorted(path.glob(_FILES)))


# ---- what lies where ------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Stretch:
    """Frames of a module that lie behind each other in a file, and which of the module's frames they are."""

    file: Identity
    dataset: str
    first: int
    count: int
    start: int


@dataclass(eq=False)
class _Detector:
    """A detector of a run: its modules, events, and keys of frames."""

    name: str
    kind: str
    raw: bool
    segments: tuple[int, ...]
    labels: npt.NDArray[np.int64]
    rows: tuple[npt.NDArray[np.int64], ...]
    """For each module the number of its frame for each event; -1 where it has none."""
    cells: npt.NDArray[np.int64] | None
    by_cell: bool
    stretches: dict[str, tuple[tuple[_Stretch, ...], ...]]
    """For each key, the stretches of each module."""
    forms: dict[str, tuple[tuple[int, ...], np.dtype[Any]]]
    """For each key, shape and type of one frame."""


def _run_directory(path: str) -> Any:
    try:
        from extra_data import RunDirectory
    except ImportError:
        raise MissingDependency.of("extra_data", "extra", f"{path}: reading a run of the European XFEL") from None
    return RunDirectory(path)


@lru_cache(maxsize=8)
def _run_layout(path: str, identities: tuple[Identity, ...], parallel_gain: bool) -> tuple[_Detector, ...]:
    """Detectors of a run; each process looks once."""
    del identities  # another run at this path has other files
    run = _run_directory(path)
    from extra_data.components import identify_multimod_detectors

    found = []
    for name, cls in sorted(identify_multimod_detectors(run), key=lambda pair: str(pair[0])):
        detector = _describe_detector(run, str(name), cls, parallel_gain and cls.__name__.startswith("LPD"))
        if detector is None:
            continue
        found += _three_gains(run, detector, cls) if parallel_gain and cls.__name__.startswith("LPD") else [detector]
    if parallel_gain and not any(d.kind == "lpd" for d in found):
        raise ParameterError(f"{path}: no LPD, which alone is read in three gains", fix="leave parallel_gain= out")
    return (*found, *_epix100(run))


def _describe_detector(run: Any, name: str, cls: Any, parallel_gain: bool) -> _Detector | None:
    """Describe a detector; None where no module of it has a frame."""
    try:
        whole = _components(run, name, cls)
    except ValueError as error:  # the only one that it has: no train with a module
        if "No data found" not in str(error):
            raise
        return None
    by_module = sorted(whole.source_to_modno.items(), key=lambda pair: int(pair[1]))
    by_cell = cls.__name__ == "JUNGFRAU"
    main = "data.adc" if by_cell else "image.data"
    sources = [(source, number) for source, number in by_module if run[source, main]._data_chunks_nonempty]
    if not sources:
        return None
    keys = [k for k in _keys(by_cell) if all(k in run.keys_for_source(s) for s, _ in sources)]
    own = [_module_labels(run, source, main, by_cell=by_cell) for source, _ in sources]
    places = [np.arange(mine.size) for mine in own]
    if parallel_gain:  # labels are those of the first gain
        places = [_first_third(run, source, main) for source, _ in sources]
        own = [mine[first] for mine, first in zip(own, places, strict=True)]
    labels, rows = _rows_of(name, [source for source, _ in sources], own, places)
    per_row = _cells_per_train(run[sources[0][0], main]) if by_cell else 1
    return _Detector(
        name=name,
        kind=next((kind for word, kind in _TYPES.items() if cls.__name__.startswith(word)), cls.__name__.lower()),
        raw=_is_raw(run, sources[0][0], main, by_cell),
        segments=tuple(int(number) - (1 if by_cell else 0) for _, number in sources),
        labels=labels,
        rows=tuple(rows),
        cells=_memory_cells(run, sources, rows, by_cell),
        by_cell=by_cell,
        stretches={k: tuple(_stretches(run[s, k], per_row) for s, _ in sources) for k in keys},
        forms={k: (_frame_shape(run[sources[0][0], k], by_cell), run[sources[0][0], k].dtype) for k in keys},
    )


def _rows_of(
    name: str,
    sources: Sequence[str],
    own: Sequence[npt.NDArray[np.int64]],
    places: Sequence[npt.NDArray[np.int64]],
) -> tuple[npt.NDArray[np.int64], list[npt.NDArray[np.int64]]]:
    """Labels of all events, and for each module the number of its frame for each of them."""
    labels = np.unique(np.concatenate(own))
    rows = []
    for source, mine, place in zip(sources, own, places, strict=True):
        if np.unique(mine).size < mine.size:
            raise DataError(
                f"{name}: pulses are repeated within a train",
                found=f"{mine.size - np.unique(mine).size} frames of {source}",
                expected="each pulse once; of LPD with parallel gain the three gains lie behind each other",
                fix="xs.open_run(path, parallel_gain=True) for such a run of LPD",
            )
        at = np.full(labels.size, -1, np.int64)
        at[np.searchsorted(labels, mine)] = place
        rows.append(at)
    return labels, rows


def _trains(data: Any) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Trains that have frames, in the order of the files, and how many."""
    chunks = data._data_chunks_nonempty
    ids = np.concatenate([c.train_ids.astype(np.int64) for c in chunks])
    return ids, np.concatenate([c.counts.astype(np.int64) for c in chunks])


def _first_third(run: Any, source: str, main: str) -> npt.NDArray[np.int64]:
    """Numbers of the frames that were read in the first of three gains."""
    ids, counts = _trains(run[source, main])
    if (counts % _GAINS).any():
        odd = int(np.flatnonzero(counts % _GAINS)[0])
        raise DataError(
            f"{source}: these are no three gains",
            found=f"{counts[odd]} frames in train {ids[odd]}",
            expected="a multiple of 3",
            fix="leave parallel_gain= out",
        )
    starts = np.cumsum(counts) - counts
    within = np.arange(counts.sum()) - np.repeat(starts, counts)
    return np.flatnonzero(within < np.repeat(counts // _GAINS, counts))


def _three_gains(run: Any, first: _Detector, cls: Any) -> list[_Detector]:
    """Make of the first gain all three: the same events, whose frames lie thirds of a train further on."""
    main, found = "image.data", []
    modules = dict(sorted(_components(run, first.name, cls).source_to_modno.items(), key=lambda pair: int(pair[1])))
    sources = [s for s in modules if run[s, main]._data_chunks_nonempty]
    for k, name in enumerate(("", "_medium_gain", "_low_gain")):
        rows = []
        for source, at in zip(sources, first.rows, strict=True):
            _, counts = _trains(run[source, main])
            third = np.repeat(counts // _GAINS, counts)
            rows.append(np.where(at >= 0, at + k * third[np.maximum(at, 0)], -1))
        found.append(replace(first, name=first.name + name, rows=tuple(rows)))
    return found


def _epix100(run: Any) -> list[_Detector]:
    """Detectors of one module and one frame per train, known by the size of their frames."""
    found: list[_Detector] = []
    for source in sorted(run.instrument_sources):
        if _PIXELS not in run.keys_for_source(source):
            continue
        data = run[source, _PIXELS]
        if tuple(data.entry_shape) not in ((704, 768), (708, 768)) or not data._data_chunks_nonempty:
            continue
        own = _module_labels(run, source, _PIXELS, by_cell=True)
        labels, rows = _rows_of(source, [source], [own], [np.arange(own.size)])
        taken = {d.name for d in found}
        short = source.split("/")[0]
        found.append(
            _Detector(
                name=short if short not in taken else source.replace("/", "_"),
                kind="epix100",
                raw=data.dtype.kind in "iu",
                segments=(0,),
                labels=labels,
                rows=tuple(rows),
                cells=None,
                by_cell=True,
                stretches={_PIXELS: (_stretches(data, 1),)},
                forms={_PIXELS: (tuple(data.entry_shape), data.dtype)},
            )
        )
    return found


def _components(run: Any, name: str, cls: Any) -> Any:
    """The modules of a detector: corrected ones where the folder has them, else raw ones."""
    from extra_data import SourceNameError

    try:
        return cls(run, name, min_modules=1, raw=False)
    except SourceNameError:
        return cls(run, name, min_modules=1, raw=True)


def _keys(by_cell: bool) -> tuple[str, ...]:
    part = "data" if by_cell else "image"
    return (f"{part}.adc" if by_cell else f"{part}.data", f"{part}.gain", f"{part}.mask")


def _is_raw(run: Any, source: str, key: str, by_cell: bool) -> bool:
    data = run[source, key]
    return bool(data.dtype.kind in "iu") if by_cell else len(data.entry_shape) == 3


def _frame_shape(data: Any, by_cell: bool) -> tuple[int, ...]:
    return tuple(int(n) for n in (data.entry_shape[-2:] if by_cell else data.entry_shape))


def _cells_per_train(data: Any) -> int:
    return int(data.entry_shape[0]) if len(data.entry_shape) == 3 else 1


def _module_labels(run: Any, source: str, main: str, *, by_cell: bool) -> npt.NDArray[np.int64]:
    """The label of each frame of a module, in the order of its files; trains by the files' index."""
    data = run[source, main]
    trains = np.repeat(*_trains(data))
    if by_cell:
        cells = _cells_per_train(data)
        beside = np.arange(cells) + _BY_CELL if cells > 1 else np.zeros(1, np.int64)
        return np.asarray(((trains << _PULSES)[:, None] | beside).ravel(), np.int64)
    pulses = run[source, "image.pulseId"].ndarray().astype(np.int64).ravel()
    return np.asarray((trains << _PULSES) | pulses, np.int64)


def _memory_cells(
    run: Any, sources: Sequence[tuple[str, int]], rows: Sequence[npt.NDArray[np.int64]], by_cell: bool
) -> npt.NDArray[np.int64] | None:
    """Memory cell of each event, from the first module that has the event."""
    key = "data.memoryCell" if by_cell else "image.cellId"
    out = np.full(rows[0].shape, -1, np.int64)
    for (source, _), at in zip(sources, rows, strict=True):
        if key not in run.keys_for_source(source):
            return None
        mine = run[source, key].ndarray().astype(np.int64).ravel()
        fill = (out < 0) & (at >= 0)
        if mine.size <= at.max(initial=-1):
            return None
        out[fill] = mine[at[fill]]
    return out


def _stretches(data: Any, per_row: int) -> tuple[_Stretch, ...]:
    out, start = [], 0
    for chunk in data._data_chunks_nonempty:
        count = int(chunk.total_count)
        file = identify(chunk.file.filename)
        out.append(_Stretch(file, f"/{chunk.dataset_path.strip('/')}", int(chunk.first), count, start * per_row))
        start += count
    return tuple(out)


# ---- frames ---------------------------------------------------------------------------------------------------------


class ModulesArray:
    """Frames of one key of all modules, (event, segment, ...), that reads when it is indexed; small in every task."""

    def __init__(
        self, path: str, identities: tuple[Identity, ...], detector: str, key: str, parallel_gain: bool
    ) -> None:
        self.path, self.identities, self.detector, self.key = path, identities, detector, key
        self.parallel_gain = parallel_gain
        layout = self._of()
        shape, dtype = layout.forms[key]
        self.shape = (layout.labels.size, len(layout.segments), *shape)
        self.dtype = dtype.newbyteorder("=")
        self.ndim = len(self.shape)
        self.storage_events = 1

    def _of(self) -> _Detector:
        known = _run_layout(self.path, self.identities, self.parallel_gain)
        return next(d for d in known if d.name == self.detector)

    def __dask_tokenize__(self) -> tuple[object, ...]:
        return (type(self).__qualname__, self.identities, self.detector, self.key, self.parallel_gain)

    def __getitem__(self, key: Any) -> npt.NDArray[Any]:
        """Read; each part of ``key`` is an integer, a slice or a 1-D array of positions (outer indexing)."""
        keys = list(key) if isinstance(key, tuple) else [key]
        keys += [slice(None)] * (self.ndim - len(keys))
        events, modules = (np.atleast_1d(np.arange(n)[k]) for n, k in zip(self.shape[:2], keys[:2], strict=True))
        out = np.zeros((events.size, modules.size, *self.shape[2:]), self.dtype)
        if self.dtype.kind == "f":
            out[...] = np.nan
        layout = self._of()
        for column, module in enumerate(modules.tolist()):
            rows = layout.rows[module][events]
            for stretch in layout.stretches[self.key][module]:
                self._fill(out, column, rows, stretch)
        for axis, k in reversed(list(enumerate(keys))):
            if axis > 1 and not (isinstance(k, slice) and k == slice(None)):
                out = out[(slice(None),) * axis + (k,)]
        drop = tuple(axis for axis in (0, 1) if np.ndim(keys[axis]) == 0 and not isinstance(keys[axis], slice))
        return out.squeeze(axis=drop) if drop else out

    def _fill(self, out: npt.NDArray[Any], column: int, rows: npt.NDArray[np.int64], stretch: _Stretch) -> None:
        """Read what lies in one stretch of a file; a row of the file may hold the cells of a train."""
        shape, dtype, stored = self._stored(stretch)
        cells = int(shape[1]) if len(shape) == self.ndim else 1  # (train, cell, row, column) has a dim more
        mine = np.flatnonzero((rows >= stretch.start) & (rows < stretch.start + stretch.count * cells))
        if not mine.size:
            return
        place = rows[mine] - stretch.start + stretch.first * cells
        array = Hdf5Array(stretch.file, stretch.dataset, shape, dtype, stored)
        if cells == 1:
            out[mine, column] = array[(place, *[slice(None)] * (array.ndim - 1))]
            return
        trains, which = np.unique(place // cells, return_inverse=True)
        held = array[(trains, *[slice(None)] * (array.ndim - 1))]
        out[mine, column] = held[which, place % cells]

    def _stored(self, stretch: _Stretch) -> tuple[tuple[int, ...], Any, Any]:
        dataset = open_dataset(stretch.file, stretch.dataset)
        return dataset.shape, dataset.dtype, dataset.chunks


def _event_coords(
    path: str, identities: tuple[Identity, ...], labels: npt.NDArray[np.int64], *, by_cell: bool = False
) -> dict[str, Any]:
    trains = labels >> _PULSES
    coords: dict[str, Any] = {v.EVENT: labels, "train_id": (v.EVENT, trains)}
    if not by_cell:
        coords[v.PULSE_ID] = (v.EVENT, labels & (_BY_CELL - 1))
    ids, times = _train_times(path, identities)
    at = np.searchsorted(ids, trains)
    coords["time"] = (v.EVENT, times[np.minimum(at, ids.size - 1)]) if ids.size else (v.EVENT, trains.astype("M8[ns]"))
    return coords


@lru_cache(maxsize=8)
def _train_times(
    path: str, identities: tuple[Identity, ...]
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.datetime64]]:
    del identities
    run = _run_directory(path)
    return np.asarray(run.train_ids, np.int64), np.asarray(run.train_timestamps()).astype("M8[ns]")


def _detector_dataset(
    path: str, identities: tuple[Identity, ...], layout: _Detector, chunks: int | str | None, parallel_gain: bool
) -> xr.Dataset:
    coords = _event_coords(path, identities, layout.labels, by_cell=layout.by_cell)
    coords[v.SEGMENT] = np.array(layout.segments)
    if layout.cells is not None:
        coords[v.MEMORY_CELL] = (v.EVENT, layout.cells)
    coords[v.PRESENT] = ((v.EVENT, v.SEGMENT), np.stack([at >= 0 for at in layout.rows], axis=1))
    variables: dict[str, Any] = {}
    for key in layout.forms:
        array = ModulesArray(path, identities, layout.name, key, parallel_gain)
        n = events_per_chunk(int(array.dtype.itemsize * np.prod(array.shape[1:], dtype=np.int64)), chunks)
        meta = np.empty((0,) * array.ndim, array.dtype)
        data = da.from_array(array, (n, *array.shape[1:]), name=f"euxfel-{tokenize(array, n)}", meta=meta)
        variables |= _detector_variables(layout, key.rsplit(".", 1)[-1], data)
    shape = next(iter(variables.values()))[1].shape[2:]
    coords |= {dim: np.arange(size) for dim, size in zip((v.ROW, v.COLUMN), shape, strict=True)}
    return xr.Dataset(variables, coords, {v.SOURCE: path, v.DETECTOR_TYPE: layout.kind})


def _detector_variables(layout: _Detector, key: str, data: da.Array) -> dict[str, Any]:
    """Frames under our names: raw words with what lies in the other plane, or corrected values."""
    if key == "pixels" and data.shape[-2] % 704:
        data = data[:, :, _WITHOUT_SENSOR:-_WITHOUT_SENSOR]
    if key in ("gain", "mask"):
        return {key: (v.FRAME_DIMS, data)} if data.ndim == len(v.FRAME_DIMS) else {}
    if not layout.raw:
        return {v.CALIBRATED: (v.FRAME_DIMS, data)}
    attrs = {v.DETECTOR_TYPE: layout.kind, v.UNITS: v.ADU}
    if data.ndim == len(v.FRAME_DIMS):
        return {v.RAW: (v.FRAME_DIMS, data, attrs)}
    found: dict[str, Any] = {v.RAW: (v.FRAME_DIMS, data[:, :, 0], attrs)}
    if data.shape[2] == 2:  # AGIPD: the analogue gain behind the data
        found[v.GAIN] = (v.FRAME_DIMS, data[:, :, 1], {v.UNITS: v.ADU})
    return found
