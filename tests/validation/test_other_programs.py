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
    table = xs.to_pandas(small)
    counts = table.groupby(level=0).size().reindex(small.event.values, fill_value=0)
    assert counts.tolist() == small["hits_n_droplets"].values.tolist()
    scalars = xs.to_pandas(small, "event")
    assert {"i0", "delay", "hits_n_droplets"} <= set(scalars.columns)
    assert np.array_equal(scalars["i0"].values, small.i0.values)
    assert xs.to_pandas(small[["waxs_intensity"]]).index.equals(scalars.index)  # no lists: a line for each event
    with pytest.raises(xs.XsmallError, match="which lists"):
        xs.to_pandas(small, "photon")


def test_awkward_has_the_lists_as_they_are(small: xr.Dataset) -> None:
    ak = pytest.importorskip("awkward")
    array = xs.to_awkward(small)
    found = ak.num(array["hits_sum"]) if "hits_sum" in array.fields else ak.num(array[array.fields[-1]])
    assert found.tolist() == small["hits_n_droplets"].values.tolist()


def test_scipp_takes_dims_units_and_values(small: xr.Dataset) -> None:
    scipp = pytest.importorskip("scipp")
    spectra = small["waxs_intensity"]
    taken = scipp.compat.from_xarray(spectra)
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


def test_hyperspy_has_images_and_spectra_with_their_axes(cal: xr.DataArray, small: xr.Dataset) -> None:
    pytest.importorskip("hyperspy.api")
    images = cal[:3].sd.image()
    signal = xs.to_hyperspy(images)
    assert np.array_equal(signal.data, images.values, equal_nan=True)
    for axis, dim in zip(signal.axes_manager.signal_axes, ("image_x", "image_y"), strict=True):
        assert (axis.name, axis.units) == (dim, "m")
        assert np.allclose(axis.axis, images[dim].values)
    assert signal.axes_manager.navigation_shape == (3,)
    spectra = xs.to_hyperspy(small["waxs_intensity"])
    (axis,) = spectra.axes_manager.signal_axes
    assert np.allclose(axis.axis, small.q.values)
    assert axis.units == "angstrom-1"
    uneven = xs.to_hyperspy(small["waxs_intensity"].isel(q=[0, 1, 5]))
    assert np.allclose(uneven.axes_manager.signal_axes[0].axis, small.q.values[[0, 1, 5]])
    (counting,) = xs.to_hyperspy(small["waxs_intensity"].isel(event=0, q=[5, 0, 3])).axes_manager.signal_axes
    assert np.array_equal(counting.axis, [0, 1, 2])
    assert counting.units != "angstrom-1"  # it counts places
    with pytest.raises(xs.XsmallError, match="needs a dim"):
        xs.to_hyperspy(small["waxs_intensity"].max())


def test_hvplot_draws_results_with_their_names(cal: xr.DataArray, small: xr.Dataset) -> None:
    pytest.importorskip("hvplot.xarray")
    picture = cal[0].sd.image().compute().hvplot.image(x="image_x", y="image_y")
    assert [str(d) for d in picture.kdims] == ["image_x", "image_y"]
    curve = small["waxs_intensity"].isel(event=0, drop=True).hvplot.line(x="q")
    assert np.array_equal(curve["q"], small.q.values)


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
