"""Kernels of calibration by memory cell against their NumPy twins."""

import numpy as np
import pytest

from xsmall.kernels.calibrate_cells import calibrate_cells, stages_of_gain, variance_cells
from xsmall.kernels.reference import calibrate_cells as twin

PLANES = {"agipd": np.array([0, 1, 2]), "jungfrau_euxfel": np.array([0, 1, -1, 2])}
N_CELLS, N_STAGES, K, N = 4, 3, 5, 700


@pytest.mark.parametrize("detector", PLANES)
def test_values_and_variances_equal_their_twins(detector: str) -> None:
    rng, plane = np.random.default_rng(11), PLANES[detector]
    raw = rng.integers(0, 9000, (K, N)).astype(np.uint16)
    code = rng.choice([0, 0, 1, 2, 3, 9], (K, N)).astype(np.uint8)
    cell = rng.integers(0, N_CELLS, K)
    pedestal = rng.normal(4000, 50, (N_CELLS, N_STAGES, N)).astype(np.float32)
    factor = rng.normal(0.02, 0.001, pedestal.shape).astype(np.float32)
    factor[rng.random(factor.shape) < 0.02] = np.nan
    dark = rng.uniform(0, 300, pedestal.shape).astype(np.float32)
    dark[rng.random(dark.shape) < 0.02] = np.nan
    values, variance = np.empty((2, K, N), np.float32)
    calibrate_cells(raw, code, cell, plane, pedestal, factor, values)
    np.testing.assert_array_equal(values, twin.calibrate_cells(raw, code, cell, plane, pedestal, factor))
    for photon in (0.0, 9.5):
        variance_cells(values, code, cell, plane, dark, photon, variance)
        expected = twin.variance_cells(values, code, cell, plane, dark, photon)
        np.testing.assert_allclose(variance, expected, rtol=1e-6)
        assert np.isfinite(variance).any()
        assert np.isnan(variance[np.isnan(values)]).all()


def test_stages_of_an_analogue_gain_equal_their_twin() -> None:
    rng = np.random.default_rng(12)
    gain = rng.integers(5000, 9000, (K, N)).astype(np.uint16)
    cell = rng.integers(0, N_CELLS, K)
    threshold = np.sort(rng.uniform(5500, 8500, (N_CELLS, 2, N)), axis=1).astype(np.float32)
    out = np.empty((K, N), np.uint8)
    stages_of_gain(gain, cell, threshold, out)
    np.testing.assert_array_equal(out, twin.stages_of_gain(gain, cell, threshold))
