"""Mask files of other programs, there and back."""

import errno
import importlib
import os
import tempfile
import warnings
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import xarray as xr
from hypothesis import given, settings
from hypothesis import strategies as st

import xsmall as xs
from xsmall.errors import DataError, FileFormatError, ParameterError, WriteError
from xsmall.frames.pixels import assign_geometry
from xsmall.vocabulary import PIXEL_DIMS, Reason

SHAPE = (2, 5, 6)


def detector() -> xs.Geometry:
    return xs.Geometry.from_panels(
        [xs.Panel((0, 1e-3 * i, 0.1), (0, -1e-4, 0), (1e-4, 0, 0), SHAPE[1:]) for i in range(2)]
    )


@pytest.fixture
def flags() -> xr.DataArray:
    out = xs.mask(detector(), edges=1)
    for i, reason in enumerate((Reason.DEAD, Reason.HOT, Reason.NOISY, Reason.SHADOW, Reason.USER | Reason.DEAD)):
        out[1, 2, i] |= int(reason)
    return out


@pytest.mark.parametrize(
    ("name", "convention"),
    [
        *(("mask.data", None), ("mask.txt", "bad=1"), ("mask.npy", "good=1"), ("mask.npy", "flags")),
        *(
            ("mask.npy", "xsmall"),
            ("mask.nxs", None),
            ("mask.h5", "euxfel"),
            ("mask.npy", "nexus"),
            ("mask.h5", "bad=1"),
        ),
    ],
)
def test_which_pixels_are_used_survives_every_file(
    tmp_path: Path, flags: xr.DataArray, name: str, convention: str | None
) -> None:
    xs.save_mask(flags, tmp_path / name, convention=convention)
    back = xs.open_mask(tmp_path / name, convention=convention)
    assert back.dims == PIXEL_DIMS
    np.testing.assert_array_equal(back == 0, flags == 0)
    if convention == "xsmall":
        np.testing.assert_array_equal(back, flags)
    labelled = xs.open_mask(tmp_path / name, detector(), convention=convention)
    assert "geometry" in labelled.coords
    np.testing.assert_array_equal(labelled, back)
    assert labelled.attrs["flag_meanings"] == flags.attrs["flag_meanings"]
    xs.save_mask(flags == 0, tmp_path / f"again_{name}", convention=convention)
    again = xs.open_mask(tmp_path / f"again_{name}", convention=convention)
    np.testing.assert_array_equal(again == 0, flags == 0)


def test_reasons_that_the_other_program_knows_survive(tmp_path: Path, flags: xr.DataArray) -> None:
    xs.save_mask(flags, tmp_path / "mask.nxs")
    back = xs.open_mask(tmp_path / "mask.nxs")
    for reason in (Reason.DEAD, Reason.HOT, Reason.NOISY):
        np.testing.assert_array_equal((back & int(reason)) != 0, (flags & int(reason)) != 0)


def test_bits_of_nexus_are_read_as_the_standard_says(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "mask.nxs", "w") as file:
        group = file.create_group("entry/instrument/eiger")
        group["pixel_mask"] = np.array([[0, 1, 2, 4, 8, 16, 64, 256, 1 << 31, 1 << 16]], dtype=np.uint32)
        group["pixel_mask_2"] = np.array([[256, 0, 0, 0, 0, 0, 0, 0, 0, 0]], dtype=np.uint32)
    other, user = int(Reason.OTHER_STATUS), int(Reason.USER)
    back = xs.open_mask(tmp_path / "mask.nxs").values.ravel()
    expected = [user, other, int(Reason.DEAD), other, int(Reason.HOT), int(Reason.NOISY), other, user, 0, 0]
    assert back.tolist() == expected


def test_bad_pixels_of_the_european_xfel_are_bad_in_any_memory_cell(tmp_path: Path) -> None:
    words = np.zeros((5, 6, 3), dtype=np.uint32)
    words[1, 2, 0], words[3, 4, 2], words[0, 0, 1] = 1 << 1, 1 << 30, 1 << 22
    with h5py.File(tmp_path / "bad.h5", "w") as file:
        file["BadPixelsDark/0/data"] = words
    back = xs.open_mask(
        tmp_path / "bad.h5",
        convention="euxfel",
        dataset="BadPixelsDark/0/data",
        dims=("row", "column", "memory_cell"),
    )
    assert back.shape == (1, 5, 6)
    assert int(back[0, 1, 2]) == Reason.NOISY
    assert int(back[0, 3, 4]) == Reason.USER
    assert int((back != 0).sum()) == 2


def test_a_mask_of_the_whole_detector_serves_a_slice(tmp_path: Path, flags: xr.DataArray) -> None:
    xs.save_mask(flags, tmp_path / "mask.npy", convention="xsmall")
    data = assign_geometry(xr.DataArray(np.zeros((3, *SHAPE)), dims=("event", *PIXEL_DIMS)), detector())
    part = data.isel(segment=[1], row=slice(1, 4))
    back = xs.open_mask(tmp_path / "mask.npy", part, convention="xsmall")
    np.testing.assert_array_equal(back, flags.isel(segment=[1], row=slice(1, 4)))


def test_text_of_psana_is_read_with_and_without_its_header(tmp_path: Path) -> None:
    good = np.random.default_rng(0).integers(0, 2, SHAPE)
    header = "\n".join(
        ["TITLE pixel_mask", "DTYPE int32", "NDIM 3", *(f"DIM:{i + 1} {n}" for i, n in enumerate(SHAPE))]
    )
    np.savetxt(tmp_path / "mask.data", good.reshape(-1, 6), fmt="%2d", header=header)
    np.testing.assert_array_equal(xs.open_mask(tmp_path / "mask.data") == 0, good == 1)
    np.savetxt(tmp_path / "bare.data", good.reshape(-1, 6), fmt="%2d")
    np.testing.assert_array_equal(xs.open_mask(tmp_path / "bare.data", detector()) == 0, good == 1)


@pytest.mark.filterwarnings("default")
def test_psana_reads_the_text_that_is_written(tmp_path: Path, flags: xr.DataArray) -> None:
    os.environ.setdefault("PS_PARALLEL", "none")  # otherwise psana starts MPI when it is imported
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            reader = importlib.import_module("psana.pscalib.calib.NDArrIO")
        except (ImportError, RuntimeError) as error:
            pytest.skip(f"psana is not installed: {error}")
    xs.save_mask(flags, tmp_path / "mask.data")
    np.testing.assert_array_equal(reader.load_txt(str(tmp_path / "mask.data")), (flags == 0).values)


def test_invalid_arguments_are_refused(tmp_path: Path, flags: xr.DataArray) -> None:
    np.save(tmp_path / "ones.npy", np.ones(SHAPE, dtype=np.uint8))
    with pytest.raises(ParameterError, match="what the numbers"):
        xs.open_mask(tmp_path / "ones.npy")
    with pytest.raises(ParameterError, match="unknown convention"):
        xs.open_mask(tmp_path / "ones.npy", convention="ones")
    with pytest.raises(ParameterError, match="what the numbers"):
        xs.save_mask(flags, tmp_path / "new.npy")
    with pytest.raises(ParameterError, match="unknown kind"):
        xs.open_mask(tmp_path / "mask.tif", convention="good=1")
    with pytest.raises(ParameterError, match="read, not written"):
        xs.save_mask(flags, tmp_path / "new.npy", convention="psana2")
    with pytest.raises(DataError, match="another shape"):
        xs.open_mask(
            tmp_path / "ones.npy", xs.mask(detector()).isel(row=slice(1, 3)).drop_vars("geometry"), convention="good=1"
        )
    with pytest.raises(DataError, match="one mask"):
        xs.save_mask(flags.isel(segment=0), tmp_path / "new.data")
    np.save(tmp_path / "four.npy", np.ones((3, *SHAPE), dtype=bool))
    with pytest.raises(DataError, match="axes"):
        xs.open_mask(tmp_path / "four.npy")
    xs.save_mask(flags, tmp_path / "mask.h5")
    with pytest.raises(FileFormatError, match="already"):
        xs.save_mask(flags, tmp_path / "mask.h5")
    with pytest.raises(FileFormatError, match="no dataset"):
        xs.open_mask(tmp_path / "mask.h5", dataset="nothing")


@pytest.mark.parametrize("name", ["mask.data", "mask.npy", "mask.h5"])
def test_files_that_are_something_else_are_named(tmp_path: Path, name: str) -> None:
    with pytest.raises(FileFormatError, match=name):
        xs.open_mask(tmp_path / name, convention="flags")
    (tmp_path / name).write_bytes(b"\x93NUMPY nothing of the kind 1 2 x\n")
    with pytest.raises(FileFormatError, match=name):
        xs.open_mask(tmp_path / name, convention="flags")
    with h5py.File(tmp_path / "empty.h5", "w"):
        pass
    with pytest.raises(FileFormatError, match="which dataset"):
        xs.open_mask(tmp_path / "empty.h5")


@pytest.mark.parametrize("word", ["inf", "nan", "-inf", "1e400", "1e30", "0.5"])
def test_numbers_that_are_no_integers_are_no_mask(tmp_path: Path, word: str) -> None:
    path = tmp_path / "mask.data"
    path.write_text(f"1 1 0\n1 {word} 1\n")
    with pytest.raises(FileFormatError, match=r"mask\.data"):
        xs.open_mask(path)


@settings(max_examples=150, deadline=None)
@given(text=st.one_of(st.binary(max_size=80), st.text("# DIM:NTYPE0123456789.-+eE\n\t", max_size=80).map(str.encode)))
def test_no_text_does_anything_but_give_a_mask_or_an_error_that_names_the_file(text: bytes) -> None:
    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of NumPy, about files without data
        path = Path(folder) / "mask.data"
        path.write_bytes(text)
        try:
            assert xs.open_mask(path).dtype == np.uint32
        except xs.XsmallError as error:
            said = str(error)
        else:
            said = "mask"
    assert "mask" in said


@pytest.mark.parametrize("name", ["mask.data", "mask.npy", "mask.h5"])
def test_a_disk_that_is_full_leaves_what_was_there(
    tmp_path: Path, flags: xr.DataArray, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*args: Any, **kwargs: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    before = b""
    if name != "mask.h5":
        xs.save_mask(flags, tmp_path / name, convention="good=1")
        before = (tmp_path / name).read_bytes()
    monkeypatch.setattr("xsmall.io.stores.place.sync", full)
    with pytest.raises(WriteError, match="No space left"):
        xs.save_mask(flags == 0, tmp_path / name, convention="good=1")
    there = list(tmp_path.iterdir())
    assert [p.read_bytes() for p in there] == ([before] if before else [])


@pytest.mark.parametrize("name", ["mask.data", "mask.npy", "mask.h5"])
def test_pixels_are_written_by_their_labels(tmp_path: Path, name: str) -> None:
    good = np.random.default_rng(0).random((2, 4, 6)) > 0.3
    mask = xr.DataArray(good, {"segment": [0, 1], "row": np.arange(4)}, ("segment", "row", "column"))
    turned = mask.isel(segment=[1, 0], row=slice(None, None, -1)).transpose("column", "row", "segment")
    for one, path in ((mask, tmp_path / f"a-{name}"), (turned, tmp_path / f"b-{name}")):
        xs.save_mask(one, path, convention="good=1")
        found = xs.open_mask(path, convention=None if name == "mask.data" else "good=1")
        np.testing.assert_array_equal((found == 0).values.reshape(good.shape), good)
    with pytest.raises(DataError, match=r"part of the detector(.*\n)*.*drop_vars"):
        xs.save_mask(mask.isel(row=slice(1, 3)), tmp_path / name, convention="good=1")
    xs.save_mask(mask.isel(row=slice(1, 3)).drop_vars("row"), tmp_path / name, convention="good=1")  # as it says
