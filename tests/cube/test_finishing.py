"""Cubes whose bins are merged and finished block by block, as workers of a cluster share them."""

import dask
import dask.array as da
import numpy as np
import pytest
import xarray as xr
from dask.optimization import cull

from xsmall.cube import finishing, tasks
from xsmall.cube.bins import bins
from xsmall.cube.cube import cube
from xsmall.engine.machine import Machine

N = 1500
TIMES = np.datetime64("2026-01-01", "ns") + np.arange(N)
HOW = {
    "scan": {"scan": bins(0, 7, n=7)},
    "fly": {"fly": bins(0, 7, n=7)},
    "two": {"scan": bins(-2, 7, n=9), "fly": bins(0, 9, n=9)},
}


def run_of() -> tuple[xr.Dataset, xr.DataArray]:
    rng = np.random.default_rng(5)
    small = xr.Dataset(
        {"scan": ("event", np.sort(rng.uniform(0, 8, N))), "fly": ("event", rng.uniform(0, 8, N)),
         "i0": ("event", rng.gamma(9, 1 / 9, N))},
        {"event": TIMES},
    )  # fmt: skip
    values = rng.normal(5, 1, (N, 1, 4, 6)).astype("f4")
    values[rng.random(values.shape) < 0.02] = np.nan
    lazy = da.from_array(values, chunks=(50, 1, 4, 6))
    return small, xr.DataArray(lazy, dims=("event", "segment", "row", "column"), coords={"event": TIMES})


@pytest.mark.parametrize("how", HOW)
@pytest.mark.parametrize("more", [{}, {"weights": "i0", "statistics": ["min", "max", "sum"]}])
def test_blocks_of_bins_are_the_cube_to_the_bit(
    how: str, more: dict[str, object], monkeypatch: pytest.MonkeyPatch
) -> None:
    small, images = run_of()
    truth = cube(small, HOW[how], images={"j": images}, **more).compute()
    monkeypatch.setattr(tasks, "machine", lambda memory: Machine(10**9, 1, 3, cluster=True, limit=10**9, free=10**9))
    monkeypatch.setattr(finishing, "_LEAST_BLOCK", 1)
    shared = cube(small, HOW[how], images={"j": images}, **more)
    first = next(iter(HOW[how]))
    assert len(shared["j"].chunksizes[first]) == 3
    xr.testing.assert_identical(shared.compute(), truth)
    one = shared["j"].isel({first: -1}).data
    (needed,) = dask.optimize(one)
    graph, _ = cull(dict(needed.dask), list(needed.__dask_keys__()))
    lanes = {key for key in graph if str(key).startswith("lane-")}
    assert len(lanes) in ((12,) if first == "fly" else range(3, 6)), lanes  # of a scan those of the last bins


def test_a_block_that_no_event_falls_into_is_empty(monkeypatch: pytest.MonkeyPatch) -> None:
    small, images = run_of()
    monkeypatch.setattr(tasks, "machine", lambda memory: Machine(10**9, 1, 4, cluster=True, limit=10**9, free=10**9))
    monkeypatch.setattr(finishing, "_LEAST_BLOCK", 1)
    found = cube(small, {"scan": bins(0, 32, n=8)}, images={"j": images}).compute()
    assert np.isnan(found["j"].isel(scan=slice(2, None))).all()
    assert (found["j_count"].isel(scan=slice(2, None)) == 0).all()
    assert int(found["count"].sum()) == N


def test_bins_are_cut_where_it_is_worth_a_task() -> None:
    def blocks(shape: tuple[int, ...], result_bytes: float, workers: int, cluster: bool = True) -> list[int]:
        who = Machine(10**9, 1, workers, cluster)
        found = finishing.bin_blocks(shape, int(result_bytes), who)
        assert [b for _, b in found[:-1]] == [a for a, _ in found[1:]]
        assert (found[0][0], found[-1][1]) == (0, shape[0] if shape else 1)
        return [b - a for a, b in found]

    assert blocks((50,), 1e9, 2) == [25, 25]
    assert blocks((50, 2), 1e9, 3) == [16, 17, 17]
    assert blocks((2, 50), 1e9, 16) == [1, 1]
    assert blocks((50,), 1e6, 2) == blocks((50,), 1e9, 2, cluster=False) == [50]
    assert blocks((), 1e9, 8) == [1]
