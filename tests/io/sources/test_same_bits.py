"""Every source: whatever the chunks and the processes, results are the same bits."""

import warnings
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from types import ModuleType

import dask
import h5py
import numpy as np
import pytest
import xarray as xr

import xsmall as xs
from xsmall.io.stores.runs import write_run

N = 66  # more than a block of events that are added up together
KINDS = ["xtc2", "zarr", "h5", "stack", "images", "euxfel"]
Opener = Callable[[int | None], xr.DataArray]


def write_xtc2(x: ModuleType, folder: Path) -> Path:
    """Two streams, of which the second has every third event."""
    folder.mkdir()
    for stream, step in enumerate((1, 3)):
        table, frames = [x.area(stream)], x.frames(N, 1, seed=stream)
        events = b"".join(x.event((2 << 32) + k, table, frames[k]) for k in range(0, N, step))
        end = x.datagram(x.END_RUN, 3 << 32)
        (folder / f"abc12345-r0007-s{stream:03d}-c000.xtc2").write_bytes(x.start(*table) + events + end)
    return folder


def write_euxfel(folder: Path) -> Path:
    """A run of LPD in which a module misses a train, with noise for frames."""
    pytest.importorskip("extra_data")
    rng = np.random.default_rng(4)
    folder.mkdir()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from extra_data.tests import make_examples

        make_examples.make_lpd_run_mini_missed_train(str(folder))
    for path in folder.glob("*.h5"):
        with h5py.File(path, "a") as file:
            names: list[str] = []
            file.visit(names.append)
            for name in names:
                if name.endswith("image/data"):
                    file[name][:] = rng.integers(0, 4000, file[name].shape)
    return folder


@pytest.fixture(scope="module")
def opener(xtc2: ModuleType, tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Opener]:
    """Give what opens the frames of a kind of source in chunks of some events."""
    folder = tmp_path_factory.mktemp("bits")
    run = write_xtc2(xtc2, folder / "xtc2")

    def made(kind: str) -> Opener:
        if kind in ("stack", "images"):
            words = np.random.default_rng(3).integers(0, 4000, (N, 16, 24)).astype(np.uint16)
            if kind == "images":
                pytest.importorskip("fabio")
                for k, word in enumerate(words):
                    np.save(folder / f"image_{k:03d}.npy", word)
                return lambda chunks: xs.open_frames(str(folder / "image_*.npy"), chunks=chunks)
            with h5py.File(folder / "stack.hdf5", "w") as file:
                file["frames"] = words
            return lambda chunks: xs.open_frames(folder / "stack.hdf5", chunks=chunks)
        if kind == "euxfel":
            path = write_euxfel(folder / kind)
            return lambda chunks: next(n["raw"] for n in xs.open_run(path, chunks=chunks).subtree if "raw" in n)
        path = run if kind == "xtc2" else write_run(xs.open_run(run, chunks=5), folder / f"run.{kind}")
        return lambda chunks: xs.open_run(path, chunks=chunks)["det/raw"]

    return made


@pytest.fixture(scope="module")
def pool() -> Iterator[ProcessPoolExecutor]:
    """Two processes that know nothing of the run."""
    with ProcessPoolExecutor(2, mp_context=get_context("spawn")) as made:
        yield made


def results(raw: xr.DataArray) -> list[xr.Dataset]:
    """What is made of frames whose sums have to be rounded."""
    frames = (raw / np.float32(7)).assign_attrs(raw.attrs | {"detector_type": "camera"})
    return [*dask.compute(frames.sd.projection("row"), frames.sd.average())]


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::PendingDeprecationWarning")
@pytest.mark.parametrize("kind", KINDS)
def test_results_do_not_depend_on_chunks_and_processes(
    kind: str, opener: Callable[[str], Opener], pool: ProcessPoolExecutor
) -> None:
    open_frames = opener(kind)
    expected = results(open_frames(None).load())
    assert all(bool(np.isfinite(next(iter(x.data_vars.values()))).any()) for x in expected)
    for chunks, how in ((1, {"scheduler": "synchronous"}), (13, {}), (33, {"scheduler": "processes", "pool": pool})):
        with dask.config.set(**how):
            found = results(open_frames(chunks))
        for a, b in zip(found, expected, strict=True):
            xr.testing.assert_identical(a.drop_attrs(deep=True), b.drop_attrs(deep=True))
