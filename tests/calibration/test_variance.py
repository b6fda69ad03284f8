"""Variances of reductions: against derivatives taken by differences, and as pulls on data whose truth is known."""

from collections.abc import Callable

import numpy as np
import numpy.typing as npt
import pytest
import xarray as xr

import xsmall as xs
from xsmall.errors import DataError, ParameterError
from xsmall.frames.variance import paired
from xsmall.kernels.reference.autocorrelation import autocorrelation as correlate

SHAPE = (1, 9, 11)
Values = npt.NDArray[np.float64]


def both(seed: int = 0) -> xr.Dataset:
    """One event in float64 with holes, and a variance for each pixel."""
    rng = np.random.default_rng(seed)
    values = rng.uniform(5, 9, (1, *SHAPE))
    values[rng.random(values.shape) < 0.1] = np.nan
    dims = ("event", "segment", "row", "column")
    variance = rng.uniform(0.1, 0.5, values.shape)
    return paired(xr.Dataset({"cal": (dims, values, {"units": "keV"}), "cal_variance": (dims, variance)}))


def by_differences(function: Callable[[xr.DataArray], xr.DataArray], data: xr.Dataset) -> Values:
    """Sum of the variances times the squared derivatives, each taken by changing one pixel up and down."""
    total: Values = np.asarray(0.0)
    for place in zip(*np.nonzero(np.isfinite(data["cal"].values)), strict=True):
        sides = []
        for step in (1e-4, -1e-4):
            values = data["cal"].copy(deep=True)
            values.values[place] += step
            sides.append(np.asarray(function(values).values[0]))
        total = total + data["cal_variance"].values[place] * ((sides[0] - sides[1]) / 2e-4) ** 2
    return total


@pytest.mark.parametrize("name", ["sum", "mean", "max", "com_row", "com_column"])
def test_variances_of_a_region_are_those_of_its_derivatives(name: str) -> None:
    data, boxes = both(), {"a": xs.Box(segment=0, row=(2, 8), column=(1, 10)), "b": xs.Box(segment=0)}
    expected = by_differences(lambda frames: frames.sd.roi(boxes)[name], data)
    np.testing.assert_allclose(data.sd.roi(boxes)[f"{name}_variance"][0], expected, rtol=1e-5)


@pytest.mark.parametrize("name", ["sum", "row", "column"])
@pytest.mark.parametrize("step", [1, -1])
def test_variances_of_droplets_are_those_of_their_derivatives(name: str, step: int) -> None:
    data = both(1).assign_coords(row=np.arange(9)[::step] + 100, column=np.arange(11)[::step])
    n = int(data["cal"].sd.droplet(8.0, 6.5)["n_droplets"][0])
    assert n > 2
    expected = by_differences(lambda frames: frames.sd.droplet(8.0, 6.5, max_droplets=n)[name], data)
    found = data.sd.droplet(8.0, 6.5, max_droplets=n)
    assert int(found["n_pixels"].max()) > 3
    np.testing.assert_allclose(found[f"{name}_variance"][0], expected, rtol=1e-5, atol=1e-12)


def test_the_variance_of_an_autocorrelation_is_that_of_its_derivatives() -> None:
    data = both(2)
    expected = by_differences(lambda frames: frames.sd.autocorrelation(max_lag=(3, 4))["autocorrelation"], data)
    out = data.sd.autocorrelation(max_lag=(3, 4))
    assert out["autocorrelation_variance"].dims == out["autocorrelation"].dims
    np.testing.assert_allclose(out["autocorrelation_variance"][0], expected, rtol=1e-5)
    mask = np.random.default_rng(3).random(SHAPE) > 0.2
    use = mask[0] & np.isfinite(data["cal"].values[0, 0])
    masked = paired(data.where(xr.DataArray(use[None], dims=("segment", "row", "column"))))
    xr.testing.assert_allclose(data.sd.autocorrelation(max_lag=2, mask=mask), masked.sd.autocorrelation(max_lag=2))
    np.testing.assert_allclose(
        out["autocorrelation"][0], correlate(data["cal"].values[0, 0], np.ones(SHAPE[1:], bool), (3, 4))
    )


def test_an_autocorrelation_whose_variance_would_cost_too_much_comes_without(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("xsmall.reductions.autocorrelation.MOST_PRODUCTS", 1000)
    assert "autocorrelation_variance" not in both().sd.autocorrelation()
    assert "autocorrelation_variance" in both().sd.autocorrelation(max_lag=1)


@pytest.mark.parametrize(
    "corrections", [{}, {"solid_angle": True, "polarization_plane": 20, "polarization_fraction": 0.9}]
)
@pytest.mark.parametrize("per_event", [False, True])
def test_the_variance_of_a_ring_is_that_of_its_derivatives(
    placed: xr.DataArray, corrections: dict[str, float], per_event: bool
) -> None:
    part = placed.isel(event=[0], row=slice(0, 40, 4), column=slice(0, 70, 7)).astype(float)
    if per_event:
        two = xr.concat([part, part], "event").assign_coords(photon_energy=("event", [9000.0, 9600.0]))
        part = two.assign_coords(event=placed["event"].values[:2])
    rng = np.random.default_rng(4)
    data = paired(xr.Dataset({"cal": part, "cal_variance": part.copy(data=rng.uniform(0.1, 0.5, part.shape))}))
    integrate = xs.azint(4, azimuth_bins=3, range=(0.1, 4), **corrections)  # type: ignore[arg-type]
    expected = by_differences(lambda frames: xs.apply(frames, integrate)["intensity"], data.isel(event=slice(0, 1)))
    found = xs.apply(data, integrate).isel(event=0)
    known = found["n_valid"].values > 0
    np.testing.assert_allclose(found["intensity_variance"].values[known], expected[known], rtol=1e-5)
    assert np.isnan(found["intensity_variance"].values[~known]).all()


def test_a_valid_pixel_without_a_variance_makes_the_variance_unknown_never_smaller(placed: xr.DataArray) -> None:
    frames = placed.isel(event=[0, 1])
    spread = xr.full_like(frames, 0.25)
    place = tuple(np.argwhere(np.isfinite(frames.values[0]))[0])
    spread.values[(0, *place)] = np.nan
    data = paired(xr.Dataset({"cal": frames, "cal_variance": spread}))
    small = data.sd.reduce(
        {
            "rings": xs.azint(1, range=(0.01, 9)),
            "roi": xs.roi(xs.Box(segment=int(place[0]))),
            "rows": xs.projection("row"),
            "columns": xs.projection("column", statistic="mean"),
            "speckle": xs.autocorrelation(xs.Box(segment=int(place[0])), max_lag=1),
        }
    )
    names = ("rings_intensity", "roi_sum", "roi_mean", "roi_com_row", "roi_com_column", "speckle_autocorrelation")
    for name in names:
        variance = small[f"{name}_variance"]
        assert bool(variance[0].isnull().any()), name
        assert bool(variance[1].notnull().all()), name
    assert int(small["rows_projection_variance"][0].isnull().sum()) == 1
    assert int(small["columns_projection_variance"][0].isnull().sum()) == 1


# ---- thresholds in sigma ------------------------------------------------------------------------------------------


def test_thresholds_in_sigma_are_those_of_the_frames_in_units_of_the_noise(placed: xr.DataArray) -> None:
    rng = np.random.default_rng(5)
    noise = xr.DataArray(
        rng.uniform(0.2, 1.5, placed.shape[1:]),
        dims=placed.dims[1:],
        coords={d: placed[d] for d in placed.dims[1:]},
    )
    noise.values[0, 3, 4], noise.values[1, 5, 5] = 0, np.nan
    cut = placed.isel(row=slice(3, 33), segment=[1, 0]).astype(float)
    found = cut.sd.droplet(xs.sigma(5), xs.sigma(2.5), noise=noise, max_droplets=200)
    scaled = cut / noise.where(noise > 0)
    expected = scaled.assign_attrs(units="1").sd.droplet(5.0, 2.5, max_droplets=200)
    for name in ("n_droplets", "n_pixels", "segment"):
        xr.testing.assert_equal(found[name], expected[name])
    constant = cut.sd.droplet(xs.sigma(4), noise=np.full(cut.shape[1:], 0.5), max_droplets=200)
    xr.testing.assert_identical(constant.drop_attrs(), cut.sd.droplet(2.0, max_droplets=200).drop_attrs())
    xr.testing.assert_identical(
        cut.chunk(event=2).sd.droplet(xs.sigma(5), xs.sigma(2.5), noise=noise, max_droplets=200).compute(), found
    )


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"threshold": xs.sigma(5)}, "needs the noise"),
        ({"threshold": xs.sigma(5), "threshold_low": 2.0, "noise": np.ones(SHAPE)}, "two kinds"),
        ({"threshold": xs.sigma(2), "threshold_low": xs.sigma(3), "noise": np.ones(SHAPE)}, "out of order"),
        ({"threshold": 5.0, "noise": np.ones(SHAPE)}, "noise is for"),
        ({"threshold": xs.sigma(5), "noise": -np.ones(SHAPE)}, "noise is positive"),
        ({"threshold": xs.sigma(5), "noise": np.zeros(SHAPE)}, "noise is positive"),
        ({"threshold": xs.sigma(5), "noise": np.ones(SHAPE, bool)}, "number for each pixel"),
        ({"threshold": xs.sigma(5), "noise": xr.DataArray(np.ones(3), dims="row")}, "other dims"),
    ],
)
def test_invalid_thresholds_in_sigma_are_refused(arguments: dict[str, object], message: str) -> None:
    with pytest.raises(ParameterError, match=message):
        xs.droplet(**arguments)  # type: ignore[arg-type]


@pytest.mark.parametrize("number", [0, -1, np.nan, np.inf, "5", True, None])
def test_a_sigma_is_a_positive_number(number: object) -> None:
    with pytest.raises(ParameterError, match="invalid sigma"):
        xs.sigma(number)  # type: ignore[arg-type]


def test_noise_in_another_unit_or_of_other_pixels_is_refused(placed: xr.DataArray) -> None:
    noise = xr.ones_like(placed[0].drop_vars("event")).assign_attrs(units="ADU")
    with pytest.raises(ParameterError, match="another unit"):
        placed.sd.droplet(xs.sigma(5), noise=noise)
    with pytest.raises(DataError, match="another shape"):
        placed.sd.droplet(xs.sigma(5), noise=np.ones(SHAPE))
    with pytest.raises(DataError, match="does not cover"):
        placed.sd.droplet(xs.sigma(5), noise=noise.drop_attrs().isel(row=slice(3)))


# ---- images ---------------------------------------------------------------------------------------------------


@pytest.fixture
def turned() -> xr.Dataset:
    """One event of a turned panel, in float64 with holes, and a variance for each pixel."""
    c, s = np.cos(0.1) * 1e-4, np.sin(0.1) * 1e-4
    panel = xs.Panel((4e-4, 4e-4, 0.1), (s, -c, 0), (-c, -s, 0), SHAPE[1:])
    data = both(6)
    return data.assign({v: xs.assign_geometry(data[v], xs.Geometry.from_panels([panel])) for v in data})


@pytest.mark.parametrize(
    "arguments", [{}, {"method": "area"}, {"pixel_size": 2.5e-4}, {"method": "area", "pixel_size": 8e-5}]
)
def test_the_variance_of_an_image_is_that_of_its_derivatives(turned: xr.Dataset, arguments: dict[str, object]) -> None:
    out = turned.sd.image(**arguments)
    assert list(out) == ["cal", "cal_variance"]
    xr.testing.assert_identical(out["cal"], turned["cal"].sd.image(**arguments))
    expected = by_differences(lambda frames: frames.sd.image(**arguments).fillna(0), turned)
    expected[np.isnan(out["cal"].values[0])] = np.nan
    np.testing.assert_allclose(out["cal_variance"][0], expected, rtol=1e-5)
    xr.testing.assert_identical(turned.chunk(event=1).sd.image(**arguments).compute(), out)


def test_the_variance_of_a_polar_map_is_that_of_its_derivatives(turned: xr.Dataset) -> None:
    shape = {"n_radius": 5, "n_azimuth": 7}
    out = turned.sd.polar(**shape)
    expected = by_differences(lambda frames: frames.sd.polar(**shape)["intensity"].fillna(0), turned)
    expected[np.isnan(out["intensity"].values[0])] = np.nan
    np.testing.assert_allclose(out["intensity_variance"][0], expected, rtol=1e-4)


def test_an_image_pixel_of_a_value_without_a_variance_has_none(turned: xr.Dataset) -> None:
    turned["cal_variance"].values[0, 0, 4, 5] = np.nan
    turned["cal"].values[0, 0, 4, 5] = 7
    for arguments in ({}, {"method": "area"}):
        out = turned.sd.image(**arguments)
        assert int(out["cal_variance"].isnull().sum()) > int(out["cal"].isnull().sum())
    xr.testing.assert_identical(turned[["cal"]].sd.image()["cal"], turned["cal"].sd.image())
    with pytest.raises(DataError, match="2 such variables"):
        turned.assign(other=turned["cal"]).sd.image()


def test_values_and_variances_may_be_lazy_or_not_each_for_itself() -> None:
    sim = xs.simulate(20, shape=(2, 16, 32), seed=1)
    lazy = sim.run["jungfrau"]["raw"].chunk(event=7).sd.calibrate(sim.constants, variance=True, photon_energy=9500)
    held = lazy.compute()
    records = {"spot": xs.roi(xs.Box(segment=0)), "photons": xs.droplet(4.0, 1.0, max_droplets=20)}
    small, mean = held.sd.reduce(records), held.sd.average()
    spread = "calibrated_variance"
    for data in (
        lazy,
        lazy.isel(event=slice(0, 20), row=slice(0, 16)),
        paired(lazy * 1.0),
        held.assign(calibrated=lazy["calibrated"]),
        lazy.assign({spread: held[spread]}),
        held.assign({spread: lazy[spread]}),
        lazy.assign({spread: lazy[spread].chunk(event=11)}),
        lazy.persist(),
        lazy.assign(calibrated=lazy["calibrated"].persist()),
    ):
        xr.testing.assert_equal(data.sd.reduce(records).compute(), small)
        xr.testing.assert_equal(data.sd.average().compute(), mean)
