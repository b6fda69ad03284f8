"""Common modes of real detectors: lazily in any chunking the same bits as at once."""

from functools import cache

import numpy as np
import pytest
import xarray as xr

from xsmall.calibration.calibrate import calibrate
from xsmall.calibration.common_mode.numbers import CommonModeLike
from xsmall.calibration.constants import constants as make_constants
from xsmall.calibration.corrections import common_mode
from xsmall.vocabulary import FRAME_DIMS

SHAPES = {"jungfrau": (256, 128), "epix100": (704, 768), "cspad": (185, 388), "pnccd": (512, 512)}
MODES: list[tuple[str, CommonModeLike]] = [
    ("jungfrau", 7),
    ("jungfrau", (7, 7, 9, 10)),
    ("epix100", 4),
    ("epix100", 46),
    ("cspad", 10),
    ("pnccd", 3),
]


@cache
def run(detector: str) -> tuple[xr.DataArray, xr.Dataset]:
    """Raw words of two segments that differ, one of them missing in one event, and their constants."""
    rng = np.random.default_rng(0)
    n, rows, columns = 3, *SHAPES[detector]
    shape = n, 2, rows, columns
    values = 1000 + rng.normal(0, 3, shape) + rng.normal(0, 5, (*shape[:3], 1)) + rng.normal(0, 4, (n, 2, 1, columns))
    values[:, 1] += 2 * rng.normal(0, 3, values[:, 1].shape)
    values[rng.random(shape) < 0.02] += 300
    words = values.round().astype(np.uint16)
    n_stages = 1
    if detector == "jungfrau":
        n_stages = 3
        words |= rng.choice(np.array([0, 1, 3], np.uint16), shape, p=[0.9, 0.07, 0.03]) << np.uint16(14)
    present = np.ones((n, 2), bool)
    present[1, 0] = False
    raw = xr.DataArray(
        words,
        dims=FRAME_DIMS,
        coords={
            "present": (("event", "segment"), present), "segment": [1, 4], "row": range(rows), "column": range(columns),
        },
        attrs={"detector_type": detector, "units": "ADU"},
    )  # fmt: skip
    pixels = (n_stages, 2, rows, columns)
    noise = np.broadcast_to(np.array([3.0, 7.0]).reshape(1, 2, 1, 1), pixels)
    known = make_constants(detector, np.full(pixels, 1000.0), noise=noise, segment=[1, 4])
    return raw, known.assign_coords(row=range(rows), column=range(columns))


@pytest.mark.parametrize(("detector", "spec"), MODES)
def test_dask_gives_the_bits_of_numpy_in_any_chunking(detector: str, spec: CommonModeLike) -> None:
    raw, known = run(detector)
    rows, columns = SHAPES[detector]
    at_once = common_mode(raw, spec, known)
    whole = calibrate(raw, known, common_mode=spec, unit="ADU")
    changed = calibrate(raw, known, unit="ADU").values != whole.values
    assert changed[raw["present"].values].mean() > 0.2  # the mode does something here
    chunkings: tuple[dict[str, int], ...] = (
        {"event": 1},
        {"event": 2, "segment": 1},
        {"event": 3, "row": rows // 2 + 1, "column": columns // 3},
    )
    for chunks in chunkings:
        lazy = raw.chunk(chunks)
        xr.testing.assert_identical(common_mode(lazy, spec, known).compute(), at_once)
        np.testing.assert_array_equal(calibrate(lazy, known, common_mode=spec, unit="ADU").values, whole.values)
