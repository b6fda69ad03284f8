"""Writing runs: complete or not there, in bounded memory, as they were."""

import tracemalloc
from pathlib import Path

import h5py
import numpy as np
import pytest
import xarray as xr
import zarr

import xsmall as xs
from xsmall.errors import DataError, ParameterError
from xsmall.events.ragged import object_array, ragged_attrs
from xsmall.io.stores.runs import write_run

FORMATS = ["zarr", "h5"]


def unsourced(run: xr.DataTree) -> xr.DataTree:
    """The run without the path that its frames say they came from."""
    bare = run.copy()
    for node in bare.subtree:
        for variable in node.data_vars:
            node[variable].attrs.pop("source", None)
    return bare


def assert_same_run(found: xr.DataTree, expected: xr.DataTree) -> None:
    xr.testing.assert_identical(unsourced(found), unsourced(expected))


@pytest.fixture(scope="module")
def simulated() -> xr.DataTree:
    return xs.simulate(23, seed=3).run


@pytest.mark.parametrize("kind", FORMATS)
def test_chunks_on_disk_are_whole_frames_and_lazy_chunks_whole_chunks(
    tmp_path: Path, simulated: xr.DataTree, kind: str
) -> None:
    path = write_run(simulated, tmp_path / f"run.{kind}", chunk_events=4, compress=False)
    if kind == "zarr":
        assert zarr.open_group(path, mode="r")["jungfrau/raw"].chunks == (4, 4, 128, 256)
    else:
        with h5py.File(path) as file:
            assert file["jungfrau/raw"].chunks == (4, 4, 128, 256)
    assert xs.open_run(path, chunks=6)["jungfrau/raw"].chunks[0] == (8, 8, 7)
    assert xs.open_run(path, chunks="1 MB")["jungfrau/raw"].chunks[0] == (4, 4, 4, 4, 4, 3)
    assert_same_run(xs.open_run(path, chunks=6), simulated)


@pytest.mark.parametrize("kind", FORMATS)
def test_lazy_chunks_that_do_not_fit_the_disk_are_cut_again(tmp_path: Path, simulated: xr.DataTree, kind: str) -> None:
    odd = simulated.copy()
    odd["jungfrau"] = xr.DataTree(simulated["jungfrau"].to_dataset().chunk({"event": 5, "row": 100}))
    path = write_run(odd, tmp_path / f"run.{kind}", chunk_events=3)
    assert_same_run(xs.open_run(path), simulated)


@pytest.mark.parametrize("kind", FORMATS)
def test_a_run_in_memory_can_be_written(tmp_path: Path, simulated: xr.DataTree, kind: str) -> None:
    loaded = simulated.map_over_datasets(lambda node: node.compute())
    assert_same_run(xs.open_run(write_run(loaded, tmp_path / f"run.{kind}")), simulated)


def test_writing_replaces_nothing_unasked_and_leaves_no_half_run(tmp_path: Path, simulated: xr.DataTree) -> None:
    path = write_run(simulated, tmp_path / "run.zarr")
    with pytest.raises(ParameterError, match="overwrite=True"):
        write_run(simulated, path)
    write_run(simulated.isel(event=slice(0, 3)), path, overwrite=True)
    assert xs.open_run(path)["events"].sizes["event"] == 3
    broken = simulated.copy()
    raw = broken["jungfrau/raw"]
    broken["jungfrau/raw"] = raw.copy(data=raw.data.map_blocks(lambda x: 1 // 0, dtype=raw.dtype, meta=raw.data._meta))
    with pytest.raises(ZeroDivisionError):
        write_run(broken, path, overwrite=True)
    assert xs.open_run(path)["events"].sizes["event"] == 3


def test_invalid_arguments_are_refused(tmp_path: Path, simulated: xr.DataTree) -> None:
    with pytest.raises(ParameterError, match="the ending of the path says the format"):
        write_run(simulated, tmp_path / "run.txt")
    with pytest.raises(ParameterError, match=r"(?s)no compression of .zarr files.*lzma"):
        write_run(simulated, tmp_path / "run.zarr", compress="lzma")
    with pytest.raises(ParameterError, match=r"(?s)no compression of .h5 files.*zstd"):
        write_run(simulated, tmp_path / "run.h5", compress="zstd")
    with pytest.raises(ParameterError, match="at least one event"):
        write_run(simulated, tmp_path / "run.h5", chunk_events=0)
    with pytest.raises(DataError, match="events have no labels"):
        write_run(simulated.map_over_datasets(lambda n: n.drop_vars("event", errors="ignore")), tmp_path / "a.zarr")


@pytest.mark.parametrize("kind", FORMATS)
def test_writing_holds_a_few_chunks_whatever_the_length(tmp_path: Path, kind: str) -> None:
    import dask
    import dask.array as da

    frames = da.random.default_rng(1).integers(0, 1 << 14, (200, 1, 256, 512), np.uint16, chunks=(4, 1, 256, 512))
    times = np.arange(200).astype("M8[ns]")
    raw = xr.DataArray(frames, dims=("event", "segment", "row", "column"), coords={"event": times})
    tree = xr.DataTree.from_dict({"/det": raw.to_dataset(name="raw")})
    write_run(tree.isel(event=slice(0, 4)), tmp_path / f"warm.{kind}", chunk_events=4)  # what imports hold is no matter
    tracemalloc.start()
    with dask.config.set(scheduler="threads", num_workers=2):
        path = write_run(tree, tmp_path / f"run.{kind}", chunk_events=4)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < raw.nbytes / 3
    np.testing.assert_array_equal(xs.open_run(path)["det/raw"][100:104], frames[100:104].compute())


@pytest.mark.parametrize("ending", ["zarr", "h5"])
def test_one_list_of_a_run_is_computed_by_itself(tmp_path: Path, ending: str) -> None:
    times = np.datetime64("2026-01-01", "ns") + np.arange(5)
    lists = object_array([np.arange(k, dtype="f4") for k in range(10)], (5, 2))
    attrs = ragged_attrs("peak", np.dtype("f4"))
    hsd = xr.Dataset({"peaks": (("event", "segment"), lists, attrs)}, {"event": times})
    tree = xr.DataTree.from_dict({"/": xr.Dataset(), "/events": xr.Dataset(coords={"event": times}), "/hsd": hsd})
    peaks = xs.open_run(write_run(tree, tmp_path / f"run.{ending}"))["hsd/peaks"]
    np.testing.assert_array_equal(peaks[3, 1].compute().item(), np.arange(7))
    np.testing.assert_array_equal(peaks[0, 0].compute().item(), [])
    assert [len(x) for x in peaks[2].compute().values] == [4, 5]
    whole = peaks.compute()
    assert [len(x) for x in whole.values.ravel()] == list(range(10))
    assert type(whole.values[3, 1]) is np.ndarray
    np.testing.assert_array_equal(whole[3, 1].item(), np.arange(7))
