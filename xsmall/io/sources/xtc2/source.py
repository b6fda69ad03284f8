"""LCLS-II runs in XTC2 files, as :func:`~xsmall.io.run.open_run` gives them."""

from collections.abc import Iterable
from pathlib import Path

import dask.array as da
import numpy as np
import xarray as xr
from dask.base import tokenize

from xsmall.io.files import identify
from xsmall.io.sources.chunks import events_per_chunk
from xsmall.io.sources.source import RunSource, RunSpec
from xsmall.io.sources.xtc2.backend import tree_of
from xsmall.io.sources.xtc2.dataset import detectors_of
from xsmall.io.sources.xtc2.fields import EventField, FieldArray

__all__ = ["Xtc2Run"]


class Xtc2Run(RunSource):
    """A file of one stream."""

    name = "xtc2"
    title = "LCLS-II raw data (XTC2)"

    def recognises(self, spec: RunSpec) -> bool:
        """Go by the ending: the first bytes are a time."""
        return spec.path is not None and spec.path.is_file() and _is_xtc2(spec.path)

    def open(self, spec: RunSpec, *, chunks: int | str | None) -> xr.DataTree:
        """Walk the headers; frames are read when they are computed."""
        assert spec.path is not None
        identity = identify(spec.path)
        events: dict[str, int] = {
            detector: events_per_chunk(_bytes(fields), chunks) for detector, fields in detectors_of(identity).items()
        }

        def wrap(array: FieldArray) -> da.Array:
            n = events[array.key.detector]
            return da.from_array(
                array,
                chunks=(n, *array.shape[1:]),
                name=f"xtc2-{array.key.field}-{tokenize(array, n)}",
                meta=np.empty((0,) * array.ndim, array.dtype),
            )

        return xr.DataTree.from_dict(tree_of(identity, wrap))


def _is_xtc2(path: Path) -> bool:
    return path.suffix == ".xtc2" or path.name.endswith(".xtc2.inprogress")


def _bytes(fields: Iterable[EventField]) -> int:
    """Bytes of all arrays of one event."""
    return sum(
        len(f.segments) * f.dtype.itemsize * int(np.prod(f.shape))
        for f in fields
        if f.shape is not None and f.dtype is not None
    )
