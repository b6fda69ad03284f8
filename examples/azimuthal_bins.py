"""I(q) in sectors of azimuth, with what corrections do to it."""

import matplotlib.pyplot as plt

import xsmall as xs

raw = xs.tutorial.open_run("pump-probe")["jungfrau"]["raw"]
cal = raw.sd.calibrate(xs.tutorial.open_constants("pump-probe"))[:100]
small = cal.sd.reduce(
    {
        "cake": xs.azint(bins=120, range=(0.5, 2.4), azimuth_bins=24),
        "plain": xs.azint(bins=240, range=(0.5, 2.4)),
        "corrected": xs.azint(
            bins=240, range=(0.5, 2.4), solid_angle=True, polarization_plane=0, polarization_fraction=0.99
        ),
    }
).compute()
mean = small.isel(event=small.xray_on.values).mean("event")

figure, (left, right) = plt.subplots(1, 2, figsize=(11, 3.8), layout="constrained")
mean.cake_intensity.plot(ax=left, x="cake_q", vmin=0, robust=True, cmap="magma", cbar_kwargs={"label": "keV"})
left.set(xlabel="q [1/Å]", ylabel="azimuth [degrees]", title="q and azimuth")
right.plot(mean.plain_q, mean.plain_intensity, label="as measured")
right.plot(mean.corrected_q, mean.corrected_intensity, label="solid angle, polarization")
right.set(xlabel="q [1/Å]", ylabel="mean of a pixel [keV]", title="I(q)", yscale="log")
right.legend()
figure.savefig("azimuthal_bins.png", dpi=120)
