"""CrystFEL geometry files: read, and written one panel per ASIC.

CrystFEL's frame is ours: z along the beam, y up. Its ``corner_x``, ``corner_y`` and ``coffset`` say where the outer
corner of the first pixel is, not its centre; psana's own writer puts the centre there, which is an option here.
"""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from math import isfinite
from pathlib import Path
from typing import Final, Literal, TypeAlias

import numpy as np

from xsmall.detector.geometry.beam import HC, Beam
from xsmall.detector.geometry.geometry import Geometry
from xsmall.detector.geometry.panel import Floats, Panel
from xsmall.detector.geometry.text import read_text
from xsmall.errors import GeometryError
from xsmall.vocabulary import DISTANCE, PHOTON_ENERGY

__all__ = ["CornerConvention", "from_crystfel", "to_crystfel"]

CornerConvention: TypeAlias = Literal["crystfel", "psana"]

MAX_LINES = 1_000_000
MAX_VECTOR = 500  # characters; longer sums of x, y and z are no vectors
_UNITS: Final = {"": 1.0, "m": 1.0, "mm": 1e-3}
_WAVELENGTH_UNITS: Final = {"m": 1e10, "a": 1.0}
_ENERGY_UNITS: Final = {"": 1.0, "ev": 1.0, "kev": 1e3, "mev": 1e6}
_TERM = re.compile(r"\s*([+-]?)\s*\(?(\d+\.?\d*(?:[eE][+-]?\d+)?|\.\d+(?:[eE][+-]?\d+)?)?\)?\s*([xyz])")
_IGNORED = ("bad",)  # regions hold no pixels of their own; groups and masks are no settings of a panel


@dataclass
class _Block:
    """What a file says about one panel: values with the lines they stand in."""

    name: str
    line: int
    values: dict[str, tuple[str, int]] = field(default_factory=dict)

    def number(self, key: str, source: str, default: float | None = None) -> float:
        if key not in self.values:
            if default is None:
                raise GeometryError(f"{source}, line {self.line}: panel {self.name!r} has no {key}")
            return default
        text, line = self.values[key]
        try:
            value = float(text)
        except ValueError:
            value = float("nan")
        if not isfinite(value) or abs(value) > 1e12:
            raise GeometryError(f"{source}, line {line}: {self.name}/{key} is not a finite number", found=text[:80])
        return value

    def whole(self, key: str, source: str) -> int:
        value = self.number(key, source)
        if value != int(value) or value < 0:
            raise GeometryError(f"{source}: {self.name}/{key} is not a pixel index", found=value)
        return int(value)

    def vector(self, key: str, source: str) -> Floats:
        if key not in self.values:
            raise GeometryError(f"{source}, line {self.line}: panel {self.name!r} has no {key}")
        text, line = self.values[key]
        text = text[:MAX_VECTOR].strip()
        out, at = np.zeros(3), 0
        while at < len(text):
            term = _TERM.match(text, at)
            if term is None:
                expected = "a sum like -0.003x +1.0y +0.0z"
                raise GeometryError(f"{source}, line {line}: {self.name}/{key}", found=text[:80], expected=expected)
            sign, size, axis = term.groups()
            out["xyz".index(axis)] += (-1 if sign == "-" else 1) * float(size or 1)
            at = term.end()
        return out


def from_crystfel(
    source: str | Path,
    *,
    corner: CornerConvention = "crystfel",
    segment_rows: int | None = None,
    camera_length: float | None = None,
) -> Geometry:
    """Read a CrystFEL geometry file or its text.

    Parameters
    ----------
    source
        Path of the file, or the text itself (anything with a line break).
    corner
        What ``corner_x`` and ``corner_y`` mean: "crystfel" the outer corner of the first pixel, as CrystFEL has it;
        "psana" its centre, as files written by psana have it.
    segment_rows
        Where the panels of all segments lie below each other in one slab (``dim1 = ss``): rows of a segment. Not needed
        where each panel names its segment by a number (``dim1 = 3``).
    camera_length
        In m, added to ``coffset``; needed where ``clen`` of the file is a place in a data file. Files of psana have the
        whole distance in ``coffset``, there it is 0 unless given.

    Returns
    -------
    The geometry in the lab frame; bad regions and rigid groups are not taken over.

    Raises
    ------
    GeometryError
        Naming the line of what is missing or invalid.

    Notes
    -----
    Format: CrystFEL's manual page crystfel_geometry(5).

    Examples
    --------
    >>> import xsmall as xs
    >>> from xsmall.detector.geometry.formats.crystfel import from_crystfel, to_crystfel
    >>> panel = xs.Panel(origin=(0, 0, 0.1), slow=(0, -1e-4, 0), fast=(1e-4, 0, 0), shape=(4, 8))
    >>> geometry = xs.Geometry.from_panels([panel])
    >>> back = from_crystfel(to_crystfel(geometry))
    >>> bool(abs(back.positions() - geometry.positions()).max() < 1e-12)
    True
    """
    if corner not in ("crystfel", "psana"):
        raise GeometryError("unknown convention of panel corners", found=corner, expected="'crystfel' or 'psana'")
    if segment_rows is not None and segment_rows < 1:
        raise GeometryError("rows of a segment", found=segment_rows, expected="at least 1")
    text, name = read_text(source)
    panels = []
    for block in _panel_blocks(text, name):
        clen = camera_length if camera_length is not None else _camera_length(block, name, corner)
        panels.append(_panel_of_block(block, name, corner, segment_rows, clen))
    return Geometry.from_panels(panels)


def _panel_blocks(text: str, source: str) -> Iterator[_Block]:
    """Yield panels in the order of the text; values without a panel hold for the panels that begin after them."""
    defaults: dict[str, tuple[str, int]] = {}
    blocks: dict[str, _Block] = {}
    lines = text.splitlines()
    if len(lines) > MAX_LINES:
        raise GeometryError(f"{source} is not a geometry", found=f"{len(lines)} lines")
    for number, line in enumerate(lines, 1):
        bare = line.split(";", 1)[0].strip()
        if not bare:
            continue
        key, equals, value = (part.strip() for part in bare.partition("="))
        if not equals or not key:
            raise GeometryError(f"{source}, line {number}: not a setting", found=bare[:120], expected="key = value")
        panel, slash, key_of_panel = key.rpartition("/")
        if not slash:
            defaults[key] = (value, number)
        elif not panel.startswith(_IGNORED):
            block = blocks.setdefault(panel, _Block(panel, number, dict(defaults)))
            block.values[key_of_panel] = (value, number)
    if not blocks:
        raise GeometryError(f"no panel in {source}", expected="lines like p0a0/fs = +1.0x +0.0y")
    yield from blocks.values()


def _camera_length(block: _Block, source: str, corner: CornerConvention) -> float:
    """Camera length in m from the file."""
    text, line = block.values.get("clen", ("", 0))
    if _begins_as_number(text):
        return _value_in_unit(text, _UNITS, "clen", f"{source}, line {line}")
    if corner == "psana" or not text:
        return 0.0
    raise GeometryError(
        f"{source}, line {line}: the camera length stands in a data file",
        found=f"clen = {text[:80]}",
        fix="xs.open_geometry(path, camera_length=0.1) with the value in m",
    )


def _begins_as_number(text: str) -> bool:
    """Whether a value begins as a number does; other values are places in a data file."""
    return re.match(r"[+-]?\.?\d|[+-]?(nan|inf)", text, re.IGNORECASE) is not None


def _value_in_unit(text: str, units: Mapping[str, float], key: str, where: str) -> float:
    """Turn a number with a unit, with or without space between, into our unit."""
    match = re.fullmatch(r"([+-]?(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?)\s*([A-Za-z]*)", text)
    if match is None or match[2].lower() not in units:
        known = ", ".join(unit for unit in units if unit)
        raise GeometryError(f"{where}: invalid {key}", found=text[:80], expected=f"a finite number, in {known}")
    return float(match[1]) * units[match[2].lower()]


def _panel_of_block(
    block: _Block, source: str, corner: CornerConvention, segment_rows: int | None, camera_length: float
) -> Panel:
    """One panel of the file."""
    where = f"{source}, line {block.line}"
    res = block.number("res", source)
    if res <= 0:
        raise GeometryError(f"{where}: resolution of panel {block.name!r}", found=res, expected="pixels per m, above 0")
    fast, slow = block.vector("fs", source) / res, block.vector("ss", source) / res
    x, y = block.number("corner_x", source) / res, block.number("corner_y", source) / res
    at = np.array([x, y, block.number("coffset", source, 0.0) + camera_length])
    origin = at if corner == "psana" else at + (fast + slow) / 2
    first_row, last_row = block.whole("min_ss", source), block.whole("max_ss", source)
    first_column, last_column = block.whole("min_fs", source), block.whole("max_fs", source)
    segment = _segment(block, source)
    if segment_rows is not None:
        segment += first_row // segment_rows
        if first_row // segment_rows != last_row // segment_rows:
            raise GeometryError(
                f"{where}: panel {block.name!r} crosses the border of a segment",
                found=f"rows {first_row} to {last_row}",
                expected=f"segments of {segment_rows} rows",
            )
        last_row -= first_row // segment_rows * segment_rows
        first_row %= segment_rows
    try:
        return Panel(
            origin=tuple(origin),
            slow=tuple(slow),
            fast=tuple(fast),
            shape=(last_row - first_row + 1, last_column - first_column + 1),
            segment=segment,
            row=first_row,
            column=first_column,
            name=block.name,
        )
    except GeometryError as error:
        raise GeometryError(f"{where}: panel {block.name!r}: {error}") from None


def _segment(block: _Block, source: str) -> int:
    """Segment that the dims of the file name by a number, 0 where they name none."""
    numbers = [
        (value, line) for key, (value, line) in block.values.items() if re.fullmatch(r"dim\d", key) and value.isdigit()
    ]
    if len(numbers) > 1:
        raise GeometryError(
            f"{source}, line {numbers[1][1]}: panel {block.name!r} is placed by several numbers",
            found=", ".join(value for value, _ in numbers),
            expected="one, the segment",
        )
    number = int(numbers[0][0]) if numbers and len(numbers[0][0]) < 6 else 0
    if numbers and len(numbers[0][0]) >= 6:
        raise GeometryError(f"{source}, line {numbers[0][1]}: invalid segment", found=numbers[0][0][:20])
    return number


def to_crystfel(
    geometry: Geometry,
    beam: Beam | None = None,
    *,
    layout: Literal["segments", "slab"] = "segments",
    data: str = "/entry_1/data_1/data",
    adu_per_photon: float | None = None,
) -> str:
    """Write a geometry as a CrystFEL file, one panel ``p<segment>a<ASIC>`` per ASIC.

    Parameters
    ----------
    geometry
        What to write. Wide pixels at the joins are written as regular ones: CrystFEL has no others.
    beam
        Photon energy and distance of the file; centre and tilts move the panels. Where not given, the file has the
        mean z of the geometry and no photon energy.
    layout
        How the data file is laid out: "segments" (event, segment, row, column), "slab" (event, segment * row, column).
    data
        Place of the data in the data file.
    adu_per_photon
        Written where given.

    Returns
    -------
    The text. Numbers are written so that they read back exactly.

    Raises
    ------
    GeometryError
        For hexagonal pixels, or an unknown layout.

    Examples
    --------
    >>> import xsmall as xs
    >>> panel = xs.Panel(origin=(0, 0, 0.1), slow=(0, -1e-4, 0), fast=(1e-4, 0, 0), shape=(4, 8))
    >>> to_crystfel(xs.Geometry.from_panels([panel])).splitlines()[1]
    'clen = 0.1'
    """
    if layout not in ("segments", "slab"):
        raise GeometryError("unknown layout of the data file", found=layout, expected="'segments' or 'slab'")
    clen = geometry.distance if beam is None or beam.distance is None else beam.distance
    if beam is not None:
        geometry = beam.align(geometry)
    lines = ["; geometry written by xsmall: corners are outer corners of pixels", f"clen = {float(clen)}"]
    if beam is not None and beam.photon_energy is not None:
        lines.append(f"photon_energy = {float(beam.photon_energy)} eV")
    if adu_per_photon is not None:
        lines.append(f"adu_per_photon = {float(adu_per_photon)}")
    lines += [f"data = {data}", "dim0 = %"]
    if layout == "slab":
        lines += ["dim1 = ss", "dim2 = fs"]
    counts: dict[int, int] = {}
    for asic in geometry.asics():
        if asic.column_axis.stagger:
            raise GeometryError("CrystFEL has rectangular pixels only", found="rows shifted by half a pixel")
        segment = asic.memory[0]
        number = counts[segment] = counts.get(segment, -1) + 1
        lines += ["", *_panel_lines(f"p{segment}a{number}", asic, clen, layout, geometry.shape[1])]
    return "\n".join(lines) + "\n"


def _panel_lines(name: str, asic: Panel, clen: float, layout: str, segment_rows: int) -> Iterator[str]:
    """Lines of one panel."""
    res = 1 / asic.pitch[1]
    fast, slow = np.array(asic.fast), np.array(asic.slow)
    x, y, z = np.array(asic.origin) - (fast + slow) / 2
    segment, rows, columns = asic.memory
    above = segment * segment_rows if layout == "slab" else 0
    if layout == "segments":
        yield from (f"{name}/dim1 = {segment}", f"{name}/dim2 = ss", f"{name}/dim3 = fs")
    for key, vector in (("fs", fast), ("ss", slow)):
        yield f"{name}/{key} = " + " ".join(f"{float(v * res):+}{axis}" for v, axis in zip(vector, "xyz", strict=True))
    yield from (
        f"{name}/res = {float(res)}",
        f"{name}/corner_x = {float(x * res)}",
        f"{name}/corner_y = {float(y * res)}",
        f"{name}/coffset = {float(z) - clen}",
        f"{name}/min_fs = {columns.start}",
        f"{name}/max_fs = {columns.stop - 1}",
        f"{name}/min_ss = {above + rows.start}",
        f"{name}/max_ss = {above + rows.stop - 1}",
    )


def beam_from_crystfel(source: str | Path) -> Beam:
    """Photon energy and distance of a CrystFEL file, where they stand in it as numbers.

    Raises
    ------
    GeometryError
        Naming the line of a number with an unknown unit.
    ParameterError
        Where a number is outside the range of its unit.

    Examples
    --------
    >>> from xsmall.detector.geometry.formats.crystfel import beam_from_crystfel
    >>> text = "photon_energy = 9.5 keV" + chr(10) + "clen = 92.5 mm" + chr(10) + "p0/fs = x"
    >>> beam_from_crystfel(text).photon_energy
    9500.0
    """
    text, name = read_text(source)
    block = next(_panel_blocks(text, name))
    values: dict[str, float] = {}
    clen, _ = block.values.get("clen", ("", 0))
    if clen and not clen.startswith("/"):
        values[DISTANCE] = _camera_length(block, name, "crystfel")
    for key, units in (("photon_energy", _ENERGY_UNITS), ("wavelength", _WAVELENGTH_UNITS)):
        given, line = block.values.get(key, ("", 0))
        if _begins_as_number(given):
            value = _value_in_unit(given, units, key, f"{name}, line {line}")
            values[PHOTON_ENERGY] = (
                value if key == "photon_energy" else HC / max(value, 1e-300)
            )  # 0 is out of range too
    return Beam(**values)  # type: ignore[arg-type]
