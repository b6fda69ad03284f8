"""Configuration of a detector as a Dataset: one value for all as attribute, the others as variables."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import xarray as xr

from xsmall import vocabulary as v
from xsmall.detector.gain_control import CONTROL_FIELDS, configured_control
from xsmall.detector.types import DETECTOR_TYPES
from xsmall.io.sources.xtc2.format import Enumeration, Value
from xsmall.io.sources.xtc2.slow import Configuration, column

CONFIG_SEGMENT = "config_segment"
CONFIG_STEP = "config_step"


def configuration_dataset(versions: Sequence[Configuration], detector_type: str, segments: Sequence[int]) -> xr.Dataset:
    """Bring the configuration of a detector to a Dataset.

    Parameters
    ----------
    versions
        Configuration in each step, or a single one.
    detector_type
        The detector's type; of ePix10ka, ePixHR and ePixUHR the gain control bits are assembled.
    segments
        Labels of the segments of the detector's frames: the configuration has the dim ``segment`` where they are the
        same, and ``config_segment`` where they are not.

    Returns
    -------
    Dataset. Numbers and text that are the same everywhere are attributes; an enumeration is its label, and its number
    is in ``<name>.value``. What differs between segments or steps is a variable over ``segment`` or ``config_step``,
    as are all arrays.
    """
    numbers = sorted({s for version in versions for s in version})
    dim = v.SEGMENT if numbers == list(segments) else CONFIG_SEGMENT
    fields = dict.fromkeys(f for version in versions for values in version.values() for f in values)
    variables: dict[str, xr.Variable] = {}
    attrs: dict[str, Any] = {}
    left_out: list[str] = []
    for field in fields:
        grid = [[version.get(s, {}).get(field) for s in numbers] for version in versions]
        common = _common([value for row in grid for value in row])
        if common is not None:
            attrs |= _as_attrs(field, common)
            continue
        variable = _configured_variable(field, grid, dim)
        if variable is None:
            left_out.append(field)
        else:
            variables[field] = variable
    coords: dict[str, Any] = {dim: numbers}
    if any(CONFIG_STEP in x.dims for x in variables.values()):
        coords[CONFIG_STEP] = np.arange(len(versions))
    if not any(dim in x.dims for x in variables.values()):
        del coords[dim]
    bits = _gain_control(variables, detector_type)
    if bits is not None:
        variables[v.GAIN_CONTROL] = bits
    if left_out:
        attrs[v.LEFT_OUT] = "; ".join(left_out)
    return xr.Dataset(variables, coords, attrs)


def _common(values: Sequence[Value | None]) -> Value | None:
    """The one value that all are equal to; None where they differ, one is missing, or they are arrays."""
    first = values[0]
    if first is None or isinstance(first, np.ndarray):
        return None
    same = all(
        not isinstance(x, np.ndarray) and x is not None and _enumeration_value(x) == _enumeration_value(first)
        for x in values
    )
    return first if same else None


def _enumeration_value(value: Value) -> Any:
    return value.value if isinstance(value, Enumeration) else value


def _as_attrs(field: str, value: Value) -> dict[str, Any]:
    if isinstance(value, Enumeration):
        return {field: value.label, f"{field}.value": value.value}
    return {field: value if isinstance(value, str) else value.item()}


def _configured_variable(field: str, grid: Sequence[Sequence[Value | None]], dim: str) -> xr.Variable | None:
    """Array over steps and segments; without the steps where nothing changes between them."""
    table = column([value for row in grid for value in row])
    if table is None:
        return None
    data = table.data.reshape(len(grid), len(grid[0]), *table.data.shape[1:])
    inner = tuple(f"{field}_{k}" for k in range(data.ndim - 2))
    if all(np.array_equal(data[0], later, equal_nan=data.dtype.kind == "f") for later in data[1:]):
        return xr.Variable((dim, *inner), data[0], table.attrs)
    return xr.Variable((CONFIG_STEP, dim, *inner), data, table.attrs)


def _gain_control(variables: dict[str, xr.Variable], detector_type: str) -> xr.Variable | None:
    """Bits per pixel, where the type has some and its configuration says them."""
    entry = DETECTOR_TYPES.get(detector_type.lower())
    held = {name: x for name, x in variables.items() if name in CONTROL_FIELDS}
    if entry is None or not held:
        return None
    n = max(x.sizes.get(CONFIG_STEP, 0) for x in held.values())
    if n:  # what does not change between steps holds in each
        held = {name: x.set_dims({CONFIG_STEP: n} | dict(x.sizes)) for name, x in held.items()}  # type: ignore[no-untyped-call]
    bits = configured_control(entry.name, {name: x.values for name, x in held.items()})
    if bits is None:
        return None
    lead = next(iter(held.values())).dims[: bits.ndim - 2]
    said = "control words" if entry.name == "epixuhr" else "gain control bits: 4 g, 8 ga, 16 trbit"
    return xr.Variable((*lead, v.ROW, v.COLUMN), bits, {v.LONG_NAME: said})
