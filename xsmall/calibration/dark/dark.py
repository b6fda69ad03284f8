"""Constants from dark runs: pedestal, noise and status of every pixel and gain stage."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Final

import dask
import dask.array as da
import numpy as np
import numpy.typing as npt
import xarray as xr

from xsmall.calibration.beside import gain_control_of
from xsmall.calibration.constants import stage_labels
from xsmall.calibration.dark.sums import (
    STATUS_MEANINGS,
    DarkLimits,
    DarkStage,
    DarkSums,
    limits_of_type,
    stage_of_codes,
    stage_result,
)
from xsmall.calls import warn_user
from xsmall.detector.frames import Frames
from xsmall.detector.padded import are_padded
from xsmall.detector.part import Part
from xsmall.detector.types import Decoding, DetectorType, detector_type
from xsmall.engine.blocks import Batch, Unopened, group_chunks, unopened_blocks
from xsmall.errors import CalibrationError, DataError
from xsmall.frames.describe import data_of, describe
from xsmall.vocabulary import (
    ADU,
    BOUND,
    COUNT,
    DETECTOR_SHAPE,
    DETECTOR_TYPE,
    DIMENSIONLESS,
    EVENT,
    EXPERIMENT,
    FLAG_MASKS,
    FLAG_MEANINGS,
    GAIN,
    GAIN_STAGE,
    LIMITS_SUFFIX,
    LONG_NAME,
    LOST,
    MAXIMUM,
    MINIMUM,
    NOISE,
    OFFSET,
    PARAMETERS,
    PEDESTAL,
    PIXEL_DIMS,
    SEGMENT_IDS,
    STATUS,
    UNITS,
)

__all__ = ["DarkWarning", "dark", "derive_low_pedestals"]

FEW_EVENTS: Final = 100
"""Fewer events than these make pedestals whose error is a tenth of the noise or more, and are warned of."""

_SUMS_BYTES: Final = 1 << 30  # what the sums of all tasks together may take
_BYTES_PER_PIXEL: Final = 36
_VARIABLES: Final = (PEDESTAL, NOISE, STATUS, COUNT, MINIMUM, MAXIMUM)
_DTYPES: Final = (np.float32, np.float32, np.uint64, np.uint32, np.int32, np.int32)


class DarkWarning(UserWarning):
    """Something about dark runs that makes their constants doubtful."""


@dataclass(frozen=True)
class _DarkRun:
    """One dark run: its frames, which segments of which events count, and the configuration of the pixels."""

    frames: npt.NDArray[Any] | da.Array
    present: npt.NDArray[np.bool_] | None
    control: npt.NDArray[Any] | None
    kinds: int = 0


def dark(
    raw: xr.DataArray | Iterable[xr.DataArray],
    *,
    limits: DarkLimits | None = None,
    gain_control: xr.DataArray | npt.NDArray[np.integer[Any]] | None = None,
) -> xr.Dataset:
    """Make pedestal, noise and status of every pixel and gain stage from dark runs.

    Each pixel's gain stage is read from its raw words (and its configuration), event by event: runs of the stages may
    come one by one, in any order, or in one array.

    Parameters
    ----------
    raw
        Raw words (event, segment, row, column) with ``attrs["detector_type"]``, or several such arrays, one for each
        gain setting: for Jungfrau the runs in gain 0, forced gain 1 and forced gain 2.
    limits
        Where a pixel stops being good; see :class:`~xsmall.calibration.dark.sums.DarkLimits`.
    gain_control
        Configuration bits (segment, row, column) of detectors that need them (ePix10ka, ePixHR), where they are the
        same for all runs; left out, the coordinate ``gain_control`` of each array is taken.

    Returns
    -------
    Dataset of constants over (gain_stage, segment, row, column), lazy where ``raw`` is: ``pedestal`` [ADU] and
    ``noise`` [ADU], float32, NaN where a pixel was in the stage in too few events; ``status``, uint64, 0 = good, bits
    as CF flags; and beside the schema of constants ``count`` (events), ``minimum`` and ``maximum`` [ADU], and
    ``pedestal_limits``, ``noise_limits`` (gain_stage, bound). A gain is to be added: ``dark(...).assign(gain=...)``.

    Raises
    ------
    DataError
        The arrays are not raw words of one detector, or there are not even two events.
    CalibrationError
        The detector type is not known, or the configuration of the pixels is missing.

    Warns
    -----
    DarkWarning
        Fewer than 100 events; when computed: a gain stage that no pixel was in, or frames that look as if there was
        beam in them.

    Notes
    -----
    One pass. Sums are exact 64-bit integers, so no chunking or order changes the result. About 0.4 ms per event of 0.5
    Mpixel and 36 bytes per pixel and stage while it runs. The noise is the standard deviation of the sample. Missing
    segments and damaged ones (coordinates ``present``, ``damage``) are left out, and padded ones, whose words are all
    one value or all saturated.

    Examples
    --------
    >>> import numpy as np, xarray as xr, xsmall as xs
    >>> words = np.random.default_rng(0).normal(100, 3, (200, 1, 8, 16)).round().astype("uint16")
    >>> frames = xr.DataArray(words, dims=("event", "segment", "row", "column"), attrs={"detector_type": "opal"})
    >>> constants = xs.dark(frames)
    >>> bool(abs(constants["pedestal"].mean() - 100) < 0.1), bool(abs(constants["noise"].mean() - 3) < 0.1)
    (True, True)
    """
    arrays = [raw] if isinstance(raw, xr.DataArray) else list(raw)
    chosen = DarkLimits() if limits is None else limits
    known = [describe(array) for array in arrays]
    entry = _check_runs(known)
    _check_number_of_events(sum(array.sizes[EVENT] for array in arrays))
    chosen = limits_of_type(chosen, entry, {array.dtype for array in arrays})
    runs = [
        _DarkRun(data_of(array), frames.usable, gain_control_of(array, entry, gain_control, frames.part), frames.kinds)
        for array, frames in zip(arrays, known, strict=True)
    ]
    shape = known[0].shape
    if any(isinstance(run.frames, da.Array) for run in runs):
        results = _dark_graph(runs, entry, chosen, shape)
    else:
        results = _finish_darks(
            [_dark_sums(run.frames, run.present, entry, chosen) for run in runs], runs, entry, chosen
        )
    return _dark_dataset(results, arrays, known[0].part, entry, chosen)


def _check_runs(runs: Sequence[Frames]) -> DetectorType:
    if not runs:
        raise DataError("there is no dark run", found="nothing", expected="at least one array of raw words")
    for run in runs:
        if run.dtype.kind not in "iu":
            raise DataError(
                "dark processing takes raw words, gain bits included", found=f"dtype {run.dtype}", expected="integers"
            )
        if run.dtype.itemsize > 4:
            raise DataError(
                "dark processing takes words of at most 32 bits",
                found=f"dtype {run.dtype}",
                fix='raw.astype("int32")',
            )
        for dim, mine, first in zip(PIXEL_DIMS, run.part, runs[0].part, strict=True):
            if mine != first:
                raise DataError(
                    f"the dark runs differ in {dim!r}", fix="give all runs of the same part of the detector"
                )
    modules = {run.serial_numbers for run in runs if run.serial_numbers}
    if len(modules) > 1:
        raise DataError(
            "dark runs of different detectors",
            found="; ".join(str(dict(of_run)) for of_run in sorted(modules)),
            expected="the same module in each segment of all runs",
        )
    entries = {detector_type(run.detector_type) for run in runs}
    if len(entries) > 1:
        raise DataError("dark runs of different detectors", found=sorted(e.name for e in entries), expected="one")
    entry = entries.pop()
    if entry.decoding is Decoding.BESIDE:
        raise CalibrationError(
            f"{entry.name!r} keeps its gain stage outside the raw word: darks of it are not made here",
            fix="open the constants of the facility with xs.open_constants",
        )
    return entry


def _check_number_of_events(n: int) -> None:
    if n < 2:
        raise DataError("a dark run needs events", found=f"{n} events", expected=f"{FEW_EVENTS} or more")
    if n < FEW_EVENTS:
        warn_user(
            f"{n} dark events: the pedestals are uncertain by {1 / math.sqrt(n):.2f} times the noise of a pixel; "
            f"take {FEW_EVENTS} events or more",
            DarkWarning,
        )


def _dark_sums(
    frames: npt.NDArray[Any],
    present: npt.NDArray[np.bool_] | None,
    entry: DetectorType,
    limits: DarkLimits,
    into: DarkSums | None = None,
) -> DarkSums:
    """Add frames in memory to sums."""
    sums = DarkSums(entry, limits, frames.shape[1:]) if into is None else into
    for s in range(frames.shape[1]):
        of_segment = frames[:, s]
        here = ~are_padded(of_segment, entry) if present is None else present[:, s] & ~are_padded(of_segment, entry)
        sums.add(s, of_segment if here.all() else of_segment[here])
    return sums


def _sums_of_block(block: npt.NDArray[np.object_], entry: DetectorType, limits: DarkLimits) -> npt.NDArray[np.object_]:
    unopened: Unopened = block.item()
    sums: DarkSums | None = None
    for batch in unopened.batches():
        sums = _dark_sums(batch.frames, batch.present, entry, limits, sums)
    cell = np.empty(1, object)
    cell[0] = sums
    return cell


def _merged_cells(*cells: npt.NDArray[np.object_]) -> npt.NDArray[np.object_]:
    """Merge the sums of blocks; copies nothing but the first."""
    first, *others = (cell.item() for cell in cells)
    out = first.empty().merge(first)
    for other in others:
        out.merge(other)
    cell = np.empty(1, object)
    cell[0] = out
    return cell


def _dark_graph(runs: Sequence[_DarkRun], entry: DetectorType, limits: DarkLimits, shape: tuple[int, ...]) -> list[Any]:
    """Build the graph: blocks of events to sums, merged run by run, and the constants of all."""
    merged = []
    token = dask.base.tokenize(
        "dark", [(_frames_token(r.frames), r.present, r.control) for r in runs], entry.name, limits
    )
    for i, run in enumerate(runs):
        frames = run.frames if isinstance(run.frames, da.Array) else da.from_array(run.frames, chunks=-1)
        blocks = _blocks_of_events(frames, math.prod(shape))
        cells = da.map_blocks(
            _sums_of_block,
            unopened_blocks(Batch(frames, run.present, kinds=run.kinds), blocks, f"dark-frames-{i}-{token}"),
            entry=entry, limits=limits, dtype=object, meta=np.empty(0, object), name=f"dark-sums-{i}-{token}",
        )  # fmt: skip
        parts = [cells.blocks[j] for j in range(cells.numblocks[0])]
        step = dask.delayed(_merged_cells, pure=False)
        merged.append(step(*parts, dask_key_name=f"dark-merged-{i}-{token}"))
    final = dask.delayed(_finish_cells, pure=False)(
        merged, [(r.control, r.frames.shape) for r in runs], entry, limits, dask_key_name=f"dark-constants-{token}"
    )
    n = entry.n_stages
    full = [da.from_delayed(final[i], (n, *shape), dtype) for i, dtype in enumerate(_DTYPES)]
    return [*full, *(da.from_delayed(final[len(_DTYPES) + i], (n, 2), float) for i in range(2))]


def _frames_token(frames: npt.NDArray[Any] | da.Array) -> object:
    return frames.name if isinstance(frames, da.Array) else frames


def _blocks_of_events(frames: da.Array, n_pixels: int) -> list[tuple[int, int]]:
    """Cut the events into blocks of whole chunks, as few as keep the sums of all blocks small."""
    n_events = frames.shape[0]
    most = max(1, min(64, _SUMS_BYTES // (n_pixels * _BYTES_PER_PIXEL)))
    return list(group_chunks(frames.chunks[0], max(1, -(-n_events // most))))


def _finish_cells(cells: list[Any], controls: list[Any], entry: DetectorType, limits: DarkLimits) -> list[Any]:
    runs = [_DarkRun(np.empty((0, *shape[1:]), np.uint8), None, control) for control, shape in controls]
    return _finish_darks([cell.item() for cell in cells], runs, entry, limits)


def _finish_darks(sums: list[DarkSums], runs: Sequence[_DarkRun], entry: DetectorType, limits: DarkLimits) -> list[Any]:
    """Turn the sums of all runs into the arrays of the constants; warns of what makes them doubtful."""
    pairs = [(of_run, stage_of_codes(entry, run.control, of_run.shape)) for of_run, run in zip(sums, runs, strict=True)]
    stages = [stage_result(entry, limits, stage, pairs) for stage in range(entry.n_stages)]
    _warn(entry, stages)
    full = [
        np.stack([getattr(stage, name) for stage in stages])
        for name in ("pedestal", "noise", "status", "count", "least", "most")
    ]
    return [*full, np.array([s.pedestal_limits for s in stages]), np.array([s.noise_limits for s in stages])]


def _warn(entry: DetectorType, stages: Sequence[DarkStage]) -> None:
    control = entry.decoding is Decoding.CONTROL  # pixels stay in the stage that they are configured for
    lacking = [name for name, stage in zip(entry.stages, stages, strict=True) if not stage.measured and not control]
    if lacking:
        warn_user(
            f"no pixel, or few, were in gain stage {', '.join(lacking)}: pedestals are NaN where there are none; "
            "give the dark runs of all gain settings: dark([gain0, gain1, gain2])",
            DarkWarning,
        )
    for name, stage in zip(entry.stages, stages, strict=True):
        if stage.seen and stage.looks_lit:
            warn_user(
                f"the frames in gain stage {name} do not look dark: their values reach {stage.asymmetry:.1f} times as "
                f"far to one side as to the other, and their mean varies by {stage.level:.1f} times the noise of a "
                "pixel; was there beam? Take a run with the shutter closed, or select dark events: "
                "raw.isel(event=~xray_on)",
                DarkWarning,
            )


def _identity_of_runs(arrays: Sequence[xr.DataArray]) -> dict[str, Any]:
    """What the runs say, all alike, of the detector and the experiment; and what each of them had lost."""
    first, *others = (array.attrs for array in arrays)
    lost = "; ".join(str(attrs[LOST]) for attrs in (first, *others) if LOST in attrs)
    alike = {
        name: first[name]
        for name in (SEGMENT_IDS, DETECTOR_SHAPE, EXPERIMENT)
        if name in first and all(np.array_equal(first[name], attrs.get(name, ())) for attrs in others)
    }
    return alike | ({LOST: lost} if lost else {})


def _dark_dataset(
    results: Sequence[Any], arrays: Sequence[xr.DataArray], part: Part, entry: DetectorType, limits: DarkLimits
) -> xr.Dataset:
    dims = (GAIN_STAGE, *PIXEL_DIMS)
    said = {"function": "dark", "events": [array.sizes[EVENT] for array in arrays], **asdict(limits)}
    names = {
        PEDESTAL: "ADC value without light", NOISE: "standard deviation without light",
        STATUS: "reasons against the pixel, 0 = good", COUNT: "events in which the pixel was in this stage",
        MINIMUM: "smallest value", MAXIMUM: "largest value",
    }  # fmt: skip
    out = xr.Dataset(
        {
            name: (dims, data, {UNITS: DIMENSIONLESS if name in (STATUS, COUNT) else ADU, LONG_NAME: names[name]})
            for name, data in zip(_VARIABLES, results, strict=False)
        },
        coords={GAIN_STAGE: stage_labels(entry)} | dict(zip(PIXEL_DIMS, map(list, part), strict=True)),
        attrs=_identity_of_runs(arrays) | {DETECTOR_TYPE: entry.name, PARAMETERS: json.dumps(said)},
    )
    out[STATUS].attrs = {
        LONG_NAME: names[STATUS],
        FLAG_MASKS: [1 << bit for bit in range(len(STATUS_MEANINGS))],
        FLAG_MEANINGS: " ".join(STATUS_MEANINGS),
    }
    for name, data in zip((PEDESTAL, NOISE), results[len(_VARIABLES) :], strict=True):
        out[name + LIMITS_SUFFIX] = ((GAIN_STAGE, BOUND), data, {UNITS: ADU})
    return out


_SWITCHED: Final = (("AHL_L", "AHL_H"), ("AML_L", "AML_M"))


def derive_low_pedestals(constants: xr.Dataset, charge_injection: xr.Dataset) -> xr.Dataset:
    """Fill in the pedestals of the ranges that a pixel of ePix10ka or ePixHR reaches by switching only.

    In the dark no pixel switches: these pedestals follow from charge injection, pedestal_low = offset_low -
    (offset_high - pedestal_high) gain_low / gain_high, as in psana.

    Parameters
    ----------
    constants
        Constants with the pedestals of the ranges before switching, from :func:`dark`.
    charge_injection
        ``offset`` [ADU] and ``gain``, the straight lines of charge injection in each range, over the same (gain_stage,
        segment, row, column).

    Returns
    -------
    ``constants`` with the pedestals of the ranges AHL_L and AML_L.

    Raises
    ------
    CalibrationError
        The detector has no such ranges, or offset or gain are missing.
    """
    entry = detector_type(constants.attrs.get(DETECTOR_TYPE))
    if entry.decoding is not Decoding.CONTROL or "AHL_L" not in entry.stages:
        raise CalibrationError(f"{entry.name!r} has no ranges that are reached by switching only")
    lacking = [name for name in (OFFSET, GAIN) if name not in charge_injection]
    if lacking:
        raise CalibrationError(
            "charge injection gives offset and gain of each range",
            found=list(map(str, charge_injection.data_vars)),
            expected=[OFFSET, GAIN],
        )
    stages = {name: {GAIN_STAGE: i} for i, name in enumerate(entry.stages)}
    offset, gain = charge_injection[OFFSET], charge_injection[GAIN]
    planes = [constants[PEDESTAL].isel({GAIN_STAGE: i}) for i in range(entry.n_stages)]
    for low, high in _SWITCHED:
        above = planes[entry.stages.index(high)]
        ratio = (gain.isel(stages[low]) / gain.isel(stages[high])).where(gain.isel(stages[high]) != 0)
        low_pedestal = offset.isel(stages[low]) - (offset.isel(stages[high]) - above) * ratio
        planes[entry.stages.index(low)] = low_pedestal.astype(np.float32)
    filled = xr.concat([p.drop_vars(GAIN_STAGE, errors="ignore") for p in planes], GAIN_STAGE)
    data = filled.transpose(GAIN_STAGE, *PIXEL_DIMS).variable
    return constants.assign({PEDESTAL: data}).assign_attrs(constants.attrs)
