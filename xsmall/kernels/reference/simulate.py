"""The twin of :mod:`xsmall.kernels.simulate`: the same numbers from whole-array NumPy, with exact quantiles."""

from __future__ import annotations

from statistics import NormalDist

import numpy as np
import numpy.typing as npt

__all__ = ["digitise", "hashes", "normal", "photon_shares"]

GOLDEN, MIX1, MIX2 = 0x9E3779B97F4A7C15, 0xBF58476D1CE4E5B9, 0x94D049BB133111EB


def hashes(key: int, counters: npt.NDArray[np.uint64]) -> npt.NDArray[np.uint64]:
    """Return SplitMix64's output for each counter, by Python's integers."""

    def one(counter: int) -> int:
        x = (key + (counter + 1) * GOLDEN) % 2**64
        x = ((x ^ (x >> 30)) * MIX1) % 2**64
        x = ((x ^ (x >> 27)) * MIX2) % 2**64
        return x ^ (x >> 31)

    return np.array([one(int(c)) for c in counters], dtype=np.uint64)


def normal(word32: npt.NDArray[np.uint64]) -> npt.NDArray[np.float64]:
    """Return the normal number of each 32 random bits, by the exact quantile function."""
    entries = (word32 >> np.uint64(20)).astype(np.float64)
    within = ((word32 & np.uint64(0xFFFFF)).astype(np.float64) + 0.5) / 2**20
    inverse = NormalDist().inv_cdf
    return np.array([inverse(u) for u in (entries + within) / 4096])


def photon_shares(place: float, pixels: int, sigma: float) -> npt.NDArray[np.float64]:
    """Return the share of a Gaussian cloud at ``place`` that lies above each of ``pixels`` pixels of one axis."""
    cloud = NormalDist(place, sigma)
    return np.array([cloud.cdf(i + 1) - cloud.cdf(i) for i in range(pixels)])


def digitise(
    energy: npt.NDArray[np.float64],
    g: npt.NDArray[np.float64],
    pedestal: npt.NDArray[np.float32],
    gain: npt.NDArray[np.float32],
    noise: npt.NDArray[np.float32],
    kind: npt.NDArray[np.uint8],
) -> npt.NDArray[np.uint16]:
    """Return the raw words of pixels (pixel,) that got ``energy`` (keV), with the noise ``g`` (in rms)."""
    signal = pedestal.astype(float) + gain.astype(float) * energy
    stage = np.where(signal[0] > 14000.0, np.where(signal[1] < 2500.0, 2, 1), 0)
    pixel = np.arange(energy.size)
    adc = signal[stage, pixel] + noise[stage, pixel].astype(float) * g
    code = np.array([0, 1, 3])[stage]
    hot, dead, bad = kind == 2, kind == 1, kind == 3
    adc = np.where(hot, pedestal[0].astype(float) + 4000.0 + 25.0 * noise[0].astype(float) * g, adc)
    code = np.select([hot | dead, bad], [0, 2], code)
    value = np.clip(np.floor(adc + 0.5), 0, 16383).astype(np.uint16)
    return np.where(dead, 0, value).astype(np.uint16) | (code << 14).astype(np.uint16)
