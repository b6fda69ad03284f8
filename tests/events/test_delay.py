"""The delay of each event: units, time tool, its sign, and the truth of simulated runs."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import xarray as xr

import xsmall as xs
from xsmall.errors import DataError, ParameterError

STAGE = "scan_laser_delay"


def run(n: int = 3000, **options: Any) -> tuple[xr.Dataset, xr.Dataset]:
    sim = xs.simulate(n, shape=(1, 8, 16), seed=5, scan="fly", delay_range=(-1.0, 2.0), **options)
    return sim.run["events"].to_dataset().drop_vars("delay"), sim.truth


def test_the_corrected_delay_is_closer_to_the_truth_than_the_nominal_one() -> None:
    small, truth = run()
    made = small.sd.delay(stage=STAGE, time_tool="tt_position")
    on = (small.laser_on & small.xray_on).values
    away = (made.delay - truth.delay).values[on]
    nominal = (made.delay_nominal - truth.delay).values[on]
    assert np.nanstd(away) == pytest.approx(0.02, rel=0.1)
    assert np.nanstd(nominal) == pytest.approx(0.1, rel=0.1)
    wrong = small.sd.delay(stage=STAGE, time_tool="tt_position", sign=-1)
    assert np.nanstd((wrong.delay - truth.delay).values[on]) > 0.15
    assert made.delay.attrs["time_tool_sign"] == 1
    assert made.delay.attrs["units"] == "ps"


def test_a_missing_fit_is_nan_and_shots_without_laser_have_their_nominal_delay() -> None:
    small, _ = run()
    made = small.sd.delay(stage=STAGE, time_tool="tt_position")
    missing = (small.laser_on & small.tt_position.isnull()).values
    assert missing.sum() > 50
    assert np.isnan(made.delay.values[missing]).all()
    off = ~small.laser_on.values
    np.testing.assert_array_equal(made.delay.values[off], made.delay_nominal.values[off])
    assert np.isfinite(made.delay.values[~missing]).all()


@pytest.mark.parametrize(
    ("factor", "options"),
    [
        (1.0, {"unit": "ps"}),
        (1e-12, {"unit": "s"}),
        (1e3, {"unit": "fs"}),
        (1e-3, {"unit": "ns"}),
        (0.299792458 / 2, {"unit": "mm", "passes": 2}),
        (0.299792458e3, {"unit": "um", "passes": 1}),
        (-0.299792458e-3 / 4, {"unit": "m", "passes": 4, "stage_sign": -1}),
    ],
)
def test_it_is_always_ps_whatever_came_in(factor: float, options: dict[str, Any]) -> None:
    want = np.array([-1.0, 0.0, 2.5])
    small = xr.Dataset({"stage": ("event", want * factor)})
    np.testing.assert_allclose(small.sd.delay(stage="stage", **options).delay, want, atol=1e-12)
    moved = xr.Dataset({"stage": ("event", (want * factor + 7.0 * abs(factor)).astype(np.float64))})
    found = moved.sd.delay(stage="stage", zero=7.0 * abs(factor), **options)
    np.testing.assert_allclose(found.delay, want, atol=1e-9)
    if "passes" not in options:
        said = small.assign(stage=small.stage.assign_attrs(units=options["unit"]))
        np.testing.assert_allclose(said.sd.delay(stage="stage").delay, want, atol=1e-12)


def test_a_polynomial_calibrates_the_time_tool() -> None:
    small, truth = run()
    pixels = 500.0 + (small.tt_position - 0.0) / 2.5e-3
    made = small.assign(edge=pixels).sd.delay(stage=STAGE, time_tool="edge", calibration=[-500 * 2.5e-3, 2.5e-3, 0.0])
    want = small.sd.delay(stage=STAGE, time_tool="tt_position")
    np.testing.assert_allclose(made.delay, want.delay, atol=1e-9)
    np.testing.assert_array_equal(np.isnan(made.delay), np.isnan(want.delay))
    assert truth.sizes["event"] == made.sizes["event"]


@pytest.mark.parametrize("right", [1, -1])
def test_the_sign_is_found_from_the_signal_and_reported(right: int) -> None:
    small, truth = run()
    rng = np.random.default_rng(1)
    signal = truth.i0 * (100 + 5 * truth.response) * (1 + 0.003 * rng.normal(size=truth.sizes["event"]))
    data = small.assign(signal=("event", signal.values), tt_position=small.tt_position * right)
    made = data.sd.delay(stage=STAGE, time_tool="tt_position", sign="find", signal="signal", normalize="i0")
    assert made.delay.attrs["time_tool_sign"] == right
    assert made.delay.attrs["time_tool_sign_certainty"] > 4
    steps = xs.simulate(3000, shape=(1, 8, 16), seed=6, delay_range=(-1.0, 2.0))
    stepped = steps.run["events"].to_dataset().drop_vars("delay").assign(signal=("event", steps.truth.response.values))
    turned = stepped.assign(tt_position=stepped.tt_position * right).sd.delay(
        stage=STAGE, time_tool="tt_position", sign="find", signal="signal"
    )
    assert turned.delay.attrs["time_tool_sign"] == right
    said = data.sd.delay(stage=STAGE, time_tool="tt_position", sign=right)
    np.testing.assert_array_equal(made.delay, said.delay)


def test_a_signal_without_an_edge_tells_no_sign() -> None:
    small, _ = run()
    for seed in range(20):
        noise = np.random.default_rng(seed).normal(size=small.sizes["event"])
        with pytest.raises(DataError, match="does not tell the sign"):
            small.assign(noise=("event", noise)).sd.delay(
                stage=STAGE, time_tool="tt_position", sign="find", signal="noise"
            )


def test_it_is_lazy(computing_is_forbidden: Callable[[], Any]) -> None:
    small, _ = run(200)
    with computing_is_forbidden():
        lazy = small.chunk(event=50).sd.delay(stage=STAGE, time_tool="tt_position")
    xr.testing.assert_equal(lazy.compute(), small.sd.delay(stage=STAGE, time_tool="tt_position"))


def test_jitter_correction_makes_the_curve_of_a_cube_sharper() -> None:
    small, truth = run(6000)
    data = small.assign(signal=("event", truth.response.values)).sd.select(laser_on=True, xray_on=True)
    bins = {"delay": xs.bins(-0.9, 1.9, width=0.1)}
    spreads = [
        float((data.sd.delay(stage=STAGE, time_tool=tool).sd.cube(bins)["signal_std"]).max())
        for tool in ("tt_position", None)
    ]
    assert spreads[0] < 0.8 * spreads[1]


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"stage": "motor"}, ParameterError, "no variable of events"),
        ({"stage": "bare"}, ParameterError, "unit of bare is not known"),
        ({"stage": "bare", "unit": "mm"}, ParameterError, "how often light runs"),
        ({"stage": "bare", "unit": "ps", "passes": 2}, ParameterError, "has no passes"),
        ({"stage": STAGE, "unit": "fs"}, ParameterError, "another unit"),
        ({"stage": STAGE, "stage_sign": 2}, ParameterError, "1 or -1"),
        ({"stage": STAGE, "zero": float("nan")}, ParameterError, "zero"),
        ({"stage": STAGE, "time_tool": "tt_position", "sign": 0}, ParameterError, "1 or -1"),
        ({"stage": STAGE, "time_tool": "tt_position", "sign": "find"}, ParameterError, "found with a signal"),
        ({"stage": STAGE, "time_tool": "tt_position", "signal": "i0"}, ParameterError, "serve to find"),
        ({"stage": STAGE, "time_tool": "tt_position", "calibration": [1.0]}, ParameterError, "polynomial"),
        ({"stage": STAGE, "time_tool": "tt_amplitude"}, ParameterError, "unit of tt_amplitude"),
        ({"stage": STAGE, "calibration": [0, 1]}, ParameterError, "without a time tool"),
    ],
)
def test_mistakes_are_said(options: dict[str, Any], error: type[Exception], message: str) -> None:
    small, _ = run(60)
    with pytest.raises(error, match=message):
        small.assign(bare=("event", np.arange(60.0))).sd.delay(**options)


def test_it_is_corrected_once() -> None:
    small, _ = run(60)
    once = small.sd.delay(stage=STAGE, time_tool="tt_position")
    with pytest.raises(ParameterError, match='stage="delay_nominal"'):
        once.sd.delay(stage="delay", time_tool="tt_position")
    again = once.sd.delay(stage="delay_nominal", time_tool="tt_position")
    np.testing.assert_array_equal(again.delay, once.delay)
    simulated = xs.simulate(20).run["events"].to_dataset()
    with pytest.raises(ParameterError, match="corrected by the time tool before"):
        simulated.sd.delay(stage="delay", time_tool="tt_position")


def test_a_cube_does_not_average_the_nominal_delay_unless_it_is_asked_to() -> None:
    data = xr.Dataset({"motor": ("event", [0.0, 1.0], {"units": "ps"}), "y": ("event", [1.0, 2.0])})
    made = data.sd.delay(stage="motor")
    bins = {"delay": xs.bins(0, 2, n=1)}
    assert "delay_nominal" not in made.sd.cube(bins).data_vars
    assert made.sd.cube(bins, coordinates=["delay_nominal"])["delay_nominal"].values.tolist() == [0.5]
