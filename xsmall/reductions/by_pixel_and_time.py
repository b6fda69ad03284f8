"""Sparse frames: values of pixels that are not zero, sorted by pixel and time, from photon lists or from frames."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import dask
import numpy as np
import numpy.typing as npt
import xarray as xr

from xsmall.detector.frames import Frames
from xsmall.errors import DataError, ParameterError
from xsmall.events.labels import labels_of
from xsmall.events.own_names import own_names
from xsmall.events.ragged import is_ragged
from xsmall.frames.describe import describe
from xsmall.frames.per_pixel import StaticMask
from xsmall.frames.sparse import sparse_of
from xsmall.reductions.region import as_place, inside
from xsmall.vocabulary import COLUMN, EVENT, FRAME_DIMS, N_PHOTONS, N_VALID, ROI, ROW, SEGMENT

__all__ = ["Correlated", "Entries", "entries_of", "inputs_of", "times_of"]

_SPARSE = 3
"""Arrays of sparse frames: pixels, values, lost ones. Lists of photons come with valid pixels and are more."""


class Entries(NamedTuple):
    """Values that are not zero, by pixel and time."""

    begin: npt.NDArray[np.int64]
    event: npt.NDArray[np.int32]
    weights: npt.NDArray[np.float64]
    complete: npt.NDArray[np.bool_]
    """(region, event): whether an event has all pixels of a region."""
    held: npt.NDArray[np.bool_]
    """(region, pixel): pixels of a region, without those that no event has."""


class Correlated(NamedTuple):
    """What is correlated: arrays in memory or lazy, and the pixels of each region."""

    arrays: tuple[Any, ...]
    frames: Frames
    regions: dict[str, npt.NDArray[np.bool_]]
    is_lazy: bool
    usable: npt.NDArray[np.bool_] | None
    """(event, segment): what coordinates say; None where all may be used."""


def inputs_of(obj: xr.DataArray | xr.Dataset, regions: Any, like: xr.DataArray | None, mask: Any) -> Correlated:
    """Check what is to be correlated.

    Raises
    ------
    DataError
        Neither frames nor lists of photons; lists without the frames they were found in.
    ParameterError
        Regions without names.
    """
    if not isinstance(regions, Mapping) or not regions:
        raise ParameterError(
            "regions need names",
            found=repr(regions)[:80],
            expected="a mapping of names to boxes, regions or masks",
            fix='{"ring": xs.Band("q", 1.0, 1.2)}',
        )
    arrays: tuple[Any, ...]
    use: npt.NDArray[np.bool_] | None = None
    sparse = sparse_of(obj)
    if sparse is not None:
        if like is not None:
            raise ParameterError("sparse frames know their pixels", found="like beside them", fix="leave like out")
        like, arrays, use = sparse.values, sparse.lists, sparse.used
    elif isinstance(obj, xr.DataArray) and obj.dims == FRAME_DIMS:
        if like is not None:
            raise ParameterError("frames know their pixels", found="like beside frames", fix="leave like out")
        like, arrays = obj, (obj.data,)
    else:
        names = (SEGMENT, ROW, COLUMN)
        obj = own_names(obj, N_PHOTONS, *names) if isinstance(obj, xr.Dataset) else obj
        if not isinstance(obj, xr.Dataset) or not all(n in obj and is_ragged(obj[n]) for n in names):
            raise DataError(
                "neither frames nor lists of photons",
                found=repr(getattr(obj, "dims", type(obj).__name__)),
                expected=f"frames {FRAME_DIMS}, sparse frames, or what xs.photon returns",
                fix="xs.apply(cal, xs.droplet(4.0, 1.0) | xs.photon(9.5))",
            )
        if like is None:
            raise DataError(
                "lists of photons do not know the pixels",
                expected="like=cal, the frames they were found in, and the mask= of then; or sparse frames",
                fix="xs.g2(xs.apply(cal, xs.droplet(4.0, 1.0) | xs.photon(9.5, sparse=True)), regions)",
            )
        arrays = (*(obj[n].data for n in names), _valid_of(obj, list(map(str, regions))))
    described = describe(like)
    frames = described.of_all_events
    fixed = StaticMask.of(mask)
    here = np.ones(frames.shape, bool) if use is None else use
    use = here if fixed is None else here & fixed.on(frames)
    held = {str(name): inside(as_place(place, "a region"), frames) & use for name, place in regions.items()}
    if sparse is None and like is not obj:
        arrays = (*arrays, int(use.sum()))
    usable = described.usable if sparse is not None or like is obj else None
    return Correlated(arrays, frames, held, any(dask.is_dask_collection(a) for a in arrays), usable)


def _valid_of(photons: xr.Dataset, regions: list[str]) -> Any:
    """Valid pixels beside lists of photons: (event,), or (event, region) where they were counted in these regions."""
    if N_VALID not in photons:
        return None
    valid = photons[N_VALID]
    if valid.dims == (EVENT,):
        return valid.data
    if set(valid.dims) != {EVENT, ROI} or not set(regions) <= set(valid[ROI].values.tolist()):
        raise DataError(
            "photons that were counted in other regions do not tell which pixels each event lacks",
            found=f"{N_VALID} of {', '.join(map(str, valid[ROI].values)) if ROI in valid.coords else valid.dims}",
            expected=", ".join(regions),
            fix="xs.apply(cal, xs.droplet(4.0, 1.0) | xs.photon(9.5, sparse=True))",
        )
    return valid.sel({ROI: regions}).transpose(EVENT, ROI).data


def times_of(obj: xr.DataArray | xr.Dataset, what: str) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.intp], float]:
    """Times of the events in ns, rising, their order, and how many seconds one is; other labels count as they are.

    Raises
    ------
    DataError
        No labels, labels twice, without a value, or that are not numbers.
    """
    labels = labels_of(obj, what)
    values = labels.to_numpy()
    is_time = values.dtype.kind == "M"
    if bool(np.asarray(labels.isna()).any()) or not (is_time or values.dtype.kind in "iu"):
        raise DataError(
            f"{what} needs the time of each event",
            found=f"labels {values[:3]}",
            expected="times or whole numbers, every event with its own",
            fix=f"select the events with a time: .sel({EVENT}=obj.{EVENT}.notnull())",
        )
    numbers = values.astype("M8[ns]").astype(np.int64) if is_time else values.astype(np.int64)
    order = np.argsort(numbers, kind="stable")
    return numbers[order], order, 1e-9 if is_time else 1.0


def entries_of(
    arrays: tuple[Any, ...],
    frames: Frames,
    held: npt.NDArray[np.bool_],
    order: npt.NDArray[np.intp],
    usable: npt.NDArray[np.bool_] | None = None,
) -> Entries:
    """Sort values by pixel and time; ``held`` (region, pixel), ``usable`` (event, segment)."""
    rank = np.empty(len(order), np.int64)
    rank[order] = np.arange(len(order))
    here = np.ones((len(order), frames.shape[0]), bool) if usable is None else usable
    if len(arrays) == 1:
        return _entries_of_frames(np.asarray(arrays[0]), held, order, here)
    if len(arrays) == _SPARSE:
        return _of_sparse(arrays, held, order, rank, here)
    segment, row, column, valid, used = arrays
    lengths = np.array([len(v) for v in row], np.int64)
    flat = [np.concatenate([np.empty(0), *values]) for values in (segment, row, column)]
    at = []
    for values, labels in zip(flat, frames.part, strict=True):
        known = np.array(labels)
        sorter = np.argsort(known)
        whole = np.floor(values + 0.5).astype(np.int64)
        found = sorter[np.clip(np.searchsorted(known, whole, sorter=sorter), 0, known.size - 1)]
        if (known[found] != whole).any():
            raise DataError(
                "photons beside the pixels", found="places that the frames do not have", fix="like= the same frames"
            )
        at.append(found)
    pixel = np.ravel_multi_index(tuple(at), frames.shape)
    complete = np.ones((len(held), len(order)), bool)
    if valid is not None and len(valid):
        complete = _complete(np.asarray(valid), held, used)[:, order]
    return Entries(*_by_pixel(pixel, None, lengths, order, held.shape[1]), complete, held)


def _by_pixel(
    pixel: npt.NDArray[np.integer[Any]],
    value: npt.NDArray[Any] | None,
    lengths: npt.NDArray[np.int64],
    order: npt.NDArray[np.intp],
    n_pixels: int,
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int32], npt.NDArray[np.float64]]:
    """Entries of one event after the other, sorted by pixel and time: see :func:`xsmall.kernels.g2.sort_by_pixel`."""
    from xsmall.kernels.g2 import sort_by_pixel

    if pixel.size and not (pixel.min() >= 0 and pixel.max() < n_pixels):
        raise DataError(
            "entries beside the pixels",
            found=f"pixels {pixel.min()} to {pixel.max()}",
            expected=f"0 to {n_pixels - 1}",
            fix="the sparse frames as they were made",
        )
    begin, event, weights = np.zeros(n_pixels + 1, np.int64), np.empty(pixel.size, np.int32), np.empty(pixel.size)
    stops = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
    n = sort_by_pixel(pixel, value, stops, order.astype(np.int64), begin, event, weights)
    return begin, event[:n], weights[:n]


def _complete(valid: npt.NDArray[Any], held: npt.NDArray[np.bool_], used: int) -> npt.NDArray[np.bool_]:
    """(region, event): which events have as many valid pixels as any.

    Raises
    ------
    DataError
        None has all pixels that are correlated.
    """
    expected = held.sum(axis=1) if valid.ndim > 1 else np.array([used])
    counts = valid.reshape(len(valid), -1).T
    most = counts.max(axis=1)
    fewer = (most > 0) & (most < expected)
    if fewer.any():
        g = int(np.argmax(fewer))
        raise DataError(
            "photons that were found on fewer pixels than are correlated",
            found=f"at most {most[g]} valid pixels in an event",
            expected=f"{expected[g]}: the mask= that the photons were found with",
            fix="xs.apply(cal, xs.droplet(4.0, 1.0) | xs.photon(9.5, sparse=True))",
        )
    return np.broadcast_to((counts == most[:, None]) & (counts > 0), (len(held), len(valid)))


def _of_sparse(
    arrays: tuple[Any, ...],
    held: npt.NDArray[np.bool_],
    order: npt.NDArray[np.intp],
    rank: npt.NDArray[np.int64],
    usable: npt.NDArray[np.bool_],
) -> Entries:
    pixel, value, lost = arrays
    flat, values = (np.concatenate(v) if len(v) else np.empty(0, np.int32) for v in (pixel, value))
    entries = _by_pixel(flat, values, np.array([len(v) for v in pixel], np.int64), order, held.shape[1])
    of_event, first, stop = _lost_runs(lost, usable, held.shape[1] // usable.shape[1])
    without = np.bincount(first, minlength=held.shape[1] + 1) - np.bincount(stop, minlength=held.shape[1] + 1)
    times_used = np.repeat(usable.sum(axis=0), held.shape[1] // usable.shape[1])
    if len(order):  # else nothing is known against any pixel
        held = held & (np.cumsum(without)[: held.shape[1]] < times_used)
    complete = np.empty((len(held), len(order)), bool)
    for region, whole in zip(held, complete, strict=True):
        touched = region.reshape(usable.shape[1], -1).any(axis=1)
        whole[rank] = usable[:, touched].all(axis=1)
        before = np.concatenate([[0], np.cumsum(region)])
        whole[rank[of_event[before[stop] > before[first]]]] = False
    return Entries(*entries, complete, held)


def _lost_runs(
    lost: Any, usable: npt.NDArray[np.bool_], pixels: int
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Runs of lost pixels in segments of ``pixels`` that may be used: event, first pixel, and the one behind the last.

    A segment that may not be used in an event is lost there as a whole, so that its pixels are not counted twice.
    """
    flat = np.concatenate([np.empty(0, np.int64), *lost])
    first, stop = flat.reshape(-1, 2).T
    event = np.repeat(np.arange(len(lost)), [len(v) // 2 for v in lost])
    pieces = (stop - 1) // pixels - first // pixels + 1  # a run may go on in the next segment
    at = np.repeat(np.arange(first.size), pieces)
    segment = first[at] // pixels + np.arange(at.size) - np.repeat(np.cumsum(pieces) - pieces, pieces)
    kept = usable[event[at], segment]
    at, segment = at[kept], segment[kept]
    return event[at], np.maximum(first[at], segment * pixels), np.minimum(stop[at], (segment + 1) * pixels)


def _entries_of_frames(
    values: npt.NDArray[Any],
    held: npt.NDArray[np.bool_],
    order: npt.NDArray[np.intp],
    usable: npt.NDArray[np.bool_],
) -> Entries:
    stack = values.reshape(len(values), held.shape[1])[order]
    good = np.isfinite(stack) & np.repeat(usable[order], held.shape[1] // usable.shape[1], axis=1)
    held = held & (good.any(axis=0) if len(good) else True)
    complete = np.array([good[:, region].all(axis=1) for region in held]).reshape(len(held), len(order))
    by_pixel = np.where(good & held.any(axis=0), stack, 0).T
    pixel, event = np.nonzero(by_pixel)
    begin = np.searchsorted(pixel, np.arange(held.shape[1] + 1))
    weights = by_pixel[pixel, event].astype(np.float64)
    return Entries(begin.astype(np.int64), event.astype(np.int32), weights, complete, held)
