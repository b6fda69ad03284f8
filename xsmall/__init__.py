"""xsmall: small, right, labelled data from millions of X-ray area-detector frames.

The public names are imported on first use, so that ``import xsmall`` costs no more than ``import xarray``.
"""

import importlib
from typing import Any

from xsmall.accessor import SdDataArray, SdDataset

__version__ = "0.1.0"

_PUBLIC: dict[str, str] = {
    # entry points
    "open_run": "xsmall.io.run",
    "save": "xsmall.io.store",
    "provenance": "xsmall.io.store",
    "simulate": "xsmall.simulation",
    # value types
    "Geometry": "xsmall.detector.geometry",
    "Panel": "xsmall.detector.geometry",
    "Beam": "xsmall.detector.beam",
    "Box": "xsmall.reductions.roi",
    "CommonMode": "xsmall.detector.common_mode",
    "Subtract": "xsmall.detector.common_mode",
    "Exclude": "xsmall.detector.common_mode",
    "DarkLimits": "xsmall.detector.dark",
    "Reason": "xsmall.vocabulary",
    # masks and regions
    "mask": "xsmall.reductions.mask",
    "inside": "xsmall.reductions.mask",
    "usable": "xsmall.reductions.mask",
    "psana_mask": "xsmall.reductions.mask_presets",
    "smalldata_masks": "xsmall.reductions.mask_presets",
    "open_mask": "xsmall.io.masks",
    "save_mask": "xsmall.io.masks",
    "mask_from_array": "xsmall.detector.masks",
    "Polygon": "xsmall.detector.regions",
    "Circle": "xsmall.detector.regions",
    "Ring": "xsmall.detector.regions",
    "Arc": "xsmall.detector.regions",
    "Rectangle": "xsmall.detector.regions",
    "HalfPlane": "xsmall.detector.regions",
    "Band": "xsmall.detector.regions",
    # labelled functions, also methods of `.sd`
    "assign_geometry": "xsmall.reductions.pixels",
    "assign_beam": "xsmall.reductions.beam",
    "fit_beam": "xsmall.reductions.fit_beam",
    "calibrant_q": "xsmall.reductions.fit_beam",
    "read_nexus_geometry": "xsmall.io.geometry_files",
    "write_nexus_geometry": "xsmall.io.geometry_files",
    "pixel": "xsmall.reductions.pixels",
    "locate": "xsmall.reductions.locate",
    "at": "xsmall.reductions.locate",
    "image": "xsmall.reductions.image",
    "from_image": "xsmall.reductions.image",
    "polar": "xsmall.reductions.polar",
    "reduce": "xsmall.reductions.reduce",
    "apply": "xsmall.reductions.reduce",
    "average": "xsmall.cube.cube",
    "difference": "xsmall.cube.compare",
    "merge_cubes": "xsmall.cube.compare",
    # calibration
    "constants": "xsmall.detector.constants",
    "open_constants": "xsmall.io.constants",
    "calibrate": "xsmall.reductions.calibrate",
    "trust": "xsmall.reductions.trust",
    "subtract_ghost": "xsmall.reductions.ghost",
    "straighten": "xsmall.reductions.straighten",
    "common_mode": "xsmall.reductions.common_mode",
    "compare_common_modes": "xsmall.reductions.common_mode_comparison",
    "common_mode_numbers": "xsmall.detector.common_mode_table",
    "resolve_common_mode": "xsmall.detector.common_mode_table",
    "dark": "xsmall.reductions.dark",
    "derive_low_pedestals": "xsmall.reductions.dark",
    "plot_dark": "xsmall.plot_calibration",
    "plot_common_modes": "xsmall.plot_calibration",
    # records
    "roi": "xsmall.reductions.roi",
    "azint": "xsmall.reductions.azint",
    "droplet": "xsmall.reductions.droplet",
    "sigma": "xsmall.reductions.threshold",
    "projection": "xsmall.reductions.projection",
    "autocorrelation": "xsmall.reductions.autocorrelation",
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

__all__ = [*sorted(_PUBLIC), "SdDataArray", "SdDataset", "__version__"]


def __getattr__(name: str) -> Any:
    try:
        module = _PUBLIC[name]
    except KeyError:
        raise AttributeError(f"module 'xsmall' has no attribute {name!r}") from None
    value = getattr(importlib.import_module(module), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
