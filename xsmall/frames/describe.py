"""The one look at a labelled array: what is known of its frames before one of them is read."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import xarray as xr

from xsmall.detector.frames import Frames
from xsmall.detector.geometry.beam import Beam
from xsmall.detector.geometry.geometry import Geometry
from xsmall.detector.part import Part
from xsmall.detector.types import DETECTOR_TYPES, Decoding, DetectorType
from xsmall.engine.flagged import DAMAGED, MISSING
from xsmall.errors import DataError
from xsmall.frames.beam import beam_of, event_energies
from xsmall.frames.pixels import check_pixels, geometry_of
from xsmall.frames.small import small
from xsmall.vocabulary import (
    ADU,
    COLUMN,
    DAMAGE,
    DETECTOR_SHAPE,
    DETECTOR_TYPE,
    EVENT,
    EXPERIMENT,
    FRAME_DIMS,
    GAIN_STAGE,
    IMAGE_X,
    IMAGE_Y,
    KILOELECTRONVOLT,
    PARAMETERS,
    PHOTON,
    PIXEL_DIMS,
    PRESENT,
    ROW,
    RUN,
    SEGMENT,
    SEGMENT_IDS,
    UNITS,
    UNUSABLE,
    Reason,
)

if TYPE_CHECKING:
    import dask.array as da

__all__ = [
    "check_frames",
    "data_of",
    "describe",
    "followed_kinds",
    "gain_bits",
    "of_segments",
    "presence",
    "segment_state",
    "serial_numbers",
    "usable_segments",
    "words_of",
]

_AS_NUMBERS = {
    "b": "mask.astype('uint8') makes frames of a mask",
    "c": "abs(frames), frames.real or frames.imag: which one is yours to say",
}
"""What to type for frames of other kinds of dtype."""


def describe(obj: xr.DataArray) -> Frames:
    """Say all that is known of frames before one of them is read.

    Parameters
    ----------
    obj
        Frames (event, segment, row, column): raw, calibrated, or anything that was made of them.

    Returns
    -------
    The description; small coordinates that ``.chunk()`` made lazy are loaded, frames are not.

    Raises
    ------
    DataError
        Other dims, no pixels, no numbers, labels that are not positions in the detector.
    GeometryError
        Labels that the geometry does not have.

    Examples
    --------
    >>> import xsmall as xs
    >>> from xsmall.frames.describe import describe
    >>> frames = describe(xs.simulate(4, shape=(2, 32, 64), seed=1).run["jungfrau"]["raw"])
    >>> frames.shape, frames.units
    ((2, 32, 64), 'ADU')
    """
    check_frames(obj)
    geometry = geometry_of(obj)
    if geometry is not None:
        check_pixels(obj, geometry)
    beam, energies = beam_of(obj), event_energies(obj)
    runs, usable, state = _runs_of_frames(obj), usable_segments(obj), segment_state(obj)
    kinds = followed_kinds(obj)
    part = Part.of(obj)
    if energies is not None and np.isfinite(energies).any():
        beam = replace(beam or Beam(), photon_energy=float(np.nanmean(energies)))
    return Frames(
        part=part,
        dtype=obj.dtype,
        units=obj.attrs.get(UNITS),
        geometry=geometry,
        beam=beam,
        energy_varies=energies is not None,
        detector_type=obj.attrs.get(DETECTOR_TYPE),
        whole_shape=_whole_shape(obj.attrs, geometry, part),
        serial_numbers=serial_numbers(obj.attrs),
        runs=runs,
        experiment=obj.attrs.get(EXPERIMENT),
        usable=usable,
        state=state,
        kinds=kinds,
        energies=energies,
    )


def check_frames(obj: xr.DataArray | xr.Dataset) -> None:
    """Raise unless ``obj`` is numbers over (event, segment, row, column)."""
    if isinstance(obj, xr.Dataset):
        raise DataError(
            "these are not detector frames",
            found=f"a Dataset of {', '.join(map(str, obj.data_vars)) or 'nothing'}",
            expected="one array of frames",
            fix=f"frames[{str(next(iter(obj.data_vars), 'raw'))!r}]",
        )
    if obj.dims != FRAME_DIMS:
        raise DataError(
            "these are not detector frames", found=f"dims {obj.dims}", expected=f"dims {FRAME_DIMS}", fix=_remedy(obj)
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
            fix=_AS_NUMBERS.get(obj.dtype.kind),
        )


def _remedy(obj: xr.DataArray) -> str:
    """What makes frames of arrays of other dims."""
    missing = [d for d in FRAME_DIMS if d not in obj.dims]
    extra = [str(d) for d in obj.dims if d not in FRAME_DIMS]
    if {IMAGE_Y, IMAGE_X} & {*extra}:
        return "the frames that the picture was made of: frames.sd.azint(...)"
    if extra and len(extra) <= len(missing):
        likely = [d for d in (COLUMN, ROW, EVENT, SEGMENT) if d in missing][: len(extra)]
        meant = [d for d in FRAME_DIMS if d in likely]
        named = f".rename({', '.join(f'{a}={b!r}' for a, b in zip(extra, meant, strict=True))})"
        left = [d for d in FRAME_DIMS if d in missing and d not in meant]
        return named + (f".expand_dims({left!r}).transpose{FRAME_DIMS!r}" if left else "")
    if extra == [GAIN_STAGE]:
        return ".isel(gain_stage=0) of what has all gain stages"
    if extra:
        return f".isel({', '.join(f'{d}=0' for d in extra)}), or stack these dims into events"
    if not missing:
        return f".transpose({', '.join(map(repr, FRAME_DIMS))})"
    order = [d for d in FRAME_DIMS if d in obj.dims]
    turned = "" if list(obj.dims) == order else f".transpose({', '.join(map(repr, order))})"
    axes = [FRAME_DIMS.index(d) for d in missing]
    again = f"{turned}.expand_dims({missing!r}, axis={axes!r})"
    return f"keep the dim: .isel({missing[0]}=[0]) rather than .isel({missing[0]}=0); or {again}"


def of_segments(obj: xr.DataArray, name: str) -> npt.NDArray[Any] | None:
    """A coordinate of segments as an array (event, segment) of the frames, None where there is none.

    It may lack a dim: after ``.isel(segment=1).expand_dims("segment")`` it runs over events alone.
    """
    if name not in obj.coords:
        return None
    coord = small(obj.coords.variables[name])
    if not set(coord.dims) <= {EVENT, SEGMENT}:
        raise DataError(
            f"the coordinate {name!r} has other dims", found=f"dims {coord.dims}", expected=f"dims {(EVENT, SEGMENT)}"
        )
    values = coord.transpose(*(d for d in (EVENT, SEGMENT) if d in coord.dims)).values
    for axis, dim in enumerate((EVENT, SEGMENT)):
        values = values if dim in coord.dims else np.expand_dims(values, axis)
    wide: npt.NDArray[Any] = np.broadcast_to(values, tuple(obj.sizes.get(d, 1) for d in (EVENT, SEGMENT)))
    return wide


def presence(obj: xr.DataArray) -> npt.NDArray[np.bool_] | None:
    """Which segments are there (event, segment); None where all are or nothing is said.

    A mean over events makes a fraction of ``present``: a segment that was there in some of them is not whole.
    """
    said = of_segments(obj, PRESENT)
    return None if said is None else _some_false(said == 1)


def usable_segments(obj: xr.DataArray) -> npt.NDArray[np.bool_] | None:
    """Which segments may be used (event, segment): present and undamaged; None where all may.

    Raw words and what is made of them (``raw - dark``, ``raw.astype(float)``) have no other way to say that a segment
    is missing or damaged than its coordinates. Calibrated floats say it themselves, by NaN: they may have been shifted
    or averaged between events since, and then the coordinates, which stay behind, are those of other values. Of them
    only segments that ``present`` has lost after the calibration are left out.
    """
    present, damage = of_segments(obj, PRESENT), of_segments(obj, DAMAGE)
    known = of_segments(obj, UNUSABLE) if obj.dtype.kind == "f" else None
    usable = None if present is None else present == 1
    if known is not None:
        return None if usable is None else _some_false(usable | (known != 0))
    if obj.dtype.kind == "f" and PARAMETERS in obj.attrs:
        return None if usable is None else _some_false(usable)
    if obj.dtype.kind == "f" and obj.attrs.get(UNITS) in (KILOELECTRONVOLT, PHOTON):
        usable = None
    if damage is not None:
        usable = (damage == 0) if usable is None else usable & (damage == 0)
    return None if usable is None else _some_false(usable)


def followed_kinds(obj: xr.DataArray) -> int:
    """Bits of what makes segments unusable that these values do not say themselves.

    Coordinates do, as long as they are there: xarray drops those of two arrays that differ.
    """
    if obj.dtype.kind == "f" and (PARAMETERS in obj.attrs or obj.attrs.get(UNITS) in (KILOELECTRONVOLT, PHOTON)):
        return 0
    return MISSING | DAMAGED


def words_of(obj: xr.DataArray) -> DetectorType | None:
    """The detector whose words these frames are, or numbers made of them without a calibration; None of all others.

    Of a camera, which may clip at 0, a blank frame is a measurement: its words are not told of.
    """
    entry = DETECTOR_TYPES.get(str(obj.attrs.get(DETECTOR_TYPE)).lower())
    if entry is None or (entry.decoding is Decoding.FIXED and not entry.saturation):
        return None
    return entry if obj.attrs.get(UNITS) == ADU and PARAMETERS not in obj.attrs else None


def gain_bits(values: xr.DataArray) -> str | None:
    """Say that raw words hold gain bits, since as numbers they are nothing; None where they hold none."""
    entry = DETECTOR_TYPES.get(str(values.attrs.get(DETECTOR_TYPE)).lower())
    if values.dtype.kind not in "iu" or entry is None or entry.decoding not in (Decoding.CODE, Decoding.CONTROL):
        return None
    return (
        f"raw words of {entry.name!r} hold the gain of each pixel beside its ADC value: values made of them jump where "
        "a pixel switches. Calibrate first: .sd.calibrate(constants)"
    )


def segment_state(raw: xr.DataArray) -> npt.NDArray[np.uint32] | None:
    """Reasons against whole segments (event, segment): missing, or damaged; None where there are none."""
    present, damage = presence(raw), of_segments(raw, DAMAGE)
    if present is None and (damage is None or not damage.any()):
        return None
    state = np.zeros(raw.shape[:2], dtype=np.uint32)
    if damage is not None:
        state[damage != 0] = np.uint32(Reason.DAMAGED)
    if present is not None:
        state[~present] = np.uint32(Reason.MISSING)
    return state


def _some_false(usable: npt.NDArray[np.bool_]) -> npt.NDArray[np.bool_] | None:
    return None if usable.all() else np.ascontiguousarray(usable)


def labels(obj: xr.DataArray, dim: str) -> tuple[int, ...]:
    """Integer labels along a pixel dim: the coordinate, or 0, 1, 2 ... where there is none."""
    return tuple(getattr(Part.of(obj), dim))


def serial_numbers(attrs: Any) -> tuple[tuple[int, str], ...]:
    """Serial number of the module in each segment, as attributes of frames or constants say it."""
    return tuple((int(k), str(v)) for k, v in json.loads(attrs.get(SEGMENT_IDS, "{}")).items() if v is not None)


def _whole_shape(attrs: Any, geometry: Geometry | None, part: Part) -> tuple[int | None, int | None, int | None]:
    """Size of the whole detector, as far as the frames know it: by geometry, source or type."""
    if geometry is not None:
        return geometry.shape
    if DETECTOR_SHAPE in attrs:
        said = zip(attrs[DETECTOR_SHAPE], part.labels, strict=True)
        segments, rows, columns = (max(int(n), max(labels) + 1) for n, labels in said)
        return segments, rows, columns
    kind = DETECTOR_TYPES.get(str(attrs.get(DETECTOR_TYPE)).lower())
    shape = None if kind is None else kind.segment_shape
    return (None, None, None) if shape is None else (None, *shape)


def _runs_of_frames(obj: xr.DataArray) -> tuple[int, ...]:
    said = small(obj.coords.variables[RUN]).values if RUN in obj.coords else obj.attrs.get(RUN)
    return () if said is None else tuple(int(r) for r in np.unique(said) if r >= 0)


def data_of(obj: xr.DataArray) -> npt.NDArray[Any] | da.Array:
    """The NumPy or dask array inside, without loading anything; other lazy arrays become dask with one chunk."""
    import dask.array as da

    if isinstance(obj.variable._data, np.ndarray | da.Array):
        return obj.variable._data
    return obj.chunk().data
