"""Files that rot: whatever a few bytes become, what is read is right, or one error of ours names the file."""

import random
import re
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

import xsmall as xs
from xsmall.errors import GeometryError, XsmallError
from xsmall.io.stores.blocks import BlockStore

SIM = xs.simulate(4, shape=(2, 16, 32), seed=1)
VALUES = {"counts": np.arange(1000.0), "flags": np.arange(40, dtype=np.uint8)}


def geometry(path: Path) -> None:
    xs.save_geometry(SIM.geometry, path)


def constants(path: Path) -> Any:
    return xs.open_constants({"pedestal": path}, detector_type="jungfrau")


def hdf5_stack(path: Path) -> None:
    with h5py.File(path, "w") as file:
        file.create_dataset("data", data=np.arange(20 * 64).reshape(20, 8, 8), chunks=(5, 8, 8), compression="gzip")


RECIPE = """
[detectors.jungfrau]
beam = {photon_energy = "9.5 keV", distance = "92.5 mm"}
[detectors.jungfrau.reductions]
waxs = {kind = "azint", bins = 50}
"""
PEDESTAL = np.zeros((3, 2, 16, 32), np.float32)
FILES: dict[str, tuple[Callable[[Path], object], Callable[[Path], Any]]] = {
    "detector.json": (geometry, xs.open_geometry),
    "detector.geom": (geometry, xs.open_geometry),
    "detector.nxs": (geometry, xs.open_geometry),
    "detector.expt": (lambda p: xs.save_geometry(SIM.geometry, p, beam=SIM.beam), xs.open_beam),
    "mask.npy": (lambda p: np.save(p, np.ones((2, 16, 32), bool)), lambda p: xs.open_mask(p, convention="good=1")),
    "mask.txt": (lambda p: np.savetxt(p, np.ones((32, 32))), xs.open_mask),
    "mask.h5": (
        lambda p: xs.save_mask(xs.mask(SIM.run["jungfrau/raw"].sd.assign_geometry(SIM.geometry), edges=1), p),
        xs.open_mask,
    ),
    "pedestal.npy": (lambda p: np.save(p, PEDESTAL), constants),
    "stack.h5": (hdf5_stack, lambda p: xs.open_frames(p).compute()),
    "recipe.toml": (lambda p: p.write_text(RECIPE), xs.open_recipe),
}


def damaged(data: bytes, n: int) -> Iterator[bytes]:
    """The bytes with a bit flipped, cut short, with some lost, with some put in, with a number that is none."""
    rng = random.Random(7)
    numbers = [m.span() for m in re.finditer(rb"[0-9.]+", data[:4000])]
    odd = [b"nan", b"1e400", b"-1", b"abc", b"", b"9" * 20, b"[]", b"null", b"\xff"]
    for i in range(n):
        at, out = rng.randrange(len(data)), bytearray(data)
        if i % 5 == 0:
            out[at] ^= 1 << rng.randrange(8)
        elif i % 5 == 1:
            del out[at:]
        elif i % 5 == 2:
            del out[at : at + rng.randrange(1, 20)]
        elif i % 5 == 3:
            out[at:at] = rng.randbytes(4)
        elif numbers:
            start, stop = rng.choice(numbers)
            out[start:stop] = rng.choice(odd)
        yield bytes(out)


@pytest.mark.parametrize("name", FILES)
def test_a_damaged_file_opens_or_is_named(name: str, tmp_path: Path) -> None:
    write, read = FILES[name]
    path = tmp_path / name
    write(path)
    read(path)
    errors = []
    for data in damaged(path.read_bytes(), 40):
        path.write_bytes(data)
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                read(path)
        except XsmallError as error:
            errors.append(str(error))
    assert errors
    assert all(path.name in error or "'pedestal'" in error for error in errors)


def test_a_geometry_of_ours_has_not_changed_in_silence(tmp_path: Path) -> None:
    path = xs.save_geometry(SIM.geometry, tmp_path / "detector.json")
    text = path.read_text()
    for old, new in (("e-05", "e-04"), ("0.0", "0.1"), ('"token": ', '"token": 1')):
        assert old in text
        path.write_text(text.replace(old, new, 1))
        with pytest.raises(GeometryError, match="changed since it was written"):
            xs.open_geometry(path)
    lines = text.replace("e-05", "e-04", 1).splitlines()
    path.write_text("\n".join(line for line in lines if '"token"' not in line))  # as the error says
    assert xs.open_geometry(path) != SIM.geometry


@pytest.mark.parametrize("kind", ["blocks", "lanes"])
def test_parts_of_a_result_are_right_or_made_again(kind: str, tmp_path: Path) -> None:
    if kind == "blocks":
        blocks = BlockStore(tmp_path / "parts")
        blocks.begin({})
        blocks.write("a", VALUES, {})
        read: Callable[[], Any] = lambda: {name: blocks.read("a", name) for name in VALUES}  # noqa: E731
    else:
        lanes = xs.lane_store(tmp_path / "parts")
        lanes.agree("cube", {"what": "a cube"})
        lanes.put("cube/a", VALUES)
        read = lambda: lanes.get("cube/a")  # noqa: E731
    (file,) = (tmp_path / "parts").rglob("*.npz")
    errors = []
    for data in damaged(file.read_bytes(), 120):
        file.write_bytes(data)
        try:
            found = read()
        except XsmallError as error:
            errors.append(str(error))
            continue
        if found is not None:
            for name, values in VALUES.items():
                np.testing.assert_array_equal(found[name], values)
    assert all(str(file) in error for error in errors)
