"""The explorer: a picture with tools for the mouse; everything that was drawn is a value, and code."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import numpy.typing as npt
import xarray as xr

from xsmall.detector.geometry.beam import Beam
from xsmall.detector.geometry.lookup import locate_pixels
from xsmall.detector.geometry.pixel import pixel_array
from xsmall.detector.masks.regions import Region
from xsmall.errors import DataError, ParameterError, XsmallError, alike
from xsmall.frames.beam import assign_beam
from xsmall.frames.fit_beam import known_rings, start_of
from xsmall.frames.mask import mask as make_mask
from xsmall.frames.mask import usable
from xsmall.plot.detector import MM
from xsmall.plot.explore.code import code_lines
from xsmall.plot.explore.mouse import RINGS, TOOLS, Mouse
from xsmall.plot.explore.numbers import droplet_sums, inside_of, numbers_of, values_in
from xsmall.plot.explore.panels import draw_droplets, draw_histogram, draw_residuals, draw_scan, draw_threshold
from xsmall.plot.explore.pictures import Pictures, Shown
from xsmall.plot.explore.rings import Clicks, RingFit
from xsmall.plot.explore.scan import SIGNAL, scan_of
from xsmall.plot.explore.shapes import DrawnShape, region_of
from xsmall.plot.explore.view import View, new_figure, redraw
from xsmall.plot.style import label_of
from xsmall.reductions.box import Box
from xsmall.vocabulary import AZIMUTH, EVENT, FLAG_MEANINGS, PIXEL_DIMS, UNITS_OF, Q, Reason, reason_names

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["Explorer", "explore"]

_REASONS: Final = ("user", "shadow")
_REGION: Final = "region"


def explore(
    obj: xr.DataArray,
    *,
    reasons: xr.DataArray | None = None,
    rings: Sequence[float] | str | None = None,
    events: xr.Dataset | None = None,
    frames: int = 20,
) -> Explorer:
    """Look at frames with the mouse: draw regions and masks, click on rings, choose thresholds, see a scan.

    Parameters
    ----------
    obj
        Frames (event, segment, row, column), an average, or the images of a cube, with a geometry; lazy is best.
    reasons
        Flags as :func:`xsmall.mask` or :func:`xsmall.trust` make them, (segment, row, column) or of each event: the
        read-out under the cursor tells them.
    rings
        q of powder rings in 1/angstrom, or the name of a calibrant ("AgBh", "LaB6", "CeO2", "Si"): clicks on rings then
        give the distance too.
    events
        Variables of the events (event) that ``obj`` does not carry itself, to scan by; they join by label.
    frames
        How many events the mean is of.

    Returns
    -------
    An :class:`Explorer`. In a notebook with ``ipympl`` it shows itself with its tools; elsewhere its ``figure`` is an
    ordinary one, and its methods do what the mouse does.

    Raises
    ------
    DataError
        An array without all three pixel dims.
    GeometryError
        No geometry.

    Notes
    -----
    Cost: only what is shown is read: one event at a time, ``frames`` of them for the mean. Pictures travel to the
    browser, never frames.

    Examples
    --------
    >>> import xsmall as xs
    >>> sim = xs.simulate(20, shape=(2, 64, 128), seed=1)
    >>> det = sim.run["jungfrau"]["raw"].sd.assign_geometry(sim.geometry).sd.assign_beam(sim.beam)
    >>> view = det.sd.calibrate(sim.constants).sd.explore()
    >>> view.add(xs.Circle((0.002, 0.001), 0.0005), "spot")
    'spot'
    >>> print(view.code())
    regions = {"spot": xs.Circle((0.002, 0.001), 0.0005)}
    small = cal.sd.reduce({"roi": xs.roi(regions)})
    """
    return Explorer(obj, reasons=reasons, rings=rings, events=events, frames=frames)


class Explorer:
    """A picture of frames, and what was drawn on it; :func:`explore` makes it.

    Attributes
    ----------
    figure
        The matplotlib figure.
    regions
        What was drawn, by name: :class:`~xsmall.Box`, :class:`~xsmall.Circle`, :class:`~xsmall.Polygon` ...
    hidden
        Regions that mask pixels, each with its reason.
    threshold, threshold_low
        Of droplets, in the unit of the data; None where none was chosen.
    fit
        What clicks on rings gave; None before there are enough.

    Examples
    --------
    >>> import xsmall as xs
    >>> sim = xs.simulate(20, shape=(2, 64, 128), seed=1)
    >>> view = sim.run["jungfrau"]["raw"].sd.assign_geometry(sim.geometry).sd.explore()
    >>> view.hide(xs.Circle((0.002, 0.001), 0.0005), "shadow")
    <Explorer: mean of 20 of 20 events; 0 regions, 1 masks>
    """

    def __init__(
        self,
        obj: xr.DataArray,
        *,
        reasons: xr.DataArray | None = None,
        rings: Sequence[float] | str | None = None,
        events: xr.Dataset | None = None,
        frames: int = 20,
    ) -> None:
        self.pictures = Pictures(obj, frames)
        self.events = events
        self.regions: dict[str, DrawnShape] = {}
        self.hidden: list[tuple[Region, str]] = []
        self.threshold: float | None = None
        self.threshold_low: float | None = None
        self.fit: RingFit | None = None
        self.ring = 0
        self.reason: str | None = None
        self._reasons = _checked_reasons(reasons)
        self._rings = rings
        self._inside: dict[str, npt.NDArray[np.bool_]] = {}
        self._few: xr.DataArray | None = None
        self._scan_code = ""
        self._beam: Beam | None = None
        self._told: list[Any] = []
        self.figure: Figure = new_figure()
        self._shown: Shown = self.pictures.mean() if EVENT in self.pictures.dims else self.pictures.one({})
        self._view = View(self.figure, self.pictures, self._shown, self._readout)
        self.mouse = Mouse(self.figure, self._view.axes, self._finished, self._center)
        self._clicks = self._new_clicks()
        self._refresh()

    # ---- what is shown ------------------------------------------------------------------------------------------

    def show(self, event: int | None = None, **places: int) -> Explorer:
        """Show one event, or one bin, by position; without any the mean of a few events.

        Examples
        --------
        >>> import xsmall as xs
        >>> sim = xs.simulate(20, shape=(2, 64, 128), seed=1)
        >>> view = sim.run["jungfrau"]["raw"].sd.assign_geometry(sim.geometry).sd.explore()
        >>> view.show(event=3).title
        'event 3 (2026-03-02T08:00:00.024)'
        """
        chosen = places if event is None else {EVENT: event, **places}
        self._shown = self.pictures.one(chosen) if chosen or EVENT not in self.pictures.dims else self.pictures.mean()
        self._refresh()
        return self

    @property
    def title(self) -> str:
        """What is shown."""
        return self._shown.title

    @property
    def frame(self) -> xr.DataArray:
        """The frame that is shown: (segment, row, column), in memory."""
        return self._shown.frame

    def colors(self, low: float = 1.0, high: float = 99.0, *, log: bool = False) -> Explorer:
        """Scale the colours from one percentile of the picture to another."""
        self._view.scale = (low, high, log)
        self._view.draw_picture(self._shown)
        return self

    def readout(self, x: float, y: float) -> str:
        """Tell of the point (x, y) in m: value, segment, row, column, q, azimuth, reasons against the pixel."""
        return self._readout(MM * x, MM * y)

    # ---- regions and masks --------------------------------------------------------------------------------------

    def tool(self, name: str, reason: str | None = None) -> Explorer:
        """Take a tool in hand: one of look, box, rectangle, circle, polygon, ring, band, rings.

        With ``reason`` ("user" or "shadow") what is drawn masks pixels.
        """
        if name not in TOOLS or reason not in (None, *_REASONS):
            near = alike(name, TOOLS) or ["circle"]
            raise ParameterError(
                "unknown tool",
                found=f"{name!r}, reason {reason!r}",
                expected=f"{', '.join(TOOLS)}; user or shadow",
                fix=f'view.tool("{near[0]}"), view.tool("{near[0]}", reason="user")',
            )
        self.reason = reason
        self.mouse.choose(name)
        return self

    def add(self, region: DrawnShape, name: str | None = None) -> str:
        """Add a region under a name, or in place of the one that has it; returns the name."""
        if not isinstance(region, Box | Region):
            raise ParameterError(
                "not a region",
                found=repr(region)[:80],
                expected="xs.Box, xs.Circle, xs.Polygon ...",
                fix='view.add(xs.Circle((0.0, 0.0), 0.001), "spot")',
            )
        chosen = name or self._free_name()
        inside = inside_of(self._shown.frame, region)
        if not inside.any():
            raise ParameterError(
                "the region holds no pixel", found=repr(region)[:120], expected="pixels of this detector"
            )
        self.regions[chosen], self._inside[chosen] = region, inside
        self._refresh()
        return chosen

    def remove(self, name: str) -> Explorer:
        """Take a region away."""
        if name not in self.regions:
            raise ParameterError("no such region", found=repr(name), expected=f"one of {list(self.regions)}")
        del self.regions[name], self._inside[name]
        self._refresh()
        return self

    def hide(self, region: Region, reason: str = "user") -> Explorer:
        """Mask the pixels of a region, for a reason: ``"user"`` or ``"shadow"``."""
        given: object = region
        if not isinstance(given, Region) or reason not in _REASONS:
            raise ParameterError(
                "a mask is a region of space with a reason", found=f"{region!r}, {reason!r}"[:120],
                expected=f"xs.Polygon, xs.Circle ... and one of {_REASONS}",
                fix=f'view.hide(xs.Circle((0.0, 0.0), 0.001), "{(alike(reason, _REASONS) or _REASONS)[0]}")',
            )  # fmt: skip
        self.hidden.append((region, reason))
        self._refresh()
        return self

    def undo(self) -> Explorer:
        """Take back what was drawn last with the tool in hand: a click on a ring, a mask, or a region."""
        if self.mouse.tool == RINGS and self._clicks.points:
            self._clicks.points.pop()
            self._fit_rings()
        elif self.reason is not None and self.hidden:
            self.hidden.pop()
        elif self.regions:
            return self.remove(list(self.regions)[-1])
        self._refresh()
        return self

    @property
    def mask(self) -> xr.DataArray:
        """What was masked, as flags of reasons like :func:`xsmall.mask` makes them: uint32 (segment, row, column)."""
        return make_mask(self.pictures.obj, **self.joined_masks())  # type: ignore[arg-type]

    def joined_masks(self) -> dict[str, Region]:
        """The region of each reason: all that was drawn for it."""
        out: dict[str, Region] = {}
        for region, reason in self.hidden:
            out[reason] = region if reason not in out else out[reason] | region
        return out

    def numbers(self) -> xr.Dataset:
        """Numbers of the regions in the frame that is shown: sum, mean, std, min, max, n_valid, n_pixels (roi)."""
        return numbers_of(self._shown.frame, self._inside, self._hidden_pixels())

    # ---- thresholds, rings, scans ---------------------------------------------------------------------------------

    def droplets(self, threshold: float, threshold_low: float | None = None) -> xr.DataArray:
        """Choose thresholds: draws the spectrum of droplets of up to 20 events, and returns their sums (droplet,)."""
        threshold = _four_digits(threshold)
        low = _four_digits(threshold / 2 if threshold_low is None else threshold_low)
        if self._few is None:
            self._few = self.pictures.few()
        sums = droplet_sums(self._few, threshold, low, self._hidden_pixels())
        self.threshold, self.threshold_low = threshold, low
        draw_droplets(self._view.below, sums, self._few.sizes[EVENT], threshold, low)
        self._refresh()
        return sums

    def click_ring(self, x: float, y: float, ring: int = 0) -> RingFit | None:
        """Say that (x, y) in m lies on a ring; returns the fit once there are clicks enough."""
        self._clicks.add(x, y, ring)
        self._fit_rings()
        self._refresh()
        return self.fit

    def use_fit(self) -> Explorer:
        """Take the beam of the clicks from now on: for q, bands and rings, and in the code."""
        if self.fit is None:
            raise DataError(
                "there is no fit yet", found=f"{len(self._clicks.points)} clicks", expected="a few on a ring"
            )
        self._beam = self.fit.beam
        self.pictures = Pictures(assign_beam(self.pictures.obj, self._beam), self.pictures.frames)
        self._few, self.fit = None, None
        self._clicks = self._new_clicks()
        self._shown = self.pictures.same(self._shown)
        self._inside = {name: inside_of(self._shown.frame, region) for name, region in self.regions.items()}
        self._view.use(self.pictures)
        self._refresh()
        return self

    @property
    def beam(self) -> Beam | None:
        """The beam of the data, or of the fit that was taken; ``fit.beam`` is that of the clicks."""
        beam: Beam | None = self.pictures.beam
        return beam

    def scan(
        self, by: str = "delay", bins: Any = None, *, on: str | None = "laser_on", per: str | None = None
    ) -> xr.Dataset:
        """Reduce the regions of all events, bin them, and draw the relative difference of on and off by region.

        Parameters
        ----------
        by
            The variable that was scanned.
        bins
            As for :func:`xsmall.cube`; None: some 20 over its range.
        on
            A boolean variable whose true and false are compared; None: no comparison.
        per
            A variable, such as ``"i0"``, that the signal is taken for a weight of 1 of.

        Returns
        -------
        Dataset over the bins and ``roi`` with ``roi_mean`` and its ``_stderr``, in memory.
        """
        mask = usable(self.mask) if self.hidden else None
        done = scan_of(self.pictures.obj, self.regions, by, bins, on, per, self.events, mask)
        draw_scan(self._view.below, done.result, SIGNAL, done.by, done.said)
        self._scan_code = done.code
        self._refresh()
        return done.result

    def code(self) -> str:
        """The lines that make everything that was drawn again, of frames ``cal``, after ``import xsmall as xs``."""
        thresholds = None if self.threshold is None else (self.threshold, self.threshold_low)
        return code_lines(self.regions, self.joined_masks(), self._beam, thresholds, self._scan_code)

    def on_change(self, call: Any) -> None:
        """Call this after each change, without arguments."""
        self._told.append(call)

    # ---- inside ---------------------------------------------------------------------------------------------------

    def _finished(self, tool: str, points: list[tuple[float, float]]) -> None:
        """The mouse drew something; what cannot be is told above the picture and changes nothing."""
        try:
            if tool == RINGS:
                self.click_ring(*points[0], self.ring)
                return
            shape = "rectangle" if tool == "box" and self.reason else tool
            region = region_of(shape, points, self.pictures.geometry, self.pictures.part, self.pictures.beam)
            if self.reason is None:
                self.add(region)
            elif isinstance(region, Region):
                self.hide(region, self.reason)
        except XsmallError as error:
            self._view.say(str(error).splitlines()[0])

    def _free_name(self) -> str:
        i = 1
        while f"{_REGION}{i}" in self.regions:
            i += 1
        return f"{_REGION}{i}"

    def _center(self) -> tuple[float, float]:
        beam = self.beam
        return (0.0, 0.0) if beam is None or beam.lost else beam.center

    def _new_clicks(self) -> Clicks:
        one = self.pictures.obj.isel(dict.fromkeys(self.pictures.dims, 0))
        start = start_of(one, self.pictures.geometry)
        return Clicks(self.pictures.geometry, start, known_rings(self._rings, start))

    def _fit_rings(self) -> None:
        try:
            self.fit = self._clicks.fit()
        except DataError:  # not enough yet
            self.fit = None
            return
        draw_residuals(self._view.below, self.fit)

    def _hidden_pixels(self) -> npt.NDArray[np.bool_] | None:
        if not self.hidden:
            return None
        out: npt.NDArray[np.bool_] = np.logical_or.reduce([inside_of(self._shown.frame, r) for r, _ in self.hidden])
        return out

    def _refresh(self) -> None:
        """Draw what changed: the picture, what lies over it, and the numbers beside it."""
        frame, hidden = self._shown.frame, self._hidden_pixels()
        self._view.draw_picture(self._shown)
        self._view.draw_regions(self._inside, hidden, frame)
        self._view.draw_rings(self.fit, self._clicks.points)
        parts = {name: values_in(frame, inside, hidden) for name, inside in self._inside.items()}
        numbers = numbers_of(frame, self._inside, hidden)
        draw_histogram(self._view.beside, values_in(frame, None, hidden), parts, numbers, label_of(frame))
        if self.threshold is not None and self.threshold_low is not None:
            draw_threshold(self._view.beside, self.threshold, self.threshold_low)
        redraw(self.figure)
        for call in self._told:
            call()

    def _readout(self, x: float, y: float) -> str:
        """Text for a point in mm."""
        text = f"({x:.3f}, {y:.3f}) mm"
        found = locate_pixels(self.pictures.geometry, [x / MM], [y / MM])
        at = tuple(int(place[0]) for place in self.pictures.part.find(found))
        if min(at) < 0:
            return f"{text}: no pixel"
        segment, row, column = (int(labels[0]) for labels in found)
        value = float(self._shown.values[at])
        unit = self.frame.attrs.get("units", "")
        text += f"  {value:.5g} {unit}  segment {segment} row {row} column {column}"
        beam = self.beam
        if beam is not None and beam.photon_energy is not None and beam.distance is not None:
            text += f"  q {self._of_pixel(Q, found):.4f} {UNITS_OF[Q]}"
        return f"{text}  azimuth {self._of_pixel(AZIMUTH, found):.1f}{self._why(at)}"

    def _of_pixel(self, quantity: str, found: Sequence[npt.NDArray[Any]]) -> float:
        return float(pixel_array(self.pictures.geometry, self.beam, quantity)[tuple(found)][0])

    def _why(self, at: tuple[int, ...]) -> str:
        """Reasons against a pixel, of the data and of what was drawn."""
        bits = 0
        for region, reason in self.hidden:
            bits |= int(Reason[reason.upper()]) if inside_of(self._shown.frame, region)[at] else 0
        flags = self._reasons
        if flags is not None and (EVENT not in flags.dims or self._shown.event is not None):
            if EVENT in flags.dims:
                flags = flags.sel({EVENT: self._shown.frame.coords[EVENT].values})
            bits |= int(flags.isel(dict(zip(PIXEL_DIMS, at, strict=True))).values)
        names = ", ".join(reason_names(bits))
        return f"  [{names}]" if names else ""

    # ---- in a notebook --------------------------------------------------------------------------------------------

    def png(self, dpi: int = 80) -> bytes:
        """The figure as a picture."""
        target = io.BytesIO()
        self.figure.savefig(target, format="png", dpi=dpi)
        return target.getvalue()

    def _repr_mimebundle_(self, **_: Any) -> Mapping[str, Any]:
        from xsmall.plot.explore.controls import bundle_of

        return bundle_of(self)

    def __repr__(self) -> str:
        return f"<Explorer: {self.title}; {len(self.regions)} regions, {len(self.hidden)} masks>"


def _four_digits(value: float) -> float:
    """A threshold of four digits, so that the code that makes it again is exact."""
    return float(f"{float(value):.4g}")


def _checked_reasons(reasons: xr.DataArray | None) -> xr.DataArray | None:
    if reasons is not None and (FLAG_MEANINGS not in reasons.attrs or not set(PIXEL_DIMS) <= set(reasons.dims)):
        raise DataError(
            "reasons are flags of pixels", found=f"dims {reasons.dims}", expected="xs.mask(...) or raw.sd.trust(...)"
        )
    return reasons
