"""Cubes of a recipe from small data that are there: any bins, and images in a pass of their own."""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import xarray as xr

from xsmall.cube.cube import cube
from xsmall.cube.merge import merge_cubes
from xsmall.errors import DataError, ParameterError
from xsmall.io.results import open_result
from xsmall.io.run import open_run
from xsmall.io.stores.lanes import lane_store
from xsmall.io.stores.results import save
from xsmall.run.classes import bins_for, selected
from xsmall.run.detectors import open_detectors
from xsmall.run.recipe import Recipe, open_recipe
from xsmall.run.text import like

__all__ = ["cube_of_recipe"]

_RUN: Final = re.compile(r"run(\d+)")


def cube_of_recipe(
    recipe: str | os.PathLike[str] | Recipe,
    small: Sequence[str | os.PathLike[str]],
    out: str | os.PathLike[str],
    *,
    name: str | None = None,
    images: bool = True,
    overwrite: bool = False,
) -> Path:
    """Make a cube that a recipe describes, of small data of one run or of several, which are merged.

    Parameters
    ----------
    recipe
        The recipe; bins may be about results of reductions too.
    small
        Small data that :func:`xsmall.produce` wrote.
    out
        Path of the cube.
    name
        Its name in the recipe; may be left out where there is one.
    images
        Whether the frames are read for the images that the recipe names. Finished parts are kept beside ``out``: the
        same call goes on after a kill.
    overwrite
        Replace what is there.

    Returns
    -------
    The path.

    Raises
    ------
    ParameterError
        No such cube in the recipe; small data that do not say of which run they are.
    DataError
        Small data without a variable of the bins.

    Notes
    -----
    Cost: reads the frames once more where images are asked for, in tiles that fit into memory.

    Examples
    --------
    >>> import pathlib, tempfile, xarray as xr, xsmall as xs
    >>> folder = pathlib.Path(tempfile.mkdtemp())
    >>> path = xs.save(xs.simulate(40, shape=(1, 16, 32)).run, folder / "raw0012.zarr")
    >>> rows = {"kind": "projection", "onto": "row"}
    >>> recipe = {
    ...     "source": str(path),
    ...     "detectors": {"jungfrau": {"reductions": {"rows": rows}}},
    ...     "cubes": {"laser": {"bins": {"laser_on": {"kind": "categories"}}}},
    ... }
    >>> [state] = xs.produce(recipe, 12, folder / "small")
    >>> cube = xs.cube_of_recipe(xs.open_recipe(recipe), [state.output], folder / "cube.zarr")
    >>> xr.open_zarr(cube)["jungfrau_rows_projection"].dims
    ('laser_on', 'jungfrau_segment', 'jungfrau_row')
    """
    known = open_recipe(recipe)
    made = [_remade_run(known, Path(path), name, Path(out), images=images) for path in small]
    if not made:
        raise ParameterError("a cube of which small data?", fix="xsmall cube recipe.toml run0012.zarr")
    path = save(made[0] if len(made) == 1 else merge_cubes(*made), out, overwrite=overwrite)
    for one in small:
        shutil.rmtree(_lanes_path(Path(out), Path(one)), ignore_errors=True)
    return path


def _remade_run(recipe: Recipe, path: Path, name: str | None, out: Path, *, images: bool) -> xr.Dataset:
    found = _RUN.search(path.name)
    if found is None:
        raise ParameterError(f"{path}: of which run is it?", expected="a name such as run0012.zarr")
    run = int(found[1])
    meant = recipe.for_run(run)
    names = list(meant.cubes)
    chosen = name if name is not None or len(names) != 1 else names[0]
    if chosen not in meant.cubes:
        near = like(str(chosen), names)
        raise ParameterError(
            f"{recipe.name} has no cube {chosen!r}" if chosen else "which cube of the recipe?",
            expected=", ".join(names) or "[cubes.scan]",
            fix=f"--name {near or (names[0] if names else 'scan')}",
        )
    opened = open_result(path)
    small = opened if isinstance(opened, xr.Dataset) else opened.to_dataset()
    given = meant.cubes[chosen]
    bins = bins_for(small, chosen, given)
    events = selected(small, meant, given.select)
    frames: dict[str, Any] = {}
    if images and given.images:
        if meant.source is None:
            raise DataError(f"{recipe.name} does not say where runs are", fix="--no-images, or source = ...")
        detectors, _ = open_detectors(meant, open_run(meant.source), run, recipe.folder)
        frames = {detector: detectors[detector].values for detector in given.images if detector in detectors}
    kept = lane_store(_lanes_path(out, path)) if frames else None
    made = cube(events, bins, images=frames, weights=given.weights, coordinates=given.coordinates, store=kept)
    return made.compute()


def _lanes_path(out: Path, small: Path) -> Path:
    return out.with_name(f"{out.stem}-{small.stem}.lanes")
