"""JUNGFRAU of the European XFEL: mock files of extra_data's own test helpers, constants by memory cell and stage."""

from pathlib import Path

import h5py
import numpy as np
import pytest
import xarray as xr

import xsmall as xs
from xsmall.vocabulary import FRAME_DIMS, PIXEL_DIMS

pytestmark = pytest.mark.validation
RNG = np.random.default_rng(11)
CONSTANT_DIMS = ("memory_cell", "gain_stage", *PIXEL_DIMS)


def _fill(path: Path) -> None:
    """Mock files hold zeros: give the first trains of a module random words and gains."""
    with h5py.File(path, "r+") as file:
        modules = [name.removesuffix("/adc") for name in _datasets(file) if name.endswith("data/adc")]
        for module in modules:
            n = min(2, file[f"{module}/adc"].shape[0])
            shape = (n, *file[f"{module}/adc"].shape[1:])
            file[f"{module}/adc"][:n] = RNG.integers(0, 1 << 14, shape)
            file[f"{module}/gain"][:n] = RNG.choice([0, 1, 2, 3], shape)  # 2 is none that a pixel should have


def _datasets(file: h5py.File) -> list[str]:
    names: list[str] = []
    file.visititems(lambda name, item: names.append(name) if isinstance(item, h5py.Dataset) else None)
    return names


def test_every_pixel_takes_the_constants_of_its_cell_and_gain(tmp_path: Path) -> None:
    extra_data = pytest.importorskip("extra_data", exc_type=ImportError)
    examples = pytest.importorskip("extra_data.tests.make_examples", exc_type=ImportError)
    components = pytest.importorskip("extra_data.components", exc_type=ImportError)
    examples.make_jungfrau_run(str(tmp_path))
    for path in tmp_path.glob("*JNGFR*.h5"):
        _fill(path)
    detector = components.JUNGFRAU(extra_data.RunDirectory(str(tmp_path)), modules=[1, 2])
    adc, gain = (
        detector[f"data.{name}"]
        .xarray()
        .isel(trainId=slice(2), dim_0=slice(3))
        .transpose("trainId", "dim_0", "module", ...)
        .values
        for name in ("adc", "gain")
    )
    n_trains, n_cells = adc.shape[:2]
    words, codes = (x.reshape(n_trains * n_cells, *x.shape[2:]) for x in (adc.astype("u2"), gain.astype("u1")))
    assert words.shape[1:] == (2, 512, 1024)
    assert words.any()
    full = (n_cells, 3, *words.shape[1:])
    pedestal = RNG.normal(3000, 50, full).astype("f4")
    factor = (RNG.uniform(1, 40, full) * np.array([1, -1, -1])[:, None, None, None]).astype("f4")
    constants = xr.Dataset(
        {"pedestal": (CONSTANT_DIMS, pedestal), "gain": (CONSTANT_DIMS, factor, {"units": "ADU/keV"})},
        coords={"memory_cell": np.arange(n_cells), "gain_stage": [0, 1, 2]},
        attrs={"detector_type": "jungfrau_euxfel"},
    )
    cells = np.tile(np.arange(n_cells), n_trains)
    raw = xr.DataArray(words, dims=FRAME_DIMS, coords={"memory_cell": ("event", cells)})
    raw.attrs["detector_type"] = "jungfrau_euxfel"
    found = xs.calibrate(raw, constants, gain_stage=raw.copy(data=codes))
    for event in (0, len(words) - 1):
        stage = np.array([0, 1, -1, 2])[codes[event]]
        at = (cells[event], np.maximum(stage, 0), *np.ogrid[:2, :512, :1024])
        expected = np.where(stage < 0, np.nan, (words[event] - pedestal[at]) / factor[at])
        np.testing.assert_allclose(found.values[event], expected, rtol=1e-5, atol=1e-3)
