"""The ``.sd`` accessors: one-line doors to the labelled functions. They keep no state and import inside the methods."""

from __future__ import annotations

import xarray as xr


@xr.register_dataarray_accessor("sd")
class SdDataArray:
    """Detector methods of a DataArray (event, segment, row, column)."""

    def __init__(self, obj: xr.DataArray) -> None:
        self._obj = obj


@xr.register_dataset_accessor("sd")
class SdDataset:
    """Methods of a Dataset of small data."""

    def __init__(self, obj: xr.Dataset) -> None:
        self._obj = obj
