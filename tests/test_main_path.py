"""The way of the data, end to end: open, place, calibrate, reduce, bin, save, open again with plain xarray."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray as xr

import xsmall as xs

ALL_RECORDS = {
    "waxs": xs.azint(bins=40),
    "cake": xs.azint(bins=20, azimuth_bins=4),
    "spot": xs.roi({"a": xs.Box(segment=0, row=(4, 20), column=(8, 40))}),
    "drop": xs.droplet(threshold=4.0, threshold_low=2.0, max_droplets=1000),
    "rows": xs.projection("row"),
    "speckle": xs.autocorrelation(xs.Box(segment=0, row=(4, 20), column=(8, 40)), max_lag=(3, 3)),
}


def flat_constants(raw: xr.DataArray, n_stages: int, gain: float = 40.0) -> xr.Dataset:
    """Constants of a detector whose pixels are all alike: enough to send real frames down the path."""
    shape = (n_stages, *raw.shape[1:])
    dims = ("gain_stage", "segment", "row", "column")

    def full(value: float, dtype: str = "f4") -> tuple[tuple[str, ...], np.ndarray]:
        return dims, np.full(shape, value, dtype=dtype)

    return xr.Dataset(
        {
            "pedestal": full(2500.0),
            "noise": full(4.0),
            "gain": full(gain),
            "offset": full(0.0),
            "status": full(0, "u8"),
        },
        coords={d: raw[d].values for d in dims[1:]},
        attrs={"detector_type": raw.attrs["detector_type"]},
    )


@pytest.fixture(scope="module")
def sim() -> Any:
    return xs.simulate(60, shape=(2, 48, 96), seed=3)


@pytest.fixture
def cal(sim: Any) -> xr.DataArray:
    det = sim.run["jungfrau"]["raw"].sd.assign_geometry(sim.geometry)
    beam = det.sd.assign_beam(photon_energy=sim.beam.photon_energy, distance=sim.beam.distance)
    return beam.sd.calibrate(sim.constants)


def test_the_whole_way_stays_lazy_until_asked(sim: Any, computing_is_forbidden: Callable[[], Any]) -> None:
    with computing_is_forbidden():
        det = sim.run["jungfrau"]["raw"].sd.assign_geometry(sim.geometry)
        beam = det.sd.assign_beam(photon_energy=sim.beam.photon_energy, distance=sim.beam.distance)
        lazy = beam.sd.calibrate(sim.constants)
        small = lazy.sd.reduce(ALL_RECORDS)
        cube = small.sd.cube(
            {"delay": xs.bins(-2, 5, width=1.0), "laser_on": xs.categories([False, True])}, images={"jungfrau": lazy}
        )
    assert all(small[v].chunks is not None for v in small.data_vars)
    assert cube["jungfrau"].chunks is not None


@pytest.mark.parametrize("suffix", [".zarr", ".h5"])
def test_small_data_and_cubes_read_back_equal_with_plain_xarray(cal: xr.DataArray, tmp_path: Path, suffix: str) -> None:
    small = cal.sd.reduce(ALL_RECORDS).compute()
    cube = small.sd.cube(
        {"delay": xs.bins(-2, 5, width=1.0), "laser_on": xs.categories()}, images={"jungfrau": cal}
    ).compute()
    for name, result in (("small", small), ("cube", cube)):
        path = tmp_path / f"{name}{suffix}"
        xs.save(result, path)
        read = xr.open_zarr(path) if suffix == ".zarr" else xr.open_dataset(path)
        with read:
            xr.testing.assert_equal(read.compute(), result)
            assert "xsmall_provenance" in read.attrs


@pytest.mark.parametrize("suffix", [".zarr", ".h5"])
def test_a_run_on_disk_gives_the_same_small_data_as_the_run_it_was_written_from(
    sim: Any, cal: xr.DataArray, tmp_path: Path, suffix: str
) -> None:
    path = tmp_path / f"run{suffix}"
    xs.save(sim.run, path)
    raw = xs.open_run(path)["jungfrau"]["raw"].sd.assign_geometry(sim.geometry)
    det = raw.sd.assign_beam(photon_energy=sim.beam.photon_energy, distance=sim.beam.distance)
    found = det.sd.calibrate(sim.constants).sd.reduce(ALL_RECORDS).compute()
    expected = cal.sd.reduce(ALL_RECORDS).compute()
    for variable in expected.data_vars:
        np.testing.assert_array_equal(found[variable].values, expected[variable].values, err_msg=str(variable))


def test_slices_and_arithmetic_give_the_same_numbers_as_the_fused_pass(cal: xr.DataArray) -> None:
    fused = cal.sd.reduce(ALL_RECORDS).isel(event=slice(10, 30)).compute()
    as_floats = cal.isel(event=slice(10, 30)).sd.reduce(ALL_RECORDS).compute()
    in_memory = cal.isel(event=slice(10, 30)).compute().sd.reduce(ALL_RECORDS)
    for variable in fused.data_vars:
        np.testing.assert_array_equal(as_floats[variable], fused[variable], err_msg=str(variable))
        np.testing.assert_array_equal(in_memory[variable], fused[variable], err_msg=str(variable))


@pytest.mark.parametrize(
    ("file", "geometry", "detector", "n_stages"),
    [
        ("jungfrau05M_mfx101332224_run7", "jungfrau05M", "jungfrau", 3),
        ("epix10kaquad_ueddaq02_run109", "epix10kaquad", "epixquad", 7),
    ],
)
def test_real_frames_go_the_whole_way(
    shared: Path, tmp_path: Path, file: str, geometry: str, detector: str, n_stages: int
) -> None:
    run = xs.open_run(shared / "data" / "xtc2" / f"{file}.xtc2")
    raw = run[detector]["raw"]
    det = raw.sd.assign_geometry(
        xs.Geometry.from_psana(shared / "data" / "geometry" / f"geometry-def-{geometry}.data")
    ).sd.assign_beam(photon_energy=9500, distance=0.1)
    cal = det.sd.calibrate(flat_constants(raw, n_stages))
    small = cal.sd.reduce(
        {
            "waxs": xs.azint(bins=100),
            "corner": xs.roi(xs.Box(segment=0, row=(10, 60), column=(20, 90))),
            "rows": xs.projection("row"),
        }
    ).compute()
    box = cal.isel(segment=0, row=slice(10, 60), column=slice(20, 90)).compute()
    np.testing.assert_allclose(small["corner_sum"].values[:, 0], box.sum(("row", "column"), dtype="f8"), rtol=1e-9)
    assert (small["corner_n_valid"].values[:, 0] == np.isfinite(box).sum(("row", "column"))).all()
    valid = np.isfinite(cal.compute()).sum(("segment", "row", "column"))
    # the last bin is closed on the right where the range is that of the pixels: every valid pixel is counted once
    np.testing.assert_array_equal(small["waxs_n_valid"].sum("q"), valid)
    cube = small.sd.cube({"step": xs.categories()}, images={detector: cal})
    xs.save(cube, tmp_path / "cube.zarr")
    read = xr.open_zarr(tmp_path / "cube.zarr")
    assert int(read["count"].sum()) == raw.sizes["event"]
    np.testing.assert_allclose(
        read[detector].isel(step=0).values, cal.mean("event", dtype="f8").compute(), rtol=1e-6, equal_nan=True
    )
