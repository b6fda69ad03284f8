"""Regions of interest, projections and autocorrelations of a 0.5-Mpixel segment."""

from __future__ import annotations

import numpy as np

from benchmarks import Case, read
from benchmarks.azint import reduce_with
from xsmall.detector.frames import Frames
from xsmall.detector.part import Part
from xsmall.engine.record import GROUP
from xsmall.kernels.reference.autocorrelation import autocorrelation as autocorrelation_twin
from xsmall.kernels.reference.projection import projection as projection_twin
from xsmall.kernels.reference.roi import roi as roi_twin
from xsmall.reductions.autocorrelation import autocorrelation
from xsmall.reductions.projection import projection
from xsmall.reductions.roi import Box, roi


def cases(scale: float) -> list[Case]:
    """The whole segment as one box; a box of 300 x 280; both projections; a correlated box."""
    rows, columns = max(16, int(512 * scale)), 1024
    frames = Frames(Part.whole((1, rows, columns)), np.dtype(np.float32))
    stack = np.random.default_rng(0).normal(5, 1, (GROUP, 1, rows, columns)).astype(np.float32)
    use = np.ones((rows, columns), bool)
    part = slice(rows // 8, rows // 8 + int(300 * scale) + 1), slice(300, 580)
    box = Box(row=(part[0].start, part[0].stop), column=(300, 580))
    small = np.ascontiguousarray(stack[:, 0, part[0], part[1]])
    corner = Box(row=(0, min(rows, 128)), column=(0, 128))
    lags = (4, 4)

    def twins(function: object, *arguments: object) -> object:
        return lambda: [function(f[0], use, *arguments) for f in stack]

    return [
        Case(
            "roi 0.5 Mpixel",
            reduce_with(roi(Box()), frames, stack),
            GROUP,
            {"NumPy twin": twins(roi_twin)},
            read(stack),
        ),
        Case(
            "roi 300 x 280 pixels",
            reduce_with(roi(box), frames, stack),
            GROUP,
            {"NumPy twin": lambda: [roi_twin(f, use[part]) for f in small]},
            read(small),
        ),
        Case(
            "projection onto row, 0.5 Mpixel",
            reduce_with(projection("row"), frames, stack),
            GROUP,
            {"NumPy twin": twins(projection_twin, 1)},
            read(stack),
        ),
        Case(
            "projection onto column, 0.5 Mpixel",
            reduce_with(projection("column"), frames, stack),
            GROUP,
            {"NumPy twin": twins(projection_twin, 0)},
            read(stack),
        ),
        Case(
            "autocorrelation 128 x 128, lags to 4",
            reduce_with(autocorrelation(corner, max_lag=lags), frames, stack),
            GROUP,
            {"NumPy twin": lambda: [autocorrelation_twin(f[0, :128, :128], use[:128, :128], lags) for f in stack]},
            read(np.ascontiguousarray(stack[:, 0, :128, :128])),
        ),
    ]
