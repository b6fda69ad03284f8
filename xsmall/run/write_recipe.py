"""A recipe from results: what a notebook did to one run, written down for all of them."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import dask
import numpy as np
import numpy.typing as npt
import xarray as xr

from xsmall.detector.geometry.geometry import Geometry
from xsmall.engine.asked import ARRAY, ASKED, kept
from xsmall.engine.parameters import parameters_of
from xsmall.errors import DataError, ParameterError
from xsmall.events.labels import labels_of
from xsmall.io.geometry import save_geometry
from xsmall.io.masks import save_mask
from xsmall.io.run import open_run
from xsmall.io.stores.place import write_file
from xsmall.io.stores.results import save
from xsmall.run.arguments import BESIDE, CannotWrite, written
from xsmall.run.block import Work, key_of
from xsmall.run.detectors import open_detector
from xsmall.run.recipe import Recipe, open_recipe
from xsmall.run.reductions import FUNCTION, KIND, KINDS
from xsmall.run.toml import toml_of
from xsmall.vocabulary import (
    CONFIG_NODE,
    EVENT,
    EVENTS_NODE,
    FRAME_DIMS,
    PIXEL_DIMS,
    PROVENANCE,
    RUN,
    SOURCE,
)

__all__ = ["to_recipe"]

_LAST_NUMBER: Final = re.compile(r"(\d+)(?!.*\d)")
_PASSED_ON: Final = ("common_mode", "trust", "unit", "variance", "area", "status_bits", "saturation", "switching")
_BEAM_UNITS: Final = {
    "photon_energy": "eV",
    "distance": "m",
    "tilt_x": "degree",
    "tilt_y": "degree",
    "tilt_z": "degree",
}


def to_recipe(
    small: xr.Dataset,
    path: str | os.PathLike[str],
    *,
    detector: str | None = None,
    constants: str | os.PathLike[str] | xr.Dataset | None = None,
    mask: xr.DataArray | None = None,
    geometry: Geometry | None = None,
    overwrite: bool = False,
) -> Path:
    """Write the recipe that makes these small data again, of this run and of others.

    Parameters
    ----------
    small
        What reductions of the frames of a run returned, lazy or computed.
    path
        Of the recipe, a TOML file. Geometry, masks and constants are written beside it; their names hold their hash.
    detector
        Name of the detector in the run; found by the shape of its frames where only one fits.
    constants
        Path that the recipe should name, such as that of a calibration folder, in place of a copy of the constants;
        or the constants, where they were made in another process.
    mask, geometry
        The mask that was handed to ``calibrate``, and the geometry, where that was in another process.
    overwrite
        Replace a recipe that is there.

    Returns
    -------
    The path.

    Raises
    ------
    ParameterError
        Something was done that a recipe cannot express; constants or masks of another process; a recipe that is there.
    DataError
        No small data of a run on disk, or frames that were changed on the way: some events are made again by the
        recipe before it is handed out, and their bits compared.

    Notes
    -----
    A recipe is about all events: events that were selected before are made with the others. Numbers in the name of the
    run become ``{run}``. Cost: reads and reduces four events.

    Examples
    --------
    >>> import pathlib, tempfile, xsmall as xs
    >>> folder = pathlib.Path(tempfile.mkdtemp())
    >>> path = xs.save(xs.simulate(20, shape=(1, 16, 32)).run, folder / "raw0012.zarr")
    >>> constants = xs.simulate(1, shape=(1, 16, 32)).constants
    >>> cal = xs.open_run(path)["jungfrau"]["raw"].sd.calibrate(constants)
    >>> small = cal.sd.reduce({"rows": xs.projection("row")})
    >>> recipe = small.sd.to_recipe(folder / "recipe.toml")
    >>> [state] = xs.produce(recipe, 12, folder / "out")
    >>> state.state
    'done'
    """
    told = _parameters_of_small(small)
    target = Path(path).expanduser().absolute()
    if target.exists() and not overwrite:
        raise ParameterError(f"{target}: is there already", fix="overwrite=True, or another name")
    source = str(small.attrs.get(SOURCE) or "")
    tree = _opened_run(source)
    name, variable = _detector_of(tree, told[ASKED]["shape"], detector, source)
    given = {"constants": constants, "mask": mask, "geometry": geometry}
    made = _WrittenRecipe(target.parent)
    table = _detector_table(told, made, {key: value for key, value in given.items() if value is not None})
    number, pattern = _number_of(source, small)
    tables = {"source": pattern, "detectors": {name: {"variable": variable, **table}}}
    target.parent.mkdir(parents=True, exist_ok=True)
    for write in made.files.values():
        write()
    text = _heading(source) + toml_of(tables)
    _check_same_bits(open_recipe_of(tables, target), small, tree, name, number)
    write_file(target, lambda draft: draft.write_text(text, encoding="utf-8"), overwrite=overwrite)
    open_recipe(target)
    return target


def open_recipe_of(tables: Mapping[str, Any], target: Path) -> Recipe:
    """The recipe as it will be read from its file."""
    return Recipe(tables, target.parent, str(target))


def _parameters_of_small(small: xr.Dataset) -> dict[str, Any]:
    """The parameters of small data."""
    if not isinstance(small, xr.Dataset):
        raise DataError("a recipe is written of small data", found=type(small).__name__, expected="a Dataset")
    told = parameters_of(small.attrs)
    if told is None and PROVENANCE in small.attrs:
        told = json.loads(small.attrs[PROVENANCE]).get("parameters")
    if not isinstance(told, dict) or told.get("function") != "reduce" or ASKED not in told:
        found = told.get("function", "something else") if isinstance(told, dict) else "no parameters"
        raise DataError(
            "these are no small data of frames, as reductions return them",
            found=f"a result of {found}" if isinstance(told, dict) else found,
            expected="what .sd.reduce, .sd.roi, .sd.azint ... returned",
            fix="cal.sd.reduce({...}).sd.to_recipe(path)",
        )
    return told


def _opened_run(source: str) -> xr.DataTree:
    try:
        return open_run(source)
    except Exception as error:
        raise DataError(
            "a recipe is about runs on disk",
            found=f"frames of {source or 'no file'}: {type(error).__name__}",
            expected="small data of what xs.open_run opened",
        ) from error


def _detector_of(tree: xr.DataTree, shape: list[int], given: str | None, source: str) -> tuple[str, str]:
    """Node and variable of the frames that have a shape."""
    nodes = [n for n in tree.children if n not in (EVENTS_NODE, CONFIG_NODE)]
    all_frames = [
        (node, str(name), [int(x.sizes[d]) for d in PIXEL_DIMS])
        for node in nodes
        for name, x in tree[node].to_dataset().data_vars.items()
        if x.dims == FRAME_DIMS
    ]
    fit = [(node, name) for node, name, own in all_frames if own == shape and given in (None, node)]
    if len(fit) == 1:
        return fit[0]
    known = ", ".join(f"{node}.{name} {tuple(own)}" for node, name, own in all_frames)
    raise ParameterError(
        "which detector is it?" if fit else "no detector of the run has frames of this shape",
        found=f"frames {tuple(shape)}; {source} has {known or 'no frames'}",
        expected="whole frames of one detector" if not fit else "one",
        fix=f'detector="{fit[0][0]}"' if fit else "calibrate whole frames, and cut by the places of reductions",
    )


def _number_of(source: str, small: xr.Dataset) -> tuple[int, str]:
    """The number of the run, and its path with the number left open."""
    known: Any = np.unique(small[RUN].values) if RUN in small.variables and small[RUN].dtype.kind in "iu" else []
    pattern = source.replace("{", "{{").replace("}", "}}")
    place, _, name = pattern.rpartition("/")
    found = re.search(r"(?<=run=)(\d+)", pattern) or _LAST_NUMBER.search(name)
    if found is None or (len(known) == 1 and int(known[0]) != int(found[1])):
        return int(known[0]) if len(known) == 1 else 0, pattern
    word = "{run}" if len(found[1].lstrip("0") or "0") == len(found[1]) else f"{{run:0{len(found[1])}d}}"
    whole = name if "run=" not in pattern else pattern
    whole = whole[: found.start()] + word + whole[found.end() :]
    return int(found[1]), whole if "run=" in pattern else f"{place}/{whole}" if place else whole


# ---- the table of the detector ---------------------------------------------------------------------------------------


@dataclass
class _WrittenRecipe:
    """Files beside a recipe, by name: what writes each."""

    folder: Path
    files: dict[str, Any] = field(default_factory=dict)

    def geometry(self, geometry: Any) -> dict[str, str]:
        name = f"geometry-{_short_token(str(geometry.token))}.json"
        self.files[name] = lambda: save_geometry(geometry, self.folder / name, format="xsmall", overwrite=True)
        return {"path": name, "format": "xsmall"}

    def mask(self, given: Any) -> str:
        flags = given if isinstance(given, xr.DataArray) else xr.DataArray(np.asarray(given), dims=PIXEL_DIMS)
        if flags.dims != PIXEL_DIMS:
            raise CannotWrite(f"a mask over {flags.dims}")
        flags = flags.compute()
        if flags.dtype == bool:
            flags = (~flags).astype(np.uint32) * np.uint32(1 << 9)  # as xs.open_mask reads what a user masks
        name = f"mask-{_short_token(dask.base.tokenize(flags.values))}.npy"
        self.files[name] = lambda: save_mask(flags, self.folder / name, convention="xsmall")
        return name

    def constants(self, given: xr.Dataset) -> str:
        name = f"constants-{_short_token(dask.base.tokenize(given.compute().variables))}.zarr"
        if not (self.folder / name).exists():
            self.files[name] = lambda: save(given, self.folder / name)
        return name


def _short_token(token: str) -> str:
    return token.lstrip("-")[:12]


def _detector_table(told: Mapping[str, Any], made: _WrittenRecipe, given: Mapping[str, Any]) -> dict[str, Any]:
    """What is done with the detector."""
    asked, frames = told[ASKED], told.get("frames")
    table: dict[str, Any] = {}
    if frames is not None:
        table |= _calibration(frames, asked["calibrate"], made, given)
    elif given.keys() - {"geometry"}:
        raise ParameterError(f"{next(iter(given))} of frames that are not calibrated", fix="leave it out")
    if asked["geometry"] is not None:
        own = given.get("geometry")
        known = _kept_here(asked["geometry"], "the geometry", "geometry=...") if own is None else own
        table["geometry"] = made.geometry(known)
    beam = asked["beam"]
    if beam:
        table["beam"] = {k: f"{beam[k]!r} {unit}" for k, unit in _BEAM_UNITS.items() if beam.get(k) not in (None, 0.0)}
        if "center_x" in beam:
            table["beam"]["center"] = [f"{beam[k]!r} m" for k in ("center_x", "center_y")]
    table["reductions"] = {
        name: [_reduction_table(name, step, asked["units"], made) for step in one] if isinstance(one, list) else
        _reduction_table(name, one, asked["units"], made) for name, one in asked["records"].items()
    }  # fmt: skip
    return table


def _calibration(
    frames: Mapping[str, Any], asked: Mapping[str, Any] | None, made: _WrittenRecipe, given: Mapping[str, Any]
) -> dict[str, Any]:
    if frames.get("function") != "calibrate" or asked is None:
        raise ParameterError(
            "frames were changed after they were calibrated, which a recipe cannot express",
            found=f"frames that {frames.get('function')} returned",
            expected="frames as calibrate returned them",
        )
    table: dict[str, Any] = {}
    own = given.get("constants")
    if isinstance(own, str | os.PathLike):
        table["constants"] = str(own)
    else:
        array = own if own is not None else asked.get("constants")
        if array is None:
            raise ParameterError("calibrated without constants, which a recipe cannot express", fix="constants=...")
        table["constants"] = made.constants(array if own is not None else _array_told(array, "constants"))
    flags = given.get("mask") if "mask" in given else asked.get("mask")
    if flags is not None:
        path = made.mask(flags if "mask" in given else _array_told(flags, "mask"))
        table["mask"] = {"path": path, "convention": "xsmall"}
    for key in ("gain_control", "gain_stage", "user", "photon_energy"):
        if asked.get(key) is not None:
            fix = {"photon_energy": "raw.sd.assign_beam(photon_energy=...) before"}.get(key)
            raise ParameterError(f"calibrate was given {key}, which a recipe cannot express", fix=fix)
    for key in _PASSED_ON:
        value = asked.get(key)
        if isinstance(value, Mapping):
            value = value.get("table") or _no_words(key, value)
        if value is not None:
            table[key] = value
    return table


def _no_words(key: str, value: Mapping[str, Any]) -> Any:
    raise ParameterError(
        f"calibrate was given a {key} that a recipe cannot express",
        found=", ".join(map(str, value.values()))[:80],
        expected="a number, a name or psana's parameters",
    )


def _array_told(told: Any, what: str) -> Any:
    if not isinstance(told, Mapping) or ARRAY not in told:
        raise ParameterError(f"{what} cannot be written down", found=str(told)[:80])
    return _kept_here(told[ARRAY], what, f"{what}=..., the same that was handed to calibrate")


def _kept_here(token: Any, what: str, fix: str) -> Any:
    found = kept(str(token))
    if found is None:
        raise ParameterError(f"{what} is not known in this process", found="a result of another process", fix=fix)
    return found


def _reduction_table(name: str, said_of_it: Any, units: str | None, made: _WrittenRecipe) -> dict[str, Any]:
    """One reduction as a recipe writes it."""
    if not isinstance(said_of_it, Mapping) or said_of_it.get(KIND) not in (*KINDS, FUNCTION):
        raise ParameterError(
            f"reduction {name!r} is no reduction of recipes",
            found=str(said_of_it)[:80],
            expected=", ".join((*KINDS, FUNCTION)),
            fix='a record of your own is named by its module: {kind = "function", function = "mymodule:record"}',
        )
    if said_of_it[KIND] == FUNCTION:
        return _function(name, said_of_it)
    out = {KIND: said_of_it[KIND]}
    for key, value in said_of_it.items():
        if key in (KIND, "noise") or value is None:  # that the noise is that of the constants is seen in the check
            continue
        try:
            out[key] = written(
                key, value, said_of_it, units, lambda token: made.mask(_kept_here(token, "mask", "again"))
            )
        except CannotWrite as error:
            raise ParameterError(
                f"reduction {name!r} was given what a recipe cannot express", found=str(error)[:160]
            ) from error
    return out


def _function(name: str, told: Mapping[str, Any]) -> dict[str, Any]:
    place = told[FUNCTION].get("function", "") if isinstance(told[FUNCTION], Mapping) else told[FUNCTION]
    module, _, own = str(place).partition(":")
    if told.get(BESIDE):
        raise ParameterError(
            f"reduction {name!r}: what lies beside the frames has no name that is known here",
            found=", ".join(told[BESIDE].get("table", told[BESIDE])),
            expected="the names of detectors and event variables, which only you know",
            fix=f'leave it out and write {{kind = "function", function = "{place}", beside = ["epix", "i0"]}}',
        )
    if module in ("__main__", "") or not own.isidentifier() or told.get("outputs"):
        raise ParameterError(
            f"the function of reduction {name!r} cannot be named in a recipe",
            found=str(place) or "an object",
            expected="a function of a frame alone, at the top of a module",
            fix='put it into mymodule.py beside the recipe, and say record("mymodule:function")',
        )
    return {KIND: FUNCTION, FUNCTION: place, **{k: True for k in ("variance", "batch") if told.get(k)}}


def _heading(source: str) -> str:
    return f"# Written by xsmall from small data of {source}.\n# xsmall produce THIS_FILE --run 12-20 --out DIR\n\n"


# ---- the check -------------------------------------------------------------------------------------------------------


def _check_same_bits(recipe: Recipe, small: xr.Dataset, tree: xr.DataTree, name: str, number: int) -> None:
    """Make four events by the recipe, first and last and two between, and compare their bits with what was found."""
    meant = recipe.for_run(number)
    raw = tree[name].to_dataset()[meant.detectors[name].variable]
    with dask.config.set(scheduler="synchronous"):
        work = Work(open_detector(name, meant, tree, raw, number, recipe.folder))
        labels, all_labels = labels_of(small, "the small data"), labels_of(raw, "the run")
        n = len(labels)
        for i in sorted({0, n // 3, 2 * n // 3, n - 1} if n else set()):
            at = int(all_labels.get_indexer(labels[[i]])[0])
            if at < 0:
                raise DataError("the small data have an event that the run lacks", found=str(labels[i]))
            found = work.compute(at, at + 1).arrays
            before = small.isel({EVENT: slice(i, i + 1)}).compute()
            _compare(work, found, before, str(labels[i]))


def _compare(work: Work, found: Mapping[str, npt.NDArray[Any]], before: xr.Dataset, label: str) -> None:
    for record, outputs in work.prepared.described.items():
        for variable in outputs:
            whole = f"{record}_{variable}"
            known = whole if whole in before.variables else variable if variable in before.variables else None
            if known is not None and not _same_values(before[known].values, found[key_of(record, variable)]):
                raise DataError(
                    f"the recipe makes other numbers than the small data have: {known}",
                    found=f"a difference in event {label}",
                    expected="raw frames of the run, calibrated and reduced, and nothing between",
                    fix="leave out what was done to the frames by hand, or put it into a function",
                )


def _same_values(a: npt.NDArray[Any], b: npt.NDArray[Any]) -> bool:
    if a.dtype == object:
        return len(a) == len(b) and all(np.array_equal(x, y, equal_nan=True) for x, y in zip(a, b, strict=True))
    return a.shape == b.shape and np.array_equal(a, b, equal_nan=a.dtype.kind == "f")
