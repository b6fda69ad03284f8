"""Thresholds of droplets: in the unit of the data, or in multiples of the noise of each pixel."""

from __future__ import annotations

from dataclasses import dataclass

import xarray as xr

from xsmall.detector.frames import Frames
from xsmall.errors import ParameterError
from xsmall.frames.per_pixel import StaticNoise
from xsmall.reductions.arguments import real_number
from xsmall.vocabulary import GAIN_STAGE, UNITS

__all__ = ["Sigma", "Threshold", "check_noise", "check_unit", "number", "sigma", "thresholds_of"]

_NOISE_FIX = 'noise=(constants["noise"] / constants["gain"]).isel(gain_stage=0) for data in keV'


@dataclass(frozen=True)
class Sigma:
    """A threshold of ``n`` times the noise of each pixel; made by :func:`sigma`."""

    n: float


Threshold = float | Sigma


def sigma(n: float) -> Sigma:
    """Say a threshold in multiples of each pixel's noise without light.

    Parameters
    ----------
    n
        How many standard deviations.

    Returns
    -------
    A value that :func:`~xsmall.droplet` takes as ``threshold`` and ``threshold_low``, beside ``noise=``.

    Raises
    ------
    ParameterError
        A number that is not positive.

    Examples
    --------
    >>> import xsmall as xs
    >>> sim = xs.simulate(4, shape=(2, 32, 64), seed=1)
    >>> cal = sim.run["jungfrau"]["raw"].sd.calibrate(sim.constants)
    >>> noise = (sim.constants["noise"] / sim.constants["gain"]).isel(gain_stage=0)
    >>> cal.sd.droplet(xs.sigma(5), xs.sigma(2.5), noise=noise)["n_droplets"].dims
    ('event',)
    """
    return Sigma(real_number("sigma", n, "a positive number of standard deviations", "xs.sigma(5)", above=0))


def _threshold(value: object, name: str) -> Threshold:
    """Check a threshold that a user gave."""
    if isinstance(value, Sigma):
        sigma(value.n)
        return value
    fix = f"{name}=4.75 for half a photon of 9.5 keV in calibrated data, or xs.sigma(5)"
    return real_number(name, value, "a positive number in the unit of the data, or xs.sigma(...)", fix, above=0)


def thresholds_of(threshold: object, threshold_low: object) -> tuple[Threshold, Threshold]:
    """Check two thresholds: of one kind, in order; without a second one the first holds for both."""
    high = _threshold(threshold, "threshold")
    low = high if threshold_low is None else _threshold(threshold_low, "threshold_low")
    if isinstance(high, Sigma) != isinstance(low, Sigma):
        raise ParameterError(
            "thresholds of two kinds",
            found=f"threshold={high}, threshold_low={low}",
            expected="both in the unit of the data, or both in sigma",
            fix="threshold=xs.sigma(5), threshold_low=xs.sigma(2.5)",
        )
    if number(low) > number(high):
        raise ParameterError(
            "thresholds out of order",
            found=f"threshold={high}, threshold_low={low}",
            expected="threshold_low at or below threshold",
            fix=f"droplet(threshold={low}, threshold_low={high})",
        )
    return high, low


def number(threshold: Threshold) -> float:
    """The number of a threshold, whatever its unit."""
    return threshold.n if isinstance(threshold, Sigma) else threshold


def check_noise(noise: object, threshold: Threshold) -> tuple[StaticNoise | None, str | None]:
    """Freeze the noise that thresholds in sigma need, and read its unit; without such thresholds there is none."""
    if isinstance(threshold, Sigma) and noise is None:
        raise ParameterError(
            "a threshold in sigma needs the noise of each pixel",
            found="no noise",
            expected="noise (segment, row, column) in the unit of the data",
            fix=_NOISE_FIX,
        )
    if not isinstance(threshold, Sigma) and noise is not None:
        raise ParameterError(
            "noise is for thresholds in sigma", found=f"threshold={threshold}", fix="threshold=xs.sigma(5), or no noise"
        )
    if isinstance(noise, xr.Dataset):
        noise = _noise_of_constants(noise)
    units = noise.attrs.get(UNITS) if isinstance(noise, xr.DataArray) else None
    return StaticNoise.of(noise), units


def _noise_of_constants(constants: xr.Dataset) -> xr.DataArray:
    """Noise of the first gain stage in keV."""
    if not {"noise", "gain"} <= {str(name) for name in constants.data_vars}:
        raise ParameterError(
            "constants without the noise of the pixels",
            found=", ".join(map(str, constants.data_vars)) or "no variable",
            expected="noise (ADU) and gain (ADU/keV)",
            fix="noise= as an array (segment, row, column) in the unit of the data",
        )
    noise = constants["noise"] / constants["gain"]
    return (noise.isel({GAIN_STAGE: 0}) if GAIN_STAGE in noise.dims else noise).assign_attrs({UNITS: "keV"})


def check_unit(units: str | None, frames: Frames) -> None:
    """Refuse noise that says to be in another unit than the data."""
    if units is not None and frames.units is not None and units != frames.units:
        raise ParameterError(
            "noise in another unit than the data",
            found=f"noise in {units!r}, data in {frames.units!r}",
            expected="the unit of the data",
            fix=_NOISE_FIX,
        )
