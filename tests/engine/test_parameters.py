"""Parameters of results: each step holds those of the step before, and long lists are told by their ends."""

import json

import numpy as np

import xsmall as xs
from xsmall.engine.parameters import parameters_of, short_repr


def test_long_tuples_are_told_by_their_ends() -> None:
    text = short_repr(xs.azint(bins=np.linspace(0, 1, 101)))
    assert "101 numbers" in text
    assert text.startswith("Azint(bins=AzintBins(bins=(0.0, 0.01, ... 101 numbers ..., 1.0), quantity='q'")
    assert short_repr((1, 2, 3)) == "(1, 2, 3)"


def test_each_step_holds_those_before_it() -> None:
    sim = xs.simulate(8, shape=(1, 16, 32), seed=2)
    cal = sim.run["jungfrau"]["raw"].sd.calibrate(sim.constants)
    small = cal.sd.reduce({"rows": xs.projection("row")})
    cube = small.sd.cube({"laser_on": xs.categories([False, True])}, images={"jungfrau": cal})
    told = parameters_of(cube.attrs)
    assert told["function"] == "cube"
    assert told["small"]["function"] == "reduce"
    assert told["small"]["records"]["rows"].startswith("Projection(")
    assert told["small"]["frames"]["function"] == "calibrate"
    assert told["images"]["jungfrau"]["function"] == "calibrate"
    assert json.loads(cube.attrs["parameters"]) == told
    assert parameters_of({}) is None
