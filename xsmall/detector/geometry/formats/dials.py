"""DIALS: the detector as a hierarchical dxtbx model in JSON, and a refined model brought back.

DIALS' laboratory frame has z against the beam; here it is ours turned by half a turn about y: (x, y, z) = (-x, y, -z).
Lengths are in mm; a panel starts at the outer corner of its first pixel.
"""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import numpy as np

from xsmall.detector.geometry.beam import HC, Beam
from xsmall.detector.geometry.geometry import Geometry
from xsmall.detector.geometry.overlap import MAX_PANELS
from xsmall.detector.geometry.panel import Floats, Panel
from xsmall.detector.geometry.text import read_text
from xsmall.errors import FileFormatError, GeometryError
from xsmall.vocabulary import DISTANCE

__all__ = ["from_dials", "to_dials"]

TURN: Final = np.diag([-1.0, 1.0, -1.0])
MM = 1e3
_NAME = re.compile(r"p(\d{1,5})a(\d{1,5})")
_MAX_DEPTH = 16


def to_dials(geometry: Geometry, beam: Beam, *, trusted_range: tuple[float, float] = (-10.0, 2e6)) -> str:
    """Write geometry and beam as a DIALS experiment list.

    Parameters
    ----------
    geometry
        One panel ``p<segment>a<ASIC>`` per ASIC, in a group per segment, in one group for the detector. Wide pixels at
        the joins are written as regular ones: DIALS has no others.
    beam
        Distance needed; centre and tilts are those of the detector's group, the photon energy is the wavelength.
    trusted_range
        Lowest and highest value of a pixel that DIALS is to trust, in the unit of the data.

    Returns
    -------
    JSON that DIALS reads as ``.expt``; it has no images and no crystal.

    Raises
    ------
    ParameterError
        Where the beam has no distance or no photon energy.
    GeometryError
        Where rows and columns of a panel are not at right angles, or pixels are hexagonal.

    Notes
    -----
    Axes and origins are local to the group that holds them, as dxtbx writes hierarchical detectors.

    Examples
    --------
    >>> import xsmall as xs
    >>> from xsmall.detector.geometry.formats.dials import from_dials, to_dials
    >>> panel = xs.Panel(origin=(0, 0, 0.1), slow=(0, -1e-4, 0), fast=(1e-4, 0, 0), shape=(4, 8))
    >>> geometry = xs.Geometry.from_panels([panel])
    >>> text = to_dials(geometry, xs.Beam(photon_energy=9500, distance=0.1))
    >>> back, beam = from_dials(text)
    >>> bool(abs(back.positions() - geometry.positions()).max() < 1e-12)
    True
    """
    beam.need_all()
    distance, wavelength = beam.need(DISTANCE), beam.wavelength
    turn = TURN @ beam.rotation()
    groups: list[dict[str, Any]] = []
    panels: list[dict[str, Any]] = []
    middle = np.array([*beam.center, geometry.distance])
    for panel in geometry.panels:
        centre = panel.centre()
        fast, slow = _panel_axes(panel)
        frame = np.array([fast, slow, np.cross(fast, slow)])
        group = _group(f"segment {panel.memory[0]}", fast, slow, (centre - middle) * MM)
        for asic in panel.asics():
            corner = np.array(asic.origin) - (np.array(asic.fast) + np.array(asic.slow)) / 2
            group["children"].append({"panel": len(panels)})
            panels.append(_panel_model(asic, frame @ (corner - centre) * MM, trusted_range))
        groups.append(group)
    _number_asics(panels)
    root = _group("detector", turn[:, 0], turn[:, 1], TURN @ np.array([0, 0, distance * MM])) | {"children": groups}
    model = {
        "__id__": "ExperimentList",
        "experiment": [{"__id__": "Experiment", "identifier": "", "beam": 0, "detector": 0}],
        "imageset": [],
        "beam": [_beam_model(wavelength)],
        "detector": [{"panels": panels, "hierarchy": root}],
    }
    empty: dict[str, list[Any]] = {name: [] for name in ("goniometer", "scan", "crystal", "profile", "scaling_model")}
    return json.dumps(model | empty, indent=1)


def _panel_axes(panel: Panel) -> tuple[Floats, Floats]:
    fast, slow = (np.array(v) / np.linalg.norm(v) for v in (panel.fast, panel.slow))
    if abs(fast @ slow) > 1e-6 or panel.column_axis.stagger:
        raise GeometryError(
            "DIALS has rectangular pixels only", found=f"panel {panel.name!r}: slow {slow}, fast {fast}"
        )
    return fast, slow


def _group(name: str, fast: Floats, slow: Floats, origin: Floats) -> dict[str, Any]:
    frame = {"fast_axis": fast.tolist(), "slow_axis": slow.tolist(), "origin": np.asarray(origin).tolist()}
    return {"name": name, "type": "", **frame, "children": []}


def _panel_model(asic: Panel, origin: Floats, trusted_range: tuple[float, float]) -> dict[str, Any]:
    """Model of one ASIC in the frame of its segment, whose first axis is fast."""
    segment, rows, columns = asic.memory
    return {
        "name": f"p{segment}",
        "type": "SENSOR_PAD",
        "fast_axis": [1.0, 0.0, 0.0],
        "slow_axis": [0.0, 1.0, 0.0],
        "origin": origin.tolist(),
        "raw_image_offset": [columns.start, rows.start],
        "image_size": [asic.shape[1], asic.shape[0]],
        "pixel_size": [asic.pitch[1] * MM, asic.pitch[0] * MM],
        "trusted_range": list(trusted_range),
        "thickness": (asic.thickness or 0.0) * MM,
        "material": "Si",
        "mu": 0.0,
        "identifier": "",
        "mask": [],
        "gain": 1.0,
        "pedestal": 0.0,
        "px_mm_strategy": {"type": "SimplePxMmStrategy"},
    }


def _number_asics(panels: list[dict[str, Any]]) -> None:
    """Complete the names: ASICs are counted within their segment."""
    counts: dict[str, int] = {}
    for panel in panels:
        segment = panel["name"]
        counts[segment] = counts.get(segment, -1) + 1
        panel["name"] = f"{segment}a{counts[segment]}"


def _beam_model(wavelength: float) -> dict[str, Any]:
    return {
        "__id__": "monochromatic",
        "direction": [0.0, 0.0, 1.0],  # from the sample to the source
        "wavelength": wavelength,
        "divergence": 0.0,
        "sigma_divergence": 0.0,
        "polarization_normal": [0.0, 1.0, 0.0],
        "polarization_fraction": 0.999,
        "flux": 0.0,
        "transmission": 1.0,
        "probe": "x-ray",
        "sample_to_source_distance": 0.0,
    }


def from_dials(source: str | Path) -> tuple[Geometry, Beam]:
    """Read the first detector and beam of a DIALS experiment list.

    Parameters
    ----------
    source
        Path of a ``.expt`` file, or its text (with a line break).

    Returns
    -------
    The geometry in our lab frame with everything that was refined in it, and a beam along z through its origin at the
    mean z of the detector. Panels named ``p<segment>a<number>`` go back to their segment, others are segments of their
    own; ``raw_image_offset`` says where they start in it.

    Raises
    ------
    FileFormatError
        Where the text is no experiment list, naming what is missing.

    Examples
    --------
    See :func:`to_dials`.
    """
    text, name = read_text(source)
    try:
        model = json.loads(text)
        detector = model["detector"][0]
        beam = model["beam"][0] if model.get("beam") else None
        lab = _lab(np.array(beam["direction"], dtype=np.float64)) if beam else TURN
        placed = list(_panels_placed(detector))
        panels = [_read_panel(i, panel, frame, lab) for i, (panel, frame) in enumerate(placed)]
        geometry = Geometry.from_panels(panels)
        energy = HC / float(beam["wavelength"]) if beam else None
    except GeometryError as error:
        raise GeometryError(f"{name}: {error}") from None
    except (KeyError, IndexError, TypeError, ValueError, AttributeError, ArithmeticError, RecursionError) as error:
        raise FileFormatError(
            f"{name} is not a DIALS experiment list",
            found=f"{type(error).__name__}: {error}"[:200],
            expected="JSON with detector[0].panels and beam[0].direction, .wavelength",
        ) from None
    return geometry, Beam(photon_energy=energy, distance=geometry.distance)


def _lab(to_source: Floats) -> Floats:
    """Rotation from DIALS' frame to ours: z along the beam, y as near to DIALS' y as can be."""
    along = -to_source / np.linalg.norm(to_source)
    up = np.array([0.0, 1.0, 0.0]) - along[1] * along
    if not np.isfinite(along).all() or np.linalg.norm(up) < 1e-3:
        raise GeometryError("direction of the beam", found=to_source.tolist(), expected="not along y")
    up /= np.linalg.norm(up)
    return np.array([np.cross(up, along), up, along])


def _panels_placed(detector: dict[str, Any]) -> Iterator[tuple[dict[str, Any], Floats]]:
    """Yield each panel with its frame (fast, slow, normal, origin as columns, mm) in DIALS' laboratory."""
    panels = detector["panels"]
    if len(panels) > MAX_PANELS:
        raise GeometryError("invalid number of panels in a detector", found=len(panels))
    if "hierarchy" not in detector:
        yield from ((panel, _frame(panel)) for panel in panels)
        return
    frames: dict[int, Floats] = {}
    todo = [(detector["hierarchy"], np.eye(4)[:3], 0)]
    while todo:
        node, above, depth = todo.pop()
        if "panel" in node:
            i = int(node["panel"])
            if i in frames or not 0 <= i < len(panels):
                raise GeometryError("a group holds a panel that is not there, or is held already", found=i)
            frames[i] = _compose(above, _frame(panels[i]))
        elif depth < _MAX_DEPTH:
            here = _compose(above, _frame(node))
            todo += [(child, here, depth + 1) for child in node["children"]]
        else:
            raise GeometryError("groups within groups without end", found=f"more than {_MAX_DEPTH}")
    lost = [i for i in range(len(panels)) if i not in frames]
    if lost:
        raise GeometryError("panels that no group holds", found=lost[:8])
    yield from ((panel, frames[i]) for i, panel in enumerate(panels))


def _frame(node: dict[str, Any]) -> Floats:
    """Fast, slow, normal, origin as columns: float64 (3, 4)."""
    fast, slow, origin = (np.array(node[k], dtype=np.float64) for k in ("fast_axis", "slow_axis", "origin"))
    if any(v.shape != (3,) or not np.isfinite(v).all() for v in (fast, slow, origin)):
        raise GeometryError(
            "frame of a group or panel", found=f"{fast}, {slow}, {origin}", expected="three numbers each"
        )
    return np.stack([fast, slow, np.cross(fast, slow), origin], axis=1)


def _compose(outer: Floats, inner: Floats) -> Floats:
    made = outer[:, :3] @ inner
    made[:, 3] += outer[:, 3]
    return made


def _read_panel(number: int, panel: dict[str, Any], frame: Floats, lab: Floats) -> Panel:
    columns, rows = (int(n) for n in panel["image_size"])
    pitch_fast, pitch_slow = (float(p) / MM for p in panel["pixel_size"])
    fast, slow = lab @ frame[:, 0] * pitch_fast, lab @ frame[:, 1] * pitch_slow
    origin = lab @ frame[:, 3] / MM + (fast + slow) / 2
    named = _NAME.fullmatch(str(panel.get("name", "")))
    column, row = (int(n) for n in panel.get("raw_image_offset", (0, 0))) if named else (0, 0)
    return Panel(
        origin=tuple(origin),
        slow=tuple(slow),
        fast=tuple(fast),
        shape=(rows, columns),
        segment=int(named[1]) if named else number,
        row=row,
        column=column,
        name=str(panel.get("name", "")),
        thickness=float(panel["thickness"]) / MM if panel.get("thickness") else None,
    )
