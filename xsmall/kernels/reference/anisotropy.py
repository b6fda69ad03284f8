"""Twin of :mod:`xsmall.kernels.anisotropy`: the fit itself, by NumPy's least squares, one ring at a time."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from numpy.polynomial import legendre

Floats = npt.NDArray[np.float64]


def fit(values: Floats, weight: Floats, cos2: Floats, orders: tuple[int, ...]) -> tuple[Floats, Floats]:
    """Amplitudes of the polynomials in ``values / weight``, and their standard errors from the scatter of the pixels.

    Pixels weigh by ``weight``; those that are not finite are left out.
    """
    good = np.isfinite(values)
    v, w, cos = values[good], weight[good], np.sqrt(cos2[good])
    design = np.stack([legendre.legval(cos, np.eye(o + 1)[o]) for o in orders], axis=1)
    root = np.sqrt(w)
    found, *_ = np.linalg.lstsq(design * root[:, None], v / root, rcond=None)
    rest = ((v / w - design @ found) ** 2 * w).sum() / (v.size - len(orders))
    return found, np.sqrt(rest * np.diag(np.linalg.inv((design * w[:, None]).T @ design)))
