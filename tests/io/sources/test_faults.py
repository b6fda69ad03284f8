"""Stored runs that lost something: what is missing is said and counted, what is rotten is named, and no number lies."""

import json
import os
import shutil
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import xarray as xr
import zarr

import xsmall as xs
from xsmall.errors import DamagedDataError, DamagedDataWarning, FileFormatError
from xsmall.io.info import describe
from xsmall.io.stores.runs import write_run
from xsmall.vocabulary import CHECKSUM

SIM = xs.simulate(48, shape=(2, 16, 32), seed=1)
RUN = SIM.run.copy()
RUN["jungfrau"].dataset = (
    RUN["jungfrau"].to_dataset().assign_coords(damage=(("event", "segment"), np.zeros((48, 2), "u2")))
)
RAW = RUN["jungfrau/raw"].values
LOST = slice(16, 32)  # the events of the second chunk
SECOND = "jungfrau/raw/c/1/0/0/0"


@pytest.fixture(scope="module")
def stored(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("runs")
    return {end: write_run(RUN, folder / f"run.{end}", chunk_events=16) for end in ("zarr", "h5")}


@pytest.fixture
def copy(stored: dict[str, Path], tmp_path: Path) -> Callable[[str], Path]:
    def make(ending: str) -> Path:
        target = tmp_path / f"run.{ending}"
        if ending == "zarr":
            return Path(shutil.copytree(stored[ending], target))
        return Path(shutil.copy(stored[ending], target))

    return make


def edit(file: Path, **changes: Any) -> None:
    about = json.loads(file.read_text())
    about.update(changes)
    file.write_text(json.dumps(about))


def corrupt_h5(path: Path, name: str = "jungfrau/raw", chunk: int = 1) -> None:
    with h5py.File(path) as file:
        info = file[name].id.get_chunk_info(chunk)
    with path.open("r+b") as file:
        file.seek(info.byte_offset + 30)
        file.write(b"\xff" * 60)


def lose_h5(path: Path, name: str = "jungfrau/raw", chunks: tuple[int, ...] = (1,)) -> None:
    """Write the dataset anew without some of its chunks, attributes and scales as they were."""
    with h5py.File(path, "a") as file:
        old = file[name]
        new = file.create_dataset(name + "_new", old.shape, old.dtype, chunks=old.chunks, compression="gzip")
        for k in range(old.id.get_num_chunks()):
            if k not in chunks:
                info = old.id.get_chunk_info(k)
                part = tuple(slice(o, o + c) for o, c in zip(info.chunk_offset, old.chunks, strict=True))
                new[part] = old[part]
        for key in old.attrs:
            if key != "DIMENSION_LIST":
                new.attrs[key] = old.attrs[key]
        scales = [dim[0].name for dim in old.dims]
        del file[name]
        file.move(name + "_new", name)
        for k, scale in enumerate(scales):
            file[name].dims[k].attach_scale(file[scale])


DAMAGES: dict[str, tuple[str, Callable[[Path], object]]] = {
    "zarr, chunk lost": ("zarr", lambda p: (p / SECOND).unlink()),
    "zarr, chunk of garbage": ("zarr", lambda p: (p / SECOND).write_bytes(b"garbage")),
    "zarr, chunk cut": ("zarr", lambda p: os.truncate(p / SECOND, (p / SECOND).stat().st_size // 2)),
    "zarr, chunk empty": ("zarr", lambda p: (p / SECOND).write_bytes(b"")),
    "hdf5, chunk lost": ("h5", lose_h5),
    "hdf5, chunk of garbage": ("h5", corrupt_h5),
}


@pytest.mark.parametrize("verify", [False, True], ids=["as it is", "verified"])
@pytest.mark.parametrize("kind", DAMAGES)
def test_a_chunk_costs_its_own_events_only(kind: str, verify: bool, copy: Callable[[str], Path]) -> None:
    ending, damage = DAMAGES[kind]
    path = copy(ending)
    damage(path)
    run = xs.open_run(path, verify=verify)
    raw = run["jungfrau/raw"]
    known = "lost" in kind or verify
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        got = raw.sd.calibrate(SIM.constants).sd.roi(xs.Box(segment=0)).compute()
    met = [str(w.message) for w in told if w.category is DamagedDataWarning]
    right = SIM.run["jungfrau/raw"].sd.calibrate(SIM.constants).sd.roi(xs.Box(segment=0)).compute()
    gone = np.zeros(48, bool)
    gone[LOST] = True
    assert (got["n_valid"].values[gone] == 0).all()
    assert np.isnan(got["mean"].values[gone]).all()
    np.testing.assert_array_equal(got["mean"].values[~gone], right["mean"].values[~gone])
    np.testing.assert_array_equal(raw.isel(event=slice(32, 48)).values, RAW[32:])
    if known:
        assert not met
        count = "missing_chunks" if "lost" in kind else "damaged_chunks"
        assert run.attrs[count] == 1
        assert json.loads(got.attrs["lost"])[count] == 1
        np.testing.assert_array_equal(raw["present"].values.all(1), ~gone)
        np.testing.assert_array_equal((raw["damage"].values != 0).any(1), gone & (count == "damaged_chunks"))
        assert (raw.values[gone] == 0).all()
        assert f"1 chunk of the run is {'not there' if 'lost' in kind else 'unreadable'}" in describe(path) or verify
    else:
        assert all(str(path) in text and "events 16 to 31" in text for text in met)
        assert met
        with pytest.raises(DamagedDataError, match="events 16 to 31"):
            raw.compute()


def test_a_chunk_that_vanishes_after_opening_is_unreadable(copy: Callable[[str], Path]) -> None:
    path = copy("zarr")
    raw = xs.open_run(path)["jungfrau/raw"]
    (path / SECOND).unlink()
    with pytest.raises(DamagedDataError, match=r"c/1/0/0/0: cannot be read(?s:.*)not there"):
        raw.compute()


def test_a_chunk_that_was_mended_is_read_again(copy: Callable[[str], Path]) -> None:
    path = copy("zarr")
    good = (path / SECOND).read_bytes()
    (path / SECOND).write_bytes(b"garbage")
    raw = xs.open_run(path)["jungfrau/raw"]
    with pytest.raises(DamagedDataError):
        raw.compute()
    (path / SECOND).write_bytes(good)
    np.testing.assert_array_equal(raw.values, RAW)


def test_the_advice_of_the_error_works(copy: Callable[[str], Path]) -> None:
    path = copy("zarr")
    (path / SECOND).write_bytes(b"garbage")
    with pytest.raises(DamagedDataError, match=r"xs.open_run\(path, verify=True\)"):
        xs.open_run(path)["jungfrau/raw"].compute()
    raw = xs.open_run(path, verify=True)["jungfrau/raw"].compute()
    assert not raw["present"].values[LOST].any()


def test_what_was_lost_stays_told_through_files_and_cubes(copy: Callable[[str], Path], tmp_path: Path) -> None:
    path = copy("zarr")
    (path / SECOND).unlink()
    raw = xs.open_run(path)["jungfrau/raw"]
    cal = raw.sd.calibrate(SIM.constants)
    small = cal.sd.reduce({"r": xs.projection("row")})
    cube = small.sd.cube({"delay": xs.bins(-3, 6, n=2)}, images={"j": cal})
    for n, result in enumerate((small, cube, cal.sd.average())):
        saved = xs.save(result, tmp_path / f"{n}.zarr")
        assert "missing_chunks" in describe(saved)
    again = write_run(xs.open_run(path), tmp_path / "again.h5")
    run = xs.open_run(again)
    assert run.attrs["missing_chunks"] == 1
    assert not run["jungfrau/raw"]["present"].values[LOST].any()


# ---- what is small --------------------------------------------------------------------------------------------------


def test_numbers_per_event_are_nan_where_they_are_lost(tmp_path: Path) -> None:
    path = write_run(RUN, tmp_path / "run.zarr")
    (path / "events/i0/c/0").unlink()
    run = xs.open_run(path)
    assert np.isnan(run["events/i0"].values).all()
    assert run.attrs["missing_chunks"] == 1
    assert "events/i0/c/0: it is not there" in run.attrs["unreadable"]
    np.testing.assert_array_equal(run["events/delay"], SIM.run["events/delay"])


def test_what_has_no_form_for_missing_is_left_out_by_name(tmp_path: Path) -> None:
    path = write_run(RUN, tmp_path / "run.zarr")
    (path / "events/laser_on/c/0").write_bytes(b"rot")
    run = xs.open_run(path)
    assert "laser_on" not in run["events"].variables
    assert "laser_on: events/laser_on/c/0" in run["events"].attrs["left_out"]
    assert run.attrs["damaged_chunks"] == 1
    assert "laser_on: events/laser_on/c/0" in describe(path)


@pytest.mark.parametrize("name", ["events/event", "jungfrau/event", "jungfrau/segment", "jungfrau/row"])
@pytest.mark.parametrize("how", ["lost", "rotten"])
def test_without_labels_a_run_is_not_opened(tmp_path: Path, name: str, how: str) -> None:
    path = write_run(RUN, tmp_path / "run.zarr")
    chunk = path / name / "c/0"
    if how == "lost":
        chunk.unlink()
    else:
        chunk.write_bytes(b"rot")
    with pytest.raises(FileFormatError, match=rf"(?s)run\.zarr.*{name}/c/0: .*labels"):
        xs.open_run(path)


@pytest.mark.parametrize("name", ["present", "damage"])
def test_lost_flags_count_against_their_events(tmp_path: Path, name: str) -> None:
    path = write_run(RUN, tmp_path / "run.zarr")
    (path / "jungfrau" / name / "c/0/0").unlink()
    raw = xs.open_run(path)["jungfrau/raw"]
    usable = raw["present"].values & (raw["damage"].values == 0)
    assert not usable.any()


# ---- stores that contradict themselves ------------------------------------------------------------------------------


def without_copies(path: Path) -> Path:
    """Leave out the consolidated copies and the checksum of descriptions: a run of another writer has neither."""
    for file in path.rglob("zarr.json"):
        about = json.loads(file.read_text())
        about.pop("consolidated_metadata", None)
        about.get("attributes", {}).pop(CHECKSUM, None)
        file.write_text(json.dumps(about))
    return path


ABOUT = "jungfrau/raw/zarr.json"
CONTRADICTIONS: dict[str, Callable[[Path], object]] = {
    "root cut": lambda p: (p / "zarr.json").write_text('{"a":'),
    "root of another kind": lambda p: (p / "zarr.json").write_text("[1]"),
    "root of 100 000 brackets": lambda p: (p / "zarr.json").write_text("[" * 100_000),
    "group lost": lambda p: (p / "jungfrau/zarr.json").unlink(),
    "array lost": lambda p: (p / ABOUT).unlink(),
    "array cut": lambda p: (p / ABOUT).write_text('{"a":'),
    "negative shape": lambda p: edit(p / ABOUT, shape=[-1, 2, 16, 32]),
    "1e12 events": lambda p: edit(p / ABOUT, shape=[10**12, 2, 16, 32]),
    "chunks of nothing": lambda p: edit(
        p / ABOUT, chunk_grid={"name": "regular", "configuration": {"chunk_shape": [0, 2, 16, 32]}}
    ),
    "unknown codec": lambda p: edit(p / ABOUT, codecs=[{"name": "evil", "configuration": {}}]),
    "flags shorter than frames": lambda p: edit(p / "jungfrau/present/zarr.json", shape=[47, 2]),
    "detector without frames": lambda p: shutil.rmtree(p / "jungfrau/raw"),
}


@pytest.mark.parametrize("kind", CONTRADICTIONS)
def test_a_store_that_contradicts_itself_is_refused_with_its_path(kind: str, copy: Callable[[str], Path]) -> None:
    path = without_copies(copy("zarr"))
    CONTRADICTIONS[kind](path)
    with pytest.raises(FileFormatError, match=r"run\.zarr"):
        xs.open_run(path)


@pytest.mark.parametrize("change", [{"data_type": "float32"}, {"data_type": "uint32"}, {"shape": [64, 2, 16, 32]}])
def test_a_description_that_does_not_fit_the_chunks_gives_no_number(
    change: dict[str, Any], copy: Callable[[str], Path]
) -> None:
    path = without_copies(copy("zarr"))
    edit(path / ABOUT, **change)
    with pytest.raises(FileFormatError, match=r"run\.zarr"):
        xs.open_run(path)["jungfrau/raw"].compute()


def test_chunks_smaller_than_those_stored_give_no_number(copy: Callable[[str], Path]) -> None:
    path = without_copies(copy("zarr"))
    edit(path / ABOUT, chunk_grid={"name": "regular", "configuration": {"chunk_shape": [8, 2, 16, 32]}})
    with pytest.raises(DamagedDataError, match=r"run\.zarr"):
        xs.open_run(path)["jungfrau/raw"].compute()


def test_damaged_labels_of_hdf5_are_named(tmp_path: Path) -> None:
    path = write_run(RUN, tmp_path / "run.h5")
    with h5py.File(path, "a") as file:
        times = file["events/event"][...]
        attrs = dict(file["events/event"].attrs)
        del file["events/event"]
        file["events"].create_dataset("event", data=times, chunks=(48,), compression="gzip")
        file["events/event"].attrs.update({k: a for k, a in attrs.items() if k in ("units", "calendar")})
    corrupt_h5(path, "events/event", 0)
    with pytest.raises(FileFormatError, match=r"(?s)run\.h5.*(/events/event|dimension|cannot be read)"):
        xs.open_run(path)


def test_truth_values_of_h5py_say_what_is_present_beside_a_lost_chunk(tmp_path: Path) -> None:
    """A raw HDF5 run of somebody's own script: no chunk was written for the last events."""
    path = tmp_path / "own.h5"
    with h5py.File(path, "w") as file:
        frames = file.create_dataset("camera/raw", (6, 1, 4, 8), "u2", chunks=(2, 1, 4, 8))
        frames[:4] = 7
        frames.attrs["units"] = "ADU"
        for group in ("events", "camera"):
            file[f"{group}/event"] = np.arange(6) + 10**18
            file[f"{group}/event"].attrs["units"] = "nanoseconds since 1970-01-01"
        file["camera/present"] = np.array([1, 0, 1, 1, 1, 1], bool)[:, None]
        file.attrs["xsmall_layout"] = "xsmall-run 2"
    run = xs.open_run(path)
    assert run["camera/present"].values[:, 0].tolist() == [True, False, True, True, False, False]
    assert run["camera/present"].dtype == bool


@pytest.mark.parametrize("ending", ["zarr", "h5"])
def test_labels_that_are_repeated_are_counted_and_told_in_results(ending: str, tmp_path: Path) -> None:
    twice = RUN.isel(event=[0, 1, 1, 2, 2, 2])
    run = xs.open_run(write_run(twice, tmp_path / f"run.{ending}"))
    assert run.attrs["repeated_times"] == 3
    assert json.loads(run["jungfrau/raw"].attrs["lost"])["repeated_times"] == 3
    assert "repeated_times" not in xs.open_run(write_run(RUN, tmp_path / f"once.{ending}")).attrs


def test_hdf5_without_frames_or_cut_is_refused_with_its_path(copy: Callable[[str], Path]) -> None:
    path = copy("h5")
    with h5py.File(path, "a") as file:
        del file["jungfrau/raw"]
    with pytest.raises(FileFormatError, match=r"run\.h5.*'jungfrau' are not there"):
        xs.open_run(path)
    os.truncate(path, path.stat().st_size // 2)
    with pytest.raises(FileFormatError, match=r"run\.h5"):
        xs.open_run(path)


@pytest.mark.parametrize("ending", ["zarr", "h5"])
@pytest.mark.parametrize("fill", [0.0, 1.0])
def test_a_small_file_that_declares_much_is_not_read(ending: str, fill: float, copy: Callable[[str], Path]) -> None:
    path = copy(ending)
    size, options = 4_000_000_000, {"dtype": "f8", "chunks": (2**20,)}
    if ending == "h5":
        with h5py.File(path, "a") as file:
            file["jungfrau"].create_dataset("extra", shape=(size,), compression="gzip", fillvalue=fill, **options)
    else:
        group = zarr.open_group(without_copies(path), mode="a")["jungfrau"]
        group.create_array("extra", shape=(size,), fill_value=fill, dimension_names=["k"], **options)
    run = xs.open_run(path)
    assert "extra" not in run["jungfrau"].variables
    assert "extra" in run["jungfrau"].attrs["left_out"]
    np.testing.assert_array_equal(run["jungfrau/raw"].isel(event=[3]), RAW[3:4])


@pytest.mark.parametrize("ending", ["zarr", "h5"])
def test_a_run_that_is_replaced_while_it_is_open_is_noticed(ending: str, tmp_path: Path) -> None:
    path = write_run(RUN, tmp_path / f"run.{ending}", chunk_events=8)
    raw = xs.open_run(path)["jungfrau/raw"]
    first = raw[:16].values
    write_run(xs.simulate(48, shape=(2, 16, 32), seed=2).run, path, chunk_events=8, overwrite=True)
    np.testing.assert_array_equal(first, RAW[:16])
    if ending == "zarr":
        with pytest.raises(FileFormatError, match="has changed since it was opened"):
            raw[16:].compute()
        with pytest.raises(FileFormatError, match="has changed since it was opened"):
            raw.sd.calibrate(SIM.constants).sd.projection("row").compute()
    else:  # HDF5 keeps the old file open: the old run to its end, or the same error where it is opened anew
        np.testing.assert_array_equal(raw[16:].values, RAW[16:])


# ---- any file -------------------------------------------------------------------------------------------------------


def _harms() -> Iterator[tuple[str, Callable[[Path], object]]]:
    yield "removed", Path.unlink
    yield "cut", lambda file: os.truncate(file, file.stat().st_size // 2)
    yield "emptied", lambda file: os.truncate(file, 0)
    yield "overwritten", lambda file: file.write_bytes(b"\xa5" * file.stat().st_size)


@pytest.mark.parametrize(("harm", "act"), list(_harms()), ids=[name for name, _ in _harms()])
def test_no_file_of_a_store_can_be_harmed_in_silence(harm: str, act: Callable[[Path], object], tmp_path: Path) -> None:
    path = without_copies(write_run(RUN, tmp_path / "run.zarr", chunk_events=24))
    truth = _values(path)
    files = sorted(file for file in path.rglob("*") if file.is_file())
    assert len(files) > 30
    for file in files:
        kept = file.read_bytes()
        state = file.stat()
        act(file)
        found = _values_or_error(path)
        if isinstance(found, xs.XsmallError):
            assert str(path) in str(found), file
        else:
            assert _only_missing(truth, found), file
        file.write_bytes(kept)
        os.utime(file, ns=(state.st_atime_ns, state.st_mtime_ns))


def _values_or_error(path: Path) -> dict[str, Any] | xs.XsmallError:
    with warnings.catch_warnings(record=True):
        warnings.simplefilter("always")
        try:
            return _values(path)
        except xs.XsmallError as error:
            return error


def _values(path: Path) -> dict[str, Any]:
    run = xs.open_run(path)
    raw = run["jungfrau/raw"]
    small = raw.assign_attrs(detector_type="camera").sd.roi(xs.Box(segment=0)).compute()  # words without gain bits
    found = {f"events/{n}": x.values for n, x in run["events"].variables.items()}
    found |= {f"config/{n}": x.values for n, x in run["jungfrau"].variables.items() if n != "raw"}
    usable = (raw["present"].values & (raw["damage"].values == 0))[:, :1]
    return found | {"mean": np.where(usable, small["mean"].values, np.nan), "n": small["n_valid"].values}


def _only_missing(truth: dict[str, Any], found: dict[str, Any]) -> bool:
    """Whether everything that is there is right: what is not is NaN, not valid, flagged, or left out."""
    for name, right in truth.items():
        if name not in found or name in ("n", "config/present", "config/damage"):
            continue
        here = found[name]
        if right.dtype.kind == "f":
            known = ~np.isnan(here)
            if not np.array_equal(here[known], right[known]):
                return False
        elif not np.array_equal(here, right):
            return False
    return bool(np.isnan(found["mean"][found["n"] == 0]).all())


@pytest.mark.parametrize("ending", ["zarr", "h5"])
@pytest.mark.parametrize("kind", ["zarr, chunk of garbage", "hdf5, chunk of garbage"])
def test_what_turns_out_unreadable_while_a_result_is_saved_stands_in_it(
    kind: str, ending: str, tmp_path: Path, copy: Callable[[str], Path]
) -> None:
    of, damage = DAMAGES[kind]
    path = copy(of)
    damage(path)
    lazy = xs.open_run(path)["jungfrau/raw"].sd.calibrate(SIM.constants).sd.projection("row")
    with pytest.warns(DamagedDataWarning):
        saved = xs.save(lazy, tmp_path / f"small.{ending}")
    back = xr.open_zarr(saved) if ending == "zarr" else xr.open_dataset(saved)
    with back:
        assert json.loads(back.attrs["lost"])["unreadable_parts"] == 1
        assert path.name in back.attrs["unreadable"]
        assert xs.provenance(back)["lost"]["unreadable_parts"] == 1
    sound = xs.save(lazy.isel(event=slice(32, None)), tmp_path / f"sound.{ending}")
    with xr.open_zarr(sound) if ending == "zarr" else xr.open_dataset(sound) as back:
        assert "unreadable" not in back.attrs
