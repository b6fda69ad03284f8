"""Bins: which event is in which, and what is said of the others."""

from collections.abc import Callable
from decimal import Decimal
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
import pytest
import xarray as xr
from hypothesis import given, settings
from hypothesis import strategies as st

from xsmall.cube.binning import Binning
from xsmall.cube.bins import as_binning, bins, categories, edges, quantiles, steps
from xsmall.cube.cube import cube
from xsmall.errors import DataError, ParameterError

numbers = st.floats(-10, 10, allow_subnormal=False)


@settings(max_examples=100, deadline=None)
@given(values=st.lists(numbers, max_size=30), borders=st.lists(numbers, min_size=2, max_size=8, unique=True))
def test_an_event_is_in_the_bin_whose_left_border_it_reaches(values: list[float], borders: list[float]) -> None:
    borders = sorted(borders)
    try:
        found = edges(borders).assign(values)
    except ParameterError:
        assert all(not borders[0] <= v < borders[-1] for v in values)
        return
    for v, i in zip(values, found.index, strict=True):
        assert (i == -1 and not borders[0] <= v < borders[-1]) or borders[i] <= v < borders[i + 1]
    assert found.n_outside == np.sum(found.index < 0)


@pytest.mark.parametrize(("start", "stop", "width"), [(-2, 5, 0.1), (0, 1, 0.01), (-0.3, 0.3, 0.1), (9.4, 9.6, 0.005)])
def test_an_event_on_a_border_as_one_writes_it_is_in_the_bin_to_the_right(
    start: float, stop: float, width: float
) -> None:
    n = round((stop - start) / width)
    written = np.array([float(f"{start + i * width:.6f}") for i in range(n)])
    assert bins(start, stop, width=width).assign(written).index.tolist() == list(range(n))
    narrow = written.astype(np.float32)
    assert bins(start, stop, width=width).assign(narrow).index.tolist() == list(range(n))


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
@pytest.mark.parametrize("scale", ["1", "e-3", "e-12", "e-15", "e6"])
@pytest.mark.parametrize(("start", "stop", "width"), [("-2", "5", "0.1"), ("-50", "100", "25"), ("0.1", "0.7", "0.05")])
def test_borders_are_exact_in_any_unit_and_float_width(
    start: str, stop: str, width: str, scale: str, dtype: type[np.floating[Any]]
) -> None:
    unit = scale if scale != "1" else ""
    first, last, step = (Decimal(x + unit) for x in (start, stop, width))
    n = int((last - first) / step)
    exact = [first + k * step for k in range(n)]
    binning = bins(float(first), float(last), width=float(step))
    assert binning == bins(float(first), float(last), n=n)
    np.testing.assert_array_equal(binning.edges(), [float(x) for x in [*exact, last]])
    written = np.array([float(x) for x in exact])
    computed = float(first) + np.arange(n) * float(step)  # rounded twice
    for readings in (written, computed):
        assert binning.assign(readings.astype(dtype)).index.tolist() == list(range(n))
        assert binning.assign(readings.astype(dtype).astype(np.float64)).index.tolist() == list(range(n))


def test_a_reading_that_is_below_a_border_is_below_it() -> None:
    found = bins(0, 1, n=10).assign([0.3 - 1e-12, 0.3, 0.1 * 3, 1 - 0.9, -5e-17, 1 - 1e-12])
    assert found.index.tolist() == [2, 3, 3, 1, 0, 9]
    assert edges([0, 0.3, 1]).assign([np.nextafter(0.3, 0), 0.3]).index.tolist() == [0, 1]


def test_readings_that_went_through_float32_are_on_the_edges_that_one_writes() -> None:
    wide = np.array([0.6, 0.7, 0.8], np.float32).astype(np.float64)
    assert edges([0.6, 0.7, 0.8, 1]).assign(wide).index.tolist() == [0, 1, 2]
    assert edges([0, np.nextafter(1, 2), 2]).assign([1.0, 1.5]).index.tolist() == [0, 1]


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
@pytest.mark.parametrize("scale", [1.0, 1e-12, 1e3])
@pytest.mark.parametrize(
    ("at", "tolerance", "readings"),
    [(0.4, 0.1, (0.3, 0.35, 0.5)), (0.7, 0.1, (0.6, 0.7, 0.8)), (1.1, 0.3, (0.8, 1.4)), (-0.3, 0.2, (-0.5, -0.1))],
)
def test_both_ends_of_a_tolerance_are_in_the_step(
    at: float, tolerance: float, readings: tuple[float, ...], scale: float, dtype: type[np.floating[Any]]
) -> None:
    step = steps(tolerance=tolerance * scale, at=[at * scale])
    data = (np.array(readings) * scale).astype(dtype)
    assert step.assign(data).index.tolist() == [0] * len(readings)
    assert step.assign(data.astype(np.float64)).index.tolist() == [0] * len(readings)
    beyond = np.array([at - tolerance * 1.001, at + tolerance * 1.001, at]) * scale
    assert step.assign(beyond.astype(dtype)).index.tolist() == [-1, -1, 0]


@pytest.mark.parametrize("tolerance", [0.0, 1e-9])
def test_float32_readings_meet_steps_without_tolerance(tolerance: float) -> None:
    places = [0.1, 0.2, 0.25, 0.3, 0.5]
    readings = np.repeat(np.array(places, np.float32), 3)
    for data in (readings, readings.astype(np.float64)):
        given = steps(tolerance=tolerance, at=places).assign(data)
        np.testing.assert_array_equal(given.index, np.repeat(np.arange(5), 3))
    found = steps(tolerance=tolerance).assign(readings)
    np.testing.assert_array_equal(found.index, np.repeat(np.arange(5), 3))
    assert found.labels.tolist() == places


def test_values_one_tolerance_apart_are_one_step_as_one_reads_them() -> None:
    assert steps(tolerance=0.1).assign([1.0, 1.1, 1.0]).index.tolist() == [0, 0, 0]
    with pytest.raises(ParameterError, match="two tolerances apart"):
        steps(tolerance=0.1, at=[0.9, 1.1])
    assert steps(tolerance=0.1, at=[0.9, 1.11]).assign([1.0, 1.01]).index.tolist() == [0, 1]


def test_logarithmic_bins_have_equal_ratios_and_powers_of_ten_are_exact() -> None:
    binning = bins(1e-3, 1e3, n=12, log=True)
    borders = binning.edges()
    assert borders[::2].tolist() == [1e-3, 1e-2, 0.1, 1, 10, 100, 1000]
    np.testing.assert_allclose(borders[1:] / borders[:-1], 10**0.5, rtol=1e-13)
    found = binning.assign([1e-3, 0.1, 0.0999, 999.0, 1000.0, 0.0])
    assert found.index.tolist() == [0, 4, 3, 11, -1, -1]
    np.testing.assert_allclose(found.labels, np.sqrt(borders[1:] * borders[:-1]))


def test_width_and_number_say_the_same_and_bounds_touch() -> None:
    one, two = bins(-2, 5, width=0.1), bins(-2, 5, n=70)
    assert one == two
    found = one.assign([0.0])
    assert found.bounds is not None
    np.testing.assert_array_equal(found.bounds[1:, 0], found.bounds[:-1, 1])
    np.testing.assert_allclose(found.labels, found.bounds.mean(axis=1))


def test_whoever_is_in_no_bin_is_counted_by_reason() -> None:
    found = bins(0, 1, n=2).assign([-1.0, 0.0, 0.5, 1.0, 7.0, np.nan, np.inf, -np.inf])
    assert found.index.tolist() == [-1, 0, 1, -1, -1, -1, -1, -1]
    assert found.report() == {"n_below": 2, "n_above": 3, "n_between": 0, "n_missing": 1}


def test_the_oracle_of_regular_bins_is_xarray() -> None:
    rng = np.random.default_rng(1)
    x = xr.DataArray(rng.normal(0, 3, 500), dims="event", name="x")
    borders = np.linspace(-2, 5, 15)
    theirs = x.groupby_bins(x, borders, right=False, labels=np.arange(14.0)).count()
    found = bins(-2, 5, n=14).assign(x.values)
    np.testing.assert_array_equal(np.bincount(found.index[found.index >= 0], minlength=14), theirs.values)


def test_steps_are_found_in_spite_of_jitter_and_order() -> None:
    rng = np.random.default_rng(2)
    nominal = rng.permutation(np.repeat([1.0, 1.5, 4.0], 50))
    found = steps(tolerance=0.02).assign(nominal + rng.uniform(-0.01, 0.01, 150))
    np.testing.assert_array_equal(found.index, np.searchsorted([1.0, 1.5, 4.0], nominal))
    np.testing.assert_allclose(found.labels, [1.0, 1.5, 4.0], atol=0.01)
    assert found.n_outside == 0


def test_exact_steps_keep_their_exact_values() -> None:
    found = steps(tolerance=0).assign([0.1, 0.2, 0.1, np.nan])
    assert found.labels.tolist() == [0.1, 0.2]
    assert found.index.tolist() == [0, 1, 0, -1]
    assert found.n_missing == 1


def test_steps_at_given_places_keep_their_order_and_count_what_is_between() -> None:
    found = steps(tolerance=0.1, at=[2.0, 1.0]).assign([1.05, 1.95, 1.5, 0.0, 3.0])
    assert found.index.tolist() == [1, 0, -1, -1, -1]
    assert found.report() == {"n_below": 1, "n_above": 1, "n_between": 1, "n_missing": 0}


def test_a_fly_scan_has_no_steps() -> None:
    with pytest.raises(ParameterError, match="does not stand in steps"):
        steps(tolerance=0.1).assign(np.linspace(0, 10, 1000), "delay")


@settings(max_examples=30, deadline=None)
@given(n=st.integers(1, 6), seed=st.integers(0, 99))
def test_quantiles_hold_equal_numbers_and_lose_nobody(n: int, seed: int) -> None:
    found = quantiles(n).assign(np.random.default_rng(seed).normal(size=60))
    counts = np.bincount(found.index, minlength=n)
    assert counts.sum() == 60
    assert counts.max() - counts.min() <= 1


@pytest.mark.parametrize(
    ("values", "labels"),
    [
        (np.array([True, True]), [False, True]),
        (np.array([3, 1, 3], np.int16), [1, 3]),
        (np.array(["off", "on", "off"]), ["off", "on"]),
        (np.array([1.0, np.nan, 0.0]), [0.0, 1.0]),
    ],
)
def test_categories_are_the_values_that_are_there_and_keep_their_dtype(
    values: npt.NDArray[np.generic], labels: list[object]
) -> None:
    found = categories().assign(values)
    assert found.labels.tolist() == labels
    assert found.labels.dtype.kind == values.dtype.kind
    there = found.index >= 0
    np.testing.assert_array_equal(found.labels[found.index[there]], values[there])
    assert found.n_missing == np.sum(~there)


def test_listed_categories_keep_their_order_and_count_the_others() -> None:
    found = categories(["on", "off"]).assign(np.array(["off", "on", "dropped"]))
    assert found.index.tolist() == [1, 0, -1]
    assert found.n_between == 1


def test_times_can_be_binned_by_edges() -> None:
    t = np.datetime64("2026-01-01", "ns") + np.arange(4) * np.timedelta64(1, "s")
    assert edges(t[[0, 2, 3]]).assign(t).index.tolist() == [0, 0, 1, -1]


def test_no_values_at_all_make_empty_bins_where_bins_are_given() -> None:
    for binning in (bins(0, 1, n=2), edges([0, 1]), steps(tolerance=0.1, at=[1.0])):
        for values in ([], [np.nan, np.nan]):
            found = binning.assign(np.asarray(values, float))
            assert (found.index == -1).all()
            assert len(found.labels) >= 1
    assert categories([1, 2]).assign(np.zeros(0, int)).labels.tolist() == [1, 2]


@pytest.mark.parametrize(
    "make",
    [
        lambda: bins(5, -2, n=7),
        lambda: bins(0, 0, n=1),
        lambda: bins(0, 1),
        lambda: bins(0, 1, n=2, width=0.5),
        lambda: bins(0, 1, width=0),
        lambda: bins(0, 1, width=-0.1),
        lambda: bins(0, 1, width=0.3),
        lambda: bins(0, 1, n=0),
        lambda: bins(0, 1, n=2.5),  # type: ignore[arg-type]
        lambda: bins(0, 1, n=True),
        lambda: bins(0, float("nan"), n=2),
        lambda: bins(0, 1, width=1e-9),
        lambda: bins(0, 1, n=3, log=True),
        lambda: bins(-1, 1, n=3, log=True),
        lambda: bins(1, 10, width=1, log=True),
        lambda: edges([1]),
        lambda: edges([0, 1, 1, 2]),
        lambda: edges([0, 2, 1]),
        lambda: edges([0, np.inf]),
        lambda: edges(["a", "b"]),
        lambda: steps(tolerance=-1),
        lambda: steps(tolerance=0.5, at=[0, 1]),
        lambda: steps(tolerance=0.5, at=[]),
        lambda: quantiles(0),
        lambda: categories([]),
        lambda: categories([1, 1]),
        lambda: categories("on"),
        lambda: as_binning(5, "delay"),
        lambda: as_binning(None, "delay"),
        lambda: as_binning("delay", "delay"),
    ],
)
def test_invalid_bins_are_refused(make: object) -> None:
    with pytest.raises(ParameterError):
        make()  # type: ignore[operator]


@pytest.mark.parametrize("binning", [bins(100, 200, n=2), edges([100, 200]), steps(tolerance=1, at=[100])])
def test_bins_that_cover_no_event_are_refused(binning: Binning) -> None:
    with pytest.raises(ParameterError, match=r"cover no event[\s\S]*0\.5"):
        binning.assign([0.5, 1.5], "delay")


def test_bins_that_cover_no_event_are_told_where_the_values_lie() -> None:
    with pytest.raises(ParameterError, match=r"do this:  xs\.bins\(-2\.5, 1\.5, n=20\)"):
        bins(100, 200, n=2).assign([-2.5, 1.5], "delay")
    with pytest.raises(ParameterError, match=r"do this:  bins in the unit of delay"):
        bins(100, 200, n=2).assign([1.5, 1.5], "delay")


def test_values_that_cannot_be_binned_are_refused() -> None:
    with pytest.raises(DataError, match="categories"):
        bins(0, 1, n=2).assign(np.array([True, False]), "laser_on")
    with pytest.raises(DataError, match="no categories"):
        categories().assign(np.array([0.5, 1.0]), "delay")
    with pytest.raises(ParameterError, match="not of the kind"):
        categories(["on"]).assign(np.array([True]), "laser_on")
    with pytest.raises(ParameterError, match="not of the kind"):
        categories([0.5]).assign(np.array([1, 2]), "step")
    with pytest.raises(ParameterError, match="too few different values"):
        quantiles(4).assign([1.0, 1.0, 1.0, 2.0], "i0")
    with pytest.raises(DataError, match="no finite value"):
        quantiles(4).assign([np.nan], "i0")


def test_a_bare_array_means_edges() -> None:
    assert as_binning([0, 1, 2], "delay") == edges([0, 1, 2])
    assert as_binning(np.arange(3), "delay") == edges([0, 1, 2])


@pytest.mark.parametrize("dtype", ["f8", "f4"])
@pytest.mark.parametrize("unit", [1.0, 1e-3, 1e-12])
def test_edges_that_arithmetic_made_bin_as_the_decimal_numbers_do(dtype: str, unit: float) -> None:
    written = np.array([float(f"{k / 10 * unit:.12g}") for k in range(11)]).astype(dtype)
    for made in (
        np.arange(0, 1.05, 0.1) * unit,
        np.linspace(0, 1, 11) * unit,
        np.cumsum([0] + [0.1] * 10) * unit,
        written,
    ):
        found = edges(made).assign(written)
        assert found.index.tolist() == [*range(10), -1]
    assert quantiles(5).assign(written).index.tolist() == [0, 0, 1, 1, 2, 2, 3, 3, 4, 4, 4]


def test_one_region_may_have_the_name_of_what_is_binned_by() -> None:
    small = xr.Dataset({"spot": (("event", "spot"), np.array([[0.5], [1.5], [1.7]])), "i0": ("event", [1.0, 2.0, 4.0])})
    found = cube(small, {"spot": bins(0, 2, n=2)})
    assert found["spot_mean"].dims == found["i0"].dims == ("spot",)
    assert found["i0"].values.tolist() == [1.0, 3.0]
    assert found["spot_mean"].values.tolist() == [0.5, 1.6]


def test_edges_may_be_times_of_a_zone() -> None:
    times = pd.date_range("2026-03-29", periods=4, freq="h")
    small = xr.Dataset({"seen": ("event", times), "one": ("event", np.ones(4))}, {"event": np.arange(4)})
    for borders in (times.tz_localize("UTC").tz_convert("Europe/Paris"), [t.to_pydatetime() for t in times]):
        np.testing.assert_array_equal(small.sd.cube({"seen": edges(borders)})["count"].values, [1, 1, 1])


@pytest.mark.parametrize(("start", "width", "n"), [(-1.0, 0.025, 81), (-0.2303, 0.0032, 205), (22.94, 0.3, 388)])
def test_many_edges_that_sums_have_made_are_the_decimal_numbers(start: float, width: float, n: int) -> None:
    exact = bins(start, float(Decimal(str(start)) + n * Decimal(str(width))), n=n).edges()
    summed = np.cumsum(np.concatenate([[start], np.full(n, width)]))
    ranged = np.arange(start, start + (n + 0.5) * width, width)
    assert np.abs(ranged - exact).max() > 0  # it matters
    for made in (summed, ranged, start + width * np.arange(n + 1)):
        assert edges(made).borders == tuple(exact)
        readings = start + width * np.arange(n)  # rounded twice
        assert edges(made).assign(readings).index.tolist() == list(range(n))


def test_edges_that_are_not_at_equal_distances_are_taken_to_the_last_place() -> None:
    borders = np.array([0.0, 0.1, 0.2, 0.30001, 0.4])
    assert edges(borders).borders == tuple(borders)
    below = np.nextafter(borders[1:-1], 0)
    assert edges(borders).assign(below).index.tolist() == [0, 1, 2]


@pytest.mark.parametrize(
    "make",
    [
        lambda: edges([[1], [1, 2]]),
        lambda: steps(tolerance=0.1, at="abc"),  # type: ignore[arg-type]
        lambda: steps(tolerance=0.1, at=[[0.0], [1.0, 2.0]]),  # type: ignore[list-item]
        lambda: steps(tolerance=0.1, at=[None, 1.0]),  # type: ignore[list-item]
        lambda: categories([[1], [2]]),
        lambda: categories([[1], [2, 3]]),
        lambda: categories(["on", 1]),
        lambda: categories([True, 2]),
    ],
)
def test_things_of_another_kind_are_no_bins(make: Callable[[], Any]) -> None:
    with pytest.raises(ParameterError):
        make()


def test_values_that_are_not_finite_are_in_no_advice() -> None:
    with pytest.raises(ParameterError, match=r"do this:  bins in the unit of x"):
        bins(0, 1, n=2).assign([np.inf, -np.inf], "x")
    with pytest.raises(ParameterError, match=r"do this:  xs\.bins\(5, 6, n=20\)"):
        bins(0, 1, n=2).assign([np.inf, 5.0, 6.0, -np.inf], "x")
    assert bins(5, 6, n=20).assign([np.inf, 5.0, 6.0, -np.inf]).index.tolist() == [-1, 0, -1, -1]


@pytest.mark.parametrize("dtype", [np.int64, np.uint64])
@pytest.mark.parametrize(
    "kind", [steps(tolerance=0), quantiles(2), bins(0, 2.0**61, n=4), edges([0, 2.0**60, 2.0**61])]
)
def test_whole_numbers_that_floats_do_not_tell_apart_are_refused_and_the_advice_works(
    kind: Binning, dtype: type[np.integer[Any]]
) -> None:
    values = np.array([2**60, 2**60 + 1, 2**60 + 2], dtype)
    with pytest.raises(DataError, match=r"do this:  small\.assign\(k=small\[\"k\"\] - small\[\"k\"\]\.min\(\)\)"):
        kind.assign(values, "k")
    assert steps(tolerance=0).assign(values - values.min()).index.tolist() == [0, 1, 2]
    assert categories().assign(values).index.tolist() == [0, 1, 2]
    assert steps(tolerance=0).assign(np.array([2**53, -(2**53)])).index.tolist() == [1, 0]


@pytest.mark.parametrize("nothing", [None, float("nan"), pd.NA])
def test_text_that_is_missing_is_counted(nothing: Any) -> None:
    found = categories().assign(np.array(["on", nothing, "off", "on"], object))
    assert (found.index.tolist(), found.labels.tolist(), found.n_missing) == ([1, -1, 0, 1], ["off", "on"], 1)
    given = categories(["on", ""]).assign(np.array(["on", nothing, "", "on"], object))
    assert (given.index.tolist(), given.n_missing) == ([0, -1, 1, 0], 1)
    with pytest.raises(DataError, match="no categories"):
        categories().assign(np.array(["on", 3], object))


def test_text_of_any_width_has_categories() -> None:
    values = np.array(["on", "off", "on"], np.dtypes.StringDType())
    assert categories().assign(values).index.tolist() == [1, 0, 1]


@pytest.mark.parametrize(
    "kind", [bins(0, 2, n=2), edges([0, 1, 2]), steps(tolerance=0.1, at=[0.5, 1.5]), steps(tolerance=0.1)]
)
def test_infinite_values_are_below_or_above_all_bins(kind: Binning) -> None:
    found = kind.assign([np.inf, 0.5, 1.5, np.nan, -np.inf, -np.inf])
    assert found.index.tolist() == [-1, 0, 1, -1, -1, -1]
    assert found.report() == {"n_below": 2, "n_above": 1, "n_between": 0, "n_missing": 1}
