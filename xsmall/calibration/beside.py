"""What lies beside frames: the memory cell of each event, and gain stages or an analogue gain of each pixel."""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass
from typing import Any, TypeAlias

import dask.array as da
import numpy as np
import numpy.typing as npt
import xarray as xr

from xsmall.detector.part import Part
from xsmall.detector.types import Decoding, DetectorType
from xsmall.errors import CalibrationError, DataError, ParameterError
from xsmall.events.join import of_the_events
from xsmall.frames.describe import data_of
from xsmall.frames.per_pixel import Pixels, aligned
from xsmall.frames.small import small
from xsmall.vocabulary import EVENT, FRAME_DIMS, GAIN_CONTROL, GAIN_STAGE, MEMORY_CELL, PIXEL_DIMS, THRESHOLD

__all__ = ["BesideFrames", "beside_frames", "gain_control_of"]

Lazy: TypeAlias = npt.NDArray[Any] | da.Array


@dataclass(frozen=True)
class BesideFrames:
    """Frames, what lies beside them, and which memory cells they use.

    Attributes
    ----------
    frames
        (event, segment, row, column).
    cells
        Positions, in the constants, of the memory cells that the frames use; one where there are none.
    cell
        (event) position of the memory cell of each event among ``cells``, None for detectors without.
    gain
        Gain codes (uint8) or the analogue gain, of the shape of the frames, where they lie beside them; lazy if the
        frames are, or None.
    threshold
        (memory cell, number, segment, row, column) between the stages of an analogue gain, or None.
    """

    frames: Lazy
    cells: tuple[int, ...] = (0,)
    cell: npt.NDArray[np.int64] | None = None
    gain: Any = None
    threshold: Any = None

    @property
    def arrays(self) -> tuple[Any, ...]:
        """What the engine carries beside the frames."""
        return tuple(a for a in (self.cell, self.gain) if a is not None)


def beside_frames(
    raw: xr.DataArray,
    entry: DetectorType,
    part: Part,
    constants: xr.Dataset,
    gain_stage: xr.DataArray | None,
    threshold: xr.DataArray | None = None,
) -> BesideFrames:
    """Check and put together what goes with the frames of the pixels ``part``."""
    _check_gain_stage(entry, gain_stage)
    if not entry.memory_cell:
        return BesideFrames(data_of(raw))
    cells, at = np.unique(_cell_positions(raw, constants), return_inverse=True)
    of_cells = tuple(cells.tolist()), at.reshape(-1).astype(np.int64)
    if entry.decoding is not Decoding.BESIDE:
        return BesideFrames(data_of(raw), *of_cells)
    of_gain = _gain_frames(raw, part, gain_stage)
    n_cells = len(constants.get(MEMORY_CELL, (0,)))
    number = None if of_gain.dtype == np.uint8 else _thresholds(threshold, part, n_cells)
    frames, gain = _both_lazy(data_of(raw), data_of(of_gain))
    return BesideFrames(frames, *of_cells, gain, number)


def gain_control_of(
    raw: xr.DataArray, entry: DetectorType, given: Pixels | None, part: Part
) -> npt.NDArray[Any] | None:
    """Configuration bits of the pixels of the data where the type needs them: given, or the coordinate of the data."""
    if entry.decoding is not Decoding.CONTROL:
        if given is not None:
            raise ParameterError(
                f"the gain of {entry.name!r} does not depend on the configuration of its pixels",
                found="gain_control",
                fix="leave gain_control out",
            )
        return None
    if given is None and GAIN_CONTROL in raw.coords:
        given = small(raw.coords[GAIN_CONTROL])
    if given is None:
        raise CalibrationError(
            f"the gain of {entry.name!r} depends on the configuration of each pixel, which is not there",
            found="no gain_control",
            expected="gain_control (segment, row, column): bits 4 (g), 8 (ga), 16 (trbit)",
            fix='raw.assign_coords(gain_control=run["..."]["config"]["gain_control"])',
        )
    values = aligned(given, part, GAIN_CONTROL)
    if values.dtype.kind not in "iu":
        raise ParameterError(
            "gain_control has to be bits", found=f"dtype {values.dtype}", expected="integers, one per pixel"
        )
    return values


def _check_gain_stage(entry: DetectorType, gain_stage: object) -> None:
    """Refuse a gain that nothing would be done with."""
    if gain_stage is not None and entry.decoding is not Decoding.BESIDE:
        raise ParameterError(
            f"the gain stages of {entry.name!r} are read from its raw words",
            found="gain_stage",
            fix="leave gain_stage out",
        )


def _cell_positions(raw: xr.DataArray, constants: xr.Dataset) -> npt.NDArray[np.int64]:
    """Position in the constants of the memory cell of each event."""
    if MEMORY_CELL not in constants.dims:
        return np.zeros(raw.sizes[EVENT], dtype=np.int64)
    known = constants.indexes[MEMORY_CELL]
    if MEMORY_CELL not in raw.coords:
        if len(known) == 1:
            return np.zeros(raw.sizes[EVENT], dtype=np.int64)
        raise CalibrationError(
            "the constants depend on the memory cell of each frame, which the data do not say",
            found=f"{len(known)} memory cells in the constants, no coordinate {MEMORY_CELL!r}",
            expected=f"a coordinate {MEMORY_CELL!r} (event)",
            fix=f'raw.assign_coords({MEMORY_CELL}=("event", cells))',
        )
    said = np.broadcast_to(small(raw.coords[MEMORY_CELL]).to_numpy(), raw.sizes[EVENT])
    at = known.get_indexer(said)
    if (at < 0).any():
        absent = sorted(set(said[at < 0].tolist()))
        raise CalibrationError(
            "there are no constants for some memory cells",
            found=f"cells {absent[:10]}",
            expected=f"{list(known)[:10]}",
        )
    position: npt.NDArray[np.int64] = at.astype(np.int64)
    return position


def _gain_frames(raw: xr.DataArray, part: Part, given: xr.DataArray | None) -> xr.DataArray:
    """Gain codes (uint8) or analogue gain of every pixel of every event, by labels."""
    gain = raw.coords[GAIN_STAGE] if given is None and GAIN_STAGE in raw.coords else given
    if gain is None:
        raise CalibrationError(
            "the gain of this detector lies beside its frames, and is not there",
            found="no gain_stage",
            expected="gain_stage (event, segment, row, column): uint8 stages, or the analogue gain",
            fix="calibrate(raw, constants, gain_stage=gain)",
        )
    if not isinstance(gain, xr.DataArray):
        raise ParameterError(
            "the gain beside frames has to say which events and pixels it belongs to",
            found=type(gain).__name__,
            expected="a DataArray (event, segment, row, column)",
            fix="gain_stage=raw.copy(data=gain) where they are in the order of the frames",
        )
    if set(gain.dims) == set(FRAME_DIMS):
        gain = _of_the_events(gain.transpose(*FRAME_DIMS), raw)
        if any(dim in gain.coords for dim in PIXEL_DIMS):
            gain = gain.isel(_indexers(part.match(Part.of(gain), GAIN_STAGE)))
    if gain.dims != raw.dims or gain.shape != raw.shape:
        raise DataError(
            "gain and frames differ in shape", found=f"{gain.dims} {gain.shape}", expected=f"{raw.dims} {raw.shape}"
        )
    return gain


def _of_the_events(gain: xr.DataArray, raw: xr.DataArray) -> xr.DataArray:
    """The gain of the events of the frames, by their labels, or by times of another name that both carry."""

    def has_times(obj: xr.DataArray, name: Hashable) -> bool:
        return name in obj.coords and obj.coords[name].dims == (EVENT,) and obj.coords[name].dtype.kind == "M"

    times = next((name for name in gain.coords if has_times(gain, name) and has_times(raw, name)), None)
    if times is None or times == EVENT:
        return of_the_events(gain, raw, GAIN_STAGE)
    gain, raw = (x.assign_coords({EVENT: (EVENT, small(x.coords[times]).values)}) for x in (gain, raw))
    return of_the_events(gain, raw, GAIN_STAGE)


def _indexers(part: Part) -> dict[str, Any]:
    """Positions of pixels as ``isel`` takes them: a slice where it can, which copies nothing."""
    return {
        dim: slice(at.start, at.stop, at.step) if isinstance(at, range) and at.step > 0 else list(at)
        for dim, at in zip(PIXEL_DIMS, part, strict=True)
    }


def _both_lazy(frames: Lazy, gain: Lazy) -> tuple[Lazy, Lazy]:
    """Both lazy where one of them is."""
    if isinstance(frames, da.Array) and not isinstance(gain, da.Array):
        gain = da.from_array(gain, chunks=frames.chunks)
    elif isinstance(gain, da.Array) and not isinstance(frames, da.Array):
        frames = da.from_array(frames, chunks=gain.chunks)
    return frames, gain


def _thresholds(threshold: xr.DataArray | None, part: Part, n_cells: int) -> Any:
    """Thresholds (memory_cell, number, segment, row, column) between the stages, of the pixels ``part``."""
    if threshold is None:
        raise CalibrationError(
            "an analogue gain needs thresholds to make gain stages of it",
            found=f"a gain that is not uint8, no {THRESHOLD!r} in the constants",
            expected=f"{THRESHOLD!r} (memory_cell, ..., segment, row, column), or gain stages as uint8",
        )
    if MEMORY_CELL not in threshold.dims:
        threshold = threshold.expand_dims({MEMORY_CELL: n_cells})
    number = next(str(d) for d in threshold.dims if d not in (MEMORY_CELL, *PIXEL_DIMS))
    ordered = threshold.transpose(MEMORY_CELL, number, *PIXEL_DIMS)
    return ordered.isel(_indexers(part.match(Part.of(ordered), THRESHOLD))).data
