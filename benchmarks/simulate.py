"""Making raw frames of a simulated run, beside drawing the same photons and noise by NumPy's generator."""

from __future__ import annotations

import numpy as np

from benchmarks import Case, read
from xsmall.simulation.detector import tables
from xsmall.simulation.frames import SimulatedFrames
from xsmall.simulation.recipe import SimulatedScan

EVENTS = 4


class Drawn:
    """The simulation as one would write it with NumPy, without single photons, missing segments and bad pixels."""

    def __init__(self, recipe: SimulatedScan) -> None:
        self.table = tables(recipe)
        self.photon = recipe.photon_energy * 1e-3
        self.rng = np.random.default_rng(1)

    def frame(self) -> np.ndarray:
        t = self.table
        energy = self.rng.poisson(t.mean) * self.photon
        signal = t.pedestal + t.gain * energy
        stage = np.where(signal[0] > 14000, np.where(signal[1] < 2500, 2, 1), 0)
        adc = np.choose(stage, signal) + np.choose(stage, t.noise) * self.rng.standard_normal(stage.shape, np.float32)
        words: np.ndarray = np.clip(np.rint(adc), 0, 16383).astype(np.uint16)
        return words | np.array([0, 1 << 14, 3 << 14], np.uint16)[stage]


def cases(scale: float) -> list[Case]:
    """Frames of a JUNGFRAU module and of a whole detector."""
    rows = max(8, int(512 * scale))
    out = []
    for segments in (1, 8):
        recipe = SimulatedScan(n_events=EVENTS, shape=(segments, rows, 1024), missing=0.0)
        frames, drawn = SimulatedFrames(recipe), Drawn(recipe)
        made = frames[:]
        out.append(
            Case(
                f"simulate {made[0].size / 1e6:.1f} Mpixel",
                lambda frames=frames: frames[:],  # type: ignore[misc]
                events=EVENTS,
                baselines={"NumPy": (drawn.frame, 1)},
                floor=read(made),
            )
        )
    return out
