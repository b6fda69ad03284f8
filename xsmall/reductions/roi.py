"""Regions of interest: sum, mean, maximum, centre of mass of boxes, shapes and masks of pixels."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Final

import numpy as np
import xarray as xr
from dask.utils import format_bytes

from xsmall.calls import warn_user
from xsmall.detector.frames import Frames
from xsmall.engine.asked import ask
from xsmall.engine.record import Output, Record, Reducer
from xsmall.errors import GeometryError, ParameterError
from xsmall.frames.per_pixel import StaticMask
from xsmall.reductions.box import Box, Window
from xsmall.reductions.filters import filtered, static_mask
from xsmall.reductions.region import Place, as_place, windows
from xsmall.reductions.roi_reducer import IN_PIXELS, IN_SPACE, RoiReducer, kept_shape
from xsmall.vocabulary import (
    AREA,
    COLUMN,
    COM_COLUMN,
    COM_ROW,
    DIMENSIONLESS,
    FULL_SUM,
    MAX,
    MEAN,
    METRE,
    MIN,
    N_SATURATED,
    N_VALID,
    ROI,
    ROW,
    SEGMENT,
    SUM,
    UNITS,
    VARIANCE_SUFFIX,
    X,
    Y,
)

__all__ = ["Box", "Roi", "roi"]

ALSO: Final = (MIN, FULL_SUM, N_SATURATED, X, Y, *IN_PIXELS, *IN_SPACE)
"""What regions can tell beside what they always tell."""
MUCH: Final = 1 << 16
"""Bytes of pixels kept of each event from which on the size is told."""


@ask
def roi(
    places: Any,
    *,
    mask: Any = None,
    threshold: Any = None,
    noise: Any = None,
    also: Sequence[str] = (),
    saturation: float | None = None,
    area: bool = False,
) -> Record:
    """Reduce regions of pixels to a few numbers per event.

    Parameters
    ----------
    places
        A :class:`~xsmall.Box`, a region of space (:class:`~xsmall.Polygon`, :class:`~xsmall.Band` of q or azimuth,
        :class:`~xsmall.Circle` ..., and what ``&``, ``|``, ``~`` make of them), or a boolean mask (segment, row,
        column), True inside; or several by name. They may overlap, and reach over several segments.
    mask
        Boolean (segment, row, column), True where a pixel may be used: a DataArray, cut by its labels, or an array of
        the shape of the frames. A DataArray (event, segment, row, column) is a mask for each event, joined by label;
        an event without one has no valid pixel.
    threshold
        Lowest value that counts, or (lowest, highest), in the unit of the data or as ``xs.sigma(3)``. What is below the
        lowest counts as 0, what is above the highest is left out.
    noise
        For thresholds in sigma, as in :func:`~xsmall.droplet`.
    also
        More numbers: ``"min"``; ``"full_sum"``, the mean times all pixels of the region, also those that are not
        valid; ``"n_saturated"``, which needs ``saturation``; ``"x"`` and ``"y"``, the centre of mass in m, across
        segments; central second moments ``"moment_row_row"``, ``"moment_row_column"``, ``"moment_column_column"`` in
        pixels squared, and ``"moment_x_x"``, ``"moment_x_y"``, ``"moment_y_y"`` in m2. What is in m needs a geometry.
    saturation
        Value from which on a pixel is saturated, in the unit of the data.
    area
        Keep the pixels too.

    Returns
    -------
    A record. Its variables over (event, roi): ``sum`` and ``mean`` (float64), ``max`` (dtype of the frames) in the unit
    of the data, over the valid pixels; ``com_row`` and ``com_column`` (float64), the centre of mass in the labels of
    the detector, NaN for regions that reach over several segments; ``n_valid`` (int32); and what ``also`` names
    (float64; counts int32). With variances each but counts, ``min`` and second moments also as ``<name>_variance``.
    Where no pixel of a region is valid everything but counts is NaN; where the sum is 0 all centres and moments are.
    With ``area`` also the pixels, NaN where a pixel is not of the region: ``area`` (event, row, column), with a segment
    in front where there are several; of several regions ``<roi>_area`` with dims ``<roi>_row`` ...

    Raises
    ------
    ParameterError
        No place, one that misses the frames, a box without segment where there are several, a mask that is not
        boolean, invalid thresholds, an unknown number.
    GeometryError
        A region of space, or a number in m, and no geometry.

    Warns
    -----
    UserWarning
        ``area`` keeps more than 64 KiB of each event.

    Notes
    -----
    Pixels that are NaN or masked are left out of everything: ``mean`` is sum / n_valid. The second moment along i and
    j is sum(I (i - com_i) (j - com_j)) / sum(I). Variances: of the sum, the sum of the pixels' variances; of the
    centre of mass, to first order, sum(v (i - com)^2) / sum(I)^2, good where the sum is well above its error; of the
    maximum, that of the pixel which holds it: that the largest of many values tends to be a high one is not in it.
    Cost: one pass over the pixels of the boxes around the regions, two with variances, one more for each kind of
    ``also``; thresholds and masks of events cost a copy of the frame.

    Examples
    --------
    >>> import xsmall as xs
    >>> sim = xs.simulate(4, shape=(2, 32, 64), seed=1)
    >>> cal = sim.run["jungfrau"]["raw"].sd.calibrate(sim.constants)
    >>> spots = cal.sd.roi({"a": xs.Box(segment=0, row=(4, 12), column=(8, 24)), "b": xs.Box(segment=1)})
    >>> spots["sum"].dims, spots["roi"].values.tolist()
    (('event', 'roi'), ['a', 'b'])
    >>> det = cal.sd.assign_geometry(sim.geometry).sd.assign_beam(photon_energy=9500, distance=0.1)
    >>> ring = det.sd.roi(xs.Band("radius", 2e-3, 3e-3), threshold=2.0, also=["full_sum", "x", "y"])
    >>> ring["x"].attrs["units"], ring["full_sum"].attrs["units"]
    ('m', 'keV')
    """
    named: object = places if isinstance(places, Mapping) else {ROI: places}
    if not isinstance(named, Mapping) or not named or places is None:
        raise _no_places(places)
    try:
        chosen = tuple((str(name), as_place(place, "a place of roi")) for name, place in named.items())
    except ParameterError as error:
        if "is no place" not in str(error):
            raise
        raise _no_places(places) from None
    wanted = tuple(dict.fromkeys([also] if isinstance(also, str) else also))
    for name in wanted:
        if name not in ALSO:
            raise ParameterError("invalid also", found=repr(name), expected=" or ".join(map(repr, ALSO)))
    if (saturation is not None) != (N_SATURATED in wanted):
        raise ParameterError(
            "n_saturated goes with its level",
            found=f"saturation={saturation}, also={list(wanted)}",
            expected="both or none",
            fix='also=["n_saturated"], saturation=100.0',
        )
    fixed, of_events = static_mask(mask)
    level = None if saturation is None else float(saturation)
    return filtered(Roi(chosen, fixed, wanted, level, bool(area)), threshold, noise, of_events)


def _no_places(places: object) -> ParameterError:
    return ParameterError(
        "roi needs boxes, regions or masks",
        found=repr(places)[:80],
        expected="one of them, or several by name",
        fix='xs.roi({"bragg": xs.Box(segment=2, row=(200, 500), column=(300, 580))})',
    )


@dataclass(frozen=True)
class Roi(Record):
    """Places by name, a mask and what is told of them; made by :func:`roi`."""

    name: ClassVar[str] = "roi"

    places: tuple[tuple[str, Place], ...]
    mask: StaticMask | None = None
    also: tuple[str, ...] = ()
    saturation: float | None = None
    area: bool = False

    def outputs(self, frames: Frames) -> Mapping[str, Output]:
        """Describe sum, mean, max, com_row, com_column, n_valid and what else is asked for, each over roi."""
        regions = self.windows(frames)
        if self.mask is not None:
            self.mask.on(frames)
        if frames.geometry is None and set(self.also) & {X, Y, *IN_SPACE}:
            raise GeometryError(
                "places in m need a geometry",
                found=f"also={list(self.also)}, frames without geometry",
                fix='.sd.assign_geometry(xs.Geometry.from_psana("geometry.data"))',
            )
        n = len(regions)
        double, count = np.dtype(np.float64), np.dtype(np.int32)
        units = "" if frames.units is None else frames.units
        kinds = {SUM: units, MEAN: units, MAX: units, COM_ROW: DIMENSIONLESS, COM_COLUMN: DIMENSIONLESS}
        known = {MIN: units, FULL_SUM: units, X: METRE, Y: METRE, N_SATURATED: DIMENSIONLESS}
        known |= dict.fromkeys(IN_PIXELS, DIMENSIONLESS) | dict.fromkeys(IN_SPACE, "m2")
        kinds |= {N_VALID: DIMENSIONLESS} | {name: known[name] for name in self.also}
        dtypes = {MAX: frames.dtype, N_VALID: count, N_SATURATED: count}
        out = {
            name: Output((ROI,), (n,), dtypes.get(name, double), {UNITS: unit} if unit else {})
            for name, unit in kinds.items()
        }
        if frames.variance:
            for name in (SUM, MEAN, MAX, COM_ROW, COM_COLUMN, *(k for k in self.also if k in (FULL_SUM, X, Y))):
                unit = kinds[name]
                square = unit if unit in ("", DIMENSIONLESS) else f"({unit})2"
                out[f"{name}{VARIANCE_SUFFIX}"] = Output((ROI,), (n,), double, {UNITS: square} if square else {})
        if self.area:
            out |= self._areas(frames, regions, units)
        return out

    def _areas(self, frames: Frames, regions: list[list[Window]], units: str) -> dict[str, Output]:
        """Describe the pixels that are kept."""
        out = {}
        for (name, _), found in zip(self.places, regions, strict=True):
            shape = kept_shape(found)[0]
            dims = (SEGMENT, ROW, COLUMN)[3 - len(shape) :]
            prefix = f"{name}_" if len(regions) > 1 else ""
            attrs = {UNITS: units} if units else {}
            out[f"{prefix}{AREA}"] = Output(tuple(f"{prefix}{d}" for d in dims), shape, frames.dtype, attrs)
        size = sum(frames.dtype.itemsize * int(np.prod(o.array_shape)) for o in out.values())
        if size > MUCH:
            warn_user(
                f"roi(..., area=True) keeps {format_bytes(size)} of each event, {format_bytes(10**6 * size)} of "
                "a million; smaller regions keep less",
            )
        return out

    def windows(self, frames: Frames) -> list[list[Window]]:
        """The pieces of the arrays of the frames that hold each region."""
        return [windows(place, frames) for _, place in self.places]

    def coords(self, frames: Frames) -> Mapping[str, xr.Variable]:
        """Names of the regions, and labels of the pixels that are kept."""
        out = {ROI: xr.Variable((ROI,), np.array([name for name, _ in self.places]))}
        for (name, _), found in zip(self.places, self.windows(frames) if self.area else [], strict=False):
            prefix = f"{name}_" if len(self.places) > 1 else ""
            shape, row, column = kept_shape(found)
            labels = {ROW: np.array(frames.row)[row], COLUMN: np.array(frames.column)[column]}
            if len(shape) == 3:
                labels[SEGMENT] = np.array(frames.segment)[[w.segment for w in found]]
            out |= {f"{prefix}{dim}": xr.Variable((f"{prefix}{dim}",), values) for dim, values in labels.items()}
        return out

    def reducer(self, frames: Frames) -> Reducer:
        """Make the reducer."""
        names = [f"{name}_" if len(self.places) > 1 else "" for name, _ in self.places]
        return RoiReducer(
            frames, self.windows(frames), self.mask, also=self.also, saturation=self.saturation,
            areas=names if self.area else [],
        )  # fmt: skip
