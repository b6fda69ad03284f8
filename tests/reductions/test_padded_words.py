"""Frames of raw words that a writer has padded are in no reduction, average or cube, whatever was done with them."""

from collections.abc import Callable

import numpy as np
import pytest
import xarray as xr

import xsmall as xs

N = 12
BOXES = {"all of 0": xs.Box(segment=0), "all of 1": xs.Box(segment=1)}
PADDED = {(3, 0), (5, 1), (7, 0), (7, 1)}


@pytest.fixture(scope="module")
def raw() -> xr.DataArray:
    """Words of an ePix100 (no gain bits), of which some segments are one value, 0 or saturated."""
    rng = np.random.default_rng(3)
    words = rng.integers(1000, 1100, (N, 2, 16, 24)).astype(np.uint16)
    words[3, 0], words[5, 1], words[7] = 4711, 0, 0xFFFF
    return xr.DataArray(
        words,
        dims=("event", "segment", "row", "column"),
        coords={"event": np.datetime64("2026-01-01", "ns") + np.arange(N), "present": ("event", np.ones(N, bool))},
        attrs={"units": "ADU", "detector_type": "epix100"},
        name="raw",
    )


MADE: dict[str, tuple[Callable[[xr.DataArray], xr.DataArray], int]] = {
    "as they are": (lambda r: r, 0),
    "lazy": (lambda r: r.chunk(event=5), 0),
    "cut oddly": (lambda r: r.chunk(event=7, segment=1, row=5, column=13), 0),
    "held": (lambda r: r.chunk(event=4).persist(), 0),
    "less a number": (lambda r: r - 10, 0),
    "floats": (lambda r: r.astype("f4"), 0),
    "doubles, lazy": (lambda r: r.chunk(event=5).astype("f8") - 1000.0, 0),
    "big-endian": (lambda r: r.astype(">u2"), 0),
    "a few rows": (lambda r: r.isel(row=slice(2, 9), column=slice(None, None, 2)), 0),
    "shifted": (lambda r: r.shift(event=1, fill_value=0), 1),
    "rolled, lazy": (lambda r: r.chunk(event=5).roll(event=2), 2),
}


@pytest.mark.parametrize("how", MADE)
def test_padded_segments_are_not_valid(raw: xr.DataArray, how: str) -> None:
    make, moved = MADE[how]
    frames = make(raw)
    expected = {(e + moved, s) for e, s in PADDED} | ({(0, 0), (0, 1)} if how == "shifted" else set())
    numbers = frames.values.astype(float)
    for event, segment in expected:
        numbers[event, segment] = np.nan
    small = frames.sd.roi(BOXES).compute()
    assert {(int(e), int(s)) for e, s in np.argwhere(small["n_valid"].values == 0)} == expected
    np.testing.assert_allclose(small["sum"], numbers.mean(axis=(2, 3)) * numbers[0, 0].size)
    mean = frames.sd.average().compute()
    np.testing.assert_allclose(mean["raw"], np.nanmean(numbers, axis=0), rtol=1e-12)
    np.testing.assert_array_equal(mean["raw_count"], np.isfinite(numbers).sum(axis=0))
    events = xr.Dataset({"kind": ("event", np.arange(N) % 2)}, {"event": raw["event"]})
    cube = events.sd.cube({"kind": xs.categories()}, images={"raw": frames}).compute()
    for kind in (0, 1):
        np.testing.assert_allclose(cube["raw"][kind], np.nanmean(numbers[kind::2], axis=0), rtol=1e-12)


def test_frames_that_are_no_words_may_be_all_one_value(raw: xr.DataArray) -> None:
    flat = xr.full_like(raw, 7, dtype=float)
    for frames in (
        flat.assign_attrs(units="keV"),
        flat.assign_attrs(detector_type="something else"),
        flat.assign_attrs(detector_type="opal"),  # a camera may clip at 0
        flat.drop_attrs(),
    ):
        np.testing.assert_array_equal(frames.sd.roi(BOXES)["n_valid"], 16 * 24)
