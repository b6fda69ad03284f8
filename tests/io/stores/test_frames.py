"""Frames for other programs: what is written is read back, by us and by somebody else's reader."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pandas as pd
import pytest
import xarray as xr

import xsmall as xs


def frames(dtype: str = "f4", lazy: bool = False, seed: int = 3) -> xr.DataArray:
    """Five events of two segments with labels; floats have a NaN in event 1."""
    values = np.random.default_rng(seed).integers(0, 4000, (5, 2, 6, 8)).astype(dtype)
    if values.dtype.kind == "f":
        values[1, 0, 2, 3] = np.nan
    times = np.datetime64("2026-03-01T08:00:00.123456789", "ns") + np.arange(5) * 8_333_333
    coords = {"event": times, "segment": [0, 1], "row": np.arange(6), "column": np.arange(8)}
    array = xr.DataArray(values, coords, ("event", "segment", "row", "column"), "raw", {"units": "keV"})
    return array.chunk(event=2) if lazy else array


def geometry() -> xs.Geometry:
    panels = [
        xs.Panel(origin=(0, 0.001 * k, 0.1), slow=(0, -1e-4, 0), fast=(1e-4, 0, 0), shape=(6, 8), segment=k)
        for k in range(2)
    ]
    return xs.Geometry.from_panels(panels)


@pytest.mark.parametrize("name", ["a.cxi", "a.nxs", "a.h5"])
@pytest.mark.parametrize("dtype", ["u2", "i4", "f4", "f8"])
def test_frames_and_times_come_back(tmp_path: Path, name: str, dtype: str) -> None:
    mine = frames(dtype, lazy=dtype == "f4")
    path = xs.save_frames(mine, tmp_path / name)
    back = xs.open_frames(path)
    assert back.dtype == mine.dtype
    np.testing.assert_array_equal(back, mine)
    np.testing.assert_array_equal(back.event, mine.event)
    assert back.attrs["units"] == "keV"


@pytest.mark.parametrize("labels", [[3, 5, 7, 11, 13], [0.5, 1.5, 2.0, 2.25, 9.0], list("abcde")])
def test_labels_that_are_no_times_come_back_too(tmp_path: Path, labels: list[Any]) -> None:
    mine = frames().assign_coords(event=labels)
    np.testing.assert_array_equal(xs.open_frames(xs.save_frames(mine, tmp_path / "a.cxi")).event, mine.event)


def test_times_of_any_zone_and_resolution_come_back_in_utc(tmp_path: Path) -> None:
    mine = frames()
    us = mine.event.values.astype("M8[us]")
    for i, times in enumerate((us, pd.DatetimeIndex(us).tz_localize("UTC").tz_convert("Asia/Tokyo"))):
        back = xs.open_frames(xs.save_frames(mine.assign_coords(event=times), tmp_path / f"{i}.cxi"))
        np.testing.assert_array_equal(back.event, us.astype("M8[ns]"))
    lost = mine.assign_coords(event=np.where(np.arange(5) == 2, np.datetime64("NaT", "ns"), mine.event))
    with pytest.raises(xs.XsmallError, match="no label"):
        xs.save_frames(lost, tmp_path / "lost.cxi")
    odd = mine.assign_coords(event=("event", np.array([1 + 2j, 2, 3, 4, 5])))
    with pytest.raises(xs.XsmallError, match="these labels of events"):
        xs.save_frames(odd, tmp_path / "odd.cxi")


@pytest.mark.parametrize("name", ["a.cxi", "a.nxs"])
@pytest.mark.parametrize(
    "change",
    [
        {"row": slice(None, None, -1)},
        {"segment": [1, 0], "column": [3, 1, 0, 2, 7, 6, 5, 4]},
        {"segment": [1], "row": slice(2, 5)},
        {"event": [4, 0, 2], "column": slice(None, None, -2)},
    ],
)
def test_pixels_in_any_order_and_parts_of_a_detector_keep_their_labels(
    tmp_path: Path, name: str, change: dict[str, Any]
) -> None:
    mine = frames(lazy=True).isel(change)
    mask = (frames() > 7).isel(segment=[1, 0]).isel({k: x for k, x in change.items() if k != "segment"})
    mask = mask.sel(segment=np.sort(mine.segment.values)[::-1])
    path = xs.save_frames(mine, tmp_path / name, mask=mask)
    back = xs.open_frames(path)
    for dim in mine.dims:
        assert sorted(back[dim].values.tolist()) == sorted(mine[dim].values.tolist())
    np.testing.assert_array_equal(back.sel({d: mine[d] for d in mine.dims}), mine)
    with h5py.File(path) as file:
        bits = file["/entry_1/data_1/mask" if name.endswith("cxi") else "/entry/data/mask"][()]
    np.testing.assert_array_equal(bits == 0, mask.sel({d: back[d] for d in back.dims}))


def test_a_mask_per_event_in_the_bits_of_the_format(tmp_path: Path) -> None:
    flags = xr.zeros_like(frames(), dtype=np.uint32)
    flags[0, 0, 0, 0] = int(xs.Reason.SATURATED)
    flags[2, 1, 3, 3] = int(xs.Reason.HOT)
    flags[3, 1, 0, 7] = int(xs.Reason.NEAR_SWITCHING)
    shuffled = flags.isel(event=[4, 2, 0, 1, 3])  # joined by label, not by position
    bits = {"a.cxi": (1 << 1, 1 << 2, 1 << 7, 1 << 7), "a.nxs": (1 << 8, 1 << 3, 1 << 8, 1 << 8)}
    for name, words in bits.items():
        path = xs.save_frames(frames(lazy=True), tmp_path / name, mask=shuffled)
        where = "/entry_1/data_1/mask" if name.endswith("cxi") else "/entry/data/mask"
        with h5py.File(path) as file:
            mask = file[where][()]
        assert (mask[0, 0, 0, 0], mask[2, 1, 3, 3], mask[3, 1, 0, 7], mask[1, 0, 2, 3]) == words
        assert (mask != 0).sum() == 4


def test_missing_segments_and_bool_masks_and_fill(tmp_path: Path) -> None:
    present = np.ones((5, 2), bool)
    present[4, 1] = False
    mine = frames("i4").assign_coords(present=(("event", "segment"), present))
    good = xr.DataArray(np.ones((2, 6, 8), bool), dims=("segment", "row", "column"))
    good[0, 5, 5] = False
    path = xs.save_frames(mine, tmp_path / "a.cxi", mask=good, fill=-7)
    back = xs.open_frames(path)
    assert (back.values[:, 0, 5, 5] == -7).all()
    assert (back.values[4, 1] == -7).all()
    assert (back.values[4, 1] == -7).sum() + 5 == (back.values == -7).sum()
    np.testing.assert_array_equal(back.usable, good)
    with h5py.File(path) as file:
        assert (file["/entry_1/data_1/mask"][4, 1] == 1 << 9).all()
        assert file["/entry_1/instrument_1/detector_1/data"].shape == mine.shape
    with pytest.raises(xs.XsmallError, match="cannot hold this number"):
        xs.save_frames(mine, tmp_path / "b.cxi", mask=good, fill=0.5)


def test_geometry_beam_and_energies_per_event(tmp_path: Path) -> None:
    mine = frames().sd.assign_geometry(geometry())
    energies = xr.DataArray(9500.0 + np.arange(5), dims="event", coords={"event": mine.event})
    mine = mine.sd.assign_beam(photon_energy=energies, distance=0.12, center=(1e-3, -2e-3))
    back = xs.open_frames(xs.save_frames(mine, tmp_path / "a.nxs"))
    np.testing.assert_allclose(back.photon_energy, energies, rtol=1e-12)
    wanted = xs.Beam(distance=0.12, center=(1e-3, -2e-3)).align(geometry()).positions()
    got = np.stack([back[name].values for name in "xyz"], axis=-1)
    assert np.abs(got - wanted).max() < 1e-7
    cxi = xs.open_frames(xs.save_frames(mine, tmp_path / "a.cxi"))
    np.testing.assert_allclose(cxi.photon_energy, energies, rtol=1e-12)
    assert float(cxi.distance) == 0.12
    for name in ("center_x", "center_y", "x", "y", "z"):
        np.testing.assert_array_equal(cxi[name], mine[name])


@pytest.mark.parametrize("name", ["a.cxi", "a.nxs"])
def test_a_beam_without_geometry_comes_back(tmp_path: Path, name: str) -> None:
    mine = frames().sd.assign_beam(distance=0.12, center=(1e-3, -2e-3), tilt_y=0.5)
    back = xs.open_frames(xs.save_frames(mine, tmp_path / name))
    for value in ("distance", "center_x", "center_y", "tilt_x", "tilt_y"):
        assert float(back[value]) == float(mine[value])


def test_a_beam_that_moves_keeps_its_place_per_event(tmp_path: Path) -> None:
    mine = frames().sd.assign_geometry(geometry())
    mine = mine.sd.assign_beam(distance=np.linspace(0.1, 0.2, 5), center=(np.linspace(0, 1e-3, 5), 0.0))
    path = xs.save_frames(mine, tmp_path / "a.cxi")
    back = xs.open_frames(path)
    for name in ("distance", "center_x", "center_y"):
        np.testing.assert_array_equal(back[name], mine[name])
    with h5py.File(path) as file:
        assert "distance" not in file["entry_1/instrument_1/detector_1"]  # there is none that holds for all
    later = frames().assign_coords(event=mine.event.values + np.timedelta64(1, "h")).sd.assign_beam(center=(5e-4, 0.0))
    both = xs.open_frames([path, xs.save_frames(later, tmp_path / "b.cxi")])
    np.testing.assert_array_equal(both.center_x, [*mine.center_x.values, *np.full(5, 5e-4)])
    assert "distance: not in all files" in both.attrs["left_out"]
    with pytest.raises(xs.XsmallError, match="the center_x of the beam is not known"):
        xs.save_frames(mine, tmp_path / "a.nxs")


@pytest.mark.parametrize("name", ["a.cxi", "a.nxs"])
@pytest.mark.parametrize("lost", ["center_x", "tilt_y"])
def test_a_beam_whose_place_got_lost_is_refused_and_never_0(tmp_path: Path, name: str, lost: str) -> None:
    mine = frames().sd.assign_beam(distance=0.12, center=(1e-3, -2e-3), tilt_y=0.5)
    with pytest.raises(xs.XsmallError, match=f"the {lost} of the beam is not known"):
        xs.save_frames(mine.drop_vars(lost), tmp_path / name)
    path = xs.save_frames(mine, tmp_path / name)
    with h5py.File(path, "a") as file:
        (place,) = (one for one in file if f"{one}/{lost}" in file)
        del file[f"{place}/{lost}"]
    back = xs.open_frames(path)
    assert np.isnan(back[lost])
    assert float(back["distance"]) == 0.12
    assert f"{lost}: the file has lost it" in back.attrs["left_out"]
    with pytest.raises(xs.XsmallError, match=f"the {lost} of the beam is not known"):
        back.sd.assign_geometry(geometry()).sd.azint(bins=3)


def test_somebody_elses_reader_of_nxmx(tmp_path: Path) -> None:
    nxmx = pytest.importorskip("nxmx")
    mine = frames("i4").sd.assign_geometry(geometry()).sd.assign_beam(photon_energy=9500, distance=0.12)
    path = xs.save_frames(mine, tmp_path / "a.nxs", fill=-1)
    with h5py.File(path) as file:
        (entry,) = nxmx.NXmx(file).entries
        assert entry.definition == "NXmx"
        assert entry.data[0].signal == "data"
        np.testing.assert_array_equal(file["/entry/data/data"], mine)
        (instrument,) = entry.instruments
        (detector,) = instrument.detectors
        assert len(detector.modules) == 2
        for module, panel in zip(detector.modules, geometry().asics(), strict=True):
            assert module.data_origin.tolist() == [panel.memory[0], 0, 0]
            assert module.data_size.tolist() == [1, 6, 8]
            fast = module.fast_pixel_direction
            np.testing.assert_allclose(fast.vector * fast[()].to("m").magnitude, panel.fast)
        assert instrument.beams[0].incident_wavelength.to("angstrom").magnitude == pytest.approx(12398.4198 / 9500)
        assert detector.underload_value > -1


def test_invalid_arguments_are_refused(tmp_path: Path) -> None:
    mine = frames()
    for how, text in (
        ({"path": tmp_path / "a.tif"}, "unknown format"),
        ({"path": tmp_path / "a.h5", "format": "crystfel"}, "unknown format"),
        ({"path": tmp_path / "a.h5", "mask": mine}, "no mask of frames"),
        ({"path": tmp_path / "a.h5", "mask": mine.isel(row=slice(3)) > 0}, "other pixels"),
        ({"path": tmp_path / "a.h5", "mask": mine.isel(event=slice(3)) > 0}, "other events"),
    ):
        with pytest.raises(xs.XsmallError, match=text):
            xs.save_frames(mine, **how)
    part = mine.sd.assign_geometry(geometry()).isel(row=slice(0, 3))
    with pytest.raises(xs.XsmallError, match="part of the detector"):
        xs.save_frames(part, tmp_path / "a.nxs")
    xs.save_frames(mine, tmp_path / "a.cxi")
    with pytest.raises(xs.XsmallError, match="is there already"):
        xs.save_frames(mine, tmp_path / "a.cxi")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a.cxi"]


def test_nothing_is_read_before_it_is_written(tmp_path: Path, computing_is_forbidden: Callable[[], Any]) -> None:
    with computing_is_forbidden(), pytest.raises(AssertionError, match="stay lazy"):
        xs.save_frames(frames(lazy=True), tmp_path / "a.cxi")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("ending", ["cxi", "nxs"])
@pytest.mark.parametrize("calibrated", [False, True])
def test_segments_that_are_flagged_stay_so(tmp_path: Path, ending: str, calibrated: bool) -> None:
    sim = xs.simulate(4, shape=(2, 16, 32), seed=1, missing=0)
    raw = sim.run["jungfrau/raw"].compute()
    frames = raw.sd.calibrate(sim.constants).compute() if calibrated else raw
    present = np.ones((4, 2), bool)
    present[2, 1] = False
    flagged = frames.assign_coords(present=(("event", "segment"), present)).isel(segment=[1, 0])
    found = xs.open_frames(xs.save_frames(flagged, tmp_path / f"a.{ending}"))
    assert found["present"].values.tolist() == present.tolist()
    plain = xs.open_frames(xs.save_frames(frames, tmp_path / f"b.{ending}"))
    assert plain["present"].values.all()
