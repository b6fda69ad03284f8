"""Least squares with error bars, and the two fits of the demo: rings of a powder pattern, and a delay curve."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt
from scipy.optimize import least_squares

from xsmall.errors import DataError
from xsmall.simulation.recipe import SimulatedScan, response_to

__all__ = ["BinnedPixels", "FitResult", "fit", "fit_delay_curve", "fit_line", "fit_ring"]

Floats = npt.NDArray[np.float64]
CLOSE: Final = 1e-10  # relative change of chi2 or of a parameter that ends the search


@dataclass(frozen=True)
class FitResult:
    """Values, their standard errors, and how well the model describes the data.

    Attributes
    ----------
    values, errors
        By the name of the parameter.
    chi2, freedom
        Sum of squared deviations in units of their errors, and degrees of freedom.
    """

    values: dict[str, float]
    errors: dict[str, float]
    chi2: float
    freedom: int

    def pull(self, name: str, truth: float) -> float:
        """Deviation from ``truth`` in standard errors."""
        return (self.values[name] - truth) / self.errors[name]


def fit(
    model: Callable[[Floats], Floats], start: dict[str, float], y: Floats, error: Floats, *, steps: int = 200
) -> FitResult:
    """Fit a model to data with known errors, by scipy's least squares.

    Parameters
    ----------
    model
        Takes the parameters in the order of ``start`` and returns what ``y`` should be.
    start
        Parameters by name, not far from the solution.
    y, error
        Data and their standard errors, same shape; data that are not finite or have no error are left out.
    steps
        Most evaluations of the model, slopes not counted.

    Returns
    -------
    :class:`FitResult`; the errors are those of the data, carried through, not scaled by chi2.

    Raises
    ------
    DataError
        Fewer usable data than parameters, or no solution.

    Examples
    --------
    >>> import numpy as np
    >>> x = np.arange(5.0)
    >>> line = fit(lambda p: p[0] + p[1] * x, {"a": 0.0, "b": 0.0}, 2 + 3 * x, np.ones(5))
    >>> round(line.values["b"], 3), round(line.errors["b"], 3)
    (3.0, 0.316)
    """
    names = list(start)
    use = np.isfinite(y) & np.isfinite(error) & (error > 0)
    if np.count_nonzero(use) <= len(names):
        raise DataError(
            "too few data for a fit", found=f"{np.count_nonzero(use)} values", expected=f"more than {len(names)}"
        )

    def deviations(p: Floats) -> Floats:
        out: Floats = (model(p)[use] - y[use]) / error[use]
        return out

    p = np.array([start[name] for name in names], dtype=np.float64)
    found = least_squares(
        deviations, p, jac="3-point", x_scale="jac", xtol=CLOSE, ftol=CLOSE, gtol=None, max_nfev=steps
    )
    p, chi2 = found.x, 2 * float(found.cost)
    try:
        covariance = np.linalg.inv(found.jac.T @ found.jac)
    except np.linalg.LinAlgError:
        raise _undetermined(names, p) from None
    variance = np.diag(covariance)
    if not (found.success and np.isfinite(p).all() and np.isfinite(variance).all() and (variance > 0).all()):
        raise _undetermined(names, p)
    return FitResult(
        dict(zip(names, p.tolist(), strict=True)),
        dict(zip(names, np.sqrt(variance).tolist(), strict=True)),
        chi2,
        int(np.count_nonzero(use)) - p.size,
    )


def _undetermined(names: list[str], p: Floats) -> DataError:
    return DataError(
        "the data do not determine the fit",
        found=", ".join(f"{name} {value:.4g}" for name, value in zip(names, p.tolist(), strict=True)),
        expected="enough events for every parameter",
        fix="take more events",
    )


class BinnedPixels:
    """The pixels behind an azimuthal integral: averages a function of q over each bin as the integral does.

    A bin holds the pixels that it holds, not a stretch of q: with rings as narrow as a few pixels that matters.

    Parameters
    ----------
    q
        Momentum transfer of each valid pixel in 1/angstrom, any shape.
    edges
        Borders of the bins, in order; closed left, open right.
    """

    def __init__(self, q: npt.ArrayLike, edges: npt.ArrayLike) -> None:
        values = np.asarray(q, dtype=np.float64).ravel()
        edges = np.asarray(edges, dtype=np.float64)
        values = np.sort(values[(values >= edges[0]) & (values < edges[-1])])
        self._q = values
        self._start = np.searchsorted(values, edges, side="left")

    def average(self, function: Callable[[Floats], Floats], bins: slice) -> Floats:
        """Return the mean of ``function(q)`` over the pixels of some bins, NaN where a bin has none."""
        start = self._start[bins.start : bins.stop + 1]
        values, counts = function(self._q[start[0] : start[-1]]), np.diff(start)
        sums = np.zeros(counts.size)
        some = counts > 0
        sums[some] = np.add.reduceat(values, (start[:-1] - start[0])[some])
        out: Floats = np.divide(sums, counts, out=np.full(sums.size, np.nan), where=some)
        return out


def fit_ring(pixels: BinnedPixels, center: Floats, intensity: Floats, error: Floats, near: float) -> FitResult:
    """Fit a Gaussian on a parabola to the ring next to ``near``.

    Parameters
    ----------
    pixels
        The pixels behind the bins.
    center, intensity, error
        Centres of the bins in 1/angstrom, mean intensity and its standard error (q,).
    near
        Where to look, in 1/angstrom; the window is 0.14 to both sides.

    Returns
    -------
    :class:`FitResult` with ``q``, ``width`` (rms), ``height``, and the parabola's ``offset``, ``slope``, ``curvature``.
    """
    inside = np.flatnonzero(np.abs(center - near) < 0.14)
    bins = slice(int(inside[0]), int(inside[-1]) + 1)
    y, e = intensity[bins], error[bins]

    def model(p: Floats) -> Floats:
        def value(q: Floats) -> Floats:
            away = q - near
            out: Floats = p[2] * np.exp(-0.5 * ((q - p[0]) / p[1]) ** 2) + p[3] + p[4] * away + p[5] * away**2
            return out

        return pixels.average(value, bins)

    low, high = float(np.nanmin(y)), float(np.nanmax(y))
    top = float(center[bins][int(np.nanargmax(y))])
    start = {"q": top, "width": 0.03, "height": high - low, "offset": low, "slope": 0.0, "curvature": 0.0}
    return fit(model, start, y, e)


def fit_delay_curve(edges: Floats, signal: Floats, error: Floats, *, t0: float, rise: float, decay: float) -> FitResult:
    """Fit a step with exponential decay to a signal that is the mean over bins of the delay.

    Parameters
    ----------
    edges
        Borders of the bins in ps (bin + 1,).
    signal, error
        Mean of the signal in each bin, and its standard error (bin,).
    t0, rise, decay
        Where to start, in ps.

    Returns
    -------
    :class:`FitResult` with ``t0``, ``rise`` (rms), ``decay`` in ps and ``height`` in the unit of the signal.
    """
    points = 24
    inner = (np.arange(points) + 0.5) / points
    delay = edges[:-1, None] + np.diff(edges)[:, None] * inner

    def model(p: Floats) -> Floats:
        curve = response_to(SimulatedScan(t0=p[0], rise=max(abs(p[1]), 1e-3), decay=max(abs(p[2]), 1e-3)), delay)
        out: Floats = p[3] * curve.mean(axis=1)
        return out

    strongest = float(signal[int(np.nanargmax(np.abs(signal)))])
    return fit(model, {"t0": t0, "rise": rise, "decay": decay, "height": 1.3 * strongest}, signal, error)


def fit_line(center: Floats, counts: npt.NDArray[np.integer[Any]]) -> FitResult:
    """Fit a Gaussian to the upper part of the highest peak of a spectrum, where lost charge distorts it least.

    Parameters
    ----------
    center
        Centres of the bins in keV.
    counts
        Droplets in each bin.

    Returns
    -------
    :class:`FitResult` with ``energy``, ``width`` (rms) in keV and ``height`` in droplets.
    """
    top = int(np.argmax(counts))
    near = (center > center[top] - 0.35) & (center < center[top] + 0.5)
    seen = counts[near].astype(np.float64)

    def model(p: Floats) -> Floats:
        out: Floats = p[2] * np.exp(-0.5 * ((center[near] - p[0]) / p[1]) ** 2)
        return out

    start = {"energy": float(center[top]), "width": 0.3, "height": float(counts[top])}
    return fit(model, start, seen, np.sqrt(np.maximum(seen, 1.0)))
