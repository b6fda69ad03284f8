"""The fits of the demo, against scipy and against known curves."""

import itertools

import numpy as np
import pytest

from xsmall.demo.fit import BinnedPixels, fit, fit_delay_curve, fit_line, fit_ring
from xsmall.errors import DataError
from xsmall.simulation.recipe import SimulatedScan, response_to


def test_values_and_errors_equal_those_of_scipy() -> None:
    optimize = pytest.importorskip("scipy.optimize")
    rng = np.random.default_rng(1)
    x = np.linspace(-3, 3, 60)
    error = rng.uniform(0.5, 2.0, x.size)
    y = 80 * np.exp(-0.5 * ((x - 0.3) / 0.7) ** 2) + 5 + error * rng.normal(size=x.size)

    def model(x: np.ndarray, a: float, m: float, s: float, b: float) -> np.ndarray:
        return a * np.exp(-0.5 * ((x - m) / s) ** 2) + b

    ours = fit(lambda p: model(x, *p), {"a": 60.0, "m": 0.0, "s": 1.0, "b": 0.0}, y, error)
    values, covariance = optimize.curve_fit(model, x, y, p0=[60, 0, 1, 0], sigma=error, absolute_sigma=True)
    np.testing.assert_allclose(list(ours.values.values()), values, rtol=1e-5)
    np.testing.assert_allclose(list(ours.errors.values()), np.sqrt(np.diag(covariance)), rtol=1e-4)
    assert ours.freedom == 56
    assert ours.chi2 == pytest.approx((((model(x, *values) - y) / error) ** 2).sum())


@pytest.mark.parametrize("start", [(10.0, -1.0, 0.2, 50.0), (200.0, 0.9, 2.0, -10.0), (40.0, 0.0, 0.4, 0.0)])
def test_the_fit_ends_at_the_minimum_from_anywhere_near_or_raises(start: tuple[float, ...]) -> None:
    x = np.linspace(-3, 3, 60)

    def model(p: np.ndarray) -> np.ndarray:
        return p[0] * np.exp(-0.5 * ((x - p[1]) / p[2]) ** 2) + p[3] + 1e-3 * x**2

    y = model(np.array([80, 0.3, 0.7, 5.0]))
    try:
        found = fit(model, dict(zip("amsb", start, strict=True)), y, np.full(60, 0.01))
    except DataError:
        return
    assert found.chi2 < 1e-2
    assert found.values["m"] == pytest.approx(0.3, abs=1e-4)


def test_a_bin_averages_over_the_pixels_it_holds() -> None:
    rng = np.random.default_rng(2)
    q, edges = rng.uniform(0, 2, 500), np.linspace(0.5, 1.5, 21)
    found = BinnedPixels(q, edges).average(np.square, slice(3, 15))
    expected = [np.mean(q[(q >= a) & (q < b)] ** 2) for a, b in itertools.pairwise(edges[3:16])]
    np.testing.assert_allclose(found, expected)


def test_a_bin_without_pixels_is_nan() -> None:
    pixels = BinnedPixels([0.1, 0.9], [0.0, 0.5, 0.8, 1.0])
    assert np.isnan(pixels.average(np.square, slice(0, 3))).tolist() == [False, True, False]


def test_a_ring_narrower_than_its_bins_is_found_where_it_is() -> None:
    rng = np.random.default_rng(3)
    q = rng.uniform(0.5, 1.2, 20_000)
    edges = np.linspace(0.5, 1.2, 36)
    pixels = BinnedPixels(q, edges)
    exact = pixels.average(lambda q: 40 * np.exp(-0.5 * ((q - 0.8) / 0.015) ** 2) + 2 + 3 * q, slice(0, 35))
    found = fit_ring(pixels, 0.5 * (edges[:-1] + edges[1:]), exact, np.full(35, 0.01), near=0.81)
    assert found.values["q"] == pytest.approx(0.8, abs=1e-7)
    assert abs(found.values["width"]) == pytest.approx(0.015, abs=1e-7)


def test_a_delay_curve_is_found_from_the_means_of_uneven_bins() -> None:
    edges = np.array([-2, -1, -0.5, 0, 0.125, 0.25, 0.375, 0.5, 0.75, 1, 1.5, 2, 3, 4, 5.0])
    fine = edges[:-1, None] + np.diff(edges)[:, None] * np.linspace(0, 1, 2001)[None]
    truth = response_to(SimulatedScan(t0=0.3, rise=0.1, decay=1.5), fine).mean(axis=1)
    found = fit_delay_curve(edges, -0.12 * truth, np.full(14, 1e-3), t0=0.1, rise=0.2, decay=1.0)
    assert found.values["t0"] == pytest.approx(0.3, abs=1e-3)
    assert abs(found.values["rise"]) == pytest.approx(0.1, abs=3e-3)
    assert found.values["decay"] == pytest.approx(1.5, abs=3e-3)
    assert found.values["height"] == pytest.approx(-0.12, abs=1e-3)


def test_error_bars_cover_the_truth_as_often_as_they_should() -> None:
    rng = np.random.default_rng(4)
    x = np.linspace(0, 1, 30)
    pulls = []
    for _ in range(200):
        y = 2 + 3 * x + 0.1 * rng.normal(size=x.size)
        pulls.append(fit(lambda p: p[0] + p[1] * x, {"a": 0.0, "b": 0.0}, y, np.full(30, 0.1)).pull("b", 3.0))
    assert np.std(pulls) == pytest.approx(1.0, abs=0.15)
    assert abs(np.mean(pulls)) < 0.3


def test_the_peak_of_a_spectrum_is_found_in_spite_of_lost_charge() -> None:
    rng = np.random.default_rng(5)
    values = np.concatenate([rng.normal(6.4, 0.25, 20_000), rng.uniform(5, 6.4, 1500) + rng.normal(0, 0.25, 1500)])
    counts, edges = np.histogram(values, bins=np.arange(2, 10, 0.1))
    found = fit_line(0.5 * (edges[:-1] + edges[1:]), counts)
    assert found.values["energy"] == pytest.approx(6.4, abs=0.02)


def test_too_few_data_are_refused() -> None:
    x = np.arange(4.0)
    y = np.array([1.0, np.nan, np.nan, 2.0])
    with pytest.raises(DataError, match="too few"):
        fit(lambda p: p[0] + p[1] * x, {"a": 0.0, "b": 0.0}, y, np.ones(4))
