"""Kernels of the simulated run: counter-based random numbers, photons, charge sharing, gain switching, digitising.

Every random number is a hash of a key and of a counter (event, pixel), so that a frame does not depend on which frames
were made before it, nor on how the run is cut into chunks. The hash is the output function of SplitMix64 (Steele, Lea,
Flood, OOPSLA 2014). Floating arithmetic stays in the order it is written in: a seed means the same bits everywhere.
"""

from __future__ import annotations

import math
from statistics import NormalDist

import numpy as np
import numpy.typing as npt

from xsmall.kernels.jit import njit

__all__ = [
    "ADC_MAX",
    "BAD_CODE",
    "DEAD",
    "GOOD",
    "HOT",
    "QUANTILES",
    "SWITCH_HIGH",
    "SWITCH_MEDIUM",
    "add_photons",
    "digitise",
    "normals",
    "photon_counts",
    "photon_positions",
    "pump_response",
    "spoil_codes",
    "uniforms",
]

GOOD, DEAD, HOT, BAD_CODE = 0, 1, 2, 3
"""Kinds of pixels."""

ADC_MAX = 16383
SWITCH_HIGH = 14000.0  # ADU: above this the first stage hands over to the second
SWITCH_MEDIUM = 2500.0  # ADU: below this the second stage (negative gain) hands over to the third
HOT_OFFSET = 4000.0  # ADU that a hot pixel shows above its pedestal
HOT_NOISE = 25.0  # times the noise of a good one
FEW = 8.0  # photons: below, Poisson numbers by inversion; above, by their normal expansion

_GOLDEN = np.uint64(0x9E3779B97F4A7C15)
_MIX1 = np.uint64(0xBF58476D1CE4E5B9)
_MIX2 = np.uint64(0x94D049BB133111EB)
_S30, _S27, _S31, _S32, _S20, _S11 = (np.uint64(n) for n in (30, 27, 31, 32, 20, 11))
_LOW32 = np.uint64(0xFFFFFFFF)
_LOW20 = np.uint64(0xFFFFF)
_ONE = np.uint64(1)
_SURPLUS = 1.0 / 12.0 + 2.0 / 36.0  # variance that rounding and the square of the expansion add
_INVERSE = np.array([0.0] + [1.0 / k for k in range(1, 128)])


def _quantiles() -> npt.NDArray[np.float64]:
    """Quantiles of the normal distribution at i/4096; the two ends are never read."""
    inner = [NormalDist().inv_cdf(i / 4096) for i in range(1, 4096)]
    return np.array([-np.inf, *inner, np.inf])


QUANTILES: npt.NDArray[np.float64] = _quantiles()
"""The normal distribution as a table: linear between its entries, a formula in the two outermost ones.

A constant of the kernels: an array that is handed from kernel to kernel costs more than all the arithmetic.
"""


@njit(fastmath=False)
def _hash(key: np.uint64, counter: np.uint64) -> np.uint64:
    x = key + (counter + _ONE) * _GOLDEN
    x = (x ^ (x >> _S30)) * _MIX1
    x = (x ^ (x >> _S27)) * _MIX2
    return np.uint64(x ^ (x >> _S31))


@njit(fastmath=False)
def _uniform(word: np.uint64) -> float:
    """Uniform in (0, 1) of the upper 53 bits."""
    return (float(word >> _S11) + 0.5) * (1.0 / 9007199254740992.0)


@njit(fastmath=False)
def _normal(word32: np.uint64) -> float:
    """Normal number of 32 random bits: 12 choose the entry of the table, 20 the place within it."""
    entry = np.int64(word32 >> _S20)
    part = (float(word32 & _LOW20) + 0.5) * (1.0 / 1048576.0)
    if 0 < entry < 4095:
        below = QUANTILES[entry]
        return float(below + (QUANTILES[entry + 1] - below) * part)
    # Acklam's rational approximation of the tail, relative error 1e-9
    u = part / 4096.0 if entry == 0 else (1.0 - part) / 4096.0
    t = math.sqrt(-2.0 * math.log(u))
    top = (
        (((-7.784894002430293e-3 * t - 3.223964580411365e-1) * t - 2.400758277161838) * t - 2.549732539343734) * t
        + 4.374664141464968
    ) * t + 2.938163982698783
    bottom = (
        ((7.784695709041462e-3 * t + 3.224671290700398e-1) * t + 2.445134137142996) * t + 3.754408661907416
    ) * t + 1.0
    return top / bottom if entry == 0 else -top / bottom


@njit(fastmath=False)
def _poisson(mean: float, word32: np.uint64) -> float:
    """Poisson number of 32 random bits: inversion for a small mean, Cornish-Fisher expansion for a large one."""
    if mean <= 0.0:
        return 0.0
    if mean < FEW:
        u = (float(np.int64(word32)) + 0.5) * (1.0 / 4294967296.0)
        p = math.exp(-mean)
        below, k = 0.0, 0
        while k < 124:  # four terms at once without branches: whether u is above them cannot be foreseen
            c0 = below + p
            p1 = p * (mean * _INVERSE[k + 1])
            p2 = p1 * (mean * _INVERSE[k + 2])
            p3 = p2 * (mean * _INVERSE[k + 3])
            c1 = c0 + p1
            c2 = c1 + p2
            below = c2 + p3
            if u <= below:
                return float(k + int(u > c0) + int(u > c1) + int(u > c2))
            k += 4
            p = p3 * (mean * _INVERSE[k])
        return float(k)
    g = _normal(word32)
    return float(max(0.0, math.floor(mean + math.sqrt(mean - _SURPLUS) * g + (g * g - 1.0) / 6.0 + 0.5)))


@njit(fastmath=False)
def uniforms(key: np.uint64, first: int, out: npt.NDArray[np.float64]) -> None:
    """Fill ``out`` with the uniform numbers of counters ``first``, ``first + 1``, ..."""
    for i in range(out.size):
        out[i] = _uniform(_hash(key, np.uint64(first + i)))


@njit(fastmath=False)
def normals(key: np.uint64, first: int, out: npt.NDArray[np.float64]) -> None:
    """Fill ``out`` with the normal numbers of counters ``first``, ``first + 1``, ..."""
    for i in range(out.size):
        out[i] = _normal(_hash(key, np.uint64(first + i)) >> _S32)


@njit(fastmath=False)
def photon_counts(
    key: np.uint64,
    first: int,
    mean: npt.NDArray[np.float64],
    out: npt.NDArray[np.int64],
) -> None:
    """Fill ``out`` (event, segment) with Poisson numbers of ``mean`` (event,) for events ``first`` on."""
    for e in range(out.shape[0]):
        for s in range(out.shape[1]):
            counter = np.uint64((first + e) * out.shape[1] + s)
            out[e, s] = np.int64(_poisson(mean[e], _hash(key, counter) >> _S32))


@njit(fastmath=False)
def photon_positions(key: np.uint64, counter: int, rows: int, columns: int, out: npt.NDArray[np.float64]) -> None:
    """Fill ``out`` (photon, 2) with the places (row, column) of the photons of one frame, in pixels from its corner."""
    frame = _hash(key, np.uint64(counter))
    for k in range(out.shape[0]):
        out[k, 0] = _uniform(_hash(frame, np.uint64(2 * k))) * rows
        out[k, 1] = _uniform(_hash(frame, np.uint64(2 * k + 1))) * columns


@njit(fastmath=False)
def add_photons(
    energy: npt.NDArray[np.float32], positions: npt.NDArray[np.float64], value: float, sigma: float
) -> None:
    """Add photons of ``value`` to ``energy`` (row, column), each a Gaussian charge cloud of ``sigma`` pixels.

    A pixel gets the share of the cloud that lies above it; what falls beside the sensor is lost.
    """
    width = 1.0 / (sigma * math.sqrt(2.0))
    rows, columns = energy.shape
    share = np.empty((2, 3))
    for k in range(positions.shape[0]):
        r, c = int(positions[k, 0]), int(positions[k, 1])
        for axis in range(2):
            inside = positions[k, axis] - (r if axis == 0 else c)
            share[axis, 0] = 0.5 * math.erfc(inside * width)
            share[axis, 2] = 0.5 * math.erfc((1.0 - inside) * width)
            share[axis, 1] = 1.0 - share[axis, 0] - share[axis, 2]
        for i in range(3):
            for j in range(3):
                if 0 <= r + i - 1 < rows and 0 <= c + j - 1 < columns:
                    energy[r + i - 1, c + j - 1] += np.float32(value * share[0, i] * share[1, j])


@njit(fastmath=False)
def digitise(
    out: npt.NDArray[np.uint16],
    mean: npt.NDArray[np.float32],
    change: npt.NDArray[np.float32],
    extra: npt.NDArray[np.float32],
    pedestal: npt.NDArray[np.float32],
    gain: npt.NDArray[np.float32],
    noise: npt.NDArray[np.float32],
    kind: npt.NDArray[np.uint8],
    pulse: float,
    response: float,
    photon: float,
    key: np.uint64,
    first: int,
) -> None:
    """Make the raw words of one segment of one event.

    Parameters
    ----------
    out
        Raw words (pixel,): ADC in bits 0-13, gain code in bits 14-15 (0, 1, 3 for the three stages, 2 for bad).
    mean, change
        Photons per pixel of a pulse of 1, and how they change for a response of 1 (pixel,).
    extra
        Energy in keV put in beside that, such as single photons with charge sharing (pixel,).
    pedestal, gain, noise
        Constants (stage, pixel) in ADU, ADU/keV, ADU.
    kind
        One of :data:`GOOD`, :data:`DEAD`, :data:`HOT`, :data:`BAD_CODE` (pixel,).
    pulse, response
        Pulse energy and response of this event.
    photon
        Photon energy in keV.
    key, first
        Key of the random numbers, and counter of the first pixel.
    """
    for i in range(out.size):
        word = _hash(key, np.uint64(first + i))
        photons = _poisson(pulse * (mean[i] + response * change[i]), word & _LOW32)
        energy = photons * photon + extra[i]
        stage, code = 0, 0
        adc = pedestal[0, i] + gain[0, i] * energy
        if adc > SWITCH_HIGH:
            stage, code = 1, 1
            adc = pedestal[1, i] + gain[1, i] * energy
            if adc < SWITCH_MEDIUM:
                stage, code = 2, 3
                adc = pedestal[2, i] + gain[2, i] * energy
        g = _normal(word >> _S32)
        if kind[i] == HOT:
            stage, code = 0, 0
            adc = pedestal[0, i] + HOT_OFFSET + HOT_NOISE * noise[0, i] * g
        else:
            adc += noise[stage, i] * g
        value = int(min(max(math.floor(adc + 0.5), 0), ADC_MAX))
        if kind[i] == DEAD:
            value, code = 0, 0
        elif kind[i] == BAD_CODE:
            code = 2
        out[i] = np.uint16(value | (code << 14))


@njit(fastmath=False)
def spoil_codes(out: npt.NDArray[np.uint16], key: np.uint64, counter: int, rate: float) -> None:
    """Give about ``rate * pixels`` random words (pixel,) of one frame the bad gain code 2, in place."""
    frame = _hash(key, np.uint64(counter))
    number = np.int64(_poisson(rate * out.size, frame >> _S32))
    for k in range(number):
        i = np.int64(_uniform(_hash(frame, np.uint64(k))) * out.size)
        out[i] = np.uint16((np.int64(out[i]) & ADC_MAX) | (2 << 14))


@njit(fastmath=False)
def pump_response(
    delay: npt.NDArray[np.float64], t0: float, rise: float, decay: float, out: npt.NDArray[np.float64]
) -> None:
    """Fill ``out`` with a step at ``t0`` that decays exponentially, convolved with a Gaussian of rms ``rise``."""
    for i in range(delay.size):
        t = delay[i] - t0
        if t < -8.0 * rise:
            out[i] = 0.0
        else:
            out[i] = (
                0.5
                * math.exp(0.5 * (rise / decay) ** 2 - t / decay)
                * math.erfc((rise / decay - t / rise) / math.sqrt(2.0))
            )
