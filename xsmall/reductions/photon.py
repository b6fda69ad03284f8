"""Photons of each event: where they are, how many pixels hold how many, and pictures of them."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Final, Literal

import numpy as np
import xarray as xr
from dask.utils import format_bytes

from xsmall.calls import warn_user
from xsmall.detector.frames import Frames
from xsmall.detector.geometry.beam import PHOTON_ENERGY_RANGE
from xsmall.engine.asked import ask, chained
from xsmall.engine.record import Output, Record, Reducer, no_record
from xsmall.errors import ParameterError
from xsmall.frames.per_pixel import StaticMask
from xsmall.reductions.arguments import real_number, whole_number
from xsmall.reductions.box import in_order
from xsmall.reductions.droplet import Droplet
from xsmall.reductions.droplet_tables import PLACES, check_places
from xsmall.reductions.entry_lists import outputs_of_entries, used_pixels
from xsmall.reductions.made_frames import OfMadeFrames
from xsmall.reductions.photon_reducer import PhotonReducer, PixelReducer
from xsmall.reductions.region import Place, as_place, inside
from xsmall.reductions.sums import Sums
from xsmall.vocabulary import (
    COLUMN,
    DIMENSIONLESS,
    KILOELECTRONVOLT,
    N_ABOVE,
    N_BELOW,
    N_DROPLETS,
    N_K,
    N_PHOTONS,
    N_VALID,
    PHOTON,
    PHOTONS,
    ROI,
    ROW,
    SAMPLE_DIMENSION,
    SEGMENT,
    UNITS,
    UNITS_OF,
    K,
)

__all__ = ["Photon", "photon"]

FITTED: Final = 64
"""The most photons of a droplet whose places are fitted."""
_NEAR_ONE: Final = (0.5, 2.0)
"""What one photon may be in data in photons, whose gain is off."""
MUCH: Final = 1 << 20
"""Bytes of pictures kept of each event from which on the size is told."""


@ask
def photon(
    per_photon: float | None = None,
    *,
    method: Literal["greedy", "fit"] | None = None,
    cloud: float | None = None,
    thr_fraction: float | None = None,
    regions: Any = None,
    max_k: int = 10,
    mask: Any = None,
    also: Sequence[str] = (),
    image: bool = False,
    sparse: bool = False,
) -> Photon:
    """Count photons: those of droplets, ``xs.droplet(...) | xs.photon()``, or those of single pixels.

    Parameters
    ----------
    per_photon
        Value of one photon in the unit of the data. Without it that of the beam's photon energy, for data in keV, or 1
        for data in photons.
    method
        How the photons of a droplet are placed. ``"greedy"``, which holds where nothing is said: each pixel takes as
        many as fit whole; then the pixel with the largest rest takes what it lacks from its largest neighbour, and so
        on. ``"fit"``: from there, until clouds of charge explain the pixels best, for droplets of up to 64 photons.
    cloud
        Width (rms) of the cloud of charge of one photon in pixels, for the fit; 0.25 where nothing is said.
    thr_fraction
        Without droplets: psana's rule. A pixel has its whole photons, and one more where its rest is the largest around
        and makes, with the largest rest of its four neighbours, at least this part of a photon, 0.9 where nothing is
        said.
    regions
        Count pixels in regions: a mapping of names to what :func:`~xsmall.roi` takes, such as
        ``{"ring": xs.Band("q", 1.0, 1.2)}``. Without it over all pixels.
    max_k
        The largest k of ``n_k``.
    mask
        Boolean (segment, row, column), True where a pixel may be used; with droplets their own mask says it.
    also
        The place of each photon as ``"x"``, ``"y"``, ``"z"``, ``"radius"`` (m), ``"two_theta"`` (degrees), ``"q"``
        (1/angstrom), which need a geometry, and a beam.
    image
        Return the photons of each pixel in place of the lists. What follows, as in ``xs.photon(9.5, image=True) |
        xs.projection("row")``, sees them as frames, and they are not kept.
    sparse
        Return, in place of the lists, which pixels have photons and how many: sparse frames, which are kept in place of
        frames and go wherever those go, at the cost of photons and not of pixels.

    Returns
    -------
    A record. ``n_photons`` (event), int32. A list per event, ordered by segment: ``row``, ``column`` (float64, in the
    labels of the detector), ``segment`` (int32), and what ``also`` asks for; a photon lies in the pixel that its place
    rounds to. ``n_k`` (event, k), int32: how many pixels hold k photons; ``n_above``: how many hold more than
    ``max_k``; ``n_valid``: pixels that could be looked at, the sum of both; each (event, roi, ...) with regions. From
    droplets also ``n_droplets`` and ``n_below``, how many of them have less than half a photon and are none. With
    ``image``, and no lists, ``photons`` (event, segment, row, column), float32, NaN where a pixel is not valid: frames
    that other reductions take. With ``sparse`` lists of ``pixel`` (int32, counted over segment, row and column, in
    order) and ``pixel_value`` (int32), ``n_entries`` of them; ``lost_pixels``, where runs of pixels that this event
    lacks begin and end; and the coordinate ``used`` (segment, row, column), False where the mask is. A Dataset of them
    is reduced as frames are (``.sd.azint``, ``.sd.reduce``, ``xs.g2``, images of a cube); :func:`~xsmall.dense` makes
    frames of it.

    Raises
    ------
    ParameterError
        A value of a photon that is not positive or not known, an unknown method, a mask beside droplets, lists of
        droplets that are cut, options that have no effect here.
    DataError
        Frames with rows or columns left out.
    GeometryError
        A place or a region of space, and no geometry.

    Warns
    -----
    UserWarning
        ``image`` keeps more than 1 MiB of each event.

    Notes
    -----
    A droplet of the sum S has floor(S / per_photon + 1/2) photons. A single photon lies at the centroid of its droplet.
    Counts are of pixels of this event, never averages; an event without a photon has ``n_k[0] = n_valid``. Segments are
    counted apart. The number of a droplet's photons is good as long as the noise of its sum is well below half a
    photon; where they lie in a droplet of many is a guess, right for most pixels and wrong for some, which lowers or
    raises the number of pixels with two: :func:`~xsmall.photon_bias` says how much. psana's rule may use the
    rest of one pixel for two photons. A droplet or a pixel of more than 2^22 photons, or a segment of more than 2^26,
    is not light that can be counted: these pixels are not valid in that event. With a photon energy per event each
    event has its own value of a photon.
    Cost: that of droplets, and some 50 ns per photon; a droplet of 10^5 photons takes a few ms.

    Examples
    --------
    >>> import xsmall as xs
    >>> sim = xs.simulate(4, shape=(2, 32, 64), seed=1)
    >>> cal = sim.run["jungfrau"]["raw"].sd.calibrate(sim.constants)
    >>> found = xs.apply(cal, xs.droplet(4.0, 1.0) | xs.photon(9.5))
    >>> bool((found["n_k"].sum("k") + found["n_above"] == found["n_valid"]).all())
    True
    >>> cal.sd.photon(9.5, thr_fraction=0.85)["n_photons"].dims
    ('event',)
    """
    value = None if per_photon is None else _above_0("per_photon", per_photon, fix="xs.photon(9.5) for 9.5 keV")
    if method not in ("greedy", "fit", None):
        raise ParameterError("invalid method", found=repr(method), expected="'greedy' or 'fit'")
    width = _above_0("cloud", 0.25 if cloud is None else cloud, fix="cloud=0.25")
    if cloud is not None and method != "fit":
        raise ParameterError("the cloud is for the fit", found=f"cloud={cloud!r}", fix='method="fit" beside it')
    least = None if thr_fraction is None else _above_0("thr_fraction", thr_fraction, fix="thr_fraction=0.9")
    wanted = tuple(dict.fromkeys([also] if isinstance(also, str) else also))
    for name in wanted:
        if name not in PLACES:
            raise ParameterError("invalid also", found=repr(name), expected=" or ".join(map(repr, PLACES)))
    if wanted and image:
        raise ParameterError("pictures have no lists", found=f"also={list(wanted)}", fix="leave also or image out")
    if regions is not None and not (isinstance(regions, Mapping) and regions):
        raise ParameterError(
            "regions need names",
            found=repr(regions)[:80],
            expected="a mapping of names to boxes, regions or masks",
            fix='regions={"ring": xs.Band("q", 1.0, 1.2)}',
        )
    if image and sparse:
        raise ParameterError("pictures and sparse frames at once", fix="sparse=True; xs.dense makes pictures of it")
    places = tuple((str(n), as_place(p, "a region")) for n, p in (regions or {}).items())
    how = None if method is None else (width if method == "fit" else 0.0, FITTED)
    most = whole_number("max_k", max_k, "max_k=10")
    return Photon(value, how, least, places, most, StaticMask.of(mask), wanted, bool(image), bool(sparse))


def _above_0(what: str, value: object, fix: str) -> float:
    return real_number(what, value, "a positive number", fix, above=0)


def _meant(per_photon: float, units: str | None) -> float:
    """The value of a photon, refused where no photon has it in the unit of the data, such as 9500 keV."""
    ranges = {KILOELECTRONVOLT: tuple(e / 1e3 for e in PHOTON_ENERGY_RANGE), PHOTON: _NEAR_ONE}
    low, high = ranges.get(str(units), (0.0, math.inf))
    if not low <= per_photon <= high:
        raise ParameterError(
            "no photon has this value in the unit of the data",
            found=f"xs.photon({per_photon:g}), data in {units!r}",
            expected=f"{low:g} to {high:g} {units}",
            fix="xs.photon(9.5) for 9.5 keV" if units == KILOELECTRONVOLT else "xs.photon(), which takes 1",
        )
    return per_photon


@dataclass(frozen=True)
class Photon(Record):
    """Value of a photon, how it is placed, and where pixels are counted; made by :func:`photon`."""

    name: ClassVar[str] = "photon"

    per_photon: float | None
    how: tuple[float, int] | None
    """(width of the cloud for a fit or 0, the most photons that are fitted); None where no method is said."""
    thr_fraction: float | None
    regions: tuple[tuple[str, Place], ...]
    max_k: int
    mask: StaticMask | None = None
    also: tuple[str, ...] = ()
    image: bool = False
    sparse: bool = False
    droplets: Droplet | None = None

    def __or__(self, following: Record) -> Record:
        """Chain: pictures of photons are frames to what follows; sums and histograms take counts and lists."""
        if not isinstance(following, Record):
            return no_record(following)  # type: ignore[unreachable]  # users are not typed
        takes_lists = isinstance(following, Sums) or getattr(following, "variable", None) is not None
        if takes_lists and getattr(following, "first", None) is None:
            return super().__or__(following)
        if self.image:
            return chained(self, following, OfMadeFrames(self, PHOTONS, PHOTON, following))
        raise ParameterError(
            f"{following.name} is made of frames, and photons are lists",
            found=f"{self.name} | {following.name}",
            expected="pictures of photons before it, or the name of a list",
            fix='xs.photon(9.5, image=True) | xs.projection("row")',
        )

    def after(self, first: Record) -> Record:
        """Count the photons of droplets."""
        if not isinstance(first, Droplet) or self.droplets is not None:
            return super().after(first)
        if self.thr_fraction is not None:
            raise ParameterError(
                "thr_fraction is for single pixels",
                found=f"thr_fraction={self.thr_fraction} after droplets",
                fix="leave it out, or xs.photon() without droplets",
            )
        if self.mask is not None:
            raise ParameterError("the mask belongs to the droplets", fix="xs.droplet(..., mask=mask) | xs.photon()")
        if first.max_droplets is not None:
            raise ParameterError(
                "photons need all droplets", found=f"max_droplets={first.max_droplets}", fix="leave max_droplets out"
            )
        if first.also:
            raise ParameterError(
                "photons have no properties of droplets", found=f"also={list(first.also)}",
                fix="ask for them in a record of droplets beside this one",
            )  # fmt: skip
        return replace(self, droplets=first)

    def value(self, frames: Frames) -> float:
        """The value of one photon in the unit of the data.

        Raises
        ------
        ParameterError
            It is not known.
        """
        if self.per_photon is not None:
            return _meant(self.per_photon, frames.units)
        if frames.units == PHOTON:
            return 1.0
        energy = None if frames.beam is None else frames.beam.photon_energy
        if frames.units == KILOELECTRONVOLT and energy is not None:
            return float(energy) / 1e3
        raise ParameterError(
            "the value of a photon is not known",
            found=f"data in {frames.units!r}, " + ("no photon energy" if energy is None else f"{energy} eV"),
            expected="data in photons, or in keV with a photon energy, or the value",
            fix="xs.photon(9.5), in the unit of the data",
        )

    @property
    def follows_energy(self) -> bool:
        """Whether the value of a photon is that of the event's photon energy."""
        return self.per_photon is None

    def outputs(self, frames: Frames) -> Mapping[str, Output]:
        """Describe lists, counts of pixels, and pictures."""
        self.value(frames)
        for dim, labels in ((ROW, frames.row), (COLUMN, frames.column)):
            in_order(labels, dim, "photon")
        if self.mask is not None:
            self.mask.on(frames)
        for _, place in self.regions:
            inside(place, frames)
        check_places("photons", self.also, frames)
        whole, double, none = np.dtype(np.int32), np.dtype(np.float64), {UNITS: DIMENSIONLESS}
        listed = not (self.image or self.sparse)
        out = {N_PHOTONS: Output((), (), whole, {**none, SAMPLE_DIMENSION: PHOTON} if listed else none)}
        if self.droplets is None and self.how is not None:
            raise ParameterError(
                "photons of single pixels are not placed by a method",
                found="method without droplets",
                fix="xs.droplet(4.0, 1.0) | xs.photon(...), or leave method out",
            )
        if self.droplets is not None:
            self.droplets.outputs(frames)
            out |= {name: Output((), (), whole, none) for name in (N_DROPLETS, N_BELOW)}
        dims, shape = ((ROI,), (len(self.regions),)) if self.regions else ((), ())
        out[N_K] = Output((*dims, K), (*shape, self.max_k + 1), whole, none)
        out |= {name: Output(dims, shape, whole, none) for name in (N_ABOVE, N_VALID)}
        if self.image:
            size = 4 * math.prod(frames.shape)
            if size > MUCH:
                warn_user(
                    f"photon(..., image=True) keeps {format_bytes(size)} of each event; the lists are far smaller",
                )
            out[PHOTONS] = Output((SEGMENT, ROW, COLUMN), frames.shape, np.dtype(np.float32), {UNITS: PHOTON})
            return out
        if self.sparse:
            return out | outputs_of_entries(frames, whole, PHOTON)
        lists: dict[str, tuple[np.dtype[Any], dict[str, str]]]
        lists = {ROW: (double, none), COLUMN: (double, none), SEGMENT: (whole, none)}
        lists |= {name: (double, {UNITS: UNITS_OF[name]}) for name in self.also}
        return out | {name: Output((PHOTON,), (None,), dtype, attrs) for name, (dtype, attrs) in lists.items()}

    def coords(self, frames: Frames) -> Mapping[str, xr.Variable]:
        """Numbers of photons, names of regions, and the labels of pixels of pictures."""
        out = {K: xr.Variable((K,), np.arange(self.max_k + 1), {UNITS: DIMENSIONLESS})}
        if self.regions:
            out[ROI] = xr.Variable((ROI,), np.array([name for name, _ in self.regions]))
        if self.image:
            labels = {SEGMENT: frames.segment, ROW: frames.row, COLUMN: frames.column}
            out |= {dim: xr.Variable((dim,), np.array(values)) for dim, values in labels.items()}
        if self.sparse:
            mask = self.mask if self.droplets is None else self.droplets.mask
            out |= used_pixels(frames, np.ones(frames.shape, bool) if mask is None else mask.on(frames))
        return out

    def reducer(self, frames: Frames) -> Reducer:
        """Make the reducer."""
        places = [place for _, place in self.regions]
        shared: dict[str, Any] = {
            "value": self.value(frames), "follows_energy": self.follows_energy and frames.units != PHOTON,
            "max_k": self.max_k, "also": self.also, "image": self.image, "sparse": self.sparse, "places": places,
        }  # fmt: skip
        if self.droplets is None:
            least = 0.9 if self.thr_fraction is None else self.thr_fraction
            return PixelReducer(frames, mask=self.mask, thr_fraction=least, **shared)
        d = self.droplets
        return PhotonReducer(
            frames, thresholds=(d.threshold, d.threshold_low), noise=d.noise, mask=d.mask, grow=d.how, cuts=d.cuts,
            how=self.how or (0.0, FITTED), **shared,
        )  # fmt: skip
