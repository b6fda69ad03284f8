"""A million points of space back to the pixels of a Jungfrau 4M."""

from __future__ import annotations

import numpy as np

from benchmarks import Call, Case, optional, read
from xsmall.detector.geometry.geometry import Geometry
from xsmall.detector.geometry.lookup import locate_pixels


def jungfrau(segments: int = 8) -> Geometry:
    """Segments of a Jungfrau in two columns, each turned a little."""
    head = "IP 0 CAMERA 0 0 0 100000 90 0 0 0 0 0"
    lines = [
        f"CAMERA 0 JUNGFRAU:V2 {i} {79000.0 * (i % 2)} {40500.0 * (i // 2)} 0 0 0 0 {0.05 * i:.3f} 0 0"
        for i in range(segments)
    ]
    return Geometry.from_psana("\n".join([head, *lines]))


def cases(scale: float) -> list[Case]:
    """Points all over the detector, gaps included, in random order and along rows."""
    geometry = jungfrau()
    at = geometry.positions()
    n = int(1_000_000 * scale)
    rng = np.random.default_rng(0)
    x, y = (rng.uniform(at[..., k].min(), at[..., k].max(), n) for k in (0, 1))
    some = slice(0, max(1, n // 20))

    def panel_by_panel() -> None:
        """What one writes with NumPy: every point on every panel of regular pixels."""
        for panel in geometry.panels:
            across = np.array([[panel.slow[0], panel.fast[0]], [panel.slow[1], panel.fast[1]]])
            inverse = np.linalg.inv(across)
            dx, dy = x - panel.origin[0], y - panel.origin[1]
            row = np.floor(inverse[0, 0] * dx + inverse[0, 1] * dy + 0.5)
            column = np.floor(inverse[1, 0] * dx + inverse[1, 1] * dy + 0.5)
            np.flatnonzero((row >= 0) & (row < panel.shape[0]) & (column >= 0) & (column < panel.shape[1]))

    baselines: dict[str, Call] = {"NumPy, panel by panel": panel_by_panel}
    spatial = optional("scipy.spatial")
    if spatial is not None:
        tree = spatial.cKDTree(at[..., :2].reshape(-1, 2)[:: 1 if scale == 1 else 100])
        points = np.stack([x[some], y[some]], axis=1)
        baselines["scipy cKDTree, a twentieth of the points"] = lambda: tree.query(points)
    return [Case(f"locate {n} points", lambda: locate_pixels(geometry, x, y), 1, baselines, read(x, y))]
