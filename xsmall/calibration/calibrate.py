"""Raw frames to calibrated frames: labelled, lazy, NaN where a value must not be trusted."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from typing import Any, Final, Literal

import numpy as np
import numpy.typing as npt
import xarray as xr

from xsmall.calibration.common_mode.mode import CommonMode
from xsmall.calibration.common_mode.numbers import CommonModeLike, resolve_common_mode
from xsmall.calibration.constants import data_unit, gain_units
from xsmall.calibration.inputs import (
    CalibrationInput,
    prepare,
)
from xsmall.calibration.reasons import OF_STATUS, Untrusted, adc_limits, chosen_reasons, own_reasons
from xsmall.calibration.segment_tables import make_tables
from xsmall.calibration.tables import looked_at
from xsmall.calibration.transform import FLOAT, Calibration
from xsmall.detector.frames import Frames
from xsmall.detector.geometry.beam import check_photon_energy
from xsmall.detector.types import DetectorType, detector_type
from xsmall.engine.asked import tell
from xsmall.engine.pairs import paired
from xsmall.engine.transform import transform_frames
from xsmall.errors import CalibrationError, GeometryError, ParameterError
from xsmall.frames.per_pixel import Pixels
from xsmall.vocabulary import (
    ADU,
    AREA,
    CALIBRATED,
    DETECTOR_TYPE,
    DIMENSIONLESS,
    EVENT,
    GAIN,
    GAIN_STAGE,
    KILOELECTRONVOLT,
    LONG_NAME,
    NOISE,
    OFFSET,
    PARAMETERS,
    PEDESTAL,
    PHOTON,
    RUN_RANGE,
    SEGMENT,
    SOURCE,
    STATUS,
    UNITS,
    UNUSABLE,
    VARIANCE_SUFFIX,
    Reason,
    reason_names,
)

__all__ = ["calibrate"]

SATURATION: Final = "saturation"
SWITCHING: Final = "switching"


@tell
def calibrate(
    raw: xr.DataArray,
    constants: xr.Dataset | None = None,
    *,
    mask: Pixels | None = None,
    common_mode: CommonModeLike = None,
    trust: Iterable[str | Reason] | None = None,
    unit: str | None = None,
    photon_energy: float | None = None,
    gain_control: Pixels | None = None,
    gain_stage: xr.DataArray | None = None,
    variance: bool | Literal["noise"] = False,
    area: bool = False,
    status_bits: int | None = None,
    saturation: Mapping[str, int] | None = None,
    switching: Mapping[str, tuple[int, int]] | None = None,
    user: Untrusted | None = None,
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
        Boolean (segment, row, column), True = use the pixel; or flags of reasons as :func:`xsmall.mask` makes them, of
        which those that ``trust`` names count. A DataArray is aligned by its labels.
    common_mode
        What is subtracted between pedestal and gain: a number of smalldata_tools for this detector, psana's parameter
        tuple, ``"recommended"``, a :class:`~xsmall.calibration.common_mode.mode.CommonMode`, or None. The attribute
        ``parameters`` of the result says what was done.
    trust
        Names of the reasons that make a pixel NaN, such as ``["default", "saturated"]``. ``"constant"`` is every
        reason of the whole run, ``"default"`` that and damage. Bad gain codes, missing segments and the mask always
        count, for there is no value. ``"gain_stage_status"`` without ``"constant"`` looks at the status of the stage
        that the pixel was in. Of detectors with memory cells ``"constant"`` is ``"memory_cell_status"``: the status
        of the cell and stage that the value was taken in.
    unit
        ``"keV"``, ``"photon"`` or ``"ADU"``. Left out: keV where the constants know the gain in it, else ADU.
    photon_energy
        eV, for ``unit="photon"``; left out, the coordinate ``photon_energy`` of the data is taken if it is one number.
    gain_control
        Configuration bits of each pixel (segment, row, column) for detectors that need them (ePix10ka, ePixHR); left
        out, the coordinate ``gain_control`` of the data is taken.
    gain_stage
        For detectors whose gain lies beside the frames (AGIPD and JUNGFRAU of the European XFEL): uint8 gain stages of
        the shape of ``raw``, or the analogue gain, for which the constants have a ``threshold``; left out, the
        coordinate ``gain_stage``. Their memory cells are the coordinate ``memory_cell`` (event) of ``raw``. Chunk it
        as ``raw`` is: other chunks are right too, but some may be read twice.
    status_bits
        Bits of ``status`` that forbid trust; left out, those of the detector type: the lower 16, as in psana's masks
        from the status (the upper ones describe a pixel rather than fault it). ``det.raw.calib`` of psana counts all of
        them: 2**64 - 1.
    saturation, switching
        For the reasons ``"saturated"`` and ``"near_switching"``, which ``trust`` has to name: the ADC value at which a
        stage saturates, in place of the detector type's own, ``{"G0": 16383}``; and the range of ADC values that is far
        from the switching point, ``{"G0": (0, 12000)}``.
    user
        A function of the raw words (k, row, column) and the label of their segment that returns a boolean array of
        their shape, True where a pixel is not to be trusted.
    variance
        True: return the variance of each value too, from the ``noise`` of its gain stage (and memory cell) and the
        number of photons; this needs the photon energy. A value below three times its noise counts as no photon.
        ``"noise"``: from the noise alone.
    area
        Divide by the area of each pixel relative to that of a regular one, so that wide pixels are no brighter than
        others; needs the geometry of the data. For images and profiles of intensity, not for counting photons.

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
        An unknown unit, a photon energy out of range or without effect, or a mask that is not boolean.

    Notes
    -----
    Cost: one pass, 1 to 2 times copying the frames to float32; 8 bytes of tables per pixel and gain stage, once per
    process. The formula is that of psana, which however sets untrusted pixels to 0 and calibrates some of them. With
    memory cells 2.5 to 6 times copying; tables of the cells in use, segment by segment as they are walked (AGIPD of 352
    cells: 0.55 GB for each module, 0.2 GB more for an analogue gain, 0.3 GB for a variance).

    Examples
    --------
    >>> import xsmall as xs
    >>> sim = xs.simulate(4, shape=(2, 32, 64), seed=1)
    >>> cal = xs.calibrate(sim.run["jungfrau"]["raw"], sim.constants)
    >>> cal.dims, str(cal.dtype), cal.attrs["units"]
    (('event', 'segment', 'row', 'column'), 'float32', 'keV')
    """
    reasons = chosen_reasons(trust)
    given = prepare(raw, constants, mask, gain_control, gain_stage, reasons=reasons)
    entry, mine, known = given.entry, given.constants, given.frames
    unit, scale = _settled_unit(unit, mine, known, photon_energy)
    mode = _mode(common_mode, given)
    reasons = own_reasons(entry, reasons)
    _check_limits(reasons, saturation, switching, status_bits)
    here, kinds = given.usable(reasons), given.kinds(reasons, raw.coords)
    settings = given.settings(
        status_bits=status_bits,
        reasons=reasons,
        limits=adc_limits(entry, reasons, saturation, switching, dtype=known.dtype),
        user=user,
        scale=scale,
        variance=bool(variance),
        photon=_photon_size(variance, unit, mine, known, photon_energy),
        mode=mode,
    )
    _check_energy(photon_energy, unit, variance)
    noise = [NOISE] if variance or mode.needs_noise else []
    gain = [GAIN] if _is_divided(unit, mine) else []
    arrays = given.arrays([PEDESTAL, OFFSET, STATUS, *gain, *noise])
    if area:
        arrays[AREA] = _relative_areas(known, variance)
    frames, beside = given.beside.frames, given.beside.arrays
    transform = make_tables(Calibration, arrays, looked_at(settings, arrays), lazy=not isinstance(frames, np.ndarray))
    data = transform_frames(frames, here, transform, dtype=FLOAT, label=CALIBRATED, beside=beside, kinds=kinds)
    variances = None
    if variance:
        variances = transform_frames(
            frames, here, transform, dtype=FLOAT, label=CALIBRATED, variance=True, beside=beside, kinds=kinds
        )
    said = _calibrate_parameters(unit, mine, entry, scale, mode, reasons, mask)
    out = _calibrated_array(raw, data, unit, said, entry)
    if here is not None:  # what is NaN already is told, so that frames which are shifted later need no `present`
        out = out.assign_coords({UNUSABLE: ((EVENT, SEGMENT), ~here)})
    return out if variances is None else _paired_variance(out, variances)


def _paired_variance(values: xr.DataArray, variance: Any) -> xr.Dataset:
    attrs = {UNITS: f"{values.attrs[UNITS]}2", LONG_NAME: f"variance of {CALIBRATED}"}
    return paired(values.to_dataset().assign({f"{CALIBRATED}{VARIANCE_SUFFIX}": (values.dims, variance, attrs)}))


def _calibrated_array(raw: xr.DataArray, data: Any, unit: str, parameters: str, entry: DetectorType) -> xr.DataArray:
    attrs = {key: value for key, value in raw.attrs.items() if key not in (UNITS, LONG_NAME)}
    attrs |= {UNITS: unit, DETECTOR_TYPE: entry.name, PARAMETERS: parameters}
    coords = raw.drop_vars(GAIN_STAGE, errors="ignore").coords  # with their indexes
    return xr.DataArray(xr.Variable(raw.dims, data, attrs), coords=coords, name=CALIBRATED)


def _is_divided(unit: str, constants: xr.Dataset) -> bool:
    return unit != ADU or gain_units(constants) == DIMENSIONLESS


def _mode(common_mode: CommonModeLike, given: CalibrationInput) -> CommonMode:
    detector = given.frames.detector_type or given.entry.name
    mode = resolve_common_mode(common_mode, detector, n_segments=given.n_segments)
    if mode.raw:
        raise ParameterError("common mode -1 is raw data: nothing is to be calibrated", fix="use the raw frames")
    if mode.needs_noise and NOISE not in given.constants:
        raise CalibrationError(
            "this common mode compares pixels with their dark noise",
            found="no noise in the constants",
            expected="noise [ADU] (gain_stage, segment, row, column)",
            fix="constants with noise, as xs.dark makes them",
        )
    mode.grids(given.frames.part.row, given.frames.part.column)  # raises where a slice has cut units
    return mode


def _relative_areas(frames: Frames, variance: bool | str) -> npt.NDArray[np.float64]:
    """Areas of the pixels of the data, relative to the most common one; NaN where no panel is."""
    if frames.geometry is None:
        raise GeometryError(
            "areas of pixels need the geometry",
            found="data without geometry",
            fix='raw.sd.assign_geometry(xs.open_geometry("geometry.data"))',
        )
    if variance is True:
        raise ParameterError(
            "counting statistics of pixels that are divided by their area are not known",
            found="variance=True, area=True",
            fix='divide the result by the areas yourself, or variance="noise"',
        )
    areas = frames.geometry.areas()
    relative: npt.NDArray[np.float64] = frames.part.take(areas) / np.nanmedian(areas)
    return relative


def _settled_unit(
    unit: str | None, constants: xr.Dataset, frames: Frames, photon_energy: float | None
) -> tuple[str, float]:
    """Settle the unit of the result and what a value in keV is multiplied by."""
    possible = data_unit(constants)
    wanted = possible if unit is None else unit
    if wanted not in (KILOELECTRONVOLT, PHOTON, ADU):
        raise ParameterError("unknown unit", found=unit, expected='"keV", "photon" or "ADU"')
    entry = detector_type(constants.attrs[DETECTOR_TYPE])
    stages_differ = entry.n_stages > 1 and unit is None and GAIN not in constants
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
    return wanted, 1000.0 / _photon_energy(frames, photon_energy, fix)


def _check_limits(reasons: Reason, saturation: object, switching: object, status_bits: int | None) -> None:
    """Refuse limits that nothing would be done with."""
    given = ((SATURATION, saturation, Reason.SATURATED), (SWITCHING, switching, Reason.NEAR_SWITCHING))
    for name, limits, reason in given:
        if limits is not None and reason not in reasons:
            word = reason_names(reason)[0]
            raise ParameterError(
                f"{name} is given, and {word!r} is not among the reasons that make a pixel NaN",
                found=f"{name}={limits!r}",
                fix=f'trust=["default", "{word}"], or .sd.trust(constants, {name}=...) for flags of it',
            )
    if status_bits is not None and not reasons & (OF_STATUS | Reason.MEMORY_CELL_STATUS):
        raise ParameterError(
            "status_bits is given, and no status is among the reasons that make a pixel NaN",
            found=", ".join(reason_names(reasons)),
            fix='trust=["constant"], or leave status_bits out',
        )


def _photon_size(
    variance: bool | str, unit: str, constants: xr.Dataset, frames: Frames, photon_energy: float | None
) -> float:
    """One photon in the unit of the data, 0 where counting statistics stay out."""
    if variance not in (True, False, "noise"):
        raise ParameterError("unknown kind of variance", found=repr(variance), expected='True, False or "noise"')
    if not variance:
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
    return (
        _photon_energy(frames, photon_energy, 'calibrate(..., variance=True, photon_energy=9500), or "noise"') / 1000.0
    )


def _photon_energy(frames: Frames, given: float | None, fix: str) -> float:
    """The photon energy in eV, given or that of the data."""
    of_data = None if frames.beam is None or frames.energy_varies else frames.beam.photon_energy
    energy = of_data if given is None else given
    if energy is None or np.ndim(energy) > 0:
        several = given is not None or frames.energy_varies
        raise ParameterError(
            "photons need one photon energy",
            found="one per event" if several else "none",
            expected="a number in eV",
            fix=f"{fix}; or calibrate to keV and divide by photon_energy / 1000" if several else fix,
        )
    return check_photon_energy(float(energy))


def _check_energy(photon_energy: float | None, unit: str, variance: bool | str) -> None:
    """Refuse a photon energy that nothing would be done with."""
    if photon_energy is not None and unit != PHOTON and variance is not True:
        raise ParameterError(
            f"the photon energy changes nothing in {unit}",
            found=f"photon_energy={photon_energy!r}",
            fix='unit="photon", or variance=True for the statistics of counting; '
            "raw.sd.assign_beam(photon_energy=...) keeps it beside the data",
        )


def _calibrate_parameters(
    unit: str,
    constants: xr.Dataset,
    entry: DetectorType,
    scale: float,
    mode: CommonMode,
    reasons: Reason,
    mask: object,
) -> str:
    said = {
        "function": "calibrate",
        "unit": unit,
        "constants": sorted(str(name) for name in constants.data_vars),
        "constants_source": constants.attrs.get(SOURCE),
        RUN_RANGE: [int(r) for r in constants.attrs[RUN_RANGE]] if RUN_RANGE in constants.attrs else None,
        "gain_stages": list(entry.stages),
        "common_mode": f"{mode.origin}: {mode.describe()}",
        "not_trusted": list(reason_names(reasons)),
        "mask": mask is not None,
        "photon_energy": 1000.0 / scale if unit == PHOTON else None,
    }
    return json.dumps({key: value for key, value in said.items() if value is not None})
