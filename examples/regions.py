"""Regions drawn in space and in q, and what they hold in every event."""

import matplotlib.pyplot as plt

import xsmall as xs

run = xs.tutorial.open_run("pump-probe")
cal = run["jungfrau"]["raw"].sd.calibrate(xs.tutorial.open_constants("pump-probe"))[:120]
regions = {
    "circle": xs.Circle((0.006, 0.004), 0.002),  # m
    "polygon": xs.Polygon([(-0.004, 0.002), (-0.012, 0.002), (-0.008, 0.008), (-0.004, 0.002)]),
    "band of q": xs.Band("q", 1.6, 1.7),  # 1/angstrom
    "rectangle": xs.Rectangle((-0.014, -0.006), (-0.009, -0.003)),
}
sums = cal.sd.roi(regions).compute()

figure, (left, right) = plt.subplots(1, 2, figsize=(11, 4), layout="constrained", width_ratios=(1.3, 1))
held = xs.inside(cal, regions["circle"]).astype("f4")
for i, region in enumerate(regions.values()):
    held = held.where(~xs.inside(cal, region), i + 1.0)
held.where(held > 0).sd.plot(cmap="tab10", vmin=0.5, vmax=10.5, colorbar=False, ax=left)
left.set_title("the pixels that each region holds")
for i, name in enumerate(regions):
    right.plot(sums.i0, sums["mean"].sel(roi=name), ".", color=plt.get_cmap("tab10")(i), label=name)
right.set(xlabel="i0", ylabel="mean of a pixel [keV]", title="every event")
right.legend()
figure.savefig("regions.png", dpi=120)
