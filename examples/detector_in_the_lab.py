"""Where the pixels are: panels, pixel coordinates, and q on them."""

import matplotlib.pyplot as plt

import xsmall as xs

raw = xs.tutorial.open_run("powder")["jungfrau"]["raw"]  # has a geometry and a beam
figure, axes = plt.subplots(1, 3, figsize=(14, 3.6), layout="constrained")
for ax, quantity, name in zip(axes, ("q", "azimuth", "solid_angle"), ("q", "azimuth", "solid angle"), strict=True):
    raw.sd.pixel(quantity).sd.plot(cmap="viridis", ax=ax)
    ax.set_title(name)
figure.savefig("detector_in_the_lab.png", dpi=120)
