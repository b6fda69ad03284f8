"""The ``.sd`` accessors: methods that forward to the functions of the same name.

They keep no state, check nothing when made, and import what they need on use, so that ``import xsmall`` stays light.
Signature and text of a method are those of the function behind it.
"""

from __future__ import annotations

import difflib
import functools
import importlib
import inspect
from collections.abc import Callable, Iterable
from typing import Any

import xarray as xr

from xsmall.vocabulary import (
    DETECTOR_TYPE,
    EVENT,
    FRAME_DIMS,
    GEOMETRY,
    PHOTON_ENERGY,
    PRESENT,
    UNITS,
    VARIANCE_SUFFIX,
    X,
)


class _Method:
    """A method that calls ``function(obj, ...)`` of a module that is imported on first use."""

    def __init__(self, place: str) -> None:
        self._module, self._function = place.split(":")

    def _load(self) -> Callable[..., Any]:
        function: Callable[..., Any] = getattr(importlib.import_module(self._module), self._function)
        return function

    def _bind(self, obj: Any) -> Callable[..., Any]:
        function = self._load()

        @functools.wraps(function)
        def method(*args: Any, **kwargs: Any) -> Any:
            return function(obj, *args, **kwargs)

        signature = inspect.signature(function)
        method.__signature__ = signature.replace(parameters=list(signature.parameters.values())[1:])  # type: ignore[attr-defined]
        return method

    def __get__(self, accessor: Any, owner: type) -> Callable[..., Any]:
        return self._load() if accessor is None else self._bind(accessor._obj)


class _ReductionMethod(_Method):
    """A method that reduces with the record that ``function(...)`` of a module makes."""

    def _bind(self, obj: Any) -> Callable[..., Any]:
        function = self._load()

        @functools.wraps(function)
        def method(*args: Any, **kwargs: Any) -> Any:
            from xsmall.reductions.reduce import apply

            return apply(obj, function(*args, **kwargs))

        return method


class _Accessor:
    """What both accessors share: the object, and the list of methods."""

    def __init__(self, obj: Any) -> None:
        self._obj = obj

    @classmethod
    def _methods(cls) -> list[str]:
        return [name for base in cls.__mro__ for name, value in vars(base).items() if isinstance(value, _Method)]

    def __getattr__(self, name: str) -> Any:
        """Say which method may be meant by a name that is none; ``AttributeError`` as Python has it."""
        if not name.startswith("_"):
            raise AttributeError(no_attribute(".sd", name, self._methods()))
        raise AttributeError(name)


class _Shared(_Accessor):
    """What a DataArray of frames can do, and a Dataset that holds their variance too."""

    reduce = _Method("xsmall.reductions.reduce:reduce")
    roi = _ReductionMethod("xsmall.reductions.roi:roi")
    azint = _ReductionMethod("xsmall.reductions.azint:azint")
    droplet = _ReductionMethod("xsmall.reductions.droplet:droplet")
    photon = _ReductionMethod("xsmall.reductions.photon:photon")
    projection = _ReductionMethod("xsmall.reductions.projection:projection")
    lineout = _ReductionMethod("xsmall.reductions.projection:lineout")
    histogram = _ReductionMethod("xsmall.reductions.histogram:histogram")
    rebin = _ReductionMethod("xsmall.reductions.rebin:rebin")
    autocorrelation = _ReductionMethod("xsmall.reductions.autocorrelation:autocorrelation")
    apply = _Method("xsmall.reductions.reduce:apply")
    average = _Method("xsmall.cube.cube:average")
    plan = _Method("xsmall.engine.plans:plan")
    image = _Method("xsmall.frames.image:image")
    polar = _Method("xsmall.frames.polar:polar")
    locate = _Method("xsmall.frames.locate:locate")
    subtract_ghost = _Method("xsmall.calibration.ghost:subtract_ghost")
    straighten = _Method("xsmall.frames.straighten:straighten")
    save = _Method("xsmall.io.stores.results:save")


@xr.register_dataarray_accessor("sd")  # type: ignore[no-untyped-call]
class SdDataArray(_Shared):
    """Detector methods of a DataArray (event, segment, row, column); its repr says what it sees and could do."""

    assign_geometry = _Method("xsmall.frames.pixels:assign_geometry")
    assign_beam = _Method("xsmall.frames.beam:assign_beam")
    pixel = _Method("xsmall.frames.pixels:pixel")
    fit_beam = _Method("xsmall.frames.fit_beam:fit_beam")
    at = _Method("xsmall.frames.locate:at")
    save_frames = _Method("xsmall.io.stores.frames:save_frames")
    plot = _Method("xsmall.plot.detector:plot")
    mask = _Method("xsmall.frames.mask:mask")
    usable = _Method("xsmall.frames.mask:usable")
    inside = _Method("xsmall.frames.mask:inside")

    calibrate = _Method("xsmall.calibration.calibrate:calibrate")
    trust = _Method("xsmall.calibration.trust:trust")
    common_mode = _Method("xsmall.calibration.corrections:common_mode")

    def __repr__(self) -> str:
        return describe_frames(self._obj, self._methods())


@xr.register_dataset_accessor("sd")  # type: ignore[no-untyped-call]
class SdDataset(_Shared):
    """Methods of a Dataset: frames with their variance, small data, or a cube; its repr says what it sees."""

    integrate = _Method("xsmall.engine.integrate:integrate")
    event_variables = _Method("xsmall.events.names:event_variables")
    cube = _Method("xsmall.cube.cube:cube")
    difference = _Method("xsmall.cube.compare:difference")

    def __repr__(self) -> str:
        return describe_small(self._obj, self._methods())


def no_attribute(whose: str, name: str, known: Iterable[str]) -> str:
    """Text of the error for an unknown name, with the known ones that look like it."""
    alike = difflib.get_close_matches(name, list(known), n=3, cutoff=0.6)
    return f"{whose} has no attribute {name!r}" + (f": did you mean {' or '.join(alike)}?" if alike else "")


def describe_frames(obj: xr.DataArray, methods: list[str]) -> str:
    """Say in a few lines what ``.sd`` sees on an array and what it could do; computes nothing."""
    lines = [f"<xsmall .sd of {'a DataArray' if obj.name is None else obj.name}>"]
    if obj.dims == FRAME_DIMS:
        n, segments, rows, columns = obj.shape
        lines.append(
            f"  frames:   {n} events of {segments} x {rows} x {columns} pixels, {obj.dtype}, {_size(obj.nbytes)}"
        )
    else:
        lines.append(f"  frames:   no, dims are {obj.dims}; reductions need {FRAME_DIMS}")
    lines.append(f"  data:     {_laziness(obj)}")
    lines.append(f"  detector: {obj.attrs.get(DETECTOR_TYPE, 'not said')}, values in {obj.attrs.get(UNITS, 'no unit')}")
    if PRESENT in obj.coords:
        lines.append(f"  present:  {_presence(obj)}")
    has_geometry = GEOMETRY in obj.coords
    lines.append(
        f"  geometry: {_geometry(obj) if has_geometry else 'none: .sd.assign_geometry(xs.open_geometry(path))'}"
    )
    lines.append(f"  beam:     {_beam(obj)}")
    lines.append(f"  can:      {', '.join(methods)}")
    return "\n".join(lines)


def describe_small(obj: xr.Dataset, methods: list[str]) -> str:
    """Say in a few lines what ``.sd`` sees on a Dataset and what it could do; computes nothing."""
    frames = [str(v) for v in obj.data_vars if obj[v].dims == FRAME_DIMS and not str(v).endswith(VARIANCE_SUFFIX)]
    if len(frames) == 1:
        known = f"{frames[0]}{VARIANCE_SUFFIX}" in obj
        return describe_frames(obj[frames[0]], methods) + f"\n  variance: {'carried through' if known else 'none'}"
    per_event = [str(v) for v in obj.data_vars if EVENT in obj[v].dims]
    lines = ["<xsmall .sd of a Dataset>"]
    if per_event:
        scalars = [str(v) for v in obj.variables if obj[v].dims == (EVENT,)]
        lines.append(f"  small data: {obj.sizes[EVENT]} events, {len(per_event)} variables")
        lines.append(f"  bins may be made of: {', '.join(sorted(scalars)) or 'nothing: no variable over event alone'}")
    else:
        lines.append(f"  no dim {EVENT!r}: a cube or averages over {dict(obj.sizes)}")
    lines.append(f"  can:        {', '.join(methods)}")
    return "\n".join(lines)


def _size(nbytes: int) -> str:
    from dask.utils import format_bytes

    return str(format_bytes(nbytes))


def _laziness(obj: xr.DataArray) -> str:
    if obj.chunks is None:
        return "in memory or not chunked; results come at once"
    return f"lazy, {len(obj.chunks[0])} chunks of up to {max(obj.chunks[0], default=0)} along {obj.dims[0]}"


def _presence(obj: xr.DataArray) -> str:
    present = obj.coords[PRESENT]
    if present.chunks is not None:
        return "known when computed"
    absent = int((~present.values.astype(bool)).sum())
    return "every segment in every event" if absent == 0 else f"{absent} of {present.size} segments are missing"


def _geometry(obj: xr.DataArray) -> str:
    detail = f"{obj.coords[GEOMETRY].attrs.get('name', 'known')}"
    return detail if X in obj.coords else f"{detail} (no pixel coordinates here)"


def _beam(obj: xr.DataArray) -> str:
    if PHOTON_ENERGY not in obj.coords:
        return "none: .sd.assign_beam(photon_energy=9500, distance=0.1) gives q and two_theta"
    energy = obj.coords[PHOTON_ENERGY]
    if energy.size != 1 or energy.chunks is not None:
        return "photon energy per event"
    return f"photon energy {float(energy):.6g} {energy.attrs.get(UNITS, 'eV')}"
