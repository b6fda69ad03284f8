"""Fast sources in the exposures of a slow detector, beside a loop that is obvious, and psana's numbers."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import xarray as xr
from hypothesis import given
from hypothesis import strategies as st

import xsmall as xs
from xsmall.engine.pairs import paired

TIMES = np.datetime64("2026-01-01", "ns") + np.arange(4, 21)
ANDOR, EPIX = [7, 10, 13, 16, 19], [10, 20]


def fast(**variables: Any) -> xr.Dataset:
    """Seventeen events at 4 to 20 ns, as in the public run of an integrating detector."""
    return xr.Dataset({n: ("event", x) for n, x in variables.items()}, {"event": TIMES})


def slow(ends: list[int]) -> xr.DataArray:
    frames = np.zeros((len(ends), 1, 2, 2))
    times = np.datetime64("2026-01-01", "ns") + np.array(ends, np.int64)
    return xr.DataArray(frames, dims=("event", "segment", "row", "column"), coords={"event": times})


def test_psanas_end_of_batch() -> None:
    i0 = np.arange(17.0)
    exposures = fast(i0=i0).sd.integrate(into=slow(EPIX))
    assert exposures.n_events.values.tolist() == [7, 10]
    assert exposures.attrs["tail_events"] == 0
    np.testing.assert_array_equal(exposures.event, slow(EPIX).event)
    np.testing.assert_allclose(exposures.i0, [i0[:7].mean(), i0[7:].mean()])
    assert "i0_count" not in exposures
    by_andor = fast(i0=i0).sd.integrate(into=slow(ANDOR), statistic="sum")
    assert by_andor.n_events.values.tolist() == [4, 3, 3, 3, 3]
    assert by_andor.attrs["tail_events"] == 1
    np.testing.assert_allclose(by_andor.i0, [6, 15, 24, 33, 42])


def test_a_slow_frame_that_is_not_present_ends_nothing() -> None:
    frames = slow(ANDOR).assign_coords(present=(("event", "segment"), np.array([[1], [0], [1], [0], [1]], bool)))
    assert fast(i0=np.ones(17)).sd.integrate(into=frames).n_events.values.tolist() == [4, 6, 6]


def test_integers_and_bool_sum_exactly_and_have_means() -> None:
    events = fast(n=np.arange(17, dtype=np.uint16) + 60_000, laser_on=np.arange(17) % 2 == 0)
    total = events.sd.integrate(into=slow(EPIX), statistic="sum")
    assert total.n.dtype == np.int64
    assert total.n.values.tolist() == [7 * 60_000 + 21, 10 * 60_000 + 115]
    assert total.laser_on.values.tolist() == [4, 5]
    assert events.sd.integrate(into=slow(EPIX)).laser_on.values.tolist() == [4 / 7, 0.5]


def test_missing_values_are_left_out_and_counted() -> None:
    i0 = np.ones(17)
    i0[[0, 3]] = np.nan
    i0[7:] = np.nan
    result = fast(i0=i0).sd.integrate(into=slow(EPIX), statistic="sum")
    np.testing.assert_array_equal(result.i0, [5, np.nan])
    assert result.i0_count.values.tolist() == [5, 0]


def test_variances_are_those_of_the_very_value() -> None:
    i0, variance = np.arange(17.0), np.full(17, 4.0)
    i0[2] = np.nan
    events = paired(fast(i0=i0, i0_variance=variance))
    np.testing.assert_allclose(events.sd.integrate(into=slow(EPIX), statistic="sum").i0_variance, [24, 40])
    np.testing.assert_allclose(events.sd.integrate(into=slow(EPIX)).i0_variance, [4 / 6, 0.4])
    variance[5] = np.nan
    lost = paired(fast(i0=i0, i0_variance=variance)).sd.integrate(into=slow(EPIX))
    np.testing.assert_allclose(lost.i0_variance, [np.nan, 0.4])


def test_labels_are_those_of_the_end_and_steps_that_mix_are_flagged() -> None:
    events = fast(i0=np.ones(17), step=np.arange(17) // 9).assign_coords(pulse_id=("event", np.arange(17)))
    result = events.sd.integrate(into=slow(EPIX))
    assert result.step.values.tolist() == [0, 1]
    assert result.pulse_id.values.tolist() == [6, 16]
    assert result.spans_steps.values.tolist() == [False, True]


def test_an_exposure_without_events_has_no_value() -> None:
    events = fast(i0=np.ones(17), step=np.zeros(17, int), delay=np.ones(17)).isel(event=slice(7, None))
    result = events.assign_coords(q=("event", np.ones(10))).sd.integrate(into=slow(EPIX))
    assert result.n_events.values.tolist() == [0, 10]
    np.testing.assert_array_equal(result.i0, [np.nan, 1])
    np.testing.assert_array_equal(result.q, [np.nan, 1])
    assert "step" not in result
    assert "step" in result.attrs["left_out"]


def test_a_run_by_the_name_of_the_detector_and_small_data_by_its_presence() -> None:
    run = xr.DataTree.from_dict({"/events": fast(i0=np.ones(17)), "/epix": slow(EPIX).to_dataset(name="raw")})
    assert xs.integrate(run, into="epix").n_events.values.tolist() == [7, 10]
    assert xs.integrate(run["events"].to_dataset(), into=run["epix"]).n_events.values.tolist() == [7, 10]
    events = fast(i0=np.ones(17), epix_present=np.isin(np.arange(4, 21), EPIX))
    result = events.sd.integrate(into="epix")
    assert result.n_events.values.tolist() == [7, 10]
    assert "epix_present" not in result


def test_what_cannot_be_summed_is_named() -> None:
    events = fast(i0=np.ones(17)).assign(text=("event", np.array(["a"] * 17, object)))
    events["raw"] = (("event", "segment", "row", "column"), np.zeros((17, 1, 2, 2)))
    said = events.sd.integrate(into=slow(EPIX)).attrs["left_out"]
    assert "text" in said
    assert "raw: frames are reduced first" in said


@pytest.mark.parametrize(
    ("how", "text"),
    [
        ({"into": "epix"}, "no slow detector of this name"),
        ({"into": 3}, "no slow detector"),
        ({"into": slow([])}, "no exposure"),
        ({"into": slow(EPIX), "statistic": "median"}, "unknown statistic"),
        ({"into": slow(EPIX).assign_coords(event=["a", "b"])}, "other labels"),
    ],
)
def test_invalid_arguments_are_refused(how: dict[str, Any], text: str) -> None:
    with pytest.raises(xs.XsmallError, match=text):
        fast(i0=np.ones(17)).sd.integrate(**how)


def obvious(times: np.ndarray, values: np.ndarray, ends: np.ndarray) -> tuple[list[float], list[int], int]:
    totals, counts, previous = [], [], -1
    for end in ends:
        mine = [x for t, x in sorted(zip(times, values, strict=True)) if previous < t <= end]
        totals.append(sum(mine))
        counts.append(len(mine))
        previous = end
    return totals, counts, sum(t > previous for t in times)


@given(
    st.lists(st.integers(0, 60), unique=True, max_size=40),
    st.lists(st.integers(0, 60), unique=True, min_size=1, max_size=12),
    st.integers(1, 20),
    st.randoms(),
)
def test_any_events_in_any_order_and_chunks_beside_a_loop(
    times: list[int], ends: list[int], chunk: int, random: Any
) -> None:
    random.shuffle(times)
    values = np.random.default_rng(len(times)).integers(-1000, 1000, (len(times), 3)) / 8
    events = xr.Dataset({"x": (("event", "k"), values)}, {"event": np.array(times, np.int64)})
    marks = xr.DataArray(np.zeros(len(ends)), dims="event", coords={"event": ends})
    result = events.sd.integrate(into=marks, statistic="sum")
    totals, counts, tail = obvious(np.array(times), values[:, 1], np.sort(ends))
    assert result.n_events.values.tolist() == counts
    assert result.attrs["tail_events"] == tail
    np.testing.assert_array_equal(result.x[:, 1].fillna(0), totals)
    lazy = events.chunk(event=chunk).sd.integrate(into=marks, statistic="sum")
    assert lazy.x.chunks is not None
    xr.testing.assert_identical(lazy.drop_vars("x_count").compute(), result)


def test_nothing_computes(computing_is_forbidden: Callable[[], Any]) -> None:
    with computing_is_forbidden():
        result = fast(i0=np.ones(17)).chunk(event=5).sd.integrate(into=slow(EPIX))
    assert result.i0_count.compute().values.tolist() == [7, 10]
