"""The lines of code that make again what was drawn."""

from __future__ import annotations

from collections.abc import Mapping

from xsmall.detector.geometry.beam import Beam
from xsmall.detector.masks.regions import Region
from xsmall.plot.explore.scan import reduce_line
from xsmall.plot.explore.shapes import DrawnShape, code_of

__all__ = ["code_lines"]


def code_lines(
    regions: Mapping[str, DrawnShape],
    masks: Mapping[str, Region],
    beam: Beam | None,  # where it is another than that of the data
    thresholds: tuple[float, float | None] | None,
    scan: str,
) -> str:
    """Lines of code of frames ``cal``, in the order in which they are needed."""
    lines = []
    if beam is not None:
        lines.append(f"cal = cal.sd.assign_beam({code_of(beam)})")
    if masks:
        flags = ", ".join(f"{why}={code_of(region)}" for why, region in masks.items())
        lines.append(f"mask = xs.usable(xs.mask(cal, {flags}))")
    if regions:
        said = ", ".join(f'"{name}": {code_of(region)}' for name, region in regions.items())
        lines.append(f"regions = {{{said}}}")
    if scan:
        lines.append(scan)
    elif regions:
        lines.append(reduce_line(bool(masks)))
    if thresholds is not None:
        used = ", mask=mask" if masks else ""
        lines.append(f"drops = cal.sd.droplet(threshold={thresholds[0]}, threshold_low={thresholds[1]}{used})")
    return "\n".join(lines)
