"""Speckle of single photons: how many fall on a pixel, and the contrast with its error."""

import matplotlib.pyplot as plt
import numpy as np

import xsmall as xs

cal = xs.tutorial.open_run("speckle")["epix"]["calibrated"]
photons = xs.apply(
    cal, xs.droplet(threshold=4.0, threshold_low=1.2) | xs.photon(9.5, method="fit", cloud=0.1)
).compute()
found = xs.contrast(photons, mean_bins=[0.0, 0.025, 0.03, 0.035, 0.06])
modes = xs.tutorial.truth("speckle").attrs["modes"]

figure, (left, right) = plt.subplots(1, 2, figsize=(10, 3.6), layout="constrained")
flat = xs.flatten(cal.sd.droplet(4.0, 1.2))
left.hist(flat["sum"], bins=np.arange(0, 32, 0.25), histtype="step")
left.set(xlabel="energy of a droplet [keV]", ylabel="droplets", yscale="log", title="photons of 9.5 keV")
right.errorbar(found.mean_count, found.contrast, found.contrast_stderr, fmt="o", label="found")
right.axhline(1 / modes, color="0.6", label="true")
right.set(xlabel="photons per pixel", ylabel="contrast", ylim=(0, 1), title="contrast, by intensity")
right.legend()
figure.savefig("photon_statistics.png", dpi=120)
