"""The numbers of common modes: what psana's and smalldata_tools' numbers stand for, detector by detector.

Where a number means something in smalldata_tools for the detector at hand, it means that here; the other numbers are
psana's algorithms with psana's default parameters. A tuple is psana's parameter vector (``cmpars``), algorithm first.
Adding a number is one entry.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from operator import index
from types import MappingProxyType
from typing import Final

from xsmall.detector.calibration.common_mode import CommonMode, Exclude, Subtract
from xsmall.detector.calibration.types import detector_type as detector_type_of
from xsmall.errors import ParameterError

__all__ = ["RECOMMENDED", "CommonModeLike", "common_mode_numbers", "gain_stages_of", "resolve_common_mode"]

CommonModeLike = CommonMode | int | str | tuple[float, ...] | bool | None
"""What the argument ``common_mode=`` takes."""

Steps = tuple[Exclude | Subtract, ...]

_NEXT_TO_NOTHING: Final = 0.1  # psana's flags are floats

_BANKS: Final[Mapping[str, tuple[int, int]]] = MappingProxyType(
    {
        "jungfrau": (256, 64),
        "epix10ka": (176, 48),
        "epixhr2x2": (144, 48),
        "epixhr1x4": (72, 96),
        "epix100": (352, 96),
        "pnccd": (512, 128),
    }
)
"""Rows and columns of a readout bank of a segment."""

_HIGH_STAGES: Final[Mapping[str, tuple[int, ...]]] = MappingProxyType(
    {"jungfrau": (0,), "epix10ka": (0, 1, 3, 4), "epixhr2x2": (0, 1, 3, 4), "epixhr1x4": (0, 1, 3, 4)}
)
"""Gain stages whose pixels are estimated and corrected; in the low ones the offset is nothing beside the signal."""


def _check_bits(bits: int, known: int, meaning: str) -> None:
    """Refuse bits that stand for no step: psana leaves them out without a word."""
    if bits & ~known:
        raise ParameterError(
            "these mode bits name steps that the algorithm does not have", found=bits, expected=f"a sum of {meaning}"
        )


def _medians(detector: str, mode: int, limit: float, npix_min: int = 10) -> Steps:
    """psana's median family: bit 4 banks, bit 1 rows of a bank, bit 2 half columns; strictly below the limit."""
    rows, columns = _BANKS[detector]
    _check_bits(mode, 7, "4 (banks), 1 (rows), 2 (columns)")
    steps = []
    for bit, name, unit_rows, unit_columns, fewest in (
        (4, "bank", rows, columns, npix_min),
        (1, "row", 1, columns, npix_min + 1),
        (2, "column", rows, 1, npix_min + 1),
    ):
        if mode & bit:
            steps.append(
                Subtract(name=name, rows=unit_rows, columns=unit_columns, max_correction=limit, limit_included=False,
                         min_count=max(fewest, 1))
            )  # fmt: skip
    return tuple(steps)


def _pnccd_medians(mode: int, limit: float, npix_min: int = 10) -> Steps:
    """Algorithm 8: rows of 128, whole rows, whole columns, banks of 512 x 128, in this order."""
    _check_bits(mode, 15, "1 (rows of 128), 2 (whole rows), 4 (columns), 8 (banks)")
    units = ((1, "row", 1, 128), (2, "whole_row", 1, None), (4, "column", None, 1), (8, "bank", None, 128))
    return tuple(
        Subtract(name=name, rows=rows, columns=columns, max_correction=limit, limit_included=False,
                 min_count=npix_min + (bit != 8))
        for bit, name, rows, columns in units if mode & bit
    )  # fmt: skip


def _region_medians(bits: int, half_range: float, limit: float) -> Steps:
    """Algorithm 4 of ePix100: bit 1 banks, bit 2 rows of a bank, bit 4 columns of a bank; taken from all pixels."""
    rows, columns = _BANKS["epix100"]
    _check_bits(bits, 7, "1 (banks), 2 (rows), 4 (columns)")
    units = ((1, "bank", rows, columns), (2, "row", 1, columns), (4, "column", rows, 1))
    return tuple(
        Subtract(name=name, rows=r, columns=c, within=half_range, max_correction=limit or None, min_count=10,
                 applied_to="all")
        for bit, name, r, c in units if bits & bit
    )  # fmt: skip


def _fccd_medians(bits: int, half_range: float, limit: float = 0) -> Steps:
    """Algorithm 4 of the FCCD960: bit 1 the even and the odd pixels of 160 in a row, bit 2 columns of 480 x 10.

    psana 1: ImgAlgos/include/CommonModeCorrection.h (units), CommonMode.h (medianInRegion), src/CommonMode.cpp
    (median_for_hist).
    """
    _check_bits(bits, 3, "1 (rows), 2 (supercolumns)")
    if limit < 0 or limit != int(limit):
        raise ParameterError(
            "psana cuts the largest correction of this detector to whole ADU",
            found=f"{limit:g}",
            expected="a whole number, or 0 for no limit",
        )
    units = ((1, "row", 1, 160, 2), (2, "supercolumn", 480, 10, 1))
    return tuple(
        Subtract(name=name, rows=r, columns=c, interleave=n, estimator="histogram_median", half_range=half_range,
                 max_correction=limit or None, min_count=10, applied_to="all")
        for bit, name, r, c, n in units if bits & bit
    )  # fmt: skip


def _epix_medians(*, mean_first: bool, mask: bool, banks_first: bool = False) -> Steps:
    """Algorithm 6: half columns, then rows of a bank, from pixels away from photons; at least a quarter of a unit."""
    banks = Subtract(name="bank", rows=352, columns=96, mask=False, applied_to="all")
    mean = Subtract(name="segment", estimator="mean", applied_to="used")
    column = Subtract(name="column", rows=352, columns=1, max_correction=30, min_count=88, applied_to="all")
    row = Subtract(name="row", rows=1, columns=96, max_correction=30, min_count=24, applied_to="all")
    exclude = Exclude(n_sigma=10, neighbours=True, within=30, mask=mask)
    return (*((banks,) if banks_first else ()), exclude, *((mean,) if mean_first else ()), column, row)


def _peak(limit: float, sigma_max: float, min_peak: float, fallback: float = 0, *, section: bool = True) -> Steps:
    """Algorithm 1: the zero-photon peak of a section, or of the whole segment."""
    rows, columns = (185, 388) if section else (None, None)
    return (
        Subtract(name="segment", rows=rows, columns=columns, estimator="peak", max_correction=limit,
                 sigma_max=sigma_max, min_peak=int(min_peak) if min_peak >= 1 else 100, applied_to="all",
                 fallback=section and fallback > _NEXT_TO_NOTHING),
    )  # fmt: skip


def _unbonded(limit: float) -> Steps:
    """Algorithm 5: the mean of the unbonded pixels of a section."""
    return (
        Subtract(name="segment", rows=185, columns=388, estimator="unbonded", max_correction=limit, mask=False,
                 applied_to="all"),
    )  # fmt: skip


def _stretches(estimator: str, threshold: float, limit: float, length: float) -> Steps:
    """Algorithms 2 and 3: mean or integer median of the values below a threshold in each stretch of ``length``."""
    if length and length < 100:
        raise ParameterError(
            "psana takes 128 in place of a length below 100",
            found=f"length {length:g}",
            fix="give 128, or a CommonMode with the unit that is meant",
        )
    return (
        Subtract(name="stretch", estimator="mean" if estimator == "mean" else "integer_median", below=threshold,
                 max_correction=limit, applied_to="all", pixels=int(length) or None, rows=None if length else 1),
    )  # fmt: skip


_CSPAD: Final[Mapping[int, Steps]] = MappingProxyType(
    {
        1: _peak(25, 40, 100),
        5: _unbonded(100),
        55: _unbonded(5000),
        10: _peak(25, 40, 100, 1),
        30: _peak(25, 25, 100),
    }
)


def _gain_switching(detector: str, limit: float) -> Mapping[int, Steps]:
    """The numbers of ePix10ka and its kin; 83 to 85 with the limit of LCLS-II."""
    return {
        7: _medians(detector, 2, 10),
        30: _medians(detector, 2, 10),
        80: (),
        82: (),
        83: _medians(detector, 1, limit),
        84: _medians(detector, 2, limit),
        85: _medians(detector, 3, limit),
    }


_HALF_ROW: Final = Subtract(
    name="half_row", rows=1, columns=256, within=None, below=30, max_correction=30, min_count=13
)
_GAP: Final = Subtract(
    name="segment", columns_used=(255, 257), mask=False, applied_to="all"
)  # the two middle columns of an Icarus frame see no light

_CAMERA: Final[dict[int, Steps]] = {
    1: _peak(50, 50, 100, section=False),
    2: _stretches("mean", 10, 10, 0),
    3: _stretches("median", 350, 350, 128),
    30: (),
}

_NUMBERS: Final[Mapping[str, Mapping[int, Steps]]] = MappingProxyType(
    {
        "jungfrau": {
            7: _medians("jungfrau", 3, 10),
            71: _medians("jungfrau", 1, 10),
            72: _medians("jungfrau", 2, 10),
            30: _medians("jungfrau", 1, 100, 0),
        },
        "epix10ka": _gain_switching("epix10ka", 100),
        "epixhr2x2": _gain_switching("epixhr2x2", 100),
        "epixhr1x4": _gain_switching("epixhr1x4", 100),
        "epix100": {
            4: _region_medians(6, 30, 10),
            6: _epix_medians(mean_first=True, mask=False),
            7: _medians("epix100", 7, 100),
            30: _region_medians(6, 30, 30),
            34: _region_medians(6, 100, 100),
            36: _epix_medians(mean_first=False, mask=False),
            45: _epix_medians(mean_first=False, mask=True),
            46: _epix_medians(mean_first=True, mask=True),
            47: _epix_medians(mean_first=False, mask=True, banks_first=True),
        },
        "cspad": _CSPAD,
        "cspad2x2": _CSPAD,
        "pnccd": {
            2: _stretches("mean", 350, 350, 128),
            3: _stretches("median", 350, 350, 128),
            8: _pnccd_medians(5, 500),
            30: _stretches("median", 350, 350, 128),
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
        "princeton": {1: _peak(50, 50, 100, section=False), 30: _peak(50, 50, 100, section=False)},
        "andor": {2: _stretches("mean", 10, 10, 0), 30: _stretches("mean", 10, 10, 0)},
        "fccd960": {n: _CAMERA[n] for n in (1, 2, 30)} | {4: _fccd_medians(1, 20)},  # 128 pixels (3) cross its rows
        "camera": _CAMERA,
    }
)
"""Steps of each number by detector; 0 (none) and -1 (raw words) hold for all."""

RECOMMENDED: Final[Mapping[str, int]] = MappingProxyType(
    {"jungfrau": 7, "epix100": 46, "epix10ka": 80, "cspad": 1, "cspad2x2": 1, "archon": 30}
)
"""What LCLS advises; detectors that are not here are advised none."""

_EPIX10KA_2M: Final = 16  # segments of the ePix10ka2M, for which columns are advised (84)


def _key(detector: str) -> str:
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
    >>> common_mode_numbers("jungfrau")
    (-1, 0, 7, 30, 71, 72)
    """
    return tuple(sorted({-1, 0, *_NUMBERS.get(_key(detector_type), {})}))


def gain_stages_of(detector_type: str) -> tuple[int, ...] | None:
    """Return the gain stages whose pixels common modes of a detector estimate and correct; None: all."""
    return _HIGH_STAGES.get(_key(detector_type))


def resolve_common_mode(
    spec: CommonModeLike, detector_type: str | None, *, n_segments: int | None = None
) -> CommonMode:
    """Turn what a user gives for ``common_mode=`` into a record.

    Parameters
    ----------
    spec
        A :class:`~xsmall.detector.calibration.common_mode.CommonMode`, a number, psana's parameter tuple,
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
    >>> resolve_common_mode("recommended", "epix100").origin
    'recommended for epix100: 46'
    >>> resolve_common_mode((7, 1, 10, 10), "jungfrau").describe()
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
        return _from_psana(tuple(spec), detector_type)
    if spec == "recommended":
        key = _key(detector_type)
        number = 84 if key == "epix10ka" and n_segments == _EPIX10KA_2M else RECOMMENDED.get(key, 0)
        found = _numbered(number, detector_type)
        return replace(found, origin=f"recommended for {key}: {number or 'none'}")
    if hasattr(spec, "__index__") and not isinstance(spec, bool):  # NumPy's integers too
        return _numbered(index(spec), detector_type)
    raise ParameterError(
        "this is not a common mode",
        found=f"common_mode={spec!r}",
        expected="a number, psana's parameter tuple, 'recommended', None or a CommonMode",
    )


def _numbered(number: int, detector_type: str) -> CommonMode:
    key = _key(detector_type)
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


def _instead_of(number: int, table: Mapping[int, Steps]) -> str | None:
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


def _from_psana(cmpars: tuple[float, ...], detector_type: str) -> CommonMode:
    """Read psana's parameter vector: algorithm, then its parameters."""
    key = _key(detector_type)
    if not cmpars:
        raise ParameterError("an empty parameter tuple", found="()", expected="(algorithm, ...)", fix="common_mode=0")
    algorithm, *rest = cmpars
    # for the detectors of its median family psana 2 documents (0, bits, limit, fewest), too: pixels of all gains
    every_gain = key in (*_HIGH_STAGES, "epix100") and int(algorithm) == 0 and len(rest) > 1 and rest[0] > 0
    steps: Steps = ()
    if int(algorithm) != 0 or every_gain:
        maker = _algorithms(key).get(7 if every_gain else int(algorithm))
        if maker is None:
            raise ParameterError(
                f"psana has no common-mode algorithm {algorithm:g} for detector type {key!r}",
                found=f"common_mode={cmpars!r}",
                expected="algorithm 0 or one of " + ", ".join(str(a) for a in sorted(_algorithms(key))),
            )
        try:
            steps = maker(*rest)
        except TypeError:
            raise ParameterError(
                f"psana's algorithm {algorithm:g} has other parameters", found=f"common_mode={cmpars!r}"
            ) from None
    stages = _HIGH_STAGES.get(key) if steps and (key == "jungfrau" or int(algorithm) == 7) else None
    return CommonMode(steps=steps, gain_stages=stages, segment_shape=_segment_shape(key), origin=f"psana {cmpars}")


def _algorithms(key: str) -> Mapping[int, Callable[..., Steps]]:
    """Makers of steps from the parameters of psana's algorithms that a detector has."""

    def medians(mode: float, limit: float = 100, npix_min: float = 10, *_: float) -> Steps:
        return _medians(key, int(mode), limit, int(npix_min))

    def peak(limit: float = 25, sigma: float = 25, least: float = 100, flag: float = 0, *more: float) -> Steps:
        steps = _peak(limit, sigma, least, flag, section=key.startswith("cspad"))
        if key.startswith("cspad"):
            return steps
        length, stride, *_ = (*more, 0, 0)
        if flag <= 1 and stride <= 1:
            return steps
        # of other detectors the numbers after the threshold are how many segments, their length and the stride
        if length < 100 or stride > 1:
            raise ParameterError(
                "segments of the frame that cannot be cut so",
                found=f"{flag:g} of {length:g} pixels with stride {stride:g}",
                expected="a length of at least 100 (psana takes 128 for less), stride 1",
            )
        return tuple(replace(step, pixels=int(length)) for step in steps if isinstance(step, Subtract))

    def means(threshold: float, limit: float, length: float = 128, *_: float) -> Steps:
        return _stretches("mean", threshold, limit, length)

    def integer_medians(threshold: float, limit: float, length: float = 128, *_: float) -> Steps:
        return _stretches("median", threshold, limit, length)

    def regions(bits: float, half_range: float, limit: float = 0, *_: float) -> Steps:
        return _region_medians(int(bits), half_range, limit)

    def fccd(bits: float, half_range: float, limit: float = 0, *_: float) -> Steps:
        return _fccd_medians(int(bits), half_range, limit)

    def epix(*more: float) -> Steps:
        if any(more):
            raise ParameterError(
                "psana's algorithm 6 takes no parameters from the tuple",
                found=more,
                fix="a CommonMode of Exclude and Subtract steps for other limits than 10 sigma and 30 ADU",
            )
        return _epix_medians(mean_first=False, mask=False)

    def unbonded(limit: float = 100, *_: float) -> Steps:
        return _unbonded(limit)

    def pnccd(mode: float = 5, limit: float = 500, npix_min: float = 10, *_: float) -> Steps:
        return _pnccd_medians(int(mode), limit, int(npix_min))

    if key in ("jungfrau", "epix10ka", "epixhr2x2", "epixhr1x4"):
        return {7: medians}
    out: dict[int, Callable[..., Steps]] = {1: peak, 2: means, 3: integer_medians}
    if key == "epix100":
        out |= {4: regions, 6: epix, 7: medians}
    if key == "fccd960":
        out |= {4: fccd}
    if key.startswith("cspad"):
        out |= {5: unbonded}
    if key == "pnccd":
        out |= {8: pnccd}
    return out
