"""Grids over a detector and the cache of tables."""

import pickle
from concurrent.futures import ThreadPoolExecutor

import numpy as np

from xsmall.detector.cache import Cache
from xsmall.detector.geometry import imaging
from xsmall.detector.geometry.geometry import Geometry, Panel
from xsmall.detector.geometry.grids import detector_grid, part_grid
from xsmall.detector.geometry.imaging import image_table
from xsmall.detector.part import Part


def geometry(x: float = 0.0) -> Geometry:
    return Geometry.from_panels([Panel((x, 0, 0.1), (0, -1e-4, 0), (-1e-4, 0, 0), (20, 30))])


def test_a_part_is_small_and_says_its_labels() -> None:
    part = Part.of([np.arange(16), np.arange(3, 500, 2), np.array([1, 2, 5])])
    assert (part.segment, part.row, part.column) == (range(16), range(3, 500, 2), (1, 2, 5))
    assert len(pickle.dumps(part)) < 300
    assert Part.of([np.array([4]), np.array([7, 6, 5]), np.array([], dtype=int)]).row == range(7, 4, -1)
    assert part.size == 16 * 249 * 3


def test_grids_of_parts_agree_with_the_grid_of_the_whole() -> None:
    whole = detector_grid(geometry())
    part = part_grid(geometry(), Part(range(1), range(5, 9), range(10, 20)))
    assert (part.first_row, part.first_column, part.n_y, part.n_x) == (5, 10, 4, 10)
    np.testing.assert_array_equal(part.image_x, whole.image_x[10:20])


def test_old_tables_make_room_for_new_ones_and_the_last_one_stays(monkeypatch) -> None:
    tables = Cache(budget=0)
    monkeypatch.setattr(imaging, "CACHE", tables)
    part = Part(range(1), range(20), range(30))
    first = image_table(geometry(), part, detector_grid(geometry()), False)
    assert image_table(geometry(), part, detector_grid(geometry()), False) is first
    image_table(geometry(1e-3), part, detector_grid(geometry(1e-3)), False)
    assert image_table(geometry(), part, detector_grid(geometry()), False) is not first
    assert len(tables._kept) == 1


def test_threads_share_one_table() -> None:
    detector = geometry(2e-3)
    part, grid = Part(range(1), range(20), range(30)), detector_grid(detector)
    with ThreadPoolExecutor(8) as pool:
        tables = list(pool.map(lambda _: image_table(detector, part, grid, True), range(16)))
    assert all(table is tables[0] for table in tables)
