"""psana's geometry text: a tree of objects, each placed in the frame of its parent.

Fields of a line: parent, its index, object, its index, x0 y0 z0 (um), rot_z rot_y rot_x, tilt_z tilt_y tilt_x
(degrees; rot is the design, tilt the correction, they add up).
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from math import isfinite
from typing import TypeAlias

import numpy as np

from xsmall.detector.geometry.panel import Floats, Panel
from xsmall.detector.geometry.rotation import euler_angles, rotation
from xsmall.detector.geometry.segments import PsanaVersion, SegmentType, WidePixels, is_segment_type, segment_type
from xsmall.errors import GeometryError

__all__ = [
    "PsanaObject",
    "format_psana",
    "panels_from_psana",
    "parse_psana",
    "psana_from_panels",
    "psana_version",
]

Children: TypeAlias = dict[tuple[str, int], list["PsanaObject"]]

N_FIELDS = 13
MAX_LINES = 100_000
# psana's frame to the lab frame; its own inverse
TO_LAB = np.array([[0.0, -1.0, 0.0], [-1.0, 0.0, 0.0], [0.0, 0.0, -1.0]])
MICROMETRES = 1e6  # in a metre; dividing keeps 100000 um at 0.1 m, multiplying by 1e-6 does not


@dataclass(frozen=True)
class PsanaObject:
    """One line of the text.

    Parameters
    ----------
    parent, parent_index, name, index
        The object and the one that holds it.
    position
        Origin in the frame of the parent, um.
    rotation, tilt
        Degrees about z, y, x.
    line
        Where it stands in the text, for messages.
    """

    parent: str
    parent_index: int
    name: str
    index: int
    position: tuple[float, float, float]
    rotation: tuple[float, float, float]
    tilt: tuple[float, float, float]
    line: int = 0

    @property
    def key(self) -> tuple[str, int]:
        """Name and index, by which children find it."""
        return self.name, self.index

    def matrix(self) -> Floats:
        """Rotation from this object's frame to its parent's: float64 (3, 3)."""
        z, y, x = (a + b for a, b in zip(self.rotation, self.tilt, strict=True))
        return rotation(x, y, z)

    def offset(self) -> Floats:
        """Origin in the parent's frame in um; below the interaction point z is never positive."""
        x, y, z = self.position
        if self.parent.startswith("IP") and z > 0:
            z = -z
        return np.array([x, y, z])


def parse_psana(text: str, *, source: str = "text") -> list[PsanaObject]:
    """Read the lines of a psana geometry text.

    Parameters
    ----------
    text
        The whole text.
    source
        What to call it in messages.

    Returns
    -------
    The objects in the order of the text.

    Raises
    ------
    GeometryError
        Naming the line, where it has not 13 fields, a number cannot be read or is not finite, or no object is left.

    Examples
    --------
    >>> from xsmall.detector.geometry.psana import parse_psana
    >>> parse_psana("IP 0 CAMERA 0  0 0 100000  90 0 0  0 0 0")[0].position
    (0.0, 0.0, 100000.0)
    """
    lines = text.splitlines()
    if len(lines) > MAX_LINES:
        raise GeometryError(f"{source} is not a geometry", found=f"{len(lines)} lines", expected=f"up to {MAX_LINES}")
    objects = [
        _parse_line(line, number, source)
        for number, line in enumerate(lines, 1)
        if line.strip() and not line.lstrip().startswith("#")
    ]
    if not objects:
        raise GeometryError(f"no object in {source}", expected="lines of 13 fields: parent, index, object, index, ...")
    return objects


def _parse_line(line: str, number: int, source: str) -> PsanaObject:
    """Read one line that is no comment."""
    where = f"{source}, line {number}"
    fields = line.split()
    if len(fields) != N_FIELDS:
        raise GeometryError(
            f"{where}: wrong number of fields",
            found=f"{len(fields)}: {line.strip()[:120]}",
            expected=f"{N_FIELDS}: parent, index, object, index, x0 y0 z0 (um), rot z y x, tilt z y x (degrees)",
        )
    try:
        parent_index, index = int(fields[1]), int(fields[3])
        numbers = [float(field) for field in fields[4:]]
    except ValueError:
        raise GeometryError(f"{where}: not a number", found=line.strip()[:120]) from None
    if not all(isfinite(value) and abs(value) < 1e12 for value in numbers):
        raise GeometryError(f"{where}: a number that is not finite or far too large", found=line.strip()[:120])
    x, y, z, rot_z, rot_y, rot_x, tilt_z, tilt_y, tilt_x = numbers
    rot, tilt = (rot_z, rot_y, rot_x), (tilt_z, tilt_y, tilt_x)
    return PsanaObject(fields[0], parent_index, fields[2], index, (x, y, z), rot, tilt, number)


def format_psana(objects: list[PsanaObject], comments: list[str] | None = None) -> str:
    """Write objects as psana geometry text; every number is written so that it reads back exactly."""
    header = "# HDR PARENT IND OBJECT IND X0[um] Y0[um] Z0[um] ROT-Z ROT-Y ROT-X TILT-Z TILT-Y TILT-X"
    lines = [*(f"# {comment}" for comment in comments or []), header]
    for o in objects:
        numbers = " ".join(f"{_shortest(value):>8}" for value in (*o.position, *o.rotation, *o.tilt))
        lines.append(f"{o.parent:<11} {o.parent_index:>3} {o.name:<11} {o.index:>3} {numbers}")
    return "\n".join(lines) + "\n"


def _shortest(value: float) -> str:
    """The shortest decimal that reads back as ``value``."""
    return str(int(value)) if value.is_integer() and abs(value) < 1e15 else repr(value)


def panels_from_psana(
    objects: list[PsanaObject],
    *,
    wide_pixels: WidePixels = "nominal",
    shape: tuple[int, int] | None = None,
    psana: PsanaVersion | None = None,
    source: str = "text",
) -> list[Panel]:
    """Place the segments of a tree in the lab frame.

    Parameters
    ----------
    objects
        From :func:`parse_psana`.
    wide_pixels, shape, psana
        As in :func:`~xsmall.detector.geometry.segments.segment_type`; ``psana`` None: what :func:`psana_version` says.
    source
        What to call it in messages.

    Returns
    -------
    Panels in the order in which psana numbers the segments: depth first, children in the order of the text.

    Raises
    ------
    GeometryError
        For several trees, objects in a circle or of one name, unknown segment types, segments of different shapes.
    """
    panels: list[Panel] = []
    shapes: dict[tuple[int, int], int] = {}
    version = psana_version(objects) if psana is None else psana
    for segment, (leaf, turn, at) in enumerate(_segments_below(objects, source)):
        try:
            kind = segment_type(leaf.name, wide_pixels=wide_pixels, shape=shape, psana=version)
        except GeometryError as error:
            raise GeometryError(f"{source}, line {leaf.line}: {error}") from None
        shapes.setdefault(kind.shape, leaf.line)
        if len(shapes) > 1:
            raise GeometryError(
                f"{source}: segments of different shapes in one detector",
                found=", ".join(f"{shape} in line {line}" for shape, line in shapes.items()),
                expected="one shape: data are (segment, row, column)",
            )
        panels += _segment_panels(kind, segment, TO_LAB @ turn, TO_LAB @ at)
    return panels


def psana_version(objects: Sequence[PsanaObject]) -> PsanaVersion:
    """Which psana a text was written for, as far as it says: 1 where it has a type that only psana1 knows, else 2.

    Examples
    --------
    >>> from xsmall.detector.geometry.psana import parse_psana, psana_version
    >>> psana_version(parse_psana("IP 0 EPIX10KA:V2 0  0 0 100000  90 0 0  0 0 0"))
    1
    """
    return 1 if any(o.name == "EPIX10KA:V2" for o in objects) else 2


def _segments_below(objects: list[PsanaObject], source: str) -> Iterator[tuple[PsanaObject, Floats, Floats]]:
    """Yield each segment with its rotation and origin (um) in psana's frame, depth first."""
    children = _children(objects, source)
    placed = {o.key for o in objects}
    tops = [key for key in children if key not in placed]
    if len(tops) != 1:
        raise GeometryError(
            f"{source}: the objects do not form one tree",
            found=f"{len(tops)} top objects: {', '.join(f'{name} {i}' for name, i in tops[:8]) or 'a circle'}",
            expected="one object that no line places, usually IP 0",
        )
    seen: set[int] = set()
    stack = [(child, np.eye(3), np.zeros(3)) for child in reversed(children[tops[0]])]
    while stack:
        o, turn, at = stack.pop()
        seen.add(o.line)
        at = at + turn @ o.offset()
        turn = turn @ o.matrix()
        below = children.get(o.key, [])
        if is_segment_type(o.name) or not below:
            seen.update(_all_below(o, children))
            yield o, turn, at
        else:
            stack += [(child, turn, at) for child in reversed(below)]
    lost = [o for o in objects if o.line not in seen]
    if lost:
        raise GeometryError(
            f"{source}, line {lost[0].line}: objects that hold each other in a circle",
            found=", ".join(f"{o.name} {o.index} in {o.parent} {o.parent_index}" for o in lost[:4]),
        )


def _children(objects: list[PsanaObject], source: str) -> Children:
    """Objects by what holds them; a holder may be placed once only."""
    children: Children = {}
    for o in objects:
        children.setdefault((o.parent, o.parent_index), []).append(o)
    placed: dict[tuple[str, int], int] = {}
    for o in objects:
        if o.key in children and o.key in placed:
            raise GeometryError(
                f"{source}, line {o.line}: {o.name} {o.index} is placed twice, first in line {placed[o.key]}",
                expected="one line per object that holds others",
            )
        placed[o.key] = o.line
    return children


def _all_below(o: PsanaObject, children: Children) -> Iterator[int]:
    """Lines of everything a segment holds: psana ignores it."""
    todo, seen = [o.key], {o.key}
    while todo:
        for child in children.get(todo.pop(), []):
            yield child.line
            if child.key not in seen:
                seen.add(child.key)
                todo.append(child.key)


def _segment_panels(kind: SegmentType, segment: int, turn: Floats, at: Floats) -> list[Panel]:
    """Panels of a segment whose frame is rotated by ``turn`` and lies at ``at`` (um, lab frame)."""
    slow = turn @ np.array([*kind.slow, 0.0]) * kind.pitch[0]
    fast = turn @ np.array([*kind.fast, 0.0]) * kind.pitch[1]
    corner = at + turn @ np.array([*kind.origin, 0.0])
    whole = kind.blocks or ((0, kind.columns.size),)
    panels = []
    for i, (start, length) in enumerate(whole):
        first = i * length  # archon: pixels are contiguous in space, not in memory
        origin = (corner + first * fast) / MICROMETRES
        panels.append(
            Panel(
                origin=tuple(origin),
                slow=tuple(slow / MICROMETRES),
                fast=tuple(fast / MICROMETRES),
                shape=(kind.rows.size, length),
                rows=kind.rows,
                columns=kind.columns if not kind.blocks else None,
                segment=segment,
                column=start,
                name=kind.name,
                thickness=kind.depth / MICROMETRES,
            )
        )
    return panels


def psana_from_panels(panels: Sequence[Panel]) -> list[PsanaObject]:
    """Objects that place ``panels``, one segment each, below one camera."""
    segments = [panel.segment for panel in panels]
    if segments != list(range(len(panels))):
        raise GeometryError(
            "psana's text has one flat panel per segment",
            found=f"{len(panels)} panels in {len(set(segments))} segments",
            fix="Geometry.from_panels(geometry.asics()) after segment=None, or write CrystFEL, NeXus or DIALS",
        )
    zero = (0.0, 0.0, 0.0)
    top = PsanaObject("IP", 0, "CAMERA", 0, zero, zero, zero)
    return [top, *(_object_of(i, panel) for i, panel in enumerate(panels))]


def _object_of(index: int, panel: Panel) -> PsanaObject:
    """The line of one panel: a type of the table where its grid is one, a plain matrix otherwise."""
    kind = _segment_type(panel)
    slow, fast = (np.array(v) / p for v, p in zip((panel.slow, panel.fast), panel.pitch, strict=True))
    if abs(slow @ fast) > 1e-9:
        raise GeometryError(
            f"panel {index} is not a rectangle, which psana cannot describe", found=f"slow {slow}, fast {fast}"
        )
    own = np.array([[*kind.slow, 0.0], [*kind.fast, 0.0]])
    own, lab = (np.vstack([v, np.cross(v[0], v[1])]) for v in (own, np.array([slow, fast])))
    turn = TO_LAB.T @ lab.T @ own  # rows of own are orthonormal, so its inverse is its transpose
    at = TO_LAB.T @ np.array(panel.origin) * MICROMETRES - turn @ np.array([*kind.origin, 0.0])
    angles = euler_angles(turn)
    design = tuple(90.0 * round(angle / 90.0) for angle in reversed(angles))
    tilt = tuple(angle - d for angle, d in zip(reversed(angles), design, strict=True))
    x, y, z = (float(v) for v in at)
    return PsanaObject("CAMERA", 0, kind.name, index, (x, y, z), design, tilt)  # type: ignore[arg-type]


def _segment_type(panel: Panel) -> SegmentType:
    """Segment type with the grid of ``panel``."""
    pitch = panel.pitch[0] * MICROMETRES, panel.pitch[1] * MICROMETRES
    if is_segment_type(panel.name):
        for wide in ("nominal", "true"):
            for psana in (2, 1):
                kind = segment_type(panel.name, wide_pixels=wide, shape=panel.shape, psana=psana)
                same = (kind.rows, kind.columns) == (panel.row_axis, panel.column_axis) and not kind.blocks
                if same and np.allclose(kind.pitch, pitch, rtol=1e-9):
                    return kind
    if not (panel.row_axis.plain and panel.column_axis.plain):
        raise GeometryError("psana has no segment type with the grid of this panel", found=panel.name or panel.shape)
    rows, columns = panel.shape
    sizes = ":".join(f"{p:.9f}".rstrip("0").rstrip(".") for p in pitch)
    return segment_type(f"MTRX:V2:{rows}:{columns}:{sizes}")
