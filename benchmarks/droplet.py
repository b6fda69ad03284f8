"""Droplets of an ePix100-like frame, two thresholds."""

from __future__ import annotations

import numpy as np

from benchmarks import Case, optional, read
from xsmall.detector.frames import Frames
from xsmall.detector.part import Part
from xsmall.engine.record import GROUP
from xsmall.kernels.reference.droplet import droplet as twin
from xsmall.reductions.droplet import droplet

HIGH, LOW = 0.5, 0.25


def frames_of(n_photons: int, shape: tuple[int, int]) -> np.ndarray:
    """Noise of a tenth of a photon, and photons that share their charge with a neighbour or two: (GROUP, *shape)."""
    rng = np.random.default_rng(n_photons)
    out = rng.normal(0, 0.1, (GROUP, *shape)).astype(np.float32)
    for frame in out:
        row, column = (rng.integers(1, n - 1, n_photons) for n in shape)
        share = rng.random(n_photons)
        np.add.at(frame, (row, column), share)
        np.add.at(frame, (row, column + 1), (1 - share) * 0.6)
        np.add.at(frame, (row + 1, column), (1 - share) * 0.4)
    return out


def scipy_recipe(frame: np.ndarray) -> object:
    """Label, grow, relabel, sums and centres, as one writes it with scipy.ndimage."""
    from scipy import ndimage

    seed = frame >= np.float32(HIGH)
    labels, n = ndimage.label(seed | (ndimage.binary_dilation(seed) & (frame >= np.float32(LOW))))
    index = np.arange(1, n + 1)
    return (
        ndimage.sum_labels(frame, labels, index),
        np.bincount(labels.ravel()),
        ndimage.center_of_mass(frame, labels, index),
    )


def case(n_photons: int, shape: tuple[int, int], *, groups: int = 1, goal: float | None = None) -> Case:
    """Time the reducer on a group of events, which lie in the cache, or on many in memory, which go in larger groups.

    It may take ``goal`` times reading the same frames, from where they lie.
    """
    stack = frames_of(n_photons, shape)
    many = np.concatenate([stack] * groups)
    frames = Frames(Part.whole((1, *shape)), np.dtype(np.float32))
    reducer = droplet(HIGH, LOW).reducer(frames)
    size = reducer.most_together

    def run() -> object:
        for start in range(0, len(many), size):
            group = many[start : start + size]
            reducer.begin(len(group))
            reducer.add(0, group)
            last = reducer.end()
        return last

    baselines = {}
    if groups == 1:
        ndimage = optional("scipy.ndimage")
        if ndimage is not None:
            baselines["scipy.ndimage.label alone"] = lambda: [ndimage.label(f >= np.float32(LOW)) for f in stack]
            baselines["scipy.ndimage recipe"] = lambda: [scipy_recipe(f) for f in stack]
        use = np.ones(shape, dtype=bool)
        baselines["NumPy twin"] = lambda: [twin(f, use, HIGH, LOW) for f in stack]
    pixels = shape[0] * shape[1] / 1e6
    where = "in the cache" if groups == 1 else "in memory"
    name = f"droplet {pixels:.2g} Mpixel {where}, {n_photons} photons"
    return Case(name, run, len(many), baselines, read(many), {} if goal is None else {"floor": goal})


def cases(scale: float) -> list[Case]:
    """Few, some and many photons; frames that were just calibrated, and those that come from memory."""
    shape = (max(16, int(704 * scale)), 768)
    photons = [(max(2, int(n * scale)), goal) for n, goal in ((200, 1.6), (2000, 2.5), (20000, 8.0))]
    from_memory = [case(n, shape, groups=max(2, int(16 * scale)), goal=goal) for n, goal in photons]
    return [case(n, shape) for n, _ in photons] + from_memory
