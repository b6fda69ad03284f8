"""Two-dimensional cubes: the average picture of each delay, and what the laser changes in it."""

import matplotlib.pyplot as plt

import xsmall as xs

sim = xs.simulate(400, shape=(2, 96, 192), scan="fly", seed=5)
raw = sim.run["jungfrau"]["raw"].sd.assign_geometry(sim.geometry).sd.assign_beam(sim.beam)
cal = raw.sd.calibrate(sim.constants)
events = sim.run["events"].to_dataset()
cube = events.sd.cube(
    {"delay": xs.edges([-2.0, 0.0, 5.0]), "laser_on": xs.categories()}, images={"jungfrau": cal}, weights="i0"
).compute()
change = cube.sd.difference("laser_on", normalize="sums")

figure, axes = plt.subplots(1, 2, figsize=(11, 3.4), layout="constrained")
for ax, i, title in zip(axes, (0, 1), ("before time zero", "after time zero"), strict=True):
    change["jungfrau"].isel(delay=i).sd.plot(cmap="RdBu_r", vmin=-8, vmax=8, ax=ax)
    ax.set_title(f"laser on - off, {title}")
figure.savefig("difference_image.png", dpi=120)
