"""Results on disk: read back equal by plain xarray, complete or not there."""

import json
import warnings
from collections.abc import Callable
from pathlib import Path

import dask.array as da
import numpy as np
import pytest
import xarray as xr

import xsmall
import xsmall as xs
from xsmall.cube.bins import bins, categories
from xsmall.cube.cube import cube
from xsmall.errors import DataError, ParameterError
from xsmall.io.stores.provenance import provenance
from xsmall.io.stores.results import save
from xsmall.vocabulary import PARAMETERS, SOURCE

TIMES = np.datetime64("2026-01-01T00:00:00.123456789", "ns") + np.arange(6) * np.timedelta64(8333333, "ns")
ENDINGS = [".zarr", ".h5", ".nc"]


def small() -> xr.Dataset:
    rng = np.random.default_rng(1)
    return xr.Dataset(
        {
            "i0": ("event", rng.random(6).astype("f4"), {"units": "keV", "good": True, "nothing": None}),
            "laser_on": ("event", np.array([1, 0, 1, 0, 1, 0], bool)),
            "delay": ("event", np.array([0.0, 0.1, 0.2, np.nan, 0.4, 0.5])),
            "name": ("event", np.array(["a", "bb", "", "é", "a", "a"])),
            "n": ("event", np.arange(6, dtype="u2")),
            "spectrum": (("event", "q"), rng.random((6, 5))),
            "note": ((), "text"),
        },
        coords={
            "event": TIMES,
            "q": ("q", np.linspace(0, 1, 5), {"units": "angstrom-1"}),
            "geometry": ((), np.int64(2**61 + 12345), {"rule": '{"panels": []}'}),
            "segment": ("segment", [3, 5]),
            "x": (("segment", "row"), np.ones((2, 3), "f4")),
        },
        attrs={SOURCE: "run42.xtc2", PARAMETERS: json.dumps({"waxs": "AzInt(bins=500)"}), "nested": {"a": [1, "b"]}},
    )


def opened(path: Path) -> xr.Dataset:
    return xr.open_zarr(path) if path.suffix == ".zarr" else xr.open_dataset(path)


@pytest.mark.parametrize("ending", ENDINGS)
@pytest.mark.parametrize("chunks", [None, {"event": 4, "q": 2}])
def test_plain_xarray_reads_it_back_equal(tmp_path: Path, ending: str, chunks: dict[str, int] | None) -> None:
    written = small() if chunks is None else small().chunk(chunks)
    with opened(save(written, tmp_path / f"small{ending}")) as read:
        assert read.equals(small())
        assert set(read.coords) == set(small().coords)
        assert {n: v.dtype.kind for n, v in read.variables.items()} == {n: v.dtype.kind for n, v in small().items()} | {
            n: v.dtype.kind for n, v in small().coords.items()
        }
        assert read["geometry"].attrs["rule"] == '{"panels": []}'
        assert read["i0"].attrs == {"units": "keV", "good": 1}
        assert read.sel(event=TIMES[2])["n"] == 2


@pytest.mark.parametrize("ending", ENDINGS)
def test_a_cube_is_read_back_equal_with_its_bounds(tmp_path: Path, ending: str) -> None:
    data = small()
    frames = xr.DataArray(
        da.arange(6 * 2 * 3 * 4, chunks=48).reshape(6, 2, 3, 4).astype("f4"),
        dims=("event", "segment", "row", "column"),
        coords={"event": TIMES, "segment": [3, 5]},
    )
    result = cube(data, {"delay": bins(0, 0.6, n=3), "laser_on": categories()}, images={"camera": frames})
    with opened(save(result, tmp_path / f"cube{ending}")) as read:
        assert read.equals(result.compute())
        assert "delay_bounds" in read.coords
        assert read["delay"].attrs["n_missing"] == 1


def test_times_that_are_missing_come_back_missing(tmp_path: Path) -> None:
    times = TIMES.copy()
    times[1] = np.datetime64("NaT", "ns")
    for ending in ENDINGS:
        with opened(save(xr.Dataset({"t": ("event", times)}), tmp_path / f"t{ending}")) as read:
            np.testing.assert_array_equal(read["t"].values, times)


@pytest.mark.parametrize("ending", ENDINGS)
def test_an_empty_result_is_read_back_empty(tmp_path: Path, ending: str) -> None:
    with opened(save(small().isel(event=slice(0, 0)), tmp_path / f"none{ending}")) as read:
        assert read.sizes["event"] == 0
        assert set(read.variables) == set(small().variables)


def test_provenance_says_versions_parameters_input_and_time_and_keeps_the_past(tmp_path: Path) -> None:
    with opened(save(small(), tmp_path / "a.h5")) as read:
        told = provenance(read)
        assert told["xsmall"] == xsmall.__version__
        assert told["packages"]["numpy"] == np.__version__
        assert told["parameters"] == {"waxs": "AzInt(bins=500)"}
        assert told["input"] == "run42.xtc2"
        assert told["time"].endswith("+00:00")
        with opened(save(read.isel(event=slice(3)), tmp_path / "b.zarr")) as again:
            assert provenance(again)["history"] == [told]


def test_what_was_not_saved_tells_what_it_was_made_with_and_nothing_where_nothing_is_known() -> None:
    assert provenance(small())["input"] == small().attrs["source"]
    with pytest.raises(DataError, match="where this came from"):
        provenance(small().drop_attrs())


def test_a_named_array_and_a_tree_are_saved_too(tmp_path: Path) -> None:
    array = small()["spectrum"].copy()
    with xr.open_dataarray(save(array, tmp_path / "array.h5")) as read:
        assert read.equals(array)
    tree = xr.DataTree.from_dict({"/": xr.Dataset(), "/jungfrau": small(), "/jungfrau/more": small()[["n"]]})
    for ending, engine in ((".zarr", "zarr"), (".h5", "netcdf4")):
        with xr.open_datatree(save(tree, tmp_path / f"tree{ending}"), engine=engine) as read_tree:
            assert read_tree["jungfrau"].to_dataset().equals(small())
            assert provenance(read_tree)["xsmall"] == xsmall.__version__


def test_nothing_is_replaced_unless_told(tmp_path: Path) -> None:
    for ending in ENDINGS:
        path = save(small(), tmp_path / f"small{ending}")
        with pytest.raises(ParameterError, match="is there already"):
            save(small(), path)
        save(small()[["n"]], path, overwrite=True)
        with opened(path) as read:
            assert "i0" not in read
    assert sorted(p.name for p in tmp_path.iterdir()) == ["small.h5", "small.nc", "small.zarr"]


def test_a_folder_that_is_no_store_is_never_replaced(tmp_path: Path) -> None:
    (tmp_path / "precious.zarr").mkdir()
    (tmp_path / "precious.zarr" / "thesis.txt").write_text("years of work")
    with pytest.raises(ParameterError, match="no Zarr store"):
        save(small(), tmp_path / "precious.zarr", overwrite=True)


@pytest.mark.parametrize("ending", ENDINGS)
def test_a_write_that_fails_leaves_what_was_there_and_nothing_else(tmp_path: Path, ending: str) -> None:
    path = save(small(), tmp_path / f"small{ending}")

    def fail(block: np.ndarray) -> np.ndarray:
        raise RuntimeError("disk on fire")

    broken = small().assign(i0=("event", da.zeros(6, chunks=3).map_blocks(fail, dtype=float)))
    with pytest.raises(RuntimeError, match="disk on fire"):
        save(broken, path, overwrite=True)
    assert [p.name for p in tmp_path.iterdir()] == [path.name]
    with opened(path) as read:
        assert read.equals(small())


def test_lazy_results_that_share_work_are_computed_once(tmp_path: Path) -> None:
    calls = []

    def work(block: np.ndarray) -> np.ndarray:
        calls.append(1)
        return block

    shared = da.ones((8, 2), chunks=(2, 2)).map_blocks(work, dtype=float, meta=np.empty((0, 0)))
    data = xr.Dataset({"a": (("event", "q"), shared + 1), "b": (("event", "q"), shared + 2)})
    save(data, tmp_path / "a.zarr")
    assert len(calls) == 4


def test_no_warning_reaches_the_user(tmp_path: Path) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for ending in ENDINGS:
            with opened(save(small(), tmp_path / f"a{ending}")) as read:
                read.load()


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda p: save(small(), p / "small.txt"), ParameterError, "ending"),
        (lambda p: save(small(), p / "no" / "small.h5"), ParameterError, "no such folder"),
        (lambda p: save(xr.DataArray([1.0]), p / "a.h5"), DataError, "name"),
        (lambda p: save(np.ones(3), p / "a.h5"), DataError, "cannot be saved"),
        (lambda p: save(xr.Dataset({"z": ("event", np.ones(2, complex))}), p / "a.h5"), DataError, "'z' cannot"),
    ],
)
def test_what_cannot_be_saved_is_said(
    tmp_path: Path, make: Callable[[Path], object], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        make(tmp_path)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("ending", ENDINGS)
def test_a_cube_of_stored_small_data_is_that_of_the_small_data(tmp_path: Path, ending: str) -> None:
    binning = {"delay": bins(0, 0.6, n=3), "laser_on": categories()}
    frames = xr.DataArray(
        np.arange(6 * 2 * 3 * 4).reshape(6, 2, 3, 4).astype("f4"),
        dims=("event", "segment", "row", "column"),
        coords={"event": TIMES, "segment": [3, 5]},
    )
    with opened(save(small(), tmp_path / f"small{ending}")) as read:
        again = cube(read, binning, images={"camera": frames}).compute()
    expected = cube(small(), binning, images={"camera": frames})
    assert again.equals(expected)


@pytest.mark.parametrize("ending", ENDINGS)
def test_what_the_source_had_lost_stands_in_results_cubes_and_their_provenance(tmp_path: Path, ending: str) -> None:
    from xsmall.io.info import describe
    from xsmall.vocabulary import LOST

    data = small().assign_attrs({LOST: json.dumps({"truncated_bytes": 17})})
    binned = cube(data, {"laser_on": categories()})
    for name, result in (("small", data), ("cube", binned)):
        path = save(result, tmp_path / f"{name}{ending}")
        with opened(path) as read:
            assert provenance(read)["lost"] == {"truncated_bytes": 17}
            assert json.loads(read.attrs[LOST]) == {"truncated_bytes": 17}
        assert "17" in describe(path)
    frames = xr.DataArray(
        np.ones((6, 2, 3, 4), "f4"),
        dims=("event", "segment", "row", "column"),
        coords={"event": TIMES, "segment": [3, 5]},
        attrs={LOST: json.dumps({"missing_chunks": 2})},
    )
    assert "missing_chunks" in cube(small(), {"laser_on": categories()}, images={"camera": frames}).attrs[LOST]


@pytest.mark.parametrize("text", ['{"a":', "[1]", '{"history": 3}', "[" * 100_000, "7"])
def test_provenance_that_cannot_be_read_is_refused_with_the_path(tmp_path: Path, text: str) -> None:
    path = xs.save(small(), tmp_path / "small.h5")
    with xr.open_dataset(path) as read:
        broken = read.load().assign_attrs(xsmall_provenance=text)
    with pytest.raises(xs.XsmallError, match=r"(?s)small\.h5.*del result\.attrs"):
        provenance(broken)
    with pytest.raises(xs.XsmallError, match=r"again\.zarr"):
        xs.save(broken, tmp_path / "again.zarr")
    del broken.attrs["xsmall_provenance"]
    xs.save(broken, tmp_path / "again.zarr")
