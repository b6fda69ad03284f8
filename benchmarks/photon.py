"""Photons of an ePix100-like frame, with a giant droplet, and g2 of sparse frames."""

from __future__ import annotations

import functools
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import xarray as xr

from benchmarks import Case, optional, read
from benchmarks.droplet import HIGH, LOW, frames_of
from xsmall.detector.frames import Frames
from xsmall.detector.part import Part
from xsmall.engine.record import GROUP, MANY, Reducer
from xsmall.reductions.box import Box
from xsmall.reductions.droplet import droplet
from xsmall.reductions.g2 import g2
from xsmall.reductions.photon import photon
from xsmall.vocabulary import FRAME_DIMS


def giant(shape: tuple[int, int], scale: float) -> np.ndarray:
    """A direct beam of 160,000 photons in one blob: (GROUP, *shape)."""
    rng = np.random.default_rng(1)
    y, x = np.indices(shape)
    beam = np.exp(-((y - shape[0] / 2) ** 2 + (x - shape[1] / 2) ** 2) / 2 / (40 * scale) ** 2)
    counts = rng.poisson(beam * 160_000 * scale**2 / beam.sum(), (GROUP, *shape))
    return (counts + rng.normal(0, 0.05, counts.shape)).astype(np.float32)


def reducer_of(shape: tuple[int, int]) -> Reducer:
    """Droplets and their photons."""
    return (droplet(HIGH, LOW) | photon(1.0)).reducer(Frames(Part.whole((1, *shape)), np.dtype(np.float32)))


def droplets_of(shape: tuple[int, int]) -> Reducer:
    """Droplets alone."""
    return droplet(HIGH, LOW).reducer(Frames(Part.whole((1, *shape)), np.dtype(np.float32)))


def reduced(one: Reducer, stack: np.ndarray) -> object:
    """What a reducer makes of a group of events."""
    one.begin(len(stack))
    one.add(0, stack)
    return one.end()


def case(name: str, stack: np.ndarray, goal: float | None = None) -> Case:
    """Time droplets and their photons on a group of events; ``goal`` in ms per event."""
    shape = stack.shape[1:]
    alone, reducer = droplets_of(shape), reducer_of(shape)
    return Case(
        f"photons, {name}",
        lambda: reduced(reducer, stack),
        GROUP,
        {"droplets alone": lambda: reduced(alone, stack)},
        read(stack),
        {} if goal is None else {"ms": goal},
    )


def threads_case(name: str, make: Callable[[], Reducer], stack: np.ndarray) -> Case:
    """Time two threads against one thread that does both their work, each long enough to be seen.

    ``stack`` is one group of events: of frames in memory as many as may go together, of large ones that are calibrated
    on the way four. Between groups a thread holds the lock of Python, and the other one may wait.
    """
    pool, repeats = ThreadPoolExecutor(2), max(1, 32 * GROUP // len(stack))
    reducers = [make() for _ in range(2)]

    def work(one: Reducer) -> None:
        for _ in range(repeats):
            reduced(one, stack)

    return Case(
        f"{name}, {len(stack)} events at a time, two threads",
        lambda: list(pool.map(work, reducers)),
        2 * repeats * len(stack),
        {"one thread": lambda: [work(one) for one in reducers]},
        goals={"one thread": 1 / 1.8},
        wall=True,
    )


def photons_in_time(events: int, rows: int, columns: int) -> xr.Dataset:
    """Sparse frames with a photon in one pixel of a hundred, a second apart."""
    rng = np.random.default_rng(2)
    times = np.arange(events).astype("M8[s]").astype("M8[ns]")
    empty = xr.DataArray(np.zeros((1, 1, rows, columns), np.float32), {"event": times[:1]}, FRAME_DIMS)
    like = empty.assign_attrs(units="photon").sd.photon(sparse=True)
    pixel = np.empty(events, object)
    for i in range(events):
        pixel[i] = np.flatnonzero(rng.random(rows * columns, np.float32) < 0.01).astype(np.int32)
    value, lost = np.empty(events, object), np.empty(events, object)
    for i, at in enumerate(pixel):
        value[i], lost[i] = np.ones(at.size, np.int32), np.empty(0, np.int32)
    lists = {"pixel": pixel, "pixel_value": value, "lost_pixels": lost}
    variables = {name: ("event", v, like[name].attrs) for name, v in lists.items()}
    return xr.Dataset(variables, {**like.drop_dims("event").coords, "event": times})


def g2_case(scale: float) -> Case:
    """Time ``g2`` of sparse frames in ten rings, from lists to errors, against products of dense frames, per frame."""
    events, rows, columns = max(20, int(10_000 * scale)), max(16, int(704 * scale)), 768
    photons = photons_in_time(events, rows, columns)
    rings = {str(i): Box(segment=0, row=(i * rows // 10, (i + 1) * rows // 10)) for i in range(10)}
    some = min(events, 250)
    dense = np.zeros((some, rows * columns), np.float32)
    for frame, pixel in zip(dense, photons["pixel"].values, strict=False):
        frame[pixel] = 1.0

    def in_numpy() -> object:
        return [(dense[:-1] * dense[1:]).sum(axis=0) for _ in range(events // some)]

    name = f"g2, {events} frames of {rows * columns / 1e6:.2g} Mpixel at 1 %, 31 lags"
    baselines = {"NumPy, dense, one lag of 31": in_numpy}
    goals = {"NumPy, dense, one lag of 31": 31 / 20}  # twenty times as fast as all of them
    return Case(name, lambda: g2(photons, rings, lags=np.arange(1, 33) - 0.5), events, baselines, goals=goals)


def autocorrelation_case(scale: float) -> Case | None:
    """Time a masked autocorrelation against the three transforms of that size that it takes."""
    fft = optional("scipy.fft")
    if fft is None:
        return None
    from xsmall.kernels.autocorrelation import Correlator

    n = max(16, int(512 * scale))
    rng = np.random.default_rng(3)
    frame, use = rng.random((n, n)).astype(np.float32), rng.random((n, n)) > 0.05
    correlate, padded = Correlator((n, n), (n - 1, n - 1)), (2 * n, 2 * n)

    def in_scipy() -> object:
        there = fft.rfft2(np.where(use, frame, 0.0).astype(np.float64), padded)
        return fft.irfft2(there * np.conj(there)), fft.irfft2(there * np.conj(there))

    return Case(
        f"autocorrelation {n} x {n}, masked",
        lambda: correlate(frame, use),
        1,
        {"SciPy, its FFTs": in_scipy},
        read(frame),
        {"SciPy, its FFTs": 1.3},
    )


def cases(scale: float) -> list[Case]:
    """Few and many photons, a giant droplet, g2, and an autocorrelation."""
    shape = (max(16, int(704 * scale)), 768)
    few, many = (frames_of(max(2, int(n * scale)), shape) for n in (2000, 20000))
    size = f"{shape[0] * shape[1] / 1e6:.2g} Mpixel"
    out = [
        case(f"2000 in {size}", few, 0.5),
        case(f"20000 in {size}", many),
        case("a giant droplet of 160,000", giant(shape, scale), 5.0),
        *(
            threads_case(name, functools.partial(make, shape), stack)
            for name, make in (("droplets", droplets_of), ("photons", reducer_of))
            for stack in (few, np.concatenate([few] * (MANY // GROUP)))
        ),
        g2_case(scale),
        autocorrelation_case(scale),
    ]
    return [c for c in out if c is not None]
