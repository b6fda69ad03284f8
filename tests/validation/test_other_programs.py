"""Results go on in other programs: each reads what we hand over, and has the same numbers and axes."""

from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import xarray as xr

import xsmall as xs

pytestmark = pytest.mark.validation


@pytest.fixture(scope="module")
def sim() -> Any:
    return xs.simulate(12, shape=(2, 48, 64), seed=4)


@pytest.fixture(scope="module")
def cal(sim: Any) -> xr.DataArray:
    det = sim.run["jungfrau"]["raw"].sd.assign_geometry(sim.geometry).sd.assign_beam(sim.beam)
    return det.sd.calibrate(sim.constants)


@pytest.fixture(scope="module")
def small(cal: xr.DataArray) -> xr.Dataset:
    records = {"waxs": xs.azint(bins=20), "hits": xs.droplet(threshold=5, threshold_low=2.5)}
    return cal.sd.reduce(records).compute()


def test_pandas_has_a_line_per_droplet_with_its_event(small: xr.Dataset) -> None:
    lists = small.drop_vars([name for name in small.data_vars if not str(name).startswith("hits")])
    table = xs.to_pandas(lists)
    counts = table.groupby(level=0).size().reindex(small.event.values, fill_value=0)
    assert counts.tolist() == small["hits_n_droplets"].values.tolist()
    scalars = small[["waxs_n_valid"]].isel(q=0).reset_coords()[["i0", "delay"]].to_dataframe()
    assert np.array_equal(scalars["i0"].values, small.i0.values)


def test_awkward_has_the_lists_as_they_are(small: xr.Dataset) -> None:
    ak = pytest.importorskip("awkward")
    lists = small.drop_vars([name for name in small.data_vars if not str(name).startswith("hits")])
    array = xs.to_awkward(lists)
    found = ak.num(array["hits_sum"]) if "hits_sum" in array.fields else ak.num(array[array.fields[-1]])
    assert found.tolist() == small["hits_n_droplets"].values.tolist()


def test_scipp_takes_dims_units_and_values(small: xr.Dataset) -> None:
    scipp = pytest.importorskip("scipp")
    spectra = small["waxs_intensity"]
    bare = spectra.drop_vars([name for name in spectra.coords if name not in ("q", "delay")])
    taken = scipp.compat.from_xarray(bare)
    assert taken.dims == ("event", "q")
    assert np.array_equal(taken.values, spectra.values, equal_nan=True)
    assert taken.coords["q"].unit == scipp.Unit("1/angstrom")
    assert taken.coords["delay"].unit == scipp.Unit("ps")


def test_pyfai_integrates_with_our_geometry(sim: Any, cal: xr.DataArray) -> None:
    pytest.importorskip("pyFAI")
    integrator = xs.to_pyfai(sim.geometry, sim.beam)
    frame = cal[3].compute().values.reshape(-1, sim.geometry.shape[2])
    bad = ~np.isfinite(frame)
    found = integrator.integrate1d(
        frame, 30, unit="q_A^-1", mask=bad, correctSolidAngle=False, method=("no", "histogram", "cython")
    )
    half = np.diff(found.radial)[0] / 2
    edges = np.append(found.radial - half, found.radial[-1] + half)
    ours = cal[3:4].sd.azint(bins=edges).compute()["intensity"].values[0]
    same = np.isclose(ours, found.intensity, rtol=0.02, atol=1.0)
    assert same[2:-2].mean() > 0.9  # pixels on a border of bins may go to the other one


def test_hyperspy_shows_images_with_their_axes(cal: xr.DataArray) -> None:
    hyperspy = pytest.importorskip("hyperspy.api")
    images = cal[:3].sd.image().compute()
    signal = hyperspy.signals.Signal2D(images.values)
    for axis, dim in zip(signal.axes_manager.signal_axes, ("image_x", "image_y"), strict=True):
        axis.name, axis.units = dim, "m"
        axis.offset, axis.scale = float(images[dim][0]), float(images[dim][1] - images[dim][0])
        assert np.allclose(axis.axis, images[dim].values)
    assert signal.axes_manager.navigation_shape == (3,)


def test_silx_opens_our_files(small: xr.Dataset, tmp_path: Path) -> None:
    silx_io = pytest.importorskip("silx.io")
    path = tmp_path / "small.h5"
    xs.save(small[["waxs_intensity"]], path)
    with silx_io.open(str(path)) as file:
        assert np.array_equal(file["waxs_intensity"][()], small["waxs_intensity"].values, equal_nan=True)


def test_whoever_reads_hdf5_finds_values_units_and_scales(small: xr.Dataset, tmp_path: Path) -> None:
    path = tmp_path / "small.h5"
    xs.save(small[["waxs_intensity"]], path)
    with h5py.File(path) as file:  # what h5read of MATLAB does
        values = file["waxs_intensity"]
        assert np.array_equal(values[()], small["waxs_intensity"].values, equal_nan=True)
        assert values.attrs["units"] in ("keV", b"keV")
        assert values.dims[1][0].name == "/q"
        assert file["q"].attrs["units"] in ("angstrom-1", b"angstrom-1")


def test_napari_and_pictures_are_arrays(cal: xr.DataArray) -> None:
    stack = cal[:2].sd.image().compute().values
    assert stack.ndim == 3
    assert stack.dtype == np.float32
