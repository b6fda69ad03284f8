"""Arrays per pixel as values: hashable, comparable, small in a repr, so that records can hold them."""

from __future__ import annotations

import hashlib
from typing import Any

import numpy as np
import numpy.typing as npt
import xarray as xr

from xsmall.detector.cache import ArrayCache
from xsmall.engine.record import Frames
from xsmall.errors import DataError, ParameterError
from xsmall.vocabulary import PIXEL_DIMS

__all__ = ["StaticMask", "StaticNoise"]

Labels = tuple[tuple[int, ...] | None, ...]
CACHE = ArrayCache(budget=1 << 28)
"""Masks cut down to the frames they are used on, of this process."""


class _Static:
    """Values (segment, row, column) that do not change, with the labels they had; equal when both are."""

    __slots__ = ("_digest", "_labels", "_values")
    what = "array"

    def __init__(self, values: npt.NDArray[Any], labels: Labels) -> None:
        self._values = np.array(values, order="C")
        self._values.flags.writeable = False
        self._labels = labels
        digest = hashlib.sha256(repr((self.what, values.shape, labels)).encode())
        digest.update(np.packbits(self._values).tobytes() if values.dtype == np.bool_ else self._values.tobytes())
        self._digest = digest.hexdigest()

    def on(self, frames: Frames) -> npt.NDArray[Any]:
        """The values of the pixels that ``frames`` have: (segment, row, column), read-only.

        A labelled array is matched by its labels, a bare one has to have the shape of the frames.

        Raises
        ------
        DataError
            Pixels without a value.
        """
        wanted = (frames.segment, frames.row, frames.column)
        if any(known is not None and known != want for known, want in zip(self._labels, wanted, strict=True)):
            return CACHE.get((self, wanted), lambda: self._cut(wanted))
        if self._values.shape != frames.shape:
            raise DataError(
                f"{self.what} of another shape than the frames",
                found=f"{self.what} {self._values.shape}",
                expected=f"{frames.shape}",
                fix=f"cut the {self.what} as the frames were cut, or give it as a DataArray labelled like them",
            )
        return self._values

    def _cut(self, wanted: tuple[tuple[int, ...], ...]) -> npt.NDArray[Any]:
        places = [
            _places(known or tuple(range(n)), want, dim, self.what)
            for known, n, want, dim in zip(self._labels, self._values.shape, wanted, PIXEL_DIMS, strict=True)
        ]
        return self._values[np.ix_(*places)]

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Static) and self._digest == other._digest

    def __hash__(self) -> int:
        return hash(self._digest)

    def __dask_tokenize__(self) -> tuple[str, str]:
        return type(self).__name__, self._digest


class StaticMask(_Static):
    """A boolean mask (segment, row, column), True where a pixel may be used; made by :meth:`of`."""

    __slots__ = ()
    what = "mask"

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
        values, labels = _unpacked(mask, cls.what)
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

    def __reduce__(self) -> tuple[Any, ...]:
        return _unpack, (np.packbits(self._values), self._values.shape, self._labels)

    def __repr__(self) -> str:
        return f"<mask {self._values.shape}, {int(self._values.sum())} pixels used, sha256 {self._digest[:12]}>"


class StaticNoise(_Static):
    """Noise of each pixel (segment, row, column), float64; made by :meth:`of`."""

    __slots__ = ()
    what = "noise"

    @classmethod
    def of(cls, noise: object) -> StaticNoise | None:
        """Check what a user gave as ``noise``; None stays None.

        Raises
        ------
        ParameterError
            No numbers, negative ones, none that is positive, or not over (segment, row, column).
        """
        if noise is None or isinstance(noise, cls):
            return noise
        values, labels = _unpacked(noise, cls.what)
        if values.dtype.kind not in "fiu" or values.ndim != len(PIXEL_DIMS):
            raise ParameterError(
                "noise is a number for each pixel",
                found=f"{values.dtype} of shape {values.shape}",
                expected=f"numbers over {PIXEL_DIMS}",
                fix='(constants["noise"] / constants["gain"]).isel(gain_stage=0)',
            )
        if (values < 0).any() or not (values > 0).any():
            raise ParameterError(
                "noise is positive",
                found=f"{np.nanmin(values)} to {np.nanmax(values)}",
                fix="abs(...) of a gain below 0",
            )
        return cls(values.astype(np.float64), labels)

    def __reduce__(self) -> tuple[Any, ...]:
        return StaticNoise, (self._values, self._labels)

    def __repr__(self) -> str:
        return f"<noise {self._values.shape}, median {np.nanmedian(self._values):.4g}, sha256 {self._digest[:12]}>"


def _unpacked(given: object, what: str) -> tuple[npt.NDArray[Any], Labels]:
    """Values and labels of what a user gave per pixel."""
    if not isinstance(given, xr.DataArray):
        return np.asarray(given), (None, None, None)
    if set(given.dims) != set(PIXEL_DIMS):
        raise ParameterError(f"{what} of other dims", found=given.dims, expected=PIXEL_DIMS)
    ordered = given.transpose(*PIXEL_DIMS)
    labels = tuple(tuple(int(v) for v in ordered.indexes[d]) if d in ordered.indexes else None for d in PIXEL_DIMS)
    return ordered.values, labels


def _unpack(bits: npt.NDArray[np.uint8], shape: tuple[int, ...], labels: Labels) -> StaticMask:
    values = np.unpackbits(bits, count=int(np.prod(shape))).astype(bool)
    return StaticMask(values.reshape(shape), labels)


def _places(known: tuple[int, ...], wanted: tuple[int, ...], dim: str, what: str) -> list[int]:
    place = {label: i for i, label in enumerate(known)}
    missing = [label for label in wanted if label not in place]
    if missing:
        raise DataError(
            f"the {what} does not cover every {dim} of the frames",
            found=f"no {what} for {dim} {missing[:5]}{' ...' if len(missing) > 5 else ''}",
            expected=f"labels {wanted[0]} to {wanted[-1]}",
            fix=f"make the {what} for the whole detector; it is cut by its labels",
        )
    return [place[label] for label in wanted]
