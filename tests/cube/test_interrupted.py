"""Killed between any two things that a cube does to its folder, or a worker in the middle: the same bits in the end."""

import os
import signal
from pathlib import Path
from typing import Any

import dask.array as da
import numpy as np
import pytest
import xarray as xr

import xsmall as xs
from xsmall.errors import DataError, ParameterError

N = 1400  # eleven lanes: a group of eight, and three


def frames(n: int, marker: str = "", at: int = -1) -> tuple[xr.Dataset, xr.DataArray]:
    """Events in two classes, and their frames; who makes those of event ``at`` dies, once."""
    times = np.datetime64("2026-01-01", "ns") + np.arange(n)

    def made(block_info: Any = None) -> np.ndarray:
        start, stop = block_info[None]["array-location"][0]
        if start <= at < stop and not os.path.exists(marker):
            with open(marker, "w") as file:
                file.write("dead")
            os.kill(os.getpid(), signal.SIGKILL)
        return np.random.default_rng(start).normal(5, 1, (stop - start, 1, 8, 12)).astype(np.float32)

    sizes = tuple(min(64, n - i) for i in range(0, n, 64))
    lazy = da.map_blocks(made, chunks=(sizes, (1,), (8,), (12,)), dtype=np.float32, meta=np.empty((0,) * 4, np.float32))
    small = xr.Dataset({"on": ("event", np.arange(n) % 3 == 0)}, {"event": times})
    return small, xr.DataArray(lazy, dims=("event", "segment", "row", "column"), coords={"event": times})


def test_a_worker_that_dies_in_the_middle_loses_and_doubles_nothing(tmp_path: Path) -> None:
    distributed = pytest.importorskip("distributed")
    bins = {"on": xs.categories()}
    small, whole = frames(N)
    truth = small.sd.cube(bins, images={"j": whole}).compute()
    marker = str(tmp_path / "dead")
    small, deadly = frames(N, marker, at=900)
    options = {"n_workers": 2, "threads_per_worker": 1, "dashboard_address": ":0", "memory_limit": "1GB"}
    with distributed.LocalCluster(**options) as made, distributed.Client(made):
        found = small.sd.cube(bins, images={"j": deadly}, store=xs.lane_store(tmp_path / "parts")).compute()
    assert os.path.exists(marker)
    for name in truth.data_vars:
        assert found[name].values.tobytes() == truth[name].values.tobytes(), name
    assert int(found["count"].sum()) == N


def test_a_store_of_something_else_is_left_alone(tmp_path: Path) -> None:
    small, whole = frames(200)
    bins = {"on": xs.categories()}
    cube = small.sd.cube(bins, images={"j": whole})
    xs.save(cube.compute(), tmp_path / "cube.zarr")
    (tmp_path / "file").write_text("all my work")
    before = sorted(p.name for p in (tmp_path / "cube.zarr").iterdir())
    for place in ("cube.zarr", "file"):
        with pytest.raises(DataError, match="no folder of parts of a cube"):
            small.sd.cube(bins, images={"j": whole}, store=xs.lane_store(tmp_path / place))
    with pytest.raises(DataError, match="no folder of parts of a cube"):
        xs.lane_store(tmp_path / "cube.zarr").clear()
    assert sorted(p.name for p in (tmp_path / "cube.zarr").iterdir()) == before
    assert (tmp_path / "file").read_text() == "all my work"


@pytest.mark.parametrize("text", ["", '{"kind": "xsm', "[]", "3", "{}", "\x00\xff"])
def test_a_manifest_that_is_none_is_said(tmp_path: Path, text: str) -> None:
    small, whole = frames(200)
    store = xs.lane_store(tmp_path / "parts")
    small.sd.cube({"on": xs.categories()}, images={"j": whole}, store=store)
    next((tmp_path / "parts").rglob("manifest.json")).write_text(text, encoding="latin-1")
    with pytest.raises(DataError, match="no folder of parts of a cube"):
        small.sd.cube({"on": xs.categories()}, images={"j": whole}, store=store)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"store": "parts"}, r"store=xs\.lane_store\("),
        ({"weights": xr.DataArray([1.0])}, "by its name"),
        ({"coordinates": 3}, "coordinates are given by name"),
        ({"bins": None}, "bins by variable"),
        ({"bins": ["on"]}, "bins by variable"),
        ({"bins": {}}, "bins by variable"),
        ({"memory": "4GB"}, "memory is a number of bytes"),
    ],
)
def test_things_of_another_kind_are_named(options: dict[str, Any], message: str) -> None:
    small, whole = frames(200)
    with pytest.raises(ParameterError, match=message):
        small.sd.cube(**{"bins": {"on": xs.categories()}, "images": {"j": whole}, **options})


def test_images_of_another_time_are_refused() -> None:
    small, whole = frames(200)
    late = whole.assign_coords(event=whole["event"] + np.timedelta64(1, "D"))
    with pytest.raises(DataError, match="no event in common"):
        small.sd.cube({"on": xs.categories()}, images={"j": late})
