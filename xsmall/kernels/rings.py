"""Rings in an image: radial profiles, peaks in them, circles through points; each call is one image."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.optimize import least_squares

__all__ = ["CircleFit", "distortion", "fit_circles", "profile_peaks", "radial_profile", "ring_points"]

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]

ROUNDS = 4
HUBER = 1.5  # residuals beyond this many standard deviations count less
TO_SIGMA = 1.4826  # median absolute deviation of a normal distribution


def radial_profile(radius: Floats, values: Floats, width: float, n: int) -> tuple[Floats, Ints]:
    """Mean of ``values`` in ``n`` bins of ``width`` from 0, NaN where a bin is empty, and their counts."""
    index = (radius / width).astype(np.int64)
    inside = index < n
    count = np.bincount(index[inside], minlength=n)
    total = np.bincount(index[inside], weights=values[inside], minlength=n)
    with np.errstate(invalid="ignore"):
        return total / np.where(count, count, np.nan), count


def profile_peaks(profile: Floats, window: int, threshold: float = 6.0) -> tuple[Floats, Floats]:
    """Peaks of a profile: their places in bins and their heights above a running median, in units of the noise."""
    from scipy.signal import find_peaks  # takes a second to import: not before it is used

    known = np.isfinite(profile)
    if known.sum() < 8:
        return np.empty(0), np.empty(0)
    at = np.arange(profile.size)
    full = np.interp(at, at[known], profile[known])
    padded = np.pad(full, window // 2, mode="reflect" if full.size > window else "edge")
    base = np.median(np.lib.stride_tricks.sliding_window_view(padded, window), axis=1)[: full.size]
    above = full - base
    smooth = np.convolve(np.pad(above, 1, mode="edge"), [0.25, 0.5, 0.25], mode="valid")
    noise = TO_SIGMA * np.median(np.abs(smooth - np.median(smooth))) + 1e-12 * np.abs(full).max() + 1e-300
    # of several tops within a window's sixth only the highest is a ring
    top, _ = find_peaks(smooth, height=threshold * noise, distance=window // 6 + 1)
    top = top[known[top]]
    return top + 0.5, smooth[top] / noise


def ring_points(
    radius: Floats, azimuth: Floats, values: Floats, ring: float, half: float, width: float, sectors: int
) -> tuple[Floats, Floats]:
    """Where a ring lies in each sector: azimuth (radians) and radius, only of sectors that see all of it.

    Each sector's mean profile within ``ring`` +- ``half`` loses a straight background through its ends; the ring is the
    centroid of what is above half of the maximum.
    """
    near = np.abs(radius - ring) < half
    n = max(5, int(2 * half / width))
    step = 2 * half / n
    bins = np.minimum(((radius[near] - ring + half) / step).astype(np.int64), n - 1)
    sector = ((azimuth[near] / (2 * np.pi) % 1.0) * sectors).astype(np.int64) % sectors
    flat = sector * n + bins
    count = np.bincount(flat, minlength=sectors * n).reshape(sectors, n)
    total = np.bincount(flat, weights=values[near], minlength=sectors * n).reshape(sectors, n)
    turn = np.bincount(sector, weights=azimuth[near] % (2 * np.pi), minlength=sectors)
    pixels = np.bincount(sector, minlength=sectors)
    angles, radii = [], []
    places = np.bincount(flat, weights=radius[near], minlength=sectors * n).reshape(sectors, n)
    for i in np.flatnonzero((count > 0).all(axis=1)):
        mean, place = total[i] / count[i], places[i] / count[i]
        ends = max(1, n // 6)
        low, high = np.median(mean[:ends]), np.median(mean[-ends:])
        above = mean - np.interp(place, [place[ends // 2], place[-1 - ends // 2]], [low, high])
        top = int(np.argmax(above))
        noise = TO_SIGMA * np.median(np.abs(np.diff(mean))) / np.sqrt(2)
        if not ends <= top < n - ends or above[top] <= 2 * noise:
            continue
        first = last = top
        while first > 0 and above[first - 1] > above[top] / 2:
            first -= 1
        while last < n - 1 and above[last + 1] > above[top] / 2:
            last += 1
        # less the half, so that a pixel that enters or leaves at the border counts nothing at that moment
        weight = above[first : last + 1] - above[top] / 2
        radii.append(float((weight * place[first : last + 1]).sum() / weight.sum()))
        angles.append(float(turn[i] / pixels[i]))
    return np.array(angles), np.array(radii)


@dataclass(frozen=True)
class CircleFit:
    """Centre, and either the scale of known radii or the radii themselves, with their covariance.

    Parameters
    ----------
    center
        (x, y).
    scale
        Factor of the known radii; NaN where radii were free.
    radii
        Of each ring.
    covariance
        Of (x, y, scale) or (x, y, radii ...).
    scatter
        Robust standard deviation of the points about their circles.
    weights
        Between 0 and 1 per point: how far it was believed.
    """

    center: tuple[float, float]
    scale: float
    radii: Floats
    covariance: Floats
    scatter: float
    weights: Floats


def fit_circles(x: Floats, y: Floats, ring: Ints, radii: Floats, *, known: bool) -> CircleFit:
    """Circles with one centre through points, by Huber-weighted least squares.

    Parameters
    ----------
    x, y, ring
        Points, and the index of the circle that each belongs to.
    radii
        Radii to begin with; with ``known`` they are known up to one common factor.
    """
    n_rings = radii.size
    parameters = np.concatenate([[0.0, 0.0], [1.0] if known else radii])

    def off(p: Floats) -> Floats:
        model = radii[ring] * p[2] if known else p[2:][ring]
        left: Floats = np.hypot(x - p[0], y - p[1]) - model
        return left

    def slopes(p: Floats) -> Floats:
        dx, dy = x - p[0], y - p[1]
        r = np.hypot(dx, dy)
        jacobian = np.zeros((x.size, p.size))
        jacobian[:, 0], jacobian[:, 1] = -dx / r, -dy / r
        if known:
            jacobian[:, 2] = -radii[ring]
        else:
            jacobian[np.arange(x.size), 2 + ring] = -1.0
        return jacobian

    scatter = TO_SIGMA * float(np.median(np.abs(off(parameters))))
    for _ in range(ROUNDS):  # what counts less depends on the scatter, which depends on the fit
        limit = max(HUBER * scatter, 1e-300)
        found = least_squares(off, parameters, jac=slopes, loss="huber", f_scale=limit, x_scale="jac", xtol=1e-12)
        parameters, scatter = found.x, TO_SIGMA * float(np.median(np.abs(off(found.x))))
    size = np.abs(off(parameters)) / max(scatter, 1e-300)
    weights = np.where(size > HUBER, HUBER / np.maximum(size, HUBER), 1.0)
    jacobian = slopes(parameters)
    normal = jacobian.T @ (weights[:, None] * jacobian)
    free = max(1.0, x.size - parameters.size)
    covariance = np.asarray(np.linalg.pinv(normal), dtype=np.float64) * scatter**2 * x.size / free
    scale = float(parameters[2]) if known else float("nan")
    fitted = radii * scale if known else parameters[2 : 2 + n_rings]
    return CircleFit((float(parameters[0]), float(parameters[1])), scale, fitted, covariance, scatter, weights)


def distortion(x: Floats, y: Floats, ring: Ints, fit: CircleFit) -> tuple[float, float]:
    """How far points depart from concentric circles in the ways in which a tilted detector makes them.

    A tilt moves the middle of a ring in proportion to the square of its radius and makes it an ellipse.

    Parameters
    ----------
    x, y, ring
        The points that were fitted.
    fit
        Circles through them.

    Returns
    -------
    Amplitude on the largest ring of the departure that stands out most, in the unit of the points, and how many of its
    standard errors that is; (0, 0) for points too few to say.
    """
    dx, dy = x - fit.center[0], y - fit.center[1]
    r, angle = np.hypot(dx, dy), np.arctan2(dy, dx)
    share = fit.radii[ring] / fit.radii.max()
    ways = [share**2 * np.cos(angle), share**2 * np.sin(angle), share * np.cos(2 * angle), share * np.sin(2 * angle)]
    own = (ring[:, None] == np.arange(fit.radii.size)).astype(np.float64)
    columns = np.column_stack([*ways, np.cos(angle), np.sin(angle), own])
    if fit.radii.size < 2:  # then a shift of the ring is one of the centre
        columns = columns[:, 2:]
    n_ways = len(ways) if fit.radii.size > 1 else len(ways) - 2
    if x.size <= columns.shape[1] + 8 or not fit.scatter > 0:
        return 0.0, 0.0
    weighted = fit.weights[:, None] * columns
    inverse = np.linalg.pinv(columns.T @ weighted)
    amplitude = (inverse @ (weighted.T @ (r - fit.radii[ring])))[:n_ways]
    left = r - fit.radii[ring] - columns @ (inverse @ (weighted.T @ (r - fit.radii[ring])))
    scatter = TO_SIGMA * float(np.median(np.abs(left)))
    error = np.sqrt(np.clip(np.diag(inverse)[:n_ways], 0, None) * x.size / (x.size - columns.shape[1])) * scatter
    times = np.abs(amplitude) / np.maximum(error, 1e-300)
    worst = int(np.argmax(times))
    return float(abs(amplitude[worst])), float(times[worst])
