"""A run that was opened, and what is to be made of it; nothing is computed."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import xarray as xr

from xsmall.errors import ParameterError
from xsmall.io.run import open_run
from xsmall.run.block import blocks_of
from xsmall.run.classes import event_table
from xsmall.run.cube_output import check_cubes
from xsmall.run.detectors import Detector, open_detectors
from xsmall.run.output import RunEvents
from xsmall.run.recipe import Recipe
from xsmall.run.request import request_of
from xsmall.run.tables import RunRecipe

__all__ = ["RunPlan", "plan_run"]


@dataclass(frozen=True)
class RunPlan:
    """A run that was opened, and what is to be made of it; nothing is computed."""

    recipe: RunRecipe
    source: str
    request: dict[str, Any]
    tree: xr.DataTree
    detectors: dict[str, Detector]
    skipped: dict[str, str]
    events: RunEvents
    blocks: dict[str, list[tuple[int, int]]]


def plan_run(recipe: Recipe, run: int) -> RunPlan:
    """Open a run and say what is to be made of it.

    Raises
    ------
    XsmallError
        Something of the recipe does not fit the run, or the run cannot be opened.
    """
    meant = recipe.for_run(run)
    if meant.source is None:
        raise ParameterError(f"{recipe.name} does not say where runs are", fix='source = "/data/run{run:04d}.zarr"')
    request = request_of(meant, meant.source, recipe.folder)
    tree = open_run(meant.source)
    detectors, skipped = open_detectors(meant, tree, run, recipe.folder)
    blocks = {name: blocks_of(d.raw.sizes["event"]) for name, d in detectors.items()}
    events = RunEvents(event_table(meant, tree), detectors)
    check_cubes(meant, events.variables, detectors)
    return RunPlan(meant, meant.source, request, tree, detectors, skipped, events, blocks)
