"""What type checkers and editors see of the accessors; no program imports it when it runs.

xarray's classes do not know ``.sd``: mypy learns it from the plugin :mod:`xsmall.mypy_plugin`, other checkers where
the accessor is named, ``sd: xs.SdDataArray = data.sd``.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Concatenate, Generic, ParamSpec, TypeVar

import xarray as xr

from xsmall.calibration.calibrate import calibrate as _calibrate
from xsmall.calibration.corrections import common_mode as _common_mode
from xsmall.calibration.ghost import subtract_ghost as _subtract_ghost
from xsmall.calibration.trust import trust as _trust
from xsmall.cube.bootstrap import bootstrap as _bootstrap
from xsmall.cube.compare import difference as _difference
from xsmall.cube.cube import average as _average
from xsmall.cube.cube import cube as _cube
from xsmall.cube.nearest import nearest_off as _nearest_off
from xsmall.cube.ratio import ratio as _ratio
from xsmall.engine.integrate import integrate as _integrate
from xsmall.engine.plans import plan as _plan
from xsmall.events.delay import delay as _delay
from xsmall.events.names import event_variables as _event_variables
from xsmall.events.select import select as _select
from xsmall.frames.beam import assign_beam as _assign_beam
from xsmall.frames.fit_beam import fit_beam as _fit_beam
from xsmall.frames.image import image as _image
from xsmall.frames.locate import at as _at
from xsmall.frames.locate import locate as _locate
from xsmall.frames.mask import inside as _inside
from xsmall.frames.mask import mask as _mask
from xsmall.frames.mask import usable as _usable
from xsmall.frames.pixels import assign_geometry as _assign_geometry
from xsmall.frames.pixels import pixel as _pixel
from xsmall.frames.polar import polar as _polar
from xsmall.frames.sparse import dense as _dense
from xsmall.frames.straighten import straighten as _straighten
from xsmall.frames.uncertain import add as _add
from xsmall.frames.uncertain import scale as _scale
from xsmall.io.stores.frames import save_frames as _save_frames
from xsmall.io.stores.results import save as _save
from xsmall.plot.detector import plot as _plot
from xsmall.plot.explore.explorer import explore as _explore
from xsmall.plot.quicklook import quicklook as _quicklook
from xsmall.plot.results import plot as _plot_results
from xsmall.reductions.anisotropy import anisotropy as _anisotropy
from xsmall.reductions.autocorrelation import autocorrelation as _autocorrelation
from xsmall.reductions.azint import azint as _azint
from xsmall.reductions.droplet import droplet as _droplet
from xsmall.reductions.edge import edge as _edge
from xsmall.reductions.histogram import histogram as _histogram
from xsmall.reductions.peaks import peaks as _peaks
from xsmall.reductions.photon import photon as _photon
from xsmall.reductions.projection import lineout as _lineout
from xsmall.reductions.projection import projection as _projection
from xsmall.reductions.rebin import rebin as _rebin
from xsmall.reductions.reduce import apply as _apply
from xsmall.reductions.reduce import reduce as _reduce
from xsmall.reductions.roi import roi as _roi
from xsmall.reductions.sparse import sparse as _sparse
from xsmall.reductions.sums import sums as _sums
from xsmall.reductions.waveform import waveform_hits as _waveform_hits
from xsmall.reductions.waveform import waveform_integral as _waveform_integral
from xsmall.reductions.waveform_fit import waveform_fit as _waveform_fit
from xsmall.run.write_recipe import to_recipe as _to_recipe

__all__ = ["DataArrayMethods", "DataTreeMethods", "DatasetMethods"]

P = ParamSpec("P")
R = TypeVar("R")


class Method(Generic[P, R]):
    """A function without its first argument."""

    def __init__(self, function: Callable[Concatenate[Any, P], R]) -> None:
        self.function = function

    def __get__(self, accessor: object, owner: type | None = None) -> Callable[P, R]:
        raise NotImplementedError("only type checkers ask")


class OnArray(Method[P, R]):
    """The same of a function whose first argument is a DataArray here, and what it returns follows it."""

    def __init__(self, function: Callable[Concatenate[xr.DataArray, P], R]) -> None:
        super().__init__(function)


class Reduction(Generic[P]):
    """A function that makes a record, as a method that returns what the record makes of frames."""

    def __init__(self, function: Callable[P, object]) -> None:
        self.function = function

    def __get__(self, accessor: object, owner: type | None = None) -> Callable[P, xr.Dataset]:
        raise NotImplementedError("only type checkers ask")


class Joining(Reduction[...]):
    """``rebin`` of a Dataset: of frames as the record, of a cube by its dims, ``delay=2``."""


class _Shared:
    reduce = Method(_reduce)
    roi = Reduction(_roi)
    azint = Reduction(_azint)
    anisotropy = Reduction(_anisotropy)
    droplet = Reduction(_droplet)
    photon = Reduction(_photon)
    projection = Reduction(_projection)
    lineout = Reduction(_lineout)
    histogram = Reduction(_histogram)
    rebin = Reduction(_rebin)
    autocorrelation = Reduction(_autocorrelation)
    peaks = Reduction(_peaks)
    edge = Reduction(_edge)
    waveform_integral = Reduction(_waveform_integral)
    waveform_hits = Reduction(_waveform_hits)
    waveform_fit = Reduction(_waveform_fit)
    sparse = Reduction(_sparse)
    sums = Reduction(_sums)
    apply = Method(_apply)
    average = Method(_average)
    plan = Method(_plan)
    image = Method(_image)
    polar = Method(_polar)
    locate = Method(_locate)
    subtract_ghost = Method(_subtract_ghost)
    straighten = Method(_straighten)
    save = Method(_save)


class DataArrayMethods(_Shared):
    """Methods of ``data.sd``."""

    select = Method(_select)
    assign_geometry = OnArray(_assign_geometry)
    assign_beam = OnArray(_assign_beam)
    pixel = Method(_pixel)
    fit_beam = Method(_fit_beam)
    at = Method(_at)
    save_frames = Method(_save_frames)
    plot = Method(_plot)
    explore = Method(_explore)
    mask = Method(_mask)
    usable = Method(_usable)
    inside = Method(_inside)
    calibrate = Method(_calibrate)
    trust = Method(_trust)
    common_mode = Method(_common_mode)


class DatasetMethods(_Shared):
    """Methods of ``dataset.sd``."""

    dense = Method(_dense)
    plot = Method(_plot_results)
    integrate = Method(_integrate)
    event_variables = Method(_event_variables)
    select = Method(_select)
    delay = Method(_delay)
    to_recipe = Method(_to_recipe)
    cube = Method(_cube)
    difference = Method(_difference)
    ratio = Method(_ratio)
    bootstrap = Method(_bootstrap)
    nearest_off = Method(_nearest_off)
    scale = Method(_scale)
    add = Method(_add)
    rebin = Joining(_rebin)


class DataTreeMethods:
    """Methods of ``run.sd``."""

    quicklook = Method(_quicklook)
    event_variables = Method(_event_variables)
    integrate = Method(_integrate)
    save = Method(_save)
