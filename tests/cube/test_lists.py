"""Cubes of small data that hold lists per event."""

from pathlib import Path

import numpy as np
import xarray as xr

import xsmall as xs


def test_flat_lists_of_a_file_have_no_mean_and_a_mean_of_counts_counts_nothing(tmp_path: Path) -> None:
    """Small data as a file holds them: counts with a sample dimension, all droplets behind each other."""
    sim = xs.simulate(6, shape=(1, 16, 32), seed=1)
    found = sim.run["jungfrau"]["raw"].sd.calibrate(sim.constants).sd.droplet(threshold=4.0, threshold_low=1.0)
    flat = xs.flatten(found).assign(half=("event", np.arange(6) % 2))
    made = flat.sd.cube({"half": [0, 1, 2]})
    assert flat.sizes["droplet"] > 6
    assert "droplet" not in made.dims
    assert "sample_dimension" not in made["n_droplets"].attrs
    assert "sum" in made.attrs["left_out"].split(", ")
    np.testing.assert_array_equal(made["n_droplets"], [flat["n_droplets"][k::2].mean() for k in (0, 1)])
    assert xr.open_zarr(xs.save(made, tmp_path / "cube.zarr")).equals(made)
