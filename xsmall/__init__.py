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
    "Geometry": "xsmall.detector.geometry.geometry",
    "Panel": "xsmall.detector.geometry.geometry",
    "Beam": "xsmall.detector.geometry.beam",
    "Box": "xsmall.reductions.roi",
    "CommonMode": "xsmall.detector.calibration.common_mode",
    "Subtract": "xsmall.detector.calibration.common_mode",
    "Exclude": "xsmall.detector.calibration.common_mode",
    "DarkLimits": "xsmall.detector.calibration.dark",
    "Reason": "xsmall.vocabulary",
    # masks and regions
    "mask": "xsmall.reductions.space.mask",
    "inside": "xsmall.reductions.space.mask",
    "usable": "xsmall.reductions.space.mask",
    "psana_mask": "xsmall.reductions.space.mask_presets",
    "smalldata_masks": "xsmall.reductions.space.mask_presets",
    "open_mask": "xsmall.io.masks",
    "save_mask": "xsmall.io.masks",
    "mask_from_array": "xsmall.detector.masks.masks",
    "Polygon": "xsmall.detector.masks.regions",
    "Circle": "xsmall.detector.masks.regions",
    "Ring": "xsmall.detector.masks.regions",
    "Arc": "xsmall.detector.masks.regions",
    "Rectangle": "xsmall.detector.masks.regions",
    "HalfPlane": "xsmall.detector.masks.regions",
    "Band": "xsmall.detector.masks.regions",
    # labelled functions, also methods of `.sd`
    "assign_geometry": "xsmall.reductions.space.pixels",
    "assign_beam": "xsmall.reductions.space.beam",
    "fit_beam": "xsmall.reductions.space.fit_beam",
    "calibrant_q": "xsmall.reductions.space.fit_beam",
    "read_nexus_geometry": "xsmall.io.geometry_files",
    "write_nexus_geometry": "xsmall.io.geometry_files",
    "pixel": "xsmall.reductions.space.pixels",
    "locate": "xsmall.reductions.space.locate",
    "at": "xsmall.reductions.space.locate",
    "image": "xsmall.reductions.space.image",
    "from_image": "xsmall.reductions.space.image",
    "polar": "xsmall.reductions.space.polar",
    "reduce": "xsmall.reductions.reduce",
    "apply": "xsmall.reductions.reduce",
    "average": "xsmall.cube.cube",
    "difference": "xsmall.cube.compare",
    "merge_cubes": "xsmall.cube.compare",
    # calibration
    "constants": "xsmall.detector.calibration.constants",
    "open_constants": "xsmall.io.constants",
    "calibrate": "xsmall.reductions.calibration.calibrate",
    "trust": "xsmall.reductions.calibration.trust",
    "subtract_ghost": "xsmall.reductions.calibration.ghost",
    "straighten": "xsmall.reductions.space.straighten",
    "common_mode": "xsmall.reductions.calibration.common_mode",
    "compare_common_modes": "xsmall.reductions.calibration.common_mode_comparison",
    "common_mode_numbers": "xsmall.detector.calibration.common_mode_table",
    "resolve_common_mode": "xsmall.detector.calibration.common_mode_table",
    "dark": "xsmall.reductions.calibration.dark",
    "derive_low_pedestals": "xsmall.reductions.calibration.dark",
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
