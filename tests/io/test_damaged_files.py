"""Constants and masks in files that are damaged or declare what they do not hold: one error of ours, with the path."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import xarray as xr

import xsmall as xs
from xsmall.errors import FileFormatError, GeometryError, MissingDependency

SIM = xs.simulate(4, shape=(2, 16, 32), seed=1)


def npy_that_claims(path: Path, shape: str) -> None:
    head = f"{{'descr': '<f8', 'fortran_order': False, 'shape': {shape}, }}".encode().ljust(117)
    path.write_bytes(b"\x93NUMPY\x01\x00v\x00" + head + b"\n")


def hdf5(path: Path, fill: Callable[[Any], object]) -> None:
    with h5py.File(path, "w") as file:
        fill(file)


def npy(*args: Any) -> Callable[[Path], Any]:
    def open_it(path: Path) -> Any:
        return xs.open_constants({"pedestal": path}, detector_type="jungfrau")

    return open_it


def plain(path: Path) -> Any:
    return xs.open_constants(path, detector_type="jungfrau")


FILES: dict[str, tuple[str, Callable[[Path], object], Callable[[Path], Any]]] = {
    "empty npy": ("p.npy", lambda p: p.write_bytes(b""), npy()),
    "npy of 800 GB": ("p.npy", lambda p: npy_that_claims(p, "(100000000000,)"), npy()),
    "link to no HDF5": (
        "c.h5", lambda p: hdf5(p, lambda f: f.__setitem__("pedestal", h5py.ExternalLink("/etc/hostname", "/x"))), plain
    ),
    "pedestal of 77 TB": (
        "c.h5",
        lambda p: hdf5(
            p, lambda f: f.create_dataset("pedestal", (3, 1000, 40000, 80000), "f8", chunks=(1, 1, 1000, 1000))
        ),
        plain,
    ),
    "pedestal that was never written": (
        "c.h5", lambda p: hdf5(p, lambda f: f.create_dataset("pedestal", (3, 2, 16, 32), "f8", chunks=(1, 1, 16, 32))),
        plain,
    ),
    "mask that was never written": (
        "m.h5", lambda p: hdf5(p, lambda f: f.create_dataset("pixel_mask", (2, 16, 32), "u4", chunks=(1, 16, 32))),
        xs.open_mask,
    ),
    "mask of 800 GB": ("m.npy", lambda p: npy_that_claims(p, "(100000000000,)"), xs.open_mask),
}  # fmt: skip


@pytest.mark.parametrize("kind", FILES)
def test_a_damaged_file_is_named(kind: str, tmp_path: Path) -> None:
    name, make, act = FILES[kind]
    path = tmp_path / name
    make(path)
    with pytest.raises(FileFormatError, match=name):
        act(path)


@pytest.mark.parametrize("ending", ["zarr", "nc"])
def test_constants_that_were_cut_are_refused(ending: str, tmp_path: Path) -> None:
    path = xs.save(SIM.constants, tmp_path / f"constants.{ending}")
    xr.testing.assert_equal(xs.open_constants(path).compute(), SIM.constants)
    if ending == "nc":
        os.truncate(path, path.stat().st_size * 2 // 3)
    else:
        next(iter(sorted((path / "status").rglob("c/*/*/*/*")))).unlink()
    with pytest.raises(FileFormatError, match=path.name):
        xs.open_constants(path)


def test_constants_with_a_rotten_chunk_stop_what_uses_them(tmp_path: Path) -> None:
    path = xs.save(SIM.constants, tmp_path / "constants.zarr")
    next(iter(sorted((path / "pedestal").rglob("c/*/*/*/*")))).write_bytes(b"rot")
    cal = SIM.run["jungfrau/raw"].sd.calibrate(xs.open_constants(path))
    with pytest.raises(FileFormatError, match=r"constants\.zarr, pedestal/c"):
        cal.compute()


def test_a_rule_of_many_brackets_is_no_geometry() -> None:
    with pytest.raises(GeometryError):
        xs.Geometry.from_json("[" * 100_000 + "]" * 100_000)


def test_a_filter_that_is_not_there_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "c.h5"
    hdf5plugin = pytest.importorskip("hdf5plugin")
    with h5py.File(path, "w") as file:
        file.create_dataset("pedestal", data=np.ones((1, 16, 32)), chunks=(1, 16, 32), **hdf5plugin.Bitshuffle())
    monkeypatch.setattr(h5py.h5z, "filter_avail", lambda code: code < 1000)
    monkeypatch.setitem(__import__("sys").modules, "hdf5plugin", None)
    with pytest.raises(MissingDependency, match=r"(?s)c\.h5: /pedestal.*bitshuffle \(32008\).*xsmall\[hdf5\]"):
        plain(path)
