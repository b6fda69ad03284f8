"""What a production would cost, told before anything is computed: sizes of all variables, tasks, memory."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

from dask.utils import format_bytes

from xsmall.run.classes import shape_of_cube
from xsmall.run.opened import RunPlan, plan_run
from xsmall.run.recipe import Recipe, open_recipe
from xsmall.run.sizes import Variable, block_bytes, images_of_cube, peak_bytes, variables_of

__all__ = ["Forecast", "forecast"]

IMAGE_BYTES: Final = 100_000
"""More than this per event is an image rather than small data."""


@dataclass(frozen=True)
class Forecast:
    """What a run will cost; made by :func:`forecast`.

    Attributes
    ----------
    run
        Its number.
    variables
        All variables over events.
    raw_bytes
        Bytes of frames that are read, before compression.
    blocks
        Tasks.
    peak_bytes
        Memory that a thread needs, about.
    block_bytes
        Finished blocks on the disk until the output is written, without lists.
    images
        Images of cubes, of which whoever asks for the run holds one cube at a time.
    skipped
        Detectors that the run lacks.
    """

    run: int
    variables: tuple[Variable, ...]
    raw_bytes: int
    blocks: int
    peak_bytes: int
    block_bytes: int
    images: tuple[Variable, ...]
    skipped: Mapping[str, str]

    @property
    def nbytes(self) -> int:
        """Bytes of all variables whose size is known, and of the images of cubes."""
        return sum(x.nbytes or 0 for x in (*self.variables, *self.images))

    def warnings(self) -> Iterator[str]:
        """Say what would be better done in another way."""
        for x in self.variables:
            if x.bytes_per_event > IMAGE_BYTES:
                yield (
                    f"{x.name} has {format_bytes(x.bytes_per_event)} in each event: these are images; "
                    "a smaller box, fewer bins, or a cube of the frames"
                )

    def text(self) -> str:
        """All of it, a line for each variable."""
        lines = [
            f"run {self.run}: reads {format_bytes(self.raw_bytes)} of frames, writes {format_bytes(self.nbytes)} "
            f"before compression; {self.blocks} tasks, about {format_bytes(self.peak_bytes)} of memory for each thread",
            f"  until it is written, blocks of {format_bytes(self.block_bytes)} lie beside it",
        ]
        for x in (*self.variables, *self.images):
            size = "as long as the lists are" if x.nbytes is None else format_bytes(x.nbytes)
            shape = ", ".join(f"{d} {n}" for d, n in zip(x.dims, x.shape, strict=True))
            lines.append(f"  {x.name} ({shape}) {x.dtype}: {size}")
        lines += [f"  without {name}: {why}" for name, why in self.skipped.items()]
        lines += [f"  warning: {text}" for text in self.warnings()]
        return "\n".join(lines)


def forecast(recipe: str | os.PathLike[str] | Mapping[str, Any] | Recipe, run: int) -> Forecast:
    """Tell what the output of a run will cost; reads headers and constants, computes nothing.

    Parameters
    ----------
    recipe
        As for :func:`xsmall.produce`.
    run
        Number of the run.

    Returns
    -------
    Sizes of all variables, tasks and memory.

    Raises
    ------
    XsmallError
        Something of the recipe does not fit the run, or the run cannot be opened.

    Examples
    --------
    >>> import pathlib, tempfile, xsmall as xs
    >>> folder = pathlib.Path(tempfile.mkdtemp())
    >>> path = xs.save(xs.simulate(20, shape=(1, 16, 32)).run, folder / "raw0012.zarr")
    >>> reductions = {"rows": {"kind": "projection", "onto": "row"}}
    >>> recipe = {"source": str(path), "detectors": {"jungfrau": {"reductions": reductions}}}
    >>> found = xs.forecast(recipe, 12)
    >>> found.raw_bytes, [x.name for x in found.variables]
    (20480, ['jungfrau_rows_projection', 'jungfrau_rows_n_valid'])
    """
    plan = plan_run(open_recipe(recipe), run)
    variables = [x for d in plan.detectors.values() for x in variables_of(d, plan.events.n)]
    return Forecast(
        run=run,
        variables=tuple(variables),
        raw_bytes=sum(d.raw.nbytes for d in plan.detectors.values()),
        blocks=sum(map(len, plan.blocks.values())),
        peak_bytes=max((peak_bytes(d, plan.blocks[name]) for name, d in plan.detectors.items()), default=0),
        block_bytes=sum(block_bytes(d, plan.blocks[name]) for name, d in plan.detectors.items()),
        images=tuple(_images_of_cubes(plan)),
        skipped=plan.skipped,
    )


def _images_of_cubes(plan: RunPlan) -> Iterator[Variable]:
    """The images of all cubes."""
    for name, cube in plan.recipe.cubes.items():
        used = [plan.detectors[detector] for detector in cube.images if detector in plan.detectors]
        if used:
            bins = shape_of_cube(plan.events.variables, plan.recipe, name)
            yield from (images_of_cube(detector, name, bins) for detector in used)
