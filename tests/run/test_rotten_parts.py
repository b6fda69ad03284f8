"""Whatever one file of a production or of a cube that goes on has become: the same bits in the end, or an error."""

import shutil
import warnings
from collections.abc import Iterator
from pathlib import Path

import dask.array as da
import numpy as np
import pytest
import xarray as xr

import xsmall as xs
from tests.run.conftest import files_of
from xsmall.errors import XsmallError
from xsmall.io.stores.runs import write_run


def harmed(data: bytes, places: int) -> Iterator[bytes | None]:
    """What becomes of a file: nothing is left, the half, or one bit is another, at some places."""
    yield None
    yield data[: len(data) // 2]
    for at in range(len(data) // (2 * places), len(data), len(data) // places + 1):
        yield data[:at] + bytes([data[at] ^ 1 << at % 7]) + data[at + 1 :]


def each_file_harmed(folder: Path, kept: Path, places: int) -> Iterator[Path]:
    """The folder with one file harmed, in every way in turn; the rest as it was kept."""
    shutil.copytree(folder, kept)
    for file in sorted(p.relative_to(kept) for p in kept.rglob("*") if p.is_file()):
        for data in harmed((kept / file).read_bytes(), places):
            shutil.rmtree(folder)
            shutil.copytree(kept, folder)
            (folder / file).unlink() if data is None else (folder / file).write_bytes(data)
            yield file


@pytest.mark.filterwarnings("ignore::UserWarning")
def test_production_goes_on_to_the_same_bits(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sim = xs.simulate(12, shape=(1, 8, 16), seed=1)
    recipe = {
        "source": str(write_run(sim.run, tmp_path / "raw0012.zarr")),
        "detectors": {"jungfrau": {"reductions": {"rows": {"kind": "projection", "onto": "row"}}}},
    }
    xs.produce(recipe, 12, tmp_path / "whole")
    out = tmp_path / "out"
    with monkeypatch.context() as patch:
        patch.setattr("xsmall.run.job.save_run", lambda *_, **__: (_ for _ in ()).throw(RuntimeError("power cut")))
        assert xs.produce(recipe, 12, out)[0].state == "failed"
    whole, ends = files_of(tmp_path / "whole" / "run0012.zarr"), []
    for file in each_file_harmed(out, tmp_path / "kept", places=1):
        try:
            [state] = xs.produce(recipe, 12, out)
        except XsmallError:
            ends.append("error")
            continue
        ends.append(state.state)
        if state.state == "done":
            assert files_of(out / "run0012.zarr") == whole, file
    assert ends.count("done") > len(ends) // 2


def test_a_cube_goes_on_to_the_same_bits(tmp_path: Path) -> None:
    n = 300
    times = np.datetime64("2026-01-01", "ns") + np.arange(n)
    small = xr.Dataset({"on": ("event", np.arange(n) % 3 == 0)}, {"event": times})
    made = np.random.default_rng(1).normal(5, 1, (n, 1, 4, 6))
    frames = xr.DataArray(da.from_array(made, (64, 1, 4, 6)), {"event": times}, ("event", "segment", "row", "column"))

    def cube() -> xr.Dataset:
        store = xs.lane_store(tmp_path / "lanes")
        found: xr.Dataset = small.sd.cube({"on": xs.categories()}, images={"j": frames}, store=store).compute()
        return found

    whole = cube()
    ends = []
    for file in each_file_harmed(tmp_path / "lanes", tmp_path / "kept", places=2):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            try:
                found = cube()
            except XsmallError:
                ends.append("error")
                continue
        ends.append("done")
        for name in whole.data_vars:
            assert found[name].values.tobytes() == whole[name].values.tobytes(), (file, name)
    assert ends.count("done") > len(ends) // 2
