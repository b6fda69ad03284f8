"""The errors of sums over a simulated run: pulls against what the pulse intensity says have unit width."""

import numpy as np

import xsmall as xs


def test_pulls_of_sums_have_unit_width_where_photons_are_many_and_where_they_are_few() -> None:
    simulation = xs.simulate(300, shape=(2, 128, 256), seed=6)
    raw = simulation.run["jungfrau"]["raw"]
    both = raw.sd.calibrate(simulation.constants, variance=True, photon_energy=simulation.beam.photon_energy)
    boxes = {f"{i}": xs.Box(segment=1, row=(8 * i, 8 * i + 8), column=(60, 180)) for i in range(16)}
    sums = both.sd.roi(boxes)[["sum", "sum_variance", "n_valid"]].compute()
    quiet = np.flatnonzero(raw["xray_on"] & ~raw["laser_on"] & raw["present"].all("segment"))
    sums = sums.isel(event=quiet)
    sums = sums.where(sums["n_valid"] == sums["n_valid"].max("event"))
    i0 = simulation.truth["i0"].isel(event=quiet)
    weight = 1 / sums["sum_variance"]
    scale = (sums["sum"] * i0 * weight).sum("event") / (i0**2 * weight).sum("event")
    pulls = (sums["sum"] - scale * i0) / np.sqrt(sums["sum_variance"])
    for part in (pulls.isel(roi=slice(0, 8)), pulls.isel(roi=slice(8, None))):
        values = part.values[np.isfinite(part.values)]
        assert values.size > 300
        assert abs(values.std() - 1) < 4 / np.sqrt(2 * values.size)
        assert abs(values.mean()) < 5 / np.sqrt(values.size)
