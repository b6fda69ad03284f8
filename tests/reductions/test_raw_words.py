"""Raw words of detectors that switch their gain are no numbers: who reduces them is told."""

from collections.abc import Callable
from typing import Any

import pytest

import xsmall as xs
from xsmall.errors import GainBitsWarning


def test_a_reduction_of_raw_words_says_that_gain_bits_are_in_them(computing_is_forbidden: Callable[[], Any]) -> None:
    sim = xs.simulate(4, shape=(1, 16, 32), seed=1)
    raw = sim.run["jungfrau"]["raw"]
    with computing_is_forbidden(), pytest.warns(GainBitsWarning, match="'jungfrau' hold the gain") as told:
        raw.sd.projection("row")
    assert len(told) == 1
    raw.sd.calibrate(sim.constants).sd.projection("row")
    raw.assign_attrs(detector_type="camera").sd.projection("row")
    (raw - 1.0).sd.projection("row")


def test_so_does_a_mean_of_them_in_a_cube_or_alone() -> None:
    sim = xs.simulate(20, shape=(1, 16, 32), seed=1)
    raw, events = sim.run["jungfrau"]["raw"], sim.run["events"].to_dataset()
    bins = {"laser_on": xs.categories()}
    with pytest.warns(GainBitsWarning, match="'jungfrau' hold the gain") as told:
        events.sd.cube(bins, images={"jungfrau": raw})
    assert len(told) == 1
    with pytest.warns(GainBitsWarning, match="'jungfrau' hold the gain") as told:
        raw.sd.average(n=4)
    assert len(told) == 1
    events.sd.cube(bins, images={"jungfrau": raw.sd.calibrate(sim.constants)})
    (raw & 0x3FFF).assign_attrs(detector_type="camera").sd.average(n=4)
