"""Common mode beside psana's own functions, over many masks and parameters."""

import warnings

import numpy as np
import pytest
import xarray as xr

from xsmall.calibration.calibrate import calibrate
from xsmall.calibration.common_mode.mode import CommonMode
from xsmall.calibration.common_mode.numbers import resolve_common_mode
from xsmall.calibration.common_mode.plan import compile_plan
from xsmall.calibration.constants import constants as make_constants
from xsmall.kernels.common_mode import apply_common_mode
from xsmall.vocabulary import FRAME_DIMS

pytestmark = pytest.mark.validation


def frame(shape: tuple[int, int], seed: int) -> tuple[np.ndarray, np.ndarray]:
    """An image with offsets of rows, columns and banks and photons, and a mask with empty and nearly empty units."""
    rng = np.random.default_rng(seed)
    image = rng.normal(0, 3, shape) + rng.normal(0, 5, (shape[0], 1)) + rng.normal(0, 5, (1, shape[1]))
    image[:, : shape[1] // 8] += 7
    image[rng.random(shape) < 0.03] += 200
    mask = rng.random(shape) < 0.9
    mask[: shape[0] // 4] &= rng.random((shape[0] // 4, shape[1])) < 0.15
    mask[10] = False
    mask[:, 33] = False
    mask[: shape[0] // 2, -shape[1] // 8 :] = False
    return image.astype(np.float32), mask.astype(np.int16)


def ours(mode: CommonMode, image: np.ndarray, mask: np.ndarray) -> np.ndarray:
    plan = compile_plan(mode, range(image.shape[0]), range(image.shape[1]))
    stack = image[None].copy()
    corrections, counts = np.empty((1, plan.n_units), np.float32), np.empty((1, plan.n_units), np.int32)
    apply_common_mode(stack, mask[None].astype(np.uint8), plan, corrections, counts)
    return stack[0]


@pytest.mark.parametrize("bits", range(1, 8))
@pytest.mark.parametrize(("limit", "fewest"), [(100, 10), (6, 10), (100, 60), (8, 0)])
def test_epix100_medians_equal_psana(bits: int, limit: float, fewest: int) -> None:
    psana = pytest.importorskip("psana.detector.UtilsCommonMode")
    image, mask = frame((704, 768), bits)
    expected = image[None].copy()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        psana.common_mode_apply(expected, mask[None], cmpars=(0, bits, limit, fewest))
    found = ours(resolve_common_mode((0, bits, limit, fewest), "epix100"), image, mask)
    np.testing.assert_allclose(found, expected[0], rtol=0, atol=1e-4)


@pytest.mark.parametrize("bits", [1, 2, 3, 4, 7])
def test_jungfrau_medians_equal_psana(bits: int) -> None:
    psana = pytest.importorskip("psana.detector.UtilsCommonMode")
    image, mask = frame((512, 1024), bits)
    expected = image.copy()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        if bits & 4:
            for half in (slice(0, 256), slice(256, 512)):
                psana.common_mode_2d_hsplit_nbanks(expected[half], mask=mask[half], nbanks=16, cormax=9, npix_min=10)
        if bits & 1:
            psana.common_mode_rows_hsplit_nbanks(expected, mask=mask, nbanks=16, cormax=9, npix_min=10)
        if bits & 2:
            for half in (slice(0, 256), slice(256, 512)):
                psana.common_mode_cols(expected[half], mask=mask[half], cormax=9, npix_min=10)
    found = ours(resolve_common_mode((7, bits, 9, 10), "jungfrau"), image, mask)
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-4)


@pytest.mark.parametrize("bits", range(1, 8))
def test_jungfrau_calibration_equals_psana_for_random_words_masks_and_limits(bits: int) -> None:
    psana = pytest.importorskip("psana.detector.UtilsCommonMode")
    rng = np.random.default_rng(100 + bits)
    limit, fewest = float(rng.uniform(3, 15)), int(rng.integers(1, 40))
    image, mask = frame((512, 1024), 100 + bits)
    code = rng.choice(np.array([0, 1, 3], np.uint16), image.shape, p=[0.85, 0.1, 0.05])
    words = (image + 2800).round().astype(np.uint16) | code << np.uint16(14)
    adu = (words & 0x3FFF).astype(np.float32) - np.float32(2800)
    expected, good = adu.copy(), mask * (code == 0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        half_rows = (slice(0, 256), slice(256, 512))
        for half in half_rows if bits & 4 else ():
            psana.common_mode_2d_hsplit_nbanks(expected[half], good[half], nbanks=16, cormax=limit, npix_min=fewest)
        if bits & 1:
            psana.common_mode_rows_hsplit_nbanks(expected, good, nbanks=16, cormax=limit, npix_min=fewest)
        for half in half_rows if bits & 2 else ():
            psana.common_mode_cols(expected[half], good[half], cormax=limit, npix_min=fewest)
    changed = (expected != adu)[good == 1]
    assert 0.05 < changed.mean() < 1  # some units corrected, some beyond the limit or too small
    raw = xr.DataArray(words[None, None], dims=FRAME_DIMS, attrs={"detector_type": "jungfrau"})
    known = make_constants("jungfrau", np.full((3, 1, 512, 1024), 2800.0))
    mode = (7, bits, limit, fewest)
    found = calibrate(raw, known, common_mode=mode, mask=mask[None] == 1, unit="ADU").values[0, 0]
    np.testing.assert_allclose(found[mask == 1], expected[mask == 1], rtol=0, atol=1e-4)


@pytest.mark.parametrize("bits", range(1, 16, 2))
def test_pnccd_medians_equal_psana(bits: int) -> None:
    psana = pytest.importorskip("psana.detector.UtilsCommonMode")
    image, mask = frame((512, 512), bits)
    expected = image.copy()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        if bits & 1:
            psana.common_mode_rows_hsplit_nbanks(expected, mask, 4, 500)
        if bits & 2:
            psana.common_mode_rows(expected, mask, 500)
        if bits & 4:
            psana.common_mode_cols(expected, mask, 500)
        if bits & 8:
            psana.common_mode_2d_hsplit_nbanks(expected, mask, 4, 500)
    found = ours(resolve_common_mode((8, bits, 500), "pnccd"), image, mask)
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-4)


@pytest.mark.parametrize(("algorithm", "detector", "length"), [(2, "pnccd", 128), (3, "pnccd", 128), (2, "andor", 512)])
@pytest.mark.parametrize(("threshold", "limit"), [(350, 350), (3, 4)])
def test_stretches_follow_the_published_recipe(
    algorithm: int, detector: str, length: int, threshold: float, limit: float
) -> None:
    image, mask = frame((512, 512), algorithm)
    expected = image.copy()
    for values, good in zip(expected.reshape(-1, length), mask.reshape(-1, length), strict=True):
        taken = values[(good != 0) & (values < threshold)]
        if taken.size == 0:
            continue
        if algorithm == 2:
            offset = np.float32(taken.astype(float).sum() / taken.size)
        else:
            counts = np.bincount(taken.astype(int) + 16384, minlength=32768)
            offset = np.float32(np.argmax(counts.cumsum() >= np.ceil(taken.size / 2)) - 16384)
        if abs(offset) <= limit:
            values -= offset
    found = ours(resolve_common_mode((algorithm, threshold, limit, length), detector), image, mask)
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-4)
