"""A part that cannot be read costs the events it holds: after selecting, joining and computing, and nothing else."""

from collections.abc import Callable
from typing import Any

import dask
import dask.array as da
import numpy as np
import numpy.typing as npt
import pytest
import xarray as xr

import xsmall as xs
from xsmall.calibration.dark.dark import DarkWarning
from xsmall.engine.faults import unreadable
from xsmall.errors import DamagedDataError, DamagedDataWarning

SHAPE = (40, 2, 6, 8)
BAD = range(12, 17)  # events of segment 1 that cannot be read


class Rotten:
    """An array as a reader gives it: a part of it cannot be read."""

    def __init__(self, dtype: str) -> None:
        rng = np.random.default_rng(3)
        self.data = rng.integers(1, 1000, SHAPE).astype(dtype)
        self.shape, self.dtype, self.ndim = SHAPE, self.data.dtype, 4

    def __getitem__(self, key: Any) -> npt.NDArray[Any]:
        hole = np.zeros(SHAPE, bool)
        hole[BAD.start : BAD.stop, 1] = True
        data, hole = self.data[key].copy(), hole[key]
        if hole.any():
            data[hole] = unreadable(DamagedDataError("run.h5, chunk 3: cannot be read", found="rot"), self.dtype)
        return data


def frames(dtype: str = "u2", chunks: int = 10) -> xr.DataArray:
    data = da.from_array(Rotten(dtype), chunks=(chunks, *SHAPE[1:]), meta=np.empty((0,) * 4, dtype), name=False)
    times = np.arange(SHAPE[0]).astype("M8[s]").astype("M8[ns]")
    return xr.DataArray(data, dims=("event", "segment", "row", "column"), coords={"event": times}, name="raw")


def whole(array: xr.DataArray, dtype: str = "u2") -> xr.DataArray:
    return array.copy(data=Rotten(dtype).data)


CHANGES: dict[str, Callable[[xr.DataArray], xr.DataArray]] = {
    "nothing": lambda x: x,
    "every other event": lambda x: x.isel(event=slice(None, None, 2)),
    "events in reverse": lambda x: x.isel(event=slice(None, None, -1)),
    "arithmetic": lambda x: x.astype("f4") * 2 - 7,
    "twice in a row": lambda x: xr.concat([x, x.assign_coords(event=x.event + np.timedelta64(1, "h"))], "event"),
    "chunks of other sizes": lambda x: x.chunk(event=7, segment=1),
    "some rows": lambda x: x.isel(row=slice(2, 4)),
}


@pytest.mark.parametrize("dtype", ["u2", "i4", "f4", "f8"])
@pytest.mark.parametrize("change", CHANGES)
def test_what_rests_on_a_hole_is_missing_and_the_rest_is_right(change: str, dtype: str) -> None:
    act = CHANGES[change]
    with pytest.warns(DamagedDataWarning, match=r"run\.h5, chunk 3: cannot be read"):
        got = act(frames(dtype)).sd.roi({"a": xs.Box(segment=0), "b": xs.Box(segment=1)}).compute()
    right = act(whole(frames(dtype), dtype)).sd.roi({"a": xs.Box(segment=0), "b": xs.Box(segment=1)})
    bad = np.isin(np.arange(SHAPE[0]), BAD)
    lost = act(frames(dtype).copy(data=np.broadcast_to(bad[:, None, None, None], SHAPE).copy())).values
    gone = (lost != act(xr.zeros_like(whole(frames(dtype))).astype(bool)).values).any((1, 2, 3))
    assert gone.any()
    assert (got["n_valid"].values[gone, 1] == 0).all()
    assert np.isnan(got["mean"].values[gone, 1]).all()
    for name in ("sum", "mean", "n_valid"):
        np.testing.assert_array_equal(got[name].values[:, 0], right[name].values[:, 0])
        np.testing.assert_array_equal(got[name].values[~gone, 1], right[name].values[~gone, 1])


def test_cubes_averages_and_darks_leave_the_events_out() -> None:
    raw = frames().assign_attrs(detector_type="opal")
    keep = np.setdiff1d(np.arange(SHAPE[0]), BAD)
    truth = Rotten("u2").data.astype(float)
    with pytest.warns(DamagedDataWarning):
        mean = raw.sd.average().compute()
    np.testing.assert_allclose(mean["raw"].values[0], truth[:, 0].mean(0), rtol=1e-12)
    np.testing.assert_allclose(mean["raw"].values[1], truth[keep, 1].mean(0), rtol=1e-12)
    assert (mean["raw_count"].values[1] == keep.size).all()
    small = xr.Dataset({"side": ("event", np.arange(SHAPE[0]) % 2)}, {"event": raw.event})
    with pytest.warns(DamagedDataWarning):
        cube = small.sd.cube({"side": xs.categories()}, images={"j": raw}).compute()
    for side in (0, 1):
        chosen = keep[keep % 2 == side]
        np.testing.assert_allclose(cube["j"].values[side, 1], truth[chosen, 1].mean(0), rtol=1e-12)
        assert (cube["j_count"].values[side, 1] == chosen.size).all()
    with pytest.warns(DarkWarning):
        lazy = xs.dark(raw)
    with pytest.warns(DamagedDataWarning):
        dark = lazy.compute()
    np.testing.assert_array_equal(dark["count"].values[0, 1], keep.size)


def test_asking_for_such_frames_is_an_error_and_for_others_is_not() -> None:
    raw = frames()
    with pytest.raises(DamagedDataError, match="chunk 3"):
        raw.compute()
    np.testing.assert_array_equal(raw.isel(event=slice(20, 30)).values, Rotten("u2").data[20:30])


@pytest.mark.parametrize("scheduler", ["synchronous", "threads"])
@pytest.mark.parametrize("chunks", [1, 3, 40])
def test_bits_do_not_depend_on_chunks_or_schedulers(scheduler: str, chunks: int) -> None:
    record = {"r": xs.projection("row")}
    with pytest.warns(DamagedDataWarning):
        expected = frames().sd.reduce(record).compute()
    with dask.config.set(scheduler=scheduler), pytest.warns(DamagedDataWarning):
        xr.testing.assert_identical(frames(chunks=chunks).sd.reduce(record).compute(), expected)
