"""Waveforms as frames of one row: a channel is a segment, a sample a column; what reduces frames then reduces them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import dask.array as da
import numpy as np
import numpy.typing as npt
import xarray as xr

from xsmall.errors import DataError, ParameterError
from xsmall.events.ragged import is_ragged
from xsmall.vocabulary import CHANNEL, COLUMN, EVENT, FRAME_DIMS, RAGGED_DIM, RAGGED_DTYPE, ROW, SAMPLE, SEGMENT

__all__ = ["Waves", "as_waves", "waveforms"]


@dataclass(frozen=True)
class Waves:
    """Waveforms as frames, and the labels of their channels."""

    frames: xr.DataArray
    channels: xr.Variable | None
    """Labels of the channels, where they are no whole numbers."""
    single: bool
    """Whether there was no dim of channels."""

    def back(self, result: xr.Dataset) -> xr.Dataset:
        """Give what was made of the frames the channels of the waveforms."""
        if CHANNEL not in result.dims:
            return result
        if self.single:
            return result.isel({CHANNEL: 0}, drop=True)
        return result if self.channels is None else result.assign_coords({CHANNEL: self.channels})

    def unframed(self, of_pixels: xr.Dataset) -> xr.Dataset:
        """Give what is known of each pixel of the frames the dims of the waveforms."""
        named = of_pixels.isel({ROW: 0}, drop=True).rename({SEGMENT: CHANNEL, COLUMN: SAMPLE})
        return self.back(named)


def as_waves(obj: Any) -> Waves | None:
    """Make frames of waveforms (event, sample) or (event, channel, sample); None of anything else.

    Samples count from 0 where ``sample`` has no coordinate of whole numbers.
    """
    if not isinstance(obj, xr.DataArray) or set(obj.dims) not in ({EVENT, SAMPLE}, {EVENT, CHANNEL, SAMPLE}):
        return None
    single = CHANNEL not in obj.dims
    wide = obj.expand_dims(CHANNEL) if single else obj
    labels = {}
    for dim, new in ((CHANNEL, SEGMENT), (SAMPLE, COLUMN)):
        whole = dim in wide.coords and wide[dim].dtype.kind in "iu"
        labels[new] = wide[dim].values.astype(np.int64) if whole else np.arange(wide.sizes[dim])
    of_channels = wide[CHANNEL].variable if CHANNEL in wide.coords else None
    kept = None if of_channels is None or of_channels.dtype.kind in "iu" else of_channels
    kept_dims = (
        (EVENT,),
        (EVENT, CHANNEL),
        (CHANNEL, EVENT),
        (),
    )  # what is missing or damaged is of events and channels
    bare = wide.drop_vars([c for c in wide.coords if wide[c].dims not in kept_dims])
    named = bare.rename({CHANNEL: SEGMENT, SAMPLE: COLUMN}).expand_dims(ROW)
    return Waves(named.transpose(*FRAME_DIMS).assign_coords({**labels, ROW: [0]}), kept, single)


def waveforms(lists: xr.DataArray, n_samples: int | None = None) -> xr.DataArray:
    """Bring waveforms that are lists of events, as digitizers give them, into one array.

    Parameters
    ----------
    lists
        A ragged variable (event) or (event, channel), whatever the second dim is called: ``run["hsd/waveform"]``.
    n_samples
        Length of a waveform. Without it, that of the first event that has one, which is read.

    Returns
    -------
    DataArray (event, sample) or (event, channel, sample), float32, lazy where ``lists`` is. A waveform of another
    length is NaN: one cannot know what its samples are. Labels of the second dim are those of ``channel``.

    Raises
    ------
    DataError
        Something that is no list of events, or not a single waveform in it.
    ParameterError
        A length below 1.

    Notes
    -----
    Cost: reads each list once, when it is asked for.

    Examples
    --------
    >>> import numpy as np, xarray as xr, xsmall as xs
    >>> from xsmall.events.ragged import object_array, ragged_attrs
    >>> lists = object_array([np.ones(4, "u2"), np.ones(0, "u2"), np.ones(4, "u2")])
    >>> waves = xs.waveforms(xr.DataArray(lists, dims="event", attrs=ragged_attrs("sample", "u2")))
    >>> waves.dims, waves.isnull().all("sample").values.tolist()
    (('event', 'sample'), [False, True, False])
    """
    given: object = lists
    if not isinstance(given, xr.DataArray) or not is_ragged(given) or given.dims[:1] != (EVENT,) or given.ndim > 2:
        raise DataError(
            "no waveforms as lists",
            found=f"{getattr(lists, 'dtype', type(lists).__name__)} over {getattr(lists, 'dims', ())}",
            expected="a variable of lists over (event) or (event, channel)",
            fix='xs.waveforms(run["hsd/waveform"])',
        )
    n = _length(lists) if n_samples is None else n_samples
    if n < 1:
        raise ParameterError("invalid n_samples", found=repr(n), expected="a number of samples, 1 or more")
    data = lists.variable.data
    if isinstance(data, da.Array):
        made = data.map_blocks(
            _stacked, n=int(n), dtype=np.float32, chunks=(*data.chunks, (int(n),)), new_axis=[data.ndim],
            meta=np.empty((0,) * (data.ndim + 1), np.float32),
        )  # fmt: skip
    else:
        made = _stacked(np.asarray(data), n=int(n))
    dims = (EVENT, SAMPLE) if lists.ndim == 1 else (EVENT, CHANNEL, SAMPLE)
    named = lists if lists.ndim == 1 else lists.rename({lists.dims[1]: CHANNEL})  # with its labels, and what is missing
    coords = {k: c for k, c in named.coords.items() if set(c.dims) <= {EVENT, CHANNEL}}
    attrs = {k: v for k, v in lists.attrs.items() if k not in (RAGGED_DIM, RAGGED_DTYPE)}
    return xr.DataArray(made, coords, dims, name=lists.name, attrs=attrs)


def _length(lists: xr.DataArray) -> int:
    """Length of the first waveform that is there."""
    for event in range(lists.sizes[EVENT]):
        found = [len(v) for v in np.ravel(lists.isel({EVENT: slice(event, event + 1)}).values) if len(v)]
        if found:
            return found[0]
    raise DataError(
        "there is not one waveform", found=f"{lists.size} empty lists", expected="at least one with samples"
    )


def _stacked(lists: npt.NDArray[np.object_], *, n: int) -> npt.NDArray[np.float32]:
    out = np.full((*lists.shape, n), np.nan, np.float32)
    plain = np.asarray(lists)  # blocks of stored lists are arrays of their own kind
    for at in np.ndindex(plain.shape):
        if len(plain[at]) == n:
            out[at] = plain[at]
    return out
