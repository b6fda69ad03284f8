"""Permuting what is handed in never changes a result, but by the same permutation."""

from typing import Any

import numpy as np
import xarray as xr
from hypothesis import given, settings
from hypothesis import strategies as st

import xsmall as xs
from xsmall.detector.part import Part

SHAPE = (2, 6, 8)
DIMS = ("segment", "row", "column")
RNG = np.random.default_rng(0)
PANELS = [xs.Panel((s * 1e-3, 0, 0.1), (0, 1e-4, 0), (1e-4, 0, 0), SHAPE[1:]) for s in range(2)]
LABELS = {dim: range(n) for dim, n in zip(DIMS, SHAPE, strict=True)}
FRAMES = xr.DataArray(RNG.gamma(1.0, 2.0, (3, *SHAPE)), dims=("event", *DIMS), coords=LABELS, attrs={"units": "keV"})
MASK = xr.DataArray(RNG.random(SHAPE) > 0.2, dims=DIMS, coords=LABELS)
NOISE = xr.DataArray(RNG.uniform(0.5, 2.0, SHAPE), dims=DIMS, coords=LABELS)
BOX = xs.Box(segment=1, row=(1, 5), column=(2, 8))

orders = st.tuples(*(st.permutations(range(n)) for n in SHAPE), st.permutations(DIMS))


def turned(obj: xr.DataArray, order: Any) -> xr.DataArray:
    """The same values in another order of labels; of what is no frame also in another order of dims."""
    *places, dims = order
    mixed = obj.isel(dict(zip(DIMS, places, strict=True)))
    return mixed if "event" in obj.dims else mixed.transpose(*dims)


def results(frames: xr.DataArray, mask: xr.DataArray, noise: xr.DataArray) -> xr.Dataset:
    placed = frames.sd.assign_geometry(xs.Geometry.from_panels(PANELS)).sd.assign_beam(distance=0.1)
    small: xr.Dataset = placed.sd.reduce(
        {
            "roi": xs.roi(BOX, mask=mask),
            "rows": xs.projection("row", mask=mask),
            "rings": xs.azint(5, quantity="radius", mask=mask),
            "pairs": xs.autocorrelation(BOX, max_lag=2, mask=mask),
            "hits": xs.droplet(xs.sigma(3), xs.sigma(1.5), noise=noise, mask=mask),
        }
    )
    picture = placed.sd.image().rename("picture")
    return small.drop_vars([v for v in small if small[v].dtype == object]).merge(picture, compat="override")


PLAIN = results(FRAMES, MASK, NOISE)


@settings(max_examples=25, deadline=None)
@given(orders, orders, orders)
def test_the_order_of_frames_masks_and_noise_changes_no_result(frames: Any, mask: Any, noise: Any) -> None:
    found = results(turned(FRAMES, frames), turned(MASK, mask), turned(NOISE, noise))
    for name in PLAIN.data_vars:
        ours, plain = found[name], PLAIN[name]
        if name.startswith("rows_"):
            ours = ours.sortby([d for d in ours.dims if d != "event"])
        np.testing.assert_allclose(ours.values, plain.values, rtol=1e-9, atol=1e-9, err_msg=str(name))


@settings(max_examples=50, deadline=None)
@given(orders, orders)
def test_a_part_is_found_in_any_other_order_of_the_same_pixels(one: Any, other: Any) -> None:
    whole = np.arange(np.prod(SHAPE)).reshape(SHAPE)
    part, given_part = Part.of(one[:3]), Part.of(other[:3])
    np.testing.assert_array_equal(part.match(given_part, "array").take(given_part.take(whole)), part.take(whole))
