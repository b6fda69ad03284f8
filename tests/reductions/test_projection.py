"""``projection``: truth from NumPy, labels, errors."""

import numpy as np
import pytest
import xarray as xr

import xsmall as xs
from xsmall.errors import ParameterError
from xsmall.frames.variance import paired


@pytest.mark.parametrize(("onto", "axis"), [("row", 3), ("column", 2)])
@pytest.mark.parametrize("statistic", ["sum", "mean"])
def test_projections_are_those_of_numpy(frames: xr.DataArray, onto: str, axis: int, statistic: str) -> None:
    out = frames.sd.projection(onto, statistic=statistic)
    values = np.where(np.isfinite(frames.values), frames.values, np.nan).astype(float)
    n = np.isfinite(values).sum(axis=axis)
    total = np.nansum(values, axis=axis)
    expected = np.where(n > 0, total / np.maximum(n, 1) if statistic == "mean" else total, np.nan)
    assert out["projection"].dims == ("event", "segment", onto)
    np.testing.assert_allclose(out["projection"], expected, rtol=1e-12)
    np.testing.assert_array_equal(out["n_valid"], n)


def test_a_box_keeps_its_labels(placed: xr.DataArray) -> None:
    box = xs.Box(segment=1, row=(7, 20), column=(30, 50))
    out = placed.isel(row=slice(4, None)).sd.projection("row", box)
    np.testing.assert_array_equal(out["row"], np.arange(7, 20))
    values = np.where(np.isfinite(placed.values), placed.values, 0)[:, 1, 7:20, 30:50]
    np.testing.assert_allclose(out["projection"].fillna(0), values.sum(axis=-1, dtype=float), rtol=1e-12)


def test_masks_and_variances(frames: xr.DataArray) -> None:
    mask = np.random.default_rng(0).random(frames.shape[1:]) > 0.5
    both = paired(xr.Dataset({"cal": frames, "cal_variance": xr.full_like(frames, 0.25)}))
    for statistic, power in (("sum", 1), ("mean", -1)):
        out = both.sd.projection("column", statistic=statistic, mask=mask)
        n = out["n_valid"].where(out["n_valid"] > 0).astype(float)
        np.testing.assert_allclose(out["projection_variance"], 0.25 * n**power)
        expected = frames.where(xr.DataArray(mask, dims=frames.dims[1:])).sd.projection("column", statistic=statistic)
        xr.testing.assert_equal(out["projection"], expected["projection"])


def test_results_do_not_depend_on_chunks(frames: xr.DataArray, computing_is_forbidden) -> None:  # type: ignore[no-untyped-def]
    whole = frames.sd.projection("row")
    for chunks in (1, 2, 5):
        with computing_is_forbidden():
            lazy = frames.chunk(event=chunks).sd.projection("row")
        xr.testing.assert_identical(lazy.compute(), whole)
    assert frames[:0].sd.projection("row")["projection"].shape == (0, 2, 40)


@pytest.mark.parametrize(
    "arguments",
    [
        {"onto": "d"},
        {"onto": "row", "bins": 3},
        {"onto": "x", "bins": [2, 1]},
        {"onto": "x", "width": -1},
        {"onto": 3},
        {"onto": "row", "statistic": "max"},
        {"onto": "row", "place": 3},
    ],
)
def test_invalid_arguments_are_refused(arguments: dict) -> None:
    with pytest.raises(ParameterError):
        xs.projection(**arguments)


def test_onto_a_coordinate_of_the_pixels(placed: xr.DataArray) -> None:
    edges = np.linspace(-3e-3, 2e-3, 11)
    out = placed.chunk(event=3).sd.projection("x", bins=edges).compute()
    x = placed.sd.pixel("x").values
    for e, values in enumerate(placed.values):
        good = np.isfinite(values)
        expected, _ = np.histogram(x[good], edges, weights=values[good].astype(float))
        counts, _ = np.histogram(x[good], edges)
        np.testing.assert_array_equal(out["n_valid"][e], counts)
        np.testing.assert_allclose(out["projection"][e].fillna(0), expected, rtol=1e-9)
    mean = placed.sd.projection("x", bins=edges, statistic="mean")
    np.testing.assert_allclose(mean["projection"] * mean["n_valid"], out["projection"], rtol=1e-12)
    own = placed.sd.projection(placed.sd.pixel("x").rename("energy"), bins=edges, threshold=2.0)
    assert own["projection"].dims == ("event", "energy")
    spread = xs.with_variance(placed, xr.full_like(placed, 0.25)).sd.projection("x", width=1e-3)
    np.testing.assert_allclose(spread["projection_variance"], (0.25 * spread["n_valid"]).where(spread["n_valid"] > 0))


def test_onto_a_coordinate_in_regions_as_azint_does(placed: xr.DataArray) -> None:
    box, disc = xs.Box(segment=1, row=(3, 30), column=(10, 69)), xs.Circle((0, 0), 2e-3)
    places = {"box": box, "disc": disc}
    edges = np.linspace(0.02, 0.3, 9)
    use = xs.inside(placed, disc).copy(data=np.random.default_rng(0).random(placed.shape[1:]) < 0.7)
    small = placed.sd.reduce(
        {
            "sum": xs.roi(places) | xs.projection("q", bins=edges),
            "mean": xs.roi(places, mask=use) | xs.azint(edges),
        }
    )
    inside = xs.inside(placed, disc)
    expected = placed.sd.azint(edges, mask=inside, statistic="sum")
    np.testing.assert_array_equal(small["sum_disc_projection"], expected["intensity"])
    np.testing.assert_array_equal(small["sum_box_projection"], placed.sd.projection("q", box, bins=edges)["projection"])
    whole = placed.sd.azint(edges, mask=inside & use)
    np.testing.assert_array_equal(small["mean_disc_intensity"], whole["intensity"])
