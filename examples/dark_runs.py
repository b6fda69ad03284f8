"""Pedestals, noise and bad pixels from dark runs of each gain."""

import numpy as np
import xarray as xr

import xsmall as xs

rng = np.random.default_rng(1)


def dark_run(code: int, pedestal: float) -> xr.DataArray:
    """Raw words: the gain code in the upper two bits, the value below."""
    noise = 3 + 5 * (rng.random((1, 64, 128)) < 0.001)  # a few noisy pixels
    values = pedestal + rng.normal(0, 40, noise.shape) + rng.normal(0, noise, (120, *noise.shape))
    words = values.round().astype(np.uint16) | np.uint16(code << 14)
    return xr.DataArray(words, dims=("event", "segment", "row", "column"), attrs={"detector_type": "jungfrau"})


constants = xs.dark([dark_run(0, 2800), dark_run(1, 13500), dark_run(3, 14200)])
print(constants.status.attrs["flag_meanings"])
xs.plot_dark(constants).savefig("dark_runs.png", dpi=100)
