"""What is simulated: the numbers a run is made of, and the event variables that follow from them.

Everything is a function of the recipe and of the number of an event; nothing is drawn in sequence, so that any event,
segment or chunk can be made on its own, in any order.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import Final, Literal

import numpy as np
import numpy.typing as npt

__all__ = [
    "SimulatedEvents",
    "SimulatedRing",
    "SimulatedScan",
    "Spot",
    "event_variables",
    "key_of",
    "normal",
    "profile",
    "response_to",
    "uniform",
]

EPOCH: Final = np.datetime64("2026-03-01T08:00:00", "ns")
DAYS: Final = 36_500  # runs of other seeds are taken on other days, up to so many
REPETITION_RATE: Final = 120.0  # Hz
BEAM_STOP: Final = 0.25  # 1/angstrom: no powder pattern below
CUTOFF: Final = 2.5  # 1/angstrom: a collimator ends the powder pattern here, beyond there are single photons only
EDGE: Final = 0.02  # 1/angstrom: softness of both borders
FAINT: Final = 1e-4  # photons per pixel that are none


@dataclass(frozen=True)
class SimulatedRing:
    """A powder ring: Gaussian in q, and what a response of 1 does to it.

    Attributes
    ----------
    q, width
        Place and rms width in 1/angstrom.
    photons
        Photons per pixel at its top for a pulse energy of 1.
    change
        Relative change of its intensity for a response of 1.
    shift
        Change of its place in 1/angstrom for a response of 1, to first order.
    """

    q: float
    width: float
    photons: float
    change: float = 0.0
    shift: float = 0.0


@dataclass(frozen=True)
class Spot:
    """A Bragg spot: round Gaussian on the detector at q, azimuth (degrees), width in q, top in photons per pixel."""

    q: float
    azimuth: float
    photons: float
    width: float = 0.015
    change: float = 0.0


RINGS: Final = (
    SimulatedRing(0.80, 0.030, 45.0, change=-0.06),
    SimulatedRing(1.30, 0.035, 22.0, change=0.04, shift=-0.004),
    SimulatedRing(1.75, 0.035, 12.0, change=-0.12),
    SimulatedRing(2.15, 0.040, 8.0, change=0.10),
)
SPOTS: Final = tuple(
    Spot(1.04, azimuth, photons, change=-0.05)
    for azimuth, photons in ((17, 300), (62, 900), (104, 150), (151, 5000), (197, 300), (243, 2500), (299, 600))
)


@dataclass(frozen=True)
class SimulatedScan:
    """All numbers of a simulated run; see :func:`xsmall.simulate` for their meaning and units."""

    n_events: int = 1000
    shape: tuple[int, int, int] = (4, 128, 256)
    seed: int = 0
    scan: Literal["step", "fly"] = "step"
    delay_range: tuple[float, float] = (-2.0, 5.0)
    n_steps: int = 15
    t0: float = 0.3
    rise: float = 0.1
    decay: float = 1.5
    delay_jitter: float = 0.1
    tt_error: float = 0.02
    tt_failures: float = 0.03
    laser_off_every: int = 3
    xray_off_every: int = 50
    i0_jitter: float = 0.12
    i0_error: float = 0.002
    photon_energy: float = 9500.0
    line_energy: float = 6400.0
    line_density: float = 0.002
    charge_sigma: float = 0.12
    pixel_size: float = 75e-6
    missing: float = 0.005
    dead: float = 1e-3
    hot: float = 5e-4
    bad_code: float = 2e-4
    bad_code_rate: float = 2e-6
    rings: tuple[SimulatedRing, ...] = RINGS
    spots: tuple[Spot, ...] = SPOTS
    background: float = 1.5

    @property
    def token(self) -> str:
        """Name of this recipe: the same in every process, another for every other recipe."""
        return hashlib.sha256(repr(self).encode()).hexdigest()[:24]

    @property
    def start(self) -> np.datetime64:
        """Time of the first event: each seed has its own day, so that no two runs share an event."""
        return EPOCH + np.timedelta64(self.seed % DAYS, "D")

    @property
    def pixels(self) -> int:
        """Pixels of one frame."""
        return self.shape[0] * self.shape[1] * self.shape[2]


def key_of(recipe: SimulatedScan, purpose: str) -> np.uint64:
    """Key of the random numbers of one purpose: independent of those of the others."""
    digest = hashlib.sha256(f"{recipe.seed}|{purpose}".encode()).digest()
    return np.uint64(int.from_bytes(digest[:8], "little"))


def uniform(recipe: SimulatedScan, purpose: str, first: int, n: int) -> npt.NDArray[np.float64]:
    """Return ``n`` uniform numbers of one purpose, from counter ``first`` on."""
    from xsmall.kernels.simulate import uniforms

    out = np.empty(n)
    uniforms(key_of(recipe, purpose), first, out)
    return out


def normal(recipe: SimulatedScan, purpose: str, first: int, n: int) -> npt.NDArray[np.float64]:
    """Return ``n`` normal numbers of one purpose, from counter ``first`` on."""
    from xsmall.kernels.simulate import normals

    out = np.empty(n)
    normals(key_of(recipe, purpose), first, out)
    return out


@dataclass(frozen=True)
class SimulatedEvents:
    """Event variables, true ones and measured ones, each (event,) unless said otherwise.

    Attributes
    ----------
    number
        Number of the event in the run.
    step
        Number of the scan step, all 0 in a fly scan.
    nominal, jitter, true_delay
        Delay that was asked for, arrival jitter, and their sum (ps).
    response
        Of the sample, 0 where the laser is off.
    pulse, i0
        True pulse energy (0 where the X-rays are off) and the measured one.
    laser_on, xray_on
        What there was.
    tt_position, tt_amplitude, tt_fwhm, delay
        The time tool and the delay corrected by it (ps); NaN where it did not fit. Without laser there is nothing to
        fit and ``delay`` is the nominal one.
    present
        (event, segment): whether the segment came.
    """

    number: npt.NDArray[np.int64]
    step: npt.NDArray[np.int32]
    nominal: npt.NDArray[np.float64]
    jitter: npt.NDArray[np.float64]
    true_delay: npt.NDArray[np.float64]
    response: npt.NDArray[np.float64]
    pulse: npt.NDArray[np.float64]
    i0: npt.NDArray[np.float64]
    laser_on: npt.NDArray[np.bool_]
    xray_on: npt.NDArray[np.bool_]
    tt_position: npt.NDArray[np.float64]
    tt_amplitude: npt.NDArray[np.float64]
    tt_fwhm: npt.NDArray[np.float64]
    delay: npt.NDArray[np.float64]
    present: npt.NDArray[np.bool_]


def _scan(
    recipe: SimulatedScan, number: npt.NDArray[np.int64]
) -> tuple[npt.NDArray[np.int32], npt.NDArray[np.float64]]:
    """Step and nominal delay: equal steps one after the other, or one sweep forth and back."""
    low, high = recipe.delay_range
    if recipe.scan == "step":
        step = (number * recipe.n_steps // max(recipe.n_events, 1)).astype(np.int32)
        part = step / max(recipe.n_steps - 1, 1)
    else:
        step = np.zeros(number.size, dtype=np.int32)
        part = 1.0 - np.abs(2.0 * (number + 0.5) / max(recipe.n_events, 1) - 1.0)
    return step, low + (high - low) * part


def event_variables(recipe: SimulatedScan, first: int, stop: int) -> SimulatedEvents:
    """Make the variables of events ``first`` to ``stop`` (not included)."""
    number = np.arange(first, stop, dtype=np.int64)
    n = number.size
    step, nominal = _scan(recipe, number)
    every = recipe.laser_off_every
    laser_on = number % every != every - 1 if every > 0 else np.ones(n, bool)
    every = recipe.xray_off_every
    xray_on = number % every != every - 1 if every > 0 else np.ones(n, bool)

    jitter = recipe.delay_jitter * normal(recipe, "jitter", first, n)
    true_delay = nominal + jitter
    response = np.where(laser_on, response_to(recipe, true_delay), 0.0)
    width = recipe.i0_jitter
    pulse = np.where(xray_on, np.exp(width * normal(recipe, "pulse", first, n) - 0.5 * width**2), 0.0)
    i0 = pulse * (1.0 + recipe.i0_error * normal(recipe, "i0 gain", first, n))
    i0 += 0.001 * normal(recipe, "i0 noise", first, n)

    fitted = laser_on & xray_on & (uniform(recipe, "time tool", first, n) >= recipe.tt_failures)
    error = recipe.tt_error * normal(recipe, "time tool error", first, n)
    tt_position = np.where(fitted, jitter + error, np.nan)
    amplitude = pulse * (1.0 + 0.1 * normal(recipe, "time tool amplitude", first, n))
    fwhm = 0.15 * (1.0 + 0.05 * normal(recipe, "time tool width", first, n))
    segments = recipe.shape[0]
    lost = uniform(recipe, "missing", first * segments, n * segments) < recipe.missing
    return SimulatedEvents(
        number=number,
        step=step,
        nominal=nominal,
        jitter=jitter,
        true_delay=true_delay,
        response=response,
        pulse=pulse,
        i0=i0,
        laser_on=laser_on,
        xray_on=xray_on,
        tt_position=tt_position,
        tt_amplitude=np.where(fitted, amplitude, np.nan),
        tt_fwhm=np.where(fitted, fwhm, np.nan),
        delay=np.where(laser_on, nominal + tt_position, nominal),
        present=~lost.reshape(n, segments),
    )


def response_to(recipe: SimulatedScan, delay: npt.ArrayLike) -> npt.NDArray[np.float64]:
    """Response of the sample at a delay (ps): a step at ``t0`` with exponential decay, convolved with a Gaussian."""
    from xsmall.kernels.simulate import pump_response

    values = np.asarray(delay, dtype=np.float64)
    out = np.empty(values.size)
    pump_response(values.ravel(), recipe.t0, recipe.rise, recipe.decay, out)
    return out.reshape(values.shape)


def profile(recipe: SimulatedScan, q: npt.ArrayLike) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """Powder pattern at ``q`` (1/angstrom): photons per pixel for a pulse of 1, and its change for a response of 1."""
    values = np.asarray(q, dtype=np.float64)
    mean = recipe.background * np.exp(-0.5 * ((values - 1.5) / 0.6) ** 2)
    change = np.zeros_like(mean)
    for ring in recipe.rings:
        away = (values - ring.q) / ring.width
        shape = ring.photons * np.exp(-0.5 * away**2)
        mean += shape
        change += shape * (ring.change + ring.shift / ring.width * away)
    inside = 1.0 / (1.0 + np.exp(np.clip((values - CUTOFF) / EDGE, -60, 60)))
    inside /= 1.0 + np.exp(np.clip((BEAM_STOP - values) / EDGE, -60, 60))
    inside = np.where(mean * inside < FAINT, 0.0, inside)
    return mean * inside, change * inside
