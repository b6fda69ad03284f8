"""Bins of a delay: of one width, or quantiles, and the shots in each."""

import matplotlib.pyplot as plt

import xsmall as xs

events = xs.tutorial.open_run("pump-probe")["events"].to_dataset()[["i0", "delay", "xray_on"]].compute()
cubes = {
    "width 0.5 ps": events.sd.cube({"delay": xs.bins(-2, 5, width=0.5)}),
    "14 quantiles": events.sd.cube({"delay": xs.quantiles(14)}),
}
figure, axes = plt.subplots(1, 2, figsize=(10, 3.6), layout="constrained", sharey=True)
for ax, (name, cube) in zip(axes, cubes.items(), strict=True):
    cube = cube.compute()
    low, high = cube.delay_bounds.values.T
    ax.bar(low, cube["count"], width=high - low, align="edge", edgecolor="w")
    ax.set(xlabel="delay [ps]", ylabel="shots", title=name, xlim=(-2.5, 5.5))
figure.savefig("delay_bins.png", dpi=120)
