"""A pump-probe delay scan: bins of delay and laser, and the difference with its errors."""

import matplotlib.pyplot as plt

import xsmall as xs

simulation = xs.simulate(900, shape=(4, 96, 192), scan="fly", seed=2)
raw = simulation.run["jungfrau"]["raw"]
det = raw.sd.assign_geometry(simulation.geometry).sd.assign_beam(
    photon_energy=9500, distance=simulation.beam.distance, center=(0.0, 0.0)
)
cal = det.sd.calibrate(simulation.constants)

small = cal.sd.reduce({"waxs": xs.azint(bins=120, range=(0.6, 2.4))}).compute()
small = small.isel(event=small.xray_on.values)  # dropped shots have no X-rays
small["pattern"] = small.waxs_intensity / small.i0  # per pulse energy

# delay is what the time tool says; shots where it did not fit are NaN, and counted as outside the bins
cube = small.sd.cube(
    {"delay": xs.bins(-2, 5, width=0.25), "laser_on": xs.categories()},
    images={"jungfrau": cal},  # joined by the label of events
).compute()
print(cube["count"].to_series().unstack())

change = cube.sd.difference("laser_on", relative=True)
ring = change.sel(q=slice(2.10, 2.20))
signal = ring.pattern.mean("q")
error = (ring.pattern_stderr**2).sum("q") ** 0.5 / ring.sizes["q"]

figure, (left, right) = plt.subplots(1, 2, figsize=(10, 4), layout="constrained")
(100 * change.pattern).plot(
    ax=left, x="q", vmin=-12, vmax=12, cmap="RdBu_r", cbar_kwargs={"label": "relative change [%]"}
)
left.set(xlabel="q [1/Å]", ylabel="delay [ps]", title="laser on against off")
right.errorbar(cube.delay, 100 * signal, yerr=100 * error, fmt="o", markersize=3.5)
right.axhline(0, color="0.8", zorder=0)
right.set(xlabel="delay [ps]", ylabel="change of the outer ring [%]", title="delay curve")
figure.savefig("pump_probe_cube.png", dpi=120)
