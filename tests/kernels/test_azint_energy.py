"""Azimuthal integration with scaled positions: the kernel beside its twin."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from xsmall.kernels.azint_energy import CHAINS, EVENTS, borders_at, scatter_scaled
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
    frames, scales = np.stack([frame, np.ones_like(frame)]), np.array([scale, 1.1 * scale])
    sums, lost, lost_weight = empty(2, size)
    scatter_scaled(frames, position, scales, sector, weight, edges, first_bins(edges), sums, lost, lost_weight)
    for j in range(2):
        expected = reference.scatter_scaled(frames[j], position, scales[j], sector, weight, edges, size)
        whole = reference.scatter_scaled(np.ones(n), position, scales[j], sector, weight, edges, size)
        borders = np.empty((3, n_bins + 1), "i8")
        for t in range(3):
            ordered = np.sort(position[(sector == t) & np.isfinite(position)])
            borders_at(ordered, scales[j], edges, borders[t])
            np.testing.assert_array_equal(borders[t], reference.borders_at(ordered, scales[j], edges))
        np.testing.assert_array_equal(np.diff(borders, axis=1).ravel() - lost[j, :-1], expected[1])
        np.testing.assert_allclose(sums[j, :-1].sum(axis=1), expected[0], rtol=1e-12, atol=1e-12)
        np.testing.assert_allclose(lost_weight[j, :-1], whole[2] - expected[2], rtol=1e-6, atol=1e-6)


def empty(k: int, size: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Sums of nothing."""
    return np.zeros((k, size + 1, CHAINS)), np.zeros((k, size + 1), "i8"), np.zeros((k, size + 1))


def test_an_event_without_energy_has_no_pixel() -> None:
    edges = np.linspace(0, 1, 5)
    sums, lost, weight = empty(1, 4)
    none = np.empty(0, "i4"), np.empty(0, "f4")
    frames, scales = np.ones((1, 9), "f4"), np.array([np.nan])
    scatter_scaled(frames, np.full(9, 0.5), scales, *none, edges, first_bins(edges), sums, lost, weight)
    assert not sums[0, :-1].any()
    borders = np.empty(5, "i8")
    borders_at(np.full(9, 0.5), np.nan, edges, borders)
    assert not np.diff(borders).any()


def test_pixels_near_borders_of_even_bins_are_where_the_borders_say() -> None:
    edges = np.linspace(0.1, 0.7, 301)
    position = np.concatenate([np.nextafter(edges, 0), edges, np.nextafter(edges, 1)])
    sums, lost, weight = empty(1, 300)
    none = np.empty(0, "i4"), np.empty(0, "f4")
    frames = np.ones((1, position.size), "f4")
    scatter_scaled(frames, position, np.ones(1), *none, edges, first_bins(edges), sums, lost, weight)
    np.testing.assert_array_equal(sums[0].sum(axis=1), [*np.histogram(position[position < edges[-1]], edges)[0], 3])


@pytest.mark.parametrize("low", [-3.0, 0.0, 0.1, 900.0])
@pytest.mark.parametrize("n_bins", [1, 500, 20_000])
@pytest.mark.parametrize("scale", [1.0, 0.9973, 1e-4])
def test_pixels_are_where_their_scaled_places_lie(low: float, n_bins: int, scale: float) -> None:
    rng = np.random.default_rng(n_bins)
    edges = np.linspace(low, low + 2, n_bins + 1)
    near = rng.choice(edges, 3000) / scale
    position = np.concatenate(
        [near, np.nextafter(near, -9), near * (1 + 1e-8), rng.uniform(low - 1, low + 3, 3000) / scale]
    )
    sums, lost, weight = empty(1, n_bins)
    none = np.empty(0, "i4"), np.empty(0, "f4")
    values = rng.integers(1, 9, position.size).astype("f4")
    scales = np.array([scale])
    scatter_scaled((values,) * EVENTS, position, scales, *none, edges, first_bins(edges), sums, lost, weight)
    at = np.searchsorted(edges, position * scale, side="right") - 1
    at[(at < 0) | (at >= n_bins)] = n_bins
    np.testing.assert_array_equal(sums[0].sum(axis=1), np.bincount(at, values, n_bins + 1))


@pytest.mark.parametrize("n_bins", [1, 7])
def test_every_cell_starts_at_or_before_its_bin(n_bins: int) -> None:
    edges = np.sort(np.random.default_rng(n_bins).random(n_bins + 1))
    first = first_bins(edges)
    cells = np.linspace(edges[0], edges[-1], first.size, endpoint=False)
    assert (edges[first] <= cells).all()


@pytest.mark.parametrize("uniform", [True, False])
def test_events_that_go_together_have_the_bits_of_each_alone(uniform: bool) -> None:
    rng = np.random.default_rng(3)
    edges = np.linspace(0.2, 2, 41) if uniform else np.sort(rng.random(41)) + 0.5
    position, frames = rng.random(1003) * 2, rng.normal(5, 2, (EVENTS, 1003)).astype("f4")
    frames[1, 700], frames[2, ::5] = np.inf, np.nan
    scales = np.array([1.0, 0.99, np.nan, 1.02])
    none = np.empty(0, "i4"), np.empty(0, "f4")
    together, alone = empty(EVENTS, 40), empty(EVENTS, 40)
    scatter_scaled(frames, position, scales, *none, edges, first_bins(edges), *together)
    for j in range(EVENTS):
        one = slice(j, j + 1)
        scatter_scaled(frames[one], position, scales[one], *none, edges, first_bins(edges), *(a[one] for a in alone))
    for found, expected in zip(together, alone, strict=True):
        np.testing.assert_array_equal(found, expected)
    assert together[1][:2].sum(axis=1).tolist() == [0, 1]
