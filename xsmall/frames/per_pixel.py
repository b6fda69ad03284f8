"""Arrays per pixel that are given beside frames: joined by labels, and as values that records can hold."""

from __future__ import annotations

import hashlib
import os
from typing import Any, Self, TypeAlias

import numpy as np
import numpy.typing as npt
import xarray as xr

from xsmall.detector.cache import CACHE
from xsmall.detector.frames import Frames
from xsmall.detector.part import Part
from xsmall.errors import DataError, ParameterError
from xsmall.vocabulary import FLAG_MEANINGS, PIXEL_DIMS, Reason

__all__ = [
    "Pixels",
    "StaticLight",
    "StaticMask",
    "StaticNoise",
    "StaticValues",
    "aligned",
    "boolean_mask",
    "usable_pixels",
]

Pixels: TypeAlias = xr.DataArray | npt.NDArray[Any]
"""Values of pixels (segment, row, column): a DataArray goes by its labels, a bare array has the shape of the frames."""


def aligned(given: Pixels, part: Part, what: str) -> npt.NDArray[Any]:
    """Values of the pixels of ``part``, in their order: by labels where ``given`` has some, else by shape.

    Parameters
    ----------
    given
        Values (segment, row, column), in memory or lazy, which are read.
    part
        The pixels that are asked for.
    what
        Name of the values, for the error.

    Raises
    ------
    ParameterError
        Other dims.
    DataError
        Pixels without a value.
    """
    values, known = _values_and_part(given, what)
    return _of_part(values, known, part, what)


def boolean_mask(mask: Any, reasons: Reason | None = None) -> Any:
    """Make a boolean mask, True = use the pixel, of one, or of flags of reasons.

    Parameters
    ----------
    mask
        Boolean, or flags as :func:`xsmall.mask` makes them; NumPy, dask or labelled.
    reasons
        Of flags those that count; None: all of them.

    Raises
    ------
    ParameterError
        Numbers whose convention is not named: 0 and 1 mean opposite things in different programs.
    """
    attrs = getattr(mask, "attrs", {})
    if isinstance(mask, str | os.PathLike):
        raise ParameterError(
            "a mask is given as an array", found=repr(mask), expected="what xs.open_mask gives of a file",
            fix=f"mask=xs.open_mask({os.fspath(mask)!r}, convention='good=1')",
        )  # fmt: skip
    values = mask if hasattr(mask, "dtype") else np.asarray(mask)
    if values.dtype == np.bool_:
        return values
    if values.dtype.kind in "ui" and FLAG_MEANINGS in attrs:
        return usable_pixels(values, np.iinfo(np.uint32).max if reasons is None else int(reasons))
    raise ParameterError(
        "a mask is boolean: numbers do not say whether 1 means good or bad",
        found=f"dtype {values.dtype}",
        expected="bool, True where a pixel may be used; or flags of reasons, as xs.mask makes them",
        fix="mask == 1 where 1 is good; mask == 0 where 0 is good",
    )


def usable_pixels(flags: Any, bits: int) -> Any:
    """Pixels that have none of the reasons ``bits``."""
    chosen = np.array(bits & np.iinfo(flags.dtype).max).astype(flags.dtype)
    good = (flags & chosen) == 0
    good = good.rename(None)
    good.attrs = {}  # drop_attrs copies the numbers
    return good


class _Static:
    """Values (segment, row, column) that do not change, with the pixels they belong to; equal when both are."""

    __slots__ = ("_digest", "_known", "_values")
    what = "array"

    def __init__(self, values: npt.NDArray[Any], known: Part | None) -> None:
        self._values = np.array(values, order="C")
        self._values.flags.writeable = False
        self._known = known
        digest = hashlib.sha256(repr((self.what, values.shape, known)).encode())
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
        part = frames.part
        if self._known is None or self._known == part:
            return _of_part(self._values, None, part, self.what)
        return CACHE.get(("per pixel", self, part), lambda: np.ascontiguousarray(self._cut(part)))

    def _cut(self, part: Part) -> npt.NDArray[Any]:
        return _of_part(self._values, self._known, part, self.what)

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
            A mask that is neither boolean nor flags of reasons, or not over (segment, row, column).
        """
        if mask is None or isinstance(mask, cls):
            return mask
        values, known = _values_and_part(boolean_mask(mask), cls.what)
        if values.ndim != len(PIXEL_DIMS):
            raise ParameterError(
                "mask of other dims",
                found=f"shape {values.shape}",
                expected=f"{PIXEL_DIMS}",
                fix="mask[None] for a detector of one segment; np.stack of a mask per segment for several",
            )
        return cls(values, known)

    def __reduce__(self) -> tuple[Any, ...]:
        return _unpack, (np.packbits(self._values), self._values.shape, self._known)

    def __repr__(self) -> str:
        return f"<mask {self._values.shape}, {int(self._values.sum())} pixels used, sha256 {self._digest[:12]}>"


class StaticValues(_Static):
    """A number for each pixel (segment, row, column), float64; made by :meth:`of`."""

    __slots__ = ()
    what = "values"

    @classmethod
    def of(cls, values: object) -> StaticValues:
        """Check what a user gave for each pixel.

        Raises
        ------
        ParameterError
            No numbers, or not over (segment, row, column).
        """
        if isinstance(values, cls):
            return values
        found, known = _values_and_part(values, cls.what)
        if found.dtype.kind not in "fiu" or found.ndim != len(PIXEL_DIMS):
            raise ParameterError(
                "a number for each pixel is needed",
                found=f"{found.dtype} of shape {found.shape}",
                expected=f"numbers over {PIXEL_DIMS}",
                fix="values[None] puts the segment in front of (row, column)",
            )
        return cls(found.astype(np.float64), known)

    def __reduce__(self) -> tuple[Any, ...]:
        return StaticValues, (self._values, self._known)

    def __repr__(self) -> str:
        return f"<values {self._values.shape}, sha256 {self._digest[:12]}>"


class StaticNoise(_Static):
    """Noise of each pixel (segment, row, column), float64; made by :meth:`of`."""

    __slots__ = ()
    what = "noise"
    _fix = '(constants["noise"] / constants["gain"]).isel(gain_stage=0)'
    _fix_sign = "abs(...) of a gain below 0"

    @classmethod
    def of(cls, values: object) -> Self | None:
        """Check what a user gave; None stays None.

        Raises
        ------
        ParameterError
            No numbers, negative ones, none that is positive, or not over (segment, row, column).
        """
        if values is None or isinstance(values, cls):
            return values
        found, known = _values_and_part(values, cls.what)
        if found.dtype.kind not in "fiu" or found.ndim != len(PIXEL_DIMS):
            raise ParameterError(
                f"{cls.what} is a number for each pixel",
                found=f"{found.dtype} of shape {found.shape}",
                expected=f"numbers over {PIXEL_DIMS}",
                fix=cls._fix,
            )
        if (found < 0).any() or not (found > 0).any():
            raise ParameterError(
                f"{cls.what} is positive", found=f"{np.nanmin(found)} to {np.nanmax(found)}", fix=cls._fix_sign
            )
        return cls(found.astype(np.float64), known)

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self._values, self._known)

    def __repr__(self) -> str:
        return (
            f"<{self.what} {self._values.shape}, median {np.nanmedian(self._values):.4g}, sha256 {self._digest[:12]}>"
        )


class StaticLight(StaticNoise):
    """How much light each pixel gets, in any unit (segment, row, column), float64; made by :meth:`of`."""

    __slots__ = ()
    what = "illumination"
    _fix = _fix_sign = 'illumination=cal.mean("event")'


def _values_and_part(given: object, what: str) -> tuple[npt.NDArray[Any], Part | None]:
    """Values of what a user gave per pixel, and which pixels these are; None where it does not say."""
    if isinstance(given, xr.Dataset):
        raise ParameterError(
            f"{what} is one array per pixel",
            found=f"a Dataset of {', '.join(map(str, given.data_vars)) or 'nothing'}",
            expected=f"a DataArray over {PIXEL_DIMS}",
            fix=f'{what}=dataset["{what}"]',
        )
    if not isinstance(given, xr.DataArray):
        return np.asarray(given), None
    if set(given.dims) != set(PIXEL_DIMS):
        raise ParameterError(f"{what} of other dims", found=given.dims, expected=PIXEL_DIMS)
    ordered = given.transpose(*PIXEL_DIMS)
    labelled = any(dim in ordered.coords for dim in PIXEL_DIMS)
    return ordered.to_numpy(), Part.of(ordered) if labelled else None


def _of_part(values: npt.NDArray[Any], known: Part | None, part: Part, what: str) -> npt.NDArray[Any]:
    if known is not None:
        return part.match(known, what).take(values)
    if values.shape != part.shape:
        raise DataError(
            f"{what} of another shape than the frames",
            found=f"{what} {values.shape}",
            expected=f"{part.shape}",
            fix=f"cut the {what} as the frames were cut, or give it as a DataArray labelled like them",
        )
    return values


def _unpack(bits: npt.NDArray[np.uint8], shape: tuple[int, ...], known: Part | None) -> StaticMask:
    values = np.unpackbits(bits, count=int(np.prod(shape))).astype(bool)
    return StaticMask(values.reshape(shape), known)
