"""Runs to learn with are what they say: their truth is found in them."""

import numpy as np
import pytest

import xsmall as xs
from xsmall.errors import ParameterError


def test_the_centre_of_the_powder_run_is_found_where_it_is() -> None:
    run = xs.tutorial.open_run("powder")
    cal = run["jungfrau"]["raw"].sd.calibrate(xs.tutorial.open_constants("powder"))
    assert np.hypot(float(cal.center_x), float(cal.center_y)) > 4e-4
    average = cal[:60].sd.average()["calibrated"].compute()
    fit = average.sd.fit_beam(rings="LaB6")
    assert fit.sure, fit
    assert np.allclose(fit.beam.center, (0, 0), atol=4 * max(fit.center_error) + 2e-6)
    assert fit.beam.distance == pytest.approx(float(cal.distance), abs=5 * fit.distance_error)


def test_the_photons_of_the_speckle_run_are_counted() -> None:
    cal = xs.tutorial.open_run("speckle")["epix"]["calibrated"][:40]
    behind = xs.tutorial.truth("speckle")["photons"][:40]
    found = xs.apply(cal, xs.droplet(threshold=4.0, threshold_low=1.2) | xs.photon(9.5)).compute()
    assert found["n_photons"].values.sum() == pytest.approx(int(behind.sum()), rel=0.02)
    values = behind.values.reshape(40, -1).astype(float)
    mean = values.mean()
    contrast = (values.var() - mean) / mean**2
    assert 0.3 < contrast < 0.8  # one over the number of modes, with the noise of few photons


def test_the_pump_probe_run_is_a_simulated_one() -> None:
    run = xs.tutorial.open_run("pump-probe")
    raw = run["jungfrau"]["raw"]
    assert raw.sizes["event"] == 1500
    assert {"geometry", "photon_energy", "delay", "laser_on"} <= set(raw.coords)
    assert "ring_q" in xs.tutorial.truth("pump-probe")


def test_another_name_is_told_what_there_is() -> None:
    with pytest.raises(ParameterError, match="'pump-probe' or 'powder' or 'speckle'"):
        xs.tutorial.open_run("rasm")  # type: ignore[arg-type]
    with pytest.raises(ParameterError, match="in keV"):
        xs.tutorial.open_constants("speckle")
