"""The assembled image of each event as a record, in the pass of all others."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt
import xarray as xr

from xsmall.detector.frames import Frames
from xsmall.detector.geometry.geometry import Geometry
from xsmall.detector.geometry.grids import Grid, part_grid
from xsmall.detector.geometry.imaging import CellTable, image_table
from xsmall.engine.asked import ask
from xsmall.engine.record import GROUP, Output, Record, Reducer
from xsmall.errors import GeometryError, ParameterError
from xsmall.frames.image import check_table, image_coords
from xsmall.frames.image import image as of_array
from xsmall.frames.per_pixel import StaticMask
from xsmall.vocabulary import IMAGE, IMAGE_X, IMAGE_Y, UNITS, VARIANCE_SUFFIX

__all__ = ["Image", "image"]


@ask
def image(
    obj: Any = None,
    *,
    method: str = "nearest",
    pixel_size: float | None = None,
    x: tuple[float, float] | None = None,
    y: tuple[float, float] | None = None,
    mask: Any = None,
) -> Any:
    """Assemble pixels to a picture on a regular grid: of an array, or, without one, as a record.

    Parameters
    ----------
    obj
        Any array over (segment, row, column) with a geometry, or a Dataset of one and its variance: what is returned
        is that of ``obj.sd.image(...)``, its picture. Left out, a record that makes the picture of each event.
    method
        ``"nearest"``: each pixel goes to the image pixel that holds its centre; ``"area"``: to all that it covers.
    pixel_size
        Of the image, in m; None: the smallest pitch of the detector.
    x, y
        (low, high) in m: only this part of the picture.
    mask
        Of the record: boolean (segment, row, column), True where a pixel may be used.

    Returns
    -------
    The picture of ``obj``; or a record, whose variable is ``image`` (event, image_y, image_x), dtype of the frames,
    unit of the data, NaN in gaps and where no valid pixel is. With variances also ``image_variance``, of each image
    pixel by itself. Coordinates ``image_x`` and ``image_y`` in m fall, as seen looking downstream.

    Raises
    ------
    GeometryError
        Data without a geometry.
    ParameterError
        An unknown method, an invalid size or limit, a mask for an array.
    PlanError
        An area-weighted image of so small pixels that its table would not fit into memory.

    Notes
    -----
    Where several pixels meet the (weighted) mean of those that are valid is taken. Cost: 2 ns per pixel and event, 5
    and more with ``"area"``; a picture is as large as the frame, so that a part of it, or larger pixels, may be wanted.

    Examples
    --------
    >>> import xsmall as xs
    >>> sim = xs.simulate(4, shape=(2, 32, 64), seed=1)
    >>> cal = sim.run["jungfrau"]["raw"].sd.calibrate(sim.constants).sd.assign_geometry(sim.geometry)
    >>> small = cal.sd.reduce({"coarse": xs.image(pixel_size=4e-4), "rows": xs.projection("row")})
    >>> small["coarse_image"].dims == ("event", "image_y", "image_x") == xs.image(cal).dims
    True
    """
    if obj is not None:
        if mask is not None:
            raise ParameterError(
                "a mask is for the record", found="mask with an array", fix="xs.image(obj.where(mask))"
            )
        return of_array(obj, method=method, pixel_size=pixel_size, x=x, y=y)  # type: ignore[call-overload]
    if method not in ("nearest", "area"):
        raise ParameterError("unknown way to make an image", found=method, expected="'nearest' or 'area'")
    limits = tuple(None if part is None else (float(part[0]), float(part[1])) for part in (x, y))
    size = None if pixel_size is None else float(pixel_size)
    return Image(method == "area", size, limits[0], limits[1], StaticMask.of(mask))


@dataclass(frozen=True)
class Image(Record):
    """Grid and mask; made by :func:`image`."""

    name: ClassVar[str] = "image"

    area: bool = False
    pixel_size: float | None = None
    x: tuple[float, float] | None = None
    y: tuple[float, float] | None = None
    mask: StaticMask | None = None

    def placed(self, frames: Frames) -> tuple[Geometry, Grid]:
        """The geometry and the grid."""
        if frames.geometry is None:
            raise GeometryError(
                "an image needs to know where the pixels are",
                found="frames without geometry",
                fix='.sd.assign_geometry(xs.Geometry.from_psana("geometry.data"))',
            )
        return frames.geometry, part_grid(frames.geometry, frames.part, self.pixel_size).within(self.x, self.y)

    def outputs(self, frames: Frames) -> Mapping[str, Output]:
        """Describe the image."""
        geometry, grid = self.placed(frames)
        if self.area:
            check_table(geometry, frames.part, grid)
        if self.mask is not None:
            self.mask.on(frames)
        units = {} if frames.units is None else {UNITS: frames.units}
        dims, shape = (IMAGE_Y, IMAGE_X), (grid.n_y, grid.n_x)
        out = {IMAGE: Output(dims, shape, frames.dtype, units)}
        if frames.variance:
            squared = {} if frames.units is None else {UNITS: f"({frames.units})2"}
            out[f"{IMAGE}{VARIANCE_SUFFIX}"] = Output(dims, shape, frames.dtype, squared)
        return out

    def coords(self, frames: Frames) -> Mapping[str, xr.Variable]:
        """Centres of the image pixels."""
        return {name: xr.Variable(*given) for name, given in image_coords(self.placed(frames)[1]).items()}

    def reducer(self, frames: Frames) -> Reducer:
        """Make the reducer, and the table where it is not yet there."""
        geometry, grid = self.placed(frames)
        table = image_table(geometry, frames.part, grid, self.area)
        mask = None if self.mask is None else self.mask.on(frames)
        return ImageReducer(table, (grid.n_y, grid.n_x), frames, mask)


class ImageReducer(Reducer):
    """Gathers whole frames."""

    def __init__(
        self, table: CellTable, shape: tuple[int, int], frames: Frames, mask: npt.NDArray[np.bool_] | None
    ) -> None:
        from xsmall.kernels.image import gather

        self._gather = gather
        self._table, self._shape, self._frames, self._mask = table, shape, frames, mask
        self._buffer = np.empty((GROUP, *frames.shape), frames.dtype)
        self._variances = np.empty_like(self._buffer) if frames.variance else None
        self._k = 0

    def begin(self, k: int) -> None:
        """Start a group of ``k`` events."""
        self._k = k

    def add(self, s: int, frames: npt.NDArray[np.floating[Any]], variance: Any = None) -> None:
        """Take segment ``s``."""
        for into, values in ((self._buffer, frames), (self._variances, variance)):
            if into is not None and values is not None:
                into[: self._k, s] = values if self._mask is None else np.where(self._mask[s], values, np.nan)
        if variance is not None and self._variances is not None:
            self._variances[: self._k, s][~np.isfinite(frames)] = np.nan

    def end(self) -> Mapping[str, npt.NDArray[Any]]:
        """Assemble the pictures of the group."""
        weight, variances = self._table.weight, self._variances
        if variances is None:
            return {IMAGE: self._taken(self._buffer, weight, None).reshape(self._k, *self._shape)}
        total, squared = self._room(np.dtype(np.float32)), self._room(np.dtype(np.float32))
        mean = self._taken(self._buffer, weight, total)
        of_cell = self._taken(variances, weight**2, squared)
        with np.errstate(divide="ignore", invalid="ignore"):
            of_cell = of_cell * squared / total**2  # gather divides by the sum of the squared weights
        found = {IMAGE: mean, f"{IMAGE}{VARIANCE_SUFFIX}": of_cell.astype(mean.dtype)}
        return {name: values.reshape(self._k, *self._shape) for name, values in found.items()}

    def _room(self, dtype: np.dtype[Any]) -> npt.NDArray[Any]:
        return np.empty((self._k, self._table.start.size - 1), dtype)

    def _taken(
        self, values: npt.NDArray[Any], weight: npt.NDArray[Any], total: npt.NDArray[np.float32] | None
    ) -> npt.NDArray[Any]:
        """Means of the cells; their weights go into ``total``."""
        stack = values[: self._k].reshape(self._k, -1)
        mean = self._room(stack.dtype)
        self._gather(stack, self._table.start, self._table.pixel, weight, mean, total)
        return mean
