"""The nodes of a run: which of them hold a detector, and which its frames."""

from __future__ import annotations

import xarray as xr

from xsmall.vocabulary import CALIBRATED, CONFIG_NODE, EVENTS_NODE, FRAME_DIMS, RAW

__all__ = ["detectors_of", "frames_nodes"]


def detectors_of(run: xr.DataTree) -> list[str]:
    """Names of the nodes that hold a detector."""
    return [name for name in run.children if name not in (EVENTS_NODE, CONFIG_NODE)]


def frames_nodes(run: xr.DataTree) -> dict[str, xr.DataArray]:
    """Frames by the name of their detector, calibrated ones where there are no raw ones."""
    found = {}
    for name in detectors_of(run):
        node = run.children[name].dataset
        for variable in (RAW, CALIBRATED):
            if variable in node.data_vars and node[variable].dims == FRAME_DIMS:
                found[name] = node[variable]
                break
    return found
