"""The simulated detector: where its pixels are, its constants, its bad pixels, and what shines on it."""

from __future__ import annotations

import math
import threading
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final

import numpy as np
import numpy.typing as npt

from xsmall.simulation.recipe import SimulatedScan, normal, profile, uniform
from xsmall.vocabulary import Reason

if TYPE_CHECKING:
    from xsmall.detector.geometry.geometry import Geometry

__all__ = ["Tables", "geometry_of", "layout", "tables"]

GAP: Final = 8  # pixels between modules
WIDEST: Final = math.radians(35.0)  # scattering angle at half the detector's mean size: sets the distance
HC: Final = 12398.419843320026  # eV angstrom
GOOD, DEAD, HOT, BAD_CODE = range(4)  # kinds of pixels, as in kernels/simulate.py
FLAG_OF: Final = (0, int(Reason.DEAD), int(Reason.HOT), int(Reason.BAD_GAIN_CODE))  # by kind of pixel


@dataclass(frozen=True)
class ModulePlaces:
    """Places of the modules: origin, step per row and per column (segment, 3) in m, lab frame, and the distance."""

    origin: npt.NDArray[np.float64]
    slow: npt.NDArray[np.float64]
    fast: npt.NDArray[np.float64]
    distance: float


def layout(recipe: SimulatedScan) -> ModulePlaces:
    """Put the modules on a grid around the beam, as square as their number allows.

    Rows run down and columns to the right as seen looking downstream; modules in odd grid columns are turned by half
    a turn, as modules of real detectors are.
    """
    segments, rows, columns = recipe.shape

    def unevenness(across: int) -> float:
        return abs(math.log(math.ceil(segments / across) * rows / (across * columns)))

    across = min(range(segments, 0, -1), key=unevenness)
    down = math.ceil(segments / across)
    size = recipe.pixel_size
    height = down * rows + (down - 1) * GAP
    width = across * columns + (across - 1) * GAP
    distance = 0.5 * math.sqrt(height * width) * size / math.tan(WIDEST)
    origin, slow, fast = (np.zeros((segments, 3)) for _ in range(3))
    for s in range(segments):
        i, j = divmod(s, across)
        top = 0.5 * (height - 1) - i * (rows + GAP)  # y of the first row, in pixels
        left = 0.5 * (width - 1) - j * (columns + GAP)  # x grows to the left
        turn = -1.0 if j % 2 else 1.0
        if turn < 0:
            top -= rows - 1
            left -= columns - 1
        origin[s] = left * size, top * size, distance
        slow[s] = 0.0, -turn * size, 0.0
        fast[s] = -turn * size, 0.0, 0.0
    return ModulePlaces(origin, slow, fast, distance)


def geometry_of(recipe: SimulatedScan) -> Geometry:
    """Return the layout as a :class:`~xsmall.detector.geometry.geometry.Geometry`."""
    from xsmall.detector.geometry.geometry import Geometry, Panel

    where = layout(recipe)
    return Geometry.from_panels(
        [
            Panel(origin=tuple(o), slow=tuple(s), fast=tuple(f), shape=recipe.shape[1:])
            for o, s, f in zip(where.origin.tolist(), where.slow.tolist(), where.fast.tolist(), strict=True)
        ]
    )


@dataclass(frozen=True)
class Tables:
    """What a process needs to make frames: all (segment, pixel) or (stage, segment, pixel), read-only.

    Attributes
    ----------
    mean, change
        Photons per pixel for a pulse of 1, and their change for a response of 1.
    pedestal, gain, noise
        Constants in ADU, ADU/keV, ADU.
    kind
        0 good, 1 dead, 2 hot, 3 always the bad gain code.
    """

    mean: npt.NDArray[np.float32]
    change: npt.NDArray[np.float32]
    pedestal: npt.NDArray[np.float32]
    gain: npt.NDArray[np.float32]
    noise: npt.NDArray[np.float32]
    kind: npt.NDArray[np.uint8]

    @property
    def reasons(self) -> npt.NDArray[np.uint32]:
        """The bad pixels as flags of :class:`~xsmall.vocabulary.Reason` (segment, pixel)."""
        return np.array(FLAG_OF, dtype=np.uint32)[self.kind]


_KEPT: dict[SimulatedScan, Tables] = {}
_LOCK = threading.Lock()


def tables(recipe: SimulatedScan) -> Tables:
    """Return the tables of a recipe, made once per process; those of the last two detectors are kept."""
    recipe = replace(recipe, n_events=0)  # pixels do not depend on how many events there are
    with _LOCK:
        if recipe not in _KEPT:
            while len(_KEPT) >= 2:
                del _KEPT[next(iter(_KEPT))]
            _KEPT[recipe] = _make_tables(recipe)
        return _KEPT[recipe]


def _make_tables(recipe: SimulatedScan) -> Tables:
    segments, rows, columns = recipe.shape
    mean = np.empty((segments, rows * columns), dtype=np.float32)
    change = np.empty_like(mean)
    pedestal, gain, noise = (np.empty((3, segments, rows * columns), dtype=np.float32) for _ in range(3))
    kind = np.empty(mean.shape, dtype=np.uint8)
    where = layout(recipe)
    for s in range(segments):
        mean[s], change[s] = _illumination(recipe, where, s)
        pedestal[:, s], gain[:, s], noise[:, s] = _simulated_constants(recipe, s)
        kind[s] = _kinds(recipe, s)
    out = Tables(mean, change, pedestal, gain, noise, kind)
    for array in (mean, change, pedestal, gain, noise, kind):
        array.flags.writeable = False
    return out


def _illumination(
    recipe: SimulatedScan, where: ModulePlaces, s: int
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    _, rows, columns = recipe.shape
    row, column = np.mgrid[:rows, :columns]
    place = where.origin[s] + row[..., None] * where.slow[s] + column[..., None] * where.fast[s]
    x, y, z = place[..., 0], place[..., 1], place[..., 2]
    wavelength = HC / recipe.photon_energy
    q = 4.0 * np.pi / wavelength * np.sin(0.5 * np.arctan2(np.hypot(x, y), z))
    mean, change = profile(recipe, q)
    for spot in recipe.spots:
        radius, outer = (_radius_at(q, wavelength, where.distance) for q in (spot.q, spot.q + spot.width))
        if not math.isfinite(outer):
            continue  # nothing goes there at this photon energy
        angle = math.radians(spot.azimuth)
        away = np.hypot(x - radius * math.cos(angle), y - radius * math.sin(angle)) / (outer - radius)
        shape = np.where(away < 6.0, spot.photons * np.exp(-0.5 * away**2), 0.0)
        mean = mean + shape
        change = change + spot.change * shape
    return mean.ravel(), change.ravel()


def _radius_at(q: float, wavelength: float, distance: float) -> float:
    """Distance from the beam at which q meets the detector, in m; infinite where it does not go forward."""
    sine = q * wavelength / (4.0 * np.pi)
    return distance * math.tan(2.0 * math.asin(sine)) if sine < math.sin(math.pi / 4) else math.inf


def _simulated_constants(recipe: SimulatedScan, s: int) -> tuple[npt.NDArray[np.float64], ...]:
    """Pedestal, gain and noise (stage, pixel), of the size that JUNGFRAU modules have."""
    _, rows, columns = recipe.shape
    n = rows * columns

    def draw(purpose: str, *shape: int) -> npt.NDArray[np.float64]:
        size = math.prod(shape)
        return normal(recipe, purpose, s * size, size).reshape(shape)

    chip = np.repeat(60.0 * draw("pedestal of chip", 4), math.ceil(columns / 4))[:columns]
    stripe = (chip + 15.0 * draw("pedestal of column", columns))[None, :] + 8.0 * draw("pedestal of row", rows, 1)
    pedestal = np.stack([2900.0 + stripe.ravel(), 15100.0 - 0.3 * stripe.ravel(), 15000.0 - 0.3 * stripe.ravel()])
    pedestal += 20.0 * draw("pedestal", 3, n)
    gain = np.array([[41.0], [-1.45], [-0.11]]) * (1.0 + 0.02 * draw("gain", 3, n))
    noise = np.array([[9.0], [3.5], [3.5]]) * np.clip(1.0 + 0.08 * draw("noise", 3, n), 0.7, 1.5)
    return pedestal, gain, noise


def _kinds(recipe: SimulatedScan, s: int) -> npt.NDArray[np.uint8]:
    n = recipe.shape[1] * recipe.shape[2]
    u = uniform(recipe, "bad pixels", s * n, n)
    limits = np.cumsum([recipe.dead, recipe.hot, recipe.bad_code])
    return np.select([u < limits[0], u < limits[1], u < limits[2]], [DEAD, HOT, BAD_CODE], default=GOOD).astype(
        np.uint8
    )
