"""Centre and distance from a few clicks on rings."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

from xsmall.detector.geometry.beam import Beam
from xsmall.detector.geometry.geometry import Geometry
from xsmall.detector.geometry.lookup import locate_pixels
from xsmall.detector.geometry.pixel import in_beam, position_array
from xsmall.errors import DataError, ParameterError
from xsmall.frames.fit_beam import moved_beam, ring_radii
from xsmall.kernels.rings import fit_circles
from xsmall.vocabulary import DISTANCE, Z

__all__ = ["Clicks", "RingFit"]

Floats = npt.NDArray[np.float64]
_ROUNDS: Final = 5  # a moved centre moves points by depth of panels and tilts, a little


@dataclass(frozen=True, eq=False)
class RingFit:
    """What clicks on rings say.

    Parameters
    ----------
    beam
        With the new centre, and the new distance where rings are known.
    residuals
        Distance of each click from its ring, outwards, in m.
    azimuth
        Of each click about the new centre, in degrees.
    ring
        Index of the ring of each click.
    radii
        Of the rings that were clicked on, in m, by their index.
    errors
        Standard errors of centre x and y, in m, and of the distance (NaN where it was not fitted).
    """

    beam: Beam
    residuals: Floats
    azimuth: Floats
    ring: npt.NDArray[np.int64]
    radii: dict[int, float]
    errors: tuple[float, float, float]

    def __str__(self) -> str:
        x, y = (1e3 * v for v in self.beam.center)
        dx, dy, dz = (1e3 * v for v in self.errors)
        text = f"centre ({x:.3f} +- {dx:.3f}, {y:.3f} +- {dy:.3f}) mm"
        if np.isfinite(dz) and self.beam.distance is not None:
            text += f", distance {1e3 * self.beam.distance:.3f} +- {dz:.3f} mm"
        rms = 1e6 * float(np.sqrt(np.mean(self.residuals**2)))
        return f"{text}\n{self.residuals.size} clicks on {len(self.radii)} rings, {rms:.0f} um rms from them"


class Clicks:
    """Clicks on rings, as positions in the frame of the beam to start with.

    Parameters
    ----------
    geometry, start
        The detector, and the beam that the clicks correct; tilts stay.
    known
        q of the rings in 1/angstrom: the distance is then fitted too. None: the centre alone.
    """

    def __init__(self, geometry: Geometry, start: Beam, known: Floats | None) -> None:
        self.geometry, self.start, self.known = geometry, start, known
        self.points: list[tuple[float, float, int]] = []

    def add(self, x: float, y: float, ring: int) -> None:
        """Add a click at (x, y) in m on the ring of this index.

        Raises
        ------
        DataError
            A click where no pixel is: its depth is not known.
        ParameterError
            A ring that is not among the known ones.
        """
        if self.known is not None and not 0 <= ring < self.known.size:
            raise ParameterError("no such ring", found=ring, expected=f"0 to {self.known.size - 1}")
        if locate_pixels(self.geometry, [x], [y])[0][0] < 0:
            raise DataError("a click on a ring is on a pixel", found=f"({x:.4g}, {y:.4g}) m, where no pixel is")
        self.points.append((float(x), float(y), int(ring)))

    def fit(self) -> RingFit:
        """Fit circles about one centre.

        Raises
        ------
        DataError
            Fewer clicks than the fit has unknowns.
        """
        ring = np.array([r for _, _, r in self.points], dtype=np.int64)
        there, index = np.unique(ring, return_inverse=True)
        needed = 3 if self.known is not None else 2 + there.size
        if ring.size < needed:
            raise DataError(
                "too few clicks on rings", found=f"{ring.size} clicks on {there.size} rings", expected=f"{needed}"
            )
        x, y, z = self._seen()
        distance = self.start.need(DISTANCE)
        center, now = np.zeros(2), distance
        q = None if self.known is None else self.known[there]
        for _ in range(_ROUNDS):
            scale = now / (z + now - distance)
            dx, dy = (x - center[0]) * scale, (y - center[1]) * scale
            if q is not None:
                radii = ring_radii(q, self.start, now)
            else:
                radii = np.array([np.hypot(dx, dy)[index == i].mean() for i in range(there.size)])
            fit = fit_circles(dx, dy, index, radii, known=q is not None)
            center = center + np.array(fit.center)
            now = now * fit.scale if q is not None else now
        off = np.hypot(dx - fit.center[0], dy - fit.center[1]) - fit.radii[index]
        angle = np.degrees(np.arctan2(dy - fit.center[1], dx - fit.center[0]))
        error = np.sqrt(np.diag(fit.covariance))
        third = float(error[2]) * now if q is not None else float("nan")
        found = {int(r): float(v) for r, v in zip(there, fit.radii, strict=True)}
        beam = moved_beam(self.start, (float(center[0]), float(center[1])), now)
        return RingFit(beam, off, angle, ring, found, (float(error[0]), float(error[1]), third))

    def _seen(self) -> tuple[Floats, Floats, Floats]:
        """Clicks as seen along the beam to start with: the pixel below, and where in it the click was."""
        x, y = (np.array([point[k] for point in self.points]) for k in (0, 1))
        at = np.column_stack([x, y, position_array(self.geometry, Z)[locate_pixels(self.geometry, x, y)]])
        seen = in_beam(self.geometry.panels[0], self.start, self.geometry.distance, at.astype(np.float64))
        return seen[:, 0], seen[:, 1], seen[:, 2]
