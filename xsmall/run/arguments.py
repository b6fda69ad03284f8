"""Arguments of reductions: as recipes write them, with units, and as the functions take them; both ways."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path
from typing import Any, Final

import xarray as xr

from xsmall.detector.masks.regions import Arc, Band, Circle, HalfPlane, Polygon, Rectangle, Ring
from xsmall.engine.asked import ARRAY, OTHER
from xsmall.errors import DataError, ParameterError
from xsmall.io.masks import open_mask
from xsmall.reductions.box import Box
from xsmall.reductions.threshold import Sigma
from xsmall.run.quantity import KINDS as UNITS_OF_KIND
from xsmall.run.quantity import quantity, split
from xsmall.run.text import like
from xsmall.vocabulary import (
    ADU,
    AZIMUTH,
    DIMENSIONLESS,
    ELECTRONVOLT,
    GAIN_STAGE,
    KILOELECTRONVOLT,
    NOISE,
    PHOTON,
    RADIUS,
    TWO_THETA,
    Q,
    X,
    Y,
    Z,
)

__all__ = ["BESIDE", "Context", "converted", "has_sigma", "noise_of", "written"]

BESIDE: Final = "beside"
HISTOGRAM: Final = "histogram"
_BOXES: Final = ("places", "place", "regions", "side")
_DATA: Final = ("threshold", "threshold_low", "saturation", "sums", "of", "per_photon", "count_above", "histogram")
_OF_LENGTH: Final = ("pixel_size", "x", "y")
_ANGLES: Final = ("polarization_plane", "axis")
_SIGMA: Final = "sigma"
_OF_QUANTITY: Final[Mapping[str, str]] = {
    Q: "q", TWO_THETA: "angle", AZIMUTH: "angle", RADIUS: "length", X: "length", Y: "length", Z: "length",
}  # fmt: skip
_OF_SPACE: Final = {"lab": "length", "q": "q", "image": None}
_REGIONS: Final[Mapping[str, type]] = {
    "polygon": Polygon, "circle": Circle, "ring": Ring, "rectangle": Rectangle, "half_plane": HalfPlane, "arc": Arc,
    "band": Band,
}  # fmt: skip
_DATA_UNITS: Final[Mapping[str, Fraction]] = {ELECTRONVOLT: Fraction(1, 1000), KILOELECTRONVOLT: Fraction(1)}


@dataclass(frozen=True)
class Context:
    """What the arguments of a reduction are made with.

    Parameters
    ----------
    units
        Unit of the data that are reduced; None where they do not say.
    constants
        Constants of the detector, for thresholds in sigma.
    folder
        Where the files of own functions and masks are looked for.
    frames
        The frames that are reduced, for masks and event variables.
    events
        The event variables of the run.
    detectors
        What makes the frames of the detectors of the recipe, calibrated as they are, for functions of several.
    """

    units: str | None
    constants: xr.Dataset | None
    folder: Path
    frames: xr.DataArray | None = None
    events: xr.Dataset | None = None
    detectors: Mapping[str, Callable[[], xr.DataArray]] = field(default_factory=dict)


def converted(name: str, key: str, value: Any, given: Mapping[str, Any], context: Context | None) -> Any:
    """One argument as the function takes it; without a context only what needs none is told.

    Parameters
    ----------
    name
        Name of the reduction.
    key, value
        The argument.
    given
        All arguments of the reduction.
    context
        What the data are.

    Raises
    ------
    ParameterError
        No unit, one of something else, or a value of another form.
    """
    what = f"{key} of reduction {name!r}"
    if key == BESIDE:
        return _things_beside(what, value, context)
    if key == "mask":
        return _mask_of_reduction(what, value, context)
    if key == "i0":
        return _event_variable(what, value, context)
    if key in _BOXES:
        return _regions(what, value)
    kind = _kind_of_argument(key, value, given)
    if kind == "data":
        whole = isinstance(value, int | str) and not isinstance(value, bool) and key == "of" and not _has_unit(value)
        bare = str(given.get("kind")).startswith("waveform_")  # digitizers often say no unit
        return value if whole else _each(value, lambda one: _of_data(what, one, context, bare=bare))
    return _each(value, lambda one: one if kind is None else quantity(one, kind, what))


def _kind_of_argument(key: str, value: Any, given: Mapping[str, Any]) -> str | None:
    """What an argument measures: a kind of quantity, ``"data"`` for values of pixels, or None for bare numbers."""
    if key in _DATA or (key == "range" and given.get("kind") == HISTOGRAM and not isinstance(given.get("of"), str)):
        return "data"
    if key in _OF_LENGTH:
        return "length"
    if key in _ANGLES:
        return "angle"
    several = isinstance(value, list | tuple)
    if key == "azimuth_bins" and several:
        return "angle"
    if given.get("kind") != HISTOGRAM and (
        (key in ("range", "bins") and several) or (key == "width" and given.get("kind") != "lineout")
    ):
        onto = given.get("quantity", given.get("onto", Q))
        return _OF_QUANTITY.get(onto, None) if isinstance(onto, str) else None
    return None


def _has_unit(value: object) -> bool:
    return isinstance(value, str) and any(c.isdigit() for c in value[:2])


def _each(value: Any, convert: Callable[[Any], Any]) -> Any:
    return tuple(_each(one, convert) for one in value) if isinstance(value, list | tuple) else convert(value)


def has_sigma(made: Mapping[str, Any]) -> bool:
    """Whether a threshold is a multiple of the noise."""
    flat = [one for value in made.values() for one in (value if isinstance(value, tuple) else (value,))]
    return any(isinstance(one, Sigma) for one in flat)


def _mask_of_reduction(what: str, value: object, context: Context | None) -> Any:
    """A mask of one reduction: a file, read where the frames are known."""
    if not isinstance(value, str):
        raise ParameterError(f"{what} is a file", found=repr(value)[:80], fix='mask = "mask.npy"')
    if context is None:
        return None
    flags = open_mask(context.folder / Path(value).expanduser(), context.frames, convention=_convention(value))
    return flags == 0


def _convention(path: str) -> str | None:
    """Masks that xsmall wrote beside a recipe are flags of its own; others say what they are."""
    return "xsmall" if path.endswith(".npy") else None


def _things_beside(what: str, value: object, context: Context | None) -> dict[str, xr.DataArray] | None:
    """What a function takes of the same event, by keyword: detectors of the recipe and event variables."""
    named = {one: one for one in value} if isinstance(value, list | tuple) else value
    if (
        not isinstance(named, Mapping)
        or not named
        or not all(isinstance(x, str) and x.isidentifier() for pair in named.items() for x in pair)
    ):
        raise ParameterError(
            f"{what} is no list of names", found=repr(value)[:80],
            expected="detectors of the recipe and event variables, perhaps by keyword", fix='beside = ["epix", "i0"]',
        )  # fmt: skip
    if context is None:
        return None
    found: dict[str, xr.DataArray] = {}
    for keyword, name in named.items():
        if name in context.detectors:
            found[keyword] = context.detectors[name]()
        elif context.events is not None and name in context.events.variables:
            found[keyword] = context.events[name]
        else:
            known = [*context.detectors, *map(str, () if context.events is None else context.events.variables)]
            near = like(name, known)
            raise DataError(
                f"{what}: neither a detector nor an event variable is called {name!r}",
                expected=", ".join(known) or "a detector of the recipe",
                fix=f'"{near}"' if near else None,
            )
    return found


def _event_variable(what: str, value: object, context: Context | None) -> Any:
    if not isinstance(value, str):
        raise ParameterError(f"{what} is the name of an event variable", found=repr(value)[:80], fix='i0 = "i0"')
    if context is None:
        return None
    for place in (context.events, None if context.frames is None else context.frames.coords.to_dataset()):
        if place is not None and value in place.variables:
            return place[value]
    known = [] if context.events is None else [str(n) for n in context.events.variables]
    near = like(value, known)
    raise DataError(
        f"{what}: the run has no event variable {value!r}",
        expected=", ".join(known) or "event variables",
        fix=f'i0 = "{near}"' if near else "leave i0 out",
    )


# ---- places ----------------------------------------------------------------------------------------------------------


def _regions(what: str, value: Any) -> Any:
    """One place, a table of segment, row and column or of a region; or places by name."""
    if not isinstance(value, Mapping):
        raise ParameterError(f"{what} is no table", found=repr(value), fix="{segment = 0, row = [0, 10]}")
    if len(value) == 1 and next(iter(value)) in _REGIONS:
        return _region(what, *next(iter(value.items())))
    if value and all(isinstance(one, Mapping) for one in value.values()):
        return {str(k): _regions(f"{what}, {k!r}", one) for k, one in value.items()}
    return _box_of_table(what, value)


def _box_of_table(what: str, value: Mapping[str, Any]) -> Box:
    _check_keys(what, "a box", value, ("segment", "row", "column"))
    made: dict[str, Any] = {k: tuple(one) if isinstance(one, list) else one for k, one in value.items()}
    return Box(**made)


def _region(what: str, word: str, value: Any) -> Any:
    known = tuple(inspect.signature(_REGIONS[word]).parameters)
    if not isinstance(value, Mapping):
        raise ParameterError(f"{what}: {word} is no table", found=repr(value), expected=", ".join(known))
    _check_keys(what, word, value, known)
    missing = [p.name for p in inspect.signature(_REGIONS[word]).parameters.values() if p.default is p.empty]
    if lacking := [name for name in missing if name not in value]:
        raise ParameterError(f"{what}: {word} needs {lacking[0]}", expected=", ".join(known), fix=f"{lacking[0]} = ...")

    def convert(key: str, one: Any) -> Any:
        kind = _kind_in_region(key, value)
        return _each(one, lambda x: x if kind is None else quantity(x, kind, f"{what}: {key}"))

    return _REGIONS[word](**{key: convert(key, one) for key, one in value.items()})


def _kind_in_region(key: str, given: Mapping[str, Any]) -> str | None:
    """What the number of a region measures."""
    if key in ("space", "quantity"):
        return None
    if key in ("start", "stop"):
        return "angle"
    if "quantity" in given:
        return _OF_QUANTITY.get(str(given["quantity"]))
    return _OF_SPACE.get(str(given.get("space", "lab")))


def _check_keys(what: str, thing: str, given: Mapping[str, Any], known: tuple[str, ...]) -> None:
    for key in given:
        if key not in known:
            near = like(key, known)
            fix = f"{near} = ..." if near else None
            raise ParameterError(f"{what}: {thing} has no {key!r}", expected=", ".join(known), fix=fix)


# ---- values of pixels ------------------------------------------------------------------------------------------------


def _of_data(what: str, value: Any, context: Context | None, *, bare: bool = False) -> float | Sigma:
    """A number in the unit of the data, or a multiple of the noise; ``bare`` where data may have no unit."""
    plain = isinstance(value, int | float) and not isinstance(value, bool)
    if bare and plain and (context is None or context.units in (None, DIMENSIONLESS)):
        return float(value)
    number, unit = split(value, what, (*_DATA_UNITS, ADU, PHOTON, _SIGMA))
    if unit == _SIGMA:
        return Sigma(float(number))
    energies = tuple(_DATA_UNITS)
    if unit not in (*energies, ADU, PHOTON):
        raise ParameterError(
            f"{what} is not in a unit of pixels",
            found=repr(value),
            expected=f"a number with {', '.join((*energies, ADU, PHOTON, _SIGMA))}",
        )
    if context is None:  # whatever the data are, energies can be compared
        return float(number * _DATA_UNITS.get(unit, 1))
    if context.units == unit:
        return float(number)
    if unit in energies and context.units in energies:
        return float(number * _DATA_UNITS[unit] / _DATA_UNITS[str(context.units)])
    raise ParameterError(
        f"{what} is in another unit than the data",
        found=f"{value}, data in {context.units}",
        expected=f"a number with {context.units} or sigma",
        fix=f'unit = "{unit}" of the detector' if unit in (KILOELECTRONVOLT, ADU, PHOTON) else None,
    )


def noise_of(name: str, context: Context) -> xr.DataArray | xr.Dataset:
    """What the noise of a pixel follows from, in the unit of the data."""
    constants = context.constants
    if constants is None or NOISE not in constants:
        raise ParameterError(
            f"reduction {name!r}: a threshold in sigma needs the noise",
            found="no constants" if constants is None else "constants without noise",
            fix="constants = ... of the detector, or a threshold in its unit",
        )
    if context.units == ADU:
        return constants[NOISE].isel({GAIN_STAGE: 0}, drop=True).assign_attrs(units=ADU)
    return constants


# ---- back ------------------------------------------------------------------------------------------------------------


class CannotWrite(Exception):
    """An argument that a recipe has no words for."""


def written(key: str, value: Any, given: Mapping[str, Any], units: str | None, files: Callable[[str], str]) -> Any:
    """An argument as a recipe writes it; the other way of :func:`converted`.

    Parameters
    ----------
    key, value
        The argument as :mod:`xsmall.engine.asked` tells it.
    given
        All arguments of the reduction.
    units
        Unit of the data.
    files
        Gives the name of the file that holds a mask, by its token.

    Raises
    ------
    CannotWrite
        A recipe cannot say it.
    """
    if isinstance(value, Mapping) and set(value) == {OTHER}:
        raise CannotWrite(f"{key}: {value[OTHER]}")
    if key == "mask" and isinstance(value, Mapping) and ARRAY in value:
        return files(str(value[ARRAY]))
    if key in _BOXES:
        return _written_places(key, value)
    if isinstance(value, Mapping) and set(value) == {"Sigma"}:
        return f"{value['Sigma']['n']!r} {_SIGMA}"
    if isinstance(value, Mapping):
        raise CannotWrite(f"{key}, which is {' and '.join(value)}")
    kind = _kind_of_argument(key, value, given)
    if kind is None or (key == "of" and isinstance(value, int | str)):
        return value
    if kind == "data" and units is None:
        raise CannotWrite(f"{key} of data without a unit")
    unit = str(units) if kind == "data" else next(iter(UNITS_OF_KIND[kind]))
    return _unit_written(key, value, unit)


def _unit_written(key: str, value: Any, unit: str) -> Any:
    if isinstance(value, list):
        return [_unit_written(key, one, unit) for one in value]
    if isinstance(value, Mapping) and set(value) == {"Sigma"}:
        return f"{value['Sigma']['n']!r} {_SIGMA}"
    return value if value is None or isinstance(value, bool | str) else f"{value!r} {unit}"


def _written_places(key: str, value: Any) -> Any:
    if isinstance(value, Mapping) and set(value) == {"table"}:
        return {name: _written_places(key, one) for name, one in value["table"].items()}
    if isinstance(value, Mapping) and set(value) == {"Box"}:
        return dict(value["Box"])
    words = {made.__name__: word for word, made in _REGIONS.items()}
    name = next(iter(value)) if isinstance(value, Mapping) else ""
    if name not in words:
        raise CannotWrite(f"{key} of {name or value}")
    own = value[name]
    kinds = {k: _kind_in_region(k, own) for k in own}
    units = {k: None if kind is None else next(iter(UNITS_OF_KIND[kind])) for k, kind in kinds.items()}
    return {words[name]: {k: x if units[k] is None else _unit_written(k, x, str(units[k])) for k, x in own.items()}}
