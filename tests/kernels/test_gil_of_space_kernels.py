"""Kernels of images and of locate let other threads run."""

from collections.abc import Callable

import numpy as np
import pytest

from xsmall.detector.geometry.geometry import Geometry, Panel
from xsmall.detector.geometry.grids import detector_grid
from xsmall.detector.geometry.imaging import image_table
from xsmall.detector.geometry.lookup import lookup_tables
from xsmall.detector.part import Part
from xsmall.kernels import image
from xsmall.kernels.locate import locate as locate_kernel


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
    tables, out = lookup_tables(geometry()).arguments(), np.empty((3, x.size), np.int32)
    return lambda: locate_kernel(x, x, *tables, *out)


@pytest.mark.parametrize("kernel", [gather, take, locate])
def test_other_threads_run_during_a_kernel(
    kernel: Callable[[], Callable[[], object]], lets_others_run: Callable[..., bool]
) -> None:
    assert lets_others_run(kernel())
