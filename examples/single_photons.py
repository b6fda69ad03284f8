"""Single photons: droplets where nothing else shines, their spectrum, and where they fell."""

import matplotlib.pyplot as plt
import numpy as np

import xsmall as xs

simulation = xs.simulate(200, seed=3)
raw = simulation.run["jungfrau"]["raw"]
det = raw.sd.assign_geometry(simulation.geometry).sd.assign_beam(
    photon_energy=9500, distance=simulation.beam.distance, center=(0.0, 0.0)
)
cal = det.sd.calibrate(simulation.constants)

# thresholds in the unit of the data: five and two and a half times the noise
constants = simulation.constants.isel(gain_stage=0)
noise = float((constants.noise / constants.gain).median())
dark = cal.sd.pixel("q") > 2.8  # True: use the pixel
found = cal.sd.droplet(threshold=5 * noise, threshold_low=2.5 * noise, mask=dark, also=["x", "y"])
flat = xs.flatten(found)  # computes, and puts the lists of all events behind each other

print(f"noise {noise:.2f} keV; {flat.sizes['droplet']} droplets")

figure, (left, right) = plt.subplots(1, 2, figsize=(10, 3.8), layout="constrained")
for n in (1, 2, 3, 4):
    energy = flat["sum"][flat.n_pixels == n]
    left.hist(energy, bins=np.arange(1, 15, 0.1), histtype="step", label=f"{n} pixel{'s' if n > 1 else ''}")
left.axvline(6.4, color="0.6", linestyle="--", linewidth=1)
left.set(xlabel="energy of a droplet [keV]", ylabel="droplets", yscale="log", title="photons share pixels")
left.legend()
right.plot(1e3 * flat["x"], 1e3 * flat["y"], ".", markersize=1)
right.invert_xaxis()  # looking downstream, x grows to the left
right.set(xlabel="x [mm]", ylabel="y [mm]", aspect="equal", title="where they fell")
figure.savefig("single_photons.png", dpi=120)
