"""From a labelled array to what the engine needs: checks of dims, labels, presence, geometry and beam."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import xarray as xr

from xsmall.detector.geometry.beam import Beam
from xsmall.engine.record import Frames
from xsmall.errors import DataError
from xsmall.frames.beam import beam_of
from xsmall.frames.pixels import check_pixels, geometry_of
from xsmall.vocabulary import (
    COLUMN,
    DAMAGE,
    EVENT,
    FRAME_DIMS,
    PHOTON_ENERGY,
    PIXEL_DIMS,
    PRESENT,
    ROW,
    SEGMENT,
    UNITS,
    VARIANCE_SUFFIX,
)

if TYPE_CHECKING:
    import dask.array as da


def check_frames(obj: xr.DataArray) -> None:
    """Raise unless ``obj`` is numbers over (event, segment, row, column)."""
    if obj.dims != FRAME_DIMS:
        missing = [d for d in FRAME_DIMS if d not in obj.dims]
        if set(obj.dims) == set(FRAME_DIMS):
            fix = f".transpose({', '.join(map(repr, FRAME_DIMS))})"
        elif missing:
            fix = (
                f"keep the dim: .isel({missing[0]}=[0]) rather than .isel({missing[0]}=0); or .expand_dims({missing!r})"
            )
        else:
            fix = "reduce the extra dims first"
        raise DataError(
            "these are not detector frames", found=f"dims {obj.dims}", expected=f"dims {FRAME_DIMS}", fix=fix
        )
    if 0 in (obj.sizes[d] for d in PIXEL_DIMS):
        raise DataError(
            "these frames have no pixels",
            found=f"sizes {dict(obj.sizes)}",
            expected="at least one segment, row and column",
            fix="check the slice that was taken: labels start at 0 and stops are excluded",
        )
    if obj.dtype.kind not in "fiu":
        raise DataError(
            "frames have to be numbers",
            found=f"dtype {obj.dtype}",
            expected="an integer or floating dtype",
            fix="mask.astype('uint8') makes frames of a mask",
        )


def values_and_variance(obj: xr.DataArray | xr.Dataset) -> tuple[xr.DataArray, xr.DataArray | None]:
    """Find the frames in ``obj`` and, in a Dataset, their variance; checks both."""
    if isinstance(obj, xr.DataArray):
        check_frames(obj)
        return obj, None
    frames = [str(v) for v in obj.data_vars if obj[v].dims == FRAME_DIMS]
    values = [v for v in frames if not v.endswith(VARIANCE_SUFFIX)]
    if len(values) != 1:
        raise DataError(
            "a reduction takes one detector's frames",
            found=f"{len(values)} variables of frames in the Dataset: {values}",
            expected="one variable over (event, segment, row, column), and perhaps its variance",
            fix='choose: dataset["jungfrau"].sd ...',
        )
    check_frames(obj[values[0]])
    variance = f"{values[0]}{VARIANCE_SUFFIX}"
    return obj[values[0]], obj[variance] if variance in frames else None


def labels(obj: xr.DataArray, dim: str) -> tuple[int, ...]:
    """Integer labels along a pixel dim: the coordinate, or 0, 1, 2 ... where there is none."""
    if dim not in obj.coords:
        return tuple(range(obj.sizes[dim]))
    values = obj.coords[dim].values
    if values.dtype.kind not in "iu":
        raise DataError(
            f"labels of {dim} are not positions in the detector",
            found=f"dtype {values.dtype}: {values[:3].tolist()} ...",
            expected="integers",
            fix=f"average pixels after reducing; .assign_coords({dim}=...) where the labels are just wrong",
        )
    return tuple(int(v) for v in values)


def presence(obj: xr.DataArray) -> npt.NDArray[np.bool_] | None:
    """Which segments are there (event, segment); None where all are or nothing is said."""
    if PRESENT not in obj.coords:
        return None
    values = np.ascontiguousarray(obj.coords[PRESENT].transpose(EVENT, SEGMENT).values, dtype=bool)
    return None if values.all() else values


def sound(obj: xr.DataArray) -> npt.NDArray[np.bool_] | None:
    """Which segments may enter a result: those that are there and, of raw words, not damaged; None where all may.

    Calibrated frames are NaN where their ``trust`` says so; raw words have no other way to say that they are damaged.
    """
    here = presence(obj)
    if obj.dtype.kind not in "iu" or DAMAGE not in obj.coords:
        return here
    whole: npt.NDArray[np.bool_] = obj.coords[DAMAGE].transpose(EVENT, SEGMENT).values == 0
    if whole.all():
        return here
    return whole if here is None else here & whole


def energies(obj: xr.DataArray) -> npt.NDArray[np.float64] | None:
    """Photon energy of each event in eV (event,); None where one holds for all, or none is known."""
    if PHOTON_ENERGY not in obj.coords or obj.coords[PHOTON_ENERGY].dims != (EVENT,):
        return None
    values = obj.coords[PHOTON_ENERGY].values.astype(np.float64)
    return values if np.unique(values).size > 1 else None


def frames_of(obj: xr.DataArray, dtype: np.dtype[Any]) -> Frames:
    """Describe the frames of ``obj`` to the engine; reducers will be handed ``dtype``."""
    beam, energy = beam_of(obj), energies(obj)
    if energy is not None and np.isfinite(energy).any():
        beam = replace(beam or Beam(), photon_energy=float(np.nanmean(energy)))
    geometry = geometry_of(obj)
    if geometry is not None:
        check_pixels(obj, geometry)
    return Frames(
        segment=labels(obj, SEGMENT),
        row=labels(obj, ROW),
        column=labels(obj, COLUMN),
        dtype=dtype,
        units=obj.attrs.get(UNITS),
        geometry=geometry,
        beam=beam,
        energy_varies=energy is not None,
    )


def data_of(obj: xr.DataArray) -> npt.NDArray[Any] | da.Array:
    """The NumPy or dask array inside, without loading anything; other lazy arrays become dask with one chunk."""
    import dask.array as da

    if isinstance(obj.variable._data, np.ndarray | da.Array):
        return obj.variable._data
    return obj.chunk().data
