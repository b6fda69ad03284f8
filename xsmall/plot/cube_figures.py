"""Previews of the cubes that were made with a run."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Final

import numpy as np
import xarray as xr

from xsmall.cube.compare import difference
from xsmall.plot.results import plot
from xsmall.plot.style import pyplot
from xsmall.run.cube_output import cube_path
from xsmall.run.state import RunState
from xsmall.vocabulary import (
    BOUNDS_SUFFIX,
    COMPANIONS,
    COUNT,
    COVARIANCE_SUFFIX,
    FAILED,
    FAULT,
    N_SEGMENTS,
    N_VALID,
    PRESENT,
    STDERR_SUFFIX,
    WEIGHTS,
)

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["cube_figures", "cubes_of"]

_BESIDE: Final = (*COMPANIONS, BOUNDS_SUFFIX)
_ABOUT_EVENTS: Final = (PRESENT, N_SEGMENTS, FAULT, FAILED, N_VALID)
_MOST: Final = 6
"""Figures of a cube."""
_MOST_DIMS: Final = 2


def cubes_of(state: RunState) -> Iterator[tuple[str, xr.Dataset]]:
    """Yield the cubes of a run that are there, by name; images stay lazy."""
    output = Path(state.output)
    for name in state.request.get("recipe", {}).get("cubes", {}):
        path = cube_path(output, name)
        if state.state == "done" and state.output and path.exists():
            yield name, xr.open_dataset(path, engine="zarr" if path.suffix == ".zarr" else "netcdf4", chunks={})


def cube_figures(name: str, cube: xr.Dataset, detectors: Iterable[str]) -> Iterator[tuple[str, Figure]]:
    """Yield figures of a cube, each with its title: events in each bin, then results of one or two dims.

    Parameters
    ----------
    name
        Of the cube.
    cube
        The cube. Where a variable has a dim of true and false, their difference is drawn, per weight where it has one.
    detectors
        Names of the detectors of the run.
    """
    small = [str(v) for v in cube.data_vars if cube[v].ndim <= _MOST_DIMS + 1 and cube[v].dtype.kind in "biuf"]
    pair = next((d for d in cube.dims if cube.sizes[d] == 2 and d in cube.coords and cube[d].dtype == np.bool_), None)
    beside = [v for v in small if any(v.endswith(s) and v.removesuffix(s) in small for s in _BESIDE)]
    results = [v for v in small if v not in beside and v.startswith(tuple(f"{d}_" for d in detectors))]
    main = [v for v in results if not v.endswith(tuple(f"_{word}" for word in _ABOUT_EVENTS))]
    if COUNT in cube and cube[COUNT].ndim <= _MOST_DIMS:
        yield f"cube {name}: events in each bin", _figure(cube, COUNT)
    for variable in main[: _MOST - 1]:
        with_errors = cube[[v for v in small if v == variable or v in (f"{variable}{s}" for s in _BESIDE)]]
        title = f"cube {name}: {variable}"
        if pair in with_errors[variable].dims and f"{variable}{STDERR_SUFFIX}" in with_errors:
            counted = with_errors.assign({COUNT: cube[COUNT]}) if COUNT in cube else with_errors
            weighted = f"{variable}{COVARIANCE_SUFFIX}" in counted
            with_errors = difference(counted, str(pair), normalize="sums" if weighted else None)
            title += f", {pair} true minus false" + (f", per {cube.attrs[WEIGHTS]}" if weighted else "")
        if 0 < with_errors[variable].ndim <= _MOST_DIMS:
            yield title, _figure(with_errors, variable)


def _figure(cube: xr.Dataset, variable: str) -> Figure:
    figure: Figure
    figure, axes = pyplot().subplots(figsize=(6.2, 3.6), layout="constrained")
    plot(cube.compute(scheduler="synchronous"), variable, ax=axes)
    return figure
