"""Common mode as data: corrected frames, the corrections themselves, and from how many pixels they were made."""

from __future__ import annotations

from typing import Any

import dask
import dask.array as da
import numpy as np
import numpy.typing as npt
import xarray as xr

from xsmall.calibration.common_mode.adu import AduFrames, AduTables
from xsmall.calibration.common_mode.mode import CommonMode, UnitGrid
from xsmall.calibration.common_mode.numbers import CommonModeLike
from xsmall.engine.blocks import Batch
from xsmall.frames.per_pixel import Pixels
from xsmall.vocabulary import (
    ADU,
    COLUMN_SUFFIX,
    COMMON_MODE,
    CORRECTED,
    CORRECTION_SUFFIX,
    DIMENSIONLESS,
    EVENT,
    GAIN_STAGE,
    LONG_NAME,
    N_PIXELS_SUFFIX,
    PIXEL_DIMS,
    ROW_SUFFIX,
    SEGMENT,
    UNITS,
)

__all__ = ["common_mode"]


def common_mode(
    frames: xr.DataArray,
    mode: CommonModeLike = "recommended",
    constants: xr.Dataset | None = None,
    *,
    mask: Pixels | None = None,
    gain_control: Pixels | None = None,
    gain_stage: xr.DataArray | None = None,
) -> xr.Dataset:
    """Estimate and subtract the common mode, and return the corrections beside the corrected frames.

    Parameters
    ----------
    frames
        Raw words (event, segment, row, column), with ``constants``; or floats in ADU with the pedestal subtracted.
    mode
        Number of smalldata_tools or psana for this detector, psana's parameter tuple, ``"recommended"``, or a
        :class:`~xsmall.calibration.common_mode.mode.CommonMode`.
    constants
        Constants of the detector: pedestals of raw words, ``status`` and, where the mode needs it, ``noise``.
    mask
        Boolean (segment, row, column), True = the pixel may take part; or flags of reasons.
    gain_control
        Configuration bits (segment, row, column) for detectors that need them (ePix10ka, ePixHR); left out, the
        coordinate ``gain_control`` of the frames is taken.
    gain_stage
        Of raw words whose gain lies beside them, as for :func:`xsmall.calibrate`. Of floats nobody knows which pixels
        have switched their gain: all take part, or those that are configured for the stages of the mode.

    Returns
    -------
    Dataset with ``corrected`` (event, segment, row, column), float32, ADU, NaN where a segment is missing or
    damaged or a gain code belongs to no stage; and for each step of the mode, by the name of its unit, such as ``row``:
    ``row_correction`` [ADU], float32, what was subtracted (NaN: nothing could be), and ``row_n_pixels``, int32, from
    how many pixels it was estimated, both (event, segment, row_row, row_column) with the labels of the first row and
    column of each unit. ``attrs["common_mode"]`` says what was done. Lazy where ``frames`` is.

    Raises
    ------
    ParameterError
        The detector has no such mode; the message lists those that exist.
    CalibrationError
        Constants that the mode needs are missing.
    DataError
        The frames are calibrated already, or a slice has cut units.

    Notes
    -----
    Cost: about 2 ms per 0.5 Mpixel for rows and columns. ``calibrate(..., common_mode=...)`` does the same in the pass
    of the calibration; this function is for looking at what it does.

    Examples
    --------
    >>> import numpy as np, xarray as xr, xsmall as xs
    >>> rows = xs.CommonMode(steps=(xs.Subtract(name="row", rows=1),))
    >>> data = xr.DataArray(np.full((2, 1, 3, 8), 5.0), dims=("event", "segment", "row", "column"))
    >>> result = xs.common_mode(data.assign_attrs(units="ADU", detector_type="camera"), rows)
    >>> float(result["corrected"].max()), float(result["row_correction"].max()), int(result["row_n_pixels"].min())
    (0.0, 5.0, 8)
    """
    given = AduFrames(frames, constants, mask, gain_control, gain_stage)
    chosen = given.resolve(mode)
    grids = given.grids(chosen)
    n_units = sum(grid.shape[0] * grid.shape[1] for grid in grids)
    parts = (("corrected", np.float32), ("corrections", np.float32), ("counts", np.int32))
    shapes = ((EVENT, *PIXEL_DIMS), (EVENT, SEGMENT, "unit"), (EVENT, SEGMENT, "unit"))
    results: Any = given.map(_correct, (chosen,), "common-mode")
    if isinstance(results, da.Array):
        cells, whole = results, given.chunks
        small = (whole[0], (sum(whole[1]),), (n_units,))
        token = dask.base.tokenize(cells.name)
        results = tuple(
            _array_of_cells(cells, i, whole if i == 0 else small, dtype, f"common-mode-{name}-{token}")
            for i, (name, dtype) in enumerate(parts)
        )
    variables = [xr.Variable(dims, data) for dims, data in zip(shapes, results, strict=True)]
    return _corrections_dataset(frames.drop_vars(GAIN_STAGE, errors="ignore"), chosen, grids, variables)


def _correct(
    batch: Batch, tables: AduTables
) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float32], npt.NDArray[np.int32]]:
    """Correct some events; return frames, corrections and counts."""
    n, n_segments = batch.frames.shape[:2]
    out = np.full(batch.frames.shape, np.nan, np.float32)
    corrections = np.full((n, n_segments, tables.n_units), np.nan, np.float32)
    counts = np.zeros(corrections.shape, np.int32)
    for s, group, stack, here in tables.stacks(batch):
        of_frames, of_counts = corrections[group, s], counts[group, s]
        out[group, s] = tables.correct(s, 0, stack, tables.in_adu(s, stack), of_frames, of_counts)
        out[group, s][~here], of_frames[~here], of_counts[~here] = np.nan, np.nan, 0
    return out, corrections, counts


def _array_of_cells(cells: da.Array, i: int, chunks: tuple[tuple[int, ...], ...], dtype: Any, name: str) -> da.Array:
    """Take the i-th array out of the cells."""
    return da.map_blocks(
        _take_of_cell, cells, i, dtype=dtype, new_axis=list(range(1, len(chunks))), chunks=chunks,
        meta=np.empty((0,) * len(chunks), dtype), name=name,
    )  # fmt: skip


def _take_of_cell(cell: npt.NDArray[np.object_], i: int) -> Any:
    return cell[0][i]


def _corrections_dataset(
    frames: xr.DataArray, mode: CommonMode, grids: tuple[UnitGrid, ...], variables: list[xr.Variable]
) -> xr.Dataset:
    corrected, corrections, counts = variables
    said = f"{mode.origin}: {mode.describe()}"
    attrs = {key: value for key, value in frames.attrs.items() if key != LONG_NAME} | {UNITS: ADU, COMMON_MODE: said}
    array = xr.DataArray(corrected.data, dims=corrected.dims, coords=frames.coords, attrs=attrs)
    out = array.to_dataset(name=CORRECTED)
    for grid in grids:
        dims = (EVENT, SEGMENT, grid.name + ROW_SUFFIX, grid.name + COLUMN_SUFFIX)
        out = out.assign_coords({dims[2]: list(grid.row), dims[3]: list(grid.column)})
        part = slice(grid.offset, grid.offset + grid.shape[0] * grid.shape[1])
        for suffix, source, unit in ((CORRECTION_SUFFIX, corrections, ADU), (N_PIXELS_SUFFIX, counts, DIMENSIONLESS)):
            data = source.data[:, :, part].reshape(*source.shape[:2], *grid.shape)
            out[grid.name + suffix] = (dims, data, {UNITS: unit})
    return out.assign_attrs({COMMON_MODE: said})
