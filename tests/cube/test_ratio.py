"""Ratios of cubes: the truth within errors that are right, whatever the estimator."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import xarray as xr

import xsmall as xs
from xsmall.errors import DataError, ParameterError

N = 400
BINS = {"on": xs.categories()}


def small(seed: int, n: int = N, *, offset: float = 0.0, noise: float = 0.3) -> xr.Dataset:
    """Signal of 5 per unit of I0 (6 with laser); I0 jitters by 20 %, one shot in 20 is dropped."""
    rng = np.random.default_rng(seed)
    lit = np.arange(n) % 20 != 3
    on = rng.random(n) < 0.5
    i0 = np.where(lit, rng.normal(1, 0.2, n).clip(0.1), rng.normal(0, 0.01, n))
    signal = np.where(on, 6.0, 5.0) * i0 + offset + noise * rng.normal(size=n)
    two = np.stack([signal, 2 * signal], axis=1)
    two[rng.random((n, 2)) < 0.1] = np.nan
    return xr.Dataset(
        {
            "on": ("event", on),
            "xray_on": ("event", lit),
            "i0": ("event", i0, {"units": "1"}),
            "signal": ("event", signal, {"units": "keV"}),
            "two": (("event", "q"), two, {"units": "keV"}),
        },
        coords={"event": np.datetime64("2026-01-01", "ns") + (100_000 * seed + np.arange(n)).astype("m8[ns]")},
    )


ESTIMATORS = ("sums", "ratios", "through_zero", "regression")


def weighted(data: xr.Dataset, **options: Any) -> xr.Dataset:
    cube: xr.Dataset = data.sd.cube(BINS, weights="i0", **{"statistics": "ratio", **options})
    return cube


def many_runs() -> xr.Dataset:
    """A thousand runs of 120 events, one in each bin."""
    data = small(11, 120_000)[["on", "xray_on", "i0", "signal"]]
    run = ("event", np.arange(120_000) // 120)
    cube: xr.Dataset = data.assign(number=run).sd.cube(
        {"number": xs.categories(), **BINS}, weights="i0", statistics="ratio"
    )
    return cube


def plain(data: xr.Dataset) -> list[xr.Dataset]:
    lit = data.isel(event=data.xray_on.values & (data.i0 > 0).values)
    return [lit.isel(event=(lit.on == on).values) for on in (False, True)]


def test_sums_and_regressions_are_those_of_numpy() -> None:
    data = small(1)
    cube = weighted(data)
    sums, ratios, zero, line = (cube.sd.ratio(e) for e in ESTIMATORS)
    for k, part in enumerate(plain(data)):
        x, w = part.signal.values, part.i0.values
        assert float(sums.signal[k]) == pytest.approx(x.sum() / w.sum(), rel=1e-12)
        assert float(zero.signal[k]) == pytest.approx((x * w).sum() / (w * w).sum(), rel=1e-12)
        assert float(ratios.signal[k]) == pytest.approx((x / w).mean(), rel=1e-12)
        assert float(ratios.signal_stderr[k]) == pytest.approx((x / w).std(ddof=1) / len(x) ** 0.5, rel=1e-10)
        (slope, offset), covariance = np.polyfit(w, x, 1, cov=True)
        assert float(line.signal[k]) == pytest.approx(slope, rel=1e-9)
        assert float(line.signal_offset[k]) == pytest.approx(offset, rel=1e-7, abs=1e-9)
        assert float(line.signal_stderr[k]) == pytest.approx(covariance[0, 0] ** 0.5, rel=1e-8)
        assert float(line.signal_offset_stderr[k]) == pytest.approx(covariance[1, 1] ** 0.5, rel=1e-8)
        for q in range(2):
            known = np.isfinite(part.two.values[:, q])
            y, v = part.two.values[known, q], w[known]
            assert float(sums.two[k, q]) == pytest.approx(y.sum() / v.sum(), rel=1e-12)
            assert float(ratios.two[k, q]) == pytest.approx((y / v).mean(), rel=1e-12)
            assert float(ratios.two_stderr[k, q]) == pytest.approx((y / v).std(ddof=1) / len(y) ** 0.5, rel=1e-10)
    assert ratios.signal.attrs["units"] == "keV"


@pytest.mark.parametrize("estimator", ESTIMATORS)
def test_pulls_have_unit_width(estimator: str) -> None:
    found = many_runs().sd.ratio(estimator)
    pulls = (found.signal - xr.DataArray([5.0, 6.0], dims="on")) / found.signal_stderr
    assert float(pulls.std()) == pytest.approx(1.0, abs=0.06)
    assert abs(float(pulls.mean())) < 0.1


def test_differences_of_ratios_have_pulls_of_unit_width() -> None:
    change = many_runs().sd.difference("on", relative=True, normalize="sums")
    pulls = (change.signal - 0.2) / change.signal_stderr
    assert float(pulls.std()) == pytest.approx(1.0, abs=0.08)
    assert abs(float(pulls.mean())) < 0.1
    assert change.attrs["normalized"] == "sums, per i0"


def test_the_covariance_makes_the_error_smaller_than_the_spread_says() -> None:
    cube = weighted(small(3, noise=0.05))
    found = cube.sd.ratio()
    assert (found.signal_stderr < 0.2 * cube.signal_stderr).all()


def test_an_offset_is_seen_by_the_regression() -> None:
    found = weighted(small(4, 4000, offset=2.0)).sd.ratio("regression")
    assert (np.abs(found.signal - [5.0, 6.0]) < 4 * found.signal_stderr).all()
    assert (np.abs(found.signal_offset - 2.0) < 4 * found.signal_offset_stderr).all()
    assert found.signal_offset.attrs["units"] == "keV"


@pytest.mark.parametrize("estimator", ESTIMATORS)
def test_merged_joined_and_lazy_cubes_give_the_ratio_of_all_events(estimator: str) -> None:
    data = small(5, 900)
    whole = weighted(data).sd.ratio(estimator)
    lazy = weighted(data.chunk(event=70))
    assert lazy["two_covariance"].chunks is not None
    xr.testing.assert_identical(lazy.compute().sd.ratio(estimator), whole)
    merged = xs.merge_cubes(*(weighted(data.isel(event=p)) for p in (slice(0, 100), slice(100, 500), slice(500, 900))))
    for name in whole.data_vars:
        np.testing.assert_allclose(merged.sd.ratio(estimator)[name], whole[name], rtol=1e-10, err_msg=str(name))
    data["x"] = ("event", np.linspace(0, 4, 900, endpoint=False))
    bins = ({"x": xs.bins(0, 4, n=n)} for n in (4, 2))
    fine, wide = (data.sd.cube(b, weights="i0", statistics="ratio") for b in bins)
    for name in ("two", "two_stderr", "two_count"):
        joined, made = fine.sd.rebin(x=2).sd.ratio(estimator)[name], wide.sd.ratio(estimator)[name]
        np.testing.assert_allclose(joined, made, rtol=1e-9)


def test_weights_that_are_none_are_left_out_and_counted() -> None:
    data = small(6)
    data["i0"][:4] = [0.0, -1.0, np.nan, np.inf]  # the fourth is a dropped shot
    cube = weighted(data)
    assert cube.attrs["n_bad_weights"] == 3
    assert cube.attrs["n_dropped_shots"] == 20
    assert int(cube["count"].sum()) == N - 20 - 3
    assert cube.attrs["weights"] == "i0"


def test_few_events_have_no_error_and_no_slope() -> None:
    data = small(7).isel(event=[0, 1])
    found = data.assign(on=("event", [False, True])).sd.cube(BINS, weights="i0")
    assert np.isfinite(found.sd.ratio().signal).all()
    assert np.isnan(found.sd.ratio().signal_stderr).all()
    assert np.isnan(found.sd.ratio("regression").signal).all()
    assert np.isnan(found.sd.ratio("through_zero").signal_stderr).all()


def test_nothing_is_computed_but_bins_and_weights(computing_is_forbidden: Callable[[], Any]) -> None:
    data = small(8)
    lazy = data.assign(two=data.two.chunk(event=100))
    with computing_is_forbidden():
        assert weighted(lazy).sd.ratio().two.chunks is not None


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda d: d.sd.cube(BINS).sd.ratio(), DataError, "weights="),
        (lambda d: weighted(d).sd.ratio("mean"), ParameterError, "unknown estimator"),
        (lambda d: weighted(d, statistics=()).sd.ratio("ratios"), DataError, 'statistics="ratio"'),
        (lambda d: weighted(d, statistics=()).expand_dims("replica").sd.ratio("ratios"), DataError,
         "replicas do not know"),
        (lambda d: d.sd.cube(BINS, statistics="ratio"), ParameterError, 'weights="i0", statistics="ratio"'),
        (lambda d: d.sd.cube(BINS, weights="i1"), ParameterError, "no variable of events"),
        (lambda d: d.sd.cube(BINS, weights="two"), ParameterError, "several values"),
        (lambda d: d.assign(i0=-d.i0.clip(0.1)).sd.cube(BINS, weights="i0"), DataError, "not one event has a weight"),
        (lambda d: xs.merge_cubes(weighted(d), weighted(small(12)).assign_attrs(weights="i1")), ParameterError,
         "have other weights"),
    ],
)  # fmt: skip
def test_mistakes_are_said(call: Callable[[xr.Dataset], Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        call(small(9))
