"""``azint``: split pixels, other quantities and statistics, corrections of users, each event by itself."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import xarray as xr

import xsmall as xs
from xsmall.detector.geometry.panel import PixelAxis
from xsmall.errors import DataError, ParameterError
from xsmall.frames.describe import describe
from xsmall.kernels.azint_rings import clipped_means, medians
from xsmall.kernels.azint_split import arrange_shares, scatter_shares, share_out
from xsmall.kernels.bins import first_bins
from xsmall.kernels.reference import azint_rings as rings_twin
from xsmall.kernels.reference.azint_split import shares as shares_twin
from xsmall.reductions.azint_table import AzintBins, BinTable, shared_strips_of, shares_of

PIXELS = ("segment", "row", "column")


def pixel(placed: xr.DataArray, name: str) -> np.ndarray:
    return np.asarray(placed.sd.pixel(name).values, dtype=float)


# ---- split pixels -----------------------------------------------------------------------------------------------


def shared(corners: list[tuple[float, float]], edges: np.ndarray, around: np.ndarray | None) -> np.ndarray:
    radial, azimuth = np.array([corners]).transpose(2, 0, 1).copy()
    start = np.empty(2, np.int64)
    where = (radial, azimuth, np.array([[radial.mean(), azimuth.mean()]]), edges, first_bins(edges))
    sectors = np.empty(0) if around is None else around
    n = share_out(*where, sectors, start, np.empty(0, np.int32), np.empty(0, np.float32))
    bins, share = np.empty(n, np.int32), np.empty(n, np.float32)
    assert share_out(*where, sectors, start, bins, share) == n == start[1]
    out = np.zeros(max(sectors.size - 1, 1) * (edges.size - 1))
    np.add.at(out, bins, share)
    return out


@pytest.mark.parametrize("around", [None, np.linspace(-180, 180, 13), np.array([100.0, 175.0, 200.0, 300.0])])
@pytest.mark.parametrize(
    "corners",
    [
        [(1.0, 10.0), (1.4, 14.0), (1.7, 19.0), (1.3, 15.0)],
        [(0.2, -50.0), (0.9, -50.0), (0.9, -20.0), (0.2, -20.0)],
        [(1.0, 178.0), (1.4, -178.0), (1.6, -174.0), (1.2, -178.0)],
        [(-1.0, 0.0), (0.3, 1.0), (0.5, 4.0), (-0.8, 3.0)],
        [(1.9, 170.0), (2.6, 185.0), (2.9, 190.0), (2.2, 175.0)],
    ],
)
def test_shares_are_areas(corners: Any, around: np.ndarray | None) -> None:
    edges = np.array([0.0, 0.31, 0.5, 1.07, 1.3, 2.0, 2.31])
    expected = shares_twin(*np.array(corners, float).T, edges, around)
    np.testing.assert_allclose(shared(corners, edges, around), expected.ravel(), atol=0.012)


def test_what_is_shared_is_conserved_and_chunks_do_not_matter(
    placed: xr.DataArray, computing_is_forbidden: Any
) -> None:
    for split in ("box", "full"):
        options = {"bins": 37, "split": split, "norm": True, "solid_angle": True}
        out = placed.sd.azint(**options)
        finite = np.isfinite(placed.values).sum(axis=(1, 2, 3))
        np.testing.assert_allclose(out["n_valid"].sum("q"), finite, rtol=1e-6)
        signal = np.where(np.isfinite(placed), placed, 0).sum(axis=(1, 2, 3), dtype=float)
        np.testing.assert_allclose((out["intensity"] * out["norm"]).sum("q"), signal, rtol=1e-6)
        sectors = placed.sd.azint(azimuth_bins=7, **options)
        np.testing.assert_allclose(sectors["norm"].sum("azimuth"), out["norm"], rtol=1e-5, atol=1e-5)
        for chunks in (1, 3):
            with computing_is_forbidden():
                lazy = placed.chunk(event=chunks).sd.azint(**options)
            xr.testing.assert_identical(lazy.compute(), out)


def test_variances_of_shared_pixels(placed: xr.DataArray) -> None:
    rng = np.random.default_rng(0)
    flat = placed.isel(event=[0] * 4000).copy(data=rng.normal(5, 0.5, (4000, *placed.shape[1:])).astype("f4"))
    flat = flat.assign_coords(event=np.arange(4000))
    out = xs.with_variance(flat, xr.full_like(flat, 0.25)).sd.azint(bins=60, split="full")
    seen, said = out["intensity"].var("event"), out["intensity_variance"].isel(event=0)
    np.testing.assert_allclose(seen / said, 1, atol=0.2)
    assert abs(float((seen / said).mean()) - 1) < 0.02


def test_one_nan_pixel_of_several_bins_spoils_none(placed: xr.DataArray) -> None:
    holes = placed.copy(data=np.full(placed.shape, 3.0, "f4"))
    holes.data[0, :, ::3] = np.nan
    holes.data[1] = np.nan
    holes.data[1, 0, 5, 5] = 3.0
    out = holes.sd.azint(bins=50, split="full")
    np.testing.assert_allclose(out["intensity"].where(out["n_valid"] > 0, 3.0), 3.0, rtol=1e-5)
    np.testing.assert_allclose(out["n_valid"][1].sum(), 1, rtol=1e-5)


def integrators(rng: Any) -> tuple[xr.DataArray, Any, np.ndarray]:
    """The same frame for us and for pyFAI, on one panel whose plane the beam crosses at a slant."""
    pytest.importorskip("pyFAI", reason="pyFAI is not installed: python -m pip install 'xsmall[pyfai]'")
    panel = xs.Panel(origin=(4e-3, 9e-3, 0.08), slow=(0, -7.5e-5, 0), fast=(-7.5e-5, 0, 0), shape=(160, 230))
    geometry, beam = xs.Geometry.from_panels([panel]), xs.Beam(photon_energy=9500, distance=0.08, center=(3e-4, 1e-3))
    values = rng.gamma(2, 3, (1, 1, 160, 230)).astype("f4")
    det = xr.DataArray(values, dims=("event", *PIXELS)).sd.assign_geometry(geometry)
    det = det.sd.assign_beam(photon_energy=9500, distance=0.08, center=(3e-4, 1e-3))
    return det, xs.to_pyfai(geometry, beam), values[0, 0]


@pytest.mark.validation
@pytest.mark.parametrize("split", ["box", "full"])
@pytest.mark.parametrize("corrections", [False, True])
def test_split_pixels_are_those_of_pyfai(split: str, corrections: bool) -> None:
    """Without pixels through which the x axis runs, whose corners pyFAI's full splitting does not share by area."""
    det, integrator, image = integrators(np.random.default_rng(3))
    on_axis = np.abs(pixel(det, "y")[0] - 1e-3) < 2e-4
    limits, fraction = (0.02, 0.9), 0.9 if corrections else None
    theirs = integrator.integrate1d(
        image, 120, unit="q_A^-1", radial_range=limits, correctSolidAngle=corrections, mask=on_axis,
        polarization_factor=0.8 if corrections else None, method=("bbox" if split == "box" else split, "csr", "cython"),
    )  # fmt: skip
    ours = det.sd.azint(
        120, range=limits, split=split, solid_angle=corrections, mask=~on_axis[None],
        polarization_plane=0 if corrections else None, polarization_fraction=fraction,
    ).isel(event=0)  # fmt: skip
    inner = slice(1, -1)  # shares beyond the range are lost here, and given to the outermost bins there
    np.testing.assert_allclose(ours["intensity"][inner], theirs.intensity[inner], rtol=1e-5)
    np.testing.assert_allclose(ours["n_valid"][inner], theirs.count[inner], rtol=1e-5)


@pytest.mark.validation
def test_clipped_means_are_those_of_pyfai() -> None:
    det, integrator, image = integrators(np.random.default_rng(4))
    image[np.random.default_rng(5).random(image.shape) < 0.01] = 500.0
    limits = (0.02, 0.9)
    theirs = integrator.sigma_clip(
        image, 60, unit="q_A^-1", radial_range=limits, thres=4.0, max_iter=5, correctSolidAngle=False,
        error_model="azimuthal", method=("no", "csr", "cython"),
    )  # fmt: skip
    det = det.copy(data=image[None, None])
    ours = det.sd.azint(60, range=limits, clip=4.0).isel(event=0)
    same = ours["n_valid"].values == theirs.count
    assert same.mean() > 0.9, "pixels on the border of two rings may differ"
    np.testing.assert_allclose(ours["intensity"].values[same], theirs.intensity[same], rtol=1e-5)
    assert float(det.sd.azint(60, range=limits)["intensity"].median()) > 1.3 * float(ours["intensity"].median())


# ---- rings at once ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", ["f4", "f8"])
@pytest.mark.parametrize("weighted", [False, True])
def test_rings_are_those_of_the_twin(dtype: str, weighted: bool, lets_others_run: Any) -> None:
    rng = np.random.default_rng(1)
    frame = rng.normal(5, 1, 3000).astype(dtype)
    frame[rng.random(3000) < 0.05] = np.nan
    frame[rng.random(3000) < 0.03] = 60
    index = np.sort(rng.integers(0, 11, 3000))
    index[index == 4] = 5  # an empty ring
    start = np.searchsorted(index, np.arange(12)).astype(np.int64)
    order, weight = rng.permutation(3000).astype(np.int32), rng.uniform(0.5, 1, 3000).astype("f4")
    given = weight if weighted else np.empty(0, "f4")
    out, norm, n, keep = np.empty(11), np.empty(11), np.empty(11, np.int64), np.zeros(3000, bool)
    whole = np.ones(3000) if not weighted else weight.astype(float)
    for b in range(11):
        part = order[start[b] : start[b + 1]]
        medians(frame, start, order, given, np.empty(3000), out, n)
        expected = rings_twin.median(frame[part].astype(float), whole[part])
        np.testing.assert_allclose((out[b], n[b]), expected, rtol=1e-6)
        for most in (1, 5):
            clipped_means(frame, start, order, given, 3.0, most, out, n, norm, keep)
            expected = rings_twin.clipped_mean(frame[part].astype(float), whole[part], 3.0, most)
            np.testing.assert_allclose((out[b], n[b]), expected)
    long = np.array([0, 3000])
    assert lets_others_run(lambda: medians(frame, long, order, given, np.empty(3000), out, n))
    assert lets_others_run(lambda: clipped_means(frame, long, order, given, 3.0, 5, out, n, norm, keep))


def test_medians_and_sums_of_rings(placed: xr.DataArray) -> None:
    q, edges = pixel(placed, "q"), np.linspace(0.1, 0.4, 12)
    middle, total = (placed.chunk(event=3).sd.azint(edges, statistic=s).compute() for s in ("median", "sum"))
    clipped = placed.sd.azint(edges, clip=3.0)
    for e, b in ((0, 3), (3, 5), (5, 6)):
        values = placed.values[e][(q >= edges[b]) & (q < edges[b + 1])].astype(float)
        good = values[np.isfinite(values)]
        np.testing.assert_allclose(middle["intensity"][e, b], np.median(good))
        np.testing.assert_allclose(total["intensity"][e, b], good.sum())
        assert int(middle["n_valid"][e, b]) == int(total["n_valid"][e, b]) == good.size
        if good.size:
            assert float(clipped["intensity"][e, b]) <= good.mean()
    both = xs.with_variance(placed, xr.full_like(placed, 0.25))
    spread = both.sd.azint(edges, statistic="sum")
    np.testing.assert_allclose(spread["intensity_variance"], (0.25 * total["n_valid"]).where(total["n_valid"] > 0))
    with pytest.raises(ParameterError, match="no propagated variance"):
        both.sd.azint(edges, clip=3.0)


# ---- quantities, widths, corrections ----------------------------------------------------------------------------


def test_any_number_of_the_pixels_makes_bins(placed: xr.DataArray) -> None:
    own = (placed.sd.pixel("x") * 1e3 + 20).rename("energy").assign_attrs(units="keV")
    out = placed.isel(row=slice(5, 30)).sd.azint(bins=15, quantity=own)
    edges = np.append(out["energy_bounds"].values[:, 0], out["energy_bounds"].values[-1, 1])
    for e in (0, 3):
        values = placed.values[e, :, 5:30]
        counts = np.histogram(own.values[:, 5:30][np.isfinite(values)], edges)[0]
        np.testing.assert_array_equal(out["n_valid"][e], counts)
    shifted = placed.sd.azint(bins=np.linspace(-3e-3, 2e-3, 8), quantity="x")
    same = placed.sd.azint(bins=np.linspace(-3e-3, 2e-3, 8), quantity=placed.sd.pixel("x").rename("place"))
    np.testing.assert_array_equal(shifted["intensity"], same["intensity"])
    assert out["energy"].attrs["units"] == "keV"
    around = placed.sd.azint(bins=np.linspace(-180, 180, 13), quantity="azimuth")
    sectors = placed.sd.azint(bins=[0, 1e9], quantity="radius", azimuth_bins=12)
    np.testing.assert_array_equal(around["n_valid"], sectors["n_valid"].isel(radius=0))


def test_bins_by_width_are_multiples_of_it(placed: xr.DataArray) -> None:
    for options in ({}, {"range": (0.1, 0.3)}):
        out = placed.sd.azint(width=0.02, **options)
        bounds = out["q_bounds"].values
        np.testing.assert_allclose(bounds / 0.02, np.rint(bounds / 0.02), atol=1e-9)
        np.testing.assert_allclose(bounds[:, 1] - bounds[:, 0], 0.02)
    assert bounds[0, 0] == pytest.approx(0.1)
    assert bounds[-1, 1] == pytest.approx(0.3)
    everything = placed.sd.azint(width=0.02)["n_valid"].sum("q")
    np.testing.assert_array_equal(everything, np.isfinite(placed.values).sum(axis=(1, 2, 3)))


def test_a_flat_field_comes_out_flat(placed: xr.DataArray) -> None:
    rng = np.random.default_rng(0)
    flat = placed.isel(event=0, drop=True).copy(data=rng.uniform(0.3, 1.2, placed.shape[1:]))
    window = np.exp(-0.3 / np.cos(np.radians(pixel(placed, "two_theta"))))
    flat.values[0, 3, 4:9], flat.values[1, 2, 2] = 0, np.nan
    seen = placed.copy(data=np.broadcast_to(7 * flat.fillna(1).values * window, placed.shape).astype("f4"))
    for options in ({}, {"split": "full"}, {"statistic": "median"}, {"clip": 5.0}):
        out = seen.sd.azint(bins=20, efficiency=[flat, window], **options)
        np.testing.assert_allclose(out["intensity"].values[np.isfinite(out["intensity"])], 7, rtol=1e-5)
        np.testing.assert_allclose(out["n_valid"].sum("q"), placed[0].size - 6, rtol=1e-6)
    cut = seen.isel(row=slice(4, 20)).sd.azint(bins=20, efficiency=flat)
    assert np.isfinite(cut["intensity"]).any()


def test_thresholds_and_masks_of_events(placed: xr.DataArray) -> None:
    use = xr.DataArray(
        np.random.default_rng(1).random(placed.shape) < 0.6, dims=placed.dims, coords={"event": placed.event}
    )
    edges = np.linspace(0.1, 0.4, 12)
    for options in ({}, {"split": "box"}, {"azimuth_bins": 3}):
        found = placed.chunk(event=2).sd.azint(edges, mask=use.chunk(event=3), **options).compute()
        xr.testing.assert_allclose(found, placed.where(use).sd.azint(edges, **options), rtol=1e-9)
    cut = placed.where(placed <= 9.5)
    expected = cut.where((cut >= 2) | cut.isnull(), 0).sd.azint(edges)
    xr.testing.assert_allclose(placed.sd.azint(edges, threshold=(2.0, 9.5)), expected, rtol=1e-6)


def test_a_region_before_it_is_a_mask(placed: xr.DataArray) -> None:
    region = xs.Box(segment=1, row=(3, 30), column=(10, 60))
    mask = np.zeros(placed.shape[1:], bool)
    mask[1, 3:30, 10:60] = True
    edges = np.linspace(0, 5e-3, 9)
    for options in ({}, {"split": "box"}, {"statistic": "median"}):
        found = placed.sd.apply(xs.roi(region) | xs.azint(edges, quantity="radius", **options))
        expected = placed.sd.azint(edges, quantity="radius", mask=mask, **options)
        xr.testing.assert_equal(found, expected)
    assert (found["n_valid"].sum("radius") <= 27 * 50).all()


def test_intensities_are_divided_by_what_is_joined(placed: xr.DataArray, computing_is_forbidden: Any) -> None:
    i0 = xr.DataArray([2.0, np.nan, 0.0, -1.0, 4.0, 5.0], dims="event", attrs={"units": "mJ"},
                      coords={"event": placed.event[[6, 1, 2, 3, 4, 5]]})  # fmt: skip
    both = xs.with_variance(placed, xr.full_like(placed, 0.25))
    plain = both.sd.azint(bins=9)
    with computing_is_forbidden():
        lazy = both.chunk(event=2).sd.azint(bins=9, i0=i0)
    out = lazy.compute()
    assert np.isnan(out["intensity"][:4]).all()
    for e, value in ((4, 4.0), (5, 5.0), (6, 2.0)):
        np.testing.assert_allclose(out["intensity"][e], plain["intensity"][e] / value)
        np.testing.assert_allclose(out["intensity_variance"][e], plain["intensity_variance"][e] / value**2)
    np.testing.assert_array_equal(out["n_valid"], plain["n_valid"])
    assert out["intensity"].attrs["units"] == "keV (mJ)-1"
    assert out["intensity_variance"].attrs["units"] == "(keV)2 (mJ)-2"
    assert both.sd.azint(bins=9, i0=i0.assign_attrs(units="1"))["intensity"].attrs["units"] == "keV"
    small = both.sd.reduce({"a": xs.azint(bins=9, i0=i0, mask=placed > 0.3, threshold=0.5), "r": xs.projection("row")})
    assert np.isfinite(small["a_intensity"][5]).any()


def test_an_event_without_energy_is_flagged(placed: xr.DataArray) -> None:
    energy = 9500 + 10.0 * np.arange(7)
    energy[3] = np.nan
    out = placed.assign_coords(photon_energy=("event", energy, {"units": "eV"})).sd.azint(bins=[0.1, 0.2, 0.3])
    assert out["without_energy"].values.tolist() == [False, False, False, True, False, False, False]
    with pytest.raises(ParameterError, match="a q of its own"):
        placed.assign_coords(photon_energy=("event", energy, {"units": "eV"})).sd.azint(bins=9, split="full")


# ---- two detectors ----------------------------------------------------------------------------------------------


def test_detectors_are_merged_on_one_axis(placed: xr.DataArray) -> None:
    edges = np.linspace(0.05, 0.45, 30)
    both = xs.with_variance(placed, xr.full_like(placed, 0.25))
    options = {"bins": edges, "solid_angle": True, "norm": True}
    halves = [both.isel(segment=[0]).sd.azint(**options), both.isel(segment=[1], event=slice(1, 7)).sd.azint(**options)]
    out = xs.merge_azint(*halves)
    whole = both.sd.azint(**options).isel(event=slice(1, 7))
    assert out.attrs["n_events_left_out"] == 1
    for name in ("intensity", "intensity_variance", "norm", "n_valid"):
        np.testing.assert_allclose(out[name], whole[name], rtol=1e-6, atol=1e-9, err_msg=name)
    heavy = xs.merge_azint(*halves, weights=[1.0, 1e9])
    second = halves[1]["intensity"]
    np.testing.assert_allclose(heavy["intensity"].where(second.notnull()), second, rtol=1e-6)
    lazy = xs.merge_azint(*(h.chunk(event=2) for h in halves))
    xr.testing.assert_allclose(lazy.compute(), out)


def test_what_cannot_be_merged_is_refused(placed: xr.DataArray) -> None:
    a, b = placed.sd.azint([0.1, 0.2, 0.3]), placed.sd.azint([0.1, 0.2, 0.4])
    with pytest.raises(DataError, match="other bins"):
        xs.merge_azint(a, b)
    with pytest.raises(DataError, match="no event in common"):
        xs.merge_azint(a, a.assign_coords(event=a.event + np.timedelta64(1, "h")))
    with pytest.raises(DataError, match="not an azimuthal"):
        xs.merge_azint(a, placed.sd.roi(xs.Box(segment=0)))
    with pytest.raises(DataError, match="other dims"):
        xs.merge_azint(a, placed.sd.azint([0.1, 0.2, 0.3], azimuth_bins=2))
    for weights in ([1.0], [1.0, 0.0]):
        with pytest.raises(ParameterError, match="a weight for each"):
            xs.merge_azint(a, a, weights=weights)


@pytest.mark.parametrize(
    "arguments",
    [
        {"split": "half"},
        {"split": "full", "quantity": "azimuth"},
        {"statistic": "max"},
        {"statistic": "sum", "solid_angle": True},
        {"statistic": "median", "clip": 3.0},
        {"statistic": "median", "split": "box"},
        {"statistic": "median", "norm": True},
        {"clip": -1},
        {"width": 0},
        {"width": 0.1, "bins": [1.0, 2.0]},
        {"efficiency": np.ones((3, 4))},
        {"i0": 3.0},
        {"quantity": xr.DataArray(np.ones((2, 40, 70)), dims=PIXELS)},
    ],
)
def test_options_that_do_not_go_together_are_refused(arguments: dict[str, Any]) -> None:
    with pytest.raises(ParameterError):
        xs.azint(**arguments)


def test_scattering_shares_lets_others_run(lets_others_run: Any) -> None:
    frames, start = np.ones((4, 100_000), "f4"), np.arange(100_001)
    bins, share, sums = np.zeros(100_000, np.int32), np.ones(100_000, "f4"), np.zeros((3, 4, 2))
    table = start, bins, share, arrange_shares(start, bins, share, 2)
    assert lets_others_run(lambda: scatter_shares(frames, *table, np.empty(0, "f4"), False, *sums))


def test_tables_of_split_pixels_are_those_of_other_runs_too(placed: xr.DataArray) -> None:
    frames = describe(placed)
    tables = [BinTable(AzintBins(bins=7, split="box"), replace(frames, runs=(run,), units="ADU")) for run in (1, 2)]
    for kept in (shares_of, shared_strips_of):
        assert kept(tables[0]) is kept(tables[1])


def shares_of_pixels(rng: np.random.Generator, pixels: int, width: float, n: int) -> tuple[Any, ...]:
    """Shares of pixels that lie behind each other along the bins, some of them nowhere; bins as wide as given."""
    low = np.cumsum(rng.uniform(0, 2 / width, pixels)) % (n - 1)
    reach = rng.uniform(0.01, 0.9, pixels) / min(width, 1.0)
    start, bins, share = [0], list[int](), list[float]()
    for a, b in zip(low, low + reach, strict=True):
        if rng.random() > 0.1:
            inside = np.arange(int(a), min(int(b), n - 1) + 1)
            parts = np.minimum(inside + 1, b) - np.maximum(inside, a)
            bins, share = bins + inside.tolist(), share + (parts / (b - a)).tolist()
        start.append(len(bins))
    return np.array(start), np.array(bins, np.int32), np.array(share, "f4")


@pytest.mark.parametrize("width", [0.4, 2.0, 6.0, 40.0])
@pytest.mark.parametrize("squared", [False, True])
def test_shares_are_scattered_as_by_numpy_and_each_event_as_alone(*, width: float, squared: bool) -> None:
    rng = np.random.default_rng(int(width) + squared)
    pixels, n, events = 1403, 30, 9
    start, bins, share = shares_of_pixels(rng, pixels, width, n)
    frames = rng.normal(10, 3, (events, pixels)).astype("f4")
    frames[5, rng.random(pixels) < 0.05], frames[6, 7], frames[2, 300:310] = np.nan, np.inf, -np.inf
    weight = rng.random(pixels).astype("f4")
    strips = arrange_shares(start, bins, share, n)
    together, alone = np.zeros((3, events, n)), np.zeros((3, events, n))
    scatter_shares(frames, start, bins, share, strips, weight, squared, *together)
    for e in range(events):
        some = slice(e, e + 1)
        scatter_shares(frames[some], start, bins, share, strips, weight, squared, *alone[:, some])
    np.testing.assert_array_equal(together, alone)
    pixel, finite = np.repeat(np.arange(pixels), np.diff(start)), np.isfinite(frames)
    share64 = share.astype("f8")
    part = share64 ** (2 if squared else 1)
    for e in range(events):
        good = finite[e, pixel]
        terms = part * np.where(good, frames[e, pixel], 0), share64 * ~good, share64 * ~good * weight[pixel]
        for found, each in zip(together[:, e], terms, strict=True):
            np.testing.assert_allclose(found, np.bincount(bins, each, n), rtol=1e-12, atol=1e-12)


def test_every_kind_of_strip_of_shares_is_found() -> None:
    rng = np.random.default_rng(8)
    tables = [shares_of_pixels(rng, 1403, width, 30) for width in (0.4, 2.0, 6.0, 40.0)]
    found = [arrange_shares(*table, 30) for table in tables]
    for kind in ("wide", "narrow", "pair", "more"):
        assert sum(getattr(strips, kind).size for strips in found) > 3, kind
    for (start, bins, _), strips in zip(tables, found, strict=True):
        each = [np.unique(bins[start[i] : start[i + 4]]).size for i in range(0, 1400, 4)]
        assert strips.more.size == sum(n > 2 for n in each)
        assert 2 * strips.wide.size + strips.narrow.size + strips.pair.size == sum(0 < n <= 2 for n in each)


def test_an_unknown_splitting_names_the_one_that_is_meant() -> None:
    for given, meant in (("bbox", "box"), ("ful", "full"), ("pixel", "full")):
        with pytest.raises(ParameterError, match=f'do this:  split="{meant}"'):
            xs.azint(bins=10, split=given)
    with pytest.raises(ParameterError, match=r'do this:  split="no", or quantity="q"'):
        xs.azint(bins=10, quantity="azimuth", split="full")


@pytest.mark.parametrize("split", ["no", "box"])
def test_a_part_of_wide_pixels_is_corrected_as_the_whole_is(split: str) -> None:
    columns = PixelAxis(length=8, asics=2, joins=(3.0,), wide=2.0)
    panel = xs.Panel(
        origin=(1e-3, 1e-3, 0.1), slow=(0, 1e-4, 0), fast=(1e-4, 0, 0), shape=(6, columns.size), columns=columns
    )
    values = np.random.default_rng(0).gamma(3, 1, (2, 1, 6, columns.size))
    frames = xr.DataArray(values, dims=("event", *PIXELS), attrs={"units": "keV"})
    placed = frames.sd.assign_geometry(xs.Geometry.from_panels([panel])).sd.assign_beam(distance=0.1)
    mask = np.zeros(frames.shape[1:], bool)
    mask[..., 7:9] = True
    options = {"bins": np.linspace(1.9e-3, 2.9e-3, 4), "quantity": "radius", "solid_angle": True, "split": split}
    whole, part = placed.sd.azint(mask=mask, **options), placed.isel(column=[7, 8]).sd.azint(**options)
    assert whole["n_valid"].sum() > 20
    xr.testing.assert_allclose(part["intensity"].drop_attrs(), whole["intensity"].drop_attrs())
