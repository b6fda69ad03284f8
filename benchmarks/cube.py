"""Cubes of a 0.5-Mpixel segment in 50 bins: the accumulating kernel, and the whole way from a lazy array."""

from __future__ import annotations

import warnings
from typing import Any

import dask.array as da
import numpy as np
import xarray as xr

from benchmarks import Call, Case, optional, read
from xsmall.cube.bins import bins
from xsmall.cube.cube import cube
from xsmall.cube.moments import BATCH, Moments, groups
from xsmall.kernels.add_frames import add_frames, all_go_on, flat
from xsmall.kernels.jit import njit
from xsmall.kernels.reference.moments import moments_of

N_BINS = 50


@njit
def _sum_frames(frames, index, sums):  # type: ignore[no-untyped-def]
    for i in range(frames.shape[0]):
        for p in range(frames.shape[1]):
            sums[index[i], p] += frames[i, p]


@njit
def _welford(frames, index, count, mean, m2):  # type: ignore[no-untyped-def]
    for i in range(frames.shape[0]):
        b = index[i]
        for p in range(frames.shape[1]):
            v = np.float64(frames[i, p])
            if v == v:
                count[b, p] += 1
                d = v - mean[b, p]
                mean[b, p] += d / count[b, p]
                m2[b, p] += d * (v - mean[b, p])


def cases(scale: float) -> list[Case]:
    """The kernel on one batch in random and in scan order; a cube of a fly scan and of a step scan."""
    rows = max(4, int(512 * scale))
    n = max(16, int(BATCH * scale))
    rng = np.random.default_rng(0)
    frames = rng.normal(10, 2, (n, rows * 1024)).astype(np.float32)
    fly = rng.integers(0, N_BINS, n)
    return [
        _kernel("moments of a batch, fly scan", frames, fly),
        _kernel("moments of a batch, step scan", frames, np.sort(fly)),
        _whole("cube of a fly scan, 0.5 Mpixel", frames.reshape(n, 1, rows, 1024), fly),
        _whole("cube of a step scan, 0.5 Mpixel", frames.reshape(n, 1, rows, 1024), np.sort(fly)),
    ]


def _kernel(name: str, frames: np.ndarray, index: np.ndarray) -> Case:
    few = frames[:8]
    ours = Moments.empty(N_BINS, frames.shape[1])
    other = [np.zeros_like(m) for m in ours]
    sums = np.zeros((N_BINS, frames.shape[1]))
    batch = groups(index)
    return Case(
        name,
        lambda: add_frames(*flat(frames), *batch, all_go_on(batch[2]), *ours, 0, frames.shape[1], 0),
        len(frames),
        {
            "bare float64 sum": lambda: _sum_frames(frames, index, sums),
            "Welford per frame": lambda: _welford(frames, index, *other),
            "NumPy twin": (lambda: moments_of(few, index[:8], N_BINS), len(few)),
        },
        read(frames),
    )


def _whole(name: str, frames: np.ndarray, index: np.ndarray) -> Case:
    """Read from memory in chunks of 16 frames, four times over, so that lanes are as long as those of a real run."""
    n = 4 * len(frames)
    chunks = da.from_array(frames, chunks=(16, -1, -1, -1))
    lazy = da.concatenate([chunks] * 4)
    delay = np.sort(np.tile(index, 4)) if np.all(np.diff(index) >= 0) else np.tile(index, 4)
    times = np.datetime64("2026-01-01", "ns") + np.arange(n)
    image = xr.DataArray(lazy, dims=("event", "segment", "row", "column"), coords={"event": times})
    small = xr.Dataset({"delay": ("event", delay + 0.5)}, coords={"event": times})
    made = cube(small, {"delay": bins(0, N_BINS, n=N_BINS)}, images={"image": image})
    return Case(name, lambda: made.compute(), n, _others(image, small), read(*[frames] * 4))


def _others(image: xr.DataArray, small: xr.Dataset) -> dict[str, tuple[Call, int]]:
    """What users would otherwise take: mean and standard deviation by groupby, with and without flox."""
    few = max(8, image.sizes["event"] // 16)
    part, by = image.drop_vars("event")[:few], small["delay"].drop_vars("event")[:few]
    edges = np.arange(N_BINS + 1.0)

    def groupby(use_flox: bool) -> Any:
        with xr.set_options(use_flox=use_flox), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of bins with one event
            grouped = part.groupby_bins(by, edges, right=False)
            return xr.Dataset({"mean": grouped.mean("event"), "std": grouped.std("event", ddof=1)}).compute()

    others: dict[str, tuple[Call, int]] = {"xarray": (lambda: groupby(False), few)}
    if optional("flox"):
        others["flox"] = (lambda: groupby(True), few)
    return others
