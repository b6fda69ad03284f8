"""Missing and damaged words are left out wherever their values go, of frames that are read lazily."""

from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path

import dask
import numpy as np
import pytest
import xarray as xr
from distributed.protocol.pickle import dumps, loads

import xsmall as xs
from xsmall.errors import DamagedDataWarning
from xsmall.io.stores.runs import write_run

BOXES = {"a": xs.Box(segment=0), "b": xs.Box(segment=1)}
N = 40
Change = Callable[[xr.DataArray], xr.DataArray]


def frames(chunks: int, folder: Path) -> xr.DataArray:
    """Words of a camera from a file: segment 1 of five events is not there, segment 0 of three is damaged."""
    rng = np.random.default_rng(5)
    words = rng.integers(100, 1000, (N, 2, 6, 8)).astype("u2")
    present, damage = np.ones((N, 2), bool), np.zeros((N, 2), "u2")
    present[[4, 11, 12, 25, 39], 1] = False
    damage[[0, 17, 30], 0] = 4
    place = ("event", "segment")
    raw = xr.DataArray(
        words,
        dims=(*place, "row", "column"),
        coords={
            "event": (np.arange(N) * 10**6).astype("M8[ns]"), "present": (place, present), "damage": (place, damage),
        },
        attrs={"detector_type": "opal", "units": "ADU"},
    )  # fmt: skip
    path = folder / "run.zarr"
    if not path.exists():
        write_run(xr.DataTree.from_dict({"camera": xr.Dataset({"raw": raw})}), path)
    opened = xs.open_run(path, chunks=chunks)["camera"]["raw"]
    assert isinstance(opened, xr.DataArray)
    return opened


def good(raw: xr.DataArray) -> xr.DataArray:
    """The same in memory, with NaN for what is none: it goes where the values go."""
    held = raw.compute()
    return held.astype("f8").where(held["present"] & (held["damage"] == 0)).drop_vars(["present", "damage"])


STAYS: dict[str, Change] = {
    "as it is": lambda x: x,
    "isel": lambda x: x.isel(event=slice(1, None, 2)),
    "sel": lambda x: x.sel(event=x.event[[30, 2, 11, 5, 4, 6]]),
    "sortby": lambda x: x.sortby("event", ascending=False),
    "concat": lambda x: xr.concat([x.isel(event=slice(20, None)), x.isel(event=slice(20))], "event"),
    "arithmetic": lambda x: (x - 90.0) * 2,
    "a dark of its own": lambda x: x - np.full((2, 6, 8), 80.0),
    "astype": lambda x: x.astype("f4"),
    "where": lambda x: x.where(x["row"] > 2),
    "transpose": lambda x: x.transpose("row", "event", ...).transpose("event", "segment", "row", "column"),
    "chunk": lambda x: x.chunk(event=7, segment=1),
}
GOES: dict[str, Change] = {
    "shift": lambda x: x.shift(event=1),
    "roll": lambda x: x.roll(event=3),
    "less a dark, shifted": lambda x: (x - 90.0).shift(event=-2),
    "rolling": lambda x: x.rolling(event=3).mean(),
    "diff": lambda x: x.astype("f4").diff("event"),
    "the event before": lambda x: x.astype("f4") - x.shift(event=1),
    "pad": lambda x: x.astype("f4").pad(event=(2, 0)).isel(event=slice(N)).assign_coords(x.coords),
}


@pytest.mark.parametrize("chunks", [5, N])
@pytest.mark.parametrize("change", [*STAYS, *GOES])
def test_no_value_of_words_that_are_none_is_used(change: str, chunks: int, tmp_path: Path) -> None:
    act = (STAYS | GOES)[change]
    raw = frames(chunks, tmp_path)
    right = act(good(raw)).mean(("row", "column"), skipna=change == "where").values
    changed = act(raw)
    if change in GOES:
        with pytest.warns(DamagedDataWarning, match="shift, roll"):
            got = changed.sd.roi(BOXES)["mean"].values
    else:
        got = changed.sd.roi(BOXES)["mean"].values
        np.testing.assert_array_equal(np.isfinite(got), np.isfinite(right))
    there = np.isfinite(got)
    assert there.sum() > there.size // 2
    np.testing.assert_allclose(got[there], right[there], rtol=1e-6)


def test_what_the_warning_says_to_type_loses_nothing(tmp_path: Path) -> None:
    raw = frames(5, tmp_path)
    with pytest.warns(DamagedDataWarning, match=r"raw\.where") as told:
        raw.shift(event=1).sd.roi(BOXES).compute()
    text = str(told[0].message)
    typed = text[text.index("raw.where") : text.index(": NaN")]
    got = eval(typed, {"raw": raw}).shift(event=1).sd.roi(BOXES)["mean"]
    right = good(raw).shift(event=1).mean(("row", "column"), skipna=False)
    np.testing.assert_allclose(got.values, right.values, rtol=1e-6)


@pytest.mark.parametrize("chunks", [5, N])
def test_a_mean_over_events_that_holds_such_words_spoils_all(chunks: int, tmp_path: Path) -> None:
    raw = frames(chunks, tmp_path)
    whole = raw.isel(event=slice(5, 11)).mean("event")
    spoiled = raw.isel(event=slice(3, 9)).mean("event")  # segment 1 of event 4 is missing
    right = (good(raw) - whole.compute()).mean(("row", "column"), skipna=False)
    np.testing.assert_allclose((raw - whole).sd.roi(BOXES)["mean"].values, right.values, rtol=1e-6)
    with pytest.warns(DamagedDataWarning, match="a mean over events"):
        got = (raw - spoiled).sd.roi(BOXES)["mean"].values
    assert np.isnan(got[:, 1]).all()
    np.testing.assert_array_equal(np.isnan(got[:, 0]), np.isnan(right.values[:, 0]))


def test_averages_and_cubes_leave_them_out_too(tmp_path: Path) -> None:
    raw = frames(8, tmp_path)
    moved = raw.astype("f4").diff("event")
    right = good(raw).diff("event")
    with pytest.warns(DamagedDataWarning):
        mean = moved.sd.average().compute()
    np.testing.assert_allclose(mean["raw"].values, right.mean("event").values, rtol=1e-5, atol=1e-3)
    np.testing.assert_array_equal(mean["raw_count"].values, right.count("event").values)
    small = xr.Dataset({"side": ("event", np.arange(N - 1) % 2)}, {"event": moved.event})
    with pytest.warns(DamagedDataWarning):
        cube = small.sd.cube({"side": xs.categories()}, images={"j": moved}).compute()
    for side in (0, 1):
        mine = right.isel(event=small["side"].values == side)
        np.testing.assert_allclose(cube["j"].values[side], mine.mean("event").values, rtol=1e-5, atol=1e-3)


@pytest.mark.parametrize(("change", "at"), [("isel", 4), ("arithmetic", 4), ("roll", 7), ("diff", 4)])
def test_pictures_have_gaps_for_them(change: str, at: int, tmp_path: Path) -> None:
    act = (STAYS | GOES)[change]
    panels = [xs.Panel((x, 0, 0.1), (0, -1e-4, 0), (-1e-4, 0, 0), (6, 8)) for x in (0.0, 0.002)]
    opened = frames(5, tmp_path)
    raw, right = (x.sd.assign_geometry(xs.Geometry.from_panels(panels)) for x in (opened, good(opened)))
    raw, right = act(raw).sd.image(), act(right).sd.image()
    with pytest.warns(DamagedDataWarning) if change in GOES else nullcontext():
        got = raw.compute()
    there = np.isfinite(got.values)
    np.testing.assert_allclose(got.values[there], right.values[there], rtol=1e-6)
    if change in STAYS:
        np.testing.assert_array_equal(there, np.isfinite(right.values))
    with pytest.warns(DamagedDataWarning) if change in GOES else nullcontext():
        one = act(opened.sd.assign_geometry(xs.Geometry.from_panels(panels))).isel(event=at).sd.image().compute()
    np.testing.assert_array_equal(one.values, got.isel(event=at).values)


LOST: dict[str, Change] = {
    "dropped": lambda x: x.drop_vars(["present", "damage"]),
    "dropped, then computed": lambda x: x.drop_vars(["present", "damage"]) * 1.0,
    "dropped, then chunked": lambda x: x.drop_vars(["present", "damage"]).chunk(event=9),
    "two segments that differ": lambda x: x - x.isel(segment=[1, 0]).assign_coords(segment=x["segment"]) * 0.5,
    "two times that differ": lambda x: x - x.shift(event=1).assign_coords(present=x["present"].shift(event=1)) * 0.5,
}


@pytest.mark.parametrize("change", LOST)
def test_words_are_followed_where_no_coordinate_is_left(change: str, tmp_path: Path) -> None:
    raw = frames(5, tmp_path)
    known = good(raw).assign_coords(present=raw["present"], damage=raw["damage"])
    right = LOST[change](known).mean(("row", "column"), skipna=False).values
    with pytest.warns(DamagedDataWarning, match="no coordinate says so"):
        got = LOST[change](raw.astype("f8") if "differ" in change else raw).sd.roi(BOXES)["mean"].values
    there = np.isfinite(got)
    np.testing.assert_allclose(got[there], right[there], rtol=1e-6)
    assert there.sum() > there.size // 2


def test_they_are_followed_where_the_graph_travels_to(tmp_path: Path) -> None:
    raw = frames(16, tmp_path)
    lazy = raw.roll(event=3).sd.roi(BOXES)["mean"]
    with pytest.warns(DamagedDataWarning), dask.config.set(scheduler="synchronous"):
        expected = lazy.values
    with pytest.warns(DamagedDataWarning):
        got = loads(dumps(lazy)).values
    np.testing.assert_array_equal(got, expected)
