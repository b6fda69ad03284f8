"""Small data in the layout of smalldata_tools: what is written is what its reader gives back."""

from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import xarray as xr

import xsmall as xs
from xsmall.events.ragged import object_array, ragged_attrs

N = 7


def small(lazy: bool = False) -> xr.Dataset:
    times = np.datetime64("2026-03-01T08:00:00.000000123", "ns") + np.arange(N) * 8_333_333
    lists = [np.arange(k, dtype="f4") for k in range(N)]
    data = xr.Dataset(
        {
            "i0": ("event", np.linspace(0, 1, N)),
            "roi_variance_sum": ("event", np.arange(N) / 3),  # smalldata_tools takes "var" in a name for a list
            "det_my_var": ("event", np.arange(N) / 7),
            "ipm2_sum": ("event", np.array([1, 2, np.nan, 4, 5, 6, 7])),
            "waxs_intensity": (("event", "q"), np.random.default_rng(1).random((N, 5))),
            "laser_on": ("event", np.arange(N) % 2 == 0),
            "scan_lxt": ("event", np.zeros(N)),
            "step": ("event", np.arange(N)),
            "step_value": ("event", np.arange(N) / 2),
            "n_hits": ("event", np.arange(N)),
            "det_photons_row": ("event", object_array(lists), ragged_attrs("det_photons", np.dtype("f4"))),
            "det_photons_column": ("event", object_array(lists), ragged_attrs("det_photons", np.dtype("f4"))),
            "a_b_c": ("event", object_array(lists[::-1]), ragged_attrs("a_b", np.dtype("f4"))),
            "a_b_d": ("event", object_array(lists), ragged_attrs("a_b2", np.dtype("f4"))),
        },
        coords={"event": times, "q": np.linspace(0.1, 1, 5)},
    )
    return data.chunk(event=3) if lazy else data


@pytest.mark.parametrize("generation", [1, 2])
@pytest.mark.parametrize("lazy", [False, True])
def test_it_comes_back_under_the_same_names(tmp_path: Path, generation: int, lazy: bool) -> None:
    mine = small()
    given = mine if not lazy else mine.assign(waxs_intensity=mine.waxs_intensity.chunk(event=3))
    path = xs.to_smalldata(given, tmp_path / "xpp_Run0007.h5", generation=generation)
    back = xs.open_smalldata(path)["events"].to_dataset()
    np.testing.assert_array_equal(back.event, mine.event)
    for name in mine.data_vars:
        if mine[name].dtype == object:
            for one, other in zip(back[name].values, mine[name].values, strict=True):
                np.testing.assert_array_equal(one, other)
        else:
            np.testing.assert_array_equal(back[name], mine[name])
    assert back.laser_on.dtype == bool
    with h5py.File(path) as file:
        assert {"ipm2/sum", "lightStatus/laser", "scan/lxt", "det/var_photons/row"} <= set(names(file))
        assert file["UserDataCfg/xsmall/q"].shape == (5,)


def names(file: Any) -> list[str]:
    found: list[str] = []
    file.visit(found.append)
    return found


def test_a_tree_goes_round(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "a_Run0001.h5", "w") as file:
        file["timestamp"] = (np.arange(3) + 1_000_000_000) << 32 | 5
        file["ipm2/channels"] = np.ones((3, 4), "f4")
        file["lightStatus/laser"], file["lightStatus/xray"] = [1, 0, 1], [1, -1, 1]
        file["tt/FLTPOS"], file["tt/FLTPOS_PS"] = [1.0, 0, 2], [0.1, 0, 0.2]
        file["Sums/epix_calib"], file["epicsOnce/lxt"] = np.ones((2, 3)), 4.0
        file["UserDataCfg/epix/ped"] = np.ones((2, 3))
        file["jungfrau/azav_azav"], file["UserDataCfg/jungfrau/azav__azav_q"] = np.ones((3, 1, 4)), np.arange(4.0)
    tree = xs.open_smalldata(tmp_path / "a_Run0001.h5")
    again = xs.open_smalldata(xs.to_smalldata(tree, tmp_path / "b_Run0001.h5"))
    alone = xs.open_smalldata(xs.to_smalldata(tree["events"].to_dataset(), tmp_path / "c_Run0001.h5"))
    for back in (again, alone):
        np.testing.assert_array_equal(back["events"].coords["jungfrau_azav_q"], np.arange(4))
    for name, x in tree["events"].data_vars.items():
        np.testing.assert_array_equal(again["events"][name], x)
        assert again["events"][name].dtype == x.dtype
    assert again["sums/epix_calib"].shape == (2, 3)
    assert again["config/epix/ped"].shape == (2, 3)
    assert again["once/lxt"].item() == 4


def test_two_light_statuses_both_come_back(tmp_path: Path) -> None:
    mine = small().assign(lightStatus_laser=("event", np.zeros(N, int)))
    back = xs.open_smalldata(xs.to_smalldata(mine, tmp_path / "a.h5"))["events"].to_dataset()
    np.testing.assert_array_equal(back.lightStatus_laser, np.zeros(N))
    with h5py.File(tmp_path / "a.h5") as file:
        np.testing.assert_array_equal(file["laser/on"], mine.laser_on)


def test_what_the_layout_cannot_hold_is_refused(tmp_path: Path) -> None:
    for data, how, text in (
        (small(), {"path": "a.zarr"}, "are HDF5"),
        (small(), {"generation": 3}, "unknown generation"),
        (small().assign_coords(event=np.arange(N)), {}, "these are none"),
        (small().assign(text=("event", np.array(["a"] * N))), {}, "no place for this"),
        (xr.DataTree.from_dict({"/x": small()}), {}, "no small data"),
    ):
        with pytest.raises(xs.XsmallError, match=text):
            xs.to_smalldata(data, tmp_path / how.pop("path", "a.h5"), **how)
    xs.to_smalldata(small(), tmp_path / "a.h5")
    with pytest.raises(xs.XsmallError, match="is there already"):
        xs.to_smalldata(small(), tmp_path / "a.h5")
    assert [p.name for p in tmp_path.iterdir()] == ["a.h5"]
