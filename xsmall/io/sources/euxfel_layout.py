"""Which module of a detector has which frames of a run of the European XFEL, and in which files they lie.

extra_data says which file holds which train of which module; from here on a frame is a number of its module's.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from xsmall.errors import DataError, MissingDependency, ParameterError
from xsmall.io.files import Identity, identify

__all__ = ["BY_CELL", "PULSE_BITS", "DetectorLayout", "Stretch", "detectors_of_run", "run_directory"]

_TYPES: Final = {"AGIPD": "agipd", "LPD": "lpd", "DSSC": "dssc", "JUNGFRAU": "jungfrau_euxfel"}
_PIXELS: Final = "data.image.pixels"
_GAINS: Final = 3
PULSE_BITS: Final = 16
"""Bits of a label below the train: the pulse; the highest is set where frames go by memory cell."""
BY_CELL: Final = 1 << (PULSE_BITS - 1)


@dataclass(frozen=True)
class Stretch:
    """Frames of a module that lie behind each other in a file, and which of the module's frames they are."""

    file: Identity
    dataset: str
    first: int
    count: int
    start: int


@dataclass(eq=False)
class DetectorLayout:
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
    stretches: dict[str, tuple[tuple[Stretch, ...], ...]]
    """For each key, the stretches of each module."""
    forms: dict[str, tuple[tuple[int, ...], np.dtype[Any]]]
    """For each key, shape and type of one frame."""


def run_directory(path: str) -> Any:
    try:
        from extra_data import RunDirectory
    except ImportError:
        raise MissingDependency.of("extra_data", "extra", f"{path}: reading a run of the European XFEL") from None
    return RunDirectory(path)


@lru_cache(maxsize=8)
def detectors_of_run(path: str, identities: tuple[Identity, ...], parallel_gain: bool) -> tuple[DetectorLayout, ...]:
    """Detectors of a run; each process looks once."""
    del identities  # another run at this path has other files
    run = run_directory(path)
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


def _describe_detector(run: Any, name: str, cls: Any, parallel_gain: bool) -> DetectorLayout | None:
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
    return DetectorLayout(
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


def _three_gains(run: Any, first: DetectorLayout, cls: Any) -> list[DetectorLayout]:
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


def _epix100(run: Any) -> list[DetectorLayout]:
    """Detectors of one module and one frame per train, known by the size of their frames."""
    found: list[DetectorLayout] = []
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
            DetectorLayout(
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
        beside = np.arange(cells) + BY_CELL if cells > 1 else np.zeros(1, np.int64)
        return np.asarray(((trains << PULSE_BITS)[:, None] | beside).ravel(), np.int64)
    pulses = run[source, "image.pulseId"].ndarray().astype(np.int64).ravel()
    return np.asarray((trains << PULSE_BITS) | pulses, np.int64)


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


def _stretches(data: Any, per_row: int) -> tuple[Stretch, ...]:
    out, start = [], 0
    for chunk in data._data_chunks_nonempty:
        count = int(chunk.total_count)
        file = identify(chunk.file.filename)
        out.append(Stretch(file, f"/{chunk.dataset_path.strip('/')}", int(chunk.first), count, start * per_row))
        start += count
    return tuple(out)
