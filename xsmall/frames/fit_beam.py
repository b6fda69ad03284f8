"""Beam centre and distance from powder rings in an average image."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
import xarray as xr

from xsmall.detector.calibrants import calibrant_q
from xsmall.detector.geometry.beam import HC, Beam
from xsmall.detector.geometry.geometry import Geometry
from xsmall.detector.geometry.pixel import in_beam
from xsmall.errors import DataError, ParameterError
from xsmall.frames.beam import beam_of
from xsmall.frames.pixels import need_geometry
from xsmall.frames.ring_shapes import ShapeFit, fit_ring_shapes
from xsmall.kernels.rings import CircleFit, distortion, fit_circles, profile_peaks, radial_profile, ring_points
from xsmall.vocabulary import DISTANCE, PIXEL_DIMS

__all__ = [
    "BeamFit", "fit_beam", "known_rings", "moved_beam", "ring_radii", "start_of",
]  # fmt: skip

Floats = npt.NDArray[np.float64]

SECTORS = 48
SEARCH_PIXELS = 200_000
MAX_BINS = 4096
MAX_ROUNDS = 12
ENOUGH_POINTS = 16
WIDEST_GAP = 200.0  # degrees without a point
DISTORTED = (0.3, 6.0)  # pixels, and standard errors, from which on rings are no circles
GRID_ERROR = 0.02  # pixels by which the grid of pixels may displace a ring, whatever the counting noise


@dataclass(frozen=True)
class BeamFit:
    """What :func:`fit_beam` found.

    Parameters
    ----------
    beam
        The beam it started with, with the new centre and distance.
    center_error
        Standard errors of the centre (x, y) in m.
    distance_error
        Standard error of the distance in m; None where the distance was not fitted.
    radii
        Of the rings on the plane of the detector, in m.
    rings
        q of the known rings that were found, in 1/angstrom; empty where none were given.
    n_points
        Points on rings that the fit rests on.
    scatter
        Robust standard deviation of the points about their rings, in m.
    doubts
        Why the result is not to be trusted; empty where it is.
    """

    beam: Beam
    center_error: tuple[float, float]
    distance_error: float | None
    radii: tuple[float, ...]
    rings: tuple[float, ...]
    n_points: int
    scatter: float
    doubts: tuple[str, ...] = field(default=())

    @property
    def sure(self) -> bool:
        """True if the fit has no doubts."""
        return not self.doubts

    def __str__(self) -> str:
        x, y = (1e3 * value for value in self.beam.center)
        dx, dy = (1e3 * value for value in self.center_error)
        lines = [f"center ({x:.4f} +- {dx:.4f}, {y:.4f} +- {dy:.4f}) mm"]
        if self.distance_error is not None and self.beam.distance is not None:
            lines.append(f"distance {1e3 * self.beam.distance:.4f} +- {1e3 * self.distance_error:.4f} mm")
        lines.append(f"{len(self.radii)} rings, {self.n_points} points, scatter {1e6 * self.scatter:.1f} um")
        lines.append("sure" if self.sure else "NOT SURE: " + "; ".join(self.doubts))
        return "\n".join(lines)


def fit_beam(
    image: xr.DataArray,
    *,
    rings: Sequence[float] | str | None = None,
    search: float = 2e-3,
    ring_width: float | None = None,
) -> BeamFit:
    """Find where the beam hits the detector, and with known rings how far away it is.

    Parameters
    ----------
    image
        Average image (segment, row, column) with geometry; NaN where a pixel is masked. Its beam is where the search
        starts: ``center`` (the origin if not assigned), ``distance`` (the mean z of the geometry if not), tilts stay.
    rings
        q of the rings in 1/angstrom, or the name of a calibrant ("AgBh", "LaB6", "CeO2", "Si"); the distance is then
        fitted too and the photon energy has to be assigned. Without them only the centre is found.
    search
        How far from the start the centre may be, in m.
    ring_width
        Width of a ring in m; 5 pixels where not given.

    Returns
    -------
    Centre and distance with standard errors, and doubts where there are any: few points, rings on one side only, rings
    that do not fit the known ones, rings that are no circles about one centre (a tilt that was not assigned), a search
    that ended at its border. Nothing is assigned. A wrong photon energy cannot be seen: it gives another distance.

    Raises
    ------
    DataError
        Where the image has other dims than pixels, or no finite pixel.
    ParameterError
        For unknown calibrants, negative lengths, a missing photon energy.

    Notes
    -----
    The centre that makes the radial profile sharpest is refined by circles through the ring's centroids in 48 sectors,
    then by a fit of Gaussians on parabolas to the pixels near the rings. The errors are those of this fit: the noise
    of the pixels, and by how much the result depends on how far from the rings the model is believed. Depth of panels
    is taken into account along the ray from the sample. Cost: up to ten
    seconds for 4 Mpixel. The image is computed.

    Examples
    --------
    >>> import numpy as np, xarray as xr, xsmall as xs
    >>> panel = xs.Panel(origin=(-0.01, -0.01, 0.1), slow=(0, 1e-4, 0), fast=(1e-4, 0, 0), shape=(200, 200))
    >>> data = xr.DataArray(np.zeros((1, 200, 200)), dims=("segment", "row", "column"))
    >>> data = xs.assign_geometry(data, xs.Geometry.from_panels([panel]))
    >>> r = np.hypot(data.x - 3e-4, data.y + 2e-4)
    >>> fit = xs.fit_beam(data + np.exp(-(((r - 6e-3) / 2e-4) ** 2)))
    >>> fit.sure, tuple(round(value, 5) for value in fit.beam.center)
    (True, (0.0003, -0.0002))
    """
    if image.dims != PIXEL_DIMS:
        fix = "average first: data.mean('event')"
        raise DataError("fit_beam takes one image", found=f"dims {image.dims}", expected=f"dims {PIXEL_DIMS}", fix=fix)
    geometry = need_geometry(image)
    pitch = float(np.mean([panel.pitch for panel in geometry.panels]))
    width = 5 * pitch if ring_width is None else ring_width
    lengths: tuple[object, ...] = (search, width)
    if not all(isinstance(v, int | float | np.number) and 0 < v < np.inf for v in lengths):
        raise ParameterError("search and ring_width are lengths in m", found=(search, ring_width), expected="above 0")
    start = start_of(image, geometry)
    known = known_rings(rings, start)
    x, y, z, values = _good_pixels(image, geometry, start)
    low, high = np.percentile(values, [0.5, 99.5])
    scene = _Scene(x, y, z, np.clip(values, low, high), values, start.need(DISTANCE), pitch, width)
    coarse = _sharpest(scene, search)
    return _refine(scene, start, known, coarse, search)


def start_of(image: xr.DataArray, geometry: Geometry) -> Beam:
    """The beam that a search begins with: the assigned one, at the mean z of the geometry where it has no distance."""
    beam = beam_of(image) or Beam()
    beam.need_all()
    return beam if beam.distance is not None else beam.replace(distance=geometry.distance)


def known_rings(rings: Sequence[float] | str | None, beam: Beam) -> Floats | None:
    """q of rings, by their values or the name of a calibrant, as far as the photon energy reaches."""
    if rings is None:
        return None
    highest = 4 * np.pi / beam.wavelength * 0.99
    q = calibrant_q(rings, min(20.0, highest)) if isinstance(rings, str) else np.asarray(rings, dtype=np.float64)
    if q.ndim != 1 or q.size == 0 or not np.isfinite(q).all() or (q <= 0).any() or (np.diff(q) <= 0).any():
        raise ParameterError("rings", found=rings, expected="increasing q in 1/angstrom")
    return q[q < highest]


def _good_pixels(image: xr.DataArray, geometry: Geometry, beam: Beam) -> tuple[Floats, Floats, Floats, Floats]:
    """Good pixels as seen along the beam to start with: origin where that beam hits, z from the sample."""
    at = np.full((*geometry.shape, 3), np.nan)
    for panel in geometry.panels:
        at[panel.memory] = in_beam(panel, beam, geometry.distance)
    labels = np.ix_(*(np.atleast_1d(image.coords[dim].values) for dim in PIXEL_DIMS))
    values = np.asarray(image.values, dtype=np.float64)
    good = np.isfinite(values) & np.isfinite(at[labels]).all(axis=-1)
    if not good.any():
        raise DataError("an image without a finite pixel", fix="check the mask")
    x, y, z = (at[labels][..., i][good] for i in range(3))
    return x, y, z, values[good]


@dataclass
class _Scene:
    """Pixels in the frame of the beam, on the plane at ``distance``."""

    x: Floats
    y: Floats
    z: Floats
    values: Floats
    unclipped: Floats
    distance: float
    pitch: float
    width: float

    def about(self, center: tuple[float, float], distance: float, step: int = 1) -> tuple[Floats, Floats]:
        """x and y of every ``step``-th pixel from a centre, projected along the ray onto the plane."""
        part = slice(None, None, step)
        scale = distance / (self.z[part] + distance - self.distance)
        return (self.x[part] - center[0]) * scale, (self.y[part] - center[1]) * scale

    def profile(self, center: tuple[float, float], distance: float) -> Floats:
        """Mean radial profile in bins of a pixel."""
        radius = np.hypot(*self.about(center, distance))
        n = min(MAX_BINS, int(radius.max() / self.pitch) + 1)
        return radial_profile(radius, self.values, self.pitch, n)[0]

    @property
    def window(self) -> int:
        """Bins over which the background is smooth."""
        return 2 * max(20, int(4 * self.width / self.pitch)) + 1


def _sharpest(scene: _Scene, search: float) -> tuple[float, float]:
    """Centre about which the radial profile varies most, on grids that get finer down to a pixel."""
    step = max(1, scene.x.size // SEARCH_PIXELS)
    values = scene.values[::step]
    mean = float(values.mean())

    def sharpness(center: tuple[float, float]) -> float:
        radius = np.hypot(*scene.about(center, scene.distance, step))
        bin_width = max(scene.pitch, scene.width / 4)
        n = min(MAX_BINS, int(radius.max() / bin_width) + 1)
        profile, count = radial_profile(radius, values, bin_width, n)
        return float(np.nansum((profile - mean) ** 2 * count))

    best, reach = (0.0, 0.0), search
    n = min(33, max(7, 2 * int(np.ceil(search / scene.width)) + 1))  # a ring is seen from no farther than its width
    while reach > scene.pitch / 2:
        offsets, n = np.linspace(-reach, reach, n), 7
        candidates = [(best[0] + dx, best[1] + dy) for dx in offsets for dy in offsets]
        best = max((c for c in candidates if np.hypot(*c) <= 1.5 * search), key=sharpness)
        reach = 1.5 * float(offsets[1] - offsets[0])
    return best


def _refine(scene: _Scene, start: Beam, known: Floats | None, center: tuple[float, float], search: float) -> BeamFit:
    """Circles through the rings, measured again about each new centre until nothing moves."""
    distance, doubts = scene.distance, []
    fit: CircleFit | None = None
    found: Floats = np.empty(0)
    n_points, gap, off, times = 0, 360.0, 0.0, 0.0
    if known is not None:
        distance = _comb(scene, center, known, start)
    for _ in range(MAX_ROUNDS):
        places, q = _ring_radii(scene, center, distance, known, start)
        if places.size == 0:
            break
        angles, radii, ring = _ring_points(scene, center, distance, places)
        if angles.size < 4:
            break
        scale = radii * np.cos(angles), radii * np.sin(angles)
        nominal = ring_radii(q, start, distance) if known is not None else places
        fit = fit_circles(*scale, ring, nominal, known=known is not None)
        off, times = distortion(*scale, ring, fit)
        found, n_points, gap = q, angles.size, _widest_gap(angles)
        center = (center[0] + fit.center[0], center[1] + fit.center[1])
        moved = np.hypot(*fit.center)
        if known is not None:
            moved += abs(fit.scale - 1) * fit.radii.max()
            distance *= fit.scale
        if moved < 0.02 * scene.pitch:  # measuring again moves points by about that much
            break
    else:
        doubts.append(f"the centre still moved after {MAX_ROUNDS} rounds")
    if off > DISTORTED[0] * scene.pitch and times > DISTORTED[1]:
        doubts.append(f"the rings are no circles about one centre (off by {1e6 * off:.0f} um): a tilt not known?")
    shapes = None
    if fit is not None:
        energy = start.photon_energy if known is not None else None
        pixels = scene.x, scene.y, scene.z, scene.unclipped
        shapes = fit_ring_shapes(
            pixels, center, (scene.distance, distance), found if known is not None else fit.radii, scene.width,
            photon_energy=energy,
        )  # fmt: skip
        if shapes is None:
            doubts.append("the shapes of the rings could not be fitted, the errors are those of circles through points")
        else:
            center, distance = shapes.center, shapes.distance
    return _fit_report(
        scene, start, center, distance, fit, shapes, found, n_points, gap, search, known is not None, doubts
    )


def ring_radii(q: Floats, beam: Beam, distance: float) -> Floats:
    """Radii of rings on the plane at ``distance``."""
    theta = np.arcsin(np.minimum(q * HC / beam.need("photon_energy") / (4 * np.pi), 1.0))
    radii: Floats = distance * np.tan(2 * theta)
    return radii


def _comb(scene: _Scene, center: tuple[float, float], q: Floats, beam: Beam) -> float:
    """Distance at which the known rings meet the peaks of the profile best, within 15 % of the start."""
    profile = scene.profile(center, scene.distance)
    at = np.arange(profile.size)
    known = np.isfinite(profile)
    full = np.interp(at, at[known], profile[known])
    half = scene.window // 2
    base = np.median(np.lib.stride_tricks.sliding_window_view(np.pad(full, half, mode="edge"), scene.window), axis=1)
    above = np.clip(full - base[: full.size], 0, None)

    def score(distance: float) -> float:
        places = ring_radii(q, beam, distance) / scene.pitch - 0.5
        places = places[places < profile.size - 1]
        return float(np.interp(places, at, above).sum())

    tried = scene.distance * np.linspace(0.85, 1.15, 601)
    return float(tried[int(np.argmax([score(d) for d in tried]))])


def _ring_radii(
    scene: _Scene, center: tuple[float, float], distance: float, known: Floats | None, beam: Beam
) -> tuple[Floats, Floats]:
    """Radii of the rings in the image, and their q where they are known."""
    peaks, heights = profile_peaks(scene.profile(center, distance), scene.window)
    places = peaks * scene.pitch
    strong = places > 4 * scene.width
    places, heights = places[strong], heights[strong]
    if known is None:
        best = np.sort(np.argsort(heights)[::-1][:12])
        return places[best], np.empty(0)
    expected = ring_radii(known, beam, distance)
    if places.size == 0:
        return places, np.empty(0)
    nearest = np.abs(places[None, :] - expected[:, None]).argmin(axis=1)
    apart = np.diff(expected, append=np.inf)
    room = np.minimum(np.minimum(apart, np.roll(apart, 1)), 6 * scene.width) / 2
    room[0] = min(apart[0], 6 * scene.width) / 2
    near = np.abs(places[nearest] - expected) < np.maximum(room, scene.pitch)
    return places[nearest][near], known[near]


def _ring_points(
    scene: _Scene, center: tuple[float, float], distance: float, places: Floats
) -> tuple[Floats, Floats, npt.NDArray[np.int64]]:
    """Azimuth, radius and ring of all points on rings."""
    dx, dy = scene.about(center, distance)
    radius, azimuth = np.hypot(dx, dy), np.arctan2(dy, dx)
    gaps = np.minimum(np.diff(places, prepend=0.0), np.diff(places, append=np.inf))
    angles, radii, ring = [], [], []
    for i, place in enumerate(places):
        half = min(2.5 * scene.width, 0.5 * gaps[i])
        if half < 3 * scene.pitch:
            continue
        a, r = ring_points(radius, azimuth, scene.values, float(place), float(half), scene.pitch, SECTORS)
        angles.append(a)
        radii.append(r)
        ring.append(np.full(a.size, i))
    if not angles:
        return np.empty(0), np.empty(0), np.empty(0, dtype=np.int64)
    return np.concatenate(angles), np.concatenate(radii), np.concatenate(ring)


def moved_beam(start: Beam, by: tuple[float, float], distance: float) -> Beam:
    """Beam that hits ``by`` beside the old one, seen across the beam; a tilted detector is hit deeper then."""
    turn = start.rotation()
    on_detector = np.linalg.solve(turn[:2, :2], np.array(by))
    deeper = float(turn[2, :2] @ on_detector)
    x, y = np.array(start.center) + on_detector
    return start.replace(center=(float(x), float(y)), distance=distance + deeper)


def _widest_gap(angles: Floats) -> float:
    """Largest stretch of azimuth without a point, in degrees."""
    turned = np.sort(angles % (2 * np.pi))
    return float(np.degrees(np.diff(turned, append=turned[0] + 2 * np.pi).max()))


def _fit_report(
    scene: _Scene,
    start: Beam,
    center: tuple[float, float],
    distance: float,
    fit: CircleFit | None,
    shapes: ShapeFit | None,
    q: Floats,
    n_points: int,
    gap: float,
    search: float,
    known: bool,
    doubts: list[str],
) -> BeamFit:
    """Put the result together, with its doubts."""
    nothing = float("nan")
    if fit is None:
        reason = "no rings found" if not known else "none of the known rings found"
        return BeamFit(start, (nothing, nothing), nothing if known else None, (), (), 0, nothing, (reason,))
    grid = GRID_ERROR * scene.pitch / np.sqrt(max(1, fit.radii.size))
    floor = np.full(len(fit.covariance), grid)
    if known:
        floor[2] = grid / fit.radii.max()
    errors = np.sqrt(np.diag(fit.covariance) + floor**2)
    if shapes is not None:
        errors = np.array([*shapes.errors[:2], shapes.errors[2] / distance])
    if n_points < ENOUGH_POINTS:
        doubts.append(f"only {n_points} points on rings")
    if gap > WIDEST_GAP:
        doubts.append(f"no points on {gap:.0f} degrees of azimuth")
    if max(errors[:2]) > scene.pitch:
        doubts.append("the centre is uncertain by more than a pixel")
    if fit.scatter > scene.width / 2:
        doubts.append("the points scatter by more than half the width of a ring")
    moved = np.hypot(*center)
    if moved > search:
        doubts.append(f"the centre lies {1e3 * moved:.2f} mm from the start, beyond the search")
    if known and len(q) < 2:
        doubts.append("only one known ring: another ring taken for it would give another distance")
    if known and (fit.weights < 0.3).mean() > 0.3:
        doubts.append("many points do not lie on the known rings")
    beam = moved_beam(start, center, distance)
    error = float(errors[2]) * distance if known else None
    return BeamFit(
        beam, (float(errors[0]), float(errors[1])), error, tuple(fit.radii.tolist()), tuple(q.tolist()),
        n_points, fit.scatter, tuple(doubts),
    )  # fmt: skip
