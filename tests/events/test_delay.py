"""The delay of each event: units, time tool, its sign, and the truth of simulated runs."""

from collections.abc import Callable
from decimal import Decimal
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


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
@pytest.mark.parametrize(("unit", "power", "zero"), [("s", -15, 0.0), ("ns", -6, 0.0), ("fs", 0, 0.0), ("fs", 0, 7.0),
                                                     ("ps", -3, 0.0), ("ps", -3, 1.0), ("ps", -3, 2.3)])  # fmt: skip
@pytest.mark.parametrize("lazy", [False, True])
def test_steps_of_25_fs_are_in_their_bins_whatever_they_are_given_in(
    dtype: type[np.floating[Any]], unit: str, power: int, zero: float, lazy: bool
) -> None:
    number = np.arange(-40, 41)
    places = np.array([float(str(Decimal(25 * k).scaleb(power) + Decimal(str(zero)))) for k in number.tolist()])
    small = xr.Dataset({"stage": ("event", places.astype(dtype)), "number": ("event", number)})
    made = (small.chunk(event=7) if lazy else small).sd.delay(stage="stage", unit=unit, zero=zero)
    np.testing.assert_array_equal(made.delay, number * 25 / 1000)
    for bins in (xs.bins(-1, 1.025, width=0.025), -1 + np.arange(82) * 0.025, xs.steps(tolerance=0, at=made.delay)):
        cube = made.sd.cube({"delay": bins})
        np.testing.assert_array_equal(cube["number"], number)
        np.testing.assert_array_equal(cube["count"], 1)


@pytest.mark.parametrize(
    "stage", [np.array([True, False]), np.array(["0", "1"]), np.array([0, 1], "m8[ns]"), np.array([0, 1j])]
)
def test_what_is_no_number_is_no_stage(stage: Any) -> None:
    small = xr.Dataset({"stage": ("event", stage), "motor": ("event", [0.0, 1.0])})
    with pytest.raises(DataError, match=r"'stage' is no number(.|\n)*one of \['motor'\]"):
        small.sd.delay(stage="stage", unit="ps")
    with pytest.raises(DataError, match="'stage' is no number"):
        small.sd.delay(stage="motor", unit="ps", time_tool="stage", time_tool_unit="ps")


def test_advice_for_a_stage_in_timedelta_works() -> None:
    small = xr.Dataset({"stage": ("event", np.array([1, 2], "m8[ns]"))})
    with pytest.raises(
        DataError, match=r'do this:  small\.assign\(stage=small\["stage"\] / np\.timedelta64\(1, "ps"\)'
    ):
        small.sd.delay(stage="stage", unit="ps")
    made = small.assign(stage=small["stage"] / np.timedelta64(1, "ps")).sd.delay(stage="stage", unit="ps")
    assert made.delay.values.tolist() == [1000.0, 2000.0]


def test_a_laser_that_says_no_true_or_false_is_refused_and_one_for_all_events_counts() -> None:
    small = xr.Dataset({"stage": ("event", [0.0, 1.0]), "tt": ("event", [0.1, np.nan])})

    def made(laser_on: Any) -> xr.Dataset:
        data = small.assign(laser_on=laser_on)
        return data.sd.delay(stage="stage", unit="ps", time_tool="tt", time_tool_unit="ps")

    for wrong in (("event", ["on", "off"]), (("event", "k"), np.ones((2, 2), bool))):
        with pytest.raises(DataError, match="laser_on has to be one true or false per event"):
            made(wrong)
    assert made(False).delay.values.tolist() == [0.0, 1.0]
    np.testing.assert_array_equal(made(True).delay, [0.1, np.nan])


def test_a_position_that_is_not_finite_is_no_fit() -> None:
    small = xr.Dataset({"stage": ("event", [0.0, 1.0, 2.0]), "tt": ("event", [np.inf, -np.inf, 1.0])})
    for options in ({"time_tool_unit": "ps"}, {"calibration": [0, 1, -0.5]}):
        made = small.sd.delay(stage="stage", unit="ps", time_tool="tt", **options)
        assert np.isnan(made.delay.values[:2]).all()
        assert np.isfinite(made.delay.values[2])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"sign": True}, "sign of the time tool is 1 or -1"),
        ({"sign": np.array([1, -1])}, "sign of the time tool is 1 or -1"),
        ({"stage_sign": "-1"}, "stage_sign is 1 or -1"),
        ({"calibration": "abc", "time_tool_unit": None}, "calibration is a polynomial"),
        ({"calibration": [[1, 2], [3]], "time_tool_unit": None}, "calibration is a polynomial"),
        ({"unit": ["ps"]}, "unit of stage is not known"),
        ({"time_tool": None, "time_tool_unit": None, "calibration": np.array([0.0, 1.0])}, "without a time tool"),
    ],
)
def test_arguments_of_another_kind_are_said(options: dict[str, Any], message: str) -> None:
    small = xr.Dataset({"stage": ("event", [0.0, 1.0]), "tt": ("event", [0.1, 0.2])})
    with pytest.raises(ParameterError, match=message):
        small.sd.delay(**({"stage": "stage", "unit": "ps", "time_tool": "tt", "time_tool_unit": "ps"} | options))
