"""Small data of smalldata_tools and psana: both generations, and every trap that their files have."""

from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import xarray as xr

import xsmall as xs
from xsmall.errors import DataError, FileFormatError, ParameterError
from xsmall.events.ragged import is_ragged

N = 6
SECONDS = 1_700_000_000 + np.arange(N)
TIMES = SECONDS.astype("M8[s]").astype("M8[ns]") + np.timedelta64(5, "ns")


def lcls1(path: Path, **more: Any) -> Path:
    """A file as PyTables leaves it for LCLS-I."""
    with h5py.File(path, "w") as file:
        file["event_time"] = SECONDS << 32 | 5
        file["fiducials"] = np.arange(N) * 3
        file["lightStatus/xray"] = np.ones(N, int)
        file["lightStatus/laser"] = np.arange(N) % 2
        file["ipm2/sum"] = np.arange(1.0, N + 1)
        file["ipm2/channels"] = np.ones((N, 4), "f4")
        file["scan/lxt_ttc"] = np.array([0, 0, 1e-12, 1e-12, 2e-12, 2e-12])
        file["evr/code_137"] = np.array([1, 0, -99999, 0, 1, 0])
        file["jungfrau1M/azav_azav"] = np.ones((N, 1, 7))
        file["jungfrau1M/ROI_0_sum"] = np.array([1, np.nan, -99999, 4, 5, 6], "f4")
        file["UserDataCfg/jungfrau1M/azav__azav_q"] = np.linspace(0.1, 1, 7)
        file["UserDataCfg/jungfrau1M/ped"] = np.ones((3, 2, 4, 5))
        file["Sums/jungfrau1M_calib"] = np.ones((2, 4, 5))
        file["epicsOnce/lxt"] = np.array([3.0])
        ragged = file.create_dataset("jungfrau1M/ragged_photons", (N,), h5py.vlen_dtype("f4"))
        for k in range(N):
            ragged[k] = np.arange(k, dtype="f4")
        for name, data in more.items():
            if name.replace("__", "/") in file:
                del file[name.replace("__", "/")]
            file[name.replace("__", "/")] = data
    return path


def part(path: Path, times: Any, **datasets: Any) -> Path:
    with h5py.File(path, "w") as file:
        file["timestamp"] = (np.asarray(times) - 631_152_000) << 32 | 5
        for name, data in datasets.items():
            file[name.replace("__", "/")] = data
    return path


def test_lcls1_becomes_labelled_small_data(tmp_path: Path) -> None:
    tree = xs.open_smalldata(lcls1(tmp_path / "xpp_Run0042.h5"))
    small = tree["events"].to_dataset()
    np.testing.assert_array_equal(small["event"], TIMES)
    np.testing.assert_array_equal(small["fiducial"], np.arange(N) * 3)
    assert set(small["run"].values) == {42}
    np.testing.assert_array_equal(small["laser_on"], np.arange(N) % 2 == 1)
    assert small["xray_on"].dtype == bool
    np.testing.assert_array_equal(small["evr_code_137"], [1, 0, np.nan, 0, 1, 0])
    np.testing.assert_array_equal(small["jungfrau1M_ROI_0_sum"], [1, np.nan, np.nan, 4, 5, 6])
    assert small["jungfrau1M_ROI_0_sum"].dtype == np.float32
    assert small["ipm2_channels"].dims == ("event", "ipm2_channels_0")
    np.testing.assert_allclose(small["jungfrau1M_azav_q"], np.linspace(0.1, 1, 7))
    assert small["jungfrau1M_azav_q"].attrs["units"] == "angstrom-1"
    assert is_ragged(small["jungfrau1M_ragged_photons"])
    assert [len(x) for x in small["jungfrau1M_ragged_photons"].values] == list(range(N))
    assert tree["sums/jungfrau1M_calib"].shape == (2, 4, 5)
    assert tree["config/jungfrau1M/ped"].shape == (3, 2, 4, 5)
    assert tree["once/lxt"].item() == 3
    cube = small.sd.cube({"laser_on": xs.categories()})
    assert cube["jungfrau1M_ROI_0_sum_count"].values.tolist() == [2, 2]


def test_zeros_of_a_first_step_are_kept_and_told(tmp_path: Path) -> None:
    path = lcls1(tmp_path / "a.h5", epics__pmon=np.array([0, 0, 0, 3.5, 3.6, 3.7]), evr__code_40=[0, 0, 1, 1, 1, 1])
    small = xs.open_smalldata(path)["events"].to_dataset()
    assert small["scan_lxt_ttc"].values[0] == 0
    assert small["scan_lxt_ttc"].attrs["zeros_at_start"] == 2
    assert small["epics_pmon"].attrs["zeros_at_start"] == 3
    assert "zeros_at_start" not in small["lightStatus_laser"].attrs  # 0 again later
    late = xs.open_smalldata(path, late=["epics_pmon", "evr_code_40"])["events"].to_dataset()
    np.testing.assert_array_equal(late["epics_pmon"], [np.nan] * 3 + [3.5, 3.6, 3.7])
    np.testing.assert_array_equal(late["evr_code_40"], [np.nan] * 2 + [1] * 4)
    with pytest.raises(ParameterError, match="epics_pnom"):
        xs.open_smalldata(path, late=["epics_pnom"])


def test_integers_that_cannot_say_what_is_missing_say_so(tmp_path: Path) -> None:
    path = lcls1(
        tmp_path / "a.h5",
        a__u4=np.array([1, 2**32 - 99999, 3, 4, 5, 6], "u4"),
        a__big=np.array([2**60, -99999, 3, 4, 5, 6]),
        a__u1=np.array([97] * N, "u1"),
        a__i2=np.array([1, -1, 3, 4, 5, 6], "i2"),
    )
    small = xs.open_smalldata(path)["events"].to_dataset()
    assert "1 values are 4294867297" in small["a_u4"].attrs["perhaps_missing"]
    assert small["a_big"].values[0] == 2**60
    assert small["a_big"].attrs["missing_value"] == -99999
    assert small["a_u1"].dtype == np.uint8
    assert small["a_i2"].dtype == np.int16


def test_light_that_is_not_known_for_every_event_makes_no_laser_on(tmp_path: Path) -> None:
    path = lcls1(tmp_path / "a.h5", lightStatus__laser=np.array([0, 1, -99999, 1, 0, 1]))
    small = xs.open_smalldata(path)["events"].to_dataset()
    assert "laser_on" not in small
    assert np.isnan(small["lightStatus_laser"].values[2])
    assert "xray_on" in small


def lcls2(folder: Path) -> Path:
    """A master over two parts: the second lacks the lists and the slow detector, and is filled up for that."""
    part(
        folder / "tmo_Run0003_part0.h5", SECONDS[:3], ipm__x=[1.0, 2.0, 3.0], d__var_p_len=[2, 0, 1],
        d__var_p__tile=[1, 2, 3], intg__timestamp=(SECONDS[:2] - 631_152_000) << 32, intg__andor__sum=[7.0, 8.0],
    )  # fmt: skip
    part(
        folder / "tmo_Run0003_part1.h5", SECONDS[3:], ipm__x=[4.0, 5.0, np.nan], d__var_p_len=[-99999] * 3,
        d__var_p__tile=[-99999] * 3,
    )  # fmt: skip
    master = folder / "tmo_Run0003.h5"
    with h5py.File(master, "w", libver="latest") as file:
        for name, sizes, dtype in (
            ("timestamp", (3, 3), "i8"), ("ipm/x", (3, 3), "f8"), ("d/var_p_len", (3, 3), "i8"),
            ("d/var_p/tile", (3, 3), "i8"), ("intg/timestamp", (2, 0), "i8"), ("intg/andor/sum", (2, 0), "f8"),
        ):  # fmt: skip
            layout = h5py.VirtualLayout((sum(sizes),), dtype)
            at = 0
            for k, n in enumerate(sizes):
                if n:
                    layout[at : at + n] = h5py.VirtualSource(f"tmo_Run0003_part{k}.h5", name, (n,))
                    at += n
            file.create_virtual_dataset(name, layout)
    return master


def test_lcls2_follows_its_parts(tmp_path: Path) -> None:
    tree = xs.open_smalldata(lcls2(tmp_path))
    small = tree["events"].to_dataset()
    np.testing.assert_array_equal(small["event"], TIMES)
    np.testing.assert_array_equal(small["ipm_x"], [1, 2, 3, 4, 5, np.nan])
    assert [x.tolist() for x in small["d_p_tile"].values] == [[1, 2], [], [3], [], [], []]
    np.testing.assert_array_equal(tree["intg/andor_sum"], [7, 8])
    assert tree["intg"].sizes["event"] == 2


def test_a_part_that_is_not_there_is_named(tmp_path: Path) -> None:
    master = lcls2(tmp_path)
    (tmp_path / "tmo_Run0003_part1.h5").unlink()
    with pytest.raises(FileFormatError, match=r"(?s)parts of this file are not there.*part1\.h5"):
        xs.open_smalldata(master)


def test_lists_that_nothing_explains_and_odd_lengths_are_left_out(tmp_path: Path) -> None:
    path = part(
        tmp_path / "a.h5", SECONDS, d__var_p_len=[1, 1, 0, 0, 0, 0], d__var_p__tile=np.arange(5), x__short=[1.0, 2.0],
        x__scalar=3.0, x__good=np.arange(N),
    )  # fmt: skip
    small = xs.open_smalldata(path)["events"].to_dataset()
    assert set(small.data_vars) == {"x_good"}
    for text in ("d_p_tile: 5", "x_short: 2 values for 6 events", "x_scalar: one values"):
        assert text in small.attrs["left_out"]


def test_a_summary_of_psana_stands_beside_the_events(tmp_path: Path) -> None:
    path = part(tmp_path / "psana_Run0005.h5", SECONDS, x=np.arange(N), total=5, mean=[1.0, 2.0, 3.0])
    tree = xs.open_smalldata(path)
    assert "left_out" not in tree["events"].attrs
    for again in (tree, xs.open_smalldata(xs.to_smalldata(tree, tmp_path / "again_Run0005.h5"))):
        assert set(again["events"].data_vars) == {"x"}
        assert again["summary/total"].item() == 5
        np.testing.assert_array_equal(again["summary/mean"], [1, 2, 3])


def test_several_runs_are_events_behind_each_other(tmp_path: Path) -> None:
    lcls1(tmp_path / "xpp_Run0001.h5")
    lcls1(tmp_path / "xpp_Run0002.h5", event_time=(SECONDS + 1000) << 32, only__here=np.arange(N))
    tree = xs.open_smalldata(str(tmp_path / "xpp_Run*.h5"))
    small = tree["events"].to_dataset()
    assert small.sizes["event"] == 2 * N
    assert small["run"].values.tolist() == [1] * N + [2] * N
    assert "only_here: not alike in all files" in small.attrs["left_out"]
    np.testing.assert_array_equal(small["ipm2_sum"].values, np.tile(np.arange(1.0, N + 1), 2))
    assert tree["sums/jungfrau1M_calib"].shape == (2, 4, 5)  # the same in both runs
    with pytest.raises(DataError, match="events of the same time"):
        xs.open_smalldata([tmp_path / "xpp_Run0001.h5", lcls1(tmp_path / "copy_of_Run0001.h5")])


def test_large_arrays_stay_lazy_with_their_missing_values(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from xsmall.io.sources import smalldata

    monkeypatch.setattr(smalldata, "_LAZY", 100)
    image = np.arange(N * 20, dtype="f4").reshape(N, 4, 5)
    image[2] = -99999
    counts = np.arange(N * 20, dtype="i4").reshape(N, 4, 5)
    counts[1, 0, 0] = -99999
    small = xs.open_smalldata(lcls1(tmp_path / "a.h5", d__image=image, d__counts=counts))["events"].to_dataset()
    assert small["d_image"].chunks is not None
    np.testing.assert_array_equal(small["d_image"], np.where(image == -99999, np.nan, image))
    np.testing.assert_array_equal(small["d_counts"], np.where(counts == -99999, np.nan, counts))


def test_other_files_are_refused_with_their_path(tmp_path: Path) -> None:
    path = tmp_path / "a.h5"
    xr.Dataset({"a": ("x", [1.0])}).to_netcdf(path)
    with pytest.raises(FileFormatError, match=r"(?s)a\.h5.*no small data.*event_time"):
        xs.open_smalldata(path)
    with pytest.raises(FileFormatError, match=r"(?s)times of events that are none.*event 2"):
        xs.open_smalldata(lcls1(tmp_path / "b.h5", event_time=np.where(np.arange(N) == 2, 0, SECONDS << 32)))


def test_what_was_opened_is_saved_and_opened_again(tmp_path: Path) -> None:
    small = xs.open_smalldata(lcls1(tmp_path / "xpp_Run0042.h5"))["events"].to_dataset()
    saved = xs.save(xs.flatten(small), tmp_path / "again.h5")
    again = xs.lists(xr.open_dataset(saved))
    assert [len(x) for x in again["jungfrau1M_ragged_photons"].values] == list(range(N))
    np.testing.assert_array_equal(again["event"], small["event"])
    np.testing.assert_array_equal(again["evr_code_137"], small["evr_code_137"])


def test_a_time_tool_that_found_no_edge_is_nan_and_damage_says_what_it_means(tmp_path: Path) -> None:
    path = lcls1(
        tmp_path / "a.h5", tt__FLTPOS=[300.0, 0, 310, 0, 290, np.nan], tt__FLTPOS_PS=[0.1, 0, 0.0, 0, -0.1, 0.3],
        tt__AMPL=[0.2, 0, 0.3, 0.01, 0.2, 0.1], damage__jungfrau1M=[1, 1, 0, 1, 1, 1],
    )  # fmt: skip
    small = xs.open_smalldata(path)["events"].to_dataset()
    np.testing.assert_array_equal(small["tt_position"], [0.1, np.nan, 0.0, np.nan, -0.1, np.nan])
    np.testing.assert_array_equal(small["tt_amplitude"], [0.2, np.nan, 0.3, np.nan, 0.2, np.nan])
    assert small["tt_position"].attrs["units"] == "ps"
    assert "1 where the detector was there" in small["damage_jungfrau1M"].attrs["long_name"]
    without = lcls1(tmp_path / "b.h5", lightStatus__xray=-np.ones(N, int))
    assert "xray_on" not in xs.open_smalldata(without)["events"]
