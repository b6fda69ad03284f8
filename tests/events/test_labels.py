"""The label of events: it survives every tool, times come out in UTC, and nothing joins by position."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
import pytest
import xarray as xr

import xsmall as xs
from xsmall.errors import DataError
from xsmall.events.join import JoinWarning, of_the_events, positions
from xsmall.events.labels import in_utc, labels_of, times_in_utc
from xsmall.io.stores.runs import write_run

N = 60
START = np.datetime64("2026-03-01T08:00:00.123456789", "ns")
TIMES = START + np.arange(N) * np.timedelta64(8_333_333, "ns")
OPEN = {".zarr": xr.open_zarr, ".h5": xr.open_dataset, ".nc": xr.open_dataset}


def numbers(events: npt.NDArray[Any] | None = None, name: str = "a") -> xr.Dataset:
    """A value per event that says which event it is."""
    kept = np.arange(N) if events is None else events
    return xr.Dataset({name: ("event", kept.astype(float))}, coords={"event": TIMES[kept]})


def without(k: int) -> npt.NDArray[Any]:
    return np.delete(np.arange(N), k)


# ---- every tool keeps the label ------------------------------------------------------------------------------------


@pytest.mark.parametrize("suffix", [".zarr", ".h5"])
def test_two_detectors_with_one_event_missing_each_join_right_after_saving(tmp_path: Path, suffix: str) -> None:
    for name, lost in (("a", 5), ("b", 50)):
        xs.save(numbers(without(lost), name), tmp_path / f"{name}{suffix}")
    with OPEN[suffix](tmp_path / f"a{suffix}") as one, OPEN[suffix](tmp_path / f"b{suffix}") as two:
        difference = (one["a"] - two["b"]).compute()
        merged = xr.merge([one, two], join="inner").compute()
    expected = np.delete(np.arange(N), [5, 50])
    np.testing.assert_array_equal(difference, np.zeros(N - 2))
    np.testing.assert_array_equal(merged["a"], expected)
    np.testing.assert_array_equal(merged["b"], expected)
    np.testing.assert_array_equal(merged["event"], TIMES[expected])


@pytest.mark.parametrize("suffix", [".zarr", ".h5", ".nc"])
@pytest.mark.parametrize("by_us", [True, False], ids=["xs.save", "xarray"])
def test_times_are_stored_to_the_nanosecond(tmp_path: Path, suffix: str, by_us: bool) -> None:
    path = tmp_path / f"small{suffix}"
    if by_us:
        xs.save(numbers(), path)
    elif suffix == ".zarr":
        numbers().to_zarr(path, zarr_format=3, consolidated=False)
    else:
        numbers().to_netcdf(path)
    with OPEN[suffix](path, **({"consolidated": False} if suffix == ".zarr" else {})) as read:
        assert read["event"].dtype == "datetime64[ns]"
        np.testing.assert_array_equal(read["event"], TIMES)
        assert read.sel(event=TIMES[7])["a"] == 7


def test_the_label_survives_the_tools_of_xarray() -> None:
    sim = xs.simulate(12, shape=(1, 32, 64), seed=1, chunks=4)
    raw = sim.run["jungfrau"]["raw"].sd.assign_geometry(sim.geometry).sd.assign_beam(beam=sim.beam)
    want = raw.indexes["event"]
    halves = [raw.isel(event=cut).to_dataset() for cut in (slice(0, 7), slice(7, None))]
    in_blocks = xr.map_blocks(lambda b: b.sum(("segment", "row", "column")), raw)
    for out in (
        in_blocks.compute(),
        in_blocks,
        xr.map_blocks(lambda b: b * 2.0, raw),
        xr.concat([raw.isel(event=slice(0, 5)), raw.isel(event=slice(5, None))], "event"),
        xr.merge(halves, join="outer", compat="no_conflicts")["raw"],
        raw.groupby("laser_on").map(lambda b: b.astype(float)),
        raw.stack(pixel=("segment", "row", "column")).unstack("pixel"),
        raw.sd.calibrate(sim.constants),
        raw.sd.calibrate(sim.constants).sd.reduce({"p": xs.projection("row")}),
        raw.isel(segment=0, row=0, column=0).compute().to_dataframe().to_xarray(),
    ):
        assert out.indexes["event"].sort_values().equals(want)
    np.testing.assert_array_equal(in_blocks, raw.sum(("segment", "row", "column")))


@pytest.mark.parametrize("kind", ["zarr", "h5"])
def test_runs_keep_the_label_on_disk_and_in_plain_xarray(tmp_path: Path, kind: str) -> None:
    run = xs.simulate(20, shape=(1, 8, 16), seed=1).run
    want = run["jungfrau/raw"].indexes["event"]
    path = write_run(run, tmp_path / f"run.{kind}")
    opened = xs.open_run(path)
    how: dict[str, Any] = {"engine": "zarr", "consolidated": False} if kind == "zarr" else {"engine": "netcdf4"}
    plain = xr.open_datatree(path, **how)
    for tree in (opened, plain):
        for node in ("jungfrau", "events"):
            assert tree[node].to_dataset().indexes["event"].equals(want)
    plain.close()
    part = opened["jungfrau/raw"].isel(event=without(3)[: 20 - 1])
    assert (part.astype(float) - opened["jungfrau/raw"]).sizes["event"] == 19


# ---- times ---------------------------------------------------------------------------------------------------------


def of_any_kind() -> list[Any]:
    local = pd.DatetimeIndex(np.array(["2026-03-01T08:00:00", "2026-03-01T08:00:01"], "M8[s]"))
    berlin = local.tz_localize("UTC").tz_convert("Europe/Berlin")
    return [
        *(local.as_unit(unit).to_numpy() for unit in ("s", "ms", "us", "ns")),
        *(berlin.as_unit(unit) for unit in ("s", "ms", "us", "ns")),
        local.tz_localize("UTC"),
        berlin.to_pydatetime(),
        list(local.tz_localize("UTC").tz_convert("America/Los_Angeles")),
        local.to_pydatetime().astype(object),
    ]


@pytest.mark.parametrize("times", of_any_kind(), ids=lambda t: str(getattr(t, "dtype", type(t).__name__)))
@pytest.mark.parametrize("suffix", [".zarr", ".h5"])
def test_times_of_any_resolution_and_zone_are_the_same_instant(tmp_path: Path, suffix: str, times: Any) -> None:
    want = np.array(["2026-03-01T08:00:00", "2026-03-01T08:00:01"], "M8[ns]")
    small = xr.Dataset(
        {"i0": ("event", [1.0, 2.0]), "read_at": ("event", want.astype("M8[us]"))}, coords={"event": times}
    )
    with OPEN[suffix](xs.save(small, tmp_path / f"small{suffix}")) as read:
        np.testing.assert_array_equal(read["event"], want)
        np.testing.assert_array_equal(read["read_at"], want)
        assert read["event"].dtype == read["read_at"].dtype == "datetime64[ns]"
    image = xr.DataArray(np.ones((2, 3)), dims=("event", "x"), coords={"event": want[::-1]})
    np.testing.assert_array_equal(positions(small, image, "image"), [1, 0])
    np.testing.assert_array_equal(positions(image, small, "image"), [1, 0])


@pytest.mark.parametrize("kind", ["zarr", "h5"])
@pytest.mark.parametrize("unit", ["s", "ms", "us"])
def test_runs_with_times_of_another_resolution(tmp_path: Path, kind: str, unit: str) -> None:
    run = xs.simulate(4, shape=(1, 8, 16), seed=1).run
    coarse = [np.datetime64("2026-03-01T08:00:00", unit) + np.arange(4)]
    nodes = {n.path: n.to_dataset(inherit=False) for n in run.subtree}
    nodes = {p: n.assign_coords(event=coarse[0]) if "event" in n.coords else n for p, n in nodes.items()}
    opened = xs.open_run(write_run(xr.DataTree.from_dict(nodes), tmp_path / f"run.{kind}"))
    np.testing.assert_array_equal(opened["jungfrau/event"], coarse[0].astype("M8[ns]"))


def test_lazy_times_are_written_in_nanoseconds_too(tmp_path: Path) -> None:
    times = TIMES.astype("M8[us]")
    small = numbers().assign(read_at=("event", times)).chunk(event=7)
    assert in_utc(small)["read_at"].chunks is not None
    with xr.open_zarr(xs.save(small, tmp_path / "small.zarr")) as read:
        np.testing.assert_array_equal(read["read_at"], times.astype("M8[ns]"))


@pytest.mark.parametrize("suffix", [".zarr", ".h5"])
@pytest.mark.parametrize(
    ("times", "message"),
    [
        (np.array(["3000-01-01", "3000-01-02"], "M8[s]"), "cannot be brought to UTC"),
        (np.array(["1500-01-01", "2000-01-02"], "M8[us]"), "cannot be brought to UTC"),
        ([pd.Timestamp("2026-01-01"), pd.Timestamp("2026-01-02", tz="UTC")], "cannot be brought to UTC"),
        (np.array(["2026-01-01", "NaT"], "M8[ns]"), "no label"),
        (np.array(["NaT", "2026-01-02"], "M8[us]"), "no label"),
        ([1.0, np.nan], "no label"),
    ],
)
def test_what_is_no_instant_is_refused_before_anything_is_written(
    tmp_path: Path, suffix: str, times: Any, message: str
) -> None:
    small = xr.Dataset({"i0": ("event", [1.0, 2.0])}, coords={"event": times})
    with pytest.raises(DataError, match=message):
        xs.save(small, tmp_path / f"small{suffix}")
    frames = xs.simulate(2, shape=(1, 4, 4)).run["jungfrau"].to_dataset().assign_coords(event=times)
    with pytest.raises(DataError, match=message):
        write_run(xr.DataTree.from_dict({"/jungfrau": frames}), tmp_path / f"run{suffix}")
    assert list(tmp_path.iterdir()) == []


def test_the_advice_of_the_errors_works(tmp_path: Path) -> None:
    small = numbers().isel(event=slice(0, 3))
    small = small.assign_coords(event=np.array(["2026-01-01", "NaT", "2026-01-02"], "M8[ns]"))
    xs.save(small.isel(event=small.event.notnull().values), tmp_path / "a.zarr")
    mixed = pd.to_datetime([pd.Timestamp("2026-01-01"), pd.Timestamp("2026-01-02", tz="UTC")], utc=True)
    known = mixed.tz_localize(None).as_unit("ns")
    np.testing.assert_array_equal(times_in_utc(known, "t"), np.array(["2026-01-01", "2026-01-02"], "M8[ns]"))


# ---- joining -------------------------------------------------------------------------------------------------------


def test_an_event_without_a_label_joins_nothing() -> None:
    lost_small, lost_image = TIMES[:6].copy(), TIMES[:6].copy()
    lost_small[[2, 3]], lost_image[4] = np.datetime64("NaT", "ns"), np.datetime64("NaT", "ns")
    small = xr.Dataset({"k": ("event", [0, 0, 0, 1, 1, 1])}, coords={"event": lost_small})
    values = np.arange(6, dtype=np.float32).reshape(6, 1, 1, 1) * np.ones((6, 1, 2, 2), np.float32)
    image = xr.DataArray(values, dims=("event", "segment", "row", "column"), coords={"event": lost_image})
    np.testing.assert_array_equal(positions(small, image, "image"), [0, 1, -1, -1, -1, 5])
    made = small.sd.cube({"k": xs.categories()}, images={"det": image})
    np.testing.assert_array_equal(made["det"].values[:, 0, 0, 0], [0.5, 5.0])
    np.testing.assert_array_equal(made["det_count"].values[:, 0, 0, 0], [2, 1])
    assert made["det"].attrs["n_without_image"] == 3
    assert made["det"].attrs["n_without_small_data"] == 3


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda d: d.drop_vars("event"), "no labels"),
        (lambda d: d.isel(event=[0, 1, 1]), "twice"),
        (lambda d: d.assign_coords(event=np.arange(N)), "labels of other kinds"),
        (lambda d: d.assign_coords(event=TIMES + np.timedelta64(1, "h")), "no event in common"),
    ],
)
def test_what_cannot_be_joined_raises(change: Callable[[xr.Dataset], xr.Dataset], message: str) -> None:
    with pytest.raises(DataError, match=message):
        positions(numbers(), change(numbers()), "image")


def test_images_whose_times_were_rounded_warn() -> None:
    rounded = TIMES.astype("M8[ms]").astype("M8[ns]")
    rounded[0] = TIMES[0]
    with pytest.warns(JoinWarning, match=r"only 1 of 60 .*differ by 0\.\d+ ms: was one of them rounded"):
        found = positions(numbers(), numbers().assign_coords(event=rounded), "image")
    np.testing.assert_array_equal(found, np.where(np.arange(N) == 0, 0, -1))
    with pytest.raises(DataError, match="was one of them rounded"):
        positions(numbers(), numbers(without(0)).assign_coords(event=rounded[1:]), "image")
    assert (positions(numbers(), numbers(np.arange(0, N, 6)), "slow camera") >= 0).all()


def test_other_unique_labels_join_too() -> None:
    left = numbers().assign_coords(event=np.arange(N) * 10)
    right = left.isel(event=[3, 1]).astype("f4")
    np.testing.assert_array_equal(positions(left, right, "image"), [3, 1])
    named = [f"shot {k}" for k in range(N)]
    assert labels_of(numbers().assign_coords(event=named), "x").equals(pd.Index(named))


def test_values_per_event_come_in_the_order_of_the_data() -> None:
    data, values = numbers(), numbers()["a"].isel(event=np.random.default_rng(1).permutation(N))
    np.testing.assert_array_equal(of_the_events(values, data, "energy"), np.arange(N))
    np.testing.assert_array_equal(of_the_events(values, data.isel(event=[4, 2]), "energy"), [4, 2])
    with pytest.raises(DataError, match="other events"):
        of_the_events(values.isel(event=slice(0, 9)), data, "energy")
    framed = xs.simulate(5, shape=(1, 4, 4)).run["jungfrau"]["raw"]
    energy = xr.DataArray(9000.0 + np.arange(5), dims="event", coords={"event": framed["event"]})
    placed = framed.sd.assign_beam(photon_energy=energy.isel(event=[4, 3, 0, 1, 2]))
    np.testing.assert_array_equal(placed["photon_energy"], energy)


def test_what_lies_beside_frames_and_was_rounded_warns_too() -> None:
    sim = xs.simulate(30, shape=(1, 8, 16), seed=1, missing=0)
    frames, i0 = sim.run["jungfrau/raw"].assign_attrs(detector_type="opal").compute(), sim.run["events/i0"].compute()
    rounded = i0.assign_coords(event=i0["event"].values.astype("M8[us]"))
    with pytest.warns(JoinWarning, match=r"only \d of 30 events of the frames and w .* was one of them rounded"):
        got = xs.apply(frames, lambda frame, w: {"s": np.float64(w)}, w=rounded)
    assert np.isnan(got["s"].values).sum() >= 28
    with pytest.raises(DataError, match="labels of other kinds"):
        xs.apply(frames, lambda frame, w: {"s": np.float64(w)}, w=i0.assign_coords(event=np.arange(30)))
