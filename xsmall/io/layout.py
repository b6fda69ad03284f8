"""The layouts of files of our own: what those who write them and those who read them agree on."""

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

import numpy as np
import xarray as xr

from xsmall.vocabulary import EVENT

__all__ = [
    "FRAMES_LAYOUT",
    "FRAMES_NUMBER",
    "HDF5_VERSION",
    "OWN_LABELS",
    "RESULT_LAYOUT",
    "RESULT_NUMBER",
    "RUN_LAYOUT",
    "RUN_NUMBER",
    "SMALLDATA_LAYOUT",
    "SMALLDATA_NUMBER",
    "TIME",
    "UNFINISHED",
    "event_bytes",
    "is_frames",
    "quiet",
]

RUN_LAYOUT: Final = "xsmall-run"
RUN_NUMBER: Final = 2
RESULT_LAYOUT: Final = "xsmall-result"
RESULT_NUMBER: Final = 2
FRAMES_LAYOUT: Final = "xsmall-frames"
FRAMES_NUMBER: Final = 1
OWN_LABELS: Final = "xsmall"
"""Group of a file of frames that holds labels for which its format has no place."""
SMALLDATA_LAYOUT: Final = "smalldata"
SMALLDATA_NUMBER: Final = 1
HDF5_VERSION: Final = ("v110", "v110")
"""The format of HDF5 1.10 (2016): descriptions and indexes carry checksums of their own."""
UNFINISHED: Final = "xsmall-unfinished"
"""The layout of what is still being written: it becomes one of the others when it is complete."""
TIME: Final = {"units": "nanoseconds since 1970-01-01", "dtype": "int64", "calendar": "proleptic_gregorian"}
"""How times are stored, everywhere."""


def is_frames(variable: xr.DataArray | xr.Variable) -> bool:
    """Whether a variable has frames per event, which are too large to be held."""
    return EVENT in variable.dims and variable.ndim >= 3


def event_bytes(x: xr.Variable) -> int:
    """Bytes of one event of a variable whose first dim is ``event``."""
    return int(x.dtype.itemsize * np.prod(x.shape[1:], dtype=np.int64))


@contextmanager
def quiet() -> Iterator[None]:
    """Text and consolidated metadata are no part of the Zarr specification yet; xarray reads both."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*does not have a Zarr V3 specification.*")
        warnings.filterwarnings("ignore", message="Consolidated metadata is currently not part.*")
        yield
