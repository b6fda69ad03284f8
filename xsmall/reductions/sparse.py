"""Sparse frames of frames that are mostly zero."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt
import xarray as xr

from xsmall.detector.frames import Frames
from xsmall.engine.asked import ask
from xsmall.engine.record import Output, Record, Reducer
from xsmall.errors import DataError
from xsmall.frames.per_pixel import StaticMask
from xsmall.reductions.entry_lists import EntryLists, outputs_of_entries, used_pixels
from xsmall.vocabulary import DIMENSIONLESS, N_VALID, UNITS

__all__ = ["Sparsify", "sparse"]


@ask
def sparse(mask: Any = None) -> Sparsify:
    """Keep of frames that are mostly zero the pixels that are not, in place of the frames.

    Parameters
    ----------
    mask
        Boolean (segment, row, column), True where a pixel may be used: a DataArray, cut by its labels, or an array of
        the shape of the frames.

    Returns
    -------
    A record. Lists per event: ``pixel`` (int32, counted over segment, row and column, in order), ``pixel_value`` (dtype
    of the frames as floats, unit of the data), ``n_entries`` (event), int32, of them; ``lost_pixels`` (int32): where
    runs of pixels that are not finite begin and end; ``n_valid`` (event), int32. Coordinate ``used`` (segment, row,
    column), the mask. Such a Dataset is reduced as frames are, at the cost of its entries.

    Raises
    ------
    DataError
        Frames with a variance, which sparse frames do not have.

    See Also
    --------
    photon : ``sparse=True`` makes sparse frames of photons, dense : makes frames again.

    Notes
    -----
    Nothing is rounded or cut: frames with noise have no zeros, and gain nothing. Cost: reading the frame, and 8 bytes
    per entry.

    Examples
    --------
    >>> import numpy as np, xarray as xr, xsmall as xs
    >>> counts = np.random.default_rng(1).poisson(0.01, (4, 1, 32, 64)).astype("f4")
    >>> frames = xr.DataArray(counts, dims=("event", "segment", "row", "column"), attrs={"units": "photon"})
    >>> kept = xs.apply(frames, xs.sparse())
    >>> bool((xs.dense(kept) == frames).all())
    True
    """
    return Sparsify(StaticMask.of(mask))


@dataclass(frozen=True)
class Sparsify(Record):
    """A mask; made by :func:`sparse`."""

    name: ClassVar[str] = "sparse"

    mask: StaticMask | None = None

    def _use(self, frames: Frames) -> npt.NDArray[np.bool_]:
        return np.ones(frames.shape, bool) if self.mask is None else self.mask.on(frames)

    def outputs(self, frames: Frames) -> Mapping[str, Output]:
        """Describe the lists."""
        if frames.variance:
            raise DataError(
                "sparse frames have no variance",
                found="frames with variance",
                fix='the values alone: obj["calibrated"].sd.apply(xs.sparse())',
            )
        self._use(frames)
        count = Output((), (), np.dtype(np.int32), {UNITS: DIMENSIONLESS})
        return {**outputs_of_entries(frames, frames.dtype, frames.units), N_VALID: count}

    def coords(self, frames: Frames) -> Mapping[str, xr.Variable]:
        """The mask, and the labels of pixels."""
        return used_pixels(frames, self._use(frames))

    def reducer(self, frames: Frames) -> Reducer:
        """Make the reducer."""
        return SparsifyReducer(frames, self._use(frames))


class SparsifyReducer(Reducer):
    """Finds what is not zero."""

    def __init__(self, frames: Frames, use: npt.NDArray[np.bool_]) -> None:
        self._use, self._dtype = use.reshape(len(use), -1), frames.dtype
        self._lists = EntryLists(frames.shape, use, float(np.finfo(frames.dtype).max))

    def begin(self, k: int) -> None:
        """Start a group of ``k`` events."""
        self._lists.begin(k)
        self._valid = np.zeros(k, np.int32)

    def add(self, s: int, frames: npt.NDArray[np.floating[Any]], variance: Any = None) -> None:
        """Take segment ``s``."""
        del variance  # refused where it is asked for
        for j, frame in enumerate(frames):
            flat = frame.reshape(-1)
            good = np.isfinite(flat) & self._use[s]
            pixel = np.flatnonzero(good & (flat != 0))
            self._lists.add(j, s, pixel, flat[pixel], frame)
            self._valid[j] += np.count_nonzero(good)

    def end(self) -> Mapping[str, npt.NDArray[Any]]:
        """Hand out the lists of each event."""
        return {**self._lists.end(self._dtype), N_VALID: self._valid}
