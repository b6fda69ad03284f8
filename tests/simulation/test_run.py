"""The simulated run: deterministic, lazy, and what its truth says."""

import pickle
from collections.abc import Callable
from pathlib import Path

import dask
import numpy as np
import pytest
import xarray as xr

import xsmall as xs
from xsmall.errors import ParameterError
from xsmall.frames.pixels import assign_geometry
from xsmall.simulation.frames import SimulatedFrames
from xsmall.vocabulary import Reason

SMALL = {"shape": (3, 32, 64), "seed": 4}


@pytest.fixture(scope="module")
def simulation() -> xs.simulation.Simulation:  # type: ignore[name-defined]
    return xs.simulate(60, **SMALL, missing=0.05)


@pytest.fixture(scope="module")
def raw(simulation) -> xr.DataArray:
    return simulation.run["jungfrau"]["raw"].compute()


def _energy(simulation, raw: xr.DataArray) -> np.ndarray:
    """Calibrate the slow and obvious way: keV, NaN for bad codes and bad pixels."""
    constants = simulation.constants
    words = raw.values
    stage = np.array([0, 1, 0, 2])[words >> 14]
    pedestal, gain = (np.choose(stage, list(constants[name].values[:, None])) for name in ("pedestal", "gain"))
    energy = ((words & 0x3FFF) - pedestal) / gain
    bad = (words >> 14 == 2) | (simulation.truth["reasons"].values != 0)
    return np.where(bad | ~raw["present"].values[..., None, None], np.nan, energy)


def test_the_run_has_the_nodes_and_labels_of_a_run(simulation) -> None:
    run = simulation.run
    raw = run["jungfrau"]["raw"]
    assert raw.dims == ("event", "segment", "row", "column")
    assert raw.dtype == np.uint16
    assert raw.attrs["detector_type"] == "jungfrau"
    assert "event" in raw.xindexes
    assert raw["present"].dims == ("event", "segment")
    assert np.all(np.diff(raw["event"].values) > np.timedelta64(0, "ns"))
    events = run["events"].to_dataset()
    assert {"i0", "laser_on", "xray_on", "delay", "tt_position", "tt_amplitude", "tt_fwhm", "step"} <= set(events)
    xr.testing.assert_equal(events["delay"].drop_vars("event"), raw["delay"].reset_coords(drop=True).drop_vars("event"))


def test_nothing_is_computed_before_it_is_asked_for(no_compute) -> None:
    simulation = xs.simulate(1000)
    assert simulation.run["jungfrau"]["raw"].chunks is not None
    assert simulation.truth.sizes["event"] == 1000
    assert simulation.constants.sizes["gain_stage"] == 3


def test_a_million_events_of_a_whole_detector_are_a_small_graph() -> None:
    simulation = xs.simulate(1_000_000, shape=(8, 512, 1024), chunks=1000)
    lazy = simulation.run["jungfrau"]["raw"].data
    assert lazy.nbytes > 8e12
    assert len(dict(lazy.__dask_graph__())) < 2100
    assert len(pickle.dumps(lazy)) < 1e6


@pytest.mark.parametrize("chunks", [1, 7, 60])
def test_frames_do_not_depend_on_chunks(raw: xr.DataArray, chunks: int) -> None:
    other = xs.simulate(60, **SMALL, missing=0.05, chunks=chunks).run["jungfrau"]["raw"]
    np.testing.assert_array_equal(other.values, raw.values)


def test_any_part_of_the_run_equals_that_part_of_the_whole(simulation, raw: xr.DataArray) -> None:
    lazy = simulation.run["jungfrau"]["raw"]
    keys = [
        np.s_[5],
        np.s_[5, 1],
        np.s_[-1, :, 3],
        np.s_[10:20:3, 2, 5:9],
        np.s_[[3, 50, 7], :2],
        np.s_[:, 1, :, 8],
        np.s_[..., 2],
        np.s_[59:10],
    ]
    for key in keys:
        np.testing.assert_array_equal(lazy[key].values, raw.values[key])
        np.testing.assert_array_equal(SimulatedFrames(simulation.recipe)[key], raw.values[key])


def test_a_slice_makes_only_its_own_frames(monkeypatch: pytest.MonkeyPatch, simulation) -> None:
    made = []
    from xsmall.simulation import frames as module

    original = module.frames
    monkeypatch.setattr(module, "frames", lambda r, e, s: made.append((e.size, s.size)) or original(r, e, s))
    with dask.config.set(scheduler="synchronous"):
        simulation.run["jungfrau"]["raw"][10:13, 1].compute()
    assert made == [(3, 1)]


def test_the_same_seed_gives_the_same_run_and_another_seed_another_one(raw: xr.DataArray) -> None:
    again = xs.simulate(60, **SMALL, missing=0.05).run["jungfrau"]["raw"]
    np.testing.assert_array_equal(again.values, raw.values)
    other = xs.simulate(60, shape=SMALL["shape"], seed=5).run["jungfrau"]["raw"]
    assert np.mean(other.values != raw.values) > 0.9


def test_a_missing_segment_is_zero_and_said_to_be_missing(raw: xr.DataArray) -> None:
    present = raw["present"].values
    assert 0 < np.count_nonzero(~present) < present.size // 4
    assert not raw.values[~present].any()
    assert (raw.values[present].max(axis=(-1, -2)) > 0).all()


def test_dark_pixels_have_the_noise_and_the_pedestal_of_the_constants() -> None:
    simulation = xs.simulate(400, shape=(1, 16, 16), xray_off_every=1, missing=0.0, seed=2)
    values = _energy(simulation, simulation.run["jungfrau"]["raw"].compute())
    constants = simulation.constants.isel(gain_stage=0, segment=0)
    noise = (constants["noise"] / constants["gain"]).values
    good = simulation.truth["reasons"].values[0] == 0
    deviation = values[:, 0][:, good] / noise[good]
    n = deviation.size
    assert abs(np.nanmean(deviation)) < 5 / np.sqrt(n)
    assert np.nanvar(deviation) == pytest.approx(1.0, abs=5 * np.sqrt(2 / n) + 1 / 12 / 81)


def test_all_gain_stages_occur_and_the_mean_is_the_true_profile() -> None:
    simulation = xs.simulate(150, shape=(4, 64, 128), xray_off_every=0, laser_off_every=1, missing=0.0, seed=3)
    raw = simulation.run["jungfrau"]["raw"].compute()
    shares = [np.mean(raw.values >> 14 == code) for code in range(4)]
    assert all(share > 1e-5 for share in shares)
    assert shares[1] > 1e-3
    energy = _energy(simulation, raw) / simulation.truth["i0"].values[:, None, None, None]
    energy[:, simulation.truth["reasons"].values != 0] = 0.0
    mean = np.nanmean(energy, axis=0)
    error = np.nanstd(energy, axis=0) / np.sqrt(150)
    tables_mean = simulation._tables.mean.reshape(mean.shape) * simulation.recipe.photon_energy * 1e-3
    flat = simulation.recipe.line_density * simulation.recipe.line_energy * 1e-3
    inside = (mean > 5) & (tables_mean > 5)
    pull = (mean - tables_mean - flat)[inside] / error[inside]
    assert abs(pull.mean()) < 5 / np.sqrt(pull.size)
    assert pull.std() == pytest.approx(1.0, abs=0.1)


def test_the_pattern_of_a_pixel_is_that_of_its_own_q_in_the_geometry() -> None:
    simulation = xs.simulate(2, shape=(4, 64, 128))
    recipe = simulation.recipe
    x, y, z = np.moveaxis(simulation.geometry.positions(), -1, 0)
    assert x.shape == recipe.shape
    theta = 0.5 * np.arctan2(np.hypot(x, y), z)
    q = 4 * np.pi / (12398.419843320026 / recipe.photon_energy) * np.sin(theta)
    table = simulation._tables.mean.reshape(recipe.shape) * recipe.photon_energy * 1e-3
    flat = recipe.line_density * recipe.line_energy * 1e-3
    without_spots = np.abs(q - 1.04) > 0.25
    np.testing.assert_allclose(
        table[without_spots], (simulation.profile(q) - flat)[without_spots], rtol=2e-6, atol=1e-6
    )
    assert simulation.beam.distance == pytest.approx(float(z.mean()))


def test_single_photons_stand_at_the_listed_places() -> None:
    simulation = xs.simulate(30, shape=(2, 64, 64), line_density=0.002, missing=0.0, xray_off_every=0, seed=9)
    raw = simulation.run["jungfrau"]["raw"].compute()
    energy = np.nan_to_num(_energy(simulation, raw))
    dark = simulation._tables.mean.reshape(simulation.recipe.shape) == 0
    found = []
    for event in range(30):
        photons = simulation.photons(event)
        for s, row, column in zip(*(photons[n].values for n in ("segment", "row", "column")), strict=True):
            window = np.s_[s, int(row) - 1 : int(row) + 2, int(column) - 1 : int(column) + 2]
            if 1 <= row < 63 and 1 <= column < 63 and dark[window].all():
                found.append(energy[event][window].sum())
    assert len(found) > 100
    assert np.median(found) == pytest.approx(6.4, abs=0.2)
    assert int(simulation.truth["n_photons"].sel(segment=1)[7]) == np.count_nonzero(
        simulation.photons(7)["segment"] == 1
    )


def test_bad_pixels_show_what_the_truth_says(simulation, raw: xr.DataArray) -> None:
    simulation = xs.simulate(20, shape=(4, 128, 128), missing=0.0)
    words = simulation.run["jungfrau"]["raw"].values
    reasons = simulation.truth["reasons"].values
    assert not words[:, reasons == Reason.DEAD].any()
    assert (words[:, reasons == Reason.BAD_GAIN_CODE] >> 14 == 2).all()
    assert (words[:, reasons == Reason.HOT] & 0x3FFF).mean() > 6000
    transient = (words >> 14 == 2) & (reasons == 0)
    assert 0 < transient.sum() < 20
    status = simulation.constants["status"]
    assert (status.values.astype(bool) == (reasons != 0)).all()


def test_delays_follow_the_scan_and_the_time_tool() -> None:
    for scan in ("step", "fly"):
        steps = {"n_steps": 10} if scan == "step" else {}
        simulation = xs.simulate(3000, shape=(1, 8, 8), scan=scan, **steps)
        events, truth = simulation.run["events"].to_dataset(), simulation.truth
        on = (events["laser_on"] & events["xray_on"]).values
        error = (events["delay"] - truth["delay"]).values[on]
        lost = np.isnan(error)
        assert 0.015 < lost.mean() < 0.05
        assert np.nanstd(error) == pytest.approx(0.02, rel=0.1)
        off = ~events["laser_on"].values
        np.testing.assert_array_equal(events["delay"].values[off], events["scan_laser_delay"].values[off])
        assert np.isnan(events["tt_position"].values[off]).all()
        assert truth["response"].values[off].max() == 0
        steps = np.unique(events["scan_laser_delay"].values.round(9))
        assert steps.size == (10 if scan == "step" else 1500)
        assert np.unique(events["step"]).size == (10 if scan == "step" else 1)
        jitter = truth["delay"].values - events["scan_laser_delay"].values
        assert jitter.std() == pytest.approx(0.1, rel=0.1)


def test_pulse_energies_jitter_around_one_and_are_measured() -> None:
    simulation = xs.simulate(5000, shape=(1, 8, 8))
    events, truth = simulation.run["events"].to_dataset(), simulation.truth
    on = events["xray_on"].values
    assert on.mean() == pytest.approx(0.98)
    assert truth["i0"].values[on].mean() == pytest.approx(1.0, abs=0.01)
    assert truth["i0"].values[on].std() == pytest.approx(0.12, rel=0.1)
    assert not truth["i0"].values[~on].any()
    assert np.std(events["i0"].values[on] / truth["i0"].values[on]) == pytest.approx(0.0023, rel=0.15)


def test_no_event_and_one_event_are_runs() -> None:
    for n in (0, 1):
        raw = xs.simulate(n, shape=(1, 8, 8)).run["jungfrau"]["raw"]
        assert raw.compute().shape == (n, 1, 8, 8)


def test_a_simulation_is_small_when_pickled(simulation) -> None:
    fresh = xs.simulate(10_000)
    again = pickle.loads(pickle.dumps(fresh))
    assert len(pickle.dumps(fresh)) < 5000
    np.testing.assert_array_equal(again.truth["delay"], fresh.truth["delay"])


def test_geometry_fits_the_frames(simulation) -> None:
    raw = simulation.run["jungfrau"]["raw"]
    assert "geometry" in assign_geometry(raw, simulation.geometry).coords


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        ({"n_events": -1}, "n_events"),
        ({"n_events": 2.5}, "n_events"),
        ({"shape": (0, 8, 8)}, "shape"),
        ({"shape": (8, 8)}, "segments, rows, columns"),
        ({"scan": "flight"}, "step"),
        ({"delay_range": (5, -2)}, "delay_range"),
        ({"photon_energy": 9.5}, "photon_energy=9500"),
        ({"missing": 2.0}, "missing"),
        ({"chunks": 0}, "chunks"),
    ],
)
def test_invalid_numbers_are_refused(wrong: dict, says: str) -> None:
    with pytest.raises(ParameterError, match=says):
        xs.simulate(**{"n_events": 10, **wrong})


def test_importing_the_package_does_not_load_the_simulation(tmp_path: Path) -> None:
    import subprocess
    import sys

    code = "import sys, xsmall; print([m for m in ('numba', 'xsmall.simulation') if m in sys.modules])"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=tmp_path, check=True)
    assert found.stdout.strip() == "[]"


def test_making_frames_releases_the_gil(lets_others_run: Callable[..., bool]) -> None:
    frames = SimulatedFrames(xs.simulate(8, shape=(1, 512, 1024)).recipe)
    assert lets_others_run(lambda: frames[:])


def test_status_says_what_a_pixel_suffers_from() -> None:
    sim = xs.simulate(1, shape=(2, 128, 256), seed=3)
    flags = xs.trust(sim.run["jungfrau"]["raw"], sim.constants).values[0]
    word = sim.constants["status"].values[0]
    for reason in (xs.Reason.DEAD, xs.Reason.HOT):
        assert (word & int(reason)).any()
        np.testing.assert_array_equal((flags & int(reason)) != 0, (word & int(reason)) != 0)
    assert not (flags & int(xs.Reason.NOISY)).any()
