"""Twin of :mod:`xsmall.kernels.contrast`."""

from __future__ import annotations

from math import lgamma

import numpy as np
import numpy.typing as npt


def log_likelihood(contrast: float, n_k: npt.NDArray[np.int64]) -> float:
    """Logarithm of the probability of the counts ``n_k`` (event, k) given how many photons each event has.

    For a contrast above 0: the negative binomial of each pixel over that of the sum of all pixels.
    """
    modes, total = 1.0 / contrast, 0.0
    for counts in n_k:
        pixels = int(counts.sum())
        photons = sum(k * int(n) for k, n in enumerate(counts))
        if pixels == 0:
            continue
        total += sum(int(n) * (lgamma(k + modes) - lgamma(modes) - lgamma(k + 1)) for k, n in enumerate(counts))
        total -= lgamma(photons + pixels * modes) - lgamma(pixels * modes) - lgamma(photons + 1)
    return total
