"""What people look for among the reductions of a recipe and what is made elsewhere: of what, and what to type."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

__all__ = ["ELSEWHERE"]

_WAVES: Final = "waveforms (event, sample) or (event, channel, sample)"
_COUNTS: Final = "the counts n_k of photons in small data"
_PHOTONS: Final = "the photons of all events"
_CUBE: Final = "a cube"
_FRAMES: Final = "many frames together"
_SETTING: Final = "settings of the detector"

ELSEWHERE: Final[Mapping[str, tuple[str, str]]] = {
    "waveform_fit": (_WAVES, "waves.sd.waveform_fit(xs.waveform_basis(waves, 2, (100, 160)))"),
    "waveform_basis": (_WAVES, "xs.waveform_basis(waves, 2, (100, 160)), with waves = run[detector][variable]"),
    "waveforms": ("lists of a digitizer", 'variable = "waveform" of the detector: its lists are taken as they are'),
    "contrast": (_COUNTS, 'kind = "photon" here, and of what it gives: xs.contrast(xs.open_result(file))'),
    "visibility": ("two contrasts", "xs.visibility(xs.contrast(double), xs.contrast(single))"),
    "photon_bias": ("a record of photons", "xs.photon_bias(xs.photon(9.5), 0.05, cloud=0.2, noise=0.3)"),
    "g2": (_PHOTONS, 'kind = "photon", sparse = true here, and of what it gives: xs.g2(xs.open_result(file), regions)'),
    "two_time": (
        _PHOTONS,
        'kind = "photon", sparse = true here, and of what it gives: xs.two_time(xs.open_result(file), regions)',
    ),
    "merge_azint": ("integrals of several detectors", "xs.merge_azint(first, second), each with norm=True"),
    "cube": ("small data", "a table [cubes.scan] of the recipe, bins = {delay = {...}}"),
    "difference": (_CUBE, 'xs.difference(xs.open_result(file), "laser_on")'),
    "ratio": (_CUBE, "xs.ratio(xs.open_result(file))"),
    "rebin_cube": (_CUBE, "xs.rebin_cube(xs.open_result(file), delay=2)"),
    "merge_cubes": ("cubes", "xs.merge_cubes(first, second)"),
    "average": (_FRAMES, 'average = true of the detector; or by class of events: kind = "sums", by = "laser_on"'),
    "dark": (_FRAMES, "xs.dark(run[detector][variable])"),
    "fit_beam": ("a picture", "xs.fit_beam(average)"),
    "polar": ("pictures", "average.sd.polar()"),
    "calibrate": (_SETTING, 'constants = "constants.zarr" of the detector'),
    "common_mode": (_SETTING, 'common_mode = "recommended" of the detector'),
    "mask": (_SETTING, "mask = {edges = 1} of the detector"),
    "trust": (_SETTING, 'trust = ["default", "saturated"] of the detector'),
    "delay": ("event variables", "a table [delay] of the recipe: stage, time_tool"),
    "select": ("event variables", "a table [selections.good] of the recipe: i0 = {low = 0.5}"),
    "record": ("a function", 'kind = "function", function = "mymodule:myfunction"'),
    "apply": ("a function", 'kind = "function", function = "mymodule:myfunction"'),
}
"""By the name of a function of xsmall: what it is made of, and where."""
