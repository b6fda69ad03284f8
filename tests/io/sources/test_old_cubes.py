"""Cubes of smalldata_tools, both generations."""

from pathlib import Path

import h5py
import numpy as np
import pytest
import xarray as xr

import xsmall as xs


def lcls1(path: Path) -> Path:
    with h5py.File(path, "w") as file:
        file["binVar_bins"] = np.array([-1.0, 0.0, 1.0])
        file["nEntries"] = np.array([4, 0, 2])
        file["binVar"] = np.array([-2.0, 0.0, 3.0])
        file["ipm2__sum"] = np.array([8.0, 0.0, 3.0])
        file["jungfrau1M_data"] = np.arange(3.0)[:, None, None, None] * np.ones((3, 2, 4, 5))
        file["jungfrau1M_nEntries"] = np.array([3, 0, 2])
        file["jungfrau1M_azav"] = np.ones((3, 7))
        file["jungfrau1M_cfg/ped"] = np.ones((2, 4, 5))
        file["cubeSelection"] = np.array([b"ipm2/sum 0.1 5"])
        file["odd"] = np.ones(17)
    return path


def test_lcls1_sums_counts_and_means_of_images(tmp_path: Path) -> None:
    tree = xs.open_cube(lcls1(tmp_path / "Cube_xpp_Run0007_delay.h5"))
    cube = tree.to_dataset()
    assert cube.bin.values.tolist() == [-1, 0, 1]
    assert cube["count"].values.tolist() == [4, 0, 2]
    np.testing.assert_array_equal(cube.bin_mean, [-0.5, np.nan, 1.5])
    np.testing.assert_array_equal(cube.ipm2__sum_sum / cube["count"], [2, np.nan, 1.5])
    np.testing.assert_array_equal(cube.jungfrau1M[:, 0, 0, 0], [0, np.nan, 1])
    assert cube.jungfrau1M_count.values.tolist() == [3, 0, 2]
    assert cube.jungfrau1M_azav.shape == (3, 7)
    assert tree["config/jungfrau1M/ped"].shape == (2, 4, 5)
    assert cube.attrs["selection"] == "ipm2/sum 0.1 5"
    assert "odd" in cube.attrs["left_out"]


def test_lcls1_of_two_variables(tmp_path: Path) -> None:
    path = tmp_path / "Cube_b.h5"
    with h5py.File(path, "w") as file:
        file["nEntries"], file["i0"], file["std_i0"] = np.ones((2, 3)), np.ones((2, 3)), np.zeros((2, 3))
        file["bins_delay"], file["bins_power"] = [0.5, 1.5, 2.5], [1.0, 2.0]
    cube = xs.open_cube(path).to_dataset()
    assert cube["count"].dims == ("power", "delay")
    assert cube.delay.values.tolist() == [0.5, 1.5, 2.5]
    assert cube.i0_std.shape == (2, 3)
    with h5py.File(path, "w") as file:
        file["nEntries"] = np.ones((2, 2))
        file["bins_delay"], file["bins_power"] = [0.5, 1.5], [1.0, 2.0]
    same = xs.open_cube(path).to_dataset()
    assert same["count"].dims == ("bin_0", "bin_1")  # equal sizes: which is which is not guessed
    assert "bins_delay or bins_power" in same.attrs["left_out"]


def test_lcls2_steps_in_order_and_rows_that_do_not_line_up(tmp_path: Path) -> None:
    path = tmp_path / "cube_rix_r0007.h5"
    with h5py.File(path, "w") as file:
        file["step_value"], file["motor"] = np.array([[2.0], [0.0], [1.0]]), np.array([[20.0], [0.0], [10.0]])
        file["laser_on/epix/ROI_sum"], file["laser_on/epix/count"] = np.array([2.0, 0, 1]), np.array([[5], [3], [4]])
        file["laser_off/epix/ROI_sum"], file["laser_off/epix/count"] = np.ones(2), np.ones((2, 1))
    tree = xs.open_cube(path)
    assert tree["motor"].values.tolist() == [0, 10, 20]
    on = tree["laser_on"].to_dataset()
    assert on.step_value.values.tolist() == [0, 1, 2]
    assert on.epix_ROI_sum_sum.values.tolist() == [0, 1, 2]
    assert on.epix_count.values.tolist() == [3, 4, 5]
    off = tree["laser_off"].to_dataset(inherit=False)
    assert off.epix_ROI_sum_sum.dims == ("row_of_label",)
    assert "does not say" in off.attrs["rows"]


def test_what_is_no_cube_is_refused(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file["x"] = np.ones(3)
    with pytest.raises(xs.XsmallError, match="no cube of smalldata_tools"):
        xs.open_cube(tmp_path / "a.h5")
    ours = xs.save(xr.Dataset({"x": ("event", [1.0])}), tmp_path / "ours.zarr")
    with pytest.raises(xs.XsmallError, match=r"xs\.open_result"):
        xs.open_cube(ours)
    with pytest.raises(xs.XsmallError, match="no such file"):
        xs.open_cube(tmp_path / "b.h5")


def test_large_images_are_lazy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = lcls1(tmp_path / "Cube_a.h5")
    held = xs.open_cube(path).to_dataset()
    monkeypatch.setattr("xsmall.io.sources.old_cubes._LAZY", 100)
    lazy = xs.open_cube(path).to_dataset()
    assert lazy.jungfrau1M.chunks is not None
    xr.testing.assert_identical(lazy.compute(), held)
