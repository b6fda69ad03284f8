"""xsmall: small, right, labelled data from millions of X-ray area-detector frames.

The public names are imported on first use, so that ``import xsmall`` costs no more than ``import xarray``.
"""

import importlib
import inspect
import logging
from typing import Any

from xsmall._version import __version__
from xsmall.accessor import SdDataArray, SdDataset, SdDataTree, makes_a_record, no_function
from xsmall.calls import tells_its_names
from xsmall.notebook.fold import fold_in_notebooks

_PUBLIC: dict[str, str] = {
    # entry points
    "open_run": "xsmall.io.run",
    "concat": "xsmall.frames.concat",
    "open_result": "xsmall.io.results",
    "open_smalldata": "xsmall.io.sources.smalldata",
    "open_cube": "xsmall.io.sources.old_cubes",
    "open_frames": "xsmall.io.sources.stacks",
    "RunSource": "xsmall.io.sources.source",
    "RunSpec": "xsmall.io.sources.source",
    "register_source": "xsmall.io.sources.source",
    "save": "xsmall.io.stores.results",
    "lane_store": "xsmall.io.stores.lanes",
    "to_smalldata": "xsmall.io.stores.smalldata",
    "save_frames": "xsmall.io.stores.frames",
    "provenance": "xsmall.io.stores.provenance",
    "history": "xsmall.io.stores.history",
    "simulate": "xsmall.simulation",
    "tutorial": "xsmall.simulation",
    "show_versions": "xsmall.notebook.versions",
    "open_recipe": "xsmall.run.recipe",
    "to_recipe": "xsmall.run.write_recipe",
    "convert_config": "xsmall.run.convert",
    "make_arp": "xsmall.run.arp",
    "cube_of_recipe": "xsmall.run.remake",
    "forecast": "xsmall.run.plan",
    "produce": "xsmall.run.produce",
    "production_status": "xsmall.run.state",
    "report": "xsmall.plot.report",
    "open_geometry": "xsmall.io.geometry",
    "open_beam": "xsmall.io.geometry",
    "save_geometry": "xsmall.io.geometry",
    # value types
    "Geometry": "xsmall.detector.geometry.geometry",
    "Panel": "xsmall.detector.geometry.panel",
    "Beam": "xsmall.detector.geometry.beam",
    "beam_from_poni": "xsmall.detector.geometry.formats.poses",
    "beam_from_smalldata": "xsmall.detector.geometry.formats.poses",
    "to_pyfai": "xsmall.detector.geometry.formats.pyfai",
    "to_extra_geom": "xsmall.detector.geometry.formats.extra_geom",
    "Box": "xsmall.reductions.box",
    "CommonMode": "xsmall.calibration.common_mode.mode",
    "Subtract": "xsmall.calibration.common_mode.mode",
    "Exclude": "xsmall.calibration.common_mode.mode",
    "DarkLimits": "xsmall.calibration.dark.sums",
    "Reason": "xsmall.vocabulary",
    # tools for the mouse
    "explore": "xsmall.plot.explore.explorer",
    "Explorer": "xsmall.plot.explore.explorer",
    # masks and regions
    "mask": "xsmall.frames.mask",
    "inside": "xsmall.frames.mask",
    "usable": "xsmall.frames.mask",
    "psana_mask": "xsmall.frames.mask_presets",
    "smalldata_masks": "xsmall.frames.mask_presets",
    "open_mask": "xsmall.io.masks",
    "save_mask": "xsmall.io.masks",
    "mask_from_array": "xsmall.detector.masks.patterns",
    "Polygon": "xsmall.detector.masks.regions",
    "Circle": "xsmall.detector.masks.regions",
    "Ring": "xsmall.detector.masks.regions",
    "Arc": "xsmall.detector.masks.regions",
    "Rectangle": "xsmall.detector.masks.regions",
    "HalfPlane": "xsmall.detector.masks.regions",
    "Band": "xsmall.detector.masks.regions",
    # labelled functions, also methods of `.sd`
    "assign_geometry": "xsmall.frames.pixels",
    "assign_beam": "xsmall.frames.beam",
    "fit_beam": "xsmall.frames.fit_beam",
    "calibrant_q": "xsmall.detector.calibrants",
    "pixel": "xsmall.frames.pixels",
    "locate": "xsmall.frames.locate",
    "at": "xsmall.frames.locate",
    "image": "xsmall.reductions.image",
    "from_image": "xsmall.frames.image",
    "polar": "xsmall.frames.polar",
    "reduce": "xsmall.reductions.reduce",
    "apply": "xsmall.reductions.reduce",
    "average": "xsmall.cube.cube",
    "plan": "xsmall.engine.plans",
    "with_variance": "xsmall.frames.variance",
    "scale": "xsmall.frames.uncertain",
    "add": "xsmall.frames.uncertain",
    "difference": "xsmall.cube.compare",
    "bootstrap": "xsmall.cube.bootstrap",
    "nearest_off": "xsmall.cube.nearest",
    "ratio": "xsmall.cube.ratio",
    "select": "xsmall.events.select",
    "cut": "xsmall.events.select",
    "delay": "xsmall.events.delay",
    "merge_cubes": "xsmall.cube.merge",
    "rebin_cube": "xsmall.cube.rebin",
    # calibration
    "constants": "xsmall.calibration.constants",
    "open_constants": "xsmall.io.constants.open",
    "calibrate": "xsmall.calibration.calibrate",
    "trust": "xsmall.calibration.trust",
    "subtract_ghost": "xsmall.calibration.ghost",
    "straighten": "xsmall.reductions.straight",
    "common_mode": "xsmall.calibration.corrections",
    "compare_common_modes": "xsmall.calibration.compare_common_modes",
    "common_mode_numbers": "xsmall.calibration.common_mode.numbers",
    "resolve_common_mode": "xsmall.calibration.common_mode.numbers",
    "dark": "xsmall.calibration.dark.dark",
    "derive_low_pedestals": "xsmall.calibration.dark.dark",
    "plot_dark": "xsmall.plot.calibration",
    "plot_common_modes": "xsmall.plot.calibration",
    # records
    "roi": "xsmall.reductions.roi",
    "azint": "xsmall.reductions.azint",
    "anisotropy": "xsmall.reductions.anisotropy",
    "merge_azint": "xsmall.reductions.merge",
    "droplet": "xsmall.reductions.droplet",
    "photon": "xsmall.reductions.photon",
    "sigma": "xsmall.reductions.threshold",
    "projection": "xsmall.reductions.projection",
    "lineout": "xsmall.reductions.projection",
    "histogram": "xsmall.reductions.histogram",
    "rebin": "xsmall.reductions.rebin",
    "sums": "xsmall.reductions.sums",
    "peaks": "xsmall.reductions.peaks",
    "edge": "xsmall.reductions.edge",
    "edge_weights": "xsmall.reductions.edge",
    "waveforms": "xsmall.frames.waveforms",
    "waveform_integral": "xsmall.reductions.waveform",
    "waveform_hits": "xsmall.reductions.waveform",
    "waveform_fit": "xsmall.reductions.waveform_fit",
    "waveform_basis": "xsmall.reductions.waveform_fit",
    "autocorrelation": "xsmall.reductions.autocorrelation",
    "record": "xsmall.reductions.user",
    # speckle
    "sparse": "xsmall.reductions.sparse",
    "dense": "xsmall.frames.sparse",
    "contrast": "xsmall.reductions.contrast",
    "visibility": "xsmall.reductions.contrast",
    "photon_bias": "xsmall.simulation.photon_bias",
    "g2": "xsmall.reductions.g2",
    "two_time": "xsmall.reductions.g2",
    # lists per event
    "flatten": "xsmall.events.ragged",
    "lists": "xsmall.events.ragged",
    "to_awkward": "xsmall.events.other_programs",
    "to_hyperspy": "xsmall.events.other_programs",
    "to_pandas": "xsmall.events.other_programs",
    # event variables
    "event_variables": "xsmall.events.names",
    "save_hutch_table": "xsmall.events.names",
    "integrate": "xsmall.engine.integrate",
    # what users write their own records with
    "Record": "xsmall.engine.record",
    "Reducer": "xsmall.engine.record",
    "Totals": "xsmall.engine.record",
    "Output": "xsmall.engine.record",
    "Frames": "xsmall.detector.frames",
    # bins of cubes
    "bins": "xsmall.cube.bins",
    "edges": "xsmall.cube.bins",
    "steps": "xsmall.cube.bins",
    "quantiles": "xsmall.cube.bins",
    "categories": "xsmall.cube.bins",
    # errors
    "XsmallError": "xsmall.errors",
}
"""The one list of public names, each with the module it lives in."""

logging.getLogger("xsmall").addHandler(logging.NullHandler())  # silent until a user adds one
fold_in_notebooks()

__all__ = [*sorted(_PUBLIC), "SdDataArray", "SdDataTree", "SdDataset", "__version__"]


def __getattr__(name: str) -> Any:
    try:
        module = _PUBLIC[name]
    except KeyError:
        raise AttributeError(no_function(name, _PUBLIC)) from None
    value = getattr(importlib.import_module(module), name)
    if inspect.isfunction(value) and not name.startswith("open_"):  # what opens files checks its calls itself
        value = tells_its_names(value, makes_a_record(name))
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
