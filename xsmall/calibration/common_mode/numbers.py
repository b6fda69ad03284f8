"""The numbers of common modes: what psana's and smalldata_tools' numbers stand for, detector by detector.

Where a number means something in smalldata_tools for the detector at hand, it means that here; the other numbers are
psana's algorithms with psana's default parameters. A tuple is psana's parameter vector (``cmpars``), algorithm first.
Adding a number is one entry.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from operator import index
from types import MappingProxyType
from typing import Final

from xsmall.calibration.common_mode.mode import CommonMode, Subtract
from xsmall.calibration.common_mode.steps import (
    ModeSteps,
    bank_medians,
    epix_medians,
    fccd_medians,
    pnccd_medians,
    psana_algorithms,
    region_medians,
    stretches,
    unbonded_pixels,
    zero_photon_peak,
)
from xsmall.detector.types import detector_type as detector_type_of
from xsmall.errors import ParameterError

__all__ = ["RECOMMENDED", "CommonModeLike", "common_mode_numbers", "gain_stages_of", "resolve_common_mode"]

CommonModeLike = CommonMode | int | str | tuple[float, ...] | bool | None
"""What the argument ``common_mode=`` takes."""

_HIGH_STAGES: Final[Mapping[str, tuple[int, ...]]] = MappingProxyType(
    {"jungfrau": (0,), "epix10ka": (0, 1, 3, 4), "epixhr2x2": (0, 1, 3, 4), "epixhr1x4": (0, 1, 3, 4)}
)
"""Gain stages whose pixels are estimated and corrected; in the low ones the offset is nothing beside the signal."""


_CSPAD: Final[Mapping[int, ModeSteps]] = MappingProxyType(
    {
        1: zero_photon_peak(25, 40, 100),
        5: unbonded_pixels(100),
        55: unbonded_pixels(5000),
        10: zero_photon_peak(25, 40, 100, 1),
        30: zero_photon_peak(25, 25, 100),
    }
)


def _gain_switching(detector: str, limit: float) -> Mapping[int, ModeSteps]:
    """The numbers of ePix10ka and its kin; 83 to 85 with the limit of LCLS-II."""
    return {
        7: bank_medians(detector, 2, 10),
        30: bank_medians(detector, 2, 10),
        80: (),
        82: (),
        83: bank_medians(detector, 1, limit),
        84: bank_medians(detector, 2, limit),
        85: bank_medians(detector, 3, limit),
    }


_HALF_ROW: Final = Subtract(
    name="half_row", rows=1, columns=256, within=None, below=30, max_correction=30, min_count=13
)
_GAP: Final = Subtract(
    name="segment", columns_used=(255, 257), mask=False, applied_to="all"
)  # the two middle columns of an Icarus frame see no light

_CAMERA: Final[dict[int, ModeSteps]] = {
    1: zero_photon_peak(50, 50, 100, section=False),
    2: stretches("mean", 10, 10, 0),
    3: stretches("median", 350, 350, 128),
    30: (),
}

_NUMBERS: Final[Mapping[str, Mapping[int, ModeSteps]]] = MappingProxyType(
    {
        "jungfrau": {
            7: bank_medians("jungfrau", 3, 10),
            71: bank_medians("jungfrau", 1, 10),
            72: bank_medians("jungfrau", 2, 10),
            30: bank_medians("jungfrau", 1, 100, 0),
        },
        "epix10ka": _gain_switching("epix10ka", 100),
        "epixhr2x2": _gain_switching("epixhr2x2", 100),
        "epixhr1x4": _gain_switching("epixhr1x4", 100),
        "epix100": {
            4: region_medians(6, 30, 10),
            6: epix_medians(mean_first=True, mask=False),
            7: bank_medians("epix100", 7, 100),
            30: region_medians(6, 30, 30),
            34: region_medians(6, 100, 100),
            36: epix_medians(mean_first=False, mask=False),
            45: epix_medians(mean_first=False, mask=True),
            46: epix_medians(mean_first=True, mask=True),
            47: epix_medians(mean_first=False, mask=True, banks_first=True),
        },
        "cspad": _CSPAD,
        "cspad2x2": _CSPAD,
        "pnccd": {
            2: stretches("mean", 350, 350, 128),
            3: stretches("median", 350, 350, 128),
            8: pnccd_medians(5, 500),
            30: stretches("median", 350, 350, 128),
        },
        "archon": {
            30: (Subtract(name="bank_row", rows=1, columns=300, columns_used=(264, 300), mask=False, applied_to="all"),)
        },
        "icarus": {
            80: (Subtract(name="segment", applied_to="all"),),
            81: (replace(_HALF_ROW, applied_to="all"),),
            98: (replace(_GAP, applied_to="nothing"),),
            99: (_GAP,),
        },
        "uxi": {
            80: (Subtract(name="segment", applied_to="all"),),
            81: (replace(_HALF_ROW, below=50, max_correction=50, applied_to="all"),),
            98: (replace(_GAP, applied_to="nothing"),),
            99: (_GAP,),
        },
        "princeton": {
            1: zero_photon_peak(50, 50, 100, section=False),
            30: zero_photon_peak(50, 50, 100, section=False),
        },
        "andor": {2: stretches("mean", 10, 10, 0), 30: stretches("mean", 10, 10, 0)},
        "fccd960": {n: _CAMERA[n] for n in (1, 2, 30)} | {4: fccd_medians(1, 20)},  # 128 pixels (3) cross its rows
        "camera": _CAMERA,
    }
)
"""Steps of each number by detector; 0 (none) and -1 (raw words) hold for all."""

RECOMMENDED: Final[Mapping[str, int]] = MappingProxyType(
    {"jungfrau": 7, "epix100": 46, "epix10ka": 80, "cspad": 1, "cspad2x2": 1, "archon": 30}
)
"""What LCLS advises; detectors that are not here are advised none."""

_EPIX10KA_2M: Final = 16  # segments of the ePix10ka2M, for which columns are advised (84)


def _numbers_key(detector: str) -> str:
    """Name under which a detector's numbers stand: its own, or that of its type."""
    name = detector.lower()
    return name if name in _NUMBERS else detector_type_of(detector).name


def common_mode_numbers(detector_type: str) -> tuple[int, ...]:
    """List the common-mode numbers of a detector.

    Parameters
    ----------
    detector_type
        Name or alias of the detector's type.

    Examples
    --------
    >>> import xsmall as xs
    >>> xs.common_mode_numbers("jungfrau")
    (-1, 0, 7, 30, 71, 72)
    """
    return tuple(sorted({-1, 0, *_NUMBERS.get(_numbers_key(detector_type), {})}))


def gain_stages_of(detector_type: str) -> tuple[int, ...] | None:
    """Return the gain stages whose pixels common modes of a detector estimate and correct; None: all."""
    return _HIGH_STAGES.get(_numbers_key(detector_type))


def resolve_common_mode(
    spec: CommonModeLike, detector_type: str | None, *, n_segments: int | None = None
) -> CommonMode:
    """Turn what a user gives for ``common_mode=`` into a record.

    Parameters
    ----------
    spec
        A :class:`~xsmall.calibration.common_mode.mode.CommonMode`, a number, psana's parameter tuple,
        ``"recommended"``, or None, False, 0 for none.
    detector_type
        Name or alias of the detector's type; numbers and tuples need it.
    n_segments
        Segments of the whole detector; tells an ePix10ka2M from a single one in ``"recommended"``.

    Returns
    -------
    The record; ``origin`` says where it comes from, ``describe()`` what it does.

    Raises
    ------
    ParameterError
        The detector has no such number; the message lists those that exist.

    Examples
    --------
    >>> import xsmall as xs
    >>> xs.resolve_common_mode("recommended", "epix100").origin
    'recommended for epix100: 46'
    >>> xs.resolve_common_mode((7, 1, 10, 10), "jungfrau").describe()
    'median of each row (1 x 64 pixels), up to 10 ADU, from 11 pixels on'
    """
    if isinstance(spec, CommonMode):
        return spec
    if spec is None or spec is False:
        return CommonMode(origin="none")
    if detector_type is None:
        raise ParameterError(
            "a common-mode number says nothing without the detector",
            found=f"common_mode={spec!r}, no detector_type",
            fix='raw.assign_attrs(detector_type="jungfrau"), or a CommonMode record',
        )
    if isinstance(spec, tuple | list):
        return _mode_from_psana(tuple(spec), detector_type)
    if spec == "recommended":
        key = _numbers_key(detector_type)
        number = 84 if key == "epix10ka" and n_segments == _EPIX10KA_2M else RECOMMENDED.get(key, 0)
        found = _numbered(number, detector_type)
        return replace(found, origin=f"recommended for {key}: {number or 'none'}")
    if hasattr(spec, "__index__") and not isinstance(spec, bool):  # NumPy's integers too
        return _numbered(index(spec), detector_type)
    raise ParameterError(
        "this is not a common mode",
        found=f"common_mode={spec!r}",
        expected="a number, psana's parameter tuple, 'recommended', None or a CommonMode",
        fix='common_mode="recommended"',
    )


def _numbered(number: int, detector_type: str) -> CommonMode:
    key = _numbers_key(detector_type)
    table = _NUMBERS.get(key, {})
    if number not in (-1, 0) and number not in table:
        raise ParameterError(
            f"detector type {key!r} has no common mode {number}",
            found=f"common_mode={number}",
            expected="one of " + ", ".join(str(n) for n in common_mode_numbers(detector_type)),
            fix=_instead_of(number, table),
        )
    steps = table.get(number, ())
    return CommonMode(
        steps=steps,
        gain_stages=_HIGH_STAGES.get(key) if steps else None,
        segment_shape=_segment_shape(key),
        number=number,
        origin=f"{key} {number}",
        raw=number == -1,
    )


def _instead_of(number: int, table: Mapping[int, ModeSteps]) -> str | None:
    """What to write in place of numbers of smalldata_tools that are more than a common mode."""
    plain, ghost = number % 100, number > 100
    if plain == 81 and 80 in table:
        fix = "constants.assign(gain=...) with the nominal gains of the stages, and common_mode=80"
    elif ghost and (plain in table or plain == 0):
        fix = f"common_mode={plain}"
    else:
        return None
    return f"{fix}; then .sd.subtract_ghost(p1, offset=p0)" if ghost else fix


def _segment_shape(key: str) -> tuple[int, int] | None:
    return (1024, 512) if key in ("icarus", "uxi") else detector_type_of(key).segment_shape


def _mode_from_psana(cmpars: tuple[float, ...], detector_type: str) -> CommonMode:
    """Read psana's parameter vector: algorithm, then its parameters."""
    key = _numbers_key(detector_type)
    if not cmpars:
        raise ParameterError("an empty parameter tuple", found="()", expected="(algorithm, ...)", fix="common_mode=0")
    algorithm, *rest = cmpars
    # for the detectors of its median family psana 2 documents (0, bits, limit, fewest), too: pixels of all gains
    every_gain = key in (*_HIGH_STAGES, "epix100") and int(algorithm) == 0 and len(rest) > 1 and rest[0] > 0
    steps: ModeSteps = ()
    if int(algorithm) != 0 or every_gain:
        maker = psana_algorithms(key).get(7 if every_gain else int(algorithm))
        if maker is None:
            raise ParameterError(
                f"psana has no common-mode algorithm {algorithm:g} for detector type {key!r}",
                found=f"common_mode={cmpars!r}",
                expected="algorithm 0 or one of " + ", ".join(str(a) for a in sorted(psana_algorithms(key))),
            )
        try:
            steps = maker(*rest)
        except TypeError:
            raise ParameterError(
                f"psana's algorithm {algorithm:g} has other parameters", found=f"common_mode={cmpars!r}"
            ) from None
    stages = _HIGH_STAGES.get(key) if steps and (key == "jungfrau" or int(algorithm) == 7) else None
    return CommonMode(steps=steps, gain_stages=stages, segment_shape=_segment_shape(key), origin=f"psana {cmpars}")
