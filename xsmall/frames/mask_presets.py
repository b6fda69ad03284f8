"""Masks in the words of psana and of smalldata_tools, with their pixels."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import xarray as xr

from xsmall.detector.masks.edges import psana_geometry_mask
from xsmall.detector.masks.patterns import mask_from_array
from xsmall.detector.reasons import named_bits
from xsmall.detector.status_words import PIXEL_MASK_BIT
from xsmall.errors import DataError, ParameterError
from xsmall.frames.mask import Array, Target, mask
from xsmall.vocabulary import GAIN_STAGE, STATUS, Reason

if TYPE_CHECKING:
    from xsmall.detector.geometry.geometry import Geometry

__all__ = ["psana_mask", "smalldata_masks"]

PSANA_STATUS_BITS = 0xFFFF
MERGED_STAGES = 5  # psana merges the status of the first five gain stages, of fewer where there are fewer


def psana_mask(
    detector: Geometry | xr.DataArray,
    *,
    calib: xr.Dataset | Array | None = None,
    status: xr.Dataset | Array | None = None,
    edges: bool = False,
    central: bool = False,
    unbond: bool = False,
    unbondnbrs: bool = False,
    unbondnbrs8: bool = False,
    width: int = 1,
    wcentral: int = 1,
) -> xr.DataArray:
    """Make the mask that psana1's ``det.mask(run, calib=, status=, edges=, ...)`` makes, as reasons.

    Parameters
    ----------
    detector
        A geometry, or data with one.
    calib
        psana's ``pixel_mask`` constants, 1 = good (or a boolean mask, True = use), or constants read from psana, which
        hold it.
    status
        psana's ``pixel_status`` constants (gain_stage, segment, row, column) or constants read from psana; the lowest
        16 bits count (without ``pixel_mask``, which is ``calib``), of the first five gain stages, which psana merges.
        Words that name their bits, as those of ``xs.dark`` do, count with all of them.
    edges, central, unbond, unbondnbrs, unbondnbrs8
        As psana1 names them: edges of segments, joins of ASICs, unbonded pixels, these with their 4 and 8 neighbours.
    width, wcentral
        Of edges and of joins, in pixels.

    Returns
    -------
    uint32 DataArray (segment, row, column) of reasons; ``flags == 0`` is psana's mask, pixel for pixel.

    Notes
    -----
    psana2's ``det.raw._mask`` ignores these arguments; the meaning is the one of psana1, which psana's user
    documentation gives. With ``unbondnbrs`` psana leaves pixels (0, 0) and (0, 194) of a CSPAD 2x1 unmasked, and so
    does this function; ``xs.mask(unbonded=True, unbonded_neighbours=4)`` takes them away.

    Examples
    --------
    >>> import xsmall as xs
    >>> text = "IP 0 CSPAD 0 0 0 100000 90 0 0 0 0 0" + chr(10) + "CSPAD 0 SENS2X1:V1 0 0 0 0 0 0 0 0 0 0"
    >>> flags = xs.psana_mask(xs.Geometry.from_psana(text), edges=True, central=True, unbond=True)
    >>> int((flags == 0).sum())
    70236
    """
    for name, given, needed, wanted in (("width", width, "edges", edges), ("wcentral", wcentral, "central", central)):
        if given != 1 and not wanted:
            raise ParameterError(f"{name} without {needed}", found=f"{name}={given}", fix=f"{needed}=True beside it")
    target = Target.of(detector)
    flags = mask(detector, status=status, **({} if status is None else _of_status(status)))
    bits = edges * 1 + central * 2 + unbond * 4 + unbondnbrs * 8 + unbondnbrs8 * 16
    whole = np.zeros(target.shape, dtype=np.uint32)
    if bits:
        geometry = target.need_geometry("edges, joins and unbonded pixels")
        whole |= psana_geometry_mask(geometry, bits, width, wcentral)
    if calib is not None:
        good, _ = target.values_of(_pixel_mask(calib), "calib", fill=1)
        whole[~mask_from_array(good, convention="good=1")] |= np.uint32(Reason.USER)
    return flags.copy(data=flags.values | target.labelled(whole, None, {}).values)


def _of_status(status: xr.Dataset | Array) -> dict[str, Any]:
    """How psana reads status words; bits that are named need no convention."""
    words: Any = status.get(STATUS) if isinstance(status, xr.Dataset) else status
    stages = _merged_stages(words)
    if isinstance(words, xr.DataArray) and named_bits(words.attrs):
        return {"gain_stages": stages}
    bits = PSANA_STATUS_BITS & ~PIXEL_MASK_BIT if isinstance(status, xr.Dataset) else PSANA_STATUS_BITS
    return {"status_bits": bits, "status_convention": "psana1", "gain_stages": stages}


def _merged_stages(words: Any) -> range | None:
    """Gain stages whose status psana merges; None where there are no stages."""
    if isinstance(words, xr.DataArray):
        return range(min(MERGED_STAGES, words.sizes[GAIN_STAGE])) if GAIN_STAGE in words.dims else None
    return range(min(MERGED_STAGES, len(words))) if np.ndim(words) == 4 else None


def _pixel_mask(calib: xr.Dataset | Array) -> Array:
    """``pixel_mask`` as it is, or out of constants read from psana."""
    if not isinstance(calib, xr.Dataset):
        return calib
    if STATUS not in calib:
        raise DataError("constants that hold no pixel_mask", found=", ".join(map(str, calib.data_vars)) or "nothing")
    good = (calib[STATUS] & np.uint64(PIXEL_MASK_BIT)) == 0
    return good.all(GAIN_STAGE) if GAIN_STAGE in good.dims else good


def smalldata_masks(
    detector: Geometry | xr.DataArray,
    *,
    status: xr.Dataset | Array | None = None,
    calib: xr.Dataset | Array | None = None,
    mask_central: bool = True,
) -> xr.Dataset:
    """Make the three masks of smalldata_tools for LCLS-I, as reasons.

    Parameters
    ----------
    detector
        A geometry, or data with one.
    status, calib
        As in :func:`psana_mask`.
    mask_central
        smalldata_tools' ``maskCentral``.

    Returns
    -------
    Dataset of reasons (segment, row, column): ``status_mask`` (status alone), ``mask`` (unbonded pixels and their
    neighbours, status, edges, joins) and ``cmask`` (these and psana's ``pixel_mask``). Where a variable is 0 the
    mask of that name is 1 in smalldata_tools.

    Examples
    --------
    >>> import xsmall as xs
    >>> text = "IP 0 CSPAD 0 0 0 100000 90 0 0 0 0 0" + chr(10) + "CSPAD 0 SENS2X1:V1 0 0 0 0 0 0 0 0 0 0"
    >>> masks = xs.smalldata_masks(xs.Geometry.from_psana(text))
    >>> int((masks["mask"] == 0).sum())
    70092
    """
    of_geometry: dict[str, Any] = {"edges": True, "central": mask_central, "unbond": True, "unbondnbrs": True}
    out = {
        "status_mask": psana_mask(detector, status=status),
        "mask": psana_mask(detector, status=status, **of_geometry),
        "cmask": psana_mask(detector, status=status, calib=calib, **of_geometry),
    }
    return xr.Dataset(out)
