"""Reduce frames with one record or many, in one pass."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from dataclasses import dataclass, fields, is_dataclass, replace
from typing import Any

import numpy as np
import xarray as xr

from xsmall.calls import MAKES_A_RECORD, warn_user
from xsmall.detector.frames import Frames
from xsmall.detector.geometry.geometry import Geometry
from xsmall.engine.asked import ASKED, keep, said_of, told_of
from xsmall.engine.beside import Companion
from xsmall.engine.entries import run_on_entries
from xsmall.engine.one_pass import Source, run_records
from xsmall.engine.pairs import paired
from xsmall.engine.parameters import parameters_attr, parameters_of, short_repr
from xsmall.engine.record import Output, Record
from xsmall.engine.transform import float_dtype
from xsmall.errors import GainBitsWarning, ParameterError, UnusedMaskWarning
from xsmall.events.ragged import ragged_attrs
from xsmall.frames.beam import BEAM_COORDS, one_value
from xsmall.frames.describe import data_of, describe, gain_bits, words_of
from xsmall.frames.per_pixel import StaticMask
from xsmall.frames.pixels import geometry_of
from xsmall.frames.small import is_lazy
from xsmall.frames.sparse import Sparse, sparse_of
from xsmall.frames.stacked import as_events
from xsmall.frames.variance import values_and_variance
from xsmall.frames.waveforms import as_waves
from xsmall.reductions.filters import EventMask
from xsmall.reductions.joined import bind
from xsmall.reductions.names import check_names, clashing_dims
from xsmall.reductions.user import Function, UserRecord
from xsmall.reductions.user import record as _user_record
from xsmall.vocabulary import (
    BOUNDS,
    COLUMN,
    EVENT,
    FRAME_DIMS,
    GEOMETRY,
    IMAGE_X,
    IMAGE_Y,
    LOST,
    PIXEL_DIMS,
    RAW,
    ROW,
    SAMPLE_DIMENSION,
    SELECTION,
    SOURCE,
    UNITS,
    USABLE,
    USED,
)


def reduce(obj: xr.DataArray | xr.Dataset, records: Mapping[str, Record | Function | str]) -> xr.Dataset:
    """Reduce frames with several records in one pass over them.

    Parameters
    ----------
    obj
        Frames (event, segment, row, column): raw, calibrated, or any floats; NaN is skipped. Or pictures over the bins
        of a cube, or one picture: then results have the bins in the place of events. Or waveforms (event, sample) or
        (event, channel, sample), for records of these. A Dataset of frames and
        their variance (``<name>_variance``), as ``calibrate(..., variance=True)`` returns, carries the variance
        through: each value comes with its own. Or sparse frames, as ``xs.photon(sparse=True)`` returns: then most
        reductions cost photons and not pixels.
    records
        The reductions by the name that prefixes their variables, such as ``{"waxs": xs.azint(bins=500)}``; a function
        of a frame is one too, or the name of one, ``"module:function"``, see :func:`~xsmall.record`.

    Returns
    -------
    One flat Dataset over ``event``: each record's variables, prefixed ``<name>_``, lazy where the frames are. A dim
    that two records label differently, or that has the name of a coordinate of the events, is prefixed too. Coordinates
    of events and scalars stay; geometry and beam move to the parameters where no variable is a picture any more.

    Raises
    ------
    DataError
        Frames of other dims or dtype.
    ParameterError
        No record, something that is not a record, invalid arguments of a record, or a variable that would take the name
        of another one or of a coordinate.

    Notes
    -----
    Cost: raw chunks are read and calibrated once, however many records there are. Frames that are the untouched
    result of ``calibrate`` are calibrated inside the pass, segment by segment, and never held as floats. Missing
    segments never count, nor do damaged ones of raw words (coordinates ``present`` and ``damage``).

    Examples
    --------
    >>> import xsmall as xs
    >>> sim = xs.simulate(8, shape=(2, 32, 64), seed=1)
    >>> cal = sim.run["jungfrau"]["raw"].sd.calibrate(sim.constants)
    >>> small = cal.sd.reduce({"spot": xs.roi(xs.Box(segment=0, row=(4, 12), column=(8, 24)))})
    >>> small["spot_sum"].dims
    ('event', 'roi')
    """
    sparse = sparse_of(obj)
    if sparse is not None:
        return _reduce_sparse(sparse, _records(records))
    stacked = as_waves(obj) or as_events(obj)
    if stacked is not None:
        return stacked.back(reduce(stacked.frames, records))
    prepared = prepare(obj, _records(records))
    _warn_of(gain_bits(prepared.values), GainBitsWarning)
    _warn_of(unused_mask(prepared.values, prepared.records), UnusedMaskWarning)
    arrays = run_records(prepared.source, prepared.records, prepared.frames, prepared.beside, prepared.described)
    return prepared.dataset(arrays)


def _reduce_sparse(given: Sparse, records: Mapping[str, Record]) -> xr.Dataset:
    """Reduce sparse frames: what :func:`reduce` returns for the dense ones."""
    chosen, beside = bind(records, given.values)
    others = [name for name, c in beside.items() if c.transform is not None]
    if others:
        raise ParameterError(
            "sparse frames are reduced without frames of other detectors beside them",
            found=", ".join(others),
            fix="xs.dense(sparse) in place of the sparse frames",
        )
    known = describe(given.values)
    frames = known.of_all_events
    described = {name: record.outputs(frames) for name, record in chosen.items()}
    coords = _coords_of(chosen, frames)
    check_names(described, coords, given.values)
    arrays = run_on_entries(given.lists, given.used, chosen, frames, known.energies, beside)
    return paired(_labelled_results(given.values, chosen, described, coords, arrays))


@dataclass(frozen=True)
class Pass:
    """Records over frames, checked before anything runs.

    Attributes
    ----------
    values
        The frames, labelled.
    records
        The records by name.
    frames
        What records know of the frames.
    source
        What is read, and what makes floats of it.
    beside
        What is joined to the events of the frames.
    described
        What each record returns, by its name and that of the variable.
    coords
        Coordinates of each record.
    """

    values: xr.DataArray
    records: Mapping[str, Record]
    frames: Frames
    source: Source
    beside: Mapping[str, Companion]
    described: Mapping[str, Mapping[str, Output]]
    coords: Mapping[str, Mapping[str, xr.Variable]]

    def part(self, of_events: bool) -> Pass:
        """The records that return something of each event; or those that add events up."""
        of = {
            name: any(not o.summed for o in outputs.values()) is of_events for name, outputs in self.described.items()
        }
        records = {name: record for name, record in self.records.items() if of[name]}
        described = {name: outputs for name, outputs in self.described.items() if of[name]}
        coords = {name: labels for name, labels in self.coords.items() if of[name]}
        return replace(self, records=records, described=described, coords=coords)

    def dataset(self, arrays: Mapping[tuple[str, str], Any]) -> xr.Dataset:
        """Label the arrays (event, ...) of each record and variable."""
        return paired(_labelled_results(self.values, self.records, self.described, self.coords, arrays))


def prepare(obj: xr.DataArray | xr.Dataset, records: Mapping[str, Record]) -> Pass:
    """Check records against frames and find what is to be read; :func:`reduce` runs it."""
    values, variance = values_and_variance(obj)
    chosen, beside = bind(records, values)
    known = describe(values)
    frames = replace(known, dtype=float_dtype(known.dtype), variance=variance is not None).of_all_events
    described = {name: record.outputs(frames) for name, record in chosen.items()}  # raises before anything else
    coords = _coords_of(chosen, frames)
    check_names(described, coords, values)
    variances = None if variance is None else data_of(variance)
    source = Source.of(
        data_of(values), known.usable, frames.dtype, variances, known.energies, words_of(values), known.kinds
    )
    return Pass(values, chosen, frames, source, beside, described, coords)


def _coords_of(records: Mapping[str, Record], frames: Frames) -> dict[str, dict[str, xr.Variable]]:
    """Coordinates of each record."""
    return {name: dict(record.coords(frames)) for name, record in records.items()}


def _labelled_results(
    values: xr.DataArray,
    records: Mapping[str, Record],
    described: Mapping[str, Mapping[str, Output]],
    coords: Mapping[str, Mapping[str, xr.Variable]],
    arrays: Mapping[tuple[str, str], Any],
) -> xr.Dataset:
    """The flat Dataset of all records."""
    renamed = clashing_dims(described, coords, values)
    variables: dict[str, xr.Variable] = {}
    labels: dict[str, xr.Variable] = {}
    for name, outputs in described.items():
        for variable, output in outputs.items():
            dims = tuple(renamed.get((name, d), d) for d in output.dims)
            attrs = dict(output.attrs)
            if SAMPLE_DIMENSION in attrs:
                attrs[SAMPLE_DIMENSION] = renamed.get((name, attrs[SAMPLE_DIMENSION]), attrs[SAMPLE_DIMENSION])
            if output.is_ragged:
                attrs, dims = attrs | ragged_attrs(dims[0], output.dtype), ()
            events = () if output.summed else (EVENT,)
            variables[f"{name}_{variable}"] = xr.Variable((*events, *dims), arrays[name, variable], attrs)
        for key, label in coords[name].items():
            dims = tuple(renamed.get((name, str(d)), str(d)) for d in label.dims)
            attrs = dict(label.attrs)
            if BOUNDS in attrs:  # names another coordinate, which may have been renamed with this one
                attrs[BOUNDS] = renamed.get((name, attrs[BOUNDS]), attrs[BOUNDS])
            called, made = renamed.get((name, key), key), xr.Variable(dims, label.data, attrs)
            if called == USED and not np.array_equal(labels.get(called, made).values, made.values):  # a mask of its own
                called = f"{name}_{key}"
            labels[called] = made
    return _result_dataset(values, variables, labels, records)


def _warn_of(text: str | None, kind: type[Warning]) -> None:
    if text is not None:
        warn_user(text, kind)


def unused_mask(values: xr.DataArray, records: Mapping[str, Record]) -> str | None:
    """Say that frames as they are in a file are reduced without the mask of the file; None where it is heeded."""
    usable = values.coords.get(USABLE)
    if usable is None or is_lazy(usable) or values.name != RAW:
        return None
    bad = usable.size - int(usable.sum())
    without = [name for name, record in records.items() if not _has_mask(record)] if bad else []
    if not without:
        return None
    return (
        f"{', '.join(without)}: {bad} pixels that the file marks as bad are taken like all others. Hand its mask on, "
        "mask=frames.usable, or say that it does not count, frames.drop_vars('usable')"
    )


def _has_mask(record: object) -> bool:
    """Whether a record, or one of those that it is made of, has a mask."""
    if isinstance(record, StaticMask | EventMask):
        return True
    return is_dataclass(record) and any(_has_mask(getattr(record, field.name)) for field in fields(record))


def apply(
    obj: xr.DataArray | xr.Dataset | Function | str,
    record: Record | Function | str | None = None,
    /,
    *,
    outputs: Mapping[str, Any] | None = None,
    variance: bool = False,
    batch: bool = False,
    **beside: xr.DataArray,
) -> xr.Dataset:
    """Reduce frames with one record, or with a function of your own, which may take several detectors.

    Parameters
    ----------
    obj
        Frames, as in :func:`reduce`. Or, where detectors are given by name, the function.
    record
        A record, a function of a frame, or the name of one, ``"module:function"``.
    outputs, variance, batch
        Of a function: as in :func:`~xsmall.record`.
    **beside
        What else a function takes of the same event, by keyword: frames of other detectors, or values (event, ...).
        Without ``obj`` the first frames among them are those of the pass, whose events are the events of the result.

    Returns
    -------
    The Dataset of :func:`reduce`, its variables under their own names; where a coordinate of the events has that name,
    as ``tt_amplitude`` beside ``xs.edge``, the variable keeps the record's name before it. With several detectors
    ``missing`` (event) says what an event lacks; there the function is not called.

    Raises
    ------
    ParameterError
        Neither a record nor a function; options of a function with a record.
    DataError
        Detectors without a common event.

    Examples
    --------
    >>> import numpy as np, xsmall as xs
    >>> sim = xs.simulate(4, shape=(1, 16, 32), seed=1)
    >>> cal, i0 = sim.run["jungfrau"]["raw"].sd.calibrate(sim.constants), sim.run["events"]["i0"]
    >>> sorted(xs.apply(cal, xs.projection("row")))
    ['n_valid', 'projection']
    >>> scaled = xs.apply(lambda jungfrau, i0: np.nansum(jungfrau) / i0, jungfrau=cal, i0=i0)
    >>> scaled["value"].dims, set(scaled["missing"].values.tolist())
    (('event',), {''})
    """
    options = {"outputs": outputs, "variance": variance, "batch": batch}
    if not isinstance(obj, xr.DataArray | xr.Dataset) and record is None and beside:
        chosen = _as_record(obj, beside=beside, **options)
        first = next((k for k, v in beside.items() if getattr(v, "dims", None) == FRAME_DIMS), None)
        if first is None or not isinstance(chosen, UserRecord) or chosen.with_variance:
            raise ParameterError(
                "a function of several detectors takes each of them by name",
                found=f"{', '.join(beside)}" + (", with variance=True" if variance else ""),
                expected=f"a function, and frames {FRAME_DIMS} among its arguments",
                fix="xs.apply(function, jungfrau=cal, i0=i0); a variance is an argument of its own",
            )
        others = {k: v for k, v in beside.items() if k != first}
        obj, chosen = beside[first], replace(chosen, first=first, given=others)
    else:
        chosen = _as_record(record, beside=beside, **options)
    if not isinstance(chosen, Record):
        raise ParameterError(
            "what is applied is neither a record nor a function",
            found=type(chosen).__name__,
            expected="what xs.roi(...), xs.azint(...) return, or a function of one frame",
            fix="xs.apply(cal, lambda frame: np.nansum(frame))",
        )
    small = reduce(obj, {chosen.name: chosen})  # type: ignore[arg-type]  # whatever else raises there
    prefix = f"{chosen.name}_"
    own = {v: str(v).removeprefix(prefix) for v in small.data_vars}
    return small.rename({v: name for v, name in own.items() if name not in small.coords})


def _as_record(given: Any, *, beside: Mapping[str, Any] | None = None, **options: Any) -> Any:
    """A function of a frame, or its name, as a record; a record stays as it is, and so does whatever is none."""
    said = [name for name, value in options.items() if value not in (None, False)]
    if isinstance(given, Record):
        if said or (beside and not isinstance(given, UserRecord)):
            raise ParameterError(
                "a record says already what it does",
                found=", ".join([*said, *(beside or {})]),
                expected="these with a function",
                fix="xs.record(function, ...) with them, or leave them out",
            )
        return replace(given, given=beside) if isinstance(given, UserRecord) and beside else given
    if getattr(given, MAKES_A_RECORD, False):
        name, arguments = given.__name__, inspect.signature(given).parameters.values()
        needed = ", ".join(p.name for p in arguments if p.default is p.empty and p.kind is p.POSITIONAL_OR_KEYWORD)
        raise ParameterError(
            "the function that makes a record, not a record",
            found=f"xs.{name}",
            expected=f"what xs.{name}({needed}) returns",
            fix=f"xs.{name}({needed})",
        )
    if (isinstance(given, str) and ":" in given) or (callable(given) and not isinstance(given, type)):
        return _user_record(given, beside=beside, **options)
    return given


def _records(given: object) -> dict[str, Record]:
    """Check what was given as records; functions of a frame become some."""
    records = {str(k): _as_record(v) for k, v in given.items()} if isinstance(given, Mapping) else given
    if not isinstance(records, dict) or not records:
        raise ParameterError(
            "reduce needs records by name",
            found=repr(records)[:80],
            expected="a mapping of names to records",
            fix='.sd.reduce({"waxs": xs.azint(bins=500)})',
        )
    for name, record in records.items():
        if not isinstance(record, Record):
            raise ParameterError(
                f"{name!r} is not a record",
                found=type(record).__name__,
                expected="what xs.roi(...), xs.azint(...), xs.droplet(...) ... return",
                fix=f'{{"{name}": xs.azint(bins=500)}}',
            )
    return records


def _result_dataset(
    obj: xr.DataArray, variables: dict[str, xr.Variable], labels: dict[str, xr.Variable], records: Mapping[str, Record]
) -> xr.Dataset:
    geometry, beam = geometry_of(obj), _beam_numbers(obj)
    before = {"frames": parameters_of(obj.attrs)}
    gone = set(PIXEL_DIMS)
    if not any(EVENT in v.dims for v in variables.values()):  # all are sums over the events
        gone.add(EVENT)
    kept = {c: v for c, v in obj.coords.variables.items() if not gone & set(v.dims)}
    shown = [*variables.values(), *labels.values()]
    if not any({ROW, COLUMN} <= set(v.dims) or {IMAGE_X, IMAGE_Y} <= set(v.dims) for v in shown):
        # Nothing here is in space any more. Scalars would stand in the title of every plot and keep the results of two
        # detectors from being merged; the parameters say them.
        kept = {c: v for c, v in kept.items() if v.ndim or c not in (GEOMETRY, *BEAM_COORDS)}
        before["geometry"] = None if geometry is None else f"{geometry!r}, token {geometry.token}"
        before["beam"] = beam or None
    said = {name: short_repr(record) for name, record in records.items()}
    before[ASKED] = _asked_of_records(obj, records, geometry, beam)
    attrs = {k: v for k, v in obj.attrs.items() if k in (SOURCE, LOST, SELECTION)}
    attrs |= parameters_attr("reduce", before, records=said)
    made = xr.Coordinates(labels)  # with an index of each label
    indexes = {name: index for name, index in obj.xindexes.items() if name in kept} | dict(made.xindexes)
    # all as coordinates first: put in later, variables would be aligned with what is there, which takes twice as long
    out = xr.Coordinates(kept | dict(made.variables) | variables, indexes).to_dataset().reset_coords(list(variables))
    out.attrs = attrs
    return out


def _asked_of_records(
    obj: xr.DataArray, records: Mapping[str, Record], geometry: Geometry | None, beam: Mapping[str, float]
) -> dict[str, Any]:
    """The calls that made the records, and on what, for recipes."""
    return {
        "records": {name: said_of(record) for name, record in records.items()},
        "units": obj.attrs.get(UNITS),
        "shape": [int(obj.sizes[d]) for d in PIXEL_DIMS],
        "geometry": None if geometry is None else keep(geometry, str(geometry.token)),
        "beam": beam,
        "calibrate": told_of(obj),
    }


def _beam_numbers(obj: xr.DataArray) -> dict[str, float]:
    """What is known of the beam, for all events."""
    numbers = {name: one_value(obj, name) for name in BEAM_COORDS if name in obj.coords}
    return {name: value for name, value in numbers.items() if value is not None}
