"""Azimuthal integration with scaled positions: the kernel beside its twin."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from xsmall.kernels.azint_energy import scatter_scaled
from xsmall.kernels.bins import first_bins
from xsmall.kernels.reference import azint_energy as reference


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 10_000), st.integers(1, 30), st.booleans(), st.floats(0.5, 2.0))
def test_scaled_scatter_equals_its_twin(seed: int, n_bins: int, uniform: bool, scale: float) -> None:
    rng = np.random.default_rng(seed)
    n = 500
    edges = (
        np.linspace(0.3, 2.2, n_bins + 1)
        if uniform
        else np.sort(rng.random(n_bins + 1) ** 3 + np.arange(n_bins + 1) * 1e-6)
    )
    frame = rng.normal(5, 2, n).astype("f4")
    frame[rng.random(n) < 0.1] = np.nan
    position = rng.random(n) * 2
    position[rng.random(n) < 0.1] = np.nan
    position[:20] = rng.choice(edges, 20)  # right on an edge at scale 1
    sector = rng.integers(-1, 3, n).astype("i4")
    weight = rng.random(n).astype("f4")
    size = 3 * n_bins
    sums, counts, weights = np.zeros(size), np.zeros(size, "i8"), np.zeros(size)
    scatter_scaled(frame, position, scale, sector, weight, edges, first_bins(edges), sums, counts, weights)
    expected = reference.scatter_scaled(frame, position, scale, sector, weight, edges, size)
    np.testing.assert_array_equal(counts, expected[1])
    np.testing.assert_allclose(sums, expected[0], rtol=1e-12, atol=1e-12)
    np.testing.assert_allclose(weights, expected[2], rtol=1e-6)


def test_an_event_without_energy_counts_no_pixel() -> None:
    edges = np.linspace(0, 1, 5)
    sums, counts, weights = np.zeros(4), np.zeros(4, "i8"), np.zeros(4)
    none = np.empty(0, "i4"), np.empty(0, "f4")
    scatter_scaled(np.ones(9, "f4"), np.full(9, 0.5), np.nan, *none, edges, first_bins(edges), sums, counts, weights)
    assert counts.sum() == 0


@pytest.mark.parametrize("n_bins", [1, 7])
def test_every_cell_starts_at_or_before_its_bin(n_bins: int) -> None:
    edges = np.sort(np.random.default_rng(n_bins).random(n_bins + 1))
    first = first_bins(edges)
    cells = np.linspace(edges[0], edges[-1], first.size, endpoint=False)
    assert (edges[first] <= cells).all()
