"""What the signal owes to the pulse energy: a correlation, a cut, and a ratio."""

import matplotlib.pyplot as plt

import xsmall as xs

run = xs.tutorial.open_run("pump-probe")
cal = run["jungfrau"]["raw"].sd.calibrate(xs.tutorial.open_constants("pump-probe"))[:300]
small = cal.sd.reduce({"ring": xs.roi(xs.Band("q", 1.3, 1.4))}).compute()
good = xs.select(small, xray_on=True, laser_on=False, i0=(0.3, None))

figure, (left, right) = plt.subplots(1, 2, figsize=(10, 3.8), layout="constrained")
small.sd.plot("ring_mean", against="i0", where=(small.xray_on & (small.i0 > 0.3)), ax=left)
left.set_title("signal against pulse energy")
for values, label in ((good.ring_mean, "signal"), (good.ring_mean / good.i0, "signal / i0")):
    right.hist((values / values.mean()).values.ravel(), bins=80, range=(0.6, 1.4), histtype="step", label=label)
right.set(xlabel="relative to the mean", ylabel="events", title="laser off, i0 > 0.3")
right.legend()
figure.savefig("pulse_energy.png", dpi=120)
