"""Geometry of a detector as a rule: a list of flat panels, a few kB, from which every per-pixel array follows."""

import hashlib
import json
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from xsmall.calls import tells_its_names
from xsmall.detector.geometry.overlap import check_memory
from xsmall.detector.geometry.panel import Floats, Panel, PixelAxis
from xsmall.detector.geometry.psana import format_psana, panels_from_psana, parse_psana, psana_from_panels
from xsmall.detector.geometry.segments import PsanaVersion, WidePixels
from xsmall.detector.geometry.text import read_text
from xsmall.errors import GeometryError

__all__ = ["Geometry", "Panel", "PixelAxis"]

FORMAT = "xsmall geometry"
VERSION = 1


@tells_its_names
@dataclass(frozen=True, repr=False)
class Geometry:
    """Where the pixels of a detector are: a frozen, hashable rule that is read, never edited.

    Build it with :meth:`from_psana`, :meth:`from_panels` or :meth:`from_json`. The frame is NeXus': origin at the
    sample, z along the beam, y up, x to the left when looking along the beam. Two geometries are equal when their
    panels are, whatever text they come from.

    Parameters
    ----------
    panels
        Flat pieces; several may share a segment, none may share a pixel.
    shape
        Segments, rows, columns of the array they belong to. Pixels of no panel have no position (NaN).
    text
        The psana text the panels were read from, so that it can be written back as it was.

    Examples
    --------
    >>> import xsmall as xs
    >>> panel = xs.Panel(origin=(-1e-3, 0, 0.1), slow=(0, 1e-4, 0), fast=(1e-4, 0, 0), shape=(4, 8))
    >>> geometry = xs.Geometry.from_panels([panel])
    >>> geometry.shape
    (1, 4, 8)
    >>> geometry.positions().shape
    (1, 4, 8, 3)
    """

    panels: tuple[Panel, ...]
    shape: tuple[int, int, int]
    text: str | None = field(default=None, compare=False)

    def __post_init__(self) -> None:
        check_memory(self.panels, self.shape)

    def __repr__(self) -> str:
        names = ", ".join(dict.fromkeys(panel.name for panel in self.panels if panel.name)) or "plain panels"
        shape = " x ".join(map(str, self.shape))
        pieces = f"{len(self.panels)} panels: {names}"
        return f"<Geometry {shape} (segment x row x column), {pieces}; mean z {self.distance:g} m>"

    # ---- building ---------------------------------------------------------------------------------------------

    @classmethod
    def from_panels(cls, panels: Iterable[Panel], *, shape: tuple[int, int, int] | None = None) -> "Geometry":
        """Build from panels; where none names its segment each is a segment of its own.

        Parameters
        ----------
        panels
            In the order of the segments.
        shape
            Segments, rows, columns; where not given just large enough for the panels.

        Raises
        ------
        GeometryError
            Where panels overlap in memory, do not fit ``shape``, or only some name their segment.
        """
        listed = tuple(panels)
        if not listed or not all(isinstance(panel, Panel) for panel in listed):
            found = ", ".join(sorted({type(panel).__name__ for panel in listed})) or "nothing"
            raise GeometryError("a geometry is made of panels", found=found, expected="at least one Panel")
        numbered = [panel.segment is not None for panel in listed]
        if any(numbered) and not all(numbered):
            raise GeometryError("some panels name their segment and others do not", fix="give all of them segment=")
        if not numbered[0]:
            listed = tuple(replace(panel, segment=i) for i, panel in enumerate(listed))
        if shape is None:
            segments = max(panel.memory[0] for panel in listed) + 1
            shape = (
                segments,
                max(panel.memory[1].stop for panel in listed),
                max(panel.memory[2].stop for panel in listed),
            )
        return cls(listed, shape)

    @classmethod
    def from_psana(
        cls,
        source: str | Path,
        *,
        wide_pixels: WidePixels = "nominal",
        segment_shape: tuple[int, int] | None = None,
        psana: PsanaVersion | None = None,
    ) -> "Geometry":
        """Read a psana geometry file or its text.

        Parameters
        ----------
        source
            Path of the file, or the text itself (anything with a line break).
        wide_pixels
            Centres of wide pixels: "nominal" as psana has them unless told otherwise, or "true".
        segment_shape
            Rows and columns, for types whose shape only the data know (``MTRXANY:V1``, ``ARCHON``).
        psana
            1 or 2: the psana that the file was written for. It matters for ``EPIX10KA:V1`` (wide pixels of 250 um in
            psana1, 225 um in psana2) and ``JUNGFRAU:V2`` (at true centres in psana2 only). None: 1 where the file has
            ``EPIX10KA:V2``, which psana2 does not know, else 2.

        Returns
        -------
        The geometry in the lab frame; segments are numbered as psana numbers them.

        Raises
        ------
        GeometryError
            Naming the invalid line.
        FileFormatError
            Where the file cannot be read.

        Notes
        -----
        psana's frame goes to the lab frame by (x, y, z) = (-y, -x, -z). Objects below the interaction point have
        z = -\\|z\\| in psana's frame, whatever the sign in the file.

        Examples
        --------
        >>> import xsmall as xs
        >>> text = "IP 0 CAMERA 0 0 0 100000 90 0 0 0 0 0" + chr(10) + "CAMERA 0 EPIX100:V1 0 0 0 0 0 0 0 0 0 0"
        >>> xs.Geometry.from_psana(text).distance
        0.1
        """
        text, name = read_text(source)
        objects = parse_psana(text, source=name)
        panels = panels_from_psana(objects, wide_pixels=wide_pixels, shape=segment_shape, psana=psana, source=name)
        rows = max(panel.memory[1].stop for panel in panels)
        bank_ends = max(panel.memory[2].stop for panel in panels)
        columns = max(bank_ends, 4800) if panels[0].name.startswith("ARCHON") else bank_ends
        return cls(tuple(panels), (panels[-1].memory[0] + 1, rows, columns), text)

    # ---- asking -----------------------------------------------------------------------------------------------

    @cached_property
    def token(self) -> int:
        """Number of 63 bits that is the same for equal geometries, in every process."""
        rule = json.dumps(self._panels_rule(), sort_keys=True, separators=(",", ":"))
        return int.from_bytes(hashlib.sha256(rule.encode()).digest()[:8], "big") >> 1

    @cached_property
    def distance(self) -> float:
        """Mean z of all pixels, in m."""
        weighted = total = 0.0
        for panel in self.panels:
            n = panel.shape[0] * panel.shape[1]
            a, b = panel.row_axis.centres().mean(), panel.column_axis.centres().mean()
            weighted += n * (panel.origin[2] + a * panel.slow[2] + b * panel.fast[2])
            total += n
        return float(weighted / total)

    def positions(self) -> Floats:
        """Centres of all pixels in m, lab frame.

        Returns
        -------
        float64 (segment, row, column, 3); NaN where no panel is. Cost: 24 bytes and about 10 ns per pixel, each call;
        :func:`xsmall.detector.geometry.pixel.pixel_array` keeps what it made.
        """
        at = np.full((*self.shape, 3), np.nan)
        for panel in self.panels:
            at[panel.memory] = panel.positions()
        return at

    def corners(self) -> Floats:
        """Corners of all pixels in m, lab frame, going round each pixel.

        Returns
        -------
        float64 (segment, row, column, 4, 3), NaN where no panel is; wide pixels with their true borders, whatever the
        convention of their centre. Cost: 96 bytes per pixel.
        """
        at = np.full((*self.shape, 4, 3), np.nan)
        for panel in self.panels:
            at[panel.memory] = panel.corners()
        return at

    def areas(self) -> Floats:
        """True areas of all pixels in m2, wide pixels included: float64 (segment, row, column)."""
        out = np.full(self.shape, np.nan)
        for panel in self.panels:
            out[panel.memory] = panel.areas()
        return out

    def asics(self) -> tuple[Panel, ...]:
        """One plain panel per ASIC, in the order of segments, rows, columns; wide pixels count as regular ones."""
        return tuple(asic for panel in self.panels for asic in panel.asics())

    def psf(self) -> Floats:
        """Position, slow and fast vector of every ASIC in m, lab frame.

        Returns
        -------
        float64 (asic, 3, 3): [position, slow, fast], xyz, in the order of :meth:`asics`. Every regular pixel (r, c) of
        an ASIC lies at position + r * slow + c * fast. psana's psf differs for ASICs that begin with a wide pixel at
        its true centre, where that relation does not hold.
        """
        return np.array([(asic.origin, asic.slow, asic.fast) for asic in self.asics()])

    # ---- writing ----------------------------------------------------------------------------------------------

    def to_psana(self) -> str:
        """Write as psana geometry text.

        Returns
        -------
        The text it was read from, to the letter; for other geometries a new one with one object per segment. The text
        does not say where centres of wide pixels are, nor for which psana it is: read it with the ``wide_pixels`` and
        ``psana`` that this geometry has.

        Raises
        ------
        GeometryError
            Where a segment is no single flat panel of a type that psana knows.

        Examples
        --------
        >>> import xsmall as xs
        >>> panel = xs.Panel(origin=(0, 0, 0.1), slow=(0, -1e-4, 0), fast=(1e-4, 0, 0), shape=(4, 8))
        >>> geometry = xs.Geometry.from_panels([panel])
        >>> bool(abs(xs.Geometry.from_psana(geometry.to_psana()).psf() - geometry.psf()).max() < 1e-15)
        True
        """
        return format_psana(psana_from_panels(self.panels)) if self.text is None else self.text

    # ---- JSON -------------------------------------------------------------------------------------------------

    def _panels_rule(self) -> dict[str, Any]:
        axes: list[PixelAxis] = []
        panels = [panel.to_dict(axes) for panel in self.panels]
        return {
            "format": FORMAT,
            "version": VERSION,
            "shape": list(self.shape),
            "axes": [axis.to_list() for axis in axes],
            "panels": panels,
        }

    def to_json(self) -> str:
        """Write the rule as JSON of a few kB; :meth:`from_json` gives back an equal geometry, bit for bit."""
        return self._json

    @cached_property
    def _json(self) -> str:
        rule = self._panels_rule()
        if self.text is not None:
            rule["psana"] = self.text
        return json.dumps(rule, separators=(",", ":"))

    @classmethod
    def from_json(cls, rule: str) -> "Geometry":
        """Read what :meth:`to_json` wrote.

        Raises
        ------
        GeometryError
            Where the text is something else, or written by a later version.
        """
        return _from_json(rule)

    def __dask_tokenize__(self) -> tuple[str, int]:
        return FORMAT, self.token


@lru_cache(maxsize=64)
def _from_json(rule: str) -> Geometry:
    """Read a rule once per process: labelled functions ask for it at every step."""
    try:
        values = json.loads(rule)
        if values["format"] != FORMAT or values["version"] > VERSION:
            raise GeometryError(
                "not a geometry that this version reads",
                found=f"{values['format']} version {values['version']}",
                expected=f"{FORMAT} version {VERSION}",
            )
        axes = [PixelAxis.from_list(axis) for axis in values["axes"]]
        panels = tuple(Panel.from_dict(panel, axes) for panel in values["panels"])
        segments, rows, columns = values["shape"]
        return Geometry(panels, (segments, rows, columns), values.get("psana"))
    except (KeyError, TypeError, ValueError, IndexError, RecursionError) as error:
        if isinstance(error, GeometryError):
            raise
        raise GeometryError(
            "not the JSON of a geometry", found=rule[:80], expected="text of Geometry.to_json"
        ) from None
