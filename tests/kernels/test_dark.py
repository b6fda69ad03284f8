"""Sums of dark frames."""

import numpy as np
import pytest

from xsmall.calibration.dark.sums import DarkLimits, DarkSums
from xsmall.detector.types import detector_type
from xsmall.kernels.dark import moments_of_sums
from xsmall.kernels.reference.dark import dark_moments


def sums_of(words: np.ndarray, name: str, cuts: list[int]) -> DarkSums:
    """Sums of words (event, row, column), added in pieces and merged."""
    entry = detector_type(name)
    parts = []
    for piece in np.split(words, cuts):
        part = DarkSums(entry, DarkLimits(), (1, *words.shape[1:]))
        part.add(0, piece)
        parts.append(part)
    total = parts[0].empty()
    for part in parts:
        total.merge(part)
    return total


def moments(sums: DarkSums, code: int) -> tuple[np.ndarray, ...]:
    slot = sums.codes.index(code)
    count, total, square, least, most, _, _ = (a[0, slot] for a in sums.arrays)
    mean, variance = np.empty(count.size), np.empty(count.size)
    moments_of_sums(count, total, square, mean, variance)
    return count, mean, variance, least, most


@pytest.mark.parametrize(("name", "bits"), [("jungfrau", 16), ("opal", 16), ("epixm320", 16), ("epixuhr", 12)])
def test_sums_equal_the_twin_for_every_code(name: str, bits: int) -> None:
    rng = np.random.default_rng(0)
    words = rng.integers(0, 1 << bits, (40, 3, 700)).astype(np.uint16)
    words[:, :2] &= 0x3FFE  # most pixels in one gain, as in a dark
    entry = detector_type(name)
    sums = sums_of(words, name, [1, 17])
    expected = dark_moments(words.reshape(40, -1), entry.code_shift, entry.n_codes - 1, entry.data_shift, entry.adc_max)
    assert set(sums.codes) == set(expected)
    for code, (count, mean, variance, least, most) in expected.items():
        found = moments(sums, code)
        seen = count > 0
        np.testing.assert_array_equal(found[0], count)
        np.testing.assert_allclose(found[1], mean, rtol=1e-12)
        np.testing.assert_allclose(found[2], variance, rtol=1e-9, atol=1e-9)
        np.testing.assert_array_equal(found[3][seen], least[seen])
        np.testing.assert_array_equal(found[4][seen], most[seen])


def test_sums_do_not_depend_on_how_events_are_cut() -> None:
    words = np.random.default_rng(1).integers(0, 1 << 16, (50, 4, 33)).astype(np.uint16)
    whole = sums_of(words, "jungfrau", [])
    cut = sums_of(words[::-1], "jungfrau", [3, 4, 30])
    for code in range(4):
        for a, b in zip(moments(whole, code), moments(cut, code), strict=True):
            np.testing.assert_array_equal(a, b)


def test_the_variance_of_large_values_does_not_cancel() -> None:
    values = np.full((1000, 1, 4), 65533, np.uint16)
    values[::2] += 1
    sums = sums_of(values, "opal", [])
    np.testing.assert_allclose(moments(sums, 0)[2], 0.25 * 1000 / 999, rtol=1e-13)
