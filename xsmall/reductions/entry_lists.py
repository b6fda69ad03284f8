"""Lists of the pixels of each event that are not zero: what records that return sparse frames share."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import xarray as xr

from xsmall.detector.frames import Frames
from xsmall.engine.record import Output
from xsmall.events.ragged import object_array
from xsmall.vocabulary import (
    COLUMN,
    COUNTED_OVER,
    DIMENSIONLESS,
    ENTRY,
    FRAME_SIZE,
    LOST_BORDER,
    LOST_PIXELS,
    N_ENTRIES,
    PIXEL,
    PIXEL_DIMS,
    PIXEL_VALUE,
    ROW,
    SAMPLE_DIMENSION,
    SEGMENT,
    UNITS,
    USED,
)

__all__ = ["EntryLists", "outputs_of_entries", "used_pixels"]


def outputs_of_entries(frames: Frames, dtype: np.dtype[Any], units: str | None) -> dict[str, Output]:
    """The lists of sparse frames, and their length."""
    whole, none = np.dtype(np.int32), {UNITS: DIMENSIONLESS}
    return {
        N_ENTRIES: Output((), (), whole, {**none, SAMPLE_DIMENSION: ENTRY}),
        PIXEL: Output((ENTRY,), (None,), whole, {**none, COUNTED_OVER: frames.part.to_text()}),
        PIXEL_VALUE: Output((ENTRY,), (None,), dtype, {} if units is None else {UNITS: units}),
        LOST_PIXELS: Output((LOST_BORDER,), (None,), whole, {**none, FRAME_SIZE: frames.part.size}),
    }


def used_pixels(frames: Frames, use: npt.NDArray[np.bool_]) -> dict[str, xr.Variable]:
    """Coordinates of sparse frames: which pixels may be used, and the labels of all."""
    labels = {SEGMENT: frames.segment, ROW: frames.row, COLUMN: frames.column}
    out = {dim: xr.Variable((dim,), np.array(values)) for dim, values in labels.items()}
    return out | {USED: xr.Variable(PIXEL_DIMS, np.array(use))}


class EntryLists:
    """Gathers the lists of a group of events, segment after segment."""

    def __init__(self, shape: tuple[int, int, int], use: npt.NDArray[np.bool_], top: float) -> None:
        from xsmall.kernels.entries import lost_runs

        self._lost_runs = lost_runs
        self._use, self._top = use.reshape(shape[0], -1), top
        self._size = shape[1] * shape[2]
        self._borders = np.empty(self._size + 2, np.int32)

    def begin(self, k: int) -> None:
        """Start a group of ``k`` events."""
        self._pixel: list[list[npt.NDArray[Any]]] = [[np.empty(0, np.int32)] for _ in range(k)]
        self._value: list[list[npt.NDArray[Any]]] = [[] for _ in range(k)]
        self._lost: list[list[npt.NDArray[Any]]] = [[np.empty(0, np.int32)] for _ in range(k)]

    def add(self, j: int, s: int, pixel: npt.NDArray[Any], value: npt.NDArray[Any], level: npt.NDArray[Any]) -> None:
        """Append pixels of segment ``s`` of event ``j``, in order, and where ``level`` (row, column) is not finite."""
        self._pixel[j].append((pixel + s * self._size).astype(np.int32))
        self._value[j].append(value)
        flat = np.ascontiguousarray(level).reshape(-1)
        n = self._lost_runs(flat, self._top, self._use[s], s * self._size, self._borders)
        if n:
            self._lost[j].append(self._borders[:n].copy())

    def end(self, dtype: np.dtype[Any]) -> dict[str, npt.NDArray[Any]]:
        """Hand out the lists of each event."""
        empty = np.empty(0, dtype)
        pixel = [np.concatenate(parts) for parts in self._pixel]
        value = [np.concatenate([empty, *parts]).astype(dtype, copy=False) for parts in self._value]
        return {
            N_ENTRIES: np.array([p.size for p in pixel], np.int32),
            PIXEL: object_array(pixel),
            PIXEL_VALUE: object_array(value),
            LOST_PIXELS: object_array(np.concatenate(parts) for parts in self._lost),
        }
