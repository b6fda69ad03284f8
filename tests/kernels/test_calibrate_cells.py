"""Kernels of calibration by memory cell against their NumPy twins."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest

from xsmall.kernels import calibrate_cells as kernel
from xsmall.kernels.reference import calibrate_cells as twin

PLANES = {"agipd": np.array([0, 1, 2, -1]), "jungfrau_euxfel": np.array([0, 1, -1, 2, -1])}
NO_LIMITS = np.empty((0, 2), np.uint16)
N_CELLS, N_STAGES, K, N = 4, 3, 5, 3 * kernel.BLOCK + 77


@dataclass
class Segment:
    """Frames and constants of a segment; of each block another share of the pixels has left code 0."""

    raw: np.ndarray
    code: np.ndarray
    cell: np.ndarray
    pedestal: np.ndarray
    factor: np.ndarray
    dark: np.ndarray

    def flat(self) -> tuple[Any, ...]:
        return self.raw.reshape(-1), N, self.code.reshape(-1), N, self.cell


@pytest.fixture(params=["uint16", "int32", "float32"])
def segment(request: pytest.FixtureRequest) -> Segment:
    rng = np.random.default_rng(11)
    share = np.repeat([0.0, 0.002, 0.3, 1.0], kernel.BLOCK)[:N]
    pedestal = rng.normal(4000, 50, (N_CELLS, N_STAGES, N)).astype(np.float32)
    factor = rng.normal(0.02, 0.001, pedestal.shape).astype(np.float32)
    factor[rng.random(factor.shape) < 0.02] = np.nan
    dark = rng.uniform(0, 300, pedestal.shape).astype(np.float32)
    dark[rng.random(dark.shape) < 0.02] = np.nan
    return Segment(
        rng.integers(0, 9000, (K, N)).astype(request.param),
        np.where(rng.random((K, N)) < share, rng.choice([1, 2, 3, 4, 9, 255], (K, N)), 0).astype(np.uint8),
        rng.integers(0, N_CELLS, K),
        pedestal,
        factor,
        dark,
    )


@pytest.mark.parametrize("detector", PLANES)
def test_values_and_variances_equal_their_twins(detector: str, segment: Segment) -> None:
    plane, tables = PLANES[detector], (segment.pedestal, segment.factor)
    values, variance = np.empty((2, K, N), np.float32)
    kernel.calibrate_cells(*segment.flat(), plane, *tables, NO_LIMITS, values.reshape(-1), N)
    expected = twin.calibrate_cells(segment.raw, segment.code, segment.cell, plane, *tables)
    np.testing.assert_array_equal(values, expected)
    assert np.isfinite(values).any(axis=1).all()
    for photon in (0.0, 9.5):
        kernel.variance_cells(
            values.reshape(-1), N, *segment.flat()[2:], plane, segment.dark, photon, variance.reshape(-1), N
        )
        expected = twin.variance_cells(values, segment.code, segment.cell, plane, segment.dark, photon)
        np.testing.assert_allclose(variance, expected, rtol=1e-6)
        assert np.isfinite(variance).any()
        assert np.isnan(variance[np.isnan(values)]).all()


@pytest.mark.parametrize("detector", PLANES)
def test_values_beyond_limits_are_nan(detector: str, segment: Segment) -> None:
    plane, tables = PLANES[detector], (segment.pedestal, segment.factor)
    limits = np.array([[100, 8000], [0, 9000], [5, 6], [500, 7000], [0, 1]])
    typed = limits.astype(np.uint16 if segment.raw.dtype == np.uint16 else np.float64)
    values, apart = np.empty((2, K, N), np.float32)
    expected = twin.calibrate_cells(segment.raw, segment.code, segment.cell, plane, *tables, limits)
    kernel.calibrate_cells(*segment.flat(), plane, *tables, typed[:4], values.reshape(-1), N)
    np.testing.assert_array_equal(values, expected)
    kernel.subtract_cells(*segment.flat(), plane, segment.pedestal, typed[:4], apart.reshape(-1), N)
    kernel.scale_cells(*segment.flat()[2:], plane, segment.factor, apart.reshape(-1), N)
    np.testing.assert_array_equal(apart, expected)


@pytest.mark.parametrize("detector", PLANES)
def test_flags_and_participation_equal_their_twins(detector: str, segment: Segment) -> None:
    rng, plane = np.random.default_rng(13), PLANES[detector]
    status = rng.choice([0, 0, 0, 1, 2, 3], segment.factor.shape).astype(np.uint8)
    static = (rng.random(N) < 0.1).astype(np.uint32)
    flags = np.array([2, 4, 8, 16, 32], np.uint32)
    limits = np.array([[100, 8000, 0, 5000], [0, 9000, 0, 9000], [5, 6, 7, 8], [500, 7000, 600, 6000], [0, 1, 2, 3]])
    typed = limits.astype(np.uint16 if segment.raw.dtype == np.uint16 else np.float64)[:4]
    out = np.empty((K, N), np.uint32)
    kernel.flag_cells(*segment.flat(), plane, status, static, typed, flags, out.reshape(-1), N)
    expected = twin.flag_cells(segment.raw, segment.code, segment.cell, plane, status, static, limits, flags)
    np.testing.assert_array_equal(out, expected)
    for takes in ([1, 0, 0], [0, 1, 1]):
        use, chosen = np.empty((K, N), np.uint8), np.array(takes, np.uint8)
        kernel.participation_cells(*segment.flat()[2:], plane, chosen, segment.factor, use)
        np.testing.assert_array_equal(
            use, twin.participation_cells(segment.code, segment.cell, plane, chosen, segment.factor)
        )


@pytest.mark.parametrize("dtype", ["uint16", "int32", "float64"])
def test_stages_of_an_analogue_gain_equal_their_twin(dtype: str) -> None:
    rng = np.random.default_rng(12)
    gain = rng.integers(5000, 9000, (K, N)).astype(dtype)
    cell = rng.integers(0, N_CELLS, K)
    threshold = np.sort(rng.uniform(5500, 8500, (N_CELLS, 2, N)), axis=1).astype(np.float32)
    threshold[rng.random(threshold.shape) < 0.05] = np.nan
    threshold[..., :9] = np.rint(threshold[..., :9])  # a value at the threshold is not above it
    gain[:, :9] = np.nan_to_num(threshold[cell, 0, :9]).astype(dtype)
    out = np.empty((K, N), np.uint8)
    kernel.stages_of_gain(gain.reshape(-1), N, cell, threshold, out)
    np.testing.assert_array_equal(out, twin.stages_of_gain(gain, cell, threshold))
