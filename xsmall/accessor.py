"""The ``.sd`` accessors: methods that forward to the functions of the same name.

They keep no state, check nothing when made, and import what they need on use, so that ``import xsmall`` stays light.
Signature and text of a method are those of the function behind it. Completion offers what fits the object; a method
that does not fit can be called all the same, and its error says what is missing.
"""

from __future__ import annotations

import functools
import importlib
import re
from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Any, Final

import xarray as xr

from xsmall.calls import Written, check_call, with_signature, written_signature
from xsmall.errors import alike
from xsmall.notebook.kinds import (
    BINS,
    CALIBRATED_FRAMES,
    FLAGS,
    IMAGE,
    OTHER,
    PICTURES,
    PIXELS,
    RAW_FRAMES,
    RUN,
    SMALL,
    SPARSE,
    kind_of,
)
from xsmall.vocabulary import FRAME_DIMS, RAW

if TYPE_CHECKING:  # type checkers and editors see the methods with the signatures of their functions
    from xsmall.typed import DataArrayMethods, DatasetMethods, DataTreeMethods
else:
    DataArrayMethods = DatasetMethods = DataTreeMethods = object

_FRAMES: Final = (RAW_FRAMES, CALIBRATED_FRAMES)
_REDUCED: Final = (*_FRAMES, SPARSE, PICTURES)
_EVENTS: Final = (SMALL, SPARSE)
_PIXELS: Final = (*_FRAMES, FLAGS, PIXELS, PICTURES)
_ALL: Final = (*_PIXELS, IMAGE, *_EVENTS, BINS, OTHER, RUN)
_RETURNS: Final = re.compile(r"(Returns\n\s*-+\n\s*)(?:A record\.|The record of)")  # Python 3.13 dedents docstrings


class _Method:
    """A method that calls ``function(obj, ...)`` of a module that is imported on first use.

    Parameters
    ----------
    place
        ``"module:function"``.
    *kinds
        Of what kinds of objects it makes sense: for these it is offered.
    """

    def __init__(self, place: str, *kinds: str) -> None:
        self._module, self._function = place.split(":")
        self.kinds = frozenset(kinds)

    def load(self) -> Callable[..., Any]:
        """Import the function behind the method."""
        function: Callable[..., Any] = getattr(importlib.import_module(self._module), self._function)
        return function

    def _bind(self, obj: Any) -> Callable[..., Any]:
        function = self.load()
        signature = written_signature(function, skip=1)

        @functools.wraps(function)
        def method(*args: Any, **kwargs: Any) -> Any:
            bound = check_call(f".sd.{self._function}", signature, args, kwargs)
            return function(obj, *bound.args, **bound.kwargs)

        return with_signature(method, signature)

    def __get__(self, accessor: Any, owner: type) -> Callable[..., Any]:
        return self.load() if accessor is None else self._bind(accessor._obj)


class _ReductionMethod(_Method):
    """A method that reduces with the record that ``function(...)`` of a module makes."""

    def _bind(self, obj: Any) -> Callable[..., Any]:
        function = self.load()
        signature = written_signature(function).replace(return_annotation=Written("xr.Dataset"))

        @functools.wraps(function)
        def method(*args: Any, **kwargs: Any) -> Any:
            from xsmall.reductions.reduce import apply

            bound = check_call(f".sd.{self._function}", signature, args, kwargs)
            return apply(obj, function(*bound.args, **bound.kwargs))

        text = _RETURNS.sub(r"\1A Dataset over the events, lazy where the frames are.", function.__doc__ or "")
        method.__doc__ = text
        return with_signature(method, signature)


class _RebinMethod(_ReductionMethod):
    """Joins neighbours: pixels of frames, or the bins of a cube."""

    def _bind(self, obj: Any) -> Callable[..., Any]:
        if kind_of(obj) == BINS:
            return _Method("xsmall.cube.rebin:rebin_cube", BINS)._bind(obj)
        return super()._bind(obj)


_OTHERS_METHODS: Final[Mapping[str, str]] = {
    "azimuthal": "azint",
    "azimuthal_integration": "azint",
    "integrate1d": "azint",
    "integrate2d": "azint",
    "radial": "azint",
    "calib": "calibrate",
    "photonize": "photon",
    "show": "plot",
    "imshow": "plot",
    "position_modules": "image",
}
"""Words of pyFAI, smalldata_tools and hasty fingers for our methods."""


_REDUCTIONS: Final[Mapping[str, _Method]] = {
    "reduce": _Method("xsmall.reductions.reduce:reduce", *_REDUCED),
    "roi": _ReductionMethod("xsmall.reductions.roi:roi", *_REDUCED),
    "azint": _ReductionMethod("xsmall.reductions.azint:azint", *_REDUCED),
    "anisotropy": _ReductionMethod("xsmall.reductions.anisotropy:anisotropy", *_REDUCED),
    "droplet": _ReductionMethod("xsmall.reductions.droplet:droplet", *_REDUCED),
    "photon": _ReductionMethod("xsmall.reductions.photon:photon", *_REDUCED),
    "projection": _ReductionMethod("xsmall.reductions.projection:projection", *_REDUCED),
    "lineout": _ReductionMethod("xsmall.reductions.projection:lineout", *_REDUCED),
    "histogram": _ReductionMethod("xsmall.reductions.histogram:histogram", *_REDUCED),
    "rebin": _ReductionMethod("xsmall.reductions.rebin:rebin", *_REDUCED),
    "peaks": _ReductionMethod("xsmall.reductions.peaks:peaks", *_REDUCED),
    "edge": _ReductionMethod("xsmall.reductions.edge:edge", *_FRAMES, SMALL),
    "waveform_integral": _ReductionMethod("xsmall.reductions.waveform:waveform_integral", SMALL),
    "waveform_hits": _ReductionMethod("xsmall.reductions.waveform:waveform_hits", SMALL),
    "waveform_fit": _ReductionMethod("xsmall.reductions.waveform_fit:waveform_fit", SMALL),
    "sums": _ReductionMethod("xsmall.reductions.sums:sums", *_REDUCED),
    "autocorrelation": _ReductionMethod("xsmall.reductions.autocorrelation:autocorrelation", *_REDUCED),
    "sparse": _ReductionMethod("xsmall.reductions.sparse:sparse", *_FRAMES),
    "apply": _Method("xsmall.reductions.reduce:apply", *_REDUCED),
    "average": _Method("xsmall.cube.cube:average", *_FRAMES, *_EVENTS),
    "plan": _Method("xsmall.engine.plans:plan", *_FRAMES, PIXELS, PICTURES, SMALL, BINS),
    "image": _Method("xsmall.frames.image:image", *_PIXELS),
    "polar": _Method("xsmall.frames.polar:polar", *_FRAMES, PIXELS, PICTURES),
    "locate": _Method("xsmall.frames.locate:locate", *_PIXELS),
    "subtract_ghost": _Method("xsmall.calibration.ghost:subtract_ghost", CALIBRATED_FRAMES),
    "straighten": _Method("xsmall.frames.straighten:straighten", *_FRAMES, PICTURES),
    "save": _Method("xsmall.io.stores.results:save", *_ALL),
}
"""What a DataArray of frames can do, and a Dataset that holds their variance too."""

_DATAARRAY: Final[Mapping[str, _Method]] = {
    "select": _Method("xsmall.events.select:select", *_FRAMES, *_EVENTS),
    "assign_geometry": _Method("xsmall.frames.pixels:assign_geometry", *_PIXELS),
    "assign_beam": _Method("xsmall.frames.beam:assign_beam", *_PIXELS),
    "pixel": _Method("xsmall.frames.pixels:pixel", *_PIXELS),
    "fit_beam": _Method("xsmall.frames.fit_beam:fit_beam", *_FRAMES, PIXELS, PICTURES),
    "at": _Method("xsmall.frames.locate:at", *_PIXELS),
    "save_frames": _Method("xsmall.io.stores.frames:save_frames", *_FRAMES),
    "plot": _Method("xsmall.plot.detector:plot", *_PIXELS, IMAGE),
    "explore": _Method("xsmall.plot.explore.explorer:explore", *_PIXELS),
    "mask": _Method("xsmall.frames.mask:mask", *_FRAMES, PIXELS, PICTURES),
    "usable": _Method("xsmall.frames.mask:usable", FLAGS),
    "inside": _Method("xsmall.frames.mask:inside", *_PIXELS),
    "calibrate": _Method("xsmall.calibration.calibrate:calibrate", RAW_FRAMES),
    "trust": _Method("xsmall.calibration.trust:trust", RAW_FRAMES),
    "common_mode": _Method("xsmall.calibration.corrections:common_mode", CALIBRATED_FRAMES),
    **_REDUCTIONS,
}

_DATASET: Final[Mapping[str, _Method]] = {
    "plot": _Method("xsmall.plot.results:plot", *_EVENTS, BINS),
    "integrate": _Method("xsmall.engine.integrate:integrate", *_EVENTS),
    "event_variables": _Method("xsmall.events.names:event_variables", *_EVENTS),
    "select": _Method("xsmall.events.select:select", *_FRAMES, *_EVENTS),
    "delay": _Method("xsmall.events.delay:delay", *_EVENTS),
    "to_recipe": _Method("xsmall.run.write_recipe:to_recipe", *_EVENTS),
    "cube": _Method("xsmall.cube.cube:cube", *_EVENTS),
    "bootstrap": _Method("xsmall.cube.bootstrap:bootstrap", *_EVENTS),
    "nearest_off": _Method("xsmall.cube.nearest:nearest_off", *_EVENTS),
    "difference": _Method("xsmall.cube.compare:difference", BINS),
    "ratio": _Method("xsmall.cube.ratio:ratio", BINS),
    "scale": _Method("xsmall.frames.uncertain:scale", CALIBRATED_FRAMES, PIXELS, IMAGE, *_EVENTS),
    "add": _Method("xsmall.frames.uncertain:add", CALIBRATED_FRAMES, PIXELS, IMAGE, *_EVENTS),
    "dense": _Method("xsmall.frames.sparse:dense", SPARSE),
    **_REDUCTIONS,
    "rebin": _RebinMethod("xsmall.reductions.rebin:rebin", *_REDUCED, BINS),
}

_DATATREE: Final[Mapping[str, _Method]] = {
    "quicklook": _Method("xsmall.plot.quicklook:quicklook", RUN),
    "event_variables": _Method("xsmall.events.names:event_variables", RUN),
    "integrate": _Method("xsmall.engine.integrate:integrate", RUN),
    "save": _Method("xsmall.io.stores.results:save", RUN),
}


class _Accessor:
    """What all accessors share: the object, its methods, and what is shown of it."""

    def __init__(self, obj: Any) -> None:
        self._obj = obj

    @classmethod
    def _methods(cls) -> list[str]:
        return [name for name, value in vars(cls).items() if isinstance(value, _Method)]

    def _fitting(self) -> list[str]:
        """Methods that make sense for this object; of something unknown all."""
        kind = kind_of(self._obj)
        return [name for name, value in vars(type(self)).items() if isinstance(value, _Method) and kind in value.kinds]

    def __dir__(self) -> list[str]:
        return sorted({*object.__dir__(self)} - {*self._methods()} | {*self._fitting()})

    def __repr__(self) -> str:
        from xsmall.notebook.facts import facts_of
        from xsmall.notebook.text import as_text

        return as_text(facts_of(self._obj, self._fitting()))

    def _repr_html_(self) -> str:
        from xsmall.notebook.facts import facts_of
        from xsmall.notebook.html import as_html

        return as_html(self._obj, facts_of(self._obj, self._fitting()))

    if not TYPE_CHECKING:  # or every name would be known to type checkers

        def __getattr__(self, name: str) -> Any:
            """Say which method may be meant by a name that is none; ``AttributeError`` as Python has it."""
            if not name.startswith("_"):
                raise AttributeError(_of_another_kind(self._obj, name) or no_attribute(".sd", name, self._methods()))
            raise AttributeError(name)


def _with(methods: Mapping[str, _Method]) -> Callable[[type], type]:
    def add(cls: Any) -> Any:
        for name, method in methods.items():
            setattr(cls, name, method)
        return cls

    return add


class SdDataArray(_Accessor, DataArrayMethods):
    """Detector methods of a DataArray (event, segment, row, column); its repr says what it sees and could do."""


class SdDataset(_Accessor, DatasetMethods):
    """Methods of a Dataset: frames with their variance, small data, or a cube; its repr says what it sees."""


class SdDataTree(_Accessor, DataTreeMethods):
    """Methods of a run; its repr says what is in it and what to type next."""


for _accessor, _table, _register in (
    (SdDataArray, _DATAARRAY, xr.register_dataarray_accessor),
    (SdDataset, _DATASET, xr.register_dataset_accessor),
    (SdDataTree, _DATATREE, xr.register_datatree_accessor),
):
    _register("sd")(_with(_table)(_accessor))  # type: ignore[no-untyped-call]


def _of_another_kind(obj: Any, name: str) -> str | None:
    """Text of the error for a method that other objects have, with the way to them."""
    if name in _DATAARRAY and isinstance(obj, xr.DataTree):
        ways = (f"run[{node.name!r}][{array!r}]" for node in obj.subtree if (array := _array_of_frames(node.dataset)))
        way = next(ways, None)
        told = f".sd of a run has no {name!r}, arrays of frames have"
        return f"{told}: did you mean {way}.sd.{name}?" if way else f"{told}, and this run holds no frames"
    if name in _DATASET and isinstance(obj, xr.DataArray):
        frames_too = kind_of(obj) in _FRAMES
        way = 'small = data.sd.reduce({"waxs": xs.azint(bins=500)}); small' if frames_too else "data.to_dataset()"
        return f".sd of an array has no {name!r}, Datasets have: did you mean {way}.sd.{name}?"
    if name in _DATAARRAY and isinstance(obj, xr.Dataset):
        frames = _array_of_frames(obj)
        told = f".sd of a Dataset has no {name!r}, arrays of frames have"
        return f"{told}: did you mean data[{frames!r}].sd.{name}?" if frames else f"{told}, and this one holds none"
    return None


def _array_of_frames(data: Any) -> str | None:
    """Name of an array of frames in a Dataset, raw words first."""
    names = [str(v) for v in data.data_vars if data[v].dims == FRAME_DIMS]
    return RAW if RAW in names else next(iter(names), None)


def makes_a_record(name: str) -> bool:
    """Whether the public function makes a record, whose method of the same name takes the data."""
    return any(isinstance(table.get(name), _ReductionMethod) for table in (_DATAARRAY, _DATASET))


def no_function(name: str, known: Iterable[str]) -> str:
    """Text of the error for a public function that there is not: it may be a method, or have a like name."""
    if any(name in table for table in (_DATAARRAY, _DATASET, _DATATREE)):
        return f"module 'xsmall' has no attribute {name!r}, .sd has: did you mean data.sd.{name}?"
    return no_attribute("module 'xsmall'", name, known)


def no_attribute(whose: str, name: str, known: Iterable[str]) -> str:
    """Text of the error for an unknown name, with the known ones that look like it."""
    names = list(known)
    other = _OTHERS_METHODS.get(name)
    near = [other] if other in names else alike(name, names)
    return f"{whose} has no attribute {name!r}" + (f": did you mean {' or '.join(near)}?" if near else "")
