"""The detector as one picture, and the same unrolled about the beam."""

import matplotlib.pyplot as plt

import xsmall as xs

raw = xs.tutorial.open_run("powder")["jungfrau"]["raw"]
cal = raw.sd.calibrate(xs.tutorial.open_constants("powder"))
average = cal[:60].sd.average()["calibrated"].compute()
fitted = average.sd.assign_beam(beam=average.sd.fit_beam(rings="LaB6").beam)

figure, (left, right) = plt.subplots(1, 2, figsize=(11, 4), layout="constrained")
fitted.sd.image().plot(ax=left, vmin=0, robust=True, cmap="magma", cbar_kwargs={"label": "keV"})
left.invert_xaxis()  # looking downstream, x grows to the left
left.set(title="assembled", aspect="equal")
fitted.sd.polar()["intensity"].plot(ax=right, vmin=0, robust=True, cmap="magma", cbar_kwargs={"label": "keV"})
right.set(xlabel="radius [m]", ylabel="azimuth [degrees]", title="unrolled")
figure.savefig("picture_and_polar.png", dpi=120)
