"""Small variables of many blocks are taken out together: the same numbers, fewer tasks."""

from typing import Any

import numpy as np
import pytest
import xarray as xr

import xsmall as xs
from xsmall.engine import packets

BOX = xs.Box(segment=0, row=(2, 12), column=(3, 20))
RECORDS = {"rows": xs.projection("row"), "spot": xs.roi(BOX), "hits": xs.droplet(5.0, 2.5), "picture": xs.rebin((2, 2))}


def reduced(monkeypatch: pytest.MonkeyPatch, **limits: Any) -> xr.Dataset:
    for name, value in limits.items():
        monkeypatch.setattr(packets, name, value)
    sim = xs.simulate(72, shape=(1, 16, 32), seed=4)
    small: xr.Dataset = sim.run["jungfrau"]["raw"].chunk(event=3).sd.calibrate(sim.constants).sd.reduce(RECORDS)
    return small


def same(a: xr.Dataset, b: xr.Dataset) -> None:
    assert list(a) == list(b)
    for name in a:
        for one, other in zip(a[name].values, b[name].values, strict=True):
            np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize("small", [0, 600, 10**6])
def test_the_numbers_do_not_depend_on_what_is_taken_out_together(monkeypatch: pytest.MonkeyPatch, small: int) -> None:
    alone = reduced(monkeypatch)
    together = reduced(monkeypatch, _MANY_BLOCKS=8, _SMALL=small)
    assert len(together["spot_sum"].chunks[0]) == (24 if small == 0 else 6)
    same(together.compute(), alone.compute())
    few = together["spot_sum"][[1, 30, 69]].compute()
    np.testing.assert_array_equal(few, alone["spot_sum"].compute()[[1, 30, 69]])


def test_a_million_events_are_few_tasks() -> None:
    sim = xs.simulate(1_000_000, shape=(1, 64, 64), seed=1)
    small = sim.run["jungfrau"]["raw"].sd.calibrate(sim.constants).sd.reduce(RECORDS)
    assert len(small.data_vars) == 17
    assert len(small.__dask_graph__()) < 8 * 977
