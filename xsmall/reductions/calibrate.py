"""Raw frames to calibrated frames: labelled, lazy, NaN where a value must not be trusted."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, Final, Literal, cast
from weakref import WeakValueDictionary

import dask
import dask.array as da
import numpy as np
import numpy.typing as npt
import xarray as xr
from dask.delayed import Delayed

from xsmall.detector.calibration_tables import pack
from xsmall.detector.constants import check_constants, data_unit, gain_units, select_constants
from xsmall.detector.types import Decoding, DetectorType, detector_type
from xsmall.errors import CalibrationError, DataError, ParameterError
from xsmall.kernels.calibrate import calibrate_plain, calibrate_stack, variance_stack
from xsmall.kernels.stack import flat_frames, flat_target
from xsmall.lazy.transform import FloatFrames, Transform, transform_frames
from xsmall.reductions.frames import check_frames, data_of, labels, presence
from xsmall.vocabulary import (
    ADU,
    CALIBRATED,
    DAMAGE,
    DETECTOR_TYPE,
    DIMENSIONLESS,
    EVENT,
    GAIN,
    GAIN_CONTROL,
    KILOELECTRONVOLT,
    LONG_NAME,
    NOISE,
    OFFSET,
    PARAMETERS,
    PEDESTAL,
    PHOTON,
    PHOTON_ENERGY,
    PIXEL_DIMS,
    RUN,
    RUN_RANGE,
    SEGMENT,
    SOURCE,
    STATUS,
    UNITS,
    VARIANCE_SUFFIX,
)

__all__ = ["Calibration", "calibrate"]

FLOAT: Final = np.dtype(np.float32)
_NO_LIMITS: Final = np.empty((0, 2), dtype=np.int32)


class Calibration(Transform):
    """The calibration of one detector as a transform: packed tables, shared by all threads of a process."""

    dtype = FLOAT

    def __init__(self, token: str, photon: float, packing: Mapping[str, Any]) -> None:
        self.token = token
        self.photon = photon
        self.tables = pack(**packing)
        self.knows_variance = self.tables.variance is not None

    def __dask_tokenize__(self) -> str:
        return self.token

    def apply(
        self,
        s: int,
        raw: npt.NDArray[Any],
        present: npt.NDArray[np.bool_],
        out: FloatFrames,
        variance: FloatFrames | None = None,
    ) -> None:
        """Calibrate segment ``s`` of ``k`` events."""
        if raw.size == 0:
            return
        target, spread = _Target(out), None if variance is None else _Target(variance)
        words, step = flat_frames(raw)
        table, k = self.tables, len(raw)
        if words.dtype == np.uint16:
            calibrate_stack(
                words, step, k, table.plane, table.pedestal[s], table.factor[s],
                table.code_shift, table.code_mask, table.data_mask, _NO_LIMITS, target.flat, target.step,
            )  # fmt: skip
        else:
            calibrate_plain(words, step, k, table.pedestal[s, 0], table.factor[s, 0], target.flat, target.step)
        target.back(present)
        if spread is not None and table.variance is not None:
            variance_stack(
                words, step, k, table.plane, table.variance[s], table.code_shift, table.code_mask,
                self.photon, target.flat, target.step, spread.flat, spread.step,
            )  # fmt: skip
            spread.back(present)


class _Target:
    """Frames to be filled through their flat view; by way of a copy where they have none."""

    def __init__(self, frames: FloatFrames) -> None:
        view = flat_target(frames)
        self._frames = frames
        self._copy: FloatFrames | None = None
        if view is None:
            self._copy = np.empty(frames.shape, frames.dtype)
            view = self._copy.reshape(-1), frames[0].size
        self.flat: npt.NDArray[Any]
        self.flat, self.step = view

    def back(self, present: npt.NDArray[np.bool_]) -> None:
        """Finish: NaN where there is nothing, and into the frames where a copy was filled."""
        filled = self._frames if self._copy is None else self._copy
        if not present.all():
            filled[~present] = np.nan
        if self._copy is not None:
            self._frames[...] = self._copy


_READY: WeakValueDictionary[str, Calibration] = WeakValueDictionary()
"""Calibrations of this process by token: tables are packed once however often they are asked for."""


def _build(token: str, photon: float, packing: Mapping[str, Any]) -> Calibration:
    ready = _READY.get(token)
    if ready is None:
        ready = _READY[token] = Calibration(token, photon, packing)
    return ready


def calibrate(
    raw: xr.DataArray,
    constants: xr.Dataset,
    *,
    mask: xr.DataArray | npt.NDArray[np.bool_] | None = None,
    unit: str | None = None,
    photon_energy: float | None = None,
    gain_control: xr.DataArray | npt.NDArray[np.integer[Any]] | None = None,
    status_bits: int | None = None,
    variance: bool | Literal["noise"] = False,
) -> xr.DataArray | xr.Dataset:
    """Calibrate raw frames: value = (ADC - pedestal - offset) / gain, of the gain stage that each pixel was in.

    Parameters
    ----------
    raw
        Raw frames (event, segment, row, column) as the detector wrote them, gain bits included. A slice is fine: its
        labels select the constants.
    constants
        ``pedestal`` [ADU] and, where known, ``gain`` [ADU/keV], ``offset`` [ADU], ``status`` over (gain_stage,
        segment, row, column), of the same ``attrs["detector_type"]``; in memory or lazy.
    mask
        Boolean (segment, row, column), True = use the pixel; a DataArray is aligned by its labels.
    unit
        ``"keV"``, ``"photon"`` or ``"ADU"``. Left out: keV where the constants know the gain in it, else ADU.
    photon_energy
        eV, for ``unit="photon"``; left out, the coordinate ``photon_energy`` of the data is taken if it is one number.
    gain_control
        Configuration bits of each pixel (segment, row, column) for detectors that need them (ePix10ka, ePixHR); left
        out, the coordinate ``gain_control`` of the data is taken.
    status_bits
        Bits of ``status`` that forbid trust; left out, those of the detector type: the lower 16, as psana's
        calibration has it (the upper ones describe a pixel rather than fault it).
    variance
        True: return the variance of each value too, from the ``noise`` of its gain stage and the number of photons;
        this needs the photon energy. ``"noise"``: from the noise alone.

    Returns
    -------
    float32 DataArray (event, segment, row, column) in ``attrs["units"]``, lazy where ``raw`` is. NaN where the status
    is not 0 in any gain stage (of ePix10ka: any but the two that are derived), where the mask is False, where the
    gain code belongs to no stage, where a constant is NaN or a gain is 0, where the segment is missing, and where it
    is damaged (coordinate ``damage`` not 0). With ``variance`` a Dataset of ``calibrated`` and
    ``calibrated_variance``, which ``.sd.reduce`` and the reductions carry through.

    Raises
    ------
    CalibrationError
        Constants of another detector, shape or run, without a stage, or without the gain that ``unit`` needs.
    DataError
        Data that are not raw frames.
    ParameterError
        An unknown unit, a photon energy that cannot be meant, or a mask that is not boolean.

    Notes
    -----
    Cost: one pass, 1 to 2 times copying the frames to float32; 8 bytes of tables per pixel and gain stage, once per
    process. The formula is that of psana, which however sets untrusted pixels to 0 and calibrates some of them.

    Examples
    --------
    >>> import xsmall as xs
    >>> sim = xs.simulate(4, shape=(2, 32, 64), seed=1)
    >>> cal = calibrate(sim.run["jungfrau"]["raw"], sim.constants)
    >>> cal.dims, str(cal.dtype), cal.attrs["units"]
    (('event', 'segment', 'row', 'column'), 'float32', 'keV')
    """
    check_frames(raw)
    known = check_constants(constants)
    entry = _same_detector(raw, known)
    _check_raw(raw, entry)
    _check_run(raw, constants)
    place = {dim: _pixel_labels(raw, dim, known.sizes[dim]) for dim in PIXEL_DIMS}
    mine = select_constants(known, place)
    unit, scale = _unit(unit, mine, raw, photon_energy)
    bits = entry.status_bits if status_bits is None else int(status_bits)
    divide = unit != ADU or gain_units(mine) == DIMENSIONLESS
    photon = _counting(variance, unit, mine, raw, photon_energy)
    settings = {"entry": entry, "scale": scale, "bits": bits, "photon": photon}
    wanted = [PEDESTAL, OFFSET, STATUS, *([GAIN] if divide else []), *([NOISE] if variance else [])]
    arrays = {name: mine[name].data for name in wanted if name in mine}
    arrays["mask"] = _static_mask(mask, place)
    arrays[GAIN_CONTROL] = _control(raw, gain_control, place) if entry.decoding is Decoding.CONTROL else None
    transform = _transform(settings, {name: value for name, value in arrays.items() if value is not None})
    here = _trusted_presence(raw)
    data = transform_frames(data_of(raw), here, transform, dtype=FLOAT, label=CALIBRATED)
    attrs = {key: value for key, value in raw.attrs.items() if key not in (UNITS, LONG_NAME)}
    attrs |= {UNITS: unit, DETECTOR_TYPE: entry.name, PARAMETERS: _parameters(unit, constants, entry, mask, scale)}
    out = xr.DataArray(xr.Variable(raw.dims, data, attrs), coords=raw.coords, name=CALIBRATED)
    if not variance:
        return out
    spread = transform_frames(data_of(raw), here, transform, dtype=FLOAT, label=CALIBRATED, variance=True)
    attrs = {UNITS: f"{unit}2", LONG_NAME: f"variance of {CALIBRATED}"}
    return out.to_dataset().assign({f"{CALIBRATED}{VARIANCE_SUFFIX}": (raw.dims, spread, attrs)})


def _same_detector(raw: xr.DataArray, constants: xr.Dataset) -> DetectorType:
    of_constants = detector_type(constants.attrs[DETECTOR_TYPE])
    said = raw.attrs.get(DETECTOR_TYPE)
    if said is None:
        raise CalibrationError(
            "the data do not say which detector they come from",
            found="no detector_type in the attributes",
            expected=f"{of_constants.name!r}, as the constants say",
            fix=f"raw.assign_attrs(detector_type={of_constants.name!r})",
        )
    of_data = detector_type(said)
    if of_data.name != of_constants.name:
        raise CalibrationError(
            "these are constants of another detector",
            found=f"constants of {of_constants.name!r}, data of {of_data.name!r}",
            expected=f"constants of {of_data.name!r}",
        )
    return of_data


def _check_raw(raw: xr.DataArray, entry: DetectorType) -> None:
    unit = raw.attrs.get(UNITS)
    if unit not in (None, ADU):
        raise DataError(
            "these frames are calibrated already", found=f"units {unit!r}", expected=f"raw frames in {ADU!r}"
        )
    if entry.decoding in (Decoding.CODE, Decoding.CONTROL) and raw.dtype != np.uint16:
        raise DataError(
            f"raw words of {entry.name!r} carry the gain code in their upper bits",
            found=f"dtype {raw.dtype}",
            expected="uint16, as the detector wrote them",
        )


def _check_run(raw: xr.DataArray, constants: xr.Dataset) -> None:
    run, valid = raw.attrs.get(RUN), constants.attrs.get(RUN_RANGE)
    if run is None or valid is None:
        return
    first, last = (int(r) for r in valid)
    if not first <= int(run) <= last:
        raise CalibrationError(
            "the constants are not valid for this run",
            found=f"run {run}, constants for runs {first} to {last}",
            expected="constants whose range holds the run",
            fix="open the constants of this run; where they are known to be good, "
            'constants.attrs.pop("run_range") says so',
        )


def _pixel_labels(raw: xr.DataArray, dim: str, n_constants: int) -> npt.NDArray[np.integer[Any]]:
    if dim not in raw.coords and raw.sizes[dim] != n_constants:
        raise CalibrationError(
            f"data and constants differ in {dim!r}",
            found=f"{raw.sizes[dim]} in the data, {n_constants} in the constants",
            expected="data of the whole detector, or labels that say which part they are",
            fix=f"raw.assign_coords({dim}=[...])  # positions in the whole detector, before slicing",
        )
    return np.asarray(labels(raw, dim))


def _unit(unit: str | None, constants: xr.Dataset, raw: xr.DataArray, photon_energy: float | None) -> tuple[str, float]:
    """Settle the unit of the result and what a value in keV is multiplied by."""
    possible = data_unit(constants)
    wanted = possible if unit is None else unit
    if wanted not in (KILOELECTRONVOLT, PHOTON, ADU):
        raise ParameterError("unknown unit", found=unit, expected='"keV", "photon" or "ADU"')
    entry = detector_type(constants.attrs[DETECTOR_TYPE])
    stages_differ = entry.n_stages > 1 and unit is None and possible == ADU
    if stages_differ or (wanted != ADU and possible == ADU):
        raise CalibrationError(
            f"without a gain in ADU/keV the data cannot be in {KILOELECTRONVOLT if stages_differ else wanted}",
            found="no gain" if GAIN not in constants else f"gain in {gain_units(constants)!r}",
            expected="gain [ADU/keV] (gain_stage, segment, row, column)",
            fix='constants.assign(gain=...), or unit="ADU" to subtract the pedestals only',
        )
    if wanted != PHOTON:
        return wanted, 1.0
    fix = 'calibrate(raw, constants, unit="photon", photon_energy=9500)'
    return wanted, 1000.0 / _photon_energy(raw, photon_energy, fix)


def _counting(
    variance: bool | str, unit: str, constants: xr.Dataset, raw: xr.DataArray, photon_energy: float | None
) -> float:
    """One photon in the unit of the data, 0 where counting statistics stay out."""
    if variance is False:
        return 0.0
    if NOISE not in constants:
        raise CalibrationError(
            "the variance needs the noise of each pixel", found=list(constants), expected="noise [ADU] in the constants"
        )
    if variance == "noise" or unit == PHOTON:
        return 0.0 if variance == "noise" else 1.0
    if unit == ADU:
        raise ParameterError(
            "the variance of counting needs data in keV or photons",
            found=f"data in {unit!r}",
            fix='variance="noise" takes the noise alone',
        )
    return _photon_energy(raw, photon_energy, 'calibrate(..., variance=True, photon_energy=9500), or "noise"') / 1000.0


def _photon_energy(raw: xr.DataArray, given: float | None, fix: str) -> float:
    """The photon energy in eV, given or a coordinate of the data."""
    energy = raw.coords[PHOTON_ENERGY] if given is None and PHOTON_ENERGY in raw.coords else given
    if energy is None or np.ndim(energy) > 0:
        raise ParameterError(
            "photons need one photon energy",
            found="none" if energy is None else "one per event",
            expected="a number in eV",
            fix=fix,
        )
    value = float(cast("float", energy))
    if not 100.0 <= value <= 200_000.0:
        raise ParameterError("a photon energy that cannot be meant", found=value, expected="eV, 100 to 200000")
    return value


def _static_mask(
    mask: xr.DataArray | npt.NDArray[np.bool_] | None, place: Mapping[str, npt.NDArray[Any]]
) -> npt.NDArray[np.bool_] | None:
    if mask is None:
        return None
    values = _aligned(mask, place, "mask")
    if values.dtype != bool:
        raise ParameterError(
            "a mask has to be boolean: 0 and 1 mean opposite things in different programs",
            found=f"dtype {values.dtype}",
            expected="bool, True = use the pixel",
            fix="mask == 1 where 1 is good; mask == 0 where 0 is good",
        )
    return values


def _control(
    raw: xr.DataArray,
    given: xr.DataArray | npt.NDArray[np.integer[Any]] | None,
    place: Mapping[str, npt.NDArray[Any]],
) -> npt.NDArray[Any] | None:
    if given is None and GAIN_CONTROL in raw.coords:
        given = raw.coords[GAIN_CONTROL]
    if given is None:
        raise CalibrationError(
            "the gain of this detector depends on the configuration of each pixel, which is not there",
            found="no gain_control",
            expected="gain_control (segment, row, column): bits 4 (g), 8 (ga), 16 (trbit)",
            fix='calibrate(raw, constants, gain_control=run["..."]["config"]["gain_control"])',
        )
    values = _aligned(given, place, GAIN_CONTROL)
    if values.dtype.kind not in "iu":
        raise ParameterError(
            "gain_control has to be bits", found=f"dtype {values.dtype}", expected="integers, one per pixel"
        )
    return values


def _aligned(
    given: xr.DataArray | npt.NDArray[Any], place: Mapping[str, npt.NDArray[Any]], name: str
) -> npt.NDArray[Any]:
    """Values over (segment, row, column) of the data: by labels where there are some, else by shape."""
    shape = tuple(len(place[dim]) for dim in PIXEL_DIMS)
    values: npt.NDArray[Any]
    if isinstance(given, xr.DataArray):
        lacking = [dim for dim in PIXEL_DIMS if dim not in given.dims]
        if lacking or len(given.dims) != len(PIXEL_DIMS):
            raise ParameterError(f"{name} has other dims than pixels", found=given.dims, expected=PIXEL_DIMS)
        ordered = given.transpose(*PIXEL_DIMS)
        try:
            ordered = ordered.sel({dim: place[dim] for dim in PIXEL_DIMS if dim in ordered.indexes})
        except KeyError as error:
            raise ParameterError(f"{name} does not cover every pixel of the data", found=str(error)) from None
        values = ordered.to_numpy()
    else:
        values = np.asarray(given)
    if values.shape != shape:
        raise ParameterError(f"{name} has another shape than the data", found=values.shape, expected=shape)
    return values


def _transform(settings: Mapping[str, Any], arrays: Mapping[str, Any]) -> Calibration | Delayed:
    """Build the transform, or say how to build it where a constant is still lazy."""
    names = {name: value.name if isinstance(value, da.Array) else value for name, value in arrays.items()}
    token = str(dask.base.tokenize("calibration", sorted(settings.items(), key=lambda kv: kv[0]), names))
    if not any(isinstance(value, da.Array) for value in arrays.values()):
        return _from_arrays(token, dict(settings), dict(arrays))
    build = dask.delayed(_from_arrays, name=False, pure=False, traverse=False)
    lazy = dask.delayed(dict(arrays), name=f"constants-{token}")
    return cast("Delayed", build(token, dict(settings), lazy, dask_key_name=f"calibration-{token}"))


def _from_arrays(token: str, settings: dict[str, Any], arrays: dict[str, Any]) -> Calibration:
    entry: DetectorType = settings["entry"]
    good = arrays.get("mask")
    if STATUS in arrays:
        word = np.bitwise_or.reduce(arrays[STATUS][list(entry.status_stages)], axis=0)
        clean = (word & np.asarray(settings["bits"], dtype=word.dtype)) == 0
        good = clean if good is None else clean & good
    packing = {
        "entry": entry,
        "pedestal": arrays[PEDESTAL],
        "gain": arrays.get(GAIN),
        "offset": arrays.get(OFFSET),
        "good": good,
        "gain_control": arrays.get(GAIN_CONTROL),
        "noise": arrays.get(NOISE),
        "scale": settings["scale"],
    }
    return _build(token, settings["photon"], packing)


def _trusted_presence(raw: xr.DataArray) -> npt.NDArray[np.bool_] | None:
    """Which segments of which events are there and undamaged."""
    here = presence(raw)
    if DAMAGE not in raw.coords:
        return here
    sound: npt.NDArray[np.bool_] = raw.coords[DAMAGE].transpose(EVENT, SEGMENT).to_numpy() == 0
    if sound.all():
        return here
    return sound if here is None else here & sound


def _parameters(unit: str, constants: xr.Dataset, entry: DetectorType, mask: object, scale: float) -> str:
    said = {
        "function": "calibrate",
        "unit": unit,
        "constants": sorted(str(name) for name in constants.data_vars),
        "constants_source": constants.attrs.get(SOURCE),
        RUN_RANGE: [int(r) for r in constants.attrs[RUN_RANGE]] if RUN_RANGE in constants.attrs else None,
        "gain_stages": list(entry.stages),
        "mask": mask is not None,
        "photon_energy": 1000.0 / scale if unit == PHOTON else None,
    }
    return json.dumps({key: value for key, value in said.items() if value is not None})
