"""Removing or corrupting any one file of a store never changes a number in silence: tried file by file."""

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
    if harm is not remove:  # descriptions are JSON without a checksum: most damage to them is an error, not all
        files = [file for file in files if file.name != "zarr.json"]
    assert len(files) > 3
    for file in files:
        shutil.rmtree(copy, ignore_errors=True)
        shutil.copytree(store, copy)
        harm(copy / file.relative_to(store))
        yield copy


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


@pytest.mark.parametrize("harm", [remove, flip, cut])
def test_no_chunk_of_constants_changes_a_number_in_silence(tmp_path: Path, harm: Callable[[Path], None]) -> None:
    store = xs.save(RUN.constants, tmp_path / "constants.zarr")
    whole = xs.open_constants(store).load()
    errors: list[str] = []
    for copy in broken_copies(store, harm):
        try:
            found = xs.open_constants(copy).load()
        except XsmallError as error:
            errors.append(str(error))
            continue
        xr.testing.assert_equal(found, whole)
    assert all(store.name in error for error in errors)
