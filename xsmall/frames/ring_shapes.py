"""The last step of :func:`fit_beam`: the shapes of all rings at once, fitted to the pixels themselves.

Circles through points on rings find the rings from far away, but a point is a centroid of a few pixels, and what their
grid does to it is no noise: it does not average out, and the scatter of the points does not show it. Here every pixel
near a ring is one datum: a Gaussian for each ring, on a background that is a parabola near each, as a function of q
(or of the radius, where the rings are not known) that centre and distance make of the place of the pixel.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt
from scipy.optimize import least_squares

from xsmall.detector.geometry.beam import HC

__all__ = ["ShapeFit", "fit_ring_shapes"]

Floats = npt.NDArray[np.float64]

MOST_NUMBERS: Final = 4e6  # of a table of slopes, 32 MB: of larger images every n-th pixel is taken
OUTLIER: Final = 5.0  # standard deviations
REACH: Final = 3.5  # widths of a ring to both sides that are fitted
INNER: Final = 0.7  # share of that, for the second fit that shows what the shape of the model does to the result
TO_SIGMA: Final = 1.4826
MOST_STEPS: Final = 40
"""The first fit of rings that are there takes up to 16 steps; where others were taken for them it has no end."""
OWN: Final = 5  # parameters of each ring: width, height, and three of the background


@dataclass(frozen=True)
class ShapeFit:
    """Where the rings say that the beam is.

    Parameters
    ----------
    center
        (x, y) in m, in the frame of the pixels.
    distance
        In m; the one given where it is not fitted.
    places
        q or radius of the rings.
    errors
        Standard errors of x and y in m, and of the distance in m (NaN where it is not fitted).
    """

    center: tuple[float, float]
    distance: float
    places: Floats
    errors: tuple[float, float, float]


@dataclass(frozen=True)
class _RingPixels:
    """Pixels near rings: places as seen along the beam, values, and the ring whose background they lie on."""

    x: Floats
    y: Floats
    z: Floats
    values: Floats
    ring: npt.NDArray[np.int64]

    def part(self, keep: npt.NDArray[np.bool_]) -> _RingPixels:
        return _RingPixels(self.x[keep], self.y[keep], self.z[keep], self.values[keep], self.ring[keep])


class _Model:
    """Values and slopes of rings on a background.

    Parameters: x and y of the centre, the distance (rings known) or the radii (not known), then for each ring the
    logarithm of its width, its height, and level, slope and curvature of the background.
    """

    def __init__(self, distance: float, known: Floats | None, wavelength: float | None, places: Floats) -> None:
        self.start, self.known, self.wavelength, self.n = distance, known, wavelength, places.size
        self.first = 3 if known is not None else 2 + self.n
        self.unit = places / 10  # scale of the background

    def places(self, p: Floats) -> Floats:
        return self.known if self.known is not None else p[2 : 2 + self.n]

    def coordinate(self, p: Floats, at: _RingPixels) -> tuple[Floats, Floats]:
        """Return q or radius of each pixel, and its slopes by x, y and distance (3, pixel)."""
        dx, dy = at.x - p[0], at.y - p[1]
        rho = np.maximum(np.hypot(dx, dy), 1e-12)
        depth = at.z if self.known is None else at.z + p[2] - self.start
        if self.known is None or self.wavelength is None:
            u, by_rho, by_depth = rho * self.start / depth, self.start / depth, np.zeros(rho.size)
        else:
            angle, square = np.arctan2(rho, depth), rho**2 + depth**2
            u = 4 * np.pi / self.wavelength * np.sin(angle / 2)
            by_angle = 2 * np.pi / self.wavelength * np.cos(angle / 2)
            by_rho, by_depth = by_angle * depth / square, -by_angle * rho / square
        return u, np.stack([-by_rho * dx / rho, -by_rho * dy / rho, by_depth])

    def values_and_slopes(self, p: Floats, at: _RingPixels) -> tuple[Floats, Floats]:
        u, by = self.coordinate(p, at)
        out, slopes, by_u = np.zeros(u.size), np.zeros((u.size, p.size)), np.zeros(u.size)
        places = self.places(p)
        for i in range(self.n):
            log_width, height, *ground = p[self.first + OWN * i : self.first + OWN * (i + 1)]
            width, column = np.exp(log_width), self.first + OWN * i
            away = (u - places[i]) / width
            bell = np.exp(-0.5 * np.minimum(away**2, 200.0))
            out += height * bell
            of_place = height * bell * away / width
            by_u -= of_place
            slopes[:, column], slopes[:, column + 1] = height * bell * away**2, bell
            own = at.ring == i
            far = (u[own] - places[i]) / self.unit[i]
            out[own] += ground[0] + ground[1] * far + ground[2] * far**2
            tilt = (ground[1] + 2 * ground[2] * far) / self.unit[i]
            by_u[own] += tilt
            slopes[own, column + 2], slopes[own, column + 3], slopes[own, column + 4] = 1.0, far, far**2
            if self.known is None:
                slopes[:, 2 + i] += of_place
                slopes[own, 2 + i] -= tilt
        slopes[:, :2] = (by_u * by[:2]).T
        if self.known is not None:
            slopes[:, 2] = by_u * by[2]
        return out, slopes


def fit_ring_shapes(
    pixels: tuple[Floats, Floats, Floats, Floats],
    center: tuple[float, float],
    distance: tuple[float, float],
    places: Floats,
    width: float,
    *,
    photon_energy: float | None = None,
) -> ShapeFit | None:
    """Fit all rings at once.

    Parameters
    ----------
    pixels
        x, y and z in m as seen from the sample, and values; outliers are found and left out.
    center
        (x, y) in m to begin with.
    distance
        Of the pixels as they are, and to begin with, in m.
    places
        Of the rings: q in 1/angstrom where ``photon_energy`` is given, else radii in m on the plane of the detector.
    width
        About that of a ring (full width at half maximum), in m.
    photon_energy
        In eV; the distance is then fitted.

    Returns
    -------
    What was found, or None where the fit did not end or the pixels do not determine it. The errors hold for noise of
    any size that changes smoothly with the intensity, and include by how much the result depends on how far from the
    rings the model is believed.
    """
    known = places if photon_energy is not None else None
    model = _Model(distance[0], known, None if photon_energy is None else HC / photon_energy, places)
    start, at, half = _begin(
        model, _RingPixels(*pixels, np.zeros(pixels[0].size, np.int64)), center, distance[1], places, width
    )
    if start is None:
        return None
    wide = _solve(model, start, at)
    if wide is None:
        return None
    u, _ = model.coordinate(start, at)
    inner = _solve(model, wide[0], at.part(np.abs(u - places[at.ring]) < INNER * half[at.ring]))
    if inner is None:
        return None
    n = 3 if known is not None else 2
    more = np.maximum(inner[1] - wide[1], 0.0)[:n]  # by how much fewer pixels alone would move it
    variance = wide[1][:n] + np.maximum((inner[0] - wide[0])[:n] ** 2 - more, 0.0)
    p, errors = wide[0], np.sqrt(variance)
    return ShapeFit(
        (float(p[0]), float(p[1])),
        float(p[2]) if known is not None else distance[1],
        model.places(p),
        (float(errors[0]), float(errors[1]), float(errors[2]) if known is not None else float("nan")),
    )


def _begin(
    model: _Model, every: _RingPixels, center: tuple[float, float], distance: float, places: Floats, width: float
) -> tuple[Floats | None, _RingPixels, Floats]:
    """Parameters to begin with, the pixels near rings, and how far from the rings they reach."""
    p = np.zeros(model.first + OWN * model.n)
    p[:2] = center
    p[2 : model.first] = distance if model.known is not None else places
    u, by = model.coordinate(p, every)
    steep = np.median(np.hypot(by[0], by[1]))
    gaps = np.minimum(np.diff(places, prepend=-np.inf), np.diff(places, append=np.inf))
    sigma = np.full(places.size, width * steep / 2.355)
    for _ in range(2):  # measured in a window made of a guess, then in one made of that
        half = np.minimum(REACH * sigma, gaps / 2)
        nearest = (
            np.abs(u[:, None] - places).argmin(axis=1)
            if places.size < 40
            else np.searchsorted((places[1:] + places[:-1]) / 2, u)
        )
        near = np.abs(u - places[nearest]) < half[nearest]
        for i in range(places.size):
            own = near & (nearest == i)
            if np.count_nonzero(own) < 50:
                return None, every, half
            sigma[i] = min(max(_width(np.abs(u[own] - places[i]), every.values[own], half[i]), half[i] / 10), half[i])
    at = _RingPixels(every.x, every.y, every.z, every.values, nearest).part(near)
    step = max(1, int(np.ceil(at.x.size * p.size / MOST_NUMBERS)))
    at = at.part(np.arange(at.x.size) % step == 0)
    for i in range(places.size):
        own = at.values[at.ring == i]
        low, high = np.percentile(own, [20, 95])
        p[model.first + OWN * i : model.first + OWN * i + 3] = np.log(sigma[i]), max(high - low, 1e-12), low
    return p, at, half


def _width(away: Floats, values: Floats, half: float) -> float:
    """Rms width of a ring from the mean profile of one side of it."""
    index = np.minimum((away / half * 12).astype(np.int64), 11)
    count = np.maximum(np.bincount(index, minlength=12), 1)
    profile = np.bincount(index, weights=np.clip(values, *np.percentile(values, [1, 99])), minlength=12) / count
    above = profile - profile[-2:].mean()
    if above[0] <= 0:
        return half / 2
    below = np.flatnonzero(above < above[0] / 2)
    return float((below[0] if below.size else 12) * half / 12 / 1.18)


def _solve(model: _Model, p: Floats, at: _RingPixels) -> tuple[Floats, Floats] | None:
    """Parameters and their variances: once robustly, then with outliers left out and pixels weighted by their noise."""
    if at.x.size < 10 * p.size:
        return None
    weight = np.full(at.x.size, 1 / max(_sigma(at.values - np.median(at.values)), 1e-300))
    found: Any = None
    for loss in ("soft_l1", "linear", "linear"):
        keep, w = at, weight

        def off(p: Floats, keep: _RingPixels = keep, w: Floats = w) -> Floats:
            out: Floats = (model.values_and_slopes(p, keep)[0] - keep.values) * w
            return out

        def slopes(p: Floats, keep: _RingPixels = keep, w: Floats = w) -> Floats:
            out: Floats = model.values_and_slopes(p, keep)[1] * w[:, None]
            return out

        found = least_squares(off, p, jac=slopes, x_scale="jac", loss=loss, xtol=1e-9, ftol=1e-8, max_nfev=MOST_STEPS)
        if not found.success and loss != "linear":
            return None
        p = found.x
        expected = model.values_and_slopes(p, at)[0]
        noise = _pixel_noise(expected, at.values - expected)
        usable = np.abs(at.values - expected) < OUTLIER * noise
        if loss != "linear":
            at, weight = at.part(usable), 1 / noise[usable]
    j = slopes(p)
    try:
        inverse = np.linalg.inv(j.T @ j)
    except np.linalg.LinAlgError:
        return None
    noisy = j.T @ (j * (off(p) ** 2)[:, None])  # noise as it is, pixel by pixel, whatever the weights
    variance = np.diag(inverse @ noisy @ inverse)
    if not (found.success and np.isfinite(p).all() and np.isfinite(variance).all() and (variance >= 0).all()):
        return None
    return p, variance


def _sigma(values: Floats) -> float:
    return TO_SIGMA * float(np.median(np.abs(values)))


def _pixel_noise(expected: Floats, off: Floats) -> Floats:
    """Standard deviation of each pixel, smooth in its expected value."""
    order = np.argsort(expected)
    groups = np.array_split(order, min(12, max(1, off.size // 200)))
    level = np.array([expected[g].mean() for g in groups])
    sigma = np.array([_sigma(off[g]) for g in groups])
    tiny = 1e-9 * max(float(np.abs(expected).max()), 1e-300)
    noise: Floats = np.maximum(np.interp(expected, level, sigma), max(tiny, 1e-3 * float(sigma.max())))
    return noise
