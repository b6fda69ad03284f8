"""What is written for a run: all detectors joined by event, and the configuration and averages of each, once."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Final

import dask
import dask.array as da
import numpy as np
import numpy.typing as npt
import xarray as xr

from xsmall.engine.pairs import paired
from xsmall.engine.parameters import parameters_of
from xsmall.events.labels import labels_of
from xsmall.frames.beam import BEAM_COORDS
from xsmall.io.layout import RESULT_LAYOUT, RESULT_NUMBER
from xsmall.io.stores.blocks import BlockStore
from xsmall.io.stores.provenance import origin
from xsmall.io.stores.write import write
from xsmall.run.block import Fault, key_of, list_of_nothing
from xsmall.run.classes import AVERAGED
from xsmall.run.cube_output import Added, cube_of, cube_path
from xsmall.run.detectors import Detector
from xsmall.run.stored import block_name, stored_variable
from xsmall.run.tables import RunRecipe
from xsmall.vocabulary import (
    AVERAGE,
    BIN_EDGE,
    BOUNDS,
    COUNT_SUFFIX,
    DIMENSIONLESS,
    EVENT,
    EVENTS_NODE,
    FAULT,
    FLAG_MASKS,
    FLAG_MEANINGS,
    GEOMETRY,
    LONG_NAME,
    LOST,
    N_SEGMENTS,
    PARAMETERS,
    PIXEL_DIMS,
    PRESENT,
    PROVENANCE,
    RAGGED_DIM,
    RAGGED_DTYPE,
    REASONS,
    SAMPLE_DIMENSION,
    SOURCE,
    STD_SUFFIX,
    STDERR_SUFFIX,
    UNITS,
    USED,
    VARIANCE_SUFFIX,
)

__all__ = ["RunEvents", "save_run"]

Array = npt.NDArray[Any]
_STATISTICS: Final = {
    "mean": "", "std": STD_SUFFIX, "stderr": STDERR_SUFFIX, "count": COUNT_SUFFIX, "variance": VARIANCE_SUFFIX,
}  # fmt: skip
_HELD_BYTES: Final = 256 * 2**20
"""Event variables up to this size are held; larger ones, waveforms say, are written piece by piece."""
_NAMING: Final = (BOUNDS, SAMPLE_DIMENSION, RAGGED_DIM)
"""Attributes that name a dim or a variable."""


class RunEvents:
    """The events of a run: those of all detectors and of the event variables, each once.

    Parameters
    ----------
    variables
        The event variables of the run.
    detectors
        Its detectors by name.
    """

    def __init__(self, variables: xr.Dataset, detectors: Mapping[str, Detector]) -> None:
        self.variables = variables
        owners: dict[str, xr.Dataset | xr.DataArray] = {name: d.raw for name, d in detectors.items()}
        if EVENT in self.variables.dims:
            owners = {EVENTS_NODE: self.variables, **owners}
        self.label, self._at = _labels_joined(owners)
        self.n = 0 if self.label is None else self.label.size

    def of(self, name: str) -> npt.NDArray[np.int64] | None:
        """Place of each event among those of a detector, -1 where it has none; None where they are the same."""
        return self._at[name]


def _labels_joined(
    owners: Mapping[str, xr.Dataset | xr.DataArray],
) -> tuple[xr.Variable | None, dict[str, npt.NDArray[np.int64] | None]]:
    """The labels of all events, and where each owner has them."""
    if not owners:
        return None, {}
    first = next(iter(owners.values()))
    base = first[EVENT].variable
    if all(x[EVENT].variable.equals(base) for x in owners.values()):  # type: ignore[no-untyped-call]
        return xr.Variable((EVENT,), base.values, base.attrs), dict.fromkeys(owners)
    indexes = {name: labels_of(x, name) for name, x in owners.items()}
    union = next(iter(indexes.values()))
    for index in indexes.values():
        if not index.isin(union).all():
            union = union.union(index)
    at = {name: None if x.equals(union) else x.get_indexer(union).astype(np.int64) for name, x in indexes.items()}
    return xr.Variable((EVENT,), union.to_numpy(), base.attrs), at


def save_run(
    target: Path,
    events: RunEvents,
    detectors: Mapping[str, Detector],
    blocks: Mapping[str, Sequence[tuple[int, int]]],
    store: BlockStore,
    *,
    recipe: RunRecipe,
    request: Mapping[str, Any],
    overwrite: bool,
    scheduler: Any = "threads",
) -> list[Path]:
    """Join the finished blocks of a run and write its output, complete or not at all.

    Parameters
    ----------
    target
        Where to.
    events
        The events of the run.
    detectors
        Its detectors by name.
    blocks
        For each of them the events of its blocks.
    store
        The finished blocks.
    recipe
        What is meant for the run.
    request
        What was asked for; it is told in the output.
    overwrite
        Whether what is there may be replaced.
    scheduler
        Who reads blocks and writes small data as Zarr, as dask takes it; all else is done by threads of this process.

    Returns
    -------
    Paths of all that was written: the small data, then the cubes.
    """
    root = _event_variables(events)
    nodes: dict[str, xr.Dataset] = {}
    added: dict[str, Added] = {}
    for name, detector in detectors.items():
        spans = blocks[name]
        added[name] = Added(detector, [block_name(name, i) for i in range(len(spans))], store)
        of_events, summed = _reductions(events, detector, spans, added[name])
        root = root.merge(of_events)
        nodes[f"/{name}"] = _pixel_configuration(detector, added[name]).merge(summed)
    small = root
    if recipe.events is not None:
        dropped = [n for n in events.variables.variables if n in root.coords and n != EVENT and n not in recipe.events]
        root = root.drop_vars(dropped)
    root.attrs = {
        PARAMETERS: json.dumps({"function": "produce", "recipe": request["recipe"]}),
        SOURCE: str(request["source"]),
    }
    lost = {name: json.loads(d.raw.attrs[LOST]) for name, d in detectors.items() if LOST in d.raw.attrs}
    if lost:
        root.attrs[LOST] = json.dumps(lost)
    told = {k: x for k, x in origin(root).items() if k != "time"} | {"files": request["files"]}
    ordered = target.suffix != ".zarr"
    marks, here = {PROVENANCE: json.dumps(told)}, {"scheduler": "threads", **({"num_workers": 1} if ordered else {})}
    save = partial(write, layout=f"{RESULT_LAYOUT} {RESULT_NUMBER}", marks=marks, compress=True, in_order=ordered)
    with dask.config.set(here):
        small = small.assign_attrs(root.attrs)
        made = {cube_path(target, name): cube_of(name, recipe, small, added, request) for name in recipe.cubes}
        for path, one in made.items():
            save({"/": one}, path, overwrite=True)
    with dask.config.set(here if ordered else {"scheduler": scheduler}):
        save({"/": root, **nodes}, target, overwrite=overwrite)  # they come last and say that all is there
    return [target, *reversed(made)]


def _event_variables(events: RunEvents) -> xr.Dataset:
    """The event variables of the run, for all of its events."""
    out = xr.Dataset() if events.label is None else xr.Dataset(coords={EVENT: events.label})
    found = events.variables
    at = events.of(EVENTS_NODE) if EVENT in found.dims else None
    for name in [*found.data_vars, *found.coords]:
        if name == EVENT:
            continue
        variable = found[name].variable
        if variable.chunks is not None and variable.nbytes <= _HELD_BYTES:
            variable = variable.compute(scheduler="synchronous")
        if variable.dims[:1] == (EVENT,):
            variable = xr.Variable(variable.dims, taken(variable.data, at), variable.attrs)
        elif EVENT in variable.dims:
            continue
        out = out.assign_coords({name: variable})
    return out


# ---- reductions ------------------------------------------------------------------------------------------------------


def _reductions(
    events: RunEvents, detector: Detector, spans: Sequence[tuple[int, int]], added: Added
) -> tuple[xr.Dataset, xr.Dataset]:
    """Variables of a detector for all events of the run, lazy: blocks are read as they are written; and those of none.

    What records have added up has no events, and keeps the names that it has in a notebook by itself.
    """
    name, prepared, at = detector.name, detector.prepared, events.of(detector.name)
    store, names = added.store, added.blocks
    arrays = {
        (record, variable): stored_variable(store, name, spans, key_of(record, variable), output)
        for record, outputs in prepared.described.items()
        for variable, output in outputs.items()
        if not output.summed
    }
    arrays |= {(record, variable): values for record, found in added.totals() for variable, values in found.items()}
    labelled, summed = (detector.dataset(arrays, of_events=of_events) for of_events in (True, False))
    used = {d for x in summed.data_vars.values() for d in x.dims}
    summed = summed.drop_vars([c for c in summed.coords if not set(summed[c].dims) & used])
    own = {str(d) for x in labelled.data_vars.values() for d in (*x.dims, x.attrs.get(RAGGED_DIM, EVENT))} - {EVENT}
    scalars: tuple[str, ...] = ()
    if any(str(k).endswith(USED) for k in labelled.coords):  # of sparse frames, which are nothing without their pixels
        own, scalars = own | set(PIXEL_DIMS), (GEOMETRY, *BEAM_COORDS)
    labels = {str(k): x.variable for k, x in labelled.coords.items() if x.dims and set(x.dims) <= own | {BIN_EDGE}}
    labels |= {k: labelled[k].variable for k in scalars if k in labelled.coords and not labelled[k].dims}
    names_of = {word: f"{name}_{word}" for word in own | labels.keys()}
    out = xr.Dataset(coords={names_of[k]: _renamed_dims(x, names_of) for k, x in labels.items()})
    for key, x in labelled.data_vars.items():
        empty = list_of_nothing(x.attrs[RAGGED_DTYPE], x.attrs) if RAGGED_DTYPE in x.attrs else None
        values = xr.Variable(x.dims, taken(x.variable.data, at, empty), x.attrs)
        out[f"{name}_{key}"] = _renamed_dims(values, names_of)
    faults = _all_blocks(store, names, FAULT, np.uint8)
    if at is not None:
        faults = np.where(at < 0, np.uint8(Fault.ABSENT), taken(faults, at)).astype(np.uint8)
    segments = taken(_all_blocks(store, names, N_SEGMENTS, np.int32), at)
    flags = out.assign(
        {
            f"{name}_{PRESENT}": ((EVENT,), segments > 0, {LONG_NAME: f"whether {name} has anything of the event"}),
            f"{name}_{N_SEGMENTS}": ((EVENT,), segments, {UNITS: DIMENSIONLESS, LONG_NAME: "segments that were used"}),
            f"{name}_{FAULT}": (
                (EVENT,),
                faults,
                {
                    LONG_NAME: f"what {name} lacks of the event",
                    FLAG_MASKS: [int(f) for f in Fault],
                    FLAG_MEANINGS: " ".join(str(f.name).lower() for f in Fault),
                },
            ),
        }
    )
    return paired(flags), paired(xr.Dataset(summed.data_vars, summed.coords))


def _renamed_dims(variable: xr.Variable, names: Mapping[str, str]) -> xr.Variable:
    """A variable whose dims, and the names in its attributes, begin with the name of their detector."""
    named = {k: names.get(str(variable.attrs[k]), variable.attrs[k]) for k in _NAMING if k in variable.attrs}
    return xr.Variable([names.get(str(d), d) for d in variable.dims], variable.data, {**variable.attrs, **named})


def _all_blocks(store: BlockStore, names: Sequence[str], key: str, dtype: Any) -> Array:
    """One small variable of all blocks, in memory."""
    return store.joined(names, key).astype(dtype) if names else np.empty(0, dtype)


def taken(data: Any, at: npt.NDArray[np.int64] | None, of_lists: Array | None = None) -> Any:
    """Values at some places, and what stands for none where the place is -1: NaN, NaT, 0, False, no text, no list.

    ``of_lists`` is the list of nothing, where the values are lists.
    """
    if at is None:
        return data
    absent = at < 0
    if not len(data):  # no place at all
        return _emptied(np.empty((at.size, *data.shape[1:]), data.dtype), absent, of_lists)
    found = data[np.where(absent, 0, at)]
    if not absent.any():
        return found
    if not isinstance(found, da.Array):
        return _emptied(np.array(found), absent, of_lists)
    where = da.from_array(absent, chunks=(found.chunks[0],))[(..., *(None,) * (found.ndim - 1))]
    return da.map_blocks(_emptied, found, where, of_lists, dtype=found.dtype, meta=found._meta)


def _emptied(found: Array, absent: Array, of_lists: Array | None) -> Array:
    out = np.array(found)
    where = absent.reshape(len(absent))
    if out.dtype == object:
        for i in np.flatnonzero(where):
            out[i] = "" if of_lists is None else of_lists
    else:
        fill: Any = {"f": np.nan, "M": "NaT", "m": "NaT"}.get(out.dtype.kind)
        out[where] = np.zeros((), out.dtype) if fill is None else fill
    return out


# ---- configuration and averages --------------------------------------------------------------------------------------


def _pixel_configuration(detector: Detector, added: Added) -> xr.Dataset:
    """What is known of each pixel, once: constants, places, masks; and the average of all events."""
    values = detector.prepared.values
    kept = [c for c, x in values.coords.items() if EVENT not in x.dims and set(x.dims) <= set(PIXEL_DIMS)]
    out = xr.Dataset(coords={c: values.coords[c].variable for c in kept})
    for dim in PIXEL_DIMS:
        if dim not in out.coords:
            out = out.assign_coords({dim: np.arange(values.sizes[dim])})
    if detector.constants is not None:
        own = detector.constants
        out = out.assign({str(n): own[n].variable for n in own.data_vars})
        out = out.assign_coords({c: own[c].variable for c in own.coords if c not in out.coords})
    if detector.mask is not None:
        out[REASONS] = detector.mask.variable
    if detector.recipe.average:
        out = out.assign(_average_variables(detector, added))
    attrs = {k: x for k, x in values.attrs.items() if k not in (UNITS, PARAMETERS)}
    if detector.waves is not None:
        out = detector.waves.unframed(out)
    steps = parameters_of(values.attrs)
    out.attrs = attrs | ({} if steps is None else {PARAMETERS: json.dumps(steps)})
    return paired(out.compute(scheduler="synchronous"))


def _average_variables(detector: Detector, added: Added) -> dict[str, xr.Variable]:
    """Mean, spread, error and count of each pixel over all events with X-rays."""
    units = detector.prepared.values.attrs.get(UNITS)
    found = added.statistics(AVERAGED, 0)
    out = {}
    for statistic, values in found.items():
        unit = DIMENSIONLESS if statistic == "count" else units
        if statistic == "variance" and units is not None:
            unit = f"{units}2"
        attrs = {} if unit is None else {UNITS: unit}
        out[f"{AVERAGE}{_STATISTICS[statistic]}"] = xr.Variable(PIXEL_DIMS, values, attrs)
    return out
