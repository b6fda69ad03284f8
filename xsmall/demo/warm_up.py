"""Compile the kernels that sessions begin with, so that first calls do not wait: :func:`warm_up`."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator

import xarray as xr

from xsmall.cube.cube import average
from xsmall.frames.beam import assign_beam
from xsmall.frames.image import image
from xsmall.frames.pixels import assign_geometry
from xsmall.reductions.azint import azint
from xsmall.reductions.box import Box
from xsmall.reductions.droplet import droplet
from xsmall.reductions.projection import projection
from xsmall.reductions.reduce import reduce
from xsmall.reductions.roi import roi
from xsmall.simulation import simulate

__all__ = ["warm_up"]


def warm_up() -> Iterator[tuple[str, float]]:
    """Run each of the common steps once on a few small frames: compiled code is kept on this host.

    Yields
    ------
    What was run, and the seconds that it took: next to nothing where the code was there already.

    Examples
    --------
    >>> [what for what, seconds in warm_up()][0]
    'calibrate'
    """
    simulation = simulate(2, shape=(1, 512, 1024), seed=0)  # whole units of common mode
    raw = simulation.run.children["jungfrau"].dataset["raw"]
    frames = assign_beam(assign_geometry(raw, simulation.geometry), simulation.beam)
    cal: xr.DataArray = frames.sd.calibrate(simulation.constants)
    box = Box(segment=0, row=(0, 8), column=(0, 8))
    steps: dict[str, Callable[[], object]] = {
        "calibrate": lambda: cal.compute(),
        "image": lambda: image(cal).compute(),
        "average": lambda: average(cal).compute(),
        "roi": lambda: reduce(cal, {"roi": roi(box)}).compute(),
        "azint": lambda: reduce(cal, {"azint": azint(bins=20)}).compute(),
        "projection": lambda: reduce(cal, {"row": projection("row")}).compute(),
        "droplet": lambda: reduce(cal, {"droplet": droplet(5.0, 2.5)}).compute(),
        "calibrate with errors": lambda: frames.sd.calibrate(simulation.constants, variance=True).compute(),
        "common mode": lambda: frames.sd.calibrate(simulation.constants, common_mode="recommended").compute(),
        "trust": lambda: frames.sd.trust(simulation.constants).compute(),
    }
    for what, step in steps.items():
        start = time.perf_counter()
        step()
        yield what, time.perf_counter() - start
