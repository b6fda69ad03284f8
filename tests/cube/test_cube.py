"""Cubes against xarray and flox, and against themselves under any chunking."""

import itertools
import json
import re
import warnings
from collections.abc import Callable
from dataclasses import replace
from functools import cache
from typing import Any

import dask
import dask.array as da
import numpy as np
import numpy.typing as npt
import pytest
import xarray as xr
from hypothesis import given, settings
from hypothesis import strategies as st

from xsmall.cube import moments, plan
from xsmall.cube.bins import bins, categories, edges, quantiles, steps
from xsmall.cube.cube import average, cube, difference, merge_cubes
from xsmall.cube.filling import Tile
from xsmall.engine.machine import Machine
from xsmall.engine.pairs import paired
from xsmall.engine.transform import Transform, transform_frames
from xsmall.errors import DataError, ParameterError, PlanError

N = 1100
BINS = {"delay": bins(-2, 4, n=6), "laser_on": categories()}
TIMES = np.datetime64("2026-01-01", "ns") + np.arange(N) * np.timedelta64(8333333, "ns")
LATER = TIMES + np.timedelta64(1, "ns")


def small() -> xr.Dataset:
    rng = np.random.default_rng(1)
    spectrum = rng.normal(10, 1, (N, 5)).astype(np.float32)
    spectrum[rng.random((N, 5)) < 0.1] = np.nan
    made = xr.Dataset(
        {
            "delay": ("event", rng.normal(0, 2, N), {"units": "ps"}),
            "laser_on": ("event", rng.random(N) < 0.6),
            "i0": ("event", rng.normal(1, 0.1, N), {"units": "1"}),
            "hits": ("event", rng.integers(0, 9, N)),
            "spectrum": (("event", "q"), spectrum, {"units": "keV"}),
            "spectrum_variance": (("event", "q"), np.full((N, 5), 4.0)),
            "name": ("event", np.array(["a"] * N)),
            "row": (("event", "droplet"), np.zeros((N, 2))),
            "gain": ("q", np.arange(5.0)),
        },
        coords={"event": TIMES, "q": np.arange(5.0), "pulse_id": ("event", np.arange(N))},
    )
    return paired(made)


def images(dtype: str = "u2", holes: bool = False) -> xr.DataArray:
    rng = np.random.default_rng(2)
    data = rng.integers(0, 1000, (N, 2, 6, 8)).astype(dtype)
    if holes:
        data[rng.random(data.shape) < 0.1] = np.nan
    return xr.DataArray(
        data,
        dims=("event", "segment", "row", "column"),
        coords={"event": TIMES, "segment": [3, 5], "i0": ("event", np.ones(N))},
        attrs={"units": "ADU"},
    )


def grouped(data: xr.DataArray, by: xr.Dataset, how: str) -> npt.NDArray[np.float64]:
    """What xarray's own groupby says, through flox: bins closed on the left."""
    pytest.importorskip("flox.xarray")
    from flox.xarray import xarray_reduce

    reduced = xarray_reduce(
        data.drop_vars("event").astype(float),
        by["delay"].drop_vars("event"),
        by["laser_on"].drop_vars("event"),
        func=how,
        expected_groups=(np.linspace(-2, 4, 7), np.array([False, True])),
        isbin=(True, False),
        fill_value=np.nan,
    )
    values = np.asarray(reduced.transpose("delay_bins", "laser_on", ...).values)
    if how != "nanstd":
        return values
    n = grouped(data, by, "count")
    return values * np.sqrt(n / np.where(n > 1, n - 1, np.nan))  # flox divides by n


@pytest.fixture(autouse=True)
def _closed_left(monkeypatch: pytest.MonkeyPatch) -> None:
    """No event of these tests lies on an edge, so that flox's right-closed default is as good as ours."""
    assert not np.isin(small()["delay"].values, np.linspace(-2, 4, 7)).any()


@pytest.mark.parametrize("name", ["i0", "hits", "spectrum"])
def test_means_and_spreads_are_those_of_flox(name: str) -> None:
    data = small()
    ours = cube(data, BINS)
    np.testing.assert_allclose(ours[name].values, grouped(data[name], data, "nanmean"), rtol=1e-12)
    np.testing.assert_allclose(ours[f"{name}_std"].values, grouped(data[name], data, "nanstd"), rtol=1e-9)
    n = grouped(data[name], data, "count")
    np.testing.assert_allclose(ours[f"{name}_stderr"].values, ours[f"{name}_std"].values / np.sqrt(n), rtol=1e-14)
    if name == "spectrum":
        np.testing.assert_array_equal(ours["spectrum_count"].values, n)


@pytest.mark.parametrize(("dtype", "holes"), [("u2", False), ("f4", True), ("f8", True)])
def test_images_are_those_of_flox(dtype: str, holes: bool) -> None:
    data, frames = small(), images(dtype, holes)
    ours = cube(data, BINS, images={"camera": frames.chunk(event=100)}).compute()
    np.testing.assert_allclose(ours["camera"].values, grouped(frames, data, "nanmean"), rtol=1e-12)
    np.testing.assert_allclose(ours["camera_std"].values, grouped(frames, data, "nanstd"), rtol=1e-9)
    np.testing.assert_array_equal(ours["camera_count"].values, grouped(frames, data, "count"))
    assert ours["camera"].dims == ("delay", "laser_on", "segment", "row", "column")
    assert ours["segment"].values.tolist() == [3, 5]
    assert ours["camera"].attrs["units"] == "ADU"


@cache
def given_and_whole() -> tuple[tuple[xr.Dataset, xr.DataArray], xr.Dataset]:
    data, frames = small(), images("f4", holes=True)
    return (data, frames), cube(data, BINS, images={"camera": frames})


@settings(max_examples=10, deadline=None)
@given(
    event=st.integers(11, N),
    segment=st.integers(1, 2),
    row=st.integers(1, 6),
    memory=st.sampled_from([None, 300e6, 3e9]),
    scheduler=st.sampled_from(["threads", "synchronous"]),
)
def test_the_result_does_not_depend_on_chunks_tiles_or_scheduler_bit_for_bit(
    event: int, segment: int, row: int, memory: int | None, scheduler: str
) -> None:
    (data, frames), whole = given_and_whole()
    lazy = cube(
        data.chunk(event=event), BINS, images={"camera": frames.chunk(event=event, segment=segment, row=row)},
        memory=memory,
    )  # fmt: skip
    with dask.config.set(scheduler=scheduler):
        xr.testing.assert_identical(lazy.compute(), whole)


def test_row_tiles_give_the_same_as_whole_segments_bit_for_bit(monkeypatch: pytest.MonkeyPatch) -> None:
    data, frames = small(), images("f4", holes=True).chunk(event=256)
    whole = cube(data, BINS, images={"camera": frames}).compute()
    tiles = [Tile((s, s + 1), (r, r + 2)) for s in (0, 1) for r in (0, 2, 4)]
    monkeypatch.setattr("xsmall.cube.tasks.tiles", lambda *_: tiles)
    xr.testing.assert_identical(cube(data, BINS, images={"camera": frames}).compute(), whole)
    xr.testing.assert_identical(cube(data, BINS, images={"camera": frames.compute()}), whole)


def test_persisted_images_give_the_same() -> None:
    data, frames = small(), images("f4").chunk(event=256)
    xr.testing.assert_identical(
        cube(data, BINS, images={"camera": frames.persist()}).compute(),
        cube(data, BINS, images={"camera": frames}).compute(),
    )


class Halve(Transform):
    """A calibration that needs whole segments and knows which it is at."""

    dtype = np.dtype(np.float32)

    def apply(self, s: int, raw: Any, present: Any, out: Any, variance: Any = None) -> None:
        assert raw.shape[1:] == (6, 8)
        out[...] = raw * np.float32(0.5) + np.float32(s)
        out[~present] = np.nan

    def __dask_tokenize__(self) -> str:
        return "halve"


@pytest.mark.parametrize("memory", [None, 300e6])
def test_calibration_joins_the_pass_and_missing_segments_do_not_count(memory: int | None) -> None:
    data, frames = small(), images("u2").chunk(event=64)
    present = np.random.default_rng(3).random((N, 2)) < 0.9
    calibrated = frames.copy(
        data=transform_frames(frames.data, present, Halve(), dtype=np.dtype(np.float32), label="test")
    )
    ours = cube(data, BINS, images={"camera": calibrated}, memory=memory).compute()
    plain = cube(data, BINS, images={"camera": calibrated.compute()})
    xr.testing.assert_identical(ours, plain)
    expected = grouped((images("f4") * 0.5 + xr.DataArray([0, 1], dims="segment")).where(
        xr.DataArray(present, dims=("event", "segment"))), data, "nanmean")  # fmt: skip
    np.testing.assert_allclose(ours["camera"].values, expected, rtol=1e-6)


def test_presence_of_segments_is_respected_without_a_calibration() -> None:
    data, frames = small(), images("u2")
    present = np.random.default_rng(4).random((N, 2)) < 0.8
    marked = frames.assign_coords(present=(("event", "segment"), present))
    ours = cube(data, BINS, images={"camera": marked})
    masked = frames.astype(float).where(xr.DataArray(present, dims=("event", "segment")))
    np.testing.assert_allclose(ours["camera"].values, grouped(masked, data, "nanmean"), rtol=1e-12)
    np.testing.assert_array_equal(ours["camera_count"].values, grouped(masked, data, "count"))


def counted(frames: xr.DataArray, chunk: int) -> tuple[xr.DataArray, list[int]]:
    """Frames that count how often each chunk is read."""
    reads: list[int] = []

    def read(block: npt.NDArray[Any], block_info: Any = None) -> npt.NDArray[Any]:
        reads.append(block_info[0]["chunk-location"][0])
        return block

    source = da.from_array(frames.values, chunks=(chunk, -1, -1, -1))
    return frames.copy(data=source.map_blocks(read, dtype=frames.dtype, meta=np.empty((0,) * 4, frames.dtype))), reads


def test_each_chunk_is_read_once_and_those_without_a_wanted_event_never() -> None:
    frames, reads = counted(images(), 128)
    data = small()
    lazy = cube(data, {"laser_on": categories()}, images={"camera": frames})
    assert reads == []
    lazy.compute()
    assert sorted(reads) == list(range(9))
    reads.clear()
    data["delay"][300:] = 99.0  # only the first three chunks hold events of these bins
    cube(data, BINS, images={"camera": frames}).compute()
    assert sorted(reads) == [0, 1, 2]


def test_nothing_computes_but_the_variables_of_the_bins(computing_is_forbidden: Callable[[], Any]) -> None:
    data = small()
    lazy = data.chunk(event=100)
    lazy["delay"], lazy["laser_on"] = data["delay"], data["laser_on"]
    with computing_is_forbidden():
        made = cube(lazy, BINS, images={"camera": images().chunk(event=100)})
        average(images("f4").chunk(event=100))
    assert all(made[v].chunks is not None for v in ("i0", "spectrum", "camera", "camera_std"))


def test_a_variable_of_a_single_region_can_be_binned_by() -> None:
    data = small()
    one = data.assign(spot=data["i0"].expand_dims(roi=1, axis=1), several=data["i0"].expand_dims(channel=2, axis=1))
    ours, theirs = cube(one, {"spot": quantiles(4)}), cube(data.rename(i0="spot"), {"spot": quantiles(4)})
    np.testing.assert_array_equal(ours["count"], theirs["count"])
    np.testing.assert_array_equal(ours["spot_mean"].isel(roi=0), theirs["spot_mean"])
    with pytest.raises(ParameterError, match="several values per event"):
        cube(one, {"several": quantiles(4)})
    assert cube(one.assign(one=one["several"].isel(channel=0)), {"one": quantiles(4)})["count"].sum() == N


def test_images_join_by_label_and_never_by_position() -> None:
    data, frames = small(), images("f4")
    shuffled = frames.isel(event=np.random.default_rng(5).permutation(N)[: N - 100])
    ours = cube(data, BINS, images={"camera": shuffled})
    wanted = data.isel(event=np.sort([int(np.flatnonzero(t == TIMES)[0]) for t in shuffled.event.values]))
    expected = cube(wanted, BINS, images={"camera": frames.sel(event=wanted.event.values)})
    np.testing.assert_allclose(ours["camera"].values, expected["camera"].values, rtol=1e-12)
    np.testing.assert_array_equal(ours["camera_count"].values, expected["camera_count"].values)
    assert ours["camera"].attrs["n_without_image"] == int(ours["count"].sum() - expected["count"].sum())
    some = cube(data.isel(event=slice(50, None)), BINS, images={"camera": frames})
    assert some["camera"].attrs["n_without_small_data"] == 50


def test_what_was_left_out_is_counted_and_named() -> None:
    data = small()
    data["delay"][:3] = np.nan
    ours = cube(data, BINS)
    assert ours["delay"].attrs["n_missing"] == 3
    assert ours.attrs["n_events"] == N
    assert ours.attrs["n_outside"] == N - int(ours["count"].sum())
    assert ours.attrs["n_outside"] == sum(ours["delay"].attrs[k] for k in ("n_below", "n_above", "n_missing"))
    assert set(ours.attrs["left_out"].split(", ")) == {"name", "row", "pulse_id"}
    assert json.loads(ours.attrs["parameters"])["bins"]["delay"].startswith("Bins(start=-2.0")


def test_bins_have_centres_and_bounds_and_a_mean_of_their_own() -> None:
    data = small()
    ours = cube(data, BINS)
    np.testing.assert_allclose(ours["delay"], [-1.5, -0.5, 0.5, 1.5, 2.5, 3.5])
    assert ours["delay"].attrs["bounds"] == "delay_bounds"
    assert ours["delay"].attrs["units"] == "ps"
    assert ours["delay_bounds"].values[0].tolist() == [-2.0, -1.0]
    assert ours["laser_on"].dtype == bool
    np.testing.assert_allclose(ours["delay_mean"].values, grouped(data["delay"], data, "nanmean"), rtol=1e-12)
    assert ours["gain"].dims == ("q",)


def test_the_variance_of_a_mean_is_propagated() -> None:
    ours = cube(small(), BINS)
    np.testing.assert_allclose(ours["spectrum_variance"].values, 4.0 / ours["spectrum_count"].values, rtol=1e-14)
    assert "spectrum_variance_std" not in ours


def test_a_value_without_a_variance_makes_that_of_the_mean_unknown() -> None:
    data = xr.Dataset({"x": ("event", [0.5, 0.5, 1.5]), "y": ("event", [1.0, 2.0, 3.0])})
    data["y_variance"] = ("event", [4.0, np.nan, 4.0])
    np.testing.assert_array_equal(cube(paired(data), {"x": edges([0, 1, 2])})["y_variance"].values, [np.nan, 4.0])


def test_any_number_of_bin_dims_and_kinds_go_together() -> None:
    data = small().assign(step=("event", np.repeat(np.arange(11), 100)))
    ours = cube(data, {"step": categories(), "delay": [-2, 0, 4], "i0": quantiles(3), "laser_on": categories([True])})
    assert ours["count"].dims == ("step", "delay", "i0", "laser_on")
    assert ours["count"].shape == (11, 2, 3, 1)
    inside = (data["delay"] >= -2) & (data["delay"] < 4) & data["laser_on"]
    assert int(ours["count"].sum()) == int(inside.sum())


def test_empty_bins_are_nan_with_count_zero_and_one_event_has_no_spread() -> None:
    data = xr.Dataset({"x": ("event", [0.5]), "y": ("event", [3.0])})
    ours = cube(data, {"x": edges([0, 1, 2])})
    assert ours["count"].values.tolist() == [1, 0]
    np.testing.assert_array_equal(ours["y"].values, [3.0, np.nan])
    np.testing.assert_array_equal(ours["y_std"].values, [np.nan, np.nan])


@pytest.mark.parametrize("lazy", [False, True])
def test_no_events_make_an_empty_cube(lazy: bool) -> None:
    data, frames = small().isel(event=slice(0, 0)), images("f4").isel(event=slice(0, 0))
    if lazy:
        data, frames = data.chunk(), frames.chunk()
    ours = cube(data, BINS, images={"camera": frames}).compute()
    assert int(ours["count"].sum()) == 0
    assert np.isnan(ours["camera"].values).all()
    assert (ours["camera_count"].values == 0).all()


def test_all_nan_makes_nan_with_count_zero() -> None:
    data, frames = small(), images("f4") * np.nan
    ours = cube(data, BINS, images={"camera": frames})
    assert np.isnan(ours["camera"].values).all()
    assert (ours["camera_count"].values == 0).all()
    assert int(ours["count"].sum()) > 0


def test_an_average_is_a_cube_of_one_bin() -> None:
    frames = images("f4", holes=True)
    ours = average(frames.chunk(event=200).rename("camera")).compute()
    np.testing.assert_allclose(ours["camera"].values, frames.astype(float).mean("event").values, rtol=1e-12)
    np.testing.assert_allclose(ours["camera_std"].values, frames.astype(float).std("event", ddof=1).values, rtol=1e-9)
    np.testing.assert_array_equal(ours["camera_count"].values, frames.count("event").values)
    assert int(ours["count"]) == N
    xr.testing.assert_identical(average(frames.rename("camera")), ours)


def test_lanes_and_batches_are_fixed_by_the_data_alone() -> None:
    rng = np.random.default_rng(3)
    assert moments.lanes(np.empty(0, np.int64)) == [(0, 0)]
    for n, n_bins in ((1, 1), (2048, 50), (100_000, 100), (70_000, 5000)):
        borders = moments.lanes(rng.integers(-1, n_bins, n))
        assert borders[0][0] == 0
        assert borders[-1][1] == n
        assert all(a % moments.FEWEST_LANE == 0 for a, _ in borders)
        assert all(b == c for (_, b), (c, _) in itertools.pairwise(borders))
        assert len(borders) <= moments.MOST_LANES
    fly = rng.integers(0, 50, 2000)
    assert len(moments.lanes(fly)) == len(moments.lanes(np.sort(fly))) == len(moments.lanes(np.zeros(2000, int))) == 16
    for n, n_lanes in ((1000, 8), (3000, 24), (3900, 16), (4096, 16), (8192, 32)):  # shorter where there would be few
        assert len(moments.lanes(rng.integers(0, 50, n))) == n_lanes
    many = rng.integers(0, 100, 2000)
    assert len(moments.lanes(many)) == 8  # a lane of 128 events would cost more to merge than to fill
    assert moments.batch_events(fly, moments.lanes(fly), 512 * 1024) == 256  # whole lanes
    assert moments.batch_events(fly, moments.lanes(fly), 8 * 512 * 1024) == 64
    assert moments.batch_events(fly, moments.lanes(fly), 10**9) == moments.FEWEST_BATCH
    assert moments.batch_events(np.sort(fly), moments.lanes(np.sort(fly)), 512 * 1024) <= 32


@pytest.mark.parametrize("n_lanes", [1, 5, 8, 9, 30, 64])
def test_lanes_merge_in_one_order_however_they_are_cut_into_tasks(n_lanes: int) -> None:
    numbers = range(n_lanes)
    whole = moments.merge_lanes(numbers, str, lambda a, b: f"({a} {b})")
    if n_lanes > moments.GROUP_OF_LANES:
        groups = [moments.merge_lanes(g, str, lambda a, b: f"({a} {b})") for g in moments.in_groups(numbers)]
        assert moments.chain(groups, lambda a, b: f"({a} {b})") == whole
    assert [int(n) for n in whole.replace("(", "").replace(")", "").split()] == list(numbers)


def job(n_bins: int, shape: tuple[int, int, int] = (8, 512, 1024), together: int = 8, **more: Any) -> plan.CubeJob:
    said = {"raw_bytes": 2, "float_bytes": 4, "events_read": 1, "batch": 64, "n_lanes": 49, "met": n_bins} | more
    return plan.CubeJob(100_000, n_bins, shape, segments_read=together, **said)


def machine_of(memory: float, **said: Any) -> Machine:
    return Machine(int(memory), 4, limit=int(2 * memory), free=int(memory), **said)


def test_tiles_are_what_is_read_together_then_segments_then_rows() -> None:
    assert len(plan.tiles(job(10), machine_of(1e12))) == 1
    assert len(plan.tiles(job(10, together=1), machine_of(1e12))) == 8
    by_segment = plan.tiles(job(50), machine_of(8e9))
    assert {t.rows for t in by_segment} == {(0, 512)}
    assert len(by_segment) in (2, 4, 8)
    by_row = plan.tiles(job(200, together=1), machine_of(5e9))
    assert len({t.rows for t in by_row}) > 1
    covered = np.zeros((8, 512), int)
    for tile in by_row:
        covered[slice(*tile.segments), slice(*tile.rows)] += 1
    assert (covered == 1).all()


@pytest.mark.parametrize("n_bins", [14, 100, 3000, 100_000])
@pytest.mark.parametrize("memory", [1e6, 1.5e8, 4e9])
@pytest.mark.parametrize("variance", [False, True])
@pytest.mark.parametrize("together", [1, 8])
@pytest.mark.parametrize("said", [False, True])
@pytest.mark.parametrize(("cluster", "one_task"), [(False, True), (True, False), (True, True)])
def test_every_way_out_of_a_refused_plan_is_one(
    n_bins: int, memory: float, variance: bool, together: int, said: bool, cluster: bool, one_task: bool
) -> None:
    free = 40e9 if said else memory
    limit = (free + 3e8) / 0.7 if cluster else 2 * free
    who = Machine(int(memory), 4, 3, cluster, said, limit=int(limit), free=int(free))
    asked = job(n_bins, together=together, more=("variances",) if variance else (), task_lanes=10**6 if one_task else 1)
    try:
        plan.tiles(asked, who)
    except PlanError as error:
        told = str(error)
    else:
        return
    ways = re.findall(r"(memory_limit|memory|at most)[= ](\d+)", told) + re.findall(r"(isel)\((.*?)\)", told)
    assert ways
    for way, number in ways:
        if way == "at most":
            assert 0 < int(number) < n_bins
            assert plan.tiles(plan.with_bins(asked, int(number)), who)
        elif way == "memory":
            assert memory < int(number) <= max(free, 0.8 * who.limit)
            assert plan.tiles(asked, replace(who, memory=int(number)))
        elif way == "memory_limit":
            assert int(number) > who.limit
            assert plan.tiles(asked, replace(who, memory=int(0.7 * int(number) - 3e8)))


@pytest.mark.parametrize("n", [1, 15, 16, 17, 128, 129, 700, 1025, 1100])
@pytest.mark.parametrize("lazy", [False, True])
def test_any_number_of_events_makes_the_mean_of_all_of_them(n: int, lazy: bool) -> None:
    frames, data = images("f4", holes=True).isel(event=slice(n)), small().isel(event=slice(n))
    truth = frames.values.astype(float)
    with np.errstate(all="ignore"), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for found in (frames.rename("c").chunk(event=13) if lazy else frames.rename("c")).sd.average(), cube(
            data.assign(one=("event", np.zeros(n))), {"one": bins(-1, 1, n=1)},
            images={"c": frames.chunk(event=13) if lazy else frames},
        ).isel(one=0):  # fmt: skip
            np.testing.assert_array_equal(found["c_count"].values, np.isfinite(truth).sum(0))
            np.testing.assert_allclose(found["c"].values, np.nanmean(truth, 0), rtol=1e-12)
            np.testing.assert_allclose(found["c_std"].values, np.nanstd(truth, 0, ddof=1), rtol=1e-9)


def test_a_plan_holds_for_what_is_really_asked_again() -> None:
    frames = images("u2").chunk(event=100)
    with pytest.raises(PlanError) as refused:
        cube(small(), BINS, images={"camera": frames}, memory=1e6)
    enough = int(re.search(r"memory=(\d+)", str(refused.value))[1])
    assert cube(small(), BINS, images={"camera": frames}, memory=enough)


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda s: cube(s["i0"], BINS), DataError, "made of a Dataset"),
        (lambda s: cube(s[["gain"]].drop_vars("event", errors="ignore"), BINS), DataError, "per event"),
        (lambda s: cube(s, {}), ParameterError, "needs bins"),
        (lambda s: cube(s, {"dleay": bins(0, 1, n=2)}), ParameterError, "no variable of events|several values"),
        (lambda s: cube(s, {"spectrum": bins(0, 1, n=2)}), ParameterError, "no variable of events|several values"),
        (lambda s: cube(s, {"delay": 5}), ParameterError, "no bins"),
        (lambda s: cube(s, {"delay": bins(100, 200, n=2)}), ParameterError, "cover no event"),
        (lambda s: cube(s, {"delay": steps(tolerance=0.1)}), ParameterError, "steps"),
        (lambda s: cube(s.rename(i0="count"), BINS), ParameterError, "'count'"),
        (lambda s: cube(s.rename(hits="i0_std"), BINS), ParameterError, "'i0_std'"),
        (lambda s: cube(s, BINS, images={"i0": images()}), ParameterError, "'i0'"),
        (lambda s: cube(s, BINS, images={"c": images().drop_vars("event")}), DataError, "no labels"),
        (lambda s: cube(s.drop_vars("event"), BINS, images={"c": images()}), DataError, "no labels"),
        (lambda s: cube(s, BINS, images={"c": images().isel(event=[0, 0])}), DataError, "twice"),
        (lambda s: cube(s, BINS, images={"c": images().assign_coords(event=LATER)}), DataError, "no event in common"),
        (lambda s: cube(s, BINS, images={"c": images(), "d": images().isel(row=slice(3))}), ParameterError,
         "a cube for"),
        (lambda s: cube(s, BINS, images={"c": images()}, memory=-1), ParameterError, "memory"),
        (lambda s: average(s["gain"]), DataError, "run over events"),
        (lambda s: average(s["name"]), DataError, "no mean"),
    ],
)  # fmt: skip
def test_mistakes_are_said_before_anything_is_read(
    make: Callable[[xr.Dataset], object], error: type[Exception], message: str, no_compute: None
) -> None:
    with pytest.raises(error, match=message):
        make(small())


def pixel_variances(values: np.ndarray) -> np.ndarray:
    """A variance for each value, some of them unknown, one of a value that is not NaN."""
    rng = np.random.default_rng(3)
    spread = rng.uniform(0.5, 2, values.shape).astype(np.float32)
    spread[np.isnan(values)] = np.nan
    return spread


@pytest.mark.parametrize("how", ["numpy", "lazy", "held", "mixed", "tiles"])
def test_the_variance_of_the_mean_of_images_is_that_of_numpy(how: str, monkeypatch: pytest.MonkeyPatch) -> None:
    frames, data = images("f4", holes=True), small()
    spread = frames.copy(data=pixel_variances(frames.values))
    unknown = np.unravel_index(np.flatnonzero(np.isfinite(frames.values))[5], frames.shape)
    spread[unknown] = np.nan
    data_bins = {"delay": bins(-2, 5, n=3)}
    kinds = {"numpy": (None, None), "lazy": (150, 90), "held": (150, 90), "mixed": (150, None), "tiles": (150, 150)}
    chunks = kinds[how]
    both = paired(
        xr.Dataset(
            {
                "cal": frames if chunks[0] is None else frames.chunk(event=chunks[0]),
                "cal_variance": spread if chunks[1] is None else spread.chunk(event=chunks[1]),
            }
        )
    )
    if how == "held":
        both = both.persist()
    if how == "tiles":
        parts = [Tile((s, s + 1), rows) for s in range(2) for rows in ((0, 1), (1, frames.shape[2]))]
        monkeypatch.setattr("xsmall.cube.tasks.tiles", lambda job, memory: parts)
    ours = cube(data, data_bins, images={"camera": both}).compute()
    plain = cube(data, data_bins, images={"camera": frames})
    xr.testing.assert_equal(ours.drop_vars("camera_variance"), plain)
    delay = data["delay"].values
    for b, (low, high) in enumerate(ours["delay_bounds"].values):
        inside = (delay >= low) & (delay < high)
        values, variances = frames.values[inside].astype(float), spread.values[inside].astype(float)
        n = np.isfinite(values).sum(axis=0)
        total = np.where(np.isfinite(values), variances, 0).sum(axis=0)
        expected = np.where(n > 0, total / np.maximum(n, 1) ** 2, np.nan)
        np.testing.assert_allclose(ours["camera_variance"].values[b], expected, rtol=1e-12)
    assert bool(np.isnan(ours["camera_variance"]).sum() > np.isnan(ours["camera"]).sum())  # the unknown one


def test_merged_runs_and_differences_carry_the_variance_of_images() -> None:
    frames, data = images("f4", holes=True), small()
    both = paired(xr.Dataset({"cal": frames, "cal_variance": frames.copy(data=pixel_variances(frames.values))}))
    by = {"laser_on": categories()}
    whole = cube(data, by, images={"camera": both})
    parts = [
        cube(data.isel(event=cut), by, images={"camera": both.isel(event=cut)})
        for cut in (slice(300), slice(300, None))
    ]
    xr.testing.assert_allclose(merge_cubes(*parts)["camera_variance"], whole["camera_variance"], rtol=1e-12)
    change, off, on = difference(whole, "laser_on"), whole.sel(laser_on=False), whole.sel(laser_on=True)
    np.testing.assert_allclose(change["camera_variance"], (on["camera_variance"] + off["camera_variance"]).values)
    relative = difference(whole, "laser_on", relative=True)["camera_variance"].values
    a, b = off["camera"].values, on["camera"].values
    of_a, of_b = off["camera_variance"].values, on["camera_variance"].values
    np.testing.assert_allclose(relative, of_b / a**2 + of_a * b**2 / a**4, rtol=1e-12)


def test_averages_take_a_dataset_with_its_variance() -> None:
    frames = images("f4", holes=True).rename("cal")
    both = paired(xr.Dataset({"cal": frames, "cal_variance": frames.copy(data=pixel_variances(frames.values))}))
    ours = average(both)
    n = np.isfinite(frames.values).sum(axis=0)
    np.testing.assert_allclose(ours["cal_variance"], np.nansum(both["cal_variance"].astype(float), axis=0) / n**2)
    xr.testing.assert_identical(average(both.chunk(event=100)).compute(), ours)
    xr.testing.assert_equal(ours.drop_vars("cal_variance"), average(frames))
    spectra = paired(small()[["spectrum", "spectrum_variance"]])
    np.testing.assert_allclose(average(spectra)["spectrum_variance"], 4.0 / average(spectra)["spectrum_count"])


def test_two_variables_are_not_one_image() -> None:
    frames = images("f4")
    with pytest.raises(DataError, match="one variable"):
        average(xr.Dataset({"a": frames, "b": frames}))
    with pytest.raises(DataError, match="other dims"):
        average(paired(xr.Dataset({"a": frames, "a_variance": frames.isel(row=0)})))


def test_variances_that_calibration_makes_are_summed_in_the_same_pass() -> None:
    import xsmall as xs

    sim = xs.simulate(700, shape=(2, 6, 16), seed=3)
    raw = sim.run["jungfrau"]["raw"].chunk(event=90)
    cal = raw.sd.calibrate(sim.constants, variance=True, photon_energy=9500.0)
    ours = average(cal).compute()
    plain = average(cal.compute())
    xr.testing.assert_equal(ours, plain)
    assert ours["calibrated_variance"].attrs["units"] == "keV2"
