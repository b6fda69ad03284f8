"""Frames of a simulated run as an array that is made where it is touched."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from xsmall.simulation.detector import tables
from xsmall.simulation.recipe import SimulatedScan, event_variables, key_of

__all__ = ["SimulatedFrames", "counts_of_photons", "photons_of"]


@dataclass(frozen=True)
class SimulatedFrames:
    """Raw frames (event, segment, row, column) of a recipe: indexing makes those that are asked for, nothing more."""

    recipe: SimulatedScan

    @property
    def shape(self) -> tuple[int, int, int, int]:
        """Shape of all frames."""
        return self.recipe.n_events, *self.recipe.shape

    @property
    def dtype(self) -> np.dtype[np.uint16]:
        """Type of a raw word."""
        return np.dtype(np.uint16)

    @property
    def ndim(self) -> int:
        """Always 4."""
        return 4

    def __getitem__(self, key: Any) -> npt.NDArray[np.uint16]:
        """Make frames; ``key`` is what NumPy takes, of whole numbers, slices and at most one list."""
        key = key if isinstance(key, tuple) else (key,)
        if Ellipsis in [k for k in key if not isinstance(k, np.ndarray | list)]:
            at = next(i for i, k in enumerate(key) if k is Ellipsis)
            key = (*key[:at], *(slice(None),) * (self.ndim - len(key) + 1), *key[at + 1 :])
        key = (*key, *(slice(None),) * (self.ndim - len(key)))
        if sum(isinstance(k, np.ndarray | list) for k in key) > 1:
            raise IndexError("frames are made for one list of indices at most")  # NumPy would pair two of them
        event, first_key = _selected(key[0], self.shape[0])
        segment, second_key = _selected(key[1], self.shape[1])
        return frames(self.recipe, event, segment)[first_key, :, :, :][
            (slice(None),) * (not isinstance(first_key, int)) + (second_key, *key[2:])
        ]


def _selected(key: Any, size: int) -> tuple[npt.NDArray[np.int64], Any]:
    """Return the numbers that a key names, and what is left to do with the axis of just those."""
    if isinstance(key, int | np.integer):
        return np.arange(size)[[int(key)]], 0
    return np.atleast_1d(np.arange(size)[key]), slice(None)


def frames(
    recipe: SimulatedScan, events: npt.NDArray[np.int64], segments: npt.NDArray[np.int64]
) -> npt.NDArray[np.uint16]:
    """Make the raw frames (event, segment, row, column) of the given numbers of events and segments."""
    from xsmall.kernels.simulate import add_photons, digitise, photon_positions, spoil_codes

    n_segments, rows, columns = recipe.shape
    out = np.zeros((events.size, segments.size, rows, columns), dtype=np.uint16)
    table = tables(recipe)
    noise_key, photon_key, spoil_key = (key_of(recipe, p) for p in ("pixels", "photons", "bad codes"))
    energy = np.zeros((rows, columns), dtype=np.float32)
    for i, number in enumerate(events.tolist()):
        event = event_variables(recipe, number, number + 1)
        counts = counts_of_photons(recipe, number, event.pulse)[0]
        for j, s in enumerate(segments.tolist()):
            if not event.present[0, s]:
                continue
            counter = number * n_segments + s
            places = np.empty((int(counts[s]), 2))
            photon_positions(photon_key, counter, rows, columns, places)
            energy[:] = 0.0
            add_photons(energy, places, recipe.line_energy * 1e-3, recipe.charge_sigma)
            words = out[i, j].reshape(-1)
            digitise(
                words,
                table.mean[s],
                table.change[s],
                energy.reshape(-1),
                table.pedestal[:, s],
                table.gain[:, s],
                table.noise[:, s],
                table.kind[s],
                float(event.pulse[0]),
                float(event.response[0]),
                recipe.photon_energy * 1e-3,
                noise_key,
                counter * rows * columns,
            )
            spoil_codes(words, spoil_key, counter, recipe.bad_code_rate)
    return out


def counts_of_photons(recipe: SimulatedScan, first: int, pulse: npt.NDArray[np.float64]) -> npt.NDArray[np.int64]:
    """Return how many single photons meet each segment (event, segment), for events ``first`` on."""
    from xsmall.kernels.simulate import photon_counts

    segments, rows, columns = recipe.shape
    out = np.empty((pulse.size, segments), dtype=np.int64)
    photon_counts(key_of(recipe, "photon counts"), first, recipe.line_density * rows * columns * pulse, out)
    return out


def photons_of(recipe: SimulatedScan, event: int) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.float64]]:
    """Return segment (photon,) and place in it (photon, 2) in pixels of the single photons of one event."""
    from xsmall.kernels.simulate import photon_positions

    segments, rows, columns = recipe.shape
    variables = event_variables(recipe, event, event + 1)
    counts = counts_of_photons(recipe, event, variables.pulse)[0]
    places = []
    for s in range(segments):
        one = np.empty((int(counts[s]), 2))
        photon_positions(key_of(recipe, "photons"), event * segments + s, rows, columns, one)
        places.append(one)
    return np.repeat(np.arange(segments), counts), np.concatenate(places)
