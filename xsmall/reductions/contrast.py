"""Speckle contrast and number of modes from counts of photons, and what double pulses tell by it."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import numpy as np
import numpy.typing as npt
import xarray as xr

from xsmall.engine.parameters import parameters_attr
from xsmall.errors import DataError, ParameterError
from xsmall.events.own_names import as_dataset, own_names
from xsmall.reductions.edges import as_edges
from xsmall.vocabulary import (
    BIN_EDGE,
    BOUNDS,
    BOUNDS_SUFFIX,
    CONTRAST,
    DIMENSIONLESS,
    EVENT,
    MEAN_COUNT,
    N_ABOVE,
    N_EVENTS,
    N_K,
    N_MODES,
    N_PAIRS,
    STDERR_SUFFIX,
    UNITS,
    VISIBILITY,
    K,
)

__all__ = ["contrast", "visibility"]

_NAMES = (
    CONTRAST,
    f"{CONTRAST}{STDERR_SUFFIX}",
    N_MODES,
    f"{N_MODES}{STDERR_SUFFIX}",
    MEAN_COUNT,
    N_PAIRS,
    N_EVENTS,
)


def contrast(small: xr.Dataset | xr.DataTree, *, mean_bins: Any = None) -> xr.Dataset:
    """Estimate the contrast of speckle from how many pixels hold k photons, over all events together.

    Parameters
    ----------
    small
        What :func:`~xsmall.photon` returns, also as part of what :func:`~xsmall.reduce` does, or of a production:
        ``n_k`` and ``n_above`` over (event, k), or (event, roi, k).
    mean_bins
        Edges of bins of the mean count of an event: one contrast in each. Events outside are left out.

    Returns
    -------
    Dataset over ``roi`` and ``mean_count``, where these are asked for, float64, lazy where the counts are:
    ``contrast``, one over the number of modes, and ``contrast_stderr``; ``n_modes`` and ``n_modes_stderr``;
    ``mean_count``, photons per valid pixel (``mean_count_of_events`` with ``mean_bins``); ``n_pairs``, pairs of photons
    in one pixel, of which all is known that is known of the contrast; ``n_events``, events with at least two photons.

    Raises
    ------
    DataError
        No counts, or, when computed, pixels with more photons than ``n_k`` tells: leaving them out would lower the
        contrast.
    ParameterError
        Bins that do not rise.

    Notes
    -----
    Maximum likelihood of the negative binomial distribution, jointly over events, given the number of photons of each
    event: so each event has its own mean count, whatever the pulse energies are, and nothing about them has to be
    estimated. Pixels of one event are taken to be lit alike: where they are not, use regions (rings of q) and not their
    sum. The contrast is that of the variance, var(I) / mean(I)^2 of the light; some call its root the contrast. The
    error is that of the curvature; from some ten pairs on it is about right, and the estimate is as often above as
    below, also below 0. It is NaN without a pair. What moves photons between pixels, such as shared charge and
    thresholds, is in the contrast: :func:`~xsmall.photon_bias` estimates it. Cost: some microseconds per event.

    The likelihood is that of L. Mandel, Proc. Phys. Soc. 74, 233 (1959), conditioned on the sum.

    Examples
    --------
    >>> import numpy as np, xarray as xr, xsmall as xs
    >>> rng = np.random.default_rng(1)
    >>> light = rng.gamma(2.0, 0.05 / 2.0, (300, 2000))  # two modes
    >>> counts = rng.poisson(light)
    >>> n_k = np.stack([(counts == k).sum(axis=1) for k in range(6)], axis=1)
    >>> small = xr.Dataset({"n_k": (("event", "k"), n_k), "n_above": ("event", (counts > 5).sum(axis=1))})
    >>> found = xs.contrast(small)
    >>> abs(float(found["n_modes"]) - 2.0) < 4 * float(found["n_modes_stderr"])
    True
    """
    n_k, above = _photon_counts(small)
    edges = None if mean_bins is None else np.array(as_edges(mean_bins, "mean_bins"))
    new = [] if edges is None else [MEAN_COUNT]
    sizes = {} if edges is None else {MEAN_COUNT: edges.size - 1}
    results = xr.apply_ufunc(
        _contrast_estimate,
        n_k,
        above,
        kwargs={"edges": edges},
        input_core_dims=[[EVENT, K], [EVENT]],
        output_core_dims=[new] * len(_NAMES),
        vectorize=True,
        dask="parallelized",
        output_dtypes=[np.float64] * len(_NAMES),
        dask_gufunc_kwargs={"output_sizes": sizes, "allow_rechunk": True},
    )
    out = xr.Dataset({_name_of_variable(name, edges): v for name, v in zip(_NAMES, results, strict=True)})
    out = out.map(lambda v: v.assign_attrs({UNITS: DIMENSIONLESS}))
    if edges is not None:
        bounds = f"{MEAN_COUNT}{BOUNDS_SUFFIX}"
        out = out.assign_coords(
            {
                MEAN_COUNT: (MEAN_COUNT, 0.5 * (edges[1:] + edges[:-1]), {UNITS: DIMENSIONLESS, BOUNDS: bounds}),
                bounds: ((MEAN_COUNT, BIN_EDGE), np.stack([edges[:-1], edges[1:]], axis=1)),
            }
        )
    out.attrs = parameters_attr("contrast", {"mean_bins": None if edges is None else edges.tolist()})
    return out


def _name_of_variable(name: str, edges: npt.NDArray[np.float64] | None) -> str:
    """A variable has not the name of its dim."""
    return f"{name}_of_events" if name == MEAN_COUNT and edges is not None else name


def _photon_counts(small: xr.Dataset | xr.DataTree) -> tuple[xr.DataArray, xr.DataArray]:
    """Pixels with k photons, and those with more."""
    counts = own_names(as_dataset(small), N_K, N_ABOVE)
    if N_K not in counts or N_ABOVE not in counts or not {EVENT, K} <= set(counts[N_K].dims):
        raise DataError(
            "a contrast needs counts of pixels by photons",
            found=", ".join(map(str, counts.data_vars)) or "no variable",
            expected=f"one variable {N_K} over event and k, and {N_ABOVE} beside it",
            fix="xs.apply(cal, xs.droplet(4.0, 1.0) | xs.photon(9.5))",
        )
    return counts[N_K], counts[N_ABOVE]


def _contrast_estimate(
    n_k: npt.NDArray[np.integer[Any]], above: npt.NDArray[np.integer[Any]], edges: npt.NDArray[np.float64] | None
) -> tuple[Any, ...]:
    """Estimate from (event, k), in each bin of the mean count."""
    pixels = n_k.sum(axis=1).astype(np.float64)
    photons = (n_k * np.arange(n_k.shape[1])).sum(axis=1)
    if edges is None:
        return _of_events(n_k, above, photons, pixels)
    mean = np.divide(photons, pixels, out=np.full(pixels.shape, np.nan), where=pixels > 0)
    bins = [(mean >= a) & (mean < b) for a, b in pairwise(edges)]
    found = [_of_events(n_k[b], above[b], photons[b], pixels[b]) for b in bins]
    return tuple(np.array(v) for v in zip(*found, strict=True))


def _of_events(
    n_k: npt.NDArray[np.integer[Any]],
    above: npt.NDArray[np.integer[Any]],
    photons: npt.NDArray[np.integer[Any]],
    pixels: npt.NDArray[np.float64],
) -> tuple[float, ...]:
    from xsmall.kernels.contrast import best_contrast

    if above.any():
        raise DataError(
            "pixels with more photons than n_k tells",
            found=f"{int(above.sum())} pixels of {int((above > 0).sum())} events have more than {n_k.shape[1] - 1}",
            expected="all of them counted",
            fix=f"xs.photon(..., max_k={4 * (n_k.shape[1] - 1)})",
        )
    held = n_k.sum(axis=0).astype(np.float64)
    k = np.arange(held.size)
    best, error = best_contrast(held, photons.astype(np.int64), pixels)
    mean = photons.sum() / pixels.sum() if pixels.any() else np.nan
    modes = 1.0 / best if best else np.inf
    modes_error = error / best**2 if best and np.isfinite(best) else np.nan
    pairs = float((held * k * (k - 1)).sum() / 2)
    return float(best), float(error), modes, modes_error, float(mean), pairs, float((photons > 1).sum())


def visibility(double: xr.Dataset, single: xr.Dataset | float, *, fraction: float | xr.DataArray = 0.5) -> xr.Dataset:
    """Tell from the contrast of two pulses in one frame how alike their speckle patterns are.

    Parameters
    ----------
    double
        What :func:`contrast` gives for frames of two pulses, with dims of your own (delay, roi).
    single
        That for frames of one pulse, or the contrast as a number without error.
    fraction
        Part of the light that is in the first pulse, between 0 and 1: a number, or that of each event (event,).

    Returns
    -------
    Dataset with ``visibility``, 1 for patterns that are the same and 0 for two that have nothing in common (the square
    of the intermediate scattering function, ``abs(f)^2``), and ``visibility_stderr``.

    Raises
    ------
    ParameterError
        A fraction that is not between 0 and 1: one pulse alone tells nothing; a contrast of one pulse that is not
        positive.

    Notes
    -----
    With fractions r and s = 1 - r the contrast of the sum is ``single (r^2 + s^2 + 2 r s abs(f)^2)``, averaged over
    events.
    Only as good as the pulses' overlap: pulses that hit different places look like a sample that moves. Errors are
    propagated to first order.

    Examples
    --------
    >>> import xarray as xr, xsmall as xs
    >>> double = xr.Dataset({"contrast": 0.3, "contrast_stderr": 0.01})
    >>> xs.visibility(double, 0.4)["visibility"].round(3).item()
    0.5
    """
    given = fraction if isinstance(fraction, xr.DataArray) else xr.DataArray(fraction)
    r = given.mean(EVENT) if EVENT in given.dims else given
    alone = given**2 + (1 - given) ** 2
    alone = alone.mean(EVENT) if EVENT in given.dims else alone
    if not bool(((given > 0) & (given < 1)).all()):
        raise ParameterError(
            "invalid fraction", found=f"{float(r.min()):.3g}", expected="a part of the light between 0 and 1",
            fix="fraction=0.5",
        )  # fmt: skip
    error = f"{CONTRAST}{STDERR_SUFFIX}"
    if not isinstance(single, xr.Dataset) and not 0 < single < np.inf:
        raise ParameterError(
            "invalid contrast of one pulse", found=repr(single), expected="a positive number",
            fix="single=0.4",
        )  # fmt: skip
    one = single[CONTRAST] if isinstance(single, xr.Dataset) else xr.DataArray(float(single))
    one = one.where(one > 0)  # an estimate may lie below
    one_error = single[error] if isinstance(single, xr.Dataset) else xr.zeros_like(one)
    ratio, weight = double[CONTRAST] / one, 1 - alone
    stderr = ((double[error] / one) ** 2 + (ratio * one_error / one) ** 2) ** 0.5 / weight
    out = xr.Dataset({VISIBILITY: (ratio - alone) / weight, f"{VISIBILITY}{STDERR_SUFFIX}": stderr})
    return out.map(lambda v: v.assign_attrs({UNITS: DIMENSIONLESS}))
