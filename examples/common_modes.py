"""Which common mode helps: the noise that each of them leaves."""

import numpy as np
import xarray as xr

import xsmall as xs

rng = np.random.default_rng(0)
words = 2800 + rng.normal(0, 40, (1, 256, 256)) + rng.normal(0, 3, (120, 1, 256, 256))
words += np.repeat(rng.normal(0, 2, (120, 1, 256, 4)), 64, axis=3)  # rows of 64 pixels jump together
dark = xr.DataArray(
    words.round().astype(np.uint16),
    dims=("event", "segment", "row", "column"),
    attrs={"detector_type": "jungfrau"},
)
pedestal = np.broadcast_to(dark.mean("event").values, (3, 1, 256, 256))
gain = np.broadcast_to(np.array([41.0, -1.4, -0.1])[:, None, None, None], pedestal.shape)  # ADU/keV
constants = xs.constants("jungfrau", pedestal, gain=gain)

comparison = xs.compare_common_modes(dark[:40], constants)
ax = xs.plot_common_modes(comparison)
ax.figure.set_size_inches(8, 4)
ax.figure.savefig("common_modes.png", dpi=120, bbox_inches="tight")
