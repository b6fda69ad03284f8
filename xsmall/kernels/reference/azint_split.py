"""Twin of :mod:`xsmall.kernels.azint_split`: shares counted by many points in each pixel."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]


def shares(
    radial: Floats, azimuth: Floats, edges: Floats, around: Floats | None, points: int = 200
) -> npt.NDArray[np.float64]:
    """Share of one pixel, a parallelogram of corners (4,), in each bin (sector, bin): points that fall into it."""
    turned = azimuth[0] + (azimuth - azimuth[0] + 180.0) % 360.0 - 180.0
    u, v = np.meshgrid(*[(np.arange(points) + 0.5) / points] * 2)
    r, a = (c[0] + u * (c[1] - c[0]) + v * (c[3] - c[0]) for c in (radial, turned))
    sectors = np.array([-np.inf, np.inf]) if around is None else around
    if around is not None:
        a = around[0] + (a - around[0]) % 360.0
    found, _, _ = np.histogram2d(a.ravel(), r.ravel(), [np.nan_to_num(sectors, posinf=1e9, neginf=-1e9), edges])
    return np.asarray(found / points**2)
