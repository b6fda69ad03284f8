"""Straight lines of curved ones: spectrometer images, shifted column by column without losing flux."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import xarray as xr

from xsmall.engine.pairs import paired
from xsmall.errors import DataError, ParameterError
from xsmall.frames.variance import PIXELS, values_and_variance
from xsmall.vocabulary import COLUMN, GEOMETRY, POSITION, ROW

__all__ = ["check_along", "checked_coefficients", "shifted", "shifts_of", "straighten"]


def straighten(
    frames: xr.DataArray | xr.Dataset, coefficients: Sequence[float], *, along: Literal["row", "column"] = "row"
) -> xr.DataArray | xr.Dataset:
    """Straighten frames or images by hand; what comes back, and what raises, is told by :func:`xsmall.straighten`."""
    check_along(along)
    if ROW not in frames.dims or COLUMN not in frames.dims:
        raise DataError("an image has rows and columns", found=tuple(frames.dims), expected=f"{ROW!r} and {COLUMN!r}")
    if isinstance(frames, xr.Dataset):
        return _straight_pair(frames, coefficients, along)
    return _straight(frames, coefficients, along, power=1)


def check_along(along: object) -> None:
    """Refuse what is no dim that pixels can move along."""
    if along not in (ROW, COLUMN):
        raise ParameterError("unknown dim to move along", found=along, expected=f"{ROW!r} or {COLUMN!r}")


def _straight_pair(frames: xr.Dataset, coefficients: Sequence[float], along: Literal["row", "column"]) -> xr.Dataset:
    values, variance = values_and_variance(frames, PIXELS)
    out = _straight(values, coefficients, along, power=1).to_dataset()
    if variance is None:
        return out
    return paired(out.assign({str(variance.name): _straight(variance, coefficients, along, power=2)}))


def _straight(frames: xr.DataArray, coefficients: Sequence[float], along: str, power: int) -> xr.DataArray:
    """Shifted frames, each part of a shared pixel to a power."""
    across = COLUMN if along == ROW else ROW
    shift, extra = shifts_of(coefficients, _consecutive_labels(frames, across), frames.sizes[along])
    core = frames.drop_vars([n for n, c in frames.coords.items() if n in (GEOMETRY, *POSITION) or along in c.dims])
    first = _consecutive_labels(frames, along)[0] if frames.sizes[along] else 0
    out: xr.DataArray = xr.apply_ufunc(
        shifted,
        core.chunk({along: -1, across: -1}) if core.chunks else core,
        input_core_dims=[[along, across]],
        output_core_dims=[[along, across]],
        exclude_dims={along},
        kwargs={"shift": shift, "extra": extra, "power": power},
        dask="parallelized",
        output_dtypes=[np.result_type(frames.dtype, np.float32)],
        dask_gufunc_kwargs={"output_sizes": {along: frames.sizes[along] + extra}},
        keep_attrs=True,
    )
    out = out.assign_coords({along: np.arange(first, first + frames.sizes[along] + extra)})
    straight: xr.DataArray = out.transpose(*frames.dims)
    return straight


def _consecutive_labels(frames: xr.DataArray, dim: str) -> npt.NDArray[np.int64]:
    labels = frames.coords[dim].to_numpy() if dim in frames.coords else np.arange(frames.sizes[dim])
    if len(labels) > 1 and (np.diff(labels) != 1).any():
        raise DataError(f"labels of {dim!r} are not consecutive", found=labels[:5].tolist(), expected="0, 1, 2 ...")
    return np.asarray(labels, dtype=np.int64)


def checked_coefficients(coefficients: Any) -> tuple[float, ...]:
    """Check the coefficients of a polynomial."""
    try:
        numbers = np.asarray(coefficients, dtype=np.float64)
    except (TypeError, ValueError):
        numbers = np.empty(0)
    if numbers.ndim != 1 or numbers.size == 0 or not np.isfinite(numbers).all():
        raise ParameterError(
            "these are not coefficients of a polynomial", found=repr(coefficients)[:80],
            expected="numbers, highest power first", fix="coefficients=[0.002, 0.1, 0.0]",
        )  # fmt: skip
    return tuple(numbers.tolist())


def shifts_of(
    coefficients: Sequence[float], labels: npt.NDArray[np.int64], n: int
) -> tuple[npt.NDArray[np.float64], int]:
    """By how much each line of pixels moves, by its label; and by how many pixels the longest grows over ``n``."""
    line = np.asarray(np.polyval(checked_coefficients(coefficients), labels), dtype=np.float64)
    shift: npt.NDArray[np.float64] = line - line.min() if line.size else line
    if shift.size and shift.max() > n:
        raise ParameterError(
            "the line would be moved by more than the image is long",
            found=f"{shift.max():.1f} pixels",
            expected=f"at most {n}",
            fix="coefficients highest power first, labels of the detector as argument",
        )
    return shift, int(np.ceil(shift.max())) if shift.size else 0


def shifted(frames: npt.NDArray[Any], shift: npt.NDArray[np.float64], extra: int, power: int) -> npt.NDArray[Any]:
    """Move column j of (..., along, across) by -shift[j], sharing those that fall between two; NaN where none falls."""
    n = frames.shape[-2]
    whole = np.floor(shift).astype(np.int64)
    part = (shift - whole).astype(np.result_type(frames.dtype, np.float32))
    place = np.arange(-extra, n)[:, None] + whole[None, :]
    out = np.zeros((*frames.shape[:-2], n + extra, frames.shape[-1]), dtype=part.dtype)
    empty = np.ones(out.shape[-2:], bool)
    for step, weight in ((0, 1 - part), (1, part)):
        at = place + step
        inside = (at >= 0) & (at < n) & (weight > 0)[None, :]
        index = np.broadcast_to(np.clip(at, 0, n - 1), out.shape)
        taken = np.take_along_axis(frames, index, axis=-2)
        out += np.where(inside, taken * weight**power, 0)
        empty &= ~inside
    out[..., empty] = np.nan
    return out
