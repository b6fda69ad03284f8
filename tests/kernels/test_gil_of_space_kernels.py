"""Kernels of images and of locate let other threads run."""

import threading
import time
from collections.abc import Callable

import numpy as np
import pytest

from xsmall.detector.geometry.geometry import Geometry, Panel
from xsmall.detector.geometry.grids import Part, detector_grid
from xsmall.detector.geometry.imaging import image_table
from xsmall.detector.geometry.lookup import locate_pixels
from xsmall.kernels import image


def geometry() -> Geometry:
    return Geometry.from_panels([Panel((0, 0, 0.1), (1e-5, -1e-4, 0), (-1e-4, -1e-5, 0), (512, 1024))])


def gather() -> Callable[[], object]:
    detector = geometry()
    grid = detector_grid(detector)
    table = image_table(detector, Part(*map(range, detector.shape)), grid, True)
    frames = np.ones((8, 512 * 1024), np.float32)
    mean, total = np.empty((8, grid.n_x * grid.n_y), np.float32), np.empty((8, grid.n_x * grid.n_y), np.float32)
    return lambda: image.gather(frames, table.start, table.pixel, table.weight, mean, total)


def take() -> Callable[[], object]:
    detector = geometry()
    grid = detector_grid(detector)
    table = image_table(detector, Part(*map(range, detector.shape)), grid, False)
    frames = np.ones((8, 512 * 1024), np.float32)
    mean = np.empty((8, grid.n_x * grid.n_y), np.float32)
    several = np.tile(table.several, 20)
    return lambda: image.take(frames, table.first, several, table.start, table.pixel, mean)


def locate() -> Callable[[], object]:
    x = np.random.default_rng(0).uniform(-0.1, 0, 1_000_000)
    return lambda: locate_pixels(geometry(), x, x)


@pytest.mark.parametrize("kernel", [gather, take, locate])
def test_other_threads_run_during_a_kernel(kernel: Callable[[], Callable[[], object]]) -> None:
    call = kernel()
    call()  # compiles
    ticks, stop = [], threading.Event()

    def tick() -> None:
        while not stop.wait(0.0003):
            ticks.append(time.perf_counter())

    thread = threading.Thread(target=tick)
    thread.start()
    calls = []
    for _ in range(20):
        start = time.perf_counter()
        call()
        calls.append((start, time.perf_counter()))
    stop.set()
    thread.join()
    # at its ends, before and after the kernel, a call lets others run in any case: count in its middle half
    middles = [(s + (e - s) / 4, e - (e - s) / 4) for s, e in calls]
    assert sum(any(low < t < high for t in ticks) for low, high in middles) >= 5
