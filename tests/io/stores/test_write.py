"""What one writer does in both formats: full disks, killed workers, checksums, lists, large blocks, options."""

import errno
import os
import resource
import shutil
import signal
import tracemalloc
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import dask
import dask.array as da
import h5py
import netCDF4
import numpy as np
import pytest
import xarray as xr
import zarr

import xsmall as xs
from xsmall.errors import DataError, ParameterError, WriteError
from xsmall.events.ragged import object_array, ragged_attrs
from xsmall.io.stores.runs import write_run

ENDINGS = [".zarr", ".h5"]


def opened(path: Path) -> xr.Dataset:
    return xr.open_zarr(path) if path.suffix == ".zarr" else xr.open_dataset(path, engine="netcdf4")


def noise(n: int = 40, **chunks: int) -> xr.Dataset:
    values = np.random.default_rng(1).random((n, 4096))
    made = xr.Dataset({"a": (("x", "y"), values)})
    return made.chunk(chunks) if chunks else made


@pytest.fixture
def small_files() -> Iterator[int]:
    """Files of this process may not become larger than this."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    before = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, hard))
    yield 100_000
    resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    signal.signal(signal.SIGXFSZ, before)


@pytest.mark.parametrize("ending", ENDINGS)
@pytest.mark.parametrize("chunks", [{}, {"x": 10}], ids=["held", "lazy"])
def test_where_no_more_can_be_written_the_error_names_path_and_bytes_and_the_next_save_works(
    tmp_path: Path, small_files: int, ending: str, chunks: dict[str, int]
) -> None:
    path = tmp_path / f"small{ending}"
    with pytest.raises(WriteError, match=rf"(?s){path}.*about \d+ bytes more"):
        xs.save(noise(**chunks), path)
    assert not list(tmp_path.iterdir())
    xs.save(noise(1), path)
    with opened(path) as read:
        assert read["a"].shape == (1, 4096)


@pytest.mark.parametrize("room", [0, 30])
def test_where_not_even_a_lock_has_room_nothing_is_left(tmp_path: Path, small_files: int, room: int) -> None:
    sim = xs.simulate(2, shape=(1, 8, 8))
    data, geometry = noise(1), sim.geometry
    hard = resource.getrlimit(resource.RLIMIT_FSIZE)[1]
    doors = {
        "a.zarr": lambda path: xs.save(data, path),
        "a.h5": lambda path: xs.save(data, path),
        "a.json": lambda path: xs.save_geometry(geometry, path, format="xsmall"),
        "a.toml": xs.save_hutch_table,
    }
    for name, write in doors.items():
        resource.setrlimit(resource.RLIMIT_FSIZE, (room, hard))
        try:
            with pytest.raises(WriteError, match=name):
                write(tmp_path / name)
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, (small_files, hard))
        assert not list(tmp_path.iterdir())
        write(tmp_path / name)
        for file in tmp_path.iterdir():
            shutil.rmtree(file) if file.is_dir() else file.unlink()


@pytest.mark.parametrize("ending", ENDINGS)
def test_a_full_disk_is_told_with_what_is_missing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, ending: str) -> None:
    path = tmp_path / f"small{ending}"
    full = {"now": True}
    pwrite = os.pwrite

    def no_space(fd: int, data: Any, offset: int) -> int:
        if full["now"] and len(data) > 100_000:
            raise OSError(28, "No space left on device")
        return pwrite(fd, data, offset)

    monkeypatch.setattr(os, "pwrite", no_space)
    if ending == ".zarr":
        from zarr.storage import LocalStore

        put = LocalStore.set

        async def no_space_either(self: Any, key: str, value: Any, *rest: Any) -> None:
            if full["now"] and "/c/" in key:
                raise OSError(28, "No space left on device", key)
            await put(self, key, value, *rest)

        monkeypatch.setattr(LocalStore, "set", no_space_either)
    with pytest.raises(WriteError, match=rf"(?s){path}: the disk is full.*bytes more"):
        xs.save(noise(), path)
    assert not list(tmp_path.iterdir())
    full["now"] = False
    xs.save(noise(), path)
    with opened(path) as read:
        assert read.equals(noise())


@pytest.mark.parametrize("ending", ENDINGS)
@pytest.mark.parametrize("code", [errno.EACCES, errno.EROFS])
def test_a_folder_that_may_not_be_written_to_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, ending: str, code: int
) -> None:
    open_ = os.open

    def closed(path: Any, flags: int, *rest: Any, **more: Any) -> int:
        if flags & os.O_CREAT and str(path).startswith(str(tmp_path)):
            raise OSError(code, os.strerror(code), str(path))
        return open_(path, flags, *rest, **more)

    monkeypatch.setattr(os, "open", closed)
    with pytest.raises(WriteError, match=rf"(?s){tmp_path}/small{ending}: nothing can be written here.*{tmp_path}"):
        xs.save(noise(1), tmp_path / f"small{ending}")
    assert not list(tmp_path.iterdir())


@pytest.mark.usefixtures("forked_workers")
@pytest.mark.parametrize("ending", ENDINGS)
def test_a_worker_that_is_killed_costs_its_blocks_and_nothing_else(tmp_path: Path, ending: str) -> None:
    from distributed import Client, LocalCluster

    flag = tmp_path / "killed"
    out = tmp_path / "out"
    out.mkdir()

    def once(block: np.ndarray, block_info: Any = None) -> np.ndarray:
        import os
        import signal
        import time

        time.sleep(0.02)
        if block_info[0]["chunk-location"][0] == 7 and not flag.exists():
            flag.touch()
            os.kill(os.getpid(), signal.SIGKILL)
        return block * 2

    values = np.random.default_rng(2).random((200, 500))
    lazy = da.from_array(values, chunks=(10, 500)).map_blocks(once, dtype=float, meta=np.empty((0, 0)))
    with (
        dask.config.set({"distributed.worker.daemon": False, "logging.distributed": "critical"}),
        LocalCluster(n_workers=2, threads_per_worker=1, dashboard_address=":0") as cluster,
        Client(cluster),
    ):
        path = xs.save(xr.Dataset({"a": (("event", "x"), lazy)}), out / f"small{ending}")
    assert flag.exists()
    with opened(path) as read:
        np.testing.assert_array_equal(read["a"], values * 2)
    assert [p.name for p in out.iterdir()] == [path.name]


@pytest.mark.parametrize("ending", ENDINGS)
@pytest.mark.parametrize("compress", [True, False, "zlib"])
def test_every_chunk_carries_a_checksum(tmp_path: Path, ending: str, compress: bool | str) -> None:
    run = xs.simulate(12, shape=(1, 16, 16)).run
    for path, names in (
        (
            write_run(run, tmp_path / f"run{ending}", compress=compress),
            ["jungfrau/raw", "events/i0", "jungfrau/present"],
        ),
        (xs.save(noise(4), tmp_path / f"small{ending}", compress=compress), ["a"]),
    ):
        for name in names:
            if ending == ".zarr":
                codecs = [c.to_dict()["name"] for c in zarr.open_array(path, path=name).metadata.codecs]
                assert codecs[-1] == "crc32c"
                assert ("blosc" in codecs, "gzip" in codecs) == (compress is True, compress == "zlib")
            else:
                with h5py.File(path) as file:
                    assert file[name].fletcher32
                    assert (file[name].compression == "gzip") == bool(compress)


@pytest.mark.parametrize("compress", [True, False])
def test_hdf5_and_netcdf_read_the_chunks_that_are_packed_here(tmp_path: Path, compress: bool) -> None:
    values = np.arange(7 * 1000 * 300, dtype="i4").reshape(7, 1000, 300)
    path = xs.save(xr.Dataset({"a": (("x", "y", "z"), values)}), tmp_path / "a.h5", compress=compress)
    with h5py.File(path) as file:
        assert file["a"].id.get_num_chunks() > 1
        np.testing.assert_array_equal(file["a"], values)
    with netCDF4.Dataset(path) as file:
        np.testing.assert_array_equal(file["a"][:], values)
        assert file["a"].dimensions == ("x", "y", "z")
    data = bytearray(path.read_bytes())
    with h5py.File(path) as file:
        chunk = file["a"].id.get_chunk_info(1)
    data[chunk.byte_offset + chunk.size // 2] ^= 4
    path.write_bytes(data)
    with h5py.File(path) as file, pytest.raises(OSError, match=r"(?i)filter|checksum|read"):
        file["a"][...]


def test_chunks_of_zeros_are_written_so_that_a_lost_one_can_be_told(tmp_path: Path) -> None:
    zeros = xr.Dataset(
        {"n": ("event", np.zeros(5, "i8")), "u": ("event", np.zeros(5, "u2")), "f": ("event", np.full(5, np.nan))}
    )
    path = xs.save(zeros, tmp_path / "zeros.zarr")
    for name in zeros:
        file = path / str(name) / "c/0"
        assert file.is_file()
        file.unlink()
    with xr.open_zarr(path) as read:  # plain xarray fills: with what nobody takes for a value
        assert (read["n"] == np.iinfo("i8").min).all()
        assert (read["u"] == np.iinfo("u2").max).all()
        assert read["f"].isnull().all()


def lists(n: int, rng: np.random.Generator) -> xr.Dataset:
    lengths = rng.integers(0, 5, n)
    made = {name: object_array([rng.random(k) for k in lengths]) for name in ("sum", "row")}
    times = np.arange(n).astype("M8[s]").astype("M8[ns]")
    return xr.Dataset(
        {name: ("event", x, {**ragged_attrs("droplet", float), "units": "keV"}) for name, x in made.items()}
        | {"i0": ("event", rng.random(n))},
        {"event": times},
    )


@pytest.mark.parametrize("ending", ENDINGS)
@pytest.mark.parametrize("chunk", [None, 7])
def test_lists_are_saved_as_flatten_makes_them(tmp_path: Path, ending: str, chunk: int | None) -> None:
    small = lists(40, np.random.default_rng(3))
    expected = xs.flatten(small)
    with opened(xs.save(small if chunk is None else small.chunk(event=chunk), tmp_path / f"a{ending}")) as read:
        xr.testing.assert_equal(read.load(), expected)
        assert set(read.coords) == set(expected.coords)
        assert read["n_droplets"].attrs == expected["n_droplets"].attrs
        again = xs.lists(read)
        for a, b in zip(again["sum"].values, small["sum"].values, strict=True):
            np.testing.assert_array_equal(a, b)


def test_lists_that_do_not_go_together_are_refused_and_leave_nothing(tmp_path: Path) -> None:
    small = lists(6, np.random.default_rng(4))
    other = object_array([np.zeros(9)] * 6)
    small["sum"] = ("event", other, ragged_attrs("droplet", float))
    with pytest.raises(DataError, match="do not go together"):
        xs.save(small, tmp_path / "a.h5")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("ending", ENDINGS)
def test_a_large_block_is_written_in_parts(tmp_path: Path, ending: str) -> None:
    xs.save(noise(4, x=2), tmp_path / f"warm{ending}")
    block = da.ones((256, 64, 1024), dtype="f4", chunks=-1)  # 64 MiB in one block
    tracemalloc.start()
    path = xs.save(xr.Dataset({"a": (("event", "y", "x"), block)}), tmp_path / f"large{ending}")
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 2 * block.nbytes
    with opened(path) as read:
        assert read["a"].encoding["preferred_chunks"]["event"] == 32
        assert float(read["a"].sum()) == block.size


@pytest.mark.parametrize("ending", [".zarr", ".h5", ".hdf5", ".nc"])
def test_runs_and_results_honour_the_same_options(tmp_path: Path, ending: str) -> None:
    run = xs.simulate(5, shape=(1, 16, 16)).run
    path = xs.save(run, tmp_path / f"run{ending}", compress=False)
    assert xs.open_run(path)["jungfrau/raw"].shape[0] == 5
    with pytest.raises(ParameterError, match="is there already"):
        xs.save(run, path)
    xs.save(run.isel(event=slice(0, 3)), path, overwrite=True)
    assert xs.open_run(path)["jungfrau/raw"].shape[0] == 3
    with pytest.raises(ParameterError, match=r"(?s)no compression.*'lzma'"):
        xs.save(noise(1), tmp_path / f"small{ending}", compress="lzma")
