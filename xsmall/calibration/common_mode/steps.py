"""Steps of the common modes of psana and smalldata_tools: each algorithm, made from its parameters."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from types import MappingProxyType
from typing import Final

from xsmall.calibration.common_mode.mode import Exclude, Subtract
from xsmall.errors import ParameterError

__all__ = [
    "ModeSteps", "bank_medians", "epix_medians", "fccd_medians", "pnccd_medians", "psana_algorithms", "region_medians",
    "stretches", "unbonded_pixels", "zero_photon_peak",
]  # fmt: skip

ModeSteps = tuple[Exclude | Subtract, ...]

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


def _check_bits(bits: int, known: int, meaning: str) -> None:
    """Refuse bits that stand for no step: psana leaves them out without a word."""
    if bits & ~known:
        raise ParameterError(
            "these mode bits name steps that the algorithm does not have", found=bits, expected=f"a sum of {meaning}"
        )


def bank_medians(detector: str, mode: int, limit: float, npix_min: int = 10) -> ModeSteps:
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


def pnccd_medians(mode: int, limit: float, npix_min: int = 10) -> ModeSteps:
    """Algorithm 8: rows of 128, whole rows, whole columns, banks of 512 x 128, in this order."""
    _check_bits(mode, 15, "1 (rows of 128), 2 (whole rows), 4 (columns), 8 (banks)")
    units = ((1, "row", 1, 128), (2, "whole_row", 1, None), (4, "column", None, 1), (8, "bank", None, 128))
    return tuple(
        Subtract(name=name, rows=rows, columns=columns, max_correction=limit, limit_included=False,
                 min_count=npix_min + (bit != 8))
        for bit, name, rows, columns in units if mode & bit
    )  # fmt: skip


def region_medians(bits: int, half_range: float, limit: float) -> ModeSteps:
    """Algorithm 4 of ePix100: bit 1 banks, bit 2 rows of a bank, bit 4 columns of a bank; taken from all pixels."""
    rows, columns = _BANKS["epix100"]
    _check_bits(bits, 7, "1 (banks), 2 (rows), 4 (columns)")
    units = ((1, "bank", rows, columns), (2, "row", 1, columns), (4, "column", rows, 1))
    return tuple(
        Subtract(name=name, rows=r, columns=c, within=half_range, max_correction=limit or None, min_count=10,
                 applied_to="all")
        for bit, name, r, c in units if bits & bit
    )  # fmt: skip


def fccd_medians(bits: int, half_range: float, limit: float = 0) -> ModeSteps:
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


def epix_medians(*, mean_first: bool, mask: bool, banks_first: bool = False) -> ModeSteps:
    """Algorithm 6: half columns, then rows of a bank, from pixels away from photons; at least a quarter of a unit."""
    banks = Subtract(name="bank", rows=352, columns=96, mask=False, applied_to="all")
    mean = Subtract(name="segment", estimator="mean", applied_to="used")
    column = Subtract(name="column", rows=352, columns=1, max_correction=30, min_count=88, applied_to="all")
    row = Subtract(name="row", rows=1, columns=96, max_correction=30, min_count=24, applied_to="all")
    exclude = Exclude(n_sigma=10, neighbours=True, within=30, mask=mask)
    return (*((banks,) if banks_first else ()), exclude, *((mean,) if mean_first else ()), column, row)


def zero_photon_peak(
    limit: float, sigma_max: float, min_peak: float, fallback: float = 0, *, section: bool = True
) -> ModeSteps:
    """Algorithm 1: the zero-photon peak of a section, or of the whole segment."""
    rows, columns = (185, 388) if section else (None, None)
    return (
        Subtract(name="segment", rows=rows, columns=columns, estimator="peak", max_correction=limit,
                 sigma_max=sigma_max, min_peak=int(min_peak) if min_peak >= 1 else 100, applied_to="all",
                 fallback=section and fallback > _NEXT_TO_NOTHING),
    )  # fmt: skip


def unbonded_pixels(limit: float) -> ModeSteps:
    """Algorithm 5: the mean of the unbonded pixels of a section."""
    return (
        Subtract(name="segment", rows=185, columns=388, estimator="unbonded", max_correction=limit, mask=False,
                 applied_to="all"),
    )  # fmt: skip


def stretches(estimator: str, threshold: float, limit: float, length: float) -> ModeSteps:
    """Algorithms 2 and 3: mean or integer median of the values below a threshold in each stretch of ``length``."""
    if length and length < 100:
        raise ParameterError(
            "psana takes 128 in place of a length below 100",
            found=f"length {length:g}",
            fix="give 128, or a CommonMode with the unit you want",
        )
    return (
        Subtract(name="stretch", estimator="mean" if estimator == "mean" else "integer_median", below=threshold,
                 max_correction=limit, applied_to="all", pixels=int(length) or None, rows=None if length else 1),
    )  # fmt: skip


def psana_algorithms(key: str) -> Mapping[int, Callable[..., ModeSteps]]:
    """Makers of steps from the parameters of psana's algorithms that a detector has."""

    def medians(mode: float, limit: float = 100, npix_min: float = 10, *_: float) -> ModeSteps:
        return bank_medians(key, int(mode), limit, int(npix_min))

    def peak(limit: float = 25, sigma: float = 25, least: float = 100, flag: float = 0, *more: float) -> ModeSteps:
        steps = zero_photon_peak(limit, sigma, least, flag, section=key.startswith("cspad"))
        if key.startswith("cspad"):
            return steps
        length, stride, *_ = (*more, 0, 0)
        if flag <= 1 and stride <= 1:
            return steps
        # of other detectors the numbers after the threshold are how many segments, their length and the stride
        if length < 100 or stride > 1:
            raise ParameterError(
                "the frame cannot be cut into such segments",
                found=f"{flag:g} of {length:g} pixels with stride {stride:g}",
                expected="a length of at least 100 (psana takes 128 for less), stride 1",
            )
        return tuple(replace(step, pixels=int(length)) for step in steps if isinstance(step, Subtract))

    def means(threshold: float, limit: float, length: float = 128, *_: float) -> ModeSteps:
        return stretches("mean", threshold, limit, length)

    def integer_medians(threshold: float, limit: float, length: float = 128, *_: float) -> ModeSteps:
        return stretches("median", threshold, limit, length)

    def regions(bits: float, half_range: float, limit: float = 0, *_: float) -> ModeSteps:
        return region_medians(int(bits), half_range, limit)

    def fccd(bits: float, half_range: float, limit: float = 0, *_: float) -> ModeSteps:
        return fccd_medians(int(bits), half_range, limit)

    def epix(*more: float) -> ModeSteps:
        if any(more):
            raise ParameterError(
                "psana's algorithm 6 takes no parameters from the tuple",
                found=more,
                fix="a CommonMode of Exclude and Subtract steps for other limits than 10 sigma and 30 ADU",
            )
        return epix_medians(mean_first=False, mask=False)

    def unbonded(limit: float = 100, *_: float) -> ModeSteps:
        return unbonded_pixels(limit)

    def pnccd(mode: float = 5, limit: float = 500, npix_min: float = 10, *_: float) -> ModeSteps:
        return pnccd_medians(int(mode), limit, int(npix_min))

    if key in ("jungfrau", "epix10ka", "epixhr2x2", "epixhr1x4"):
        return {7: medians}
    out: dict[int, Callable[..., ModeSteps]] = {1: peak, 2: means, 3: integer_medians}
    if key == "epix100":
        out |= {4: regions, 6: epix, 7: medians}
    if key == "fccd960":
        out |= {4: fccd}
    if key.startswith("cspad"):
        out |= {5: unbonded}
    if key == "pnccd":
        out |= {8: pnccd}
    return out
