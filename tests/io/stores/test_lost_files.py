"""Removing or corrupting any one file of a store never changes a number in silence: tried file by file."""

import json
import os
import shutil
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import xarray as xr

import xsmall as xs
from xsmall.errors import XsmallError

RUN = xs.simulate(8, shape=(1, 8, 8), seed=2)


def remove(file: Path) -> None:
    file.unlink()


def flip(file: Path) -> None:
    data = bytearray(file.read_bytes())
    data[len(data) // 2] ^= 1
    file.write_bytes(data)


def cut(file: Path) -> None:
    file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])


def broken_copies(store: Path, harm: Callable[[Path], None]) -> Iterator[Path]:
    copy = store.with_name(f"copy-{store.name}")
    files = sorted(p for p in store.rglob("*") if p.is_file())
    assert len(files) > 3
    shutil.copytree(store, copy)
    for file in files:
        harmed = copy / file.relative_to(store)
        harm(harmed)
        if (copy / "zarr.json").exists():
            os.utime(copy / "zarr.json")  # it is known by its time, and another store each time
        yield copy
        shutil.copy(file, harmed)


def values_of(run: xr.DataTree) -> dict[str, np.ndarray]:
    """All values of a run; frames that are flagged as missing or damaged are told apart from frames."""
    out = {}
    for node in run.subtree:
        dataset = node.to_dataset(inherit=False)
        for name, x in dataset.variables.items():
            out[f"{node.path}/{name}"] = np.asarray(x.values)
    return out


def changed_in_silence(run: xr.DataTree, whole: dict[str, np.ndarray]) -> list[str]:
    """Names of variables whose values differ although nothing says so."""
    found = values_of(run)
    told = str(run.attrs) + str({n.path: n.attrs for n in run.subtree})
    changed = []
    for name, values in whole.items():
        if name.endswith(("/present", "/damage")):
            continue
        if name not in found:
            changed += [] if name.rpartition("/")[2] in told else [name]
        elif values.dtype.kind == "f":
            lost = np.isnan(found[name])
            changed += [] if np.array_equal(found[name][~lost], values[~lost]) else [name]
        elif not np.array_equal(found[name], values):
            group = name.rpartition("/")[0]
            present = found.get(f"{group}/present")
            events = present.all(axis=1) if present is not None else np.ones(len(values), bool)
            flagged = present is not None and np.array_equal(found[name][events], values[events])
            changed += [] if flagged or name.rpartition("/")[2] in told else [name]
    return changed


@pytest.mark.parametrize("harm", [remove, flip, cut])
def test_no_chunk_of_a_run_changes_a_number_in_silence(tmp_path: Path, harm: Callable[[Path], None]) -> None:
    store = xs.save(RUN.run, tmp_path / "run.zarr")
    whole = values_of(xs.open_run(store))
    silent: list[str] = []
    errors: list[str] = []
    for copy in broken_copies(store, harm):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            try:
                silent += changed_in_silence(xs.open_run(copy), whole)
            except XsmallError as error:
                errors.append(str(error))
    assert not silent
    assert all(store.name in error for error in errors)


EVENTS = {"event": np.datetime64("2026-01-01", "ns") + np.arange(6) * np.timedelta64(1, "ms")}
SMALL = xr.Dataset(
    {
        "sum": ("event", np.arange(6.0), {"units": "keV"}),
        "laser_on": ("event", np.arange(6) % 2 == 0),
        "count": ("event", np.arange(6)),
        "note": ("event", np.array([f"shot {i}" for i in range(6)])),
        "distance": ((), 0.1, {"units": "m"}),
        "names": ((), "one text"),
    },
    EVENTS,
)
TREE = xr.DataTree.from_dict({"/": SMALL, "/jungfrau": SMALL[["sum", "laser_on"]]})


def other_bits(file: Path) -> Iterator[bytes]:
    """The bytes of a file with one bit flipped, at many places."""
    data = file.read_bytes()
    for at in range(5, len(data), max(1, len(data) // 40)):
        out = bytearray(data)
        out[at] ^= 1 << at % 7
        yield bytes(out)


def opened(path: Path) -> xr.Dataset | xr.DataTree:
    """All of it in memory, by the function that is for it."""
    found = xs.open_constants(path) if "constants" in path.name else xs.open_result(path)
    if isinstance(found, xr.DataTree):
        return found.load().map_over_datasets(lambda node: node.drop_attrs(deep=False))
    return found.load().drop_attrs(deep=False)  # where it came from differs


def is_same(path: Path, whole: xr.Dataset | xr.DataTree, errors: list[str]) -> bool:
    """Whether a file opens as it was; an error is noted and is as good."""
    try:
        return bool(opened(path).identical(whole))  # type: ignore[arg-type]
    except XsmallError as error:
        errors.append(str(error))
        return True


@pytest.mark.parametrize("harm", [remove, flip, cut])
@pytest.mark.parametrize("what", ["constants", "small", "tree"])
def test_no_file_of_a_store_changes_a_number_in_silence(
    tmp_path: Path, harm: Callable[[Path], None], what: str
) -> None:
    store = xs.save({"constants": RUN.constants, "small": SMALL, "tree": TREE}[what], tmp_path / f"{what}.zarr")
    whole = opened(store)
    errors: list[str] = []
    assert all(is_same(copy, whole, errors) for copy in broken_copies(store, harm))
    assert len(errors) > 5
    assert all(store.name in error for error in errors)


@pytest.mark.parametrize("what", ["constants", "small"])
def test_no_bit_of_a_description_changes_a_number_in_silence(tmp_path: Path, what: str) -> None:
    store = xs.save({"constants": RUN.constants, "small": SMALL}[what], tmp_path / f"{what}.zarr")
    whole = opened(store)
    errors: list[str] = []
    for file in sorted(store.rglob("zarr.json"))[:4]:
        kept = file.read_bytes()
        for data in other_bits(file):
            file.write_bytes(data)
            os.utime(store / "zarr.json")
            assert is_same(store, whole, errors), file
        file.write_bytes(kept)
    assert errors


def test_a_store_that_was_changed_on_purpose_opens_as_the_error_says(tmp_path: Path) -> None:
    store = xs.save(RUN.run, tmp_path / "run.zarr")
    for file in store.rglob("zarr.json"):
        file.write_text(file.read_text().replace("ADU", "keV"))
    with pytest.raises(XsmallError, match=r"has changed since it was written(.*\n)*.*xsmall_checksum"):
        xs.open_run(store)
    root = json.loads((store / "zarr.json").read_text())
    del root["attributes"]["xsmall_checksum"]
    (store / "zarr.json").write_text(json.dumps(root))
    assert xs.open_run(store)["jungfrau/raw"].attrs["units"] == "keV"


@pytest.mark.parametrize("ending", ["zarr", "h5"])
def test_a_result_opens_as_it_was(tmp_path: Path, ending: str) -> None:
    for obj in (SMALL, TREE):
        path = xs.save(obj, tmp_path / f"a.{ending}", overwrite=True)
        xr.testing.assert_equal(xs.open_result(path), obj)
        again = xs.save(xs.open_result(path), tmp_path / f"b.{ending}", overwrite=True)
        assert "xsmall_checksum" not in xs.open_result(again).attrs
    with pytest.raises(XsmallError, match="no such file"):
        xs.open_result(tmp_path / "none.zarr")
    with pytest.raises(XsmallError, match=r"xs\.open_run"):
        xs.open_result(xs.save(RUN.run, tmp_path / f"run.{ending}"))


def test_what_is_no_store_is_not_told_to_have_lost_something(tmp_path: Path) -> None:
    (tmp_path / "deep").mkdir()
    xs.save(SMALL, tmp_path / "deep" / "small.zarr")
    (tmp_path / "text.h5").write_text("no HDF5")
    (tmp_path / "empty.zarr").mkdir()
    for name, found in (
        ("deep", "a folder without zarr.json"),
        ("empty.zarr", "a folder without zarr.json"),
        ("text.h5", "a file that is no HDF5"),
    ):
        with pytest.raises(XsmallError, match=rf"(?s){name}: no result of xsmall.*{found}"):
            xs.open_result(tmp_path / name)
    store = xs.save(TREE, tmp_path / "tree.zarr")
    (store / "zarr.json").unlink()
    with pytest.raises(XsmallError, match=r"tree\.zarr") as told:
        xs.open_result(store)
    assert "no result of xsmall" not in str(told.value)
