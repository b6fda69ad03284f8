"""Masks that say why: reasons as flags per pixel, and the choice of those that count."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt
import xarray as xr

from xsmall.detector.geometry.beam import Beam
from xsmall.detector.geometry.geometry import Geometry
from xsmall.detector.masks.edges import Width, geometry_reasons
from xsmall.detector.masks.patterns import Pattern, neighbours_of
from xsmall.detector.masks.regions import Region
from xsmall.detector.part import Part
from xsmall.detector.reasons import named_bits, named_reasons, reason_bits
from xsmall.detector.status_words import status_reasons
from xsmall.detector.types import DETECTOR_TYPES
from xsmall.errors import DataError, GeometryError, ParameterError
from xsmall.frames.beam import beam_of
from xsmall.frames.per_pixel import boolean_mask, usable_pixels
from xsmall.frames.pixels import assign_geometry, geometry_of
from xsmall.vocabulary import (
    DETECTOR_TYPE,
    FLAG_MASKS,
    FLAG_MEANINGS,
    GAIN_STAGE,
    LONG_NAME,
    PIXEL_DIMS,
    REASONS,
    STATUS,
    Reason,
)

__all__ = ["flag_attrs", "inside", "mask", "usable"]

Array: TypeAlias = npt.NDArray[Any] | xr.DataArray
STATUS_REASONS = Reason.DEAD | Reason.HOT | Reason.NOISY | Reason.OTHER_STATUS
"""What status words give; neighbours of these pixels may be taken away too."""


def mask(
    detector: Geometry | xr.DataArray,
    *,
    edges: Width = 0,
    central: Width = 0,
    unbonded: bool = False,
    unbonded_neighbours: int | None = None,
    status: xr.Dataset | Array | None = None,
    status_bits: int | None = None,
    status_convention: str | None = None,
    gain_stages: Iterable[int] | None = None,
    neighbours: int | tuple[int, Pattern] = 0,
    user: Array | Region | None = None,
    shadow: Array | Region | None = None,
) -> xr.DataArray:
    """List the reasons not to use each pixel.

    Parameters
    ----------
    detector
        A geometry, or data (event, segment, row, column): the whole detector or a slice of it. Edges, joins, unbonded
        pixels and regions need a geometry.
    edges
        Width in pixels of the edge of each segment; or (rows, columns).
    central
        Width on both sides of each join of two ASICs; or (rows, columns).
    unbonded
        Flag the pixels that are not bonded (CSPAD).
    unbonded_neighbours
        4 or 8: flag the pixels next to these.
    status
        Constants with ``status``, or the status words (gain_stage, segment, row, column), 0 = nothing against it.
    status_bits
        Bits of the status words that count; None: all.
    status_convention
        Who wrote the status words, which says which bit is which reason: ``"psana2"``, ``"psana1"``, ``"euxfel"``, or
        ``"any"`` (None), which calls every bit ``other_status``. Words with CF ``flag_meanings`` say it themselves.
    gain_stages
        Gain stages whose status counts; a pixel bad in one of them is bad. None: the measured stages of the detector
        type where the constants name it, else all.
    neighbours
        Radius, or (radius, ``"diamond"``, ``"disk"`` or ``"square"``): flag what is that near to a pixel with a bad
        status, within its segment.
    user, shadow
        Boolean mask, True = use the pixel, or flags of reasons, of the shape of the data or of the whole detector, or
        with labels; or a region, whose inside is flagged. Make a mask of integers with :func:`xsmall.mask_from_array`.

    Returns
    -------
    uint32 DataArray (segment, row, column) of :class:`~xsmall.vocabulary.Reason` bits with CF ``flag_masks`` and
    ``flag_meanings``, 0 where the pixel may be used; labels and geometry of ``detector``. Status given
    lazily is read. :func:`usable` makes a boolean mask of it.

    Raises
    ------
    GeometryError
        Something that needs a geometry where there is none.
    DataError, ParameterError
        Arrays of another shape, masks of integers, invalid widths.

    Notes
    -----
    The pixels are those of psana's masks; :func:`xsmall.psana_mask` has psana's own words and exceptions.

    Examples
    --------
    >>> import xsmall as xs
    >>> text = "IP 0 CAMERA 0 0 0 100000 90 0 0 0 0 0" + chr(10) + "CAMERA 0 EPIX100:V1 0 0 0 0 0 0 0 0 0 0"
    >>> flags = xs.mask(xs.Geometry.from_psana(text), edges=1, central=1)
    >>> int((flags != 0).sum())
    5872
    """
    target = Target.of(detector)
    flags = np.zeros(target.shape, dtype=np.uint32)
    of_status = {"status_bits": status_bits, "status_convention": status_convention, "gain_stages": gain_stages}
    if status is not None:
        flags |= _status_reasons(target, status, status_bits, status_convention, gain_stages)
    elif without := [name for name, value in of_status.items() if value is not None]:
        words = 'constants["status"].values' if without[0] == "status_convention" else "constants"
        raise ParameterError(f"{without[0]} of which status?", found="no status", fix=f"status={words} beside it")
    radius, pattern = neighbours if isinstance(neighbours, tuple) else (neighbours, "diamond")
    if radius and status is None:
        raise ParameterError("neighbours of which pixels?", found="no status", fix="status=constants")
    if radius:
        bad = (flags & np.uint32(STATUS_REASONS)) != 0
        flags[neighbours_of(bad, radius, pattern) & ~bad] |= np.uint32(Reason.NEIGHBOUR_OF_BAD)
    if edges or central or unbonded or unbonded_neighbours is not None:
        flags |= geometry_reasons(
            target.need_geometry("edges, joins and unbonded pixels"),
            edges=edges,
            central=central,
            unbonded=unbonded,
            unbonded_neighbours=unbonded_neighbours,
        )
    for given, reason in ((user, Reason.USER), (shadow, Reason.SHADOW)):
        if given is not None:
            flags[target.masked_by(given, f"{str(reason.name).lower()} mask")] |= np.uint32(reason)
    return target.labelled(flags, REASONS, flag_attrs())


def usable(
    flags: xr.DataArray, reasons: Iterable[str | Reason] | None = None, *, ignore: Iterable[str | Reason] = ()
) -> xr.DataArray:
    """Choose which reasons count, and make a mask of it.

    Parameters
    ----------
    flags
        Reasons as :func:`mask` gives them, or per event; NumPy or dask.
    reasons
        Names of the reasons that count, such as ``["dead", "edge"]``; None: all of them.
    ignore
        Names of reasons that do not.

    Returns
    -------
    Boolean DataArray of the same dims, True = use the pixel; as lazy as ``flags``.

    Raises
    ------
    DataError
        ``flags`` that are not integers.
    ParameterError
        A reason that does not exist.

    Examples
    --------
    >>> import numpy as np, xarray as xr, xsmall as xs
    >>> flags = xr.DataArray(np.array([0, 1, 16], dtype=np.uint32))
    >>> xs.usable(flags, ignore=["edge"]).values
    array([ True, False,  True])
    """
    if flags.dtype.kind not in "ui":
        raise DataError("reasons are integer flags", found=flags.dtype, expected="uint32", fix="xs.mask(...)")
    bits = np.iinfo(np.uint32).max if reasons is None else int(reason_bits(reasons))
    good: xr.DataArray = usable_pixels(flags, bits & ~int(reason_bits(ignore)))
    return good


def inside(detector: Geometry | xr.DataArray, region: Region) -> xr.DataArray:
    """Mark the pixels inside a region.

    Parameters
    ----------
    detector
        A geometry, or data with one; regions in q space need data with a beam.
    region
        Polygon, circle, ring, rectangle, band or a combination.

    Returns
    -------
    Boolean DataArray (segment, row, column), True inside: as a mask it uses the inside alone.

    Raises
    ------
    GeometryError
        Data without a geometry.
    ParameterError
        A region in q space without distance or photon energy.

    Examples
    --------
    >>> import xsmall as xs
    >>> panel = xs.Panel(origin=(0, 0, 0.1), slow=(0, 1e-4, 0), fast=(1e-4, 0, 0), shape=(4, 5))
    >>> int(xs.inside(xs.Geometry.from_panels([panel]), xs.Circle((0, 0), 1.01e-4)).sum())
    3
    """
    if not isinstance(region, Region):
        raise ParameterError("not a region", found=type(region).__name__, expected="xs.Polygon, xs.Circle, xs.Ring ...")
    target = Target.of(detector)
    return target.labelled(target.inside(region), None, {})


def flag_attrs() -> dict[str, Any]:
    """CF attributes of a variable of reasons."""
    return {
        LONG_NAME: "reasons against a pixel",
        FLAG_MASKS: np.array([int(r) for r in Reason], dtype=np.uint32),
        FLAG_MEANINGS: " ".join(str(r.name).lower() for r in Reason),
    }


def _status_reasons(
    target: Target, status: xr.Dataset | Array, bits: int | None, convention: str | None, gain_stages: Any
) -> npt.NDArray[np.uint32]:
    """Reasons from status words, of all stages that count."""
    words: Any = status
    kind = DETECTOR_TYPES.get(str(status.attrs.get(DETECTOR_TYPE)).lower()) if hasattr(status, "attrs") else None
    if isinstance(status, xr.Dataset):
        if STATUS not in status:
            raise DataError(f"constants without {STATUS!r}", found=", ".join(map(str, status.data_vars)) or "nothing")
        words = status[STATUS]
    values, staged = target.values_of(words, "status", stage=True)
    if staged:
        stages = list(gain_stages if gain_stages is not None else kind.status_stages if kind else range(len(values)))
        if not all(isinstance(stage, int | np.integer) for stage in stages):
            raise ParameterError("gain stages are numbers", found=stages, expected=f"from 0 to {len(values) - 1}")
        if not stages or min(stages) < 0 or max(stages) >= len(values):
            raise ParameterError(
                "gain stages that the status does not have", found=stages, expected=f"from 0 to {len(values) - 1}"
            )
        values = values[stages]
    elif gain_stages is not None:
        raise ParameterError("this status has no gain stages", found="gain_stages", fix="leave gain_stages out")
    named = named_bits(words.attrs) if isinstance(words, xr.DataArray) else ()
    if named and convention is not None:
        raise ParameterError(
            "the status words name their bits themselves",
            found=f"flag_meanings, status_convention={convention!r}",
            fix="leave status_convention out",
        )
    if named:
        return named_reasons(np.bitwise_or.reduce(values, axis=0) if staged else values, named, bits)
    return status_reasons(values, convention=convention or "any", bits=bits, stage_axis=0 if staged else None)


@dataclass(frozen=True)
class Target:
    """What a mask is made for: the pixels that are asked for, on the whole detector where its geometry is known."""

    whole: Part
    part: Part
    template: xr.DataArray
    geometry: Geometry | None
    beam: Beam | None

    @classmethod
    def of(cls, detector: Geometry | xr.DataArray) -> Target:
        if isinstance(detector, Geometry):
            zeros = np.broadcast_to(np.zeros((), dtype=bool), detector.shape)
            template = assign_geometry(xr.DataArray(zeros, dims=PIXEL_DIMS), detector)
            whole = Part.whole(detector.shape)
            return cls(whole, whole, template, detector, None)
        if not set(PIXEL_DIMS) <= set(getattr(detector, "dims", ())):
            raise DataError(
                "a mask is made for a geometry or for frames",
                found=f"dims {getattr(detector, 'dims', type(detector).__name__)}",
                expected=f"a Geometry, or dims {PIXEL_DIMS} among others",
            )
        part, geometry = Part.of(detector), geometry_of(detector)
        whole = part if geometry is None else Part.whole(geometry.shape)
        keep = {k: c for k, c in detector.coords.items() if set(c.dims) <= set(PIXEL_DIMS)}
        template = xr.DataArray(np.broadcast_to(False, part.shape), dims=PIXEL_DIMS, coords=keep)
        return cls(whole, part, template, geometry, beam_of(detector))

    @property
    def shape(self) -> tuple[int, int, int]:
        return self.whole.shape

    def need_geometry(self, what: str) -> Geometry:
        if self.geometry is None:
            raise GeometryError(
                f"{what} need a geometry", found="data without one", fix=".sd.assign_geometry(geometry)"
            )
        return self.geometry

    def inside(self, region: Region) -> npt.NDArray[np.bool_]:
        return region.inside(self.need_geometry("regions"), self.beam)

    def masked_by(self, given: Array | Region, what: str) -> npt.NDArray[np.bool_]:
        """Pixels that a mask, flags of reasons or a region take away, on the whole detector."""
        if isinstance(given, Region):
            return self.inside(given)
        values, _ = self.values_of(boolean_mask(given), what, fill=True)
        return ~values

    def values_of(
        self, given: Array, what: str, *, stage: bool = False, fill: Any = 0
    ) -> tuple[npt.NDArray[Any], bool]:
        """Bring an array to the whole detector by its labels or its shape; say whether it has gain stages in front."""
        values, have = self._known(given, what, stage)
        if have == self.whole:
            return values, values.ndim == 4
        self.part.match(have, what)  # raises where a pixel that is asked for has no value
        out = np.full((*values.shape[:-3], *self.shape), fill, dtype=values.dtype)
        index: tuple[Any, ...] = (..., *np.ix_(*have.match(self.whole, "detector")))
        out[index] = values
        return out, values.ndim == 4

    def _known(self, given: Array, what: str, stage: bool) -> tuple[npt.NDArray[Any], Part]:
        """Values, and which pixels they are: by labels, or by the shape of the part or of the whole detector."""
        if isinstance(given, xr.DataArray):
            lead = [d for d in given.dims if d not in PIXEL_DIMS]
            if set(PIXEL_DIMS) - set(given.dims) or (lead and not (stage and lead == [GAIN_STAGE])):
                raise DataError(f"{what} of other dims", found=given.dims, expected=PIXEL_DIMS)
            ordered = given.transpose(*lead, *PIXEL_DIMS)
            if any(dim in ordered.coords for dim in PIXEL_DIMS):
                return ordered.to_numpy(), Part.of(ordered)
            given = ordered.to_numpy()
        values = np.asarray(given)
        have = next((p for p in (self.part, self.whole) if values.shape[-3:] == p.shape), None)
        if have is None or values.ndim not in ((3, 4) if stage else (3,)):
            sizes = self.part.shape
            expected = f"{sizes}" + (f", or the whole detector {self.shape}" if sizes != self.shape else "")
            raise DataError(f"{what} of another shape", found=values.shape, expected=expected)
        return values, have

    def labelled(self, values: npt.NDArray[Any], name: str | None, attrs: dict[str, Any]) -> xr.DataArray:
        """The part that was asked for, with its labels."""
        out = self.template.copy(data=self.part.match(self.whole, "detector").take(values)).rename(name)
        out.attrs = attrs
        return out
