"""What the timing detector tells of every event: pulse id, event codes, destination of the beam."""

from collections.abc import Callable, Iterable, Mapping
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import xarray as xr

from xsmall import vocabulary as v
from xsmall.io.sources.xtc2.dataset import detector_type
from xsmall.io.sources.xtc2.fields import EventField, FieldArray, presence
from xsmall.io.sources.xtc2.run_index import RunFiles, run_of

__all__ = ["EventCodes", "timing_variables"]

TIMING: Final = "ts"
_PULSE_ID, _DESTINATION, _WORDS = "pulseId", "ebeamDestn", "sequenceValues"
_BITS: Final = 16
_NOT_LCLS2: Final = np.uint64(1 << 63)  # set in pulse ids of the other machine, and no part of the number


class EventCodes:
    """Which event codes were sent, (event, event_code): code ``n`` is bit ``n % 16`` of word ``n // 16``.

    Parameters
    ----------
    words
        The field of one segment, 16-bit words.
    """

    ndim = 2

    def __init__(self, words: FieldArray) -> None:
        self.words = words
        self.key = words.key
        self.shape = (words.shape[0], words.shape[2] * _BITS)
        self.dtype: np.dtype[Any] = np.dtype(bool)

    def __dask_tokenize__(self) -> tuple[object, ...]:
        return (type(self).__qualname__, self.words.__dask_tokenize__())

    def __getitem__(self, key: Any) -> npt.NDArray[Any]:
        """Read the words of the events that are asked for."""
        events, codes = (*key, slice(None))[:2] if isinstance(key, tuple) else (key, slice(None))
        words = self.words[(events, 0)].astype("<u2")
        bits = np.unpackbits(np.ascontiguousarray(words).view(np.uint8), axis=-1, bitorder="little").astype(bool)
        return np.asarray(bits[..., codes])


def timing_variables(
    files: RunFiles, detectors: Mapping[str, Iterable[EventField]], wrap: Callable[[Any], Any]
) -> dict[str, xr.Variable]:
    """Variables of events from the first timing detector that has them; the codes stay lazy.

    A pulse id is given where it is known for every event: an integer has no form for what is missing.
    """
    result: dict[str, xr.Variable] = {}
    for detector, fields in detectors.items():
        if detector_type(run_of(files), detector) != TIMING:
            continue
        for field in fields:
            name = field.key.field
            if len(field.segments) != 1 or field.shape is None:
                continue
            there = presence(files, field.key)[:, 0]
            if name == _PULSE_ID and field.shape == () and there.all() and v.PULSE_ID not in result:
                numbers = FieldArray(files, field.key)[:, 0]
                known = numbers & ~_NOT_LCLS2 if numbers.dtype == np.uint64 else numbers
                result[v.PULSE_ID] = xr.Variable(v.EVENT, known)
            elif name == _DESTINATION and field.shape == () and v.DESTINATION not in result:
                numbers = np.where(there, FieldArray(files, field.key)[:, 0].astype(np.int64), -1)
                attrs = {v.LONG_NAME: "number of the beam's destination, -1 where it is not known"}
                result[v.DESTINATION] = xr.Variable(v.EVENT, numbers, attrs)
            elif name == _WORDS and len(field.shape) == 1 and field.dtype == np.dtype("<u2") and field.shape[0]:
                if v.EVENT_CODES in result:
                    continue
                codes = EventCodes(FieldArray(files, field.key))
                attrs = {
                    v.LONG_NAME: "whether the code was sent; False where the timing detector is missing",
                    v.ANCILLARY_VARIABLES: f"{detector}_{v.PRESENT}",
                }
                result[v.EVENT_CODES] = xr.Variable((v.EVENT, v.EVENT_CODE), wrap(codes), attrs)
                result[v.EVENT_CODE] = xr.Variable(v.EVENT_CODE, np.arange(codes.shape[1]))
                result[f"{detector}_{v.PRESENT}"] = xr.Variable(v.EVENT, there)
    return result
