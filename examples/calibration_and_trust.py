"""Calibrated frames, what speaks against pixels, and whether the errors are right."""

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.colors import AsinhNorm

import xsmall as xs

simulation = xs.simulate(600, shape=(2, 128, 256), seed=6)
raw, constants = simulation.run["jungfrau"]["raw"], simulation.constants
energy = float(simulation.beam.photon_energy)  # eV

# flags say why a value is not to be trusted; calibrate makes NaN of the default ones in its own pass
flags = raw.sd.trust(constants, switching={"G0": (0, 14000)}).compute()
share = {
    name: float(((flags & int(xs.Reason[name.upper()])) != 0).mean())
    for name in ("dead", "bad_gain_code", "near_switching", "missing")
}
for name, fraction in share.items():
    print(f"{name:15s} {fraction:.2e} of all values")

# each value comes with its variance, and so does each sum
both = raw.sd.calibrate(constants, variance=True, photon_energy=energy)
boxes = {f"{i}": xs.Box(segment=1, row=(8 * i, 8 * i + 8), column=(60, 180)) for i in range(16)}
sums = both.sd.roi(boxes)[["sum", "sum_variance", "n_valid"]].compute()

# without the laser the sum of a box is proportional to the intensity of the pulse: what is left over is noise
quiet = np.flatnonzero(raw["xray_on"] & ~raw["laser_on"] & raw["present"].all("segment"))
sums = sums.isel(event=quiet)
i0 = simulation.truth["i0"].isel(event=quiet)
whole = sums["n_valid"] == sums["n_valid"].max("event")  # events in which all good pixels took part
sums = sums.where(whole)
scale = (sums["sum"] * i0 / sums["sum_variance"]).sum("event") / (i0**2 / sums["sum_variance"]).where(whole).sum(
    "event"
)
pulls = ((sums["sum"] - scale * i0) / np.sqrt(sums["sum_variance"])).values
pulls = pulls[np.isfinite(pulls)]
print(f"pulls of {pulls.size} sums: mean {pulls.mean():.2f}, width {pulls.std():.3f}")

figure, axes = plt.subplots(1, 3, figsize=(14, 3.8), layout="constrained")
axes[0].barh(list(share), list(share.values()), color="0.5")
axes[0].set(xscale="log", xlabel="share of all values", title="what speaks against them")
frame = both["calibrated"].isel(event=int(quiet[0]), segment=1).compute()
colours = plt.get_cmap("magma").with_extremes(bad="deepskyblue")
norm = AsinhNorm(linear_width=3, vmin=0, vmax=300)
image = axes[1].imshow(frame, norm=norm, cmap=colours, interpolation="nearest")
axes[1].set(xlabel="column", ylabel="row", title="one frame of a segment, NaN in blue")
figure.colorbar(image, ax=axes[1], label="keV", shrink=0.6)
edges = np.linspace(-4, 4, 41)
axes[2].hist(pulls, edges, density=True, color="0.7", label=f"width {pulls.std():.2f}")
axes[2].plot(edges, np.exp(-0.5 * edges**2) / np.sqrt(2 * np.pi), color="C3", label="unit normal")
axes[2].set(xlabel="(sum - expected) / its error", title="pulls of sums over 8 x 120 pixels")
axes[2].legend(frameon=False)
figure.savefig("calibration_and_trust.png", dpi=120)
