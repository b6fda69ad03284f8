"""Shapes of rings that are fitted to pixels: how long it takes where there are none."""

from typing import Any

import numpy as np
import pytest
from scipy.optimize import least_squares

from xsmall.frames import ring_shapes


def test_rings_that_are_not_there_are_given_up_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    fits = []

    def counted(*given: Any, **options: Any) -> Any:
        fits.append(least_squares(*given, **options))
        return fits[-1]

    monkeypatch.setattr(ring_shapes, "least_squares", counted)
    y, x = (a.ravel() for a in np.mgrid[-1e-2:1e-2:100j, -1e-2:1e-2:100j])
    noise = np.random.default_rng(0).normal(size=x.size)
    pixels = x, y, np.full(x.size, 0.1), noise
    places = np.array([0.3, 0.42])
    assert ring_shapes.fit_ring_shapes(pixels, (0, 0), (0.1, 0.1), places, 6e-4, photon_energy=9500) is None
    assert [fit.nfev for fit in fits] == [ring_shapes.MOST_STEPS]
