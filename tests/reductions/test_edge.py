"""Edges of a time tool: a twin, and edges of known place, height and width, in lines and pictures."""

import dask.array as da
import numpy as np
import pytest
import xarray as xr
from scipy.special import erf

import xsmall as xs
from xsmall.errors import ParameterError
from xsmall.kernels import edge as kernel
from xsmall.kernels.reference import edge as twin

N = 1024


def step(place: float, width: float = 6.0) -> np.ndarray:
    return 0.5 * (1 + erf((np.arange(N) - place) / (np.sqrt(2) * width)))


def lines(values: np.ndarray) -> xr.DataArray:
    return xr.DataArray(values, {"event": np.arange(len(values)), "sample": np.arange(N)}, ("event", "sample"))


def laser() -> np.ndarray:
    """A spectrum that is anything but flat."""
    return 1000 * np.exp(-(((np.arange(N) - 480) / 400) ** 2)) * (1 + 0.2 * np.sin(np.arange(N) / 9))


def test_the_kernels_are_their_slow_twins() -> None:
    rng = np.random.default_rng(0)
    for _ in range(30):
        line, weights = rng.normal(size=300), rng.normal(size=int(rng.integers(3, 60)))
        out, found = np.empty(300), np.empty(4)
        kernel.answer(line, weights, out)
        np.testing.assert_allclose(out, twin.answer(line, weights), rtol=1e-9, atol=1e-12)
        kernel.top(out, 5, found)
        best = int(np.nanargmax(out))
        if np.isfinite(out[[best - 1, best + 1]]).all() and out[best] > 0:
            np.testing.assert_allclose(found[:2], twin.top(out), rtol=1e-7)


def test_edges_are_found_where_they_are_with_their_height() -> None:
    rng = np.random.default_rng(1)
    places, heights = rng.uniform(150, 870, 200), rng.uniform(0.05, 0.3, 200)
    made = laser() * np.array([1 - h * step(p) for p, h in zip(places, heights, strict=True)])
    reference = xr.DataArray(laser(), {"sample": np.arange(N)}, ("sample",))
    found = lines(made).sd.edge(weights=6.0, reference=reference)
    np.testing.assert_allclose(found["edge_pixel"], places, atol=0.01)
    np.testing.assert_allclose(found["tt_amplitude"], heights, rtol=0.01)
    noisy = lines(made + rng.normal(0, 5, made.shape)).sd.edge(weights=6.0, reference=reference)
    strong = heights > 0.1
    assert np.abs(noisy["edge_pixel"].values - places)[strong].std() < 1.0
    assert np.median(noisy["tt_next_amplitude"] / noisy["tt_amplitude"]) < 0.5


def test_rising_edges_and_calibration() -> None:
    made = laser() * np.array([1 + 0.2 * step(p) for p in (300.0, 600.0)])
    reference = xr.DataArray(laser(), {"sample": np.arange(N)}, ("sample",))
    found = lines(made).sd.edge(weights=6.0, reference=reference, direction="rising", calibration=(-1.2, 2e-3, 1e-7))
    place = np.array([300.0, 600.0])
    np.testing.assert_allclose(found["tt_position"], -1.2 + 2e-3 * place + 1e-7 * place**2, atol=1e-4)
    plain = lines(made).sd.edge(weights=6.0, reference=reference, direction="rising")
    np.testing.assert_allclose(found["tt_fwhm"], plain["tt_fwhm"] * (2e-3 + 2e-7 * place), rtol=1e-3)
    assert found["tt_position"].attrs["units"] == found["tt_fwhm"].attrs["units"] == "ps"
    wide = laser() * np.array([1 + 0.2 * step(p, 20.0) for p in (300.0, 600.0)])
    assert (
        lines(wide).sd.edge(weights=6.0, reference=reference, direction="rising")["tt_fwhm"] > plain["tt_fwhm"]
    ).all()


def test_no_edge_is_nan_never_0() -> None:
    """A missing fit as 0 puts events at a delay that they do not have."""
    rng = np.random.default_rng(2)
    made = np.stack([laser() * (1 - 0.3 * step(500)), laser() + rng.normal(0, 2, N), np.full(N, np.nan), np.zeros(N)])
    reference = xr.DataArray(laser(), {"sample": np.arange(N)}, ("sample",))
    found = lines(made).sd.edge(weights=6.0, reference=reference, calibration=(0.0, 1e-3), minimum=0.1)
    assert np.isfinite(found["tt_position"].values).tolist() == [True, False, False, False]
    assert found["n_valid"].values.tolist() == [N, N, 0, N]
    weak = lines((laser() * (1 - 0.05 * step(500)))[None])
    options = {"weights": 6.0, "reference": reference, "calibration": (0.0, 1e-3)}
    assert np.isnan(weak.sd.edge(minimum=0.1, **options)["tt_position"].values).all()
    np.testing.assert_allclose(weak.sd.edge(**options)["tt_position"], 0.5, atol=1e-3)
    for name in ("tt_position", "edge_pixel", "tt_amplitude", "tt_fwhm"):
        assert np.isnan(lines(made[2:]).sd.edge(**options)[name]).all(), name


def test_pictures_with_a_box_a_side_and_bad_pixels() -> None:
    rng = np.random.default_rng(3)
    places = rng.uniform(200, 800, 12)
    picture = np.zeros((12, 1, 60, N))
    background = 40 + 10 * np.cos(np.arange(N) / 200)
    for i, p in enumerate(places):
        picture[i, 0] = background
        picture[i, 0, 10:30] += laser() * (1 - 0.2 * step(p))
    picture += rng.normal(0, 3, picture.shape)
    picture[:, 0, 15, ::7] = np.nan
    coords = {"event": np.arange(12), "segment": [0], "row": np.arange(60), "column": np.arange(N)}
    cal = xr.DataArray(picture.astype("f4"), coords, ("event", "segment", "row", "column"))
    reference = xr.DataArray(laser(), {"column": np.arange(N)}, ("column",))
    box, side = xs.Box(row=(10, 30)), xs.Box(row=(40, 60))
    record = xs.edge(box, side=side, reference=reference, weights=6.0)
    one = xs.apply(cal, record)
    np.testing.assert_allclose(one["edge_pixel"], places, atol=1.5)
    np.testing.assert_allclose(one["tt_amplitude"], 0.2, rtol=0.1)
    chunked = cal.copy(data=da.from_array(picture.astype("f4"), chunks=(5, 1, 60, N)))
    both = chunked.sd.reduce({"tt": record, "spot": xs.roi(box)}).compute()
    np.testing.assert_array_equal(both["tt_edge_pixel"], one["edge_pixel"])
    turned = cal.isel(column=slice(None, None, -1)).sd.edge(box, side=side, reference=reference, weights=6.0)
    np.testing.assert_allclose(turned["edge_pixel"], one["edge_pixel"], rtol=1e-9)
    along = cal.rename(row="column", column="row").transpose("event", "segment", "row", "column")
    down = along.sd.edge(xs.Box(column=(10, 30)), side=xs.Box(column=(40, 60)), weights=6.0, along="row",
                         reference=reference.rename(column="row"))  # fmt: skip
    np.testing.assert_allclose(down["edge_pixel"], one["edge_pixel"], rtol=1e-9)


def test_a_measured_filter_finds_its_own_edge() -> None:
    shape = -(step(512, 12.0)[452:572])
    found = lines((1 - 0.2 * step(640, 12.0))[None]).sd.edge(weights=-shape)
    assert abs(float(found["edge_pixel"][0]) - 639.5) < 1
    weights = xs.edge_weights(6.0, 80)
    assert abs(weights.sum()) < 1e-12


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"direction": "up"}, "invalid direction"),
        ({"along": "x"}, "invalid along"),
        ({"place": (0, 5)}, "no box"),
        ({"weights": [1.0, 1.0, 1.0]}, "invalid weights"),
        ({"weights": np.ones((2, 2))}, "invalid weights"),
        ({"weights": -3.0}, "invalid weights"),
        ({"reference": np.ones(N)}, "no line"),
        ({"calibration": (1.0,)}, "invalid calibration"),
        ({"reference": xr.DataArray(np.ones(5), {"sample": np.arange(5)}, ("sample",))}, "without some pixels"),
        ({"weights": 200.0}, "longer than the line"),
        ({"calibration": 5}, "invalid calibration"),
        ({"calibration": "ab"}, "invalid calibration"),
        ({"weights": "wide"}, "invalid weights"),
        ({"weights": -3}, "invalid weights"),
        ({"minimum": "low"}, "invalid minimum"),
    ],
)
def test_what_makes_no_sense_is_refused(options: dict, said: str) -> None:
    with pytest.raises(ParameterError, match=said):
        lines(np.ones((1, N))).sd.edge(**options)


def test_the_kernels_release_the_gil(lets_others_run) -> None:
    line, weights, out = np.ones(100_000), np.ones(50), np.empty(100_000)
    assert lets_others_run(lambda: kernel.answer(line, weights, out))


def test_beside_a_time_tool_of_that_name_the_variable_keeps_the_name_of_the_record() -> None:
    made = lines(laser() * np.array([1 - 0.2 * step(p) for p in (300.0, 600.0)]))
    plain = made.sd.edge(weights=6.0)
    found = made.assign_coords(tt_amplitude=("event", [4.0, 5.0])).sd.edge(weights=6.0)
    assert found["tt_amplitude"].values.tolist() == [4.0, 5.0]
    np.testing.assert_array_equal(found["edge_tt_amplitude"], plain["tt_amplitude"])
    assert set(found.data_vars) - {"edge_tt_amplitude"} == set(plain.data_vars) - {"tt_amplitude"}
