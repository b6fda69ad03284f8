"""Masks as values: equal, hashable, picklable, known to dask by content."""

import pickle

import dask.base
import numpy as np
import xarray as xr

from xsmall.frames.per_pixel import StaticMask

VALUES = np.random.default_rng(0).random((2, 3, 5)) > 0.5


def test_masks_are_equal_when_their_content_is() -> None:
    one, other = StaticMask.of(VALUES), StaticMask.of(VALUES.copy())
    labelled = StaticMask.of(xr.DataArray(VALUES, dims=("segment", "row", "column"), coords={"segment": [4, 5]}))
    assert one == other
    assert hash(one) == hash(other)
    assert one != StaticMask.of(~VALUES)
    assert one != labelled
    assert dask.base.tokenize(one) == dask.base.tokenize(other) != dask.base.tokenize(labelled)
    assert pickle.loads(pickle.dumps(labelled)) == labelled
    assert StaticMask.of(None) is None


def test_a_mask_keeps_its_values_when_the_array_changes() -> None:
    values = VALUES.copy()
    mask = StaticMask.of(values)
    values[:] = False
    assert mask == StaticMask.of(VALUES)
