"""Contrast of speckle by maximum likelihood, each event with its own mean count.

Counts of a pixel follow the negative binomial distribution with M modes. Given how many photons an event has in all,
how they are spread over its n pixels does not depend on its mean count any more (a Dirichlet-multinomial
distribution), so that the mean counts need not be known and do not bias anything. With the contrast b = 1 / M, N_k
pixels with k photons and N photons in n pixels of an event, up to a constant,

    L(b) = sum_k N_k sum_{0<j<k} ln(1 + j b) - sum_events sum_{0<j<N} ln(1 + j b / n).

It makes sense for b below zero too, as far as all logarithms do: an estimate of zero contrast has to be free to fall
on either side.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from xsmall.kernels.jit import njit

__all__ = ["best_contrast", "slopes"]

_NODES, _WEIGHTS = np.polynomial.legendre.leggauss(24)
_DIRECT = 200
_MOST = 1e4
"""Largest contrast that is looked for: one is the most that light can have."""


@njit
def _sums(x: Any, n: Any) -> Any:
    """Sums of j / (1 + j x) and of its square over j from 0 to n - 1."""
    one = two = 0.0
    if n <= _DIRECT:
        for j in range(1, n):
            term = j / (1.0 + j * x)
            one += term
            two += term * term
        return one, two
    # the sum is the integral from -1/2 to n - 1/2, less 1/24 of the change of the slope between its ends
    low, high = -0.5, n - 0.5
    half, middle = 0.5 * (high - low), 0.5 * (high + low)
    for i in range(_NODES.size):
        t = middle + half * _NODES[i]
        term = t / (1.0 + t * x)
        one += half * _WEIGHTS[i] * term
        two += half * _WEIGHTS[i] * term * term
    below, above = 1.0 / (1.0 + low * x), 1.0 / (1.0 + high * x)
    one -= (above * above - below * below) / 24.0
    two -= 2.0 * (high * above**3 - low * below**3) / 24.0
    return one, two


@njit
def slopes(contrast: Any, held: Any, photons: Any, pixels: Any) -> Any:
    """First and second derivative of the log-likelihood by the contrast.

    Parameters
    ----------
    contrast
        Where.
    held
        (k,) pixels that hold k photons, of all events together.
    photons, pixels
        (event,) photons and valid pixels of each event.
    """
    first = second = 0.0
    for k in range(2, held.size):
        if held[k] > 0:
            one, two = _sums(contrast, k)
            first += held[k] * one
            second -= held[k] * two
    for i in range(photons.size):
        if photons[i] > 1:
            one, two = _sums(contrast / pixels[i], photons[i])
            first -= one / pixels[i]
            second += two / (pixels[i] * pixels[i])
    return first, second


@njit
def best_contrast(held: Any, photons: Any, pixels: Any) -> Any:
    """Contrast of the largest likelihood and its standard error; NaN without a pixel that holds two photons.

    See :func:`slopes` for the parameters. Infinite where all photons of each event lie in one pixel.
    """
    top = held.size - 1
    while top > 1 and held[top] == 0:
        top -= 1
    if top < 2:
        return np.nan, np.nan
    low, high = -1.0 / (top - 1), 1.0
    while slopes(high, held, photons, pixels)[0] > 0.0:
        low, high = high, 4.0 * high
        if high > _MOST:
            return np.inf, np.nan
    at = max(0.0, low)
    if at == low:
        at = 0.5 * (low + high)
    for _ in range(200):
        first, second = slopes(at, held, photons, pixels)
        if first > 0.0:
            low = at
        else:
            high = at
        to = at - first / second if second < 0.0 else np.inf
        if not low < to < high:
            to = 0.5 * (low + high)
        if abs(to - at) <= 1e-13 * max(1.0, abs(at)):
            at = to
            break
        at = to
    second = slopes(at, held, photons, pixels)[1]
    return at, math.sqrt(-1.0 / second) if second < 0.0 else np.nan
