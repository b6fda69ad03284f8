"""Frames of other programs: plain stacks, CXI, NXmx, Eiger masters; what they say, lack and have lost."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import xarray as xr

import xsmall as xs
from xsmall.errors import (
    DamagedDataError,
    DamagedDataWarning,
    FileFormatError,
    MissingDependency,
    ParameterError,
    UnusedMaskWarning,
)
from xsmall.io.info import describe

RNG = np.random.default_rng(5)
WORDS = RNG.integers(0, 1000, (12, 16, 24)).astype("u2")
MODULES = RNG.integers(0, 1000, (12, 3, 16, 24)).astype("i2")


def write(path: Path, **datasets: Any) -> Path:
    with h5py.File(path, "w") as file:
        for name, data in datasets.items():
            file[name.replace("__", "/")] = data
    return path


# ---- plain stacks ---------------------------------------------------------------------------------------------------


def test_a_plain_stack_is_frames(tmp_path: Path, computing_is_forbidden: Callable[[], object]) -> None:
    path = write(tmp_path / "a.h5", deep__inside=WORDS, i0=np.arange(12.0))
    with computing_is_forbidden():  # type: ignore[attr-defined]
        raw = xs.open_frames(path, chunks=5)
    assert raw.dims == ("event", "segment", "row", "column")
    assert raw.dtype == np.uint16
    assert raw.chunks is not None
    assert raw.chunks[0] == (5, 5, 2)
    np.testing.assert_array_equal(raw.values[:, 0], WORDS)
    np.testing.assert_array_equal(raw["event"], np.arange(12))
    assert "units" not in raw.attrs
    sums = raw.sd.roi(xs.Box(segment=0, row=(2, 9), column=(1, 5))).compute()["sum"].values.ravel()
    np.testing.assert_allclose(sums, WORDS[:, 2:9, 1:5].sum((1, 2)))


@pytest.mark.parametrize(
    ("shape", "dims"),
    [
        ((16, 24), None),
        ((12, 3, 16, 24), None),
        ((16, 24, 12), ("row", "column", "event")),
        ((3, 16, 24), ("segment", "row", "column")),
        ((24, 16, 3, 12), ("column", "row", "segment", "event")),
    ],
    ids=str,
)
def test_dims_are_named(tmp_path: Path, shape: tuple[int, ...], dims: tuple[str, ...] | None) -> None:
    data = RNG.normal(size=shape).astype("f4")
    path = write(tmp_path / "a.h5", x=data)
    got = xs.open_frames(path, dataset="x", dims=dims)
    order = dims or ("event", "segment", "row", "column")[-len(shape) :]
    expected = xr.DataArray(data, dims=order)
    for dim in ("segment", "event"):
        if dim not in order:
            expected = expected.expand_dims(dim)
    np.testing.assert_array_equal(got, expected.transpose("event", "segment", "row", "column"))


def test_wrong_dims_and_datasets_are_refused(tmp_path: Path) -> None:
    path = write(tmp_path / "a.h5", one=WORDS, two=WORDS)
    with pytest.raises(FileFormatError, match=r"(?s)which of these.*/one, /two.*dataset='/one'"):
        xs.open_frames(path)
    with pytest.raises(FileFormatError, match=r"(?s)no dataset 'three'.*/one"):
        xs.open_frames(path, dataset="three")
    for dims in (("event", "row"), ("a", "row", "column"), ("event", "row", "row"), ("event", "segment", "row")):
        with pytest.raises(ParameterError, match="not the dims"):
            xs.open_frames(path, dataset="one", dims=dims)
    with pytest.raises(FileFormatError, match="no frames in this file"):
        xs.open_frames(write(tmp_path / "b.h5", i0=np.arange(3.0)))
    (tmp_path / "text.h5").write_text("hello")
    with pytest.raises(FileFormatError, match=r"text\.h5"):
        xs.open_frames(tmp_path / "text.h5")
    with pytest.raises(xs.XsmallError, match="junkfrau"):
        xs.open_frames(path, dataset="one", detector_type="junkfrau")


def test_a_raw_detector_is_calibrated_from_a_stack(tmp_path: Path) -> None:
    sim = xs.simulate(6, shape=(2, 16, 32), seed=1)
    path = write(tmp_path / "a.h5", words=sim.run["jungfrau/raw"].values)
    got = xs.open_frames(path, detector_type="jungfrau", units="ADU").sd.calibrate(sim.constants)
    there = sim.run["jungfrau/raw"].drop_vars("present").sd.calibrate(sim.constants)
    np.testing.assert_array_equal(got.values, there.values)


def test_several_files_are_frames_behind_each_other(tmp_path: Path) -> None:
    for k in range(3):
        write(tmp_path / f"{k}.h5", x=WORDS + k)
    raw = xs.open_frames(str(tmp_path / "?.h5"))
    np.testing.assert_array_equal(raw.values[:, 0], np.concatenate([WORDS, WORDS + 1, WORDS + 2]))
    np.testing.assert_array_equal(raw["event"], np.arange(36))
    write(tmp_path / "3.h5", x=WORDS[:, :8])
    with pytest.raises(FileFormatError, match=r"(?s)frames differ.*3\.h5"):
        xs.open_frames(str(tmp_path / "?.h5"))


def test_frames_that_were_never_written_are_missing(tmp_path: Path) -> None:
    path = tmp_path / "a.h5"
    with h5py.File(path, "w") as file:
        stack = file.create_dataset("x", (12, 16, 24), "u2", chunks=(2, 16, 24))
        stack[:6] = WORDS[:6]
        stack[8:10] = WORDS[8:10]
    raw = xs.open_frames(path)
    assert raw["present"].values.ravel().tolist() == [True] * 6 + [False] * 2 + [True] * 2 + [False] * 2
    n_valid = raw.sd.projection("row").compute()["n_valid"].values
    assert (n_valid[[6, 7, 10, 11]] == 0).all()
    assert (n_valid[:6] == 24).all()


def test_a_rotten_chunk_is_named(tmp_path: Path) -> None:
    path = tmp_path / "a.h5"
    with h5py.File(path, "w") as file:
        file.create_dataset("x", data=WORDS, chunks=(2, 16, 24), compression="gzip")
        info = file["x"].id.get_chunk_info(1)
    with path.open("r+b") as raw_file:
        raw_file.seek(info.byte_offset + 20)
        raw_file.write(b"\xff" * 40)
    with pytest.raises(DamagedDataError, match=r"a\.h5.*chunk at \(2, 0, 0\)"):
        xs.open_frames(path).compute()


def test_compressed_with_a_plugin(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    hdf5plugin = pytest.importorskip("hdf5plugin")
    path = tmp_path / "a.h5"
    with h5py.File(path, "w") as file:
        file.create_dataset("x", data=WORDS, chunks=(2, 16, 24), **hdf5plugin.Bitshuffle())
    np.testing.assert_array_equal(xs.open_frames(path).values[:, 0], WORDS)
    monkeypatch.setattr(h5py.h5z, "filter_avail", lambda code: code < 1000)
    monkeypatch.setitem(__import__("sys").modules, "hdf5plugin", None)
    with pytest.raises(MissingDependency, match=r"(?s)bitshuffle \(32008\).*xsmall\[hdf5\]"):
        xs.open_frames(path)


# ---- NXmx and Eiger -------------------------------------------------------------------------------------------------


def nexus(path: Path, *, module: bool) -> Path:
    """An NXmx file: one module with its transformations, or an Eiger master's older way to say the same."""
    with h5py.File(path, "w") as file:
        for name, kind in {
            "entry": "NXentry", "entry/data": "NXdata", "entry/instrument": "NXinstrument",
            "entry/instrument/beam": "NXbeam", "entry/instrument/detector": "NXdetector",
        }.items():  # fmt: skip
            file.create_group(name).attrs["NX_class"] = kind
        file["entry/instrument/beam/incident_wavelength"] = 1.25
        file["entry/instrument/beam/incident_wavelength"].attrs["units"] = "angstrom"
        detector = file["entry/instrument/detector"]
        mask = np.zeros((16, 24), "u4")
        mask[3, 4], mask[5] = 2, 1
        detector["pixel_mask"] = mask
        for name, value, unit in (
            ("x_pixel_size", 75e-6, "m"), ("y_pixel_size", 0.075, "mm"), ("detector_distance", 120.0, "mm"),
            ("beam_center_x", 10.0, "pixel"), ("beam_center_y", 6.0, "pixel"),
        ):  # fmt: skip
            detector[name] = value
            detector[name].attrs["units"] = unit
        if module:
            detector.create_group("geometry/orientation")["value"] = np.array([-1.0, 0, 0, 0, -1, 0])
    return path


def test_an_eiger_master_follows_its_files_and_says_where_pixels_are(tmp_path: Path) -> None:
    path = nexus(tmp_path / "x_master.h5", module=True)
    for k in (1, 2):
        write(tmp_path / f"x_data_00000{k}.h5", entry__data__data=WORDS[6 * (k - 1) : 6 * k])
    with h5py.File(path, "a") as file:
        for k in (1, 2):
            file[f"entry/data/data_00000{k}"] = h5py.ExternalLink(f"x_data_00000{k}.h5", "/entry/data/data")
    raw = xs.open_frames(path)
    np.testing.assert_array_equal(raw.values[:, 0], WORDS)
    assert raw["photon_energy"].item() == pytest.approx(12398.419843 / 1.25)
    assert raw["distance"].item() == pytest.approx(0.12)
    assert not raw["usable"].values[0, 3, 4]
    assert raw["usable"].values.sum() == 16 * 24 - 1 - 24
    # the beam hits the corner of pixels 9 and 10, 5 and 6, which lies at x = y = 0; x grows to the left
    x, y, z = (raw[name].values[0] for name in "xyz")
    assert x[0, 9] == pytest.approx(37.5e-6)
    assert x[0, 10] == pytest.approx(-37.5e-6)
    assert y[5, 0] == pytest.approx(37.5e-6)
    np.testing.assert_allclose(z, 0.12, rtol=1e-6)
    waxs = raw.sd.azint(bins=4, mask=raw["usable"]).compute()
    assert (waxs["n_valid"].sum("q") <= raw["usable"].values.sum()).all()
    assert xs.open_run(path)["detector/raw"].equals(raw)
    (tmp_path / "x_data_000002.h5").unlink()
    with pytest.raises(FileFormatError, match=r"(?s)data_000002 cannot be opened.*copy x_data_000002\.h5 beside"):
        xs.open_frames(path)


def test_a_detector_that_does_not_say_how_it_is_turned_gets_no_geometry(tmp_path: Path) -> None:
    path = nexus(tmp_path / "m.h5", module=False)
    with h5py.File(path, "a") as file:
        file["entry/data/data"] = WORDS
    raw = xs.open_frames(path)
    assert "geometry" not in raw.coords
    assert "how the detector is turned" in raw.attrs["left_out"]
    assert raw["distance"].item() == pytest.approx(0.12)


def _groups(file: Any) -> list[str]:
    names: list[str] = []
    file.visit(names.append)
    return names


def test_nxmx_with_modules_brings_the_geometry(tmp_path: Path) -> None:
    sim = xs.simulate(12, shape=(1, 16, 24), seed=1)
    path = tmp_path / "m.h5"
    xs.save_geometry(sim.geometry, path, beam=xs.Beam(photon_energy=9500, distance=0.1))
    with h5py.File(path, "a") as file:
        detectors = [n for n in _groups(file) if file[n].attrs.get("NX_class") in ("NXdetector", b"NXdetector")]
        file[f"{detectors[0]}/data"] = WORDS
    raw = xs.open_frames(path)
    np.testing.assert_allclose(raw["z"], 0.1, rtol=1e-6)  # the beam's distance is in the transformations
    for name in "xy":
        right = raw.drop_vars(["x", "y", "z", "geometry"]).sd.assign_geometry(sim.geometry)[name]
        np.testing.assert_allclose(raw[name], right, atol=1e-9)
    assert raw["photon_energy"].item() == pytest.approx(9500)


@pytest.mark.parametrize(("unit", "there"), [("furlong", False), ("", False), ("nm", True)])
def test_a_unit_that_is_not_known_is_never_guessed(tmp_path: Path, unit: str, there: bool) -> None:
    path = nexus(tmp_path / "m.h5", module=False)
    with h5py.File(path, "a") as file:
        file["entry/data/data"] = WORDS
        wavelength = file["entry/instrument/beam/incident_wavelength"]
        wavelength[...] = 0.125
        wavelength.attrs["units"] = unit
    raw = xs.open_frames(path)
    assert ("photon_energy" in raw.coords) == there
    assert ("incident_wavelength" in raw.attrs["left_out"]) != there


@pytest.mark.parametrize(("energy", "told"), [(9918.7, False), (9500.0, True), ([9500.0] * 12, True)])
def test_an_energy_that_contradicts_the_wavelength_is_told(tmp_path: Path, energy: object, told: bool) -> None:
    path = nexus(tmp_path / "m.h5", module=False)  # 1.25 angstrom
    with h5py.File(path, "a") as file:
        file["entry/data/data"] = WORDS
        file["entry/instrument/beam/incident_energy"] = energy
        file["entry/instrument/beam/incident_energy"].attrs["units"] = "eV"
    raw = xs.open_frames(path)
    np.testing.assert_allclose(raw["photon_energy"], np.ravel(energy)[0])
    assert ("incident_wavelength: 9918.74 eV, where" in raw.attrs.get("left_out", "")) == told


def test_a_virtual_dataset_misses_what_its_files_miss(tmp_path: Path) -> None:
    for k in range(3):
        write(tmp_path / f"part{k}.h5", d=WORDS[4 * k : 4 * k + 4])
    layout = h5py.VirtualLayout((12, 16, 24), "u2")
    for k in range(3):
        layout[4 * k : 4 * k + 4] = h5py.VirtualSource(f"part{k}.h5", "d", (4, 16, 24))
    with h5py.File(tmp_path / "all.h5", "w") as file:
        file.create_virtual_dataset("x", layout)
    np.testing.assert_array_equal(xs.open_frames(tmp_path / "all.h5").values[:, 0], WORDS)
    opened = xs.open_frames(tmp_path / "all.h5")
    (tmp_path / "part1.h5").rename(tmp_path / "elsewhere.h5")
    raw = xs.open_frames(tmp_path / "all.h5")
    assert raw["present"].values.ravel().tolist() == [True] * 4 + [False] * 4 + [True] * 4
    np.testing.assert_array_equal(raw.values[8:, 0], WORDS[8:])
    with pytest.raises(DamagedDataError, match=r"part1\.h5"):
        opened.compute()


# ---- CXI ------------------------------------------------------------------------------------------------------------


def cxi(path: Path, **extra: Any) -> Path:
    with h5py.File(path, "w") as file:
        file["entry_1/instrument_1/detector_1/data"] = MODULES
        file["entry_1/data_1/data"] = h5py.SoftLink("/entry_1/instrument_1/detector_1/data")
        mask = np.zeros((3, 16, 24), "u2")
        mask[1, 2, 3], mask[1, 2, 4] = 8, 32  # dead; in a peak, which is nothing against it
        file["entry_1/instrument_1/detector_1/mask"] = mask
        file["entry_1/instrument_1/detector_1/distance"] = 0.58
        file["LCLS/machineTime"] = np.full(12, 1_700_000_000)
        file["LCLS/machineTimeNanoSeconds"] = np.arange(12) * 8_333_333
        file["LCLS/photon_energy_eV"] = 9500 + np.arange(12.0)
        for name, data in extra.items():
            del file[name.replace("__", "/")]
            file[name.replace("__", "/")] = data
    return path


def test_cxi_brings_times_mask_energies_and_distance(tmp_path: Path) -> None:
    raw = xs.open_frames(cxi(tmp_path / "a.cxi"))
    np.testing.assert_array_equal(raw, MODULES)
    assert raw["event"].values[1] == np.datetime64("2023-11-14T22:13:20.008333333", "ns")
    assert raw["usable"].values.sum() == 3 * 16 * 24 - 1
    assert not raw["usable"].values[1, 2, 3]
    np.testing.assert_allclose(raw["photon_energy"], 9500 + np.arange(12.0))
    assert raw["distance"].item() == 0.58


def test_cxi_of_odd_content_says_what_it_left_out(tmp_path: Path) -> None:
    per_event = np.zeros(MODULES.shape, "u2")
    path = cxi(
        tmp_path / "a.cxi",
        entry_1__instrument_1__detector_1__mask=per_event,
        entry_1__instrument_1__detector_1__distance=580.0,
        LCLS__machineTimeNanoSeconds=np.zeros(12, int),
    )
    with h5py.File(path, "a") as file:
        file["entry_1/instrument_1/detector_1/x_pixel_size"] = 75e-6
    raw = xs.open_frames(path)
    assert "usable" not in raw.coords
    assert "distance" not in raw.coords
    np.testing.assert_array_equal(raw["event"], np.arange(12))
    for word in ("masks per event", "580", "times are repeated", "geometry: "):
        assert word in raw.attrs["left_out"]


def test_cxi_files_of_one_run_are_joined_by_what_they_say(tmp_path: Path) -> None:
    cxi(tmp_path / "a.cxi")
    cxi(tmp_path / "b.cxi", LCLS__machineTime=np.full(12, 1_700_000_001), LCLS__photon_energy_eV=np.full(12, 9000.0))
    raw = xs.open_frames([tmp_path / "a.cxi", tmp_path / "b.cxi"])
    assert raw.sizes["event"] == 24
    assert np.unique(raw["event"].values).size == 24
    np.testing.assert_allclose(raw["photon_energy"].values[12:], 9000)
    assert raw["distance"].item() == 0.58
    cxi(tmp_path / "c.cxi", entry_1__instrument_1__detector_1__distance=0.3)
    raw = xs.open_frames([tmp_path / "a.cxi", tmp_path / "c.cxi"])
    assert "distance: differs between the files" in raw.attrs["left_out"]
    assert "distance" not in raw.coords


def test_foreign_files_are_runs_where_they_say_so_and_else_get_the_call_that_opens_them(tmp_path: Path) -> None:
    run = xs.open_run(cxi(tmp_path / "a.cxi"), units="ADU", detector_type="camera")
    assert run["detector/raw"].attrs["units"] == "ADU"
    assert run["events"].sizes["event"] == 12
    assert describe(tmp_path / "a.cxi").startswith("a.cxi: frames in HDF5 (CXI, NXmx, Eiger), ")
    cxi(tmp_path / "b.cxi", LCLS__machineTime=np.full(12, 1_700_000_001))
    assert xs.open_run(str(tmp_path / "*.cxi"))["events"].sizes["event"] == 24
    path = write(tmp_path / "stack.h5", deep__frames=WORDS)
    with pytest.raises(FileFormatError, match="not a run that xsmall can open") as told:
        xs.open_run(path)
    call = str(told.value).split("do this:  ")[1]
    assert eval(call, {"xs": xs}).shape == (12, 1, 16, 24)
    assert xs.open_run(path, engine="stack", dataset="/deep/frames")["detector/raw"].shape == (12, 1, 16, 24)


# ---- images ---------------------------------------------------------------------------------------------------------


def test_single_images_are_events(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fabio = pytest.importorskip("fabio")
    for k in range(5):
        fabio.edfimage.EdfImage(data=WORDS[k]).write(str(tmp_path / f"a_{k}.edf"))
    raw = xs.open_frames(str(tmp_path / "a_*.edf"), chunks=2)
    assert raw.chunks is not None
    np.testing.assert_array_equal(xs.open_run(str(tmp_path / "a_*.edf"))["detector/raw"], raw)
    assert ": images, " in describe(str(tmp_path / "a_*.edf"))
    assert raw.dtype == np.uint16
    np.testing.assert_array_equal(raw.values[:, 0], WORDS[:5])
    np.testing.assert_array_equal(raw.isel(event=[3, 1], row=slice(2, 5)).values[:, 0], WORDS[[3, 1], 2:5])
    (tmp_path / "a_2.edf").write_bytes((tmp_path / "a_2.edf").read_bytes()[:600])
    raw = xs.open_frames(str(tmp_path / "a_*.edf"))
    with pytest.raises(DamagedDataError, match=r"a_2\.edf"):
        raw.compute()
    with pytest.warns(DamagedDataWarning, match=r"a_2\.edf"):
        n_valid = raw.sd.projection("row").compute()["n_valid"].values[:, 0].max(-1)
    assert (n_valid == 0).tolist() == [False, False, True, False, False]
    with pytest.raises(ParameterError, match="images have no dataset"):
        xs.open_frames(tmp_path / "a_0.edf", dataset="x")
    monkeypatch.setitem(__import__("sys").modules, "fabio", None)
    with pytest.raises(MissingDependency, match=r"xsmall\[images\]"):
        xs.open_frames(tmp_path / "a_0.edf")


def pages_to(path: Path, words: np.ndarray, compression: str | None = None) -> Path:
    image = pytest.importorskip("PIL.Image")
    pages = [image.fromarray(page) for page in words]
    pages[0].save(path, save_all=True, append_images=pages[1:], **({"compression": compression} if compression else {}))
    return path


@pytest.mark.parametrize("compression", ["tiff_lzw", "tiff_deflate", "packbits"])
@pytest.mark.parametrize("dtype", ["u1", "u2", "i4", "f4"])
def test_compressed_pages_are_read_as_they_were_written(tmp_path: Path, compression: str, dtype: str) -> None:
    pytest.importorskip("fabio")
    words = (np.arange(5 * 8 * 16).reshape(5, 8, 16) * 3).astype(dtype)
    raw = xs.open_frames(pages_to(tmp_path / "m.tif", words, compression))
    assert raw.dtype == dtype
    np.testing.assert_array_equal(raw.values[:, 0], words)
    (tmp_path / "m.tif").write_bytes((tmp_path / "m.tif").read_bytes()[:-900])
    with pytest.raises(FileFormatError, match=r"m\.tif"):
        xs.open_frames(tmp_path / "m.tif").compute()


@pytest.mark.parametrize("dtype", ["i1", "i2", "u4", "f8", ">u2", ">i4", ">f4"])
def test_compressed_pages_of_any_type_are_right_or_refused(tmp_path: Path, dtype: str) -> None:
    tifffile = pytest.importorskip("tifffile")
    pytest.importorskip("fabio")
    words = (np.random.default_rng(1).integers(0, 2**31, (2, 16, 24)) * 2 + 1).astype(dtype)
    how = {"compression": "deflate", "byteorder": ">" if ">" in dtype else "<", "photometric": "minisblack"}
    tifffile.imwrite(tmp_path / "m.tif", words, **how)
    try:
        found = xs.open_frames(tmp_path / "m.tif")
    except FileFormatError as error:
        assert dtype in ("f8", ">i4", ">f4")
        assert "ompress" in str(error)  # noqa: PT017
    else:
        np.testing.assert_array_equal(found.values[:, 0], words)


def test_files_of_several_images_give_them_all(tmp_path: Path) -> None:
    """Headers of NumPy files tell of their first image alone."""
    pytest.importorskip("fabio")
    words = np.arange(5 * 8 * 16, dtype="u2").reshape(5, 8, 16)
    pages_to(tmp_path / "m.tif", words)
    np.save(tmp_path / "m.npy", words)
    for name in ("m.tif", "m.npy"):
        np.testing.assert_array_equal(xs.open_frames(tmp_path / name).values[:, 0], words)
        again = tmp_path / f"again.{name}"
        again.write_bytes((tmp_path / name).read_bytes())
        both = xs.open_frames([tmp_path / name, again])
        np.testing.assert_array_equal(both[5:].values[:, 0], words)


@pytest.mark.parametrize("ending", ["edf", "cbf", "tif"])
def test_an_image_that_was_cut_gives_no_number(tmp_path: Path, ending: str) -> None:
    fabio = pytest.importorskip("fabio")
    kind = {"edf": fabio.edfimage.EdfImage, "cbf": fabio.cbfimage.CbfImage, "tif": fabio.tifimage.TifImage}[ending]
    for k in range(2):
        kind(data=WORDS[k].astype("i4")).write(str(tmp_path / f"{k}.{ending}"))
    whole = xs.open_frames(str(tmp_path / f"*.{ending}"))
    np.testing.assert_array_equal(whole.values[:, 0], WORDS[:2])
    file = tmp_path / f"1.{ending}"
    file.write_bytes(file.read_bytes()[:-100])
    with pytest.raises(FileFormatError, match=rf"1\.{ending}"):
        xs.open_frames(str(tmp_path / f"*.{ending}")).compute()


def test_images_that_differ_are_named(tmp_path: Path) -> None:
    fabio = pytest.importorskip("fabio")
    fabio.edfimage.EdfImage(data=WORDS[0]).write(str(tmp_path / "a.edf"))
    fabio.edfimage.EdfImage(data=WORDS[0, :8]).write(str(tmp_path / "b.edf"))
    with pytest.raises(DamagedDataError, match=r"(?s)b\.edf.*\(8, 24\) among images of uint16 \(16, 24\)"):
        xs.open_frames([tmp_path / "a.edf", tmp_path / "b.edf"]).compute()
    fabio.edfimage.EdfImage(data=WORDS[0].astype("u4") + (1 << 20)).write(str(tmp_path / "d.edf"))
    with pytest.raises(DamagedDataError, match=r"(?s)d\.edf.*uint32 .* among images of uint16"):  # would wrap around
        xs.open_frames([tmp_path / "a.edf", tmp_path / "d.edf"]).compute()
    fabio.edfimage.EdfImage(data=WORDS[0].astype("u1")).write(str(tmp_path / "e.edf"))
    small = xs.open_frames([tmp_path / "a.edf", tmp_path / "e.edf"])
    np.testing.assert_array_equal(small.values[1, 0], WORDS[0].astype("u1"))
    (tmp_path / "c.txt").write_text("no image")
    with pytest.raises(FileFormatError, match=r"c\.txt: no image"):
        xs.open_frames(tmp_path / "c.txt")


def test_a_mask_of_the_file_that_is_not_handed_on_is_told(
    tmp_path: Path, computing_is_forbidden: Callable[[], object]
) -> None:
    bad = np.zeros((16, 24), "u4")
    bad[3] = 1
    words = np.where(bad, 65535, WORDS).astype("u2")
    path = write(tmp_path / "a.nxs", entry__data__data=words, entry__instrument__detector__pixel_mask=bad)
    with h5py.File(path, "a") as file:
        file["entry/instrument/detector"].attrs["NX_class"] = "NXdetector"
    frames = xs.open_frames(path)
    box = xs.Box(segment=0, row=(0, 16), column=(0, 24))
    records = {"a": xs.roi(box), "b": xs.roi(box, mask=frames.usable), "c": xs.projection("row")}
    with computing_is_forbidden(), pytest.warns(UnusedMaskWarning, match=r"^a, c: 24 pixels"):  # type: ignore[attr-defined]
        frames.sd.reduce(records)
    kept = frames.sd.roi(box, mask=frames.usable)["sum"].values.ravel()  # warnings are errors
    np.testing.assert_array_equal(kept, np.where(bad, 0, WORDS).sum((1, 2)))
    mask = frames.usable.expand_dims(event=frames.event)
    frames.sd.projection("row", mask=mask)
    frames.assign_attrs(units="ADU").sd.apply(xs.droplet(4.0, 2.0, mask=frames.usable) | xs.photon(9.5))
    frames.drop_vars("usable").sd.projection("row")


def test_an_eiger_master_among_its_files_says_where_to_begin(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "a_master.h5", "w") as file:
        for k in (1, 2):
            write(tmp_path / f"a_data_{k:06d}.h5", entry__data__data=WORDS)
            file[f"entry/data/data_{k:06d}"] = h5py.ExternalLink(f"a_data_{k:06d}.h5", "/entry/data/data")
        detector = file.create_group("entry/instrument/detector")
        detector.attrs["NX_class"] = "NXdetector"
        numbers = {"beam_center_x": (12, "pixel"), "beam_center_y": (8, "pixel"), "detector_distance": (0.1, "m")}
        for name, (value, unit) in {**numbers, "x_pixel_size": (75e-6, "m"), "y_pixel_size": (75e-6, "m")}.items():
            detector[name] = value
            detector[name].attrs["units"] = unit
        detector["geometry/orientation/value"] = [-1.0, 0, 0, 0, -1, 0]
    write(tmp_path / "b.h5", entry__data__data=WORDS)
    master, pattern = tmp_path / "a_master.h5", str(tmp_path / "*.h5")
    assert xs.open_frames(str(tmp_path / "a_data_*.h5")).sizes["event"] == 24
    for paths, events in ((pattern, 36), (str(tmp_path / "a_*.h5"), 24), (tmp_path, 24)):
        with pytest.raises(FileFormatError) as told:
            xs.open_frames(paths)
        assert eval(str(told.value).split("do this:  ")[1], {"xs": xs}).sizes["event"] == events
    with pytest.raises(FileFormatError) as told:
        xs.open_run(tmp_path)
    assert eval(str(told.value).split("do this:  ")[1], {"xs": xs})["detector"].sizes["event"] == 24
    with pytest.raises(FileFormatError, match=r"(?s)no dataset.*dataset='/entry/data/data_000001'"):
        xs.open_frames(master, dataset="/entry/data/data_00001")
    assert xs.open_geometry(master).shape == (1, 16, 24)
    assert xs.open_beam(master).distance == pytest.approx(0.1)
    with pytest.raises(FileFormatError, match="no NXdetector"):
        xs.open_geometry(tmp_path / "b.h5")


def test_a_cxi_of_two_detectors_gives_each_its_own(tmp_path: Path) -> None:
    path = tmp_path / "two.cxi"
    with h5py.File(path, "w") as file:
        for k in (1, 2):
            file[f"entry_1/instrument_1/detector_{k}/data"] = WORDS + k
            file[f"entry_1/instrument_1/detector_{k}/distance"] = 0.1 * k
            file[f"entry_1/data_{k}/data"] = h5py.SoftLink(f"/entry_1/instrument_1/detector_{k}/data")
            file[f"entry_1/data_{k}/mask"] = np.full((16, 24), k - 1, "u2")
        file["entry_1/data_3/data"] = WORDS
    first = xs.open_frames(path)
    assert "/entry_1/instrument_1/detector_2/data, /entry_1/data_3/data" in first.attrs["left_out"] or (
        "/entry_1/data_3/data, /entry_1/instrument_1/detector_2/data" in first.attrs["left_out"]
    )
    for k in (1, 2):
        for name in (f"/entry_1/data_{k}/data", f"/entry_1/instrument_1/detector_{k}/data"):
            frames = xs.open_frames(path, dataset=name)
            assert frames.distance == pytest.approx(0.1 * k)
            np.testing.assert_array_equal(frames[:, 0], WORDS + k)
        assert xs.open_frames(path, dataset=f"/entry_1/data_{k}/data").usable.all() == (k == 1)
    other = xs.open_frames(path, dataset="/entry_1/data_3/data")
    assert "distance" not in other.coords
    assert "does not say which of" in other.attrs["left_out"]
    with pytest.raises(FileFormatError, match=r'(?s)which dataset.*dataset="entry_1/data_1/mask"'):
        xs.open_mask(path)
