"""Powder rings tell where the beam hits: the rings before and after the fit."""

import matplotlib.pyplot as plt

import xsmall as xs

raw = xs.tutorial.open_run("powder")["jungfrau"]["raw"]
cal = raw.sd.calibrate(xs.tutorial.open_constants("powder"))
average = cal[:60].sd.average()["calibrated"].compute()
fit = average.sd.fit_beam(rings="LaB6")
print(fit)
fitted = average.sd.assign_beam(beam=fit.beam)

figure, axes = plt.subplots(1, 2, figsize=(11, 3.8), layout="constrained", sharey=True)
for ax, frames, title in zip(axes, (average, fitted), ("beam as it was thought", "beam fitted"), strict=True):
    cake = frames.expand_dims(event=1).sd.azint(bins=150, range=(1.3, 2.3), azimuth_bins=36).squeeze()
    cake.intensity.plot(ax=ax, x="q", vmin=0, cmap="magma", cbar_kwargs={"label": "keV"})
    ax.set(xlabel="q [1/Å]", ylabel="azimuth [degrees]", title=title)
figure.savefig("beam_centre.png", dpi=120)
