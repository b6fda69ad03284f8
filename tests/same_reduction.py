"""Results that are to be the same however their frames are chunked or held."""

import json

import xarray as xr


def assert_same_reduction(found: xr.Dataset, expected: xr.Dataset) -> None:
    """Identical, but for the calls that made them: these tell lazy arrays by other tokens."""
    xr.testing.assert_identical(_without_calls(found), _without_calls(expected))


def _without_calls(result: xr.Dataset) -> xr.Dataset:
    parameters = json.loads(result.attrs["parameters"])
    assert parameters.pop("asked")["records"]
    return result.assign_attrs(parameters=json.dumps(parameters))
