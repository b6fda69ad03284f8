"""Waveforms and peaks of high-speed digitizers, which a channel holds as bytes.

A channel is a header of 16 bytes and 16-bit samples for each of its streams: stream 0 is the waveform, stream 1 the
peaks that the digitizer found. Which streams there are stands in bits 20 and 21 of the event header. Peaks are coded by
fours: four words whose highest bit is set say how many samples are left out, others are samples.
Source: the public LCLS-II DAQ and psana sources, checked against psana on real files.
"""

import re
import struct
from collections.abc import Callable, Sequence
from typing import Any, Final, NamedTuple

import numpy as np
import numpy.typing as npt
import xarray as xr

from xsmall import vocabulary as v
from xsmall.errors import DamagedDataError
from xsmall.events.ragged import ragged_attrs
from xsmall.io.sources.xtc2.fields import EventField, FieldKey, is_number
from xsmall.io.sources.xtc2.ragged_fields import ListArray
from xsmall.io.sources.xtc2.run_index import RunFiles

__all__ = ["Channel", "DigitizerArray", "decode_channel", "digitizer_variables"]

HSD: Final = "hsd"
SAMPLE_PERIOD: Final = 14 / 13 / 6.4e9
"""Seconds from sample to sample: 32 samples of each 13/14 of a period of 200 MHz."""
_HEADER: Final = struct.Struct("<4I")
_SAMPLES: Final = 0x1FFFFFFF
_GROUP: Final = 4
_SKIP: Final = 0x8000
_STATUS_FROM: Final = 3 << 16
"""Algorithm version from which on the first four samples of the peaks are the state of the digitizer."""
_CHANNEL: Final = re.compile(r"chan(\d+)")


class Channel(NamedTuple):
    """What a channel holds of an event.

    Attributes
    ----------
    waveform
        All samples, in ADU; none where the digitizer did not keep them.
    peak_start, peak_length
        First sample and number of samples of each peak.
    peak_samples
        The samples of all peaks behind each other.
    """

    waveform: npt.NDArray[np.uint16]
    peak_start: npt.NDArray[np.int64]
    peak_length: npt.NDArray[np.int64]
    peak_samples: npt.NDArray[np.uint16]


_NOTHING: Final = Channel(np.empty(0, "<u2"), np.empty(0, np.int64), np.empty(0, np.int64), np.empty(0, "<u2"))


def decode_channel(header: npt.NDArray[np.uint32], data: npt.NDArray[np.uint8], *, status: bool = False) -> Channel:
    """Decode the bytes of a channel.

    Parameters
    ----------
    header
        The event header of the digitizer.
    data
        The bytes.
    status
        Whether the first four samples of the peaks are the state of the digitizer; they are left out then.

    Raises
    ------
    ValueError
        The bytes do not add up.
    """
    if not data.size:
        return _NOTHING
    if not header.size:
        raise ValueError("the event header is empty")
    streams, at, result = int(header[0]) >> 20 & 3, 0, _NOTHING
    while streams:
        if data.size - at < _HEADER.size:
            raise ValueError(f"a stream should begin at byte {at} of {data.size}")
        words = _HEADER.unpack_from(data.data, at)
        n, number = words[0] & _SAMPLES, words[1] >> 24
        at += _HEADER.size
        if number > 1 or not streams >> number & 1 or 2 * n > data.size - at:
            raise ValueError(f"stream {number} of {n} samples at byte {at} of {data.size}")
        samples = data[at : at + 2 * n].view("<u2")
        result = result._replace(waveform=samples) if number == 0 else _peaks(samples, status, result)
        at += 2 * n
        streams &= ~(1 << number)
    return result


def _peaks(samples: npt.NDArray[np.uint16], status: bool, result: Channel) -> Channel:
    """Find the peaks: what stands between the words that leave samples out."""
    if samples.size % _GROUP:
        raise ValueError(f"{samples.size} words of peaks, expected groups of {_GROUP}")
    groups = samples.reshape(-1, _GROUP)
    skips = groups[:, 0] >= _SKIP
    steps = np.where(skips, (groups & ~np.uint16(_SKIP)).sum(axis=1, dtype=np.int64), _GROUP)
    begins = np.cumsum(steps) - steps
    first = ~skips & np.concatenate([[True], skips[:-1]])[: skips.size]
    start = begins[first]
    length = np.bincount(np.cumsum(first)[~skips] - 1, minlength=start.size).astype(np.int64) * _GROUP
    kept = groups[~skips].reshape(-1)
    if status and start.size:
        start, length, kept = start.copy(), length.copy(), kept[_GROUP:]
        start[0] += _GROUP
        length[0] -= _GROUP
    return result._replace(peak_start=start, peak_length=length, peak_samples=kept)


class DigitizerArray(ListArray):
    """One of the lists of a channel (event, segment), decoded when it is read.

    Parameters
    ----------
    files
        The bytes to decode.
    key
        The field of the channel.
    what
        A name of :class:`Channel`.
    status
        See :func:`decode_channel`.
    """

    def __init__(self, files: RunFiles, key: FieldKey, what: str, *, status: bool = False) -> None:
        super().__init__(files, key)
        self.what, self.status = what, status
        self.header = ListArray(files, key._replace(field="eventHeader"))
        self.element = getattr(_NOTHING, what).dtype

    def __dask_tokenize__(self) -> tuple[object, ...]:
        return (*super().__dask_tokenize__(), self.what, self.status)

    def value(self, data: npt.NDArray[np.uint8]) -> npt.NDArray[Any]:
        """Keep the bytes: they are decoded together with their header."""
        return data

    def __getitem__(self, key: Any) -> npt.NDArray[Any]:
        """Read channel and header of the events that are asked for, and decode them."""
        keys = [*(key if isinstance(key, tuple) else (key,)), slice(None)][:2]
        events, segments = (np.atleast_1d(np.arange(n)[k]) for n, k in zip(self.shape, keys, strict=True))
        data, headers = self._read(events, segments), self.header._read(events, segments)
        out = self.empty(data.size)
        for k, (bytes_, header) in enumerate(zip(data.ravel(), headers.ravel(), strict=True)):
            try:
                decoded = decode_channel(header, bytes_.view(np.uint8), status=self.status)
            except ValueError as error:
                raise self._damaged(int(events[k // segments.size]), error) from error
            out[k] = getattr(decoded, self.what)
        out = out.reshape(data.shape)
        drop = tuple(axis for axis, k in enumerate(keys) if is_number(k))
        return out.squeeze(axis=drop) if drop else out

    def _damaged(self, event: int, error: ValueError) -> DamagedDataError:
        return DamagedDataError(
            f"{self.files.path}, event {event}: {'.'.join(self.key)} cannot be decoded",
            found=str(error),
            expected="streams of a digitizer",
            fix=f"leave the event out; its bytes are in {self.key.field}",
        )


def digitizer_variables(
    files: RunFiles,
    fields: Sequence[EventField],
    versions: dict[str, int],
    taken: Sequence[str],
    dims: Callable[[EventField], tuple[str, str]],
    wrap: Callable[[Any], Any],
) -> dict[str, xr.Variable]:
    """Waveforms and peaks of every channel of a digitizer.

    Parameters
    ----------
    files, fields, wrap
        The detector.
    versions
        Version of each algorithm.
    taken
        Names of variables that are there already.
    dims
        Dims of a field.
    """
    names = {(f.key.alg, f.key.field) for f in fields}
    channels = [
        f
        for f in fields
        if _CHANNEL.fullmatch(f.key.field)
        and (f.key.alg, "eventHeader") in names
        and f.rank == 1
        and f.dtype == np.dtype("u1")
        and not f.is_text
    ]
    result: dict[str, xr.Variable] = {}
    for f in channels:
        ending = "" if len(channels) == 1 else f"_{f.key.field}"
        for what, dim, said in _LISTS:
            name = what + ending
            if name in taken or name in result:
                continue
            array = DigitizerArray(files, f.key, what, status=versions.get(f.key.alg, 0) >= _STATUS_FROM)
            attrs = ragged_attrs(dim + ending, array.element) | {v.LONG_NAME: said}
            attrs |= {v.UNITS: v.ADU} if array.element == np.dtype("<u2") else {}
            result[name] = xr.Variable(dims(f), wrap(array), attrs | {"sample_period": SAMPLE_PERIOD})
    return result


_LISTS: Final = (
    ("waveform", "sample", "all samples; sample_period is the time between them in s"),
    ("peak_start", "peak", "first sample of each peak"),
    ("peak_length", "peak", "number of samples of each peak"),
    ("peak_samples", "peak_sample", "samples of all peaks behind each other"),
)
