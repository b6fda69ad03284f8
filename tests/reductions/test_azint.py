"""``azint``: truth from NumPy and pyFAI, bins, corrections, errors."""

from dataclasses import replace

import numpy as np
import pytest
import xarray as xr

import xsmall as xs
from xsmall.errors import GeometryError, ParameterError, XsmallError
from xsmall.frames.describe import describe
from xsmall.frames.variance import paired
from xsmall.kernels.reference.azint import azint as twin

PIXEL = 75e-6


def pixel(placed: xr.DataArray, name: str) -> np.ndarray:
    return np.asarray(placed.sd.pixel(name).values, dtype=float)


@pytest.mark.parametrize("quantity", ["q", "two_theta", "radius"])
def test_means_are_those_of_the_twin(placed: xr.DataArray, quantity: str) -> None:
    out = placed.sd.azint(bins=23, quantity=quantity)
    edges = np.append(out[f"{quantity}_bounds"].values[:, 0], out[f"{quantity}_bounds"].values[-1, 1])
    values = pixel(placed, quantity)
    assert edges[0] == values.min()
    for event in range(placed.sizes["event"]):
        intensity, n_valid = twin(placed.values[event], values, edges)
        np.testing.assert_array_equal(out["n_valid"][event], n_valid)
        np.testing.assert_allclose(out["intensity"][event], intensity, rtol=1e-12)
    finite = np.isfinite(placed.values).sum(axis=(1, 2, 3))
    np.testing.assert_array_equal(out["n_valid"].sum(quantity), finite)  # the largest value is in the last bin
    np.testing.assert_allclose(out[quantity], edges[:-1] + np.diff(edges) / 2)


def test_sectors_share_the_pixels_out(placed: xr.DataArray) -> None:
    edges = np.linspace(*(f(pixel(placed, "q")) for f in (np.min, np.max)), 8)
    whole = placed.sd.azint(bins=edges)
    out = placed.sd.azint(bins=edges, azimuth_bins=[-30, 60, 150, 330])
    assert out["intensity"].dims == ("event", "azimuth", "q")
    xr.testing.assert_equal(out["n_valid"].sum("azimuth").astype("i4"), whole["n_valid"])
    total = (out["intensity"].fillna(0) * out["n_valid"]).sum("azimuth")
    np.testing.assert_allclose(total, (whole["intensity"] * whole["n_valid"]).fillna(0), rtol=1e-12)
    azimuth, q = np.mod(pixel(placed, "azimuth"), 360), pixel(placed, "q")
    sector = (azimuth >= 150) & (azimuth < 330)
    intensity, n_valid = twin(np.where(sector, placed.values[0], np.nan), q, edges)
    np.testing.assert_allclose(out["intensity"][0, 2], intensity, rtol=1e-12)
    np.testing.assert_array_equal(out["n_valid"][0, 2], n_valid)


def test_corrections_divide_by_the_efficiency_of_the_valid_pixels(placed: xr.DataArray) -> None:
    edges = np.linspace(0.1, 0.4, 6)
    out = placed.sd.azint(bins=edges, solid_angle=True, polarization_plane=0, polarization_fraction=0.9)
    efficiency = np.cos(np.radians(pixel(placed, "two_theta"))) ** 3
    efficiency *= np.asarray(placed.sd.pixel("polarization", plane=0, fraction=0.9).values)
    for event in range(placed.sizes["event"]):
        expected, _ = twin(placed.values[event], pixel(placed, "q"), edges, efficiency)
        np.testing.assert_allclose(out["intensity"][event], expected, rtol=2e-7)


def test_a_flat_signal_behind_its_efficiency_comes_out_flat(placed: xr.DataArray) -> None:
    efficiency = np.cos(np.radians(pixel(placed, "two_theta"))) ** 3
    flat = placed.copy(data=np.broadcast_to(7 * efficiency, placed.shape).astype("f4"))
    out = flat.sd.azint(bins=10, solid_angle=True)["intensity"]
    np.testing.assert_allclose(out.values[np.isfinite(out)], 7, rtol=1e-6)


def test_slices_and_masks_find_their_pixels_by_label(placed: xr.DataArray) -> None:
    edges = np.linspace(0.05, 0.4, 9)
    mask = np.zeros(placed.shape[1:], bool)
    mask[1, 4:30, 5:60:2] = True
    by_mask = placed.sd.azint(bins=edges, mask=mask)
    by_slice = placed.isel(segment=[1], row=slice(4, 30), column=slice(5, 60, 2)).sd.azint(bins=edges)
    np.testing.assert_array_equal(by_mask["n_valid"], by_slice["n_valid"])
    np.testing.assert_allclose(by_mask["intensity"], by_slice["intensity"], rtol=1e-12)


def test_variances_are_propagated(placed: xr.DataArray) -> None:
    both = paired(xr.Dataset({"cal": placed, "cal_variance": xr.full_like(placed, 0.25)}))
    out = both.sd.azint(bins=10)
    n = out["n_valid"].where(out["n_valid"] > 0)
    np.testing.assert_allclose(out["intensity_variance"], 0.25 / n, rtol=1e-12)


def test_results_do_not_depend_on_chunks_bit_for_bit(placed: xr.DataArray, computing_is_forbidden) -> None:  # type: ignore[no-untyped-def]
    whole = placed.sd.azint(bins=30, azimuth_bins=3)
    for chunks in (1, 2, 3, 5):
        with computing_is_forbidden():
            lazy = placed.chunk(event=chunks).sd.azint(bins=30, azimuth_bins=3)
        xr.testing.assert_identical(lazy.compute(), whole)


@pytest.mark.parametrize(("bins", "together"), [(30, 64), (3000, 20), (100_000, 4)])
def test_an_event_is_what_it_is_alone_however_many_go_together(placed: xr.DataArray, bins: int, together: int) -> None:
    record = xs.azint(bins=bins, solid_angle=True)
    known = describe(placed)
    assert record.reducer(known).most_together == together  # sums of many bins must not fill the memory
    assert record.reducer(replace(known, variance=True)).most_together == 4  # nor copies of variances
    values = np.random.default_rng(0).normal(5, 3, (70, *placed.shape[1:])).astype("f4")
    values[values > 13] = np.nan
    many = placed[np.arange(70) % len(placed)].assign_coords(event=np.arange(70)).copy(data=values)
    both = paired(xr.Dataset({"cal": many, "cal_variance": abs(many)}))
    for frames in (many, both):
        whole = xs.apply(frames, record)
        for j in (0, 3, 4, 21, 63, 64, 69):
            xr.testing.assert_identical(xs.apply(frames.isel(event=[j]), record), whole.isel(event=[j]))


def test_one_event_zero_events_and_empty_bins_are_well_defined(placed: xr.DataArray) -> None:
    assert placed[:0].sd.azint(bins=5)["intensity"].shape == (0, 5)
    out = placed[:1].sd.azint(bins=[0, 0.1, 0.2, 50, 100])
    assert np.isnan(out["intensity"][0, 3])
    assert out["n_valid"][0, 3] == 0


def test_what_is_missing_is_named(frames: xr.DataArray, geometry: xs.Geometry) -> None:
    with pytest.raises(GeometryError, match="assign_geometry"):
        frames.sd.azint()
    with pytest.raises(XsmallError, match="distance"):
        frames.sd.assign_geometry(geometry).sd.azint()
    with pytest.raises(XsmallError, match="photon_energy"):
        frames.sd.assign_geometry(geometry).sd.assign_beam(distance=0.1).sd.azint()


@pytest.mark.parametrize(
    "arguments",
    [
        {"bins": [1.0, 1.0, 2.0]},
        {"bins": [3.0, 2.0]},
        {"bins": [1.0]},
        {"bins": 0},
        {"bins": "many"},
        {"bins": True},
        {"bins": 10**9},
        {"quantity": "d"},
        {"range": (2.0, 1.0)},
        {"bins": [0.0, 1.0], "range": (0.0, 1.0)},
        {"azimuth_bins": [0, 400]},
        {"polarization_plane": 0},
        {"polarization_plane": 0, "polarization_fraction": 2},
        {"mask": np.ones((2, 40, 70), int)},
    ],
)
def test_invalid_arguments_are_refused(arguments: dict) -> None:
    with pytest.raises(ParameterError):
        xs.azint(**arguments)


def test_bins_that_cover_nothing_are_refused(placed: xr.DataArray) -> None:
    with pytest.raises(ParameterError, match="cover no pixel"):
        placed.sd.azint(bins=[50.0, 60.0])
    with pytest.raises(ParameterError, match="no pixel"):
        placed.sd.azint(mask=np.zeros(placed.shape[1:], bool))
    with pytest.raises(ParameterError, match="too many bins"):
        placed.sd.azint(width=1e-9)
    with pytest.raises(ParameterError, match="all are masked"):
        placed.sd.azint(bins=[0.0, 9.0], mask=np.zeros(placed.shape[1:], bool))


@pytest.mark.validation
@pytest.mark.parametrize(("solid_angle", "polarization"), [(False, None), (True, None), (True, 0.8)])
def test_integrals_equal_those_of_pyfai_where_both_count_the_same_pixels(
    solid_angle: bool, polarization: float | None
) -> None:
    pytest.importorskip("pyFAI", reason="pyFAI is not installed: python -m pip install 'xsmall[pyfai]'")
    from pyFAI.detectors import Detector
    from pyFAI.integrator.azimuthal import AzimuthalIntegrator

    from xsmall.detector.geometry.geometry import Panel

    rows, columns, energy = 300, 400, 9500.0
    geometry = xs.Geometry.from_panels(
        [
            Panel(
                origin=((-0.5 - 120) * PIXEL, (0.5 - 90 + 150 * s) * PIXEL, 0.07),
                slow=(0, PIXEL, 0),
                fast=(PIXEL, 0, 0),
                shape=(150, columns),
            )
            for s in range(2)
        ]
    )
    origin = geometry.positions()[0, 0, 0]
    values = np.random.default_rng(3).gamma(2, 3, (1, 2, 150, columns)).astype("f4")
    det = xr.DataArray(values, dims=("event", "segment", "row", "column"))
    det = det.sd.assign_geometry(geometry).sd.assign_beam(photon_energy=energy, distance=0.07)
    integrator = AzimuthalIntegrator(
        dist=0.07,
        poni1=-origin[1] + PIXEL / 2,
        poni2=-origin[0] + PIXEL / 2,
        detector=Detector(PIXEL, PIXEL, max_shape=(rows, columns)),
        wavelength=12398.419843320026 / energy * 1e-10,
    )
    q = np.asarray(det.sd.pixel("q").values)
    limits = float(q.min()), float(q.max())
    theirs = integrator.integrate1d(
        values[0].reshape(rows, columns),
        200,
        unit="q_A^-1",
        radial_range=limits,
        correctSolidAngle=solid_angle,
        polarization_factor=polarization,
        method=("no", "histogram", "python"),
    )
    fraction = None if polarization is None else (1 + polarization) / 2
    ours = det.sd.azint(
        bins=200,
        range=limits,
        solid_angle=solid_angle,
        polarization_plane=None if polarization is None else 0,
        polarization_fraction=fraction,
    ).isel(event=0)
    same = theirs.count == ours["n_valid"].values
    assert same.mean() > 0.9
    np.testing.assert_allclose(ours["intensity"].values[same], theirs.intensity[same], rtol=1e-6)
    assert np.abs(theirs.count - ours["n_valid"].values).max() <= 4  # pixels on an edge within rounding
    np.testing.assert_allclose(ours["q"], theirs.radial, rtol=1e-6)
