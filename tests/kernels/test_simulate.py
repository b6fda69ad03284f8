"""Kernels of the simulation against their twins and against what the distributions must be."""

import numpy as np
import pytest

from xsmall.kernels import simulate as kernels
from xsmall.kernels.reference import simulate as twin

KEY = np.uint64(0x1234_5678_9ABC_DEF0)
N = 20_000


def _constants(n: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    ones = np.ones((3, n), np.float32)
    pedestal = np.array([[2900.0], [15100.0], [15000.0]], np.float32) * ones
    gain = np.array([[41.0], [-1.45], [-0.11]], np.float32) * ones
    noise = np.array([[9.0], [3.5], [3.5]], np.float32) * ones
    return pedestal, gain, noise


def _digitise(mean: float, n: int, extra: np.ndarray | None = None, kind: np.ndarray | None = None) -> np.ndarray:
    out = np.empty(n, np.uint16)
    kernels.digitise(
        out,
        np.full(n, mean, np.float32),
        np.zeros(n, np.float32),
        np.zeros(n, np.float32) if extra is None else extra,
        *_constants(n),
        np.zeros(n, np.uint8) if kind is None else kind,
        1.0,
        0.0,
        9.5,
        KEY,
        7,
    )
    return out


def test_normal_numbers_are_those_of_the_exact_quantile_function() -> None:
    out = np.empty(N)
    kernels.normals(KEY, 5, out)
    expected = twin.normal(twin.hashes(int(KEY), np.arange(5, N + 5, dtype=np.uint64)) >> np.uint64(32))
    assert np.abs(out - expected).max() < 0.03  # the table is linear within its cells
    np.testing.assert_allclose(out, expected, atol=1e-4 + 2e-2 * (np.abs(expected).max() > 3))


def test_normal_numbers_have_the_moments_and_the_tails_of_the_distribution() -> None:
    n = 4_000_000
    out = np.empty(n)
    kernels.normals(KEY, 0, out)
    assert abs(out.mean()) < 4 / np.sqrt(n)
    assert abs(out.var() - 1) < 5 * np.sqrt(2 / n)
    for limit, share in ((3.0, 2.69980e-3), (4.0, 6.3342e-5), (5.0, 5.7330e-7)):
        found = np.count_nonzero(np.abs(out) > limit)
        assert abs(found - share * n) < 4 * np.sqrt(share * n) + 1


@pytest.mark.parametrize("mean", [0.003, 0.5, 3.0, 7.9, 8.1, 12.0, 45.0, 600.0])
def test_photon_numbers_have_the_mean_and_the_variance_of_a_poisson_distribution(mean: float) -> None:
    n = 1_000_000
    out = np.empty((n, 1), np.int64)
    kernels.photon_counts(KEY, 0, np.full(n, mean), out)
    error = np.sqrt(mean / n)
    assert abs(out.mean() - mean) < 4.5 * error
    spread = np.sqrt((mean + 2 * mean**2) / n)  # of the variance of a Poisson distribution
    assert abs(out.var() - mean) < 4.5 * spread
    assert out.min() >= 0


def test_no_light_means_no_photons() -> None:
    out = np.ones((10, 2), np.int64)
    kernels.photon_counts(KEY, 0, np.zeros(10), out)
    assert not out.any()


def test_raw_words_equal_those_of_the_twin_in_all_gain_stages_and_kinds_of_pixels() -> None:
    n = 4096
    energy = np.linspace(0, 60_000, n, dtype=np.float32)
    energy[: n // 2] = np.linspace(0, 400, n // 2)
    kind = (np.arange(n) % 49 == 0).astype(np.uint8) * (np.arange(n) % 4).astype(np.uint8)
    words = _digitise(0.0, n, energy, kind)
    g = np.empty(n)
    kernels.normals(KEY, 7, g)
    expected = twin.digitise(energy.astype(float), g, *_constants(n), kind)
    np.testing.assert_array_equal(words, expected)
    assert set(np.unique(words >> 14)) == {0, 1, 2, 3}


def test_numbers_of_a_counter_do_not_depend_on_where_a_call_begins() -> None:
    whole, part = np.empty(100), np.empty(40)
    kernels.uniforms(KEY, 0, whole)
    kernels.uniforms(KEY, 60, part)
    np.testing.assert_array_equal(whole[60:], part)


def test_a_charge_cloud_is_shared_as_its_integral_over_the_pixels() -> None:
    energy = np.zeros((6, 7), np.float32)
    kernels.add_photons(energy, np.array([[2.1, 3.95]]), 6.4, 0.12)
    expected = 6.4 * np.outer(twin.photon_shares(2.1, 6, 0.12), twin.photon_shares(3.95, 7, 0.12))
    np.testing.assert_allclose(energy, expected, atol=1e-6)
    assert energy.sum() == pytest.approx(6.4, rel=1e-6)


def test_charge_beside_the_sensor_is_lost() -> None:
    energy = np.zeros((4, 4), np.float32)
    kernels.add_photons(energy, np.array([[0.0, 2.5]]), 6.4, 0.12)
    assert energy.sum() == pytest.approx(3.2, rel=1e-3)


def test_spoilt_words_keep_their_value_and_get_the_bad_code() -> None:
    words = np.full(100_000, 3000, np.uint16)
    kernels.spoil_codes(words, KEY, 3, 1e-3)
    bad = words >> 14 == 2
    assert 50 < bad.sum() < 160
    assert (words & 0x3FFF == 3000).all()


def test_the_response_is_the_convolution_of_a_decay_with_a_gaussian() -> None:
    delay = np.linspace(-3, 6, 91)
    out = np.empty(delay.size)
    kernels.pump_response(delay, 0.3, 0.1, 1.5, out)
    fine = np.linspace(-0.8, 0.8, 16001)
    weight = np.exp(-0.5 * (fine / 0.1) ** 2)
    weight /= weight.sum()
    late = delay[:, None] - 0.3 - fine
    expected = (np.where(late >= 0, np.exp(-np.clip(late, 0, None) / 1.5), 0.0) * weight).sum(axis=1)
    np.testing.assert_allclose(out, expected, atol=3e-4)
