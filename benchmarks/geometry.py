"""Geometry on labelled data: assigning it, arithmetic with it, and making q of a Jungfrau."""

from __future__ import annotations

import dask.array as da
import numpy as np
import xarray as xr

from benchmarks import Call, Case, optional, read
from xsmall.detector.cache import CACHE
from xsmall.detector.geometry.beam import Beam
from xsmall.detector.geometry.formats.pyfai import to_pyfai
from xsmall.detector.geometry.geometry import Geometry, Panel
from xsmall.detector.geometry.pixel import pixel_array
from xsmall.frames.pixels import assign_geometry

DIMS = ("event", "segment", "row", "column")


def cases(scale: float) -> list[Case]:
    """Eight segments, 32 for assigning; the baselines carry positions as arrays, as most programs do."""
    rows = max(16, int(512 * scale))
    pitch = 75e-6
    panels = [
        Panel(origin=(0.08 * (i % 2), 0.04 * (i // 2), 0.1), slow=(0, pitch, 0), fast=(pitch, 0, 0), shape=(rows, 1024))
        for i in range(32)
    ]
    geometry, large = Geometry.from_panels(panels[:8]), Geometry.from_panels(panels)
    beam = Beam(photon_energy=9500, distance=0.1)
    at = geometry.positions()
    shape = geometry.shape
    frames = xr.DataArray(da.zeros((1_000_000, *shape), chunks=(100, *shape), dtype="u2"), dims=DIMS)
    large_frames = xr.DataArray(da.zeros((1_000_000, *large.shape), chunks=(100, -1, -1, -1), dtype="u2"), dims=DIMS)
    ours = assign_geometry(frames[:4], geometry)
    arrays = {name: (DIMS[1:], at[..., i]) for i, name in enumerate("xyz")}
    theirs = frames[:4].assign_coords(arrays)
    copies = frames[:4].assign_coords({name: (dims, value.copy()) for name, (dims, value) in arrays.items()})
    again = assign_geometry(frames[:4], geometry)

    def q() -> np.ndarray:
        CACHE.clear()
        return pixel_array(geometry, beam, "q")

    def q_numpy() -> np.ndarray:
        x, y, z = at[..., 0], at[..., 1], at[..., 2]
        return 4 * np.pi * 9.5 / 12.39842 * np.sin(np.arctan2(np.hypot(x, y), z) / 2)

    q_of: dict[str, Call] = {"NumPy, positions ready": q_numpy}
    if optional("pyFAI.detectors") is not None and scale < 1:
        ai = to_pyfai(geometry, beam)

        def q_pyfai() -> np.ndarray:
            ai.reset()
            made: np.ndarray = ai.qArray(ai.detector.shape)
            return made

        q_of["pyFAI"] = q_pyfai
    size = f"{np.prod(shape) / 1e6:.1f} Mpixel"
    return [
        Case(
            f"assign geometry, {np.prod(large.shape) / 1e6:.1f} Mpixel x 1e6 events",
            lambda: assign_geometry(large_frames, large),
        ),
        Case(f"add two arrays with geometry, {size}", lambda: ours + again, 1, {"arrays": lambda: theirs + copies}),
        Case(f"q, {size}", q, 1, q_of, read(at)),
    ]
