"""``contrast`` and ``visibility``: negative binomial counts of known contrast."""

from collections.abc import Callable

import numpy as np
import numpy.typing as npt
import pytest
import xarray as xr
from hypothesis import given, settings
from hypothesis import strategies as st

import xsmall as xs
from xsmall.errors import DataError, ParameterError
from xsmall.kernels.contrast import best_contrast, slopes
from xsmall.kernels.reference.contrast import log_likelihood


def counts_of(
    rng: np.random.Generator, means: npt.NDArray[np.float64], modes: float, pixels: int, most: int = 12
) -> npt.NDArray[np.int64]:
    """Pixels with k photons (event, k) of events with these mean counts."""
    from scipy.stats import nbinom

    k = np.arange(most + 1)
    p = nbinom.pmf(k, modes, modes / (modes + means[:, None]))
    p[:, 0] += 1 - p.sum(axis=1)
    return rng.multinomial(pixels, p)


def small_of(n_k: npt.NDArray[np.int64], dims: tuple[str, ...] = ("event", "k")) -> xr.Dataset:
    above = xr.zeros_like(xr.DataArray(n_k[..., 0], dims=dims[:-1]))
    return xr.Dataset({"n_k": (dims, n_k), "n_above": above})


@settings(max_examples=40)
@given(st.integers(0, 2**32 - 1), st.floats(0.05, 3.0))
def test_slopes_are_those_of_the_twin(seed: int, contrast: float) -> None:
    rng = np.random.default_rng(seed)
    n_k = rng.multinomial(int(rng.integers(1, 900)), rng.dirichlet(np.ones(7)), size=4).astype(np.int64)
    n_k[3] *= rng.integers(0, 2)  # an event without a valid pixel
    k = np.arange(7)
    photons, pixels = n_k @ k, n_k.sum(axis=1).astype(float)
    got = slopes(contrast, n_k.sum(axis=0).astype(float), photons, pixels)
    h = 1e-4 * contrast
    low, here, high = (log_likelihood(contrast + d, n_k) for d in (-h, 0.0, h))
    scale = max(1.0, abs(here))
    assert got[0] == pytest.approx((high - low) / (2 * h), rel=1e-5, abs=1e-9 * scale / h)
    assert got[1] == pytest.approx((high - 2 * here + low) / h**2, rel=1e-2, abs=1e-12 * scale / h**2)


@pytest.mark.parametrize("mean", [1e-4, 1e-3, 1e-2, 0.1, 1.0])
@pytest.mark.parametrize("modes", [1.0, 3.0, 20.0])
def test_pulls_have_unit_width_and_no_mean(mean: float, modes: float) -> None:
    rng = np.random.default_rng(int(1e6 * mean) + int(modes))
    events = 60
    pixels = int(max(2000, 400 / (events * mean**2 / 2)))
    pulls = []
    for _ in range(300):
        means = mean * rng.gamma(4.0, 0.25, events)
        n_k = counts_of(rng, means, modes, pixels, most=60 if mean == 1.0 else 12)
        photons = n_k @ np.arange(n_k.shape[1])
        best, error = best_contrast(n_k.sum(axis=0).astype(float), photons, n_k.sum(axis=1).astype(float))
        pulls.append((best - 1 / modes) / error)
    assert abs(np.mean(pulls)) < 4 / np.sqrt(300) + 0.03
    assert np.std(pulls) == pytest.approx(1.0, abs=0.17)


def test_mean_counts_that_differ_are_no_contrast() -> None:
    rng = np.random.default_rng(1)
    means = np.repeat([0.01, 0.3], 200)
    found = xs.contrast(small_of(counts_of(rng, means, 1e9, 20000)))
    assert abs(float(found["contrast"])) < 4 * float(found["contrast_stderr"]) < 0.01


def test_events_without_photons_and_without_pixels_change_nothing() -> None:
    rng = np.random.default_rng(2)
    n_k = counts_of(rng, np.full(50, 0.05), 2.0, 3000)
    more = np.concatenate([n_k, np.zeros((5, n_k.shape[1]), int)])
    more[50:53, 0] = 3000
    one, other = xs.contrast(small_of(n_k)), xs.contrast(small_of(more))
    for name in ("contrast", "contrast_stderr", "n_modes", "n_pairs", "n_events"):
        assert float(one[name]) == float(other[name])
    assert float(other["mean_count"]) == pytest.approx(float(one["mean_count"]) * 50 / 53)
    none = xs.contrast(small_of(more[50:]))
    assert np.isnan(none["contrast"])
    assert np.isnan(none["contrast_stderr"])
    assert float(none["n_pairs"]) == float(none["mean_count"]) == 0
    assert np.isnan(xs.contrast(small_of(more[:0]))["contrast"])


def test_regions_and_bins_of_the_mean_count_stay_lazy(computing_is_forbidden: Callable[[], object]) -> None:
    rng = np.random.default_rng(3)
    means = np.tile([0.02, 0.2], 100)
    n_k = np.stack([counts_of(rng, means, modes, 5000) for modes in (1.0, 5.0)], axis=1)
    small = small_of(n_k, ("event", "roi", "k")).assign_coords(roi=["a", "b"])
    with computing_is_forbidden():  # type: ignore[attr-defined]
        found = xs.contrast(small.chunk(event=30), mean_bins=[0.0, 0.1, 0.5])
    found = found.compute()
    assert found["contrast"].dims == ("roi", "mean_count")
    assert (abs(found["contrast"] - xr.DataArray([1.0, 0.2], dims="roi")) < 5 * found["contrast_stderr"]).all()
    np.testing.assert_allclose(found["mean_count_of_events"], [[0.02, 0.2]] * 2, rtol=0.1)
    alone = xs.contrast(small.isel(event=slice(1, None, 2)))
    np.testing.assert_allclose(found["contrast"][:, 1], alone["contrast"], rtol=1e-9)


def test_photons_of_frames_give_the_contrast_of_their_light() -> None:
    rng = np.random.default_rng(4)
    light = rng.gamma(2.0, 0.1 / 2.0, (40, 1, 64, 64)) * rng.gamma(3.0, 1 / 3, (40, 1, 1, 1))
    values = rng.poisson(light) * 9.5
    frames = xr.DataArray(values.astype("f4"), dims=("event", "segment", "row", "column"), attrs={"units": "keV"})
    small = frames.sd.reduce({"speckle": xs.photon(9.5)})
    found = xs.contrast(small)
    assert abs(float(found["contrast"]) - 0.5) < 4 * float(found["contrast_stderr"]) < 0.2


def test_bright_pixels_are_not_left_out_in_silence() -> None:
    small = small_of(np.array([[100, 5, 1]]))
    small["n_above"] += 1
    with pytest.raises(DataError, match="max_k=8"):
        xs.contrast(small)
    with pytest.raises(DataError, match="counts of pixels"):
        xs.contrast(small.drop_vars("n_k"))
    with pytest.raises(ParameterError):
        xs.contrast(small, mean_bins=[0.5, 0.1])


def test_double_pulses_tell_how_alike_patterns_are() -> None:
    rng = np.random.default_rng(5)
    alike, found = 0.6, []
    fraction = rng.uniform(0.2, 0.8, 400)
    fields = rng.normal(size=(2, 2, 400, 4000))
    first = fields[0, 0] + 1j * fields[0, 1]
    second = np.sqrt(alike) * first + np.sqrt(1 - alike) * (fields[1, 0] + 1j * fields[1, 1])
    light = fraction[:, None] * np.abs(first) ** 2 + (1 - fraction[:, None]) * np.abs(second) ** 2
    counts = rng.poisson(0.15 * light / 2)
    n_k = np.stack([(counts == k).sum(axis=1) for k in range(30)], axis=1)
    found = xs.visibility(xs.contrast(small_of(n_k)), 1.0, fraction=xr.DataArray(fraction, dims="event"))
    assert abs(float(found["visibility"]) - alike) < 4 * float(found["visibility_stderr"]) < 0.2
    with pytest.raises(ParameterError, match="fraction"):
        xs.visibility(xs.contrast(small_of(n_k)), 1.0, fraction=1.0)
    for wrong in (0.0, -0.5, np.nan, np.inf):
        with pytest.raises(ParameterError, match="contrast of one pulse"):
            xs.visibility(xs.contrast(small_of(n_k)), wrong)
    below = xs.contrast(small_of(n_k)) * -1
    assert np.isnan(xs.visibility(xs.contrast(small_of(n_k)), below)["visibility"])
