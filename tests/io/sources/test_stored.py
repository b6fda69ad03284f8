"""Raw Zarr and raw HDF5: what is written is opened again, value by value, and in bounded memory."""

import json
import pickle
import tracemalloc
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import xarray as xr

import xsmall as xs
from xsmall.errors import FileFormatError, ParameterError
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
def test_a_simulated_run_comes_back(tmp_path: Path, simulated: xr.DataTree, kind: str) -> None:
    run = xs.open_run(write_run(simulated, tmp_path / f"run.{kind}"))
    assert_same_run(run, simulated)
    for node, original in ((run[p], simulated[p]) for p in ("jungfrau", "events")):
        assert {n: x.dtype for n, x in node.variables.items()} == {n: x.dtype for n, x in original.variables.items()}
        assert "event" in node.xindexes
    raw = run["jungfrau/raw"]
    assert raw.chunks is not None
    assert isinstance(raw.present.variable._data, np.ndarray)


@pytest.mark.parametrize("kind", FORMATS)
def test_a_run_from_xtc2_comes_back(tmp_path: Path, xtc2: ModuleType, kind: str) -> None:
    scan = xtc2.Table(1, "scan", "raw", [("motor", "f8", 0), ("step_docstring", "text", 1)], "scan")
    config = xtc2.Table(5, "det", "config", [("a:m", "value", 0), ("LOW:m", "label", 0), ("t", "f4", 1)])
    det = [xtc2.area(s) for s in range(2)]
    frames = xtc2.frames(5, 2)
    data = xtc2.datagram(
        xtc2.CONFIGURE, 1, *map(xtc2.table, (scan, config, *det)), xtc2.block(config, 0, 0, np.arange(3))
    )
    data += xtc2.event(2, det, frames[0])
    data += xtc2.datagram(xtc2.BEGIN_STEP, 3, xtc2.block(scan, 1.5, "a step"))
    data += b"".join(xtc2.event(4 + k, det[:1], frames[k, :1], damage=1 << 5) for k in range(1, 4))
    source = tmp_path / "a.xtc2"
    source.write_bytes(data)
    original = xs.open_run(source)
    run = xs.open_run(write_run(original, tmp_path / f"run.{kind}"))
    assert_same_run(run, original)
    assert run["events/psana_timestamp"].dtype == np.uint64
    assert run["events/step_docstring"].values.tolist() == ["", "a step", "a step", "a step"]


@pytest.mark.parametrize("kind", FORMATS)
def test_the_geometry_comes_back_as_its_rule(tmp_path: Path, kind: str) -> None:
    simulation = xs.simulate(4)
    raw = simulation.run["jungfrau/raw"].sd.assign_geometry(simulation.geometry)
    raw = raw.sd.assign_beam(photon_energy=9500, distance=0.1, center=(0.0, 0.0))
    tree = xr.DataTree.from_dict({"/jungfrau": raw.to_dataset(name="raw")})
    back = xs.open_run(write_run(tree, tmp_path / f"run.{kind}"))["jungfrau/raw"]
    xr.testing.assert_identical(back.drop_attrs(deep=False).compute(), raw.drop_attrs(deep=False).compute())
    from xsmall.frames.beam import beam_of
    from xsmall.frames.pixels import geometry_of

    assert geometry_of(back) == simulation.geometry
    assert beam_of(back) == beam_of(raw)


@pytest.mark.parametrize("kind", FORMATS)
def test_a_run_without_events_comes_back(tmp_path: Path, simulated: xr.DataTree, kind: str) -> None:
    empty = simulated.isel(event=slice(0, 0))
    back = xs.open_run(write_run(empty, tmp_path / f"run.{kind}"))
    assert back["jungfrau/raw"].shape == (0, 4, 128, 256)
    assert back["events"].sizes["event"] == 0


@pytest.mark.parametrize("kind", FORMATS)
def test_opening_computes_nothing_and_reads_no_frame(
    tmp_path: Path, simulated: xr.DataTree, kind: str, no_compute: None
) -> None:
    import dask

    with dask.config.set(scheduler="synchronous"):
        path = write_run(simulated, tmp_path / f"run.{kind}", chunk_events=1, compress=False)
    tracemalloc.start()
    run = xs.open_run(path)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < run["jungfrau/raw"].nbytes / 2


@pytest.mark.parametrize("kind", FORMATS)
def test_lazy_arrays_travel_to_other_processes(tmp_path: Path, simulated: xr.DataTree, kind: str) -> None:
    raw = xs.open_run(write_run(simulated, tmp_path / f"run.{kind}"))["jungfrau/raw"]
    np.testing.assert_array_equal(pickle.loads(pickle.dumps(raw)), simulated["jungfrau/raw"])


@pytest.mark.parametrize("kind", FORMATS)
def test_two_openings_of_a_run_are_the_same_arrays(tmp_path: Path, simulated: xr.DataTree, kind: str) -> None:
    path = write_run(simulated, tmp_path / f"run.{kind}")
    name = xs.open_run(path)["jungfrau/raw"].data.name
    assert xs.open_run(path)["jungfrau/raw"].data.name == name
    write_run(xs.simulate(23, seed=4).run, path, overwrite=True)
    assert xs.open_run(path)["jungfrau/raw"].data.name != name


@pytest.mark.parametrize("kind", FORMATS)
def test_xarray_alone_reads_the_file(tmp_path: Path, simulated: xr.DataTree, kind: str) -> None:
    path = write_run(simulated, tmp_path / f"run.{kind}")
    with xr.open_datatree(path) as tree:
        assert set(tree.children) == {"events", "jungfrau"}
    with xr.open_dataset(path, group="jungfrau") as plain:
        np.testing.assert_array_equal(plain.raw, simulated["jungfrau/raw"])
        np.testing.assert_array_equal(plain.event, simulated["jungfrau/event"])


@pytest.mark.parametrize(
    "key",
    [
        ([5, 3, 3, 20],),
        ([1, 1, 3],),
        ([3, 4, 5, 12, 13],),
        (slice(None, None, -2),),
        (4, 2),
        (slice(3, 9), [0, 2], slice(10, 3, -1), 7),
    ],
    ids=str,
)
def test_hdf5_is_read_as_numpy_indexes(tmp_path: Path, simulated: xr.DataTree, key: tuple[object, ...]) -> None:
    path = write_run(simulated, tmp_path / "run.h5", chunk_events=2)
    from xsmall.io.files import identify
    from xsmall.io.sources.hdf5_array import Hdf5Array

    raw = simulated["jungfrau/raw"]
    array = Hdf5Array(identify(path), "/jungfrau/raw", raw.shape, raw.dtype)
    np.testing.assert_array_equal(array[key], raw[key])


def test_other_files_are_named_for_what_they_are_not(tmp_path: Path) -> None:
    xr.Dataset({"a": 1}).to_zarr(tmp_path / "small.zarr", consolidated=False)
    xr.Dataset({"a": 1}).to_netcdf(tmp_path / "small.h5")
    for name in ("small.zarr", "small.h5"):
        with pytest.raises(FileFormatError, match=r"not a run that xsmall can open"):
            xs.open_run(tmp_path / name)
    xr.Dataset(attrs={"xsmall_layout": "xsmall-run 99"}).to_netcdf(tmp_path / "new.h5")
    with pytest.raises(FileFormatError, match=r"(?s)newer xsmall.*99"):
        xs.open_run(tmp_path / "new.h5")
    (tmp_path / "broken.h5").write_bytes(b"\x89HDF\r\n\x1a\n" + bytes(100))
    with pytest.raises(FileFormatError, match="cannot be read"):
        xs.open_run(tmp_path / "broken.h5")
    (tmp_path / "text.txt").write_text("hello")
    (tmp_path / "folder").mkdir()
    for name in ("text.txt", "folder"):
        with pytest.raises(FileFormatError, match="not a run that xsmall can open"):
            xs.open_run(tmp_path / name)
    with pytest.raises(FileFormatError, match="no such file"):
        xs.open_run(tmp_path / "nothing.xtc2")


@pytest.mark.parametrize("chunks", [0, -3, "much", "0 MB", 2.5, True])
def test_invalid_chunks_are_refused(tmp_path: Path, xtc2: ModuleType, chunks: object) -> None:
    path = tmp_path / "a.xtc2"
    path.write_bytes(xtc2.plain_run(2)[0])
    with pytest.raises(ParameterError, match="chunks"):
        xs.open_run(path, chunks=chunks)  # type: ignore[arg-type]


def test_chunks_are_multiples_of_blocks_and_of_what_is_stored() -> None:
    from xsmall.io.sources.chunks import events_per_chunk

    assert events_per_chunk(1_000_000) == 64  # 67 would fit
    assert events_per_chunk(2_000_000) == 33
    assert events_per_chunk(100_000_000) == 1
    assert events_per_chunk(1000) % 64 == 0
    assert events_per_chunk(1_000_000, storage=10) == 60
    assert events_per_chunk(1_000_000, storage=100) == 100
    assert events_per_chunk(1000, 7, storage=4) == 8
    assert events_per_chunk(1000, "1 MB") == 960


@pytest.mark.parametrize("ending", ["zarr", "h5"])
def test_times_out_of_order_or_repeated_are_counted_in_every_result(tmp_path: Path, ending: str) -> None:
    sim = xs.simulate(6, shape=(1, 8, 8)).run
    times = sim["events"].event.values[[0, 2, 1, 3, 4, 4]]
    run = sim.map_over_datasets(lambda node: node.assign_coords(event=times) if "event" in node.coords else node)
    opened = xs.open_run(xs.save(run, tmp_path / f"run.{ending}"))
    told = {"repeated_times": 1, "out_of_order_times": 1}
    assert told.items() <= opened.attrs.items()
    sums = opened["jungfrau/raw"].assign_attrs(detector_type="camera").sd.projection("row")
    assert json.loads(sums.attrs["lost"]) == told
