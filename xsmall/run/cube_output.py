"""What the pass has added up, put together: averages and sums of a detector, and the cubes of a run."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import dask.array as da
import numpy as np
import numpy.typing as npt
import xarray as xr

from xsmall.cube.cube import cube
from xsmall.cube.kept import Averaged
from xsmall.cube.sorting import bins_of_events
from xsmall.cube.variables import small_variables
from xsmall.engine.record import Totals
from xsmall.errors import XsmallError
from xsmall.events.shots import one_per_event
from xsmall.io.stores.blocks import BlockStore
from xsmall.run.average import FrameMoments, merged, statistics_of
from xsmall.run.block import moments_key, total_key
from xsmall.run.classes import bins_for, cube_key, cuts_of, selected
from xsmall.run.detectors import Detector
from xsmall.run.sizes import variables_of
from xsmall.run.tables import CubeRecipe, RunRecipe
from xsmall.vocabulary import EVENT, FAULT, N_SEGMENTS, PRESENT

__all__ = ["Added", "check_cubes", "cube_of", "cube_path"]

Array = npt.NDArray[Any]


def cube_path(target: Path, name: str) -> Path:
    """Where a cube of a run lies: beside its small data."""
    return target.with_name(f"{target.stem}_{name}{target.suffix}")


@dataclass(frozen=True)
class Added:
    """What the blocks of a detector have added up.

    Parameters
    ----------
    detector
        The detector.
    blocks
        Names of its blocks in order.
    store
        Where they lie.
    """

    detector: Detector
    blocks: Sequence[str]
    store: BlockStore

    def statistics(self, name: str, number: int) -> dict[str, Array]:
        """Mean, spread, error and count of each pixel in one bin of a sum: blocks are merged in a fixed tree."""
        frames = self.detector.prepared.frames
        first = moments_key(name, number)
        keys = {key: f"{first}.{key}" for key in FrameMoments.empty(frames).arrays()}
        parts = [
            FrameMoments(*(self.store.read(block, key) for key in keys.values()))
            for block in self.blocks
            if keys["n"] in self.store.keys(block)
        ]
        return statistics_of(merged(parts, frames), frames.shape)

    def bins(self, name: str, shape: tuple[int, ...]) -> dict[str, Array]:
        """Statistics of all bins of a sum: (*bins, segment, row, column)."""
        out: dict[str, Array] = {}
        n = int(np.prod(shape))
        for number in range(n):
            for key, values in self.statistics(name, number).items():
                if key not in out:
                    out[key] = np.empty((n, *values.shape), values.dtype)
                out[key][number] = values
        return {key: values.reshape(*shape, *values.shape[1:]) for key, values in out.items()}

    def totals(self) -> Iterator[tuple[str, Mapping[str, Array]]]:
        """What records that add up events have gathered, finished: the name of the record, and its variables."""
        prepared = self.detector.prepared
        for name, outputs in prepared.described.items():
            if any(output.summed for output in outputs.values()):
                total = self._gathered(name)
                for block in self.blocks:
                    if not any(key.startswith(total_key(name, "")) for key in self.store.keys(block)):
                        continue
                    part = self._gathered(name)
                    for key, values in part.arrays().items():
                        values[...] = self.store.read(block, total_key(name, key))
                    total = total.joined(part)
                yield name, total.finish()

    def _gathered(self, name: str) -> Totals:
        """What a record gathers, before the first event."""
        found = self.detector.prepared.records[name].reducer(self.detector.prepared.frames).totals()
        assert found is not None
        return found


def cube_of(
    name: str, recipe: RunRecipe, small: xr.Dataset, added: Mapping[str, Added], request: Mapping[str, Any]
) -> xr.Dataset:
    """Make a cube of a run: its small data in bins, and the images that the pass has added up.

    Parameters
    ----------
    name
        Its name in the recipe.
    recipe
        What is meant for the run.
    small
        Event variables and results of reductions of all events.
    added
        What was added up, by detector.
    request
        What was asked for.
    """
    given = recipe.cubes[name]
    bins = bins_for(small, name, given)
    chosen = selected(small, recipe, given.select)
    _, shape, _ = bins_of_events(chosen, bins, weights=given.weights)
    images = {
        detector: Averaged(added[detector].detector.values, added[detector].bins(cube_key(name), shape))
        for detector in given.images
        if detector in added
    }
    made = cube(chosen, bins, images=images, weights=given.weights, coordinates=given.coordinates)
    return made.assign_attrs({"recipe": json.dumps({"cube": name, "recipe": request["recipe"]})})


def check_cubes(recipe: RunRecipe, events: xr.Dataset, detectors: Mapping[str, Detector]) -> None:
    """Refuse cubes that could not be made of a run, before any frame of it is read.

    Parameters
    ----------
    recipe
        What is meant for the run.
    events
        Its event variables.
    detectors
        Its detectors by name.

    Raises
    ------
    XsmallError
        Bins, a selection, weights or coordinates that the small data will not have, or in another unit.
    """
    if not recipe.cubes:
        return
    known = events.set_coords(list(events.data_vars))
    later = dict(_made_later(events.sizes.get(EVENT, 0), detectors))
    small = known.assign({name: x for name, x in later.items() if name not in known.variables})
    for name, given in recipe.cubes.items():
        try:
            _check_cube(name, given, recipe, small, later)
        except XsmallError as error:
            raise type(error)(f"cube {name!r}: {error}") from error


def _check_cube(
    name: str, given: CubeRecipe, recipe: RunRecipe, small: xr.Dataset, later: Mapping[str, xr.Variable]
) -> None:
    bins = bins_for(small, name, given)
    used = [*bins, *([given.weights] if given.weights else [])]
    used += [str(getattr(one, "variable", key)) for key, one in cuts_of(small, recipe, given.select).items()]
    for variable in used:
        one_per_event(small, variable)
    small_variables(small, (tuple(bins), (), np.empty(0, np.int64)), given.weights, given.coordinates)
    if not later.keys() & set(used):  # else their values are not known yet
        bins_of_events(selected(small, recipe, given.select), bins, weights=given.weights)


def _made_later(n: int, detectors: Mapping[str, Detector]) -> Iterator[tuple[str, xr.Variable]]:
    """What the small data will have beside the event variables; without values."""
    for name, detector in detectors.items():
        described = {f"{name}_{r}_{k}": x for r, all_ in detector.prepared.described.items() for k, x in all_.items()}
        for x in variables_of(detector, n):
            if x.dims[:1] == (EVENT,):
                values = da.zeros(x.shape, object if described[x.name].is_ragged else x.dtype)
                yield x.name, xr.Variable(x.dims, values, described[x.name].attrs)
        for flag in (PRESENT, N_SEGMENTS, FAULT):
            yield f"{name}_{flag}", xr.Variable((EVENT,), da.zeros(n, np.int32))
