"""``anisotropy``: known amplitudes come back, with errors that are right."""

from typing import Any

import numpy as np
import pytest
import xarray as xr
from numpy.polynomial import legendre

import xsmall as xs
from xsmall.errors import ParameterError
from xsmall.kernels.anisotropy import fit_sums, outer_sums
from xsmall.kernels.reference.anisotropy import fit

AXIS = 37.0
EDGES = np.linspace(0.15, 1.2, 8)


@pytest.fixture(scope="module")
def ring() -> xr.DataArray:
    """Six noisy frames of a detector around the beam, 5 cm away: S0 = 10, S2 = -3, S4 = 0.7."""
    panel = xs.Panel(origin=(9e-3, 9.1e-3, 0.05), slow=(0, -1.5e-4, 0), fast=(-1.5e-4, 0, 0), shape=(120, 120))
    det = xr.DataArray(np.zeros((6, 1, 120, 120)), dims=("event", "segment", "row", "column"))
    det = det.sd.assign_geometry(xs.Geometry.from_panels([panel])).sd.assign_beam(photon_energy=9500, distance=0.05)
    half, azimuth = (det.sd.pixel(n).values for n in ("two_theta", "azimuth"))
    cos = np.cos(np.radians(half) / 2) * np.cos(np.radians(azimuth - AXIS))
    signal = 10 + 0.7 * legendre.legval(cos, [0, 0, 0, 0, 1])
    signal = signal - 3 * legendre.legval(cos, [0, 0, 1])
    noise = np.random.default_rng(0).normal(0, 0.5, det.shape)
    noise[0] = 0
    values = signal + noise
    values[1:, 0, ::7, ::3] = np.nan
    return det.copy(data=values).rename("cal")


def test_known_amplitudes_come_back(ring: xr.DataArray) -> None:
    out = ring.sd.anisotropy(AXIS, EDGES)
    assert out["anisotropy"].dims == ("event", "order", "q")
    np.testing.assert_allclose(out["anisotropy"][0], np.broadcast_to([[10], [-3], [0.7]], (3, 7)), rtol=1e-9)
    assert float(out["anisotropy_stderr"][0].max()) < 1e-6
    pull = (out["anisotropy"][1:] - np.array([10, -3, 0.7])[None, :, None]) / out["anisotropy_stderr"][1:]
    assert abs(float(pull.mean())) < 0.3
    assert 0.75 < float(pull.std()) < 1.25
    fewer = ring.sd.anisotropy(AXIS, EDGES, orders=(0, 2))
    assert fewer["order"].values.tolist() == [0, 2]
    mean = ring.sd.anisotropy(AXIS, EDGES, orders=(0,))["anisotropy"].isel(order=0)
    np.testing.assert_allclose(mean, ring.sd.azint(EDGES)["intensity"], rtol=1e-9)


def test_amplitudes_and_errors_are_those_of_numpy(ring: xr.DataArray) -> None:
    flat = np.random.default_rng(1).uniform(0.5, 1, ring.shape[1:])
    q, half, azimuth = (ring.sd.pixel(n).values for n in ("q", "two_theta", "azimuth"))
    cos2 = (np.cos(np.radians(half) / 2) * np.cos(np.radians(azimuth - AXIS))) ** 2
    out = ring.sd.anisotropy(AXIS, EDGES, efficiency=flat)
    for event, b in ((1, 0), (2, 3), (5, 6)):
        inside = (q >= EDGES[b]) & (q < EDGES[b + 1])
        weight = flat[inside].astype("f4").astype(float)
        found, error = fit(ring.values[event][inside], weight, cos2[inside], (0, 2, 4))
        np.testing.assert_allclose(out["anisotropy"][event, :, b], found, rtol=1e-8)
        np.testing.assert_allclose(out["anisotropy_stderr"][event, :, b], error, rtol=1e-7)
        assert int(out["n_valid"][event, b]) == np.isfinite(ring.values[event][inside]).sum()


def test_variances_are_propagated_and_chunks_do_not_matter(ring: xr.DataArray, computing_is_forbidden: Any) -> None:
    both = xs.with_variance(ring, xr.full_like(ring, 0.25))
    out = both.sd.anisotropy(AXIS, EDGES)
    ratio = out["anisotropy_variance"][1:] / out["anisotropy_stderr"][1:] ** 2
    np.testing.assert_allclose(ratio, 1, atol=0.2)
    with computing_is_forbidden():
        lazy = both.chunk(event=4).sd.anisotropy(AXIS, EDGES, mask=np.ones(ring.shape[1:], bool))
    xr.testing.assert_equal(lazy.compute(), both.sd.anisotropy(AXIS, EDGES, mask=np.ones(ring.shape[1:], bool)))
    i0 = xr.DataArray(np.full(6, 2.0), dims="event", coords={"event": np.arange(6)})
    labelled = ring.assign_coords(event=np.arange(6))
    half = xs.with_variance(labelled, xr.full_like(labelled, 0.25)).sd.anisotropy(AXIS, EDGES, i0=i0)
    np.testing.assert_allclose(half["anisotropy"], out["anisotropy"] / 2)
    np.testing.assert_allclose(half["anisotropy_stderr"], out["anisotropy_stderr"] / 2)


def test_a_ring_that_tells_nothing_is_nan(ring: xr.DataArray) -> None:
    few = ring.copy()
    few.values[2, 0] = np.nan
    few.values[2, 0, 60, 100:103] = 1.0
    azimuth = np.abs(ring.sd.pixel("azimuth").values - AXIS) < 0.02
    out = few.sd.anisotropy(AXIS, EDGES)
    assert np.isnan(out["anisotropy"][2]).all()
    assert int(out["n_valid"][2].sum()) == 3
    assert azimuth.sum() < 200


def test_what_makes_no_sense_is_refused(ring: xr.DataArray) -> None:
    for arguments in ({"axis": "x"}, {"axis": 400}, {"axis": 0, "orders": (0, 4)}, {"axis": 0, "orders": 2},
                      {"axis": 0, "polarization_plane": 0.0}, {"axis": 0, "quantity": "d"}):  # fmt: skip
        with pytest.raises(ParameterError):
            xs.anisotropy(**arguments)
    varying = ring.assign_coords(photon_energy=("event", 9500.0 + np.arange(6), {"units": "eV"}))
    with pytest.raises(ParameterError, match="one photon energy"):
        varying.sd.anisotropy(0)


def test_the_kernels_let_others_run(lets_others_run: Any) -> None:
    frame, index, one = np.ones(100_000, "f4"), np.zeros(100_000, np.uint16), np.ones(100_000)
    out = np.zeros((2, 6))
    assert lets_others_run(lambda: outer_sums(frame, one, index, one, out))
    sums = np.zeros((2, 3)), out, np.zeros(2), np.zeros(2, np.int64)
    assert lets_others_run(lambda: fit_sums(frame, index, one, one, *sums))
