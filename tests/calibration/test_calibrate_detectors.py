"""Every gain range, gain code and kind of bad constant of each family of detectors, beside the published formulas."""

import numpy as np
import pytest
import xarray as xr

import xsmall as xs
from xsmall.calibration.tables import control_stages
from xsmall.detector.types import detector_type
from xsmall.errors import DataError
from xsmall.vocabulary import FRAME_DIMS


def frames(words: np.ndarray, kind: str) -> xr.DataArray:
    return xr.DataArray(words, dims=FRAME_DIMS, attrs={"detector_type": kind})


def table(rng: np.random.Generator, stages: int, shape: tuple[int, ...]) -> dict[str, np.ndarray]:
    """Constants with NaN pedestals, zero and NaN gains, and status in single stages."""
    full = (stages, *shape)
    pedestal, gain = rng.normal(3000, 50, full), rng.uniform(0.3, 40, full) * rng.choice([-1, 1], full)
    pedestal[rng.random(full) < 0.01] = np.nan
    gain[rng.random(full) < 0.01] = 0
    gain[rng.random(full) < 0.01] = np.nan
    status = np.where(rng.random(full) < 0.01, rng.choice([1, 4, 64, 1 << 15, 1 << 20], full), 0)
    return {"pedestal": pedestal.astype(np.float32), "gain": gain.astype(np.float32), "status": status}


def value(adc: np.ndarray, stage: np.ndarray, known: dict[str, np.ndarray], merged: tuple[int, ...]) -> np.ndarray:
    """(ADC - pedestal) / gain of the stage of each pixel, NaN where a constant fails or a merged stage has a status."""
    pick = [np.take_along_axis(known[n][None], np.maximum(stage, 0)[:, None], 1)[:, 0] for n in ("pedestal", "gain")]
    with np.errstate(divide="ignore", invalid="ignore"):
        out = np.where(pick[1] == 0, np.nan, (adc - pick[0]) / pick[1])
    bad = (known["status"][list(merged)] & 0xFFFF != 0).any(axis=0)
    return np.where((stage < 0) | bad, np.nan, out)


@pytest.mark.parametrize(("kind", "bit"), [("epix10ka", 14), ("epixhr2x2", 15), ("epixhr1x4", 15)])
def test_seven_ranges_with_every_configuration(kind: str, bit: int) -> None:
    rng = np.random.default_rng(bit)
    shape = (2, 24, 40)
    bits = rng.integers(0, 32, shape).astype(np.uint8)  # test and mask bits say nothing about the gain
    words = rng.integers(0, 1 << 16, (3, *shape)).astype(np.uint16)
    known = table(rng, 7, shape)
    c = bits | ((words >> bit) & 1).astype(int) << 5
    stage = np.full(c.shape, -1)
    for k, (mask, wanted) in enumerate([(28, 28), (28, 12), (12, 8), (60, 16), (60, 0), (60, 48), (60, 32)]):
        stage[(c & mask) == wanted] = k
    expected = value(words & 0x3FFF, stage, known, (0, 1, 2, 3, 4))
    constants = xs.constants(kind, **known)
    ours = xs.calibrate(frames(words, kind), constants, gain_control=bits)
    np.testing.assert_allclose(ours.values, expected, rtol=1e-5, atol=1e-3)
    lazy = xs.calibrate(frames(words, kind).chunk(event=2, row=7), constants.chunk(), gain_control=bits)
    np.testing.assert_array_equal(lazy.values, ours.values)


def test_jungfrau_with_every_kind_of_bad_constant() -> None:
    rng = np.random.default_rng(0)
    shape = (2, 24, 40)
    words = rng.integers(0, 1 << 16, (3, *shape)).astype(np.uint16)
    known = table(rng, 3, shape)
    stage = np.array([0, 1, -1, 2])[words >> 14]
    expected = value(words & 0x3FFF, stage, known, (0, 1, 2))
    ours = xs.calibrate(frames(words, "jungfrau"), xs.constants("jungfrau", **known)).values
    np.testing.assert_allclose(ours, expected, rtol=1e-5, atol=1e-3)
    noise = rng.uniform(1, 9, known["gain"].shape).astype(np.float32)
    both = xs.calibrate(frames(words, "jungfrau"), xs.constants("jungfrau", **known, noise=noise), variance="noise")
    zero = known | {"pedestal": np.where(np.isnan(known["pedestal"]), np.nan, 0).astype(np.float32)}
    one_sigma = value(np.take_along_axis(noise[None], np.maximum(stage, 0)[:, None], 1)[:, 0], stage, zero, (0, 1, 2))
    np.testing.assert_allclose(both["calibrated_variance"].values, one_sigma**2, rtol=1e-5)


def test_epixm320_takes_its_second_plane_where_the_upper_bit_is_set() -> None:
    rng = np.random.default_rng(1)
    shape = (4, 12, 16)
    words = rng.integers(0, 1 << 16, (3, *shape)).astype(np.uint16)
    known = table(rng, 3, shape) | {"gain": np.ones((3, *shape), np.float32)}
    expected = value(words & 0x7FFF, (words >> 15).astype(int), known, (0, 1))
    constants = xs.constants("epixm320", known["pedestal"], status=known["status"])
    ours = xs.calibrate(frames(words, "epixm320"), constants, unit="ADU")
    assert ours.attrs["units"] == "ADU"
    np.testing.assert_allclose(ours.values, expected, rtol=1e-5, atol=1e-3)


def test_words_of_single_asics_of_an_epixuhr_are_refused_for_their_gain_bit_lies_elsewhere() -> None:
    shape = (4, 168, 192)
    adc = np.random.default_rng(3).integers(0, 2048, (2, *shape)).astype(np.uint16)
    switched = adc % 2
    plane = np.arange(12, dtype=np.float32)[:, None, None, None] * np.ones(shape, np.float32)
    constants, control = xs.constants("epixuhr", plane, gain=plane * 0 + 1), np.full(shape, 16, np.uint8)
    words = frames(adc | switched << 11, "epixuhr")
    for kind in ("epixuhr", "epixuhr35khz"):
        with pytest.raises(DataError, match="gain bit is bit 11"):
            xs.calibrate(words.assign_attrs(detector_type=kind), constants, gain_control=control)
    brought = ((words & 0x7FF) << 1 | (words >> 11) & 1).astype("uint16").assign_attrs(detector_type="epixuhr3x2")
    found = xs.calibrate(brought, constants, gain_control=control)
    np.testing.assert_array_equal(found.values, adc - np.where(switched, 8.0, 4.0))


@pytest.mark.validation
def test_ranges_equal_psanas_for_every_configuration() -> None:
    psana = pytest.importorskip("psana.detector.UtilsEpix10ka")
    bits = np.arange(32)
    found = control_stages(detector_type("epix10ka"), bits)
    for switched in (0, 1):
        theirs = np.full(bits.shape, -1)
        for k, of_range in enumerate(psana.gain_maps_epix10ka_any_alg(bits | switched << 5)):
            theirs[of_range] = k
        np.testing.assert_array_equal(found[switched], theirs)
