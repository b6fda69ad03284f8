"""Azimuthal integration of a 4-Mpixel Jungfrau."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from benchmarks import Case, optional, read
from xsmall.detector.frames import Frames
from xsmall.detector.geometry.beam import Beam
from xsmall.detector.geometry.geometry import Geometry, Panel
from xsmall.detector.geometry.pixel import pixel_array
from xsmall.detector.part import Part
from xsmall.engine.record import GROUP, Record
from xsmall.kernels.reference.azint import azint as twin
from xsmall.reductions.azint import azint

PIXEL = 75e-6
SEGMENTS, COLUMNS = 8, 1024


def geometry_of(rows: int) -> Geometry:
    """Eight segments above each other around the beam."""
    height, width = SEGMENTS * rows * PIXEL, COLUMNS * PIXEL
    return Geometry.from_panels(
        [
            Panel(
                origin=(-width / 2, s * rows * PIXEL - height / 2, 0.1),
                slow=(0, PIXEL, 0),
                fast=(PIXEL, 0, 0),
                shape=(rows, COLUMNS),
            )
            for s in range(SEGMENTS)
        ]
    )


def reduce_with(record: Record, frames: Frames, stack: np.ndarray) -> object:
    """Give a callable that runs a group through the record's reducer, segment by segment as the engine does."""
    reducer = record.reducer(frames)
    if frames.energy_varies:
        reducer.energy = 9500 + 10.0 * np.arange(GROUP)
    segments = [np.ascontiguousarray(stack[:, s]) for s in range(stack.shape[1])]

    def run() -> object:
        reducer.begin(GROUP)
        for s, part in enumerate(segments):
            reducer.add(s, part)
        return reducer.end()

    return run


def cases(scale: float) -> list[Case]:
    """One and many azimuthal bins, with and without pixels that are not valid."""
    rows = max(8, int(512 * scale))
    beam, geometry = Beam(photon_energy=9500, distance=0.1), geometry_of(rows)
    frames = Frames(Part.whole((SEGMENTS, rows, COLUMNS)), np.dtype(np.float32), "keV", geometry, beam)
    rng = np.random.default_rng(0)
    stack = rng.normal(5, 1, (GROUP, *frames.shape)).astype(np.float32)
    holes = stack.copy()
    holes[:, rng.random(frames.shape) < 1e-3] = np.nan
    q = pixel_array(geometry, beam, "q")
    edges = np.linspace(q.min(), q.max() * (1 + 1e-12), 501)
    index = np.digitize(q.ravel(), edges) - 1
    counts = np.bincount(index, minlength=500)
    baselines = {
        "numpy.bincount": lambda: [np.bincount(index, f.ravel(), minlength=500) / counts for f in stack],
        "NumPy twin": (lambda: twin(stack[0], q, edges), 1),
        **pyfai(stack),
    }
    floor, size = read(stack), f"{q.size / 1e6:.2g} Mpixel"
    bad = np.ones(frames.shape, bool)
    bad[:, ::50] = False
    varying = replace(frames, energy_varies=True)
    return [
        Case(f"azint {size}, 500 bins", reduce_with(azint(500), frames, stack), GROUP, baselines, floor),
        Case(f"azint {size}, 500 bins, mask", reduce_with(azint(500, mask=bad), frames, stack), GROUP, {}, floor),
        Case(f"azint {size}, 500 bins, 0.1 % NaN", reduce_with(azint(500), frames, holes), GROUP, {}, floor),
        Case(f"azint {size}, 36 x 500 bins", reduce_with(azint(500, azimuth_bins=36), frames, stack), GROUP, {}, floor),
        Case(f"azint {size}, 500 bins, energy per event", reduce_with(azint(500), varying, stack), GROUP, {}, floor),
    ]


def pyfai(stack: np.ndarray) -> dict[str, object]:
    """Make pyFAI's CSR and histogram integrators of the same pixels, without splitting them."""
    if optional("pyFAI") is None:
        return {}
    from pyFAI.detectors import Detector
    from pyFAI.integrator.azimuthal import AzimuthalIntegrator

    flat = [f.reshape(-1, COLUMNS) for f in stack]
    integrator = AzimuthalIntegrator(
        dist=0.1,
        poni1=flat[0].shape[0] * PIXEL / 2,
        poni2=COLUMNS * PIXEL / 2,
        detector=Detector(PIXEL, PIXEL, max_shape=flat[0].shape),
        wavelength=1.305e-10,
    )

    def run(method: str) -> object:
        return [integrator.integrate1d(f, 500, correctSolidAngle=False, method=("no", method, "cython")) for f in flat]

    return {f"pyFAI {m}": lambda m=m: run(m) for m in ("csr", "histogram")}
