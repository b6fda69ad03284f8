"""pyFAI: our geometry as a pyFAI detector with pixel corners, and geometry and beam out of a .poni file."""

from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from xsmall.detector.geometry.beam import Beam
from xsmall.detector.geometry.formats.poses import SWAP, Poni, poni_of
from xsmall.detector.geometry.geometry import Geometry
from xsmall.detector.geometry.panel import Floats, Panel
from xsmall.errors import GeometryError, MissingDependency, ParameterError
from xsmall.vocabulary import DISTANCE

__all__ = ["from_poni", "save_poni", "to_pyfai"]


def to_pyfai(geometry: Geometry, beam: Beam) -> Any:
    """Build a pyFAI ``AzimuthalIntegrator`` for this detector and beam.

    Parameters
    ----------
    geometry
        Of the whole detector.
    beam
        Distance needed; photon energy where pyFAI is to know q.

    Returns
    -------
    An ``AzimuthalIntegrator`` whose detector has the shape (segment * row, column), into which a frame is reshaped. Its
    axes (1, 2, 3) are (y, x, z - mean z), so that its ``chi`` is our ``azimuth`` and a .poni file that
    it writes goes back through :func:`beam_from_poni`. q, two_theta and solid angle are ours: centres stay float64,
    where pyFAI keeps float32 corners, and pyFAI's solid angle, which holds for one flat plane only, is replaced by the
    one of each pixel's own incidence. Pixels that are none are masked. Wide pixels at nominal centres are given their
    nominal size, so that the centres agree.

    Raises
    ------
    MissingDependency
        Where pyFAI is not installed.
    ParameterError
        Where the beam has no distance.

    Examples
    --------
    >>> import xsmall as xs
    >>> panel = xs.Panel(origin=(0, 0, 0.1), slow=(0, -1e-4, 0), fast=(1e-4, 0, 0), shape=(4, 8))
    >>> geometry = xs.Geometry.from_panels([panel])
    >>> ai = xs.to_pyfai(geometry, xs.Beam(photon_energy=9500, distance=0.1))  # doctest: +SKIP
    """
    beam.need(DISTANCE)
    detector_class, integrator_class = _pyfai_classes()
    pose = poni_of(beam)
    segments, rows, columns = geometry.shape
    shape = (segments * rows, columns)
    corners = np.full((*geometry.shape, 4, 3), np.nan)
    for panel in geometry.panels:
        corners[panel.memory] = _boxes(panel)
    corners[..., 2] -= geometry.distance
    missing = np.isnan(corners).any(axis=(-2, -1)).reshape(shape)
    corners = corners.reshape(*shape, 4, 3)[..., ::-1]  # (z, y, x)
    corners[missing] = np.nanmean(corners, axis=(0, 1, 2))
    pitch = geometry.panels[0].pitch
    detector = detector_class(pixel1=pitch[0], pixel2=pitch[1], max_shape=shape)
    detector.set_pixel_corners(np.ascontiguousarray(corners))
    detector.centres = np.moveaxis(corners.mean(axis=2), -1, 0)
    detector.IS_FLAT, detector.uniform_pixel = False, False
    detector.mask = missing.astype(np.int8)
    return integrator_class(
        dist=pose.dist,
        poni1=pose.poni1,
        poni2=pose.poni2,
        rot1=pose.rot1,
        rot2=pose.rot2,
        rot3=pose.rot3,
        detector=detector,
        wavelength=pose.wavelength,
    )


def save_poni(path: Path, integrator: Any, corners: Path) -> None:
    """Write the pose of an integrator of :func:`to_pyfai` as a .poni file whose detector is the file ``corners``."""
    from pyFAI.detectors import NexusDetector

    integrator.detector = NexusDetector(str(corners))
    integrator.save(str(path))


@lru_cache(maxsize=1)
def _pyfai_classes() -> tuple[Any, Any]:
    """Classes of pyFAI, the integrator with the solid angle of pixels that face different ways."""
    try:
        from pyFAI.detectors import Detector
        from pyFAI.integrator.azimuthal import AzimuthalIntegrator
    except ImportError:
        raise MissingDependency.of("pyFAI", "pyfai", "a pyFAI integrator") from None

    class PanelDetector(Detector):  # type: ignore[misc]
        """Detector whose centres are float64."""

        centres: Floats | None = None  # (z, y, x), row, column

        def calc_cartesian_positions(self, d1: Any = None, d2: Any = None, center: bool = True, **options: Any) -> Any:
            whole = d1 is None or (np.shape(d1) == tuple(self.shape) and np.shape(d2) == tuple(self.shape))
            if self.centres is None or not whole or not center:
                return super().calc_cartesian_positions(d1, d2, center=center, **options)
            z, y, x = self.centres
            return y, x, z

    class PanelIntegrator(AzimuthalIntegrator):  # type: ignore[misc]
        """Integrator over panels: cos(incidence) * (dist / r)**2 instead of cos(incidence)**3."""

        def diffSolidAngle(self, d1: Any, d2: Any) -> Any:
            z, y, x = self.calc_pos_zyx(d0=None, d1=d1, d2=d2)
            facing = np.abs(self.cos_incidence(d1, d2))
            return facing * self.dist**2 / (x**2 + y**2 + z**2)

    return PanelDetector, PanelIntegrator


def _boxes(panel: Panel) -> Floats:
    """Corners around the centres that the geometry uses."""
    boxes = panel.corners()
    for axis, step, index in ((panel.row_axis, panel.slow, 0), (panel.column_axis, panel.fast, 1)):
        edges = axis.edges()
        centres = axis.centres()
        low, high = edges[:, 0] - (centres - 0.5), edges[:, 1] - (centres + 0.5)
        odd = np.flatnonzero(np.abs(edges.mean(axis=1) - centres) > 1e-9)
        for i in odd:
            at = (i, slice(None)) if index == 0 else (slice(None), i)
            lower, upper = ((0, 1), (2, 3)) if index == 0 else ((0, 3), (1, 2))
            for corner in lower:
                boxes[(*at, corner)] -= low[i] * np.array(step)
            for corner in upper:
                boxes[(*at, corner)] -= high[i] * np.array(step)
    return boxes


def from_poni(source: str | Path) -> tuple[Geometry, Beam]:
    """Geometry and beam of a .poni file with a flat detector that pyFAI knows.

    Parameters
    ----------
    source
        Path of the file (pyFAI reads the detector from it, so the text alone is not enough).

    Returns
    -------
    A geometry of one segment in the lab frame, tilts included, and a beam that hits the origin of that frame at the
    distance of the detector. pyFAI's axes (1, 2, 3) become (y, x, z): ``azimuth`` is its ``chi``.

    Raises
    ------
    MissingDependency
        Where pyFAI is not installed.
    GeometryError
        Where the detector is no flat regular grid.
    FileFormatError
        For a file that is not a .poni file.
    """
    pose = Poni.read(source)
    try:
        import pyFAI
    except ImportError:
        raise MissingDependency.of("pyFAI", "pyfai", "a detector of a .poni file") from None
    detector = pyFAI.load(str(source)).detector
    if detector.shape is None:
        raise GeometryError(f"{source}: the detector has no shape", found=detector.name)
    corners = np.asarray(detector.get_pixel_corners(), dtype=np.float64)[..., [1, 2, 0]]
    panel = _panel_of_corners(
        corners, SWAP @ pose.rotation(), np.array([pose.poni1, pose.poni2, -pose.dist]), str(source)
    )
    geometry = Geometry.from_panels([panel])
    if geometry.distance <= 0:
        raise ParameterError(f"{source}: the detector lies behind the sample", found=geometry.distance)
    energy = pose.beam().photon_energy if pose.wavelength is not None else None
    return geometry, Beam(photon_energy=energy, distance=geometry.distance)


def _panel_of_corners(corners: Floats, turn: Floats, foot: Floats, source: str) -> Panel:
    """One panel through corners (row, column, 4, [1, 2, 3]) of pyFAI, placed by ``turn`` about ``foot``."""
    rows, columns = corners.shape[:2]
    centres = corners.mean(axis=2)
    slow = (centres[-1, 0] - centres[0, 0]) / (rows - 1) if rows > 1 else corners[0, 0, 1] - corners[0, 0, 0]
    fast = (centres[0, -1] - centres[0, 0]) / (columns - 1) if columns > 1 else corners[0, 0, 3] - corners[0, 0, 0]
    made = centres[0, 0] + np.arange(rows)[:, None, None] * slow + np.arange(columns)[None, :, None] * fast
    off = np.abs(made - centres).max()
    if off > 1e-3 * np.linalg.norm(fast):
        raise GeometryError(f"{source}: the detector is no flat regular grid", found=f"pixels up to {off:g} m off it")
    origin = turn @ (centres[0, 0] - foot)
    return Panel(origin=tuple(origin), slow=tuple(turn @ slow), fast=tuple(turn @ fast), shape=(rows, columns))
