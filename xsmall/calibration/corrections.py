"""Common mode as data: corrected frames, the corrections themselves, and from how many pixels they were made."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, cast

import dask
import dask.array as da
import numpy as np
import numpy.typing as npt
import xarray as xr

from xsmall.calibration.calibrate import calibrate
from xsmall.calibration.common_mode.mode import CommonMode, Grid
from xsmall.calibration.common_mode.numbers import CommonModeLike, resolve_common_mode
from xsmall.calibration.common_mode.plan import CommonModeTables
from xsmall.calibration.constants import check_constants, select_constants
from xsmall.calibration.inputs import check_belonging, n_segments_of
from xsmall.detector.types import Decoding, DetectorType, detector_type
from xsmall.engine.transform import per_chunk
from xsmall.errors import CalibrationError, DataError, ParameterError
from xsmall.frames.describe import check_frames, data_of, labels, presence
from xsmall.kernels.stack import flat_frames
from xsmall.vocabulary import (
    ADU,
    COLUMN,
    COLUMN_SUFFIX,
    COMMON_MODE,
    CORRECTED,
    CORRECTION_SUFFIX,
    DETECTOR_TYPE,
    DIMENSIONLESS,
    EVENT,
    GAIN,
    GAIN_CONTROL,
    LONG_NAME,
    N_PIXELS_SUFFIX,
    NOISE,
    PIXEL_DIMS,
    ROW,
    ROW_SUFFIX,
    SEGMENT,
    STATUS,
    UNITS,
)

__all__ = ["common_mode"]

Pixels = xr.DataArray | npt.NDArray[Any]


def common_mode(
    frames: xr.DataArray,
    mode: CommonModeLike = "recommended",
    constants: xr.Dataset | None = None,
    *,
    mask: xr.DataArray | npt.NDArray[np.bool_] | None = None,
    gain_control: xr.DataArray | npt.NDArray[np.integer[Any]] | None = None,
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
        Boolean (segment, row, column), True = the pixel may take part.
    gain_control
        Configuration bits (segment, row, column) for detectors that need them (ePix10ka, ePixHR); left out, the
        coordinate ``gain_control`` of the frames is taken.

    Returns
    -------
    Dataset with ``corrected`` (event, segment, row, column), float32, ADU, NaN where a segment is missing or a gain
    code belongs to no stage; and for each step of the mode, by the name of its unit, such as ``row``:
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
    >>> import numpy as np, xarray as xr
    >>> from xsmall.calibration.common_mode.mode import CommonMode, Subtract
    >>> rows = CommonMode(steps=(Subtract(name="row", rows=1),))
    >>> data = xr.DataArray(np.full((2, 1, 3, 8), 5.0), dims=("event", "segment", "row", "column"))
    >>> result = common_mode(data.assign_attrs(units="ADU", detector_type="camera"), rows)
    >>> float(result["corrected"].max()), float(result["row_correction"].max()), int(result["row_n_pixels"].min())
    (0.0, 5.0, 8)
    """
    prepared = Prepared(frames, constants, mask, gain_control)
    chosen = prepared.resolve(mode)
    grids = chosen.grids(prepared.row, prepared.column)
    whole, words, blocks = prepared.arrays()
    n_units = sum(grid.shape[0] * grid.shape[1] for grid in grids)
    parts = (("corrected", np.float32), ("corrections", np.float32), ("counts", np.int32))
    shapes = ((EVENT, *PIXEL_DIMS), (EVENT, SEGMENT, "unit"), (EVENT, SEGMENT, "unit"))
    work = prepared.tables(chosen)
    if not isinstance(whole, da.Array):
        results: tuple[Any, ...] = _correct_block(whole, words, prepared.present, work)
    else:
        token = dask.base.tokenize(whole.name, words.name if words is not None else None, prepared.token, chosen)
        cells = da.map_blocks(
            _cell, whole, words, blocks[:, None, None, None], tables=work, dtype=object, drop_axis=[1, 2, 3],
            chunks=((1,) * whole.numblocks[0],), meta=np.empty(0, object), name=f"common-mode-{token}",
        )  # fmt: skip
        small = (whole.chunks[0], (whole.shape[1],), (n_units,))
        results = tuple(
            _part(cells, i, whole.chunks if i == 0 else small, dtype, f"common-mode-{name}-{token}")
            for i, (name, dtype) in enumerate(parts)
        )
    variables = [xr.Variable(dims, data) for dims, data in zip(shapes, results, strict=True)]
    return _dataset(frames, chosen, grids, variables)


class Prepared:
    """Frames, and what the common mode needs of constants and masks; shared with the comparison of modes."""

    def __init__(
        self,
        frames: xr.DataArray,
        constants: xr.Dataset | None,
        mask: Pixels | None,
        gain_control: Pixels | None,
    ) -> None:
        check_frames(frames)
        self.frames = frames
        self.name = frames.attrs.get(DETECTOR_TYPE) or (
            constants.attrs.get(DETECTOR_TYPE) if constants is not None else None
        )
        self.entry = detector_type(self.name or "camera")
        if self.entry.decoding is Decoding.GIVEN:
            raise ParameterError(
                f"the common mode of {self.entry.name!r} is not looked at apart from its calibration",
                found="a gain that lies beside the frames",
                fix="calibrate(raw, constants, gain_stage=..., common_mode=...)",
            )
        self.row, self.column = labels(frames, ROW), labels(frames, COLUMN)
        self.is_raw = frames.dtype.kind in "iu"
        self.present = presence(frames)
        self.known: xr.Dataset | None = None
        self.n_segments = frames.sizes[SEGMENT]
        if constants is not None:
            checked = check_constants(constants)
            check_belonging(frames, checked)
            self.known = select_constants(checked, {dim: labels(frames, dim) for dim in PIXEL_DIMS})
            self.n_segments = n_segments_of(frames, checked)
        self.mask = mask
        given = gain_control if gain_control is not None else frames.coords.get(GAIN_CONTROL)
        self.gain_control = given if self.is_raw and self.entry.decoding is Decoding.CONTROL else None
        if self.is_raw and self.known is None:
            raise CalibrationError(
                "the common mode is subtracted after the pedestal",
                found="raw words and no constants",
                expected="constants with the pedestals, or floats in ADU with the pedestal subtracted",
                fix="common_mode(raw, mode, constants)",
            )
        if not self.is_raw and frames.attrs.get(UNITS, ADU) != ADU:
            raise DataError(
                "the common mode is subtracted before the gain is divided out",
                found=f"frames in {frames.attrs[UNITS]!r}",
                expected=f"raw words, or floats in {ADU!r}",
                fix="common_mode(raw, mode, constants), or calibrate(raw, constants, common_mode=...)",
            )
        self.token = dask.base.tokenize(constants, mask, gain_control)

    def resolve(self, mode: CommonModeLike) -> CommonMode:
        """Return the record of a mode of this detector."""
        chosen = resolve_common_mode(mode, self.name, n_segments=self.n_segments)
        if chosen.raw:
            raise ParameterError("mode -1 is raw data: there is no common mode to look at")
        return chosen

    def arrays(self) -> tuple[Any, Any, Any]:
        """Return frames in ADU, raw words or None, and for dask the presence of each chunk."""
        adu = self.frames
        words: Any = None
        if self.is_raw and self.known is not None:
            dark = self.known.drop_vars(GAIN, errors="ignore")
            calibrated = calibrate(
                self.frames.assign_attrs({DETECTOR_TYPE: self.entry.name}), dark, unit=ADU, status_bits=0,
                gain_control=self.gain_control,
            )  # fmt: skip
            adu, words = cast("xr.DataArray", calibrated), data_of(self.frames)
        whole = data_of(adu)
        if not isinstance(whole, da.Array):
            return whole, words, None
        whole = whole.rechunk({1: -1, 2: -1, 3: -1})
        if words is not None:
            words = words.rechunk(whole.chunks)
        return whole, words, per_chunk(self.present, whole.chunks[0], f"present-{whole.name}")

    def tables(self, mode: CommonMode) -> Any:
        """Return the tables of a mode, or a Delayed of them where constants are lazy."""
        shape = tuple(self.frames.sizes[dim] for dim in PIXEL_DIMS)
        known: Mapping[str, Any] = (
            {} if self.known is None else {n: self.known[n].data for n in (STATUS, NOISE) if n in self.known}
        )
        control = self._aligned(self.gain_control)
        arguments = (mode, self.entry, self.row, self.column, shape, self._mask(shape), control)
        if not any(isinstance(a, da.Array) for a in known.values()):
            return _tables(dict(known), *arguments)
        token = dask.base.tokenize(self.token, arguments)
        lazy = dask.delayed(dict(known), name=f"common-mode-constants-{token}")
        build = dask.delayed(_tables, name=False, pure=False, traverse=False)
        return build(lazy, *arguments, dask_key_name=f"common-mode-tables-{token}")

    def _mask(self, shape: tuple[int, ...]) -> npt.NDArray[np.bool_] | None:
        mask = self._aligned(self.mask)
        if mask is not None and (mask.dtype != bool or mask.shape != shape):
            raise ParameterError(
                "a mask is boolean over the pixels, True = use the pixel",
                found=f"{mask.dtype} {mask.shape}",
                expected=f"bool {shape}",
                fix="mask == 1 where 1 is good; mask == 0 where 0 is good",
            )
        return mask

    def _aligned(self, given: Pixels | None) -> npt.NDArray[Any] | None:
        """Values of the pixels of the frames: by labels where there are some."""
        if isinstance(given, xr.DataArray):
            place = {dim: list(labels(self.frames, dim)) for dim in PIXEL_DIMS if dim in given.indexes}
            return given.transpose(*PIXEL_DIMS).sel(place).to_numpy()
        return None if given is None else np.asarray(given)


def _tables(
    known: Mapping[str, npt.NDArray[Any]],
    mode: CommonMode,
    entry: DetectorType,
    row: tuple[int, ...],
    column: tuple[int, ...],
    shape: tuple[int, ...],
    mask: npt.NDArray[np.bool_] | None,
    control: npt.NDArray[Any] | None,
) -> CommonModeTables:
    good = np.ones(shape, bool) if mask is None else mask.copy()
    if STATUS in known:
        word = np.bitwise_or.reduce(known[STATUS][list(entry.status_stages)], axis=0)
        good &= (word & np.asarray(entry.status_bits, dtype=word.dtype)) == 0
    return CommonModeTables(mode, entry, row, column, good, known.get(NOISE), control)


def _correct_block(
    adu: npt.NDArray[np.floating[Any]],
    words: npt.NDArray[Any] | None,
    present: npt.NDArray[np.bool_] | None,
    tables: CommonModeTables,
) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float32], npt.NDArray[np.int32]]:
    """Correct a block of events; return frames, corrections and counts."""
    n, n_segments = adu.shape[:2]
    out = np.empty(adu.shape, np.float32)
    corrections = np.full((n, n_segments, tables.n_units), np.nan, np.float32)
    counts = np.zeros(corrections.shape, np.int32)
    for e in range(n):
        for s in range(n_segments):
            if present is not None and not present[e, s]:
                out[e, s] = np.nan
                continue
            image = out[e : e + 1, s]
            np.copyto(image, adu[e : e + 1, s], casting="same_kind")
            flat, step = (None, 0) if words is None else flat_frames(words[e : e + 1, s])
            tables.correct(s, flat, step, np.ascontiguousarray(image), corrections[e : e + 1, s], counts[e : e + 1, s])
    return out, corrections, counts


def _cell(
    adu: Any, words: Any, present: npt.NDArray[np.object_], *, tables: CommonModeTables
) -> npt.NDArray[np.object_]:
    cell = np.empty(1, object)
    cell[0] = _correct_block(adu, words, present.item(), tables)
    return cell


def _part(cells: da.Array, i: int, chunks: tuple[tuple[int, ...], ...], dtype: Any, name: str) -> da.Array:
    """Take the i-th array out of the cells."""
    return da.map_blocks(
        _take, cells, i, dtype=dtype, new_axis=list(range(1, len(chunks))), chunks=chunks,
        meta=np.empty((0,) * len(chunks), dtype), name=name,
    )  # fmt: skip


def _take(cell: npt.NDArray[np.object_], i: int) -> Any:
    return cell[0][i]


def _dataset(
    frames: xr.DataArray, mode: CommonMode, grids: tuple[Grid, ...], variables: list[xr.Variable]
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
