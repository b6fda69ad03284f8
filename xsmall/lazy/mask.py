"""A pixel mask as a value: hashable, comparable, small in a repr, so that records can hold one."""

from __future__ import annotations

import hashlib
from typing import Any

import numpy as np
import numpy.typing as npt
import xarray as xr

from xsmall.detector.cache import ArrayCache
from xsmall.errors import DataError, ParameterError
from xsmall.lazy.record import Frames
from xsmall.vocabulary import PIXEL_DIMS

__all__ = ["StaticMask"]

Labels = tuple[tuple[int, ...] | None, ...]
CACHE = ArrayCache(budget=1 << 28)
"""Masks cut down to the frames they are used on, of this process."""


class StaticMask:
    """A boolean mask (segment, row, column), True where a pixel may be used; made by :meth:`of`.

    Two masks are equal when their values and labels are.
    """

    __slots__ = ("_digest", "_labels", "_values")

    def __init__(self, values: npt.NDArray[np.bool_], labels: Labels) -> None:
        self._values = np.array(values, dtype=bool, order="C")
        self._values.flags.writeable = False
        self._labels = labels
        digest = hashlib.sha256(repr((values.shape, labels)).encode())
        digest.update(np.packbits(self._values).tobytes())
        self._digest = digest.hexdigest()

    @classmethod
    def of(cls, mask: object) -> StaticMask | None:
        """Check what a user gave as ``mask``; None stays None.

        Raises
        ------
        ParameterError
            A mask that is not boolean, or not over (segment, row, column).
        """
        if mask is None or isinstance(mask, cls):
            return mask
        labels: Labels = (None, None, None)
        if isinstance(mask, xr.DataArray):
            if set(mask.dims) != set(PIXEL_DIMS):
                raise ParameterError("mask of other dims", found=mask.dims, expected=PIXEL_DIMS)
            mask = mask.transpose(*PIXEL_DIMS)
            labels = tuple(tuple(int(v) for v in mask.indexes[d]) if d in mask.indexes else None for d in PIXEL_DIMS)
            mask = mask.values
        values = np.asarray(mask)
        if values.dtype != np.bool_:
            raise ParameterError(
                "a mask is boolean: True where a pixel may be used",
                found=f"dtype {values.dtype}",
                expected="dtype bool",
                fix="mask == 1 where 1 means good; mask == 0 where 0 means good (flags, status)",
            )
        if values.ndim != len(PIXEL_DIMS):
            raise ParameterError(
                "mask of other dims",
                found=f"shape {values.shape}",
                expected=f"{PIXEL_DIMS}",
                fix="mask[None] puts the segment in front of (row, column)",
            )
        return cls(values, labels)

    def on(self, frames: Frames) -> npt.NDArray[np.bool_]:
        """The mask of the pixels that ``frames`` have: (segment, row, column), read-only.

        A labelled mask is matched by its labels, a bare array has to have the shape of the frames.

        Raises
        ------
        DataError
            Pixels without a mask.
        """
        wanted = (frames.segment, frames.row, frames.column)
        if any(known is not None and known != want for known, want in zip(self._labels, wanted, strict=True)):
            return CACHE.get((self, wanted), lambda: self._cut(wanted))
        if self._values.shape != frames.shape:
            raise DataError(
                "mask of another shape than the frames",
                found=f"mask {self._values.shape}",
                expected=f"{frames.shape}",
                fix="cut the mask as the frames were cut, or give it as a DataArray labelled like them",
            )
        return self._values

    def _cut(self, wanted: tuple[tuple[int, ...], ...]) -> npt.NDArray[np.bool_]:
        places = [
            _places(known or tuple(range(n)), want, dim)
            for known, n, want, dim in zip(self._labels, self._values.shape, wanted, PIXEL_DIMS, strict=True)
        ]
        return self._values[np.ix_(*places)]

    def __eq__(self, other: object) -> bool:
        return isinstance(other, StaticMask) and self._digest == other._digest

    def __hash__(self) -> int:
        return hash(self._digest)

    def __dask_tokenize__(self) -> tuple[str, str]:
        return "StaticMask", self._digest

    def __reduce__(self) -> tuple[Any, ...]:
        return _unpack, (np.packbits(self._values), self._values.shape, self._labels)

    def __repr__(self) -> str:
        return f"<mask {self._values.shape}, {int(self._values.sum())} pixels used, sha256 {self._digest[:12]}>"


def _unpack(bits: npt.NDArray[np.uint8], shape: tuple[int, ...], labels: Labels) -> StaticMask:
    values = np.unpackbits(bits, count=int(np.prod(shape))).astype(bool)
    return StaticMask(values.reshape(shape), labels)


def _places(known: tuple[int, ...], wanted: tuple[int, ...], dim: str) -> list[int]:
    place = {label: i for i, label in enumerate(known)}
    missing = [label for label in wanted if label not in place]
    if missing:
        raise DataError(
            f"the mask does not cover every {dim} of the frames",
            found=f"no mask for {dim} {missing[:5]}{' ...' if len(missing) > 5 else ''}",
            expected=f"labels {wanted[0]} to {wanted[-1]}",
            fix="make the mask for the whole detector; it is cut by its labels",
        )
    return [place[label] for label in wanted]
