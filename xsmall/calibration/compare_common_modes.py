"""Which common mode is best for these data: the noise that each of them leaves."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import dask.array as da
import numpy as np
import numpy.typing as npt
import xarray as xr

from xsmall.calibration.common_mode.adu import AduFrames, AduTables
from xsmall.calibration.common_mode.mode import CommonMode
from xsmall.calibration.common_mode.numbers import CommonModeLike, common_mode_numbers, gain_stages_of
from xsmall.engine.blocks import Batch
from xsmall.errors import ParameterError
from xsmall.frames.per_pixel import Pixels
from xsmall.kernels.median import row_medians
from xsmall.vocabulary import (
    ADU,
    COMMON_MODE,
    DIMENSIONLESS,
    EVENT,
    FRACTION_CORRECTED,
    LONG_NAME,
    MODE,
    NOISE,
    SEGMENT,
    UNITS,
)

__all__ = ["compare_common_modes"]

_TO_SIGMA = 1.4826022185056018  # of a normal distribution: sigma over the median of the absolute value
_NOT_COMPARED = (-1, 30, 98)  # raw words, whatever psana's constants say, and a mode that corrects nothing


def compare_common_modes(
    frames: xr.DataArray,
    constants: xr.Dataset | None = None,
    *,
    modes: Sequence[CommonModeLike] | None = None,
    mask: Pixels | None = None,
    gain_control: Pixels | None = None,
    gain_stage: xr.DataArray | None = None,
) -> xr.Dataset:
    """Measure, event by event, the noise that common modes leave in dark or weakly lit frames.

    The noise is that of an image about zero: 1.48 times the median distance of the good pixels from their pedestal,
    which photons in a few percent of the pixels do not move. It holds the noise of the pixels and what is left of
    offsets of rows, columns and banks; an error of the pedestals adds the same to all modes.

    Parameters
    ----------
    frames, constants, mask, gain_control, gain_stage
        As in :func:`~xsmall.calibration.corrections.common_mode`. A few hundred events are plenty:
        ``raw.isel(event=slice(0, 200))``.
    modes
        Numbers, parameter tuples or records; None: every number of the detector that the constants and the length of
        its rows allow. "No common mode" is always the first.

    Returns
    -------
    Dataset over (mode, event, segment), lazy where ``frames`` is: ``noise`` [ADU], float32, NaN where a segment is
    missing, and ``fraction_corrected``, the share of the units that a correction could be made for (NaN without any).
    ``common_mode`` (mode) says what each does. ``result["noise"].mean("event")`` ranks them;
    :func:`xsmall.plot_common_modes` draws them.

    Raises
    ------
    ParameterError, CalibrationError, DataError
        As in :func:`~xsmall.calibration.corrections.common_mode`.

    Notes
    -----
    Cost: per mode that of the correction and of one median of the whole image, about 4 ms per 0.5 Mpixel.

    Examples
    --------
    >>> import numpy as np, xarray as xr, xsmall as xs
    >>> rows = xs.CommonMode(steps=(xs.Subtract(name="row", rows=1),), origin="rows")
    >>> rng = np.random.default_rng(0)
    >>> values = rng.normal(0, 2, (9, 1, 32, 64)) + rng.normal(0, 5, (9, 1, 32, 1))
    >>> data = xr.DataArray(values.astype("f4"), dims=("event", "segment", "row", "column"))
    >>> result = xs.compare_common_modes(data.assign_attrs(units="ADU", detector_type="camera"), modes=[rows])
    >>> bool(result["noise"].sel(mode="rows").mean() < 2.1 < result["noise"].sel(mode="none").mean())
    True
    """
    given = AduFrames(frames, constants, mask, gain_control, gain_stage)
    chosen = _modes(given, modes)
    result: Any = given.map(_measure_modes, tuple(chosen), "compare-common-modes")
    if isinstance(result, da.Array):
        shape = (given.chunks[0], (len(chosen),), (sum(given.chunks[1]),), (2,))
        result = da.map_blocks(
            _held_in_cell,
            result,
            dtype=np.float32,
            new_axis=[1, 2, 3],
            chunks=shape,
            meta=np.empty((0, 0, 0, 0), np.float32),
        )
    dims = (MODE, EVENT, SEGMENT)
    noise, fraction = (np.moveaxis(result[..., i], 1, 0) for i in range(2))
    coords = {n: c for n, c in frames.coords.items() if set(c.dims) <= {EVENT, SEGMENT} and n not in (MODE,)}
    return xr.Dataset(
        {
            NOISE: (dims, noise, {UNITS: ADU, LONG_NAME: "spread of the good pixels about their pedestal"}),
            FRACTION_CORRECTED: (dims, fraction, {UNITS: DIMENSIONLESS}),
        },
    ).assign_coords(coords).assign_coords(
        {MODE: [_label_of_mode(mode) for mode in chosen], COMMON_MODE: (MODE, [mode.describe() for mode in chosen])}
    )  # fmt: skip


def _modes(given: AduFrames, modes: Sequence[CommonModeLike] | None) -> list[CommonMode]:
    """No common mode first, then those asked for, or all numbers that can be done with these constants."""
    if modes is not None:
        found = [given.resolve(mode) for mode in modes]
    else:
        numbers = [] if given.name is None else common_mode_numbers(given.name)
        every = [given.resolve(n) for n in numbers if n not in _NOT_COMPARED]
        has_noise = given.has_noise
        found = [mode for mode in every if (has_noise or not mode.needs_noise) and _mode_fits(mode, given)]
    out = [given.resolve(None)]
    for mode in found:
        if mode.steps and mode.steps not in [other.steps for other in out]:
            out.append(mode)
    if len(out) == 1:
        raise ParameterError(
            "there is no common mode to compare with",
            found=f"detector_type {given.name!r}, modes={modes!r}",
            fix="modes=[CommonMode(steps=(Subtract(name='row', rows=1),))]",
        )
    stages = gain_stages_of(given.entry.name)
    out[0] = replace(out[0], gain_stages=stages, segment_shape=None)  # noise of the same pixels in all modes
    return out


def _mode_fits(mode: CommonMode, given: AduFrames) -> bool:
    """Whether units of so many consecutive pixels go into rows of this length: cameras have any."""
    shape = mode.segment_shape or (given.part.row[-1] + 1, given.part.column[-1] + 1)
    try:
        for step in mode.subtractions:
            step.unit(shape)
    except ParameterError:
        return False
    return True


def _label_of_mode(mode: CommonMode) -> str:
    if not mode.steps:
        return "none"
    return mode.origin if mode.number is None else str(mode.number)


def _held_in_cell(cell: npt.NDArray[np.object_]) -> Any:
    return cell.item()


def _measure_modes(batch: Batch, tables: AduTables) -> npt.NDArray[np.float32]:
    """Noise and share of units corrected, (event, mode, segment, 2)."""
    n, n_segments = batch.frames.shape[:2]
    out = np.full((n, tables.n_modes, n_segments, 2), np.nan, np.float32)
    for s, group, stack, here in tables.stacks(batch):
        image = tables.in_adu(s, stack)
        use = tables.use(s, stack)
        for m in range(tables.n_modes):
            taken = np.empty((stack.k, tables.n_units_of(m)), np.float32)
            corrected = tables.correct(s, m, stack, image.copy(), taken)
            for j in np.flatnonzero(here):
                median, _ = row_medians(
                    np.abs(corrected[j]).reshape(1, -1), use[j if len(use) > 1 else 0].reshape(1, -1)
                )
                out[group, m, s][j] = _TO_SIGMA * median.item(), _share_corrected(taken[j])
    return out


def _share_corrected(corrections: npt.NDArray[np.float32]) -> float:
    return float(np.isfinite(corrections).mean()) if corrections.size else np.nan
