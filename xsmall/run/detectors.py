"""The detectors of a run as a recipe wants them: labelled, calibrated and ready to be reduced, nothing computed."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import xarray as xr

from xsmall.calibration.calibrate import calibrate
from xsmall.calibration.constants import select_constants
from xsmall.detector.part import Part
from xsmall.errors import DataError
from xsmall.events.ragged import is_ragged
from xsmall.frames.beam import assign_beam
from xsmall.frames.mask import mask as mask_of
from xsmall.frames.mask import usable
from xsmall.frames.pixels import assign_geometry
from xsmall.frames.variance import values_and_variance
from xsmall.frames.waveforms import Waves, as_waves, waveforms
from xsmall.io.constants.open import open_constants
from xsmall.io.geometry import open_geometry
from xsmall.io.masks import open_mask
from xsmall.reductions.reduce import Pass, prepare
from xsmall.run.arguments import Context
from xsmall.run.classes import accumulations, event_table
from xsmall.run.reductions import record_of
from xsmall.run.tables import PSANA, Constants, DetectorRecipe, GeometryTable, Mask, RunRecipe
from xsmall.run.text import like
from xsmall.vocabulary import CONFIG_NODE, EVENT, EVENTS_NODE, FRAME_DIMS, RAGGED_DIM, SAMPLE, STATUS, UNITS

__all__ = ["Detector", "open_detectors"]

_TOGETHER: Final = 256
"""Waveforms of events that are read together, where opening the run has read them."""
_GIVEN: Final = ("photon_energy", "distance", "center", "tilt_x", "tilt_y", "tilt_z")


@dataclass(frozen=True)
class Detector:
    """A detector of a run, and what is done with it.

    Attributes
    ----------
    name
        As the run calls it.
    recipe
        What the recipe says of it.
    raw
        Its frames as they were read, with geometry and beam.
    values
        Its frames as they are reduced, with their variance where that is asked for.
    constants
        Those of its pixels, None where frames are not calibrated.
    mask
        Reasons against pixels, as the recipe gives them; None where it gives none.
    prepared
        The pass over its frames.
    sums
        Which frames are added up together: for each sum the bin of each event, -1 for none.
    waves
        Waveforms of which the frames were made; None of frames.
    """

    name: str
    recipe: DetectorRecipe
    raw: xr.DataArray
    values: xr.DataArray | xr.Dataset
    constants: xr.Dataset | None
    mask: xr.DataArray | None
    prepared: Pass
    sums: Mapping[str, npt.NDArray[np.int64]]
    waves: Waves | None = None

    def dataset(self, arrays: Mapping[tuple[str, str], Any], *, of_events: bool) -> xr.Dataset:
        """Label the arrays of each reduction and variable, of events or of none."""
        made = self.prepared.part(of_events).dataset(arrays)
        return made if self.waves is None else self.waves.back(made)


def open_detectors(
    recipe: RunRecipe, tree: xr.DataTree, run: int, folder: Path
) -> tuple[dict[str, Detector], dict[str, str]]:
    """Make the detectors of a run ready.

    Parameters
    ----------
    recipe
        The settings of this run.
    tree
        The run.
    run
        Its number.
    folder
        Folder of the recipe.

    Returns
    -------
    The detectors that the run has, by name; and for those that it lacks what was found instead.

    Raises
    ------
    DataError
        A detector that is required is not there.
    XsmallError
        Constants, geometry, masks or arguments that do not fit.
    """
    found: dict[str, Detector] = {}
    skipped: dict[str, str] = {}
    for name, wanted in recipe.detectors.items():
        raw = frames_of(tree, name, wanted.variable, waves=True)
        if isinstance(raw, str):
            if wanted.required:
                raise DataError(f"the detector {name!r} is required", found=raw, fix="required = false")
            skipped[name] = raw
        else:
            found[name] = open_detector(name, recipe, tree, raw, run, folder)
    return found, skipped


def frames_of(tree: xr.DataTree, name: str, variable: str, *, waves: bool = False) -> xr.DataArray | str:
    """The frames of a detector, or ``waves`` of one, or why there are none."""
    nodes = [n for n in tree.children if n not in (EVENTS_NODE, CONFIG_NODE)]
    if name not in tree.children:
        near = like(name, nodes)
        return f"the run has {', '.join(nodes) or 'no detector'}" + (f"; is {near} meant?" if near else "")
    node = tree[name].to_dataset()
    framed = [str(n) for n, x in node.data_vars.items() if x.dims == FRAME_DIMS]
    waved = [str(n) for n, x in node.data_vars.items() if waves and _holds_waves(x)]
    if variable in (*framed, *waved):
        return node[variable]
    told = [f"{what}: {', '.join(names)}" for what, names in (("frames", framed), ("waveforms", waved)) if names]
    return f"it has no frames {variable!r}; " + ("; ".join(told) or "no frames at all")


def _holds_waves(x: xr.DataArray) -> bool:
    """Whether a variable holds waveforms, or the lists of a digitizer."""
    if is_ragged(x):  # of several channels each has samples of its own: sample_chan01
        return str(x.attrs[RAGGED_DIM]).split("_")[0] == SAMPLE
    return as_waves(x) is not None


def _waves_of(name: str, wanted: DetectorRecipe, found: xr.DataArray) -> Waves | None:
    """Waveforms as frames; None of frames."""
    waves = as_waves(waveforms(found) if is_ragged(found) else found)
    if waves is not None:
        settings = {key: getattr(wanted, key) for key in ("constants", "geometry", "beam", "mask")}
        given = [key for key, value in settings.items() if value is not None]
        if given:
            raise DataError(
                f"{name}: waveforms have no {given[0]}", found=f"{given[0]} = ...", fix=f"leave {given[0]} out"
            )
    return waves


def open_detector(
    name: str, recipe: RunRecipe, tree: xr.DataTree, raw: xr.DataArray, run: int, folder: Path
) -> Detector:
    """Label, calibrate and prepare one detector."""
    wanted = recipe.detectors[name]
    waves = _waves_of(name, wanted, raw)
    if waves is not None:
        in_cubes = [cube for cube, one in recipe.cubes.items() if name in one.images]
        if in_cubes:
            raise DataError(
                f"cube {in_cubes[0]!r}: waveforms of {name} are no images", fix=f"leave {name} out of images"
            )
        raw = waves.frames if waves.frames.chunks is not None else waves.frames.chunk({EVENT: _TOGETHER})
    sums = accumulations(recipe, tree, name, raw)
    raw, frames, constants, mask = _calibrated_frames(name, wanted, raw, run)
    units = values_and_variance(frames)[0].attrs.get(UNITS)
    others = {k: partial(_frames_beside, k, recipe, tree, run) for k in recipe.detectors if k != name}
    context = Context(units, constants, folder, raw, event_table(recipe, tree), others)
    records = {key: record_of(key, table, context) for key, table in wanted.reductions.items()}
    return Detector(name, wanted, raw, frames, constants, mask, prepare(frames, records), sums, waves)


def _frames_beside(name: str, recipe: RunRecipe, tree: xr.DataTree, run: int) -> xr.DataArray:
    """The frames of another detector of the recipe, calibrated as the recipe says."""
    wanted = recipe.detectors[name]
    raw = frames_of(tree, name, wanted.variable)
    if isinstance(raw, str):
        raise DataError(
            f"a function takes the detector {name!r}", found=raw, expected="a run that has it",
            fix="a [[override]] for such runs, without this reduction",
        )  # fmt: skip
    return values_and_variance(_calibrated_frames(name, wanted, raw, run)[1])[0]


def _calibrated_frames(
    name: str, wanted: DetectorRecipe, raw: xr.DataArray, run: int
) -> tuple[xr.DataArray, xr.DataArray | xr.Dataset, xr.Dataset | None, xr.DataArray | None]:
    """Frames with geometry and beam as they were read, and calibrated; constants and mask of their pixels."""
    if wanted.geometry is not None:
        given = GeometryTable(path=wanted.geometry) if isinstance(wanted.geometry, str) else wanted.geometry
        raw = assign_geometry(raw, open_geometry(raw if given.path == PSANA else given.path, format=given.format))
    if wanted.beam is not None:
        said: dict[str, Any] = {k: getattr(wanted.beam, k) for k in _GIVEN if getattr(wanted.beam, k) is not None}
        values: dict[str, Any] = {k: tuple(x) if isinstance(x, list) else x for k, x in said.items()}
        raw = assign_beam(raw, **values)
    constants = None if wanted.constants is None else _constants_of(wanted.constants, raw, run)
    mask = None if wanted.mask is None else _mask_for(wanted.mask, raw, constants)
    frames: xr.DataArray | xr.Dataset = raw
    if constants is not None:
        mode: Any = wanted.common_mode
        frames = calibrate(
            raw,
            constants,
            mask=mask,
            common_mode=tuple(mode) if isinstance(mode, list) else mode,
            trust=wanted.trust,
            unit=wanted.unit,
            variance=wanted.variance,
            area=wanted.area,
            status_bits=wanted.status_bits,
            saturation=wanted.saturation,
            switching=None if wanted.switching is None else {k: (a, b) for k, (a, b) in wanted.switching.items()},
        )
    elif mask is not None:
        frames = raw.where(usable(mask))
    _check_needs(name, wanted)
    return raw, frames, constants, mask


def _check_needs(name: str, wanted: DetectorRecipe) -> None:
    """Refuse what would be ignored."""
    needs: Mapping[str, Any] = {
        "common_mode": wanted.common_mode,
        "unit": wanted.unit,
        "trust": wanted.trust,
        "variance": wanted.variance or None,
        "area": wanted.area or None,
        "status_bits": wanted.status_bits,
        "saturation": wanted.saturation,
        "switching": wanted.switching,
    }
    given = [key for key, value in needs.items() if value is not None]
    if wanted.constants is None and given:
        raise DataError(f"{name}: {given[0]} needs constants", found="no constants", fix='constants = "constants.zarr"')


def _constants_of(given: str | Constants, raw: xr.DataArray, run: int) -> xr.Dataset:
    told = Constants(path=given) if isinstance(given, str) else given
    source = raw if told.path == PSANA else told.path
    found = open_constants(source, detector=told.detector, run=run, detector_type=told.detector_type, gain=told.gain)
    return select_constants(found, Part.of(raw))


def _mask_for(given: str | Mask, raw: xr.DataArray, constants: xr.Dataset | None) -> xr.DataArray:
    told = Mask(path=given) if isinstance(given, str) else given
    if told.status and (constants is None or STATUS not in constants):
        raise DataError("a mask of the status needs constants", found="none with status", fix="status = false")
    flags = mask_of(
        raw,
        edges=told.edges,
        central=told.central,
        unbonded=told.unbonded,
        unbonded_neighbours=told.unbonded_neighbours,
        status=constants if told.status else None,
        neighbours=told.neighbours,
    )
    if told.path is not None:  # with the reasons that the file gives
        flags = flags | open_mask(told.path, raw, convention=told.convention, dataset=told.dataset).assign_attrs(
            flags.attrs
        )
    return flags
