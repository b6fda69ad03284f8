"""Speckle that moves: g2 from single photons, and the correlation of each two shots."""

import matplotlib.pyplot as plt
import numpy as np

import xsmall as xs

cal = xs.tutorial.open_run("speckle")["epix"]["calibrated"]
photons = xs.apply(cal, xs.droplet(threshold=4.0, threshold_low=1.2) | xs.photon(9.5)).compute()
ring = {"all": xs.Box(segment=0)}
g2 = xs.g2(photons, ring, like=cal)
truth = xs.tutorial.truth("speckle").attrs

figure, ax = plt.subplots(figsize=(6, 3.8), layout="constrained")
ax.errorbar(g2.tau, g2.g2[0], g2.g2_stderr[0], fmt="o", label="found")
lag = np.geomspace(float(g2.tau.min()), float(g2.tau.max()), 200)
shots = lag / 8.333333e-3
ax.plot(lag, 1 + np.exp(-2 * shots / truth["tau"]) / truth["modes"], color="0.5", label="true")
ax.set(xscale="log", xlabel="lag [s]", ylabel="g2", title="decay of speckle", ylim=(0.8, 1.8))
ax.legend()
figure.savefig("speckle_in_time.png", dpi=120)
