"""Rotations and their angles, right-handed, in the order of psana's geometry files."""

import numpy as np

from xsmall.detector.geometry.panel import Floats

__all__ = ["euler_angles", "rotation"]


def rotation(x: float, y: float, z: float) -> Floats:
    """Rotation by ``z`` about the z axis, then ``y`` about y, then ``x`` about x: float64 (3, 3).

    Parameters
    ----------
    x, y, z
        Angles in degrees, right-handed; quarter turns are exact.

    Returns
    -------
    The matrix Rx Ry Rz, to be applied to column vectors.

    Examples
    --------
    >>> from xsmall.detector.geometry.rotation import rotation
    >>> rotation(0, 0, 90).tolist()
    [[0.0, -1.0, 0.0], [1.0, 0.0, 0.0], [0.0, 0.0, 1.0]]
    """
    (cx, sx), (cy, sy), (cz, sz) = (_cos_sin(angle) for angle in (x, y, z))
    about_x = np.array([[1, 0, 0], [0, cx, -sx], [0, sx, cx]])
    about_y = np.array([[cy, 0, sy], [0, 1, 0], [-sy, 0, cy]])
    about_z = np.array([[cz, -sz, 0], [sz, cz, 0], [0, 0, 1]])
    turned: Floats = about_x @ about_y @ about_z + 0.0
    return turned


def _cos_sin(degrees: float) -> tuple[float, float]:
    """Cosine and sine, exact for quarter turns."""
    turns, rest = divmod(degrees, 90.0)
    if rest == 0:
        return ((1.0, 0.0), (0.0, 1.0), (-1.0, 0.0), (0.0, -1.0))[int(turns) % 4]
    return float(np.cos(np.radians(degrees))), float(np.sin(np.radians(degrees)))


def euler_angles(turn: Floats) -> tuple[float, float, float]:
    """Angles (x, y, z) in degrees with ``rotation(x, y, z) == turn``; x is 0 where y is a quarter turn.

    Examples
    --------
    >>> from xsmall.detector.geometry.rotation import euler_angles, rotation
    >>> [round(angle, 9) for angle in euler_angles(rotation(10, -20, 30))]
    [10.0, -20.0, 30.0]
    """
    across = float(np.hypot(turn[0, 0], turn[0, 1]))
    y = np.arctan2(turn[0, 2], across)
    if across > 1e-12:
        x, z = np.arctan2(-turn[1, 2], turn[2, 2]), np.arctan2(-turn[0, 1], turn[0, 0])
    else:
        x, z = 0.0, np.arctan2(turn[1, 0], turn[1, 1])
    return float(np.degrees(x)), float(np.degrees(y)), float(np.degrees(z))
