"""What records take beside the frames of a pass: found, joined by the labels of events, and named."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import xarray as xr

from xsmall.engine.asked import remembered
from xsmall.engine.beside import Companion
from xsmall.engine.blocks import Batch
from xsmall.engine.one_pass import Source
from xsmall.engine.record import Input, Record
from xsmall.engine.transform import float_dtype
from xsmall.errors import ParameterError
from xsmall.events.join import joined
from xsmall.events.labels import labels_of
from xsmall.frames.describe import data_of, describe, words_of
from xsmall.vocabulary import EVENT, FRAME_DIMS

__all__ = ["bind"]

_MOST_DIMS = 4


def bind(records: Mapping[str, Record], obj: xr.DataArray) -> tuple[dict[str, Record], dict[str, Companion]]:
    """Join what records take beside the frames ``obj``: records that know its shape, and where to read it."""
    out: dict[str, Record] = dict(records)
    beside: dict[str, Companion] = {}
    names: dict[int, str] = {}
    for name, given_record in records.items():
        out[name] = record = remembered(given_record, given_record.seeing(obj))
        if not record.beside:
            continue
        inputs, left = {}, []
        for keyword, given in record.beside.items():
            _check_beside(given, keyword)
            key = names.setdefault(id(given), f"{keyword}-{len(names)}")
            made, shape = _companion(given, obj, keyword)
            beside.setdefault(key, made)
            dtype = made.batch.frames.dtype if made.transform is None else float_dtype(given.dtype)
            inputs[keyword] = Input(keyword, key, shape, dtype)
            lost = given.sizes[EVENT] - np.unique(made.at[made.at >= 0]).size
            left += [f"{keyword}: {lost} of {given.sizes[EVENT]} events"] if lost else []
        out[name] = remembered(record, record.bound(inputs, ", ".join(left)))
    return out, beside


def _check_beside(given: Any, keyword: str) -> None:
    if isinstance(given, Mapping) and given and all(isinstance(key, str) for key in given):
        raise ParameterError(
            f"{keyword} is nothing that belongs to events",
            found=f"several by name: {', '.join(given)}",
            expected="each of them by its own name",
            fix=f".sd.apply(function, {', '.join(f'{key}=...' for key in given)})",
        )
    if not isinstance(given, xr.DataArray) or EVENT not in given.dims or given.ndim > _MOST_DIMS:
        raise ParameterError(
            f"{keyword} is nothing that belongs to events",
            found=f"dims {given.dims}" if isinstance(given, xr.DataArray) else type(given).__name__,
            expected=f"frames {FRAME_DIMS} of another detector, an array over {EVENT!r} of at most {_MOST_DIMS} dims",
            fix="a constant can be part of the function: lambda frame: function(frame, constant)",
        )


def _companion(given: xr.DataArray, obj: xr.DataArray, keyword: str) -> tuple[Companion, tuple[int, ...]]:
    """Where to read it, and the shape of what it has for one event."""
    at = joined(labels_of(obj, "the frames"), labels_of(given, keyword), f"the frames and {keyword}")
    if given.dims == FRAME_DIMS and given.dtype.kind != "b":
        frames = describe(given)
        source = Source.of(
            data_of(given), frames.usable, float_dtype(frames.dtype), words=words_of(given), kinds=frames.kinds
        )
        return Companion(source.batch, source.transform, at), frames.shape
    data = data_of(given.transpose(EVENT, ...))
    wide = data[(..., *(None,) * (_MOST_DIMS - data.ndim))]
    return Companion(Batch(wide), None, at), tuple(data.shape[1:])
