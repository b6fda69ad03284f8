"""Masks with reasons, shapes drawn on the detector, and values along a line in space."""

import matplotlib.pyplot as plt
import numpy as np

import xsmall as xs

simulation = xs.simulate(200, seed=4)
raw = simulation.run["jungfrau"]["raw"]
det = raw.sd.assign_geometry(simulation.geometry).sd.assign_beam(
    photon_energy=9500, distance=simulation.beam.distance, center=(0.0, 0.0)
)
cal = det.sd.calibrate(simulation.constants)

# everything that is held against a pixel, as flags: chip edges, bad status and its neighbours, the strip with the spots
reasons = xs.mask(
    cal,
    edges=1,
    status=simulation.constants,
    neighbours=1,
    user=xs.Ring((0, 0), 0.97, 1.11, space="q"),  # 1/angstrom
)
use = xs.usable(reasons)  # True: use the pixel
print(f"{int((~use).sum())} of {use.size} pixels are left out")

rings = cal.sd.reduce(
    {"all": xs.azint(bins=300, range=(0.3, 2.5)), "good": xs.azint(bins=300, range=(0.3, 2.5), mask=use)}
)
rings = rings.isel(event=np.flatnonzero(raw["xray_on"])).mean("event").compute()

average = cal[:50].sd.average()["calibrated"].compute()
x = np.linspace(19e-3, -19e-3, 600)  # m, in the lab
cut = average.sd.at(x, np.full_like(x, 1e-3))  # NaN where no pixel is

figure, axes = plt.subplots(1, 3, figsize=(14, 3.8), layout="constrained", width_ratios=(1.5, 1, 1))
average.sd.plot(mask=use, log=True, vmin=0.1, vmax=300, cmap="magma", ax=axes[0])
axes[0].axhline(1.0, color="w", linestyle=":", linewidth=0.8)
axes[0].set_title("average of 50 events, grey: masked")
axes[1].plot(rings.q, rings.all_intensity, label="all pixels")
axes[1].plot(rings.q, rings.good_intensity, label="masked")
axes[1].set(xlabel="q [1/Å]", ylabel="mean of a pixel [keV]", yscale="log", title="I(q)")
axes[1].legend()
axes[2].plot(1e3 * x, cut)
axes[2].invert_xaxis()  # looking downstream, x grows to the left
axes[2].set(
    xlabel="x [mm]", ylabel="mean of a pixel [keV]", yscale="log", ylim=(0.05, None), title="along the dotted line"
)
figure.savefig("masks_and_space.png", dpi=120)
