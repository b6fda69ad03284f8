"""The demo finds the truth it was simulated from, within its own error bars, and leaves files that xarray opens."""

from pathlib import Path

import numpy as np
import pytest
import xarray as xr

from xsmall.demo import Findings, run_demo
from xsmall.errors import DataError


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("demo")


@pytest.fixture(scope="module")
def found(folder: Path) -> Findings:
    return run_demo(folder, events=1200, seed=3, shape=(4, 96, 192), progress=False)


def test_rings_are_found_within_their_error_bars(found: Findings) -> None:
    pulls = [ring.pull("q", found.truth[f"ring {i + 1}: q [1/angstrom]"]) for i, ring in enumerate(found.rings)]
    assert len(pulls) == 4
    assert np.abs(pulls).max() < 3.0
    assert all(ring.errors["q"] < 1e-3 for ring in found.rings)
    for ring in found.rings:
        assert ring.chi2 < ring.freedom + 4 * np.sqrt(2 * ring.freedom)


def test_the_delay_curve_is_found_within_its_error_bars(found: Findings) -> None:
    curve = found.delay_curve
    for name in ("t0", "rise", "decay"):
        assert abs(abs(curve.values[name]) - found.truth[f"delay curve: {name} [ps]"]) < 3.0 * curve.errors[name]
    assert curve.errors["t0"] < 0.05
    assert curve.errors["decay"] < 0.3
    assert curve.chi2 < curve.freedom + 4 * np.sqrt(2 * curve.freedom)


def test_droplets_peak_at_the_photon_energy_less_what_the_threshold_takes(found: Findings) -> None:
    assert found.line.values["energy"] == pytest.approx(found.truth["line [keV]"], rel=0.025)


def test_plain_xarray_opens_what_was_written_and_both_cubes_are_equal(found: Findings, folder: Path) -> None:
    small = xr.open_zarr(folder / "small.zarr")
    assert small.sizes["event"] == 1200
    assert {"waxs_intensity", "spot_sum", "line_n_droplets", "columns_projection"} <= set(small)
    cube = xr.open_zarr(folder / "cube.zarr").load()
    with xr.open_dataset(folder / "cube.h5") as other:
        for name in ("pattern", "pattern_stderr", "jungfrau", "jungfrau_std", "count"):
            np.testing.assert_array_equal(cube[name], other[name])
    assert cube["jungfrau"].dims == ("delay", "laser_on", "segment", "row", "column")
    assert cube["pattern"].dims == ("delay", "laser_on", "q")


def test_the_average_of_the_cube_is_the_average_of_its_events(found: Findings, folder: Path) -> None:
    small = xr.open_zarr(folder / "small.zarr").load()
    cube = xr.open_zarr(folder / "cube.zarr").load()
    low, high = cube["delay_bounds"].values[12]
    chosen = (small["delay"] >= low) & (small["delay"] < high) & small["laser_on"] & small["xray_on"]
    values = small["spot_sum"].isel(event=np.flatnonzero(chosen.values))
    here = cube.isel(delay=12).sel(laser_on=True)
    assert int(here["count"]) == values.sizes["event"] > 5
    np.testing.assert_allclose(here["spot_sum"], values.mean("event"))
    np.testing.assert_allclose(here["spot_sum_stderr"], values.std("event", ddof=1) / values.sizes["event"] ** 0.5)


def test_figures_are_drawn(found: Findings, folder: Path) -> None:
    figures = sorted(path.name for path in (folder / "figures").iterdir())
    assert figures == ["average_image.png", "difference.png", "droplets.png", "overview.png"]
    assert all((folder / "figures" / name).stat().st_size > 20_000 for name in figures)


def test_too_few_events_for_a_fit_are_an_error_and_not_a_number(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="120 at least"):
        run_demo(tmp_path / "demo", events=20, shape=(2, 16, 32), figures=False, progress=False)
    assert not (tmp_path / "demo").exists()
