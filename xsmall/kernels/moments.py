"""Moments of pixels: count, mean and M2 (sum of squared deviations), the only accumulator of xsmall.

Two accumulators merge exactly (T. F. Chan, G. H. Golub and R. J. LeVeque, The American Statistician 37 (1983) 242), so
averages, cubes, cubes of several runs and interrupted runs are all merges of moments. Frames are added to them by
:mod:`xsmall.kernels.add_frames`.

The kernels are compiled without any freedom to reorder: the result for a pixel depends on its own values and their
order alone, not on how pixels were cut into tiles.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from xsmall.kernels.jit import njit


@njit(fastmath=False)
def merge(
    count_a: npt.NDArray[np.uint32],
    mean_a: npt.NDArray[np.float64],
    m2_a: npt.NDArray[np.float64],
    count_b: npt.NDArray[np.uint32],
    mean_b: npt.NDArray[np.float64],
    m2_b: npt.NDArray[np.float64],
    count: npt.NDArray[np.uint32],
    mean: npt.NDArray[np.float64],
    m2: npt.NDArray[np.float64],
) -> None:
    """Merge accumulators a and b, all flat (pixel,), into a third one, which is overwritten.

    Where one of the two is empty the result is the other one, bit for bit.
    """
    count[:] = count_a
    mean[:] = mean_a
    m2[:] = m2_a
    merge_into(count, mean, m2, count_b, mean_b, m2_b)


@njit(fastmath=False)
def merge_into(
    count: npt.NDArray[np.uint32],
    mean: npt.NDArray[np.float64],
    m2: npt.NDArray[np.float64],
    count_b: npt.NDArray[np.uint32],
    mean_b: npt.NDArray[np.float64],
    m2_b: npt.NDArray[np.float64],
) -> None:
    """Merge accumulator b into another one, all flat (pixel,)."""
    for p in range(count.shape[0]):
        n_a = np.float64(count[p])
        n_b = np.float64(count_b[p])
        n = n_a + n_b
        share = n_b / max(n, 1.0)
        d = mean_b[p] - mean[p]
        mean[p] = mean[p] + d * share
        m2[p] = m2[p] + m2_b[p] + d * d * n_a * share
        count[p] = np.uint32(n)


@njit(fastmath=False)
def merge_rows(
    rows: npt.NDArray[np.int64],
    fresh: npt.NDArray[np.bool_],
    count_b: npt.NDArray[np.uint32],
    mean_b: npt.NDArray[np.float64],
    m2_b: npt.NDArray[np.float64],
    count: npt.NDArray[np.uint32],
    mean: npt.NDArray[np.float64],
    m2: npt.NDArray[np.float64],
) -> None:
    """Merge some rows into an accumulator, row by row as :func:`merge_into` does.

    Parameters
    ----------
    rows
        Row of the accumulator that each row goes into.
    fresh
        Whether there is nothing in it yet: then it is copied.
    count_b, mean_b, m2_b
        What is merged, (row, pixel).
    count, mean, m2
        The accumulator (row, pixel), changed in place.
    """
    for i in range(rows.shape[0]):
        n, m, s = count_b[i], mean_b[i], m2_b[i]
        into_n, into_m, into_s = count[rows[i]], mean[rows[i]], m2[rows[i]]
        if fresh[i]:
            into_n[:] = n
            into_m[:] = m
            into_s[:] = s
        else:
            merge_into(into_n, into_m, into_s, n, m, s)


@njit(fastmath=False)
def statistics(
    count: npt.NDArray[np.uint32],
    mean: npt.NDArray[np.float64],
    m2: npt.NDArray[np.float64],
    out_mean: npt.NDArray[np.float64],
    out_std: npt.NDArray[np.float64],
    out_count: npt.NDArray[np.int32],
) -> None:
    """Turn accumulators (pixel,) into statistics (pixel,).

    Mean: NaN where nothing was counted. Standard deviation (n - 1): NaN below two.
    """
    for p in range(count.shape[0]):
        n = np.float64(count[p])
        out_std[p] = np.sqrt(m2[p] / (n - 1.0)) if n > 1.0 else np.nan
        out_mean[p] = mean[p] if n > 0.0 else np.nan
        out_count[p] = np.int32(n)


@njit(fastmath=False)
def standard_error(std: npt.NDArray[np.float64], count: npt.NDArray[np.int32], out: npt.NDArray[np.float64]) -> None:
    """Standard error of the mean (pixel,): std / sqrt(count); NaN below two."""
    for p in range(std.shape[0]):
        out[p] = std[p] / np.sqrt(np.float64(count[p])) if count[p] > 1 else np.nan
