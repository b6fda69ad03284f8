"""``roi`` of regions of space and masks, over several segments, with thresholds, moments and the pixels themselves."""

from typing import Any

import numpy as np
import pytest
import xarray as xr

import xsmall as xs
from tests.same_reduction import assert_same_reduction
from xsmall.errors import DataError, GeometryError, ParameterError
from xsmall.frames.variance import paired

BOX = xs.Box(segment=1, row=(3, 30), column=(10, 69))
PIXELS = ("segment", "row", "column")


def truth(frames: xr.DataArray, inside: Any) -> np.ndarray:
    """Valid values inside, NaN elsewhere."""
    values = np.where(np.broadcast_to(inside, frames.shape), frames.values.astype(float), np.nan)
    values[~np.isfinite(values)] = np.nan
    return values


def some(values: np.ndarray) -> np.ndarray:
    return np.isfinite(values).any(axis=(1, 2, 3))


REGIONS = {
    "polygon": xs.Polygon([(-2e-3, -4e-3), (1e-3, -4e-3), (0, 3e-3), (-2e-3, -4e-3)]),
    "ring of q": xs.Band("q", 0.15, 0.25),
    "sector": xs.Band("radius", 1e-3, 4e-3) & xs.Band("azimuth", -60, 100),
    "in the picture": xs.Rectangle((3, 40), (5, 50), space="image"),
}


def test_regions_of_space_hold_the_pixels_that_inside_says(placed: xr.DataArray) -> None:
    out = placed.sd.roi(REGIONS)
    assert out["roi"].values.tolist() == list(REGIONS)
    for name, region in REGIONS.items():
        values, got = truth(placed, xs.inside(placed, region).values), out.sel(roi=name)
        n = np.isfinite(values).sum(axis=(1, 2, 3))
        assert n.max() > 50
        np.testing.assert_array_equal(got["n_valid"], n)
        ok = some(values)
        np.testing.assert_allclose(got["sum"][ok], np.nansum(values[ok], axis=(1, 2, 3)), rtol=1e-12)
        np.testing.assert_allclose(got["mean"][ok], np.nanmean(values[ok], axis=(1, 2, 3)), rtol=1e-12)
        np.testing.assert_array_equal(got["max"][ok], np.nanmax(values[ok], axis=(1, 2, 3)).astype("f4"))
    assert np.isnan(out["com_row"].sel(roi="polygon")).all(), "rows of two segments have no centre"


def test_a_mask_is_a_region_and_a_box_is_one_too(placed: xr.DataArray) -> None:
    mask = xs.mask(placed) == 0
    mask.values[:] = np.random.default_rng(0).random(mask.shape) < 0.2
    cut = placed.isel(row=slice(2, 35), column=slice(None, None, -1))
    out = cut.sd.roi({"mask": mask, "box": BOX})
    values = truth(cut, mask.sel(row=cut.row, column=cut.column).values)
    np.testing.assert_array_equal(out["n_valid"].sel(roi="mask"), np.isfinite(values).sum(axis=(1, 2, 3)))
    as_mask = xr.zeros_like(mask)
    as_mask[1, 3:30, 10:69] = True
    both = placed.sd.roi({"box": BOX, "mask": as_mask}, also=["min", "full_sum", "moment_row_column"])
    for name, found in both.data_vars.items():
        np.testing.assert_allclose(found.sel(roi="box"), found.sel(roi="mask"), rtol=1e-9, err_msg=str(name))


def test_more_numbers_are_those_of_numpy(placed: xr.DataArray) -> None:
    names = ["min", "full_sum", "n_saturated", "x", "y", "moment_x_x", "moment_x_y", "moment_y_y"]
    region, pixels = REGIONS["sector"], ["moment_row_row", "moment_row_column", "moment_column_column", *names]
    out = placed.sd.roi({"sector": region, "box": BOX}, also=pixels, saturation=9.0)
    x, y = (placed.sd.pixel(name).values for name in "xy")
    boxed = np.zeros(x.shape, bool)
    boxed[1, 3:30, 10:69] = True
    for name, inside in (("sector", xs.inside(placed, region).values), ("box", boxed)):
        values, got = truth(placed, inside), out.sel(roi=name)
        ok, axes = some(values), (1, 2, 3)
        v = np.nan_to_num(values[ok])
        total = v.sum(axis=axes)
        np.testing.assert_array_equal(got["min"][ok], np.nanmin(values[ok], axis=axes))
        np.testing.assert_array_equal(got["n_saturated"], (values >= 9.0).sum(axis=axes))
        np.testing.assert_allclose(got["full_sum"][ok], np.nanmean(values[ok], axis=axes) * inside.sum(), rtol=1e-12)
        cx, cy = (v * x).sum(axis=axes) / total, (v * y).sum(axis=axes) / total
        np.testing.assert_allclose(got["x"][ok], cx, rtol=1e-9)
        np.testing.assert_allclose(got["y"][ok], cy, rtol=1e-9)
        dx, dy = x - cx[:, None, None, None], y - cy[:, None, None, None]
        for key, product in (("x_x", dx * dx), ("x_y", dx * dy), ("y_y", dy * dy)):
            np.testing.assert_allclose(got[f"moment_{key}"][ok], (v * product).sum(axis=axes) / total, rtol=1e-7)
        assert np.isnan(got["x"][~ok]).all()
        assert np.isnan(got["min"][~ok]).all()
        if name == "box":
            row, column = np.indices(x.shape[1:])
            dr, dc = (g - got[f"com_{d}"].values[ok, None, None, None] for g, d in ((row, "row"), (column, "column")))
            for key, product in (("row_row", dr * dr), ("row_column", dr * dc), ("column_column", dc * dc)):
                np.testing.assert_allclose(got[f"moment_{key}"][ok], (v * product).sum(axis=axes) / total, rtol=1e-9)
        else:
            assert np.isnan(got["moment_row_row"]).all()
    assert out["x"].attrs["units"] == "m"
    assert out["moment_x_y"].attrs["units"] == "m2"


def test_variances_of_what_lies_in_several_segments(placed: xr.DataArray) -> None:
    both = paired(xr.Dataset({"cal": placed, "cal_variance": xr.full_like(placed, 0.25)}))
    out = both.sd.roi(REGIONS["sector"], also=["x", "y", "full_sum"]).isel(roi=0)
    values = truth(placed, xs.inside(placed, REGIONS["sector"]).values)
    ok = some(values)
    n, total = np.isfinite(values[ok]).sum(axis=(1, 2, 3)), np.nansum(values[ok], axis=(1, 2, 3))
    np.testing.assert_allclose(out["sum_variance"][ok], 0.25 * n)
    np.testing.assert_allclose(out["full_sum_variance"], out["sum_variance"] * (out["full_sum"] / out["sum"]) ** 2)
    for name in "xy":
        place = placed.sd.pixel(name).values - out[name].values[ok, None, None, None]
        spread = (0.25 * place**2 * np.isfinite(values[ok])).sum(axis=(1, 2, 3)) / total**2
        np.testing.assert_allclose(out[f"{name}_variance"][ok], spread, rtol=1e-9)
    assert (out["max_variance"][ok] == 0.25).all()


def test_thresholds_set_to_nothing_below_and_leave_out_above(placed: xr.DataArray) -> None:
    out = placed.sd.roi(BOX, threshold=(2.0, 9.6)).isel(roi=0)
    inside = np.zeros(placed.shape[1:], bool)
    inside[1, 3:30, 10:69] = True
    values = truth(placed, inside)
    values[values > 9.6] = np.nan
    values[values < 2.0] = 0
    ok = some(values)
    np.testing.assert_array_equal(out["n_valid"], np.isfinite(values).sum(axis=(1, 2, 3)))
    np.testing.assert_allclose(out["sum"][ok], np.nansum(values[ok], axis=(1, 2, 3)), rtol=1e-6)
    np.testing.assert_allclose(out["mean"][ok], np.nanmean(values[ok], axis=(1, 2, 3)), rtol=1e-6)
    noise = np.full(placed.shape[1:], 0.5)
    noise[1, 4, 20] = np.nan
    in_sigma = placed.sd.roi(BOX, threshold=xs.sigma(4), noise=noise).isel(roi=0)
    plain = placed.sd.roi(BOX, threshold=2.0, mask=np.isfinite(noise)).isel(roi=0)
    xr.testing.assert_equal(in_sigma, plain)
    spread = paired(xr.Dataset({"cal": placed, "cal_variance": xr.full_like(placed, 0.25)})).sd.roi(BOX, threshold=2.0)
    above = (placed[:, 1, 3:30, 10:69] >= 2.0) & np.isfinite(placed[:, 1, 3:30, 10:69])
    np.testing.assert_allclose(spread["sum_variance"][ok, 0], 0.25 * above.sum(("row", "column"))[ok])


@pytest.mark.parametrize("chunk", [None, 1, 3])
def test_a_mask_of_each_event_is_joined_by_label(placed: xr.DataArray, chunk: int | None) -> None:
    use = xr.DataArray(
        np.random.default_rng(1).random(placed.shape) < 0.5,
        dims=placed.dims,
        coords={d: placed[d] for d in ("event", "row", "column")},
    )
    shuffled = use.isel(event=[5, 0, 3, 2, 1, 4])
    frames, mask = (placed, shuffled) if chunk is None else (placed.chunk(event=chunk), shuffled.chunk(event=2))
    for got, expected in (
        (frames.sd.roi(REGIONS, mask=mask), placed.where(use).sd.roi(REGIONS)),
        (
            frames.isel(row=slice(3, 30)).sd.roi(BOX.__class__(segment=1), mask=mask),
            placed.where(use).isel(row=slice(3, 30)).sd.roi(xs.Box(segment=1)),
        ),
    ):
        found = got.compute()
        xr.testing.assert_equal(found.isel(event=slice(0, 6)), expected.isel(event=slice(0, 6)))
        assert not found["n_valid"].isel(event=6).any(), "an event without a mask has no valid pixel"
    with pytest.raises(DataError, match="another shape"):
        placed.sd.roi(BOX, mask=use.isel(row=slice(0, 5)).drop_vars(["row", "column"]))


def test_the_pixels_are_kept_where_that_is_asked_for(placed: xr.DataArray) -> None:
    one = placed.chunk(event=2).sd.roi(xs.Box(segment=1, row=(3, 8), column=(10, 14)), area=True).compute()
    assert one["area"].dims == ("event", "row", "column")
    np.testing.assert_array_equal(one["area"], placed[:, 1, 3:8, 10:14])
    assert one["row"].values.tolist() == [3, 4, 5, 6, 7]
    region = xs.Circle((0, 0), 5e-4)
    two = placed.sd.roi({"a": xs.Box(segment=0, row=(0, 2)), "b": region}, area=True)
    assert two["a_area"].dims == ("event", "a_row", "a_column")
    inside = xs.inside(placed, region)
    assert set(two["b_area"].dims) >= {"event", "b_row", "b_column"}
    np.testing.assert_allclose(np.isfinite(two["b_area"]).sum(two["b_area"].dims[1:]), two["n_valid"].sel(roi="b"))
    assert inside.any()
    whole = placed.sd.roi(xs.Band("radius", 0, 1.0), area=True)
    assert whole["area"].dims == ("event", "segment", "row", "column")
    np.testing.assert_array_equal(whole["area"], placed)


def test_many_pixels_are_warned_of() -> None:
    sim = xs.simulate(2, shape=(1, 160, 160), seed=1)
    with pytest.warns(UserWarning, match="of a million"):
        sim.run["jungfrau"]["raw"].sd.calibrate(sim.constants).sd.roi(xs.Box(segment=0), area=True)


def test_chunks_do_not_matter_and_nothing_computes(placed: xr.DataArray, computing_is_forbidden: Any) -> None:
    options = {"also": ["min", "x", "moment_y_y"], "threshold": (1.0, 50.0), "mask": placed > 0.4, "area": True}
    places = {**REGIONS, "box": xs.Box(segment=0, row=(0, 9), column=(0, 9))}
    small = {k: places[k] for k in ("polygon", "box")}
    whole = placed.sd.roi(small, **options)
    for chunks in (1, 3):
        lazy = placed.chunk(event=chunks)
        with computing_is_forbidden():
            found = lazy.sd.roi(small, **{**options, "mask": lazy > 0.4})
        assert_same_reduction(found.compute(), whole)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda f: f.sd.roi(xs.Band("q", 50, 60)), "holds no pixel"),
        (lambda f: f.sd.roi(BOX, also=["median"]), "invalid also"),
        (lambda f: f.sd.roi(BOX, also=["n_saturated"]), "goes with its level"),
        (lambda f: f.sd.roi(BOX, saturation=3), "goes with its level"),
        (lambda f: f.sd.roi(BOX, threshold=(5, 2)), "out of order"),
        (lambda f: f.sd.roi(BOX, threshold="3"), "invalid threshold"),
        (lambda f: f.sd.roi(BOX, threshold=(1, 2, 3)), "invalid threshold"),
        (lambda f: f.sd.roi(BOX, threshold=(None, None)), "invalid threshold"),
        (lambda f: f.sd.roi(BOX, threshold=xs.sigma(3)), "needs the noise"),
        (lambda f: f.sd.roi(BOX, threshold=(1.0, xs.sigma(3))), "two kinds"),
        (lambda f: f.sd.roi(BOX, noise=np.ones((2, 40, 70))), "noise is for thresholds"),
        (lambda f: f.sd.roi(np.zeros((2, 40, 70), bool)), "holds no pixel"),
        (lambda f: f.sd.roi(np.zeros((2, 40, 70), int)), "a mask is boolean"),
    ],
)
def test_what_makes_no_sense_is_refused(placed: xr.DataArray, make: Any, message: str) -> None:
    with pytest.raises(ParameterError, match=message):
        make(placed)


def test_space_needs_a_geometry(frames: xr.DataArray) -> None:
    for make in (lambda: frames.sd.roi(REGIONS["polygon"]), lambda: frames.sd.roi(BOX, also="x")):
        with pytest.raises(GeometryError, match="geometry"):
            make()


@pytest.mark.parametrize(
    "make",
    [
        xs.roi,
        lambda region: xs.projection("row", region),
        lambda region: xs.roi(region) | xs.azint(5),
        lambda region: xs.autocorrelation(region, max_lag=2),
        lambda region: xs.photon(5.0, regions={"ring": region}),
    ],
)
def test_a_region_of_q_is_refused_where_each_event_has_a_photon_energy_of_its_own(
    placed: xr.DataArray, make: Any
) -> None:
    own = placed.sd.assign_beam(photon_energy=np.linspace(9000, 10000, placed.sizes["event"]))
    mean = placed.sd.assign_beam(photon_energy=9500)
    for region in (xs.Band("q", 0.15, 0.25), ~xs.Ring((0, 0), 0.15, 0.25, space="q")):
        mean.sd.reduce({"a": make(region)})  # which does not answer for the other one
        with pytest.raises(ParameterError, match="photon_energy of the beam is not known"):
            own.sd.reduce({"a": make(region)})
        own.sd.assign_beam(photon_energy=9500).sd.reduce({"a": make(region)})  # as the error says
    own.sd.reduce({"a": make(xs.Band("two_theta", 1.5, 3.5))})


def test_pixels_on_no_panel_are_in_no_region_of_space() -> None:
    panel = xs.Panel(origin=(-4e-4, -2e-4, 0.1), slow=(0, 1e-4, 0), fast=(1e-4, 0, 0), shape=(4, 8), row=1)
    geometry = xs.Geometry.from_panels([panel], shape=(2, 6, 8))
    frames = xr.DataArray(np.ones((1, *geometry.shape)), dims=("event", *PIXELS)).sd.assign_geometry(geometry)
    circle = xs.Circle((0.0, 0.0), 2e-4)
    n_valid = frames.sd.roi({"in": circle, "out": ~circle, "in again": ~~circle, "all": circle | ~circle})["n_valid"]
    within = n_valid.sel(roi="in").item()
    assert 0 < within < 32
    assert n_valid.values.ravel().tolist() == [within, 32 - within, within, 32]
