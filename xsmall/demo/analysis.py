"""What the demo does with a run: the few calls that a beamtime takes, and the fits behind the report."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import xarray as xr

import xsmall as xs
from xsmall import vocabulary as v
from xsmall.demo.fit import BinnedPixels, FitResult, fit_delay_curve, fit_line, fit_ring
from xsmall.simulation import Simulation

__all__ = ["DELAY_EDGES", "PATTERN", "RING_SIGNAL", "Findings", "bin_run", "calibrate", "find", "reduce_run"]

DELAY_EDGES: Final = (-2, -1.5, -1, -0.5, -0.25, 0, 0.125, 0.25, 0.375, 0.5, 0.75, 1, 1.25, 1.5, 2, 2.5, 3, 4, 5)
"""Borders of the delay bins in ps: narrow where the sample responds."""

Q_BINS, Q_RANGE = 240, (0.2, 2.6)  # 1/angstrom
DARK_Q: Final = 2.75  # 1/angstrom: from here on there are single photons only
SIGNAL_RING: Final = 2  # the ring whose change makes the delay curve
HALF_WINDOW: Final = 0.07  # 1/angstrom around it
SEED, MEMBER = 5.0, 2.5  # thresholds of droplets, in times the noise
SPECTRUM_EDGES: Final = np.arange(1.0, 15.0, 0.1)  # keV
PATTERN: Final = "pattern"  # azimuthal intensity for a pulse energy of 1
RING_SIGNAL: Final = "ring_signal"  # its mean over one ring
LOOK: Final = 16  # events to look at before anything is decided


def calibrate(raw: xr.DataArray, simulation: Simulation) -> xr.DataArray:
    """Give raw frames their geometry and beam, and calibrate them; nothing is computed."""
    beam = simulation.beam
    det = raw.sd.assign_geometry(simulation.geometry).sd.assign_beam(
        photon_energy=beam.photon_energy, distance=beam.distance, center=beam.center
    )
    cal: xr.DataArray = det.sd.calibrate(simulation.constants)
    return cal


def reduce_run(cal: xr.DataArray, simulation: Simulation) -> xr.Dataset:
    """Reduce all frames in one pass: azimuthal integral, a spot, droplets in the dark corners, projections."""
    dark = (cal.sd.pixel(v.Q) > DARK_Q).compute()
    noise = float((simulation.constants[v.NOISE] / simulation.constants[v.GAIN])[0].median())
    photons = simulation.recipe.line_density * int(dark.sum())
    small: xr.Dataset = cal.sd.reduce(
        {
            "waxs": xs.azint(bins=Q_BINS, range=Q_RANGE),
            "spot": xs.roi(_box_around_brightest(cal)),
            "line": xs.droplet(
                threshold=SEED * noise,
                threshold_low=MEMBER * noise,
                mask=dark,
                max_droplets=int(2 * photons + 10 * np.sqrt(photons) + 10),
            ),
            "columns": xs.projection("column", statistic="mean"),
        }
    )
    return small


def _box_around_brightest(cal: xr.DataArray) -> Any:
    """Box of 13 x 13 pixels around the brightest Bragg spot, found in a look at a few frames."""
    seen = cal[:LOOK].mean(v.EVENT)
    place = seen.where(seen.notnull(), -np.inf).argmax(v.PIXEL_DIMS)
    s, row, column = (int(place[dim]) for dim in v.PIXEL_DIMS)
    rows, columns = cal.sizes[v.ROW], cal.sizes[v.COLUMN]
    return xs.Box(
        segment=s,
        row=(max(row - 6, 0), min(row + 7, rows)),
        column=(max(column - 6, 0), min(column + 7, columns)),
    )


def bin_run(small: xr.Dataset, cal: xr.DataArray, simulation: Simulation) -> xr.Dataset:
    """Bin everything by delay and laser, for a pulse energy of 1; shots without X-rays are left out."""
    shots = small.isel({v.EVENT: np.flatnonzero(small[v.XRAY_ON].values)})
    pattern = shots["waxs_intensity"] / shots[v.I0]
    pattern.attrs = {v.UNITS: v.KILOELECTRONVOLT, v.LONG_NAME: "mean of a pixel for a pulse energy of 1"}
    near = float(simulation.truth[v.RING_Q][SIGNAL_RING])
    signal = pattern.sel({v.Q: slice(near - HALF_WINDOW, near + HALF_WINDOW)}).mean(v.Q)
    signal.attrs = {**pattern.attrs, v.LONG_NAME: f"pattern, mean over the ring at {near:g}/angstrom"}
    cube: xr.Dataset = shots.assign({PATTERN: pattern, RING_SIGNAL: signal}).sd.cube(
        {v.DELAY: xs.edges(DELAY_EDGES), v.LASER_ON: xs.categories()}, images={"jungfrau": cal}
    )
    return cube


@dataclass(frozen=True)
class Findings:
    """What the demo found, each a fit with error bars, beside the truth.

    Attributes
    ----------
    rings
        One fit per powder ring: ``q`` and ``width`` in 1/angstrom.
    delay_curve
        ``t0``, ``rise``, ``decay`` in ps.
    line
        Peak of the droplet spectrum: ``energy`` in keV.
    truth
        The same numbers as they were simulated, by the name that the report gives them.
    delay, signal, error
        The delay curve behind the fit: borders of the bins in ps, relative change and its standard error.
    energy, droplets
        The spectrum behind the fit: borders in keV, droplets per bin.
    """

    rings: tuple[FitResult, ...]
    delay_curve: FitResult
    line: FitResult
    truth: dict[str, float]
    delay: npt.NDArray[np.float64]
    signal: npt.NDArray[np.float64]
    error: npt.NDArray[np.float64]
    energy: npt.NDArray[np.float64]
    droplets: npt.NDArray[np.int64]

    def table(self) -> list[tuple[str, float, float, float]]:
        """Rows of the report: name, what was found, its standard error, the truth."""
        found = [(f"ring {i + 1}: q [1/angstrom]", ring, "q") for i, ring in enumerate(self.rings)]
        found += [(f"delay curve: {name} [ps]", self.delay_curve, name) for name in ("t0", "rise", "decay")]
        return [(name, abs(fit.values[key]), fit.errors[key], self.truth[name]) for name, fit, key in found]


def find(cube: xr.Dataset, small: xr.Dataset, cal: xr.DataArray, simulation: Simulation) -> Findings:
    """Fit rings, delay curve and photon line, each with the errors that the cube has."""
    recipe = simulation.recipe
    change = cube.sd.difference(v.LASER_ON, relative=True)
    delay = np.asarray(DELAY_EDGES, dtype=np.float64)
    signal = change[RING_SIGNAL].values
    error = change[RING_SIGNAL + v.STDERR_SUFFIX].values
    curve = fit_delay_curve(delay, signal, error, t0=0.2, rise=0.15, decay=1.0)
    energies = small["line_sum"].values
    droplets, energy = np.histogram(energies[np.isfinite(energies)], bins=SPECTRUM_EDGES)
    line = fit_line(0.5 * (energy[:-1] + energy[1:]), droplets)
    truth = {f"ring {i + 1}: q [1/angstrom]": ring.q for i, ring in enumerate(recipe.rings)}
    truth |= {
        "delay curve: t0 [ps]": recipe.t0,
        "delay curve: rise [ps]": float(np.hypot(recipe.rise, recipe.tt_error)),
        "delay curve: decay [ps]": recipe.decay,
        "line [keV]": recipe.line_energy * 1e-3,
    }
    return Findings(_fitted_rings(cube, cal, simulation), curve, line, truth, delay, signal, error, energy, droplets)


def _fitted_rings(cube: xr.Dataset, cal: xr.DataArray, simulation: Simulation) -> tuple[FitResult, ...]:
    """Fit the rings in the mean pattern of the shots without laser."""
    off = cube.sel({v.LASER_ON: False})
    weight = off[PATTERN + v.COUNT_SUFFIX]
    total = weight.sum(v.DELAY)
    mean = (off[PATTERN] * weight).sum(v.DELAY) / total
    error = ((off[PATTERN + v.STDERR_SUFFIX] * weight) ** 2).sum(v.DELAY) ** 0.5 / total
    good = (simulation.constants[v.STATUS] == 0).all(v.GAIN_STAGE).values
    bounds = cube[v.Q + v.BOUNDS_SUFFIX].values
    pixels = BinnedPixels(cal.sd.pixel(v.Q).values[good], np.append(bounds[:, 0], bounds[-1, 1]))
    return tuple(
        fit_ring(pixels, cube[v.Q].values, mean.values, error.values, near)
        for near in simulation.truth[v.RING_Q].values
    )
