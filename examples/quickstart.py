"""From raw frames to I(q), a region of interest and an average image, in one pass over a simulated run."""

import matplotlib.pyplot as plt

import xsmall as xs

simulation = xs.simulate(300, seed=1)  # with your own data: run = xs.open_run("run42.xtc2")
run = simulation.run
raw = run["jungfrau"]["raw"]  # (event, segment, row, column), uint16, lazy

# where the pixels are, what the beam was, and what makes keV of ADC values
det = raw.sd.assign_geometry(simulation.geometry).sd.assign_beam(
    photon_energy=9500, distance=simulation.beam.distance, center=(0.0, 0.0)
)
cal = det.sd.calibrate(simulation.constants)  # still lazy; NaN where a pixel cannot be trusted
print(cal.sd)

# one pass over the raw frames, however many reductions
small = cal.sd.reduce(
    {
        "waxs": xs.azint(bins=300),
        "spot": xs.roi(xs.Box(segment=0, row=(72, 89), column=(224, 241))),
    }
).compute()
average = cal[:100].sd.average().compute()

shots = small.isel(event=small.xray_on.values)
pattern = (shots.waxs_intensity / shots.i0).mean("event")

figure, (left, right) = plt.subplots(1, 2, figsize=(10.5, 3.8), layout="constrained", width_ratios=(1.4, 1))
average["calibrated"].sd.plot(log=True, vmin=0.1, vmax=300, cmap="magma", ax=left)
left.set_title("average of 100 events")
right.plot(pattern.q, pattern)
right.set(xlabel="q [1/Å]", ylabel="keV per pixel at i0 = 1", title="I(q), mean of all shots")
figure.savefig("quickstart.png", dpi=120)
