"""Regions of interest: sum, mean, maximum, centre of mass of boxes of pixels."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt
import xarray as xr

from xsmall.detector.frames import Frames
from xsmall.engine.record import GROUP, Output, Record, Reducer
from xsmall.errors import ParameterError
from xsmall.frames.per_pixel import StaticMask
from xsmall.reductions.box import Box
from xsmall.vocabulary import COM_COLUMN, COM_ROW, DIMENSIONLESS, MAX, MEAN, N_VALID, ROI, SUM, UNITS, VARIANCE_SUFFIX

__all__ = ["Box", "Roi", "roi"]


def roi(boxes: Box | Mapping[str, Box], *, mask: Any = None) -> Roi:
    """Reduce boxes of pixels to a few numbers per event.

    Parameters
    ----------
    boxes
        One :class:`~xsmall.Box`, or several by name.
    mask
        Boolean (segment, row, column), True where a pixel may be used: a DataArray, cut by its labels, or an array of
        the shape of the frames.

    Returns
    -------
    A record. Its variables over (event, roi): ``sum`` and ``mean`` (float64), ``max`` (dtype of the frames) in the unit
    of the data, over the valid pixels; ``com_row`` and ``com_column`` (float64), the centre of mass in the labels of
    the detector; ``n_valid`` (int32). With variances each but ``n_valid`` also as ``<name>_variance``. Where no pixel
    of a box is valid everything but ``n_valid`` is NaN; where the sum is 0 the centre of mass is.

    Raises
    ------
    ParameterError
        No box, a box that misses the frames, a box without segment where there are several, a mask that is not
        boolean.

    Notes
    -----
    Pixels that are NaN or masked are left out of everything: ``mean`` is sum / n_valid. Variances: of the sum, the
    sum of the pixels' variances; of the centre of mass, to first order, sum(v (i - com)^2) / sum(I)^2, good where the
    sum is well above its error; of the maximum, that of the pixel which holds it: that the largest of many values
    tends to be a high one is not in it. Cost: one pass over the pixels of the boxes, two with variances.

    Examples
    --------
    >>> import xsmall as xs
    >>> sim = xs.simulate(4, shape=(2, 32, 64), seed=1)
    >>> cal = sim.run["jungfrau"]["raw"].sd.calibrate(sim.constants)
    >>> spots = cal.sd.roi({"a": xs.Box(segment=0, row=(4, 12), column=(8, 24)), "b": xs.Box(segment=1)})
    >>> spots["sum"].dims, spots["roi"].values.tolist()
    (('event', 'roi'), ['a', 'b'])
    """
    named: object = {ROI: boxes} if isinstance(boxes, Box) else boxes
    if not isinstance(named, Mapping) or not named or not all(isinstance(b, Box) for b in named.values()):
        raise ParameterError(
            "roi needs boxes",
            found=repr(boxes)[:80],
            expected="a Box, or a mapping of names to boxes",
            fix='xs.roi({"bragg": xs.Box(segment=2, row=(200, 500), column=(300, 580))})',
        )
    return Roi(tuple((str(name), box) for name, box in named.items()), StaticMask.of(mask))


@dataclass(frozen=True)
class Roi(Record):
    """Boxes by name and a mask; made by :func:`roi`."""

    name: ClassVar[str] = "roi"

    boxes: tuple[tuple[str, Box], ...]
    mask: StaticMask | None = None

    def outputs(self, frames: Frames) -> Mapping[str, Output]:
        """Describe sum, mean, max, com_row, com_column and n_valid, each over roi."""
        for _, box in self.boxes:
            box.on(frames)
        if self.mask is not None:
            self.mask.on(frames)
        n = len(self.boxes)
        units = {} if frames.units is None else {UNITS: frames.units}
        spread = {} if frames.units is None else {UNITS: f"({frames.units})2"}
        place = {UNITS: DIMENSIONLESS}
        double = np.dtype(np.float64)
        out = {
            SUM: Output((ROI,), (n,), double, units),
            MEAN: Output((ROI,), (n,), double, units),
            MAX: Output((ROI,), (n,), frames.dtype, units),
            COM_ROW: Output((ROI,), (n,), double, place),
            COM_COLUMN: Output((ROI,), (n,), double, place),
            N_VALID: Output((ROI,), (n,), np.dtype(np.int32), {UNITS: DIMENSIONLESS}),
        }
        if frames.variance:
            out |= {f"{v}{VARIANCE_SUFFIX}": Output((ROI,), (n,), double, spread) for v in (SUM, MEAN, MAX)}
            out |= {f"{v}{VARIANCE_SUFFIX}": Output((ROI,), (n,), double, place) for v in (COM_ROW, COM_COLUMN)}
        return out

    def coords(self, frames: Frames) -> Mapping[str, xr.Variable]:
        """Names of the boxes."""
        del frames
        return {ROI: xr.Variable((ROI,), np.array([name for name, _ in self.boxes]))}

    def reducer(self, frames: Frames) -> Reducer:
        """Make the reducer."""
        return RoiReducer(self, frames)


class RoiReducer(Reducer):
    """Walks the boxes of each segment."""

    def __init__(self, record: Roi, frames: Frames) -> None:
        from xsmall.kernels.roi import box, box_variance

        self._kernel, self._variance_kernel = box, box_variance
        self._frames = frames
        self._windows = [b.on(frames) for _, b in record.boxes]
        mask = None if record.mask is None else record.mask.on(frames)
        self._use = [p.use(mask) for p in self._windows]
        self._lines = [np.empty(p.shape[1], dtype=frames.dtype) for p in self._windows]
        self._sums = np.zeros((GROUP, len(self._windows), 9))
        self._k = 0

    def begin(self, k: int) -> None:
        """Start a group of ``k`` events."""
        self._k = k

    def add(
        self,
        s: int,
        frames: npt.NDArray[np.floating[Any]],
        variance: npt.NDArray[np.floating[Any]] | None = None,
    ) -> None:
        """Reduce the boxes of segment ``s``."""
        for b, window in enumerate(self._windows):
            if window.segment != s:
                continue
            use, top, left = self._use[b], window.row.start, window.column.start
            row, column = window.row_labels - window.row_labels[0], window.column_labels - window.column_labels[0]
            for j in range(self._k):
                out = self._sums[j, b]
                self._kernel(frames[j], top, left, use, row, column, self._lines[b], out)
                if variance is not None:
                    self._variance_kernel(frames[j], variance[j], top, left, use, row, column, out, out[5:])

    def end(self) -> Mapping[str, npt.NDArray[Any]]:
        """Finish the group."""
        total, largest, moment_row, moment_column, n, *spread = np.moveaxis(self._sums[: self._k], -1, 0)
        with np.errstate(divide="ignore", invalid="ignore"):
            some, weighted = n > 0, total != 0
            first_row = np.array([p.row_labels[0] for p in self._windows])
            first_column = np.array([p.column_labels[0] for p in self._windows])
            out = {
                SUM: np.where(some, total, np.nan),
                MEAN: np.where(some, total / n, np.nan),
                MAX: largest.astype(self._frames.dtype),
                COM_ROW: np.where(weighted, first_row + moment_row / total, np.nan),
                COM_COLUMN: np.where(weighted, first_column + moment_column / total, np.nan),
                N_VALID: n.astype(np.int32),
            }
            if self._frames.variance:
                of_sum, of_most, along_row, along_column = spread
                of_each = {
                    SUM: of_sum,
                    MEAN: of_sum / n**2,
                    MAX: of_most,
                    COM_ROW: np.where(weighted, along_row / total**2, np.nan),
                    COM_COLUMN: np.where(weighted, along_column / total**2, np.nan),
                }
                out |= {f"{name}{VARIANCE_SUFFIX}": np.where(some, v, np.nan) for name, v in of_each.items()}
        return out
