"""Runs of the European XFEL, found with extra_data and read here: modules by trains and pulses.

extra_data says which file holds which train of which module; frames are read by slices with what is not there told in
``present``, since a module that misses a train is no module of zeros.
"""

import re
from collections.abc import Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any, ClassVar, Final

import dask.array as da
import numpy as np
import numpy.typing as npt
import xarray as xr
from dask.base import tokenize

from xsmall import vocabulary as v
from xsmall.errors import FileFormatError, ParameterError, alike
from xsmall.io.files import Identity, identify
from xsmall.io.sources.chunks import events_per_chunk
from xsmall.io.sources.euxfel_layout import (
    BY_CELL,
    PULSE_BITS,
    DetectorLayout,
    Stretch,
    detectors_of_run,
    run_directory,
)
from xsmall.io.sources.euxfel_variables import left_out, train_variables
from xsmall.io.sources.hdf5_array import Hdf5Array, open_dataset
from xsmall.io.sources.source import RunSource, RunSpec, check_missing

__all__ = ["EuxfelRun"]

_FILES: Final = "*-S[0-9][0-9][0-9][0-9][0-9].h5"
_NAME: Final = re.compile(r"(?P<kind>\w+)-R(?P<run>\d+)-(?P<source>.+)-S\d+\.h5")
_WITHOUT_SENSOR: Final = 2
"""Rows of ePix100 at both ends of a frame of 708 rows that calibrate the electronics."""


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
        missing: str = "raise",
    ) -> xr.DataTree:
        """Open AGIPD, LPD, DSSC, JUNGFRAU and ePix100 detectors, or those of ``detectors``, a node each.

        The label ``event`` is a number made of train and pulse: all detectors that go by pulse share it. ``train_id``,
        ``pulse_id`` or ``memory_cell``, and ``time`` (of the train, UTC, NaT in old files) stand beside it.

        ``variables`` adds what is recorded once per train to the event variables: ``{"xgm_pulse_energy":
        ("SA1_XTD2_XGM/DOOCS/MAIN", "pulseEnergy.photonFlux")}``, or ``(source, key, index)``; NaN where a train has
        none. ``parallel_gain`` says that LPD was read in three gains, whose frames lie behind each other in a train:
        high gain is the detector itself, the others are the nodes ``<detector>_medium_gain`` and
        ``<detector>_low_gain`` over the same events. Of ePix100 the two first and two last rows, which have no sensor,
        are cut. A file that cannot be opened is an error, unless ``missing="flag"``: then its frames are missing, and
        ``missing_files`` of the root names it.
        """
        check_missing(missing)
        assert spec.path is not None
        path = str(spec.path)
        _check_one_run(self.identity(spec), path)
        known = {d.name: d for d in detectors_of_run(path, self.identity(spec), parallel_gain)}
        run = run_directory(path)
        chosen = list(known) if detectors is None else list(detectors)
        for name in chosen:
            if name not in known:
                raise ParameterError(
                    f"{path}: no such detector",
                    found=repr(name),
                    expected=", ".join(known) or "no detector at all",
                    fix=f"detectors={(alike(name, known) or list(known))[:1]}" if known else "leave detectors= out",
                )
        nodes = {"/": xr.Dataset(attrs={v.SOURCE: path, **_lost_files(run, self.identity(spec), path, missing)})}
        labels = np.unique(np.concatenate([known[n].labels for n in chosen])) if chosen else np.empty(0, np.int64)
        events = xr.Dataset(coords=_event_coords(path, self.identity(spec), labels))
        if variables:
            trains = labels >> PULSE_BITS
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


def _check_one_run(files: Sequence[Identity], path: str) -> None:
    """Refuse files that one detector has of several runs: their trains would be taken as those of one."""
    runs: dict[str, set[int]] = {}
    for file in files:
        named = _NAME.fullmatch(Path(file.path).name)
        if named is not None:
            runs.setdefault(f"{named['kind']}-{named['source']}", set()).add(int(named["run"]))
    mixed = {source: sorted(numbers) for source, numbers in runs.items() if len(numbers) > 1}
    if mixed:
        source, numbers = next(iter(mixed.items()))
        raise FileFormatError(
            f"{path}: several runs",
            found=f"{', '.join(f'run {number}' for number in numbers[:8])} of {source}",
            expected="the files of one run",
            fix=f"a folder for the files of each run, such as those named *-R{numbers[0]:04d}-*.h5",
        )


def _lost_files(run: Any, files: Sequence[Identity], path: str, missing: str) -> dict[str, str]:
    """What the root says of files that extra_data passes over, since they cannot be opened."""
    opened = {str(Path(file.filename).resolve()) for file in run.files}
    lost = [Path(file.path).name for file in files if file.path not in opened]
    if len(lost) == len(files):  # one file stands for all of them
        return {}
    if lost and missing == "raise":
        raise FileFormatError(
            f"{path}: files of this run cannot be opened",
            found=", ".join(lost),
            expected="HDF5 files that are whole",
            fix=f'xs.open_run({path!r}, missing="flag")  # counts them; or copy them again',
        )
    return {v.MISSING_FILES: "; ".join(lost)} if lost else {}


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

    def _of(self) -> DetectorLayout:
        known = detectors_of_run(self.path, self.identities, self.parallel_gain)
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

    def _fill(self, out: npt.NDArray[Any], column: int, rows: npt.NDArray[np.int64], stretch: Stretch) -> None:
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

    def _stored(self, stretch: Stretch) -> tuple[tuple[int, ...], Any, Any]:
        dataset = open_dataset(stretch.file, stretch.dataset)
        return dataset.shape, dataset.dtype, dataset.chunks


def _event_coords(
    path: str, identities: tuple[Identity, ...], labels: npt.NDArray[np.int64], *, by_cell: bool = False
) -> dict[str, Any]:
    trains = labels >> PULSE_BITS
    coords: dict[str, Any] = {v.EVENT: labels, "train_id": (v.EVENT, trains)}
    if not by_cell:
        coords[v.PULSE_ID] = (v.EVENT, labels & (BY_CELL - 1))
    ids, times = _train_times(path, identities)
    at = np.searchsorted(ids, trains)
    coords["time"] = (v.EVENT, times[np.minimum(at, ids.size - 1)]) if ids.size else (v.EVENT, trains.astype("M8[ns]"))
    return coords


@lru_cache(maxsize=8)
def _train_times(
    path: str, identities: tuple[Identity, ...]
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.datetime64]]:
    del identities
    run = run_directory(path)
    return np.asarray(run.train_ids, np.int64), np.asarray(run.train_timestamps()).astype("M8[ns]")


def _detector_dataset(
    path: str, identities: tuple[Identity, ...], layout: DetectorLayout, chunks: int | str | None, parallel_gain: bool
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


def _detector_variables(layout: DetectorLayout, key: str, data: da.Array) -> dict[str, Any]:
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
