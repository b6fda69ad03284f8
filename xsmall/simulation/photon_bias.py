"""What charge sharing, noise and thresholds do to counts of photons and to a contrast, by simulation."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import xarray as xr

from xsmall.engine.parameters import parameters_attr
from xsmall.errors import ParameterError
from xsmall.reductions.arguments import real_number, whole_number
from xsmall.reductions.box import Box
from xsmall.reductions.contrast import contrast
from xsmall.reductions.droplet import Droplet
from xsmall.reductions.photon import Photon
from xsmall.reductions.reduce import apply
from xsmall.reductions.region import as_place
from xsmall.reductions.threshold import Sigma
from xsmall.vocabulary import (
    COLUMN,
    CONTRAST,
    DIMENSIONLESS,
    EVENT,
    FRAME_DIMS,
    MEAN_COUNT,
    N_ABOVE,
    N_K,
    ROW,
    STDERR_SUFFIX,
    UNITS,
    K,
)

__all__ = ["photon_bias"]

_BORDER: Final = 2
"""Pixels around those that are counted: lit as they are, so that charge goes out and comes in."""
_PARTS: Final = 16
"""Parts of the events, each of which is left out once for the errors."""
_INSIDE: Final = "inside"
_WIDEST: Final = 0.4


def photon_bias(
    record: Photon,
    mean_count: float | Sequence[float] | npt.NDArray[np.floating[Any]],
    *,
    cloud: float,
    noise: float,
    n_modes: float = 1.0,
    n_events: int = 320,
    shape: tuple[int, int] = (128, 128),
    units: str = "keV",
    seed: int = 0,
) -> xr.Dataset:
    """Estimate by simulation how far counts of photons, and the contrast of them, are from the truth.

    Parameters
    ----------
    record
        What finds the photons, as for the data: ``xs.droplet(4.0, 1.2) | xs.photon(9.5)``, or ``xs.photon(9.5)`` for
        the rule of single pixels. Thresholds in sigma are taken of ``noise``; mask, regions and the form of the output
        do not matter here.
    mean_count
        Photons per pixel, one number or several.
    cloud
        Width (rms) of the cloud of charge of one photon, in pixels, up to 0.4.
    noise
        Standard deviation of a pixel without light, in the unit of the data.
    n_modes
        Number of modes of the speckle that is simulated: its contrast is one over it.
    n_events, shape
        Frames that are simulated for each mean count, and pixels (row, column) of each: more of them, smaller errors.
    units
        Unit of thresholds, value of a photon and noise.
    seed
        Another one gives other random numbers; the same one gives the same numbers.

    Returns
    -------
    Dataset over ``mean_count`` and ``k``, float64 but for counts, in memory: ``photons_found``, photons found for each
    that there was; ``in_own_pixel``, the part that is found in the pixel it fell on; ``contrast`` of the photons found,
    ``contrast_true`` of those that fell, and ``contrast_bias``, the difference, to be subtracted from what is measured;
    each with ``_stderr``. ``n_k_true`` and ``n_k``, int64, pixels of all events that hold k photons. NaN where there is
    no pair of photons.

    Raises
    ------
    ParameterError
        Not a record of photons, or one that does not say the value of a photon; numbers that are out of range.

    Notes
    -----
    Light of each pixel and event is drawn from a gamma distribution of the shape ``n_modes``, photons from a Poisson
    distribution of that, each falls anywhere on its pixel, and its charge is a Gaussian cloud. Pixels are independent:
    speckle is taken to be smaller than a pixel, or a pixel to be a part of one. Both contrasts are of the same photons,
    so that the bias is known better than either; the errors are those of leaving out a sixteenth of the events at a
    time. The bias depends on mean count and contrast: simulate those that were found, and once more with what is left
    after the subtraction. It is as good as ``cloud`` and ``noise`` are: compare the spectrum of droplets with that of
    the data. Cost: a second or two for each mean count, with the defaults.

    Examples
    --------
    >>> import xsmall as xs
    >>> record = xs.droplet(4.0, 1.2) | xs.photon(9.5)
    >>> bias = xs.photon_bias(record, 0.05, cloud=0.15, noise=0.25, n_modes=2, n_events=32, shape=(64, 64))
    >>> bool(abs(bias["photons_found"] - 1.0) < 0.05)
    True
    >>> bool(bias["in_own_pixel"] < 1.0)
    True
    """
    counting = _counting_record(record, noise, shape)
    means = np.atleast_1d(np.asarray(mean_count, dtype=np.float64))
    if means.ndim != 1 or means.size == 0 or not (np.isfinite(means) & (means > 0)).all():
        raise ParameterError("invalid mean_count", found=repr(mean_count), expected="positive numbers", fix="0.05")
    real_number(
        "cloud", cloud, f"a number above 0, up to {_WIDEST:g}", "cloud=0.15",
        above=0, below=math.nextafter(_WIDEST, math.inf),
    )  # fmt: skip
    real_number("n_modes", n_modes, "a number above 0", "n_modes=2", above=0)
    whole_number("n_events", n_events, "n_events=320", least=_PARTS)
    rng = np.random.default_rng(seed)
    found = [_bias_of_mean(counting, float(m), cloud, noise, n_modes, n_events, shape, units, rng) for m in means]
    longest = max(f.sizes[K] for f in found)
    same = [f.drop_vars(K).pad({K: (0, longest - f.sizes[K])}, constant_values=0) for f in found]
    out = xr.concat(same, MEAN_COUNT).assign_coords({MEAN_COUNT: means, K: np.arange(longest)})
    if np.ndim(mean_count) == 0:
        out = out.isel({MEAN_COUNT: 0})
    out = out.map(lambda v: v.assign_attrs({UNITS: DIMENSIONLESS}))
    said = {"cloud": cloud, "noise": noise, "n_modes": n_modes, "units": units}
    how = {"n_events": n_events, "shape": list(shape), "seed": seed}
    out.attrs = parameters_attr("photon_bias", {}, **said, **how, record=repr(record))
    return out


def _counting_record(record: object, noise: float, shape: tuple[int, int]) -> Photon:
    """The record for frames of this shape and noise, which counts inside the border and lists photons."""
    if not isinstance(record, Photon):
        raise ParameterError(
            "not a record of photons", found=repr(record)[:80], expected="what finds photons",
            fix="xs.photon_bias(xs.droplet(4.0, 1.2) | xs.photon(9.5), 0.05, cloud=0.15, noise=0.25)",
        )  # fmt: skip
    if record.per_photon is None:
        raise ParameterError(
            "the value of a photon is not known", found="xs.photon()", expected="a value in the unit of the data",
            fix="xs.photon(9.5)",
        )  # fmt: skip
    real_number("noise", noise, "a number above 0", "noise=0.25", above=0)
    if np.shape(shape) != (2,):
        raise ParameterError("invalid shape", found=repr(shape), expected="rows and columns", fix="shape=(128, 128)")
    for n in shape:
        whole_number("shape", n, "shape=(128, 128)")
    rows, columns = ((_BORDER, _BORDER + n) for n in shape)
    droplets = record.droplets
    if isinstance(droplets, Droplet):
        high, low = (t.n * noise if isinstance(t, Sigma) else t for t in (droplets.threshold, droplets.threshold_low))
        droplets = replace(droplets, threshold=high, threshold_low=low, mask=None, noise=None, noise_units=None)
    place = (_INSIDE, as_place(Box(segment=0, row=rows, column=columns), "a region"))
    plain: dict[str, Any] = {"mask": None, "also": (), "image": False, "sparse": False}
    return replace(record, regions=(place,), droplets=droplets, **plain)


def _bias_of_mean(
    record: Photon,
    mean: float,
    cloud: float,
    noise: float,
    n_modes: float,
    n_events: int,
    shape: tuple[int, int],
    units: str,
    rng: np.random.Generator,
) -> xr.Dataset:
    """Simulate frames of one mean count, and compare what is found in them with what fell."""
    from xsmall.kernels.simulate import add_photons

    whole = tuple(n + 2 * _BORDER for n in shape)
    light = rng.gamma(n_modes, mean / n_modes, (n_events, *whole))
    counts = rng.poisson(light)
    frames = rng.normal(0.0, noise, counts.shape).astype(np.float32)
    assert record.per_photon is not None
    for frame, fell in zip(frames, counts, strict=True):
        pixel = np.repeat(np.arange(fell.size), fell.ravel())
        places = np.stack(np.divmod(pixel, whole[1]), axis=1) + rng.random((pixel.size, 2))
        add_photons(frame, places, record.per_photon, cloud)
    most = max(record.max_k, 2 * int(counts.max()) + 8)
    data = xr.DataArray(frames[:, None], {EVENT: np.arange(n_events)}, FRAME_DIMS, attrs={UNITS: units})
    small = apply(data, replace(record, max_k=most)).compute()
    inside = counts[:, _BORDER:-_BORDER, _BORDER:-_BORDER]
    n_k = small[N_K].values.reshape(n_events, -1).astype(np.int64)
    above = small[N_ABOVE].values.reshape(n_events).astype(np.int64)
    n_true = np.stack([(inside == k).sum(axis=(1, 2)) for k in range(most + 1)], axis=1)
    at_home = [_at_home(*event) for event in zip(inside, small[ROW].values, small[COLUMN].values, strict=True)]
    return _compared(n_true, n_k, above, np.array(at_home))


def _at_home(counts: npt.NDArray[np.int64], row: npt.NDArray[np.float64], column: npt.NDArray[np.float64]) -> int:
    """Photons of one event that are found in a pixel on which as many fell."""
    r, c = (np.floor(v + 0.5).astype(np.int64) - _BORDER for v in (row, column))
    inside = (r >= 0) & (c >= 0) & (r < counts.shape[0]) & (c < counts.shape[1])
    found = np.bincount(r[inside] * counts.shape[1] + c[inside], minlength=counts.size)
    return int(np.minimum(found, counts.ravel()).sum())


def _compared(
    n_true: npt.NDArray[np.int64],
    n_k: npt.NDArray[np.int64],
    above: npt.NDArray[np.int64],
    at_home: npt.NDArray[np.int64],
) -> xr.Dataset:
    """Compare counts (event, k), with errors of leaving out some events at a time."""
    part = np.arange(len(n_true)) % _PARTS
    k = np.arange(n_true.shape[1])

    def numbers(kept: npt.NDArray[np.bool_]) -> npt.NDArray[np.float64]:
        there, found = ((n[kept] @ k).sum() for n in (n_true, n_k))
        values = [_contrast(n[kept], a[kept]) for n, a in ((n_k, above), (n_true, np.zeros_like(above)))]
        ratios = (found / there, at_home[kept].sum() / there) if there else (np.nan, np.nan)
        return np.array([*ratios, *values, values[0] - values[1]])

    best = numbers(np.ones(len(part), dtype=bool))
    without = np.array([numbers(part != p) for p in range(_PARTS)])
    stderr = np.sqrt((_PARTS - 1) * ((without - without.mean(axis=0)) ** 2).mean(axis=0))
    names = "photons_found", "in_own_pixel", CONTRAST, f"{CONTRAST}_true", f"{CONTRAST}_bias"
    out: dict[str, Any] = dict(zip(names, best, strict=True))
    out |= {f"{name}{STDERR_SUFFIX}": v for name, v in zip(names, stderr, strict=True)}
    return xr.Dataset(out | {f"{N_K}_true": (K, n_true.sum(axis=0)), N_K: (K, n_k.sum(axis=0))}, {K: k})


def _contrast(n_k: npt.NDArray[np.int64], above: npt.NDArray[np.int64]) -> float:
    small = xr.Dataset({N_K: ((EVENT, K), n_k), N_ABOVE: (EVENT, above)})
    return float(contrast(small)[CONTRAST])
