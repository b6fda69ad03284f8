"""A user's own function: one pass with all other records, and an event in which it fails does not stop the others."""

import json
import pickle
import threading
from typing import Any

import dask
import dask.array as da
import numba
import numpy as np
import pytest
import xarray as xr

import xsmall as xs
from xsmall.errors import DataError, ParameterError

SHAPE = (2, 16, 32)


@pytest.fixture(scope="module")
def cal() -> xr.DataArray:
    sim = xs.simulate(9, shape=SHAPE, seed=1)
    found: xr.DataArray = sim.run["jungfrau"]["raw"].sd.calibrate(sim.constants)
    return found


def total(frame: Any) -> float:
    return float(np.nansum(frame))


@numba.njit(nogil=True)
def bright(frame):  # type: ignore[no-untyped-def]
    n = 0
    for value in frame.ravel():
        n += value > 5.0
    return n


def several(frame: Any) -> dict[str, Any]:
    return {
        "mean": np.nanmean(frame),
        "rows": np.nansum(frame, axis=(0, 2)),
        "high": [float(v) for v in frame[frame > 8.0]],
        "lit": bool(np.nanmax(frame) > 20.0),
    }


def test_it_equals_a_bare_loop_however_the_frames_are_cut(cal: xr.DataArray, computing_is_forbidden: Any) -> None:
    frames = cal.compute().values
    with computing_is_forbidden():
        lazy = cal.chunk(event=4).sd.reduce(
            {"mine": several, "sum": total, "fast": bright, "box": xs.projection("row")}
        )
    for small in (lazy.compute(scheduler="threads"), lazy.compute(scheduler="synchronous"), cal.compute().sd.reduce(
        {"mine": several, "sum": total, "fast": bright}
    )):  # fmt: skip
        np.testing.assert_array_equal(small["sum_value"], [total(f) for f in frames])
        np.testing.assert_array_equal(small["fast_value"], [bright(f) for f in frames])
        np.testing.assert_array_equal(small["mine_rows"], [np.nansum(f, axis=(0, 2)) for f in frames])
        for found, f in zip(small["mine_high"].values, frames, strict=True):
            np.testing.assert_array_equal(found, f[f > 8.0])
        assert small["mine_lit"].dtype == bool
        assert not small["mine_failed"].any()
    flat = xs.flatten(lazy.compute())
    assert flat["mine_high"].size == (frames > 8.0).sum()


def test_apply_has_the_names_of_the_function_itself(cal: xr.DataArray) -> None:
    ours = cal.sd.apply(total)
    assert sorted(ours) == ["error", "failed", "value"]
    xr.testing.assert_identical(ours.compute(), xs.apply(cal, total).compute())


def test_an_event_in_which_it_fails_is_told_and_the_others_go_on(cal: xr.DataArray) -> None:
    limit = float(np.median([total(f) for f in cal.values]))

    def fussy(frame: Any) -> dict[str, Any]:
        if total(frame) > limit:
            raise RuntimeError("too much light")
        return {"sum": total(frame), "n": 3, "list": [1.0]}

    outputs = {"sum": "f8", "n": "i4", "list": xs.Output(("hit",), (None,), np.dtype("f8"))}
    small = cal.chunk(event=2).sd.apply(fussy, outputs=outputs).compute()
    expected = np.array([total(f) > limit for f in cal.values])
    assert 0 < expected.sum() < 9
    np.testing.assert_array_equal(small["failed"], expected)
    assert set(small["error"].values[expected]) == {"RuntimeError: too much light"}
    assert set(small["error"].values[~expected]) == {""}
    assert np.isnan(small["sum"].values[expected]).all()
    assert [len(v) for v in small["list"].values] == [0 if e else 1 for e in expected]

    def uneven(frame: Any) -> Any:
        return np.zeros(2 if np.nansum(frame) > limit else 3)

    shapes = cal.sd.apply(uneven, outputs={"value": xs.Output(("a",), (3,), np.dtype("f8"))}).compute()
    np.testing.assert_array_equal(shapes["failed"], expected)


@pytest.mark.parametrize(
    ("dtype", "returned", "told"),
    [
        ("u1", 300, "no uint8: 300"),
        ("u4", -1, "no uint32: -1"),
        ("i4", 0.5, "no int32: 0.5"),
        ("i4", np.nan, "no int32: nan"),
        ("?", 2, "no bool: 2"),
        ("f4", 1e300, "too large for float32"),
        ("i8", "masked", "no int64: nan"),
    ],
)
def test_no_number_becomes_another(cal: xr.DataArray, dtype: str, returned: Any, told: str) -> None:
    def give(frame: Any) -> Any:
        return np.ma.masked if returned == "masked" else returned  # made here: workers get the function alone

    small = cal[:2].sd.apply(give, outputs={"value": dtype})
    assert small["failed"].all()
    assert told in str(small["error"].values[0])


def test_what_lies_under_a_mask_is_no_result_and_leaving_the_program_stops_nothing(cal: xr.DataArray) -> None:
    row = cal[:1].sd.apply(lambda frame: np.ma.masked_less(frame[0, 0], np.inf))
    assert np.isnan(row["value"]).all()

    def leaves(frame: Any) -> float:
        raise SystemExit(3)

    assert cal[:1].sd.apply(leaves, outputs={"value": "f8"})["error"].compute().item() == "SystemExit: 3"


def test_it_may_take_the_variance() -> None:
    sim = xs.simulate(4, shape=SHAPE, seed=1)
    raw = sim.run["jungfrau"]["raw"]
    both = raw.sd.calibrate(sim.constants, variance="noise")
    ours = both.sd.apply(lambda frame, variance: np.nansum(frame / variance), variance=True)
    expected = (both["calibrated"] / both["calibrated_variance"]).sum(("segment", "row", "column"))
    np.testing.assert_allclose(ours["value"], expected, rtol=1e-4)
    alone = both.sd.apply(lambda frame: np.nansum(frame)).compute()  # the variance is there, and is not asked for
    assert not alone["failed"].any()
    np.testing.assert_array_equal(alone["value"], both["calibrated"].sd.apply(np.nansum)["value"])
    with pytest.raises(ParameterError, match="do not have"):
        both["calibrated"].sd.apply(lambda frame, variance: 0.0, variance=True, outputs={"value": "f8"})


def test_every_chunk_is_read_and_calibrated_once() -> None:
    sim = xs.simulate(60, shape=SHAPE, seed=1)
    raw = sim.run["jungfrau"]["raw"].compute()
    reads: list[int] = []

    def read(block: Any, block_info: Any = None) -> Any:
        reads.append(block_info[0]["chunk-location"][0])
        return block

    source = da.from_array(raw.values, chunks=(10, -1, -1, -1))
    counted = raw.copy(data=source.map_blocks(read, dtype=raw.dtype, meta=np.empty((0,) * 4, raw.dtype)))
    cal = counted.sd.calibrate(sim.constants)
    small = cal.sd.reduce({"rows": xs.projection("row"), "mine": total, "more": several})
    assert reads == []
    dask.compute(small)
    assert sorted(reads) == list(range(6))


def test_what_cannot_be_a_record_is_refused(cal: xr.DataArray) -> None:
    def broken(frame: Any) -> float:
        raise KeyError("no")

    lock = threading.Lock()
    for make, text in (
        (lambda: xs.record(3), "made of a function"),
        (lambda: xs.apply(cal, 3), "neither a record nor a function"),  # type: ignore[arg-type]
        (lambda: cal.sd.apply(broken), "fails on a frame of ones"),
        (lambda: cal.sd.apply(lambda frame: "text"), "no number"),
        (lambda: cal.sd.apply(lambda frame: [[1, 2], [3]]), "no number"),
        (lambda: cal.sd.apply(lambda frame: [[1, 2], [3, 4]]), "no number"),
        (lambda: cal.sd.apply(total, outputs=["value"]), "outputs of a function have names"),
        (lambda: cal.sd.apply(total, outputs={"value": "U5"}), "dtype of real numbers"),
        (lambda: cal.sd.apply(total, outputs={"value": xs.Output((), (), np.dtype("c16"))}), "dtype of real numbers"),
        (lambda: cal.sd.apply(xs.roi), r"xs\.roi\(places\)"),  # type: ignore[arg-type]
        (lambda: cal.sd.apply(lambda frame: lock.locked()), "sent to workers"),
        (lambda: cal.sd.apply(total, outputs={"failed": "f8"}), "cannot be called"),
        (lambda: cal.sd.apply(total, outputs={"value": "nonsense"}), "output 'value'"),
    ):
        with pytest.raises(ParameterError, match=text):
            make()


# ---- decorators, batches, names ---------------------------------------------------------------------------------


@xs.record
def decorated(frame: Any) -> float:
    return float(np.nansum(frame))


@xs.record(outputs={"total": "f8", "n": "i4"}, batch=True)
def of_a_batch(frames: Any) -> dict[str, Any]:
    return {"total": np.nansum(frames, axis=(1, 2, 3)), "n": (frames > 5).sum(axis=(1, 2, 3))}


def ragged_batch(frames: Any) -> dict[str, Any]:
    return {"high": [list(f[f > 8.0]) for f in frames]}


def test_a_decorated_function_is_a_record_and_still_a_function(cal: xr.DataArray) -> None:
    assert decorated(cal[0].values) == total(cal[0].values)
    np.testing.assert_array_equal(cal.sd.apply(decorated)["value"], [total(f) for f in cal.values])
    again = pickle.loads(pickle.dumps(decorated))
    assert (again.digest, again(np.ones(3))) == (decorated.digest, 3.0)
    with pytest.raises(ParameterError, match="says already what it does"):
        cal.sd.apply(decorated, outputs={"value": "f4"})
    with pytest.raises(ParameterError, match="says already what it does"):
        cal.sd.apply(xs.projection("row"), batch=True)


@pytest.mark.parametrize("chunk", [1, 3, 9])
def test_a_function_of_a_batch_gives_what_it_gives_frame_by_frame(cal: xr.DataArray, chunk: int) -> None:
    frames = cal.compute().values
    small = cal.chunk(event=chunk).sd.reduce({"b": of_a_batch, "r": xs.record(ragged_batch, batch=True)}).compute()
    np.testing.assert_array_equal(small["b_total"], np.nansum(frames, axis=(1, 2, 3)))
    np.testing.assert_array_equal(small["b_n"], (frames > 5).sum(axis=(1, 2, 3)))
    for found, frame in zip(small["r_high"].values, frames, strict=True):
        np.testing.assert_array_equal(found, frame[frame > 8.0])


def test_one_bad_event_of_a_batch_spoils_no_other(cal: xr.DataArray) -> None:
    sums = np.nansum(cal.values, axis=(1, 2, 3), dtype=float)
    limit = float(np.sort(sums)[4:6].mean())

    def fussy(frames: Any) -> Any:
        found = np.nansum(frames, axis=(1, 2, 3), dtype=float)
        if (found > limit).any():
            raise RuntimeError("too much light")
        return found

    small = cal.sd.apply(fussy, batch=True, outputs={"value": "f8"}).compute()
    np.testing.assert_array_equal(small["failed"], sums > limit)
    wrong = cal.sd.apply(lambda frames: np.zeros(len(frames) + 1), batch=True, outputs={"value": "f8"}).compute()
    assert wrong["failed"].all()
    assert "2 values" in str(wrong["error"].values[0]) or "one value for each" in str(wrong["error"].values[0])


def test_a_function_is_found_by_its_name(cal: xr.DataArray, tmp_path: Any, monkeypatch: Any) -> None:
    (tmp_path / "my_own_module.py").write_text(
        "import numpy as np\nimport xsmall as xs\n\ndef mine(frame):\n    return np.nanmax(frame)\n\n"
        "@xs.record(outputs={'low': 'f4'})\ndef other(frame):\n    return {'low': np.nanmin(frame)}\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    small = cal.sd.reduce({"a": "my_own_module:mine", "b": "my_own_module:other"}).compute()
    np.testing.assert_array_equal(small["a_value"], np.nanmax(cal.values, axis=(1, 2, 3)))
    np.testing.assert_array_equal(small["b_low"], np.nanmin(cal.values, axis=(1, 2, 3)))
    assert "source sha256" in small.attrs["parameters"]
    for name in ("my_own_module:none", "no_such_module:mine", ":"):
        with pytest.raises(ParameterError, match="no function"):
            cal.sd.apply(name)


def test_the_provenance_tells_one_source_from_another(cal: xr.DataArray) -> None:
    one, other = (json.loads(cal.sd.apply(f).attrs["parameters"])["records"]["user"] for f in (total, bright))
    assert "total" in one
    assert one.split("sha256 ")[1] != other.split("sha256 ")[1]


# ---- frames are views -------------------------------------------------------------------------------------------


def cut(frame: Any) -> float:
    frame[frame < 3.0] = 0
    return float(np.nansum(frame))


@numba.njit
def cut_compiled(frame):  # type: ignore[no-untyped-def]
    n = 0.0
    for i in range(frame.size):
        frame.ravel()[i] = frame.ravel()[i]
        n += frame[0, 0, 0]
    frame[0, 0, 0] = 7.0
    return n


def test_a_function_that_writes_to_its_frame_harms_nobody(cal: xr.DataArray) -> None:
    held = cal.compute()
    before = held.values.copy()
    small = held.sd.reduce({"cut": cut, "compiled": cut_compiled, "sum": total})
    np.testing.assert_array_equal(held.values, before)
    np.testing.assert_array_equal(small["sum_value"], [total(f) for f in before])
    np.testing.assert_array_equal(small["cut_value"], [cut(f.copy()) for f in before])
    assert not small["compiled_failed"].any()


def test_compiled_functions_run_without_the_gil(lets_others_run: Any) -> None:
    from xsmall.kernels.user import without_gil

    @numba.njit
    def slow(values):  # type: ignore[no-untyped-def]
        out = 0.0
        for _ in range(200):
            for value in values:
                out += value**0.5
        return out

    signed = numba.njit("float64(float64[::1])")(slow.py_func)
    for function in (slow, signed):
        free = without_gil(function)
        assert free is not function
        assert without_gil(free) is free
        values = np.ones(10_000)
        assert free(values) == function(values)
        assert lets_others_run(lambda free=free, values=values: free(values))
    assert without_gil(total) is total
    ufunc = numba.vectorize(lambda x: x + 1)
    assert without_gil(ufunc) is ufunc


def test_what_it_prints_and_zero_events(cal: xr.DataArray, capsys: Any) -> None:
    def loud(frame: Any) -> float:
        print("here")  # noqa: T201
        return 1.0

    assert (cal.compute().sd.apply(loud)["value"] == 1).all()
    assert capsys.readouterr().out.count("here") == 10
    empty = cal.isel(event=slice(0, 0))
    for frames in (empty, empty.compute()):
        assert frames.sd.apply(several).compute()["rows"].shape == (0, SHAPE[1])


# ---- several detectors ------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def two() -> dict[str, xr.DataArray]:
    fast, slow = xs.simulate(40, shape=SHAPE, seed=1), xs.simulate(40, shape=(1, 8, 8), seed=2)
    epix = slow.run["jungfrau"]["raw"].sd.calibrate(slow.constants).isel(event=slice(1, 36, 3))
    return {
        "jungfrau": fast.run["jungfrau"]["raw"].sd.calibrate(fast.constants),
        "epix": epix.assign_coords(event=fast.run["jungfrau"]["raw"].event[1:36:3]),
        "i0": fast.run["events"]["i0"],
    }


def both(jungfrau: Any, epix: Any, i0: Any) -> dict[str, Any]:
    return {"ratio": np.nansum(jungfrau) / i0, "corner": epix[0, :2, :2], "pair": np.nanmax(jungfrau) * np.nanmax(epix)}


@pytest.mark.parametrize("chunks", [(10, 4), (7, 5), (40, 12), (3, 1)])
def test_two_detectors_are_joined_by_event(two: Any, chunks: tuple[int, int], computing_is_forbidden: Any) -> None:
    given = {**two, "jungfrau": two["jungfrau"].chunk(event=chunks[0]), "epix": two["epix"].chunk(event=chunks[1])}
    with computing_is_forbidden():
        lazy = xs.apply(both, **given)
    small = lazy.compute()
    fast, slow = two["jungfrau"].compute(), two["epix"].compute()
    there = np.isin(fast.event, slow.event)
    assert 0 < there.sum() < 40
    np.testing.assert_array_equal(small["missing"], np.where(there, "", "epix"))
    assert np.isnan(small["ratio"].values[~there]).all()
    assert not small["failed"].any()
    for event in slow.event.values:
        ours = {k: v.sel(event=event).values for k, v in (("jungfrau", fast), ("epix", slow), ("i0", two["i0"]))}
        expected, found = both(**ours), small.sel(event=event)
        for name, value in expected.items():
            np.testing.assert_array_equal(found[name], value)
    held = xs.apply(both, **{k: v.compute() for k, v in given.items()})
    xr.testing.assert_identical(small.drop_attrs(), held.drop_attrs())
    some = xs.apply(both, **{**given, "jungfrau": given["jungfrau"].compute()}).compute()
    xr.testing.assert_identical(small.drop_attrs(), some.drop_attrs())
    kept = xs.apply(both, **{**given, "jungfrau": given["jungfrau"].persist()}).compute()
    xr.testing.assert_identical(small.drop_attrs(), kept.drop_attrs())


def test_the_slow_one_may_come_first_and_what_is_left_over_is_told(two: Any) -> None:
    def ratio(epix: Any, jungfrau: Any) -> float:
        return float(np.nansum(epix) / np.nansum(jungfrau))

    small = xs.apply(ratio, epix=two["epix"], jungfrau=two["jungfrau"]).compute()
    assert small.sizes["event"] == 12
    assert (small["missing"] == "").all()
    assert small["missing"].attrs["left_out"] == "jungfrau: 28 of 40 events"
    expected = two["epix"].sum(("segment", "row", "column")) / two["jungfrau"].sum(("segment", "row", "column"))
    np.testing.assert_allclose(small["value"], expected, rtol=1e-4)


def test_it_joins_the_pass_of_other_records_and_a_batch_too(two: Any) -> None:
    beside = xs.record(lambda frame, epix, gain: np.nansum(frame) * np.nansum(epix) * gain, beside={
        "epix": two["epix"], "gain": two["i0"]})  # fmt: skip
    many = xs.record(
        lambda frames, epix: np.nansum(frames, axis=(1, 2, 3)) * np.nansum(epix, axis=(1, 2, 3)),
        beside={"epix": two["epix"]}, batch=True,
    )  # fmt: skip
    small = two["jungfrau"].sd.reduce({"mine": beside, "rows": xs.projection("row"), "many": many}).compute()
    alone = two["jungfrau"].sd.reduce({"rows": xs.projection("row")}).compute()
    np.testing.assert_array_equal(small["rows_projection"], alone["rows_projection"])
    for event in two["epix"].event.values:
        f, e, g = (two[k].sel(event=event).values for k in ("jungfrau", "epix", "i0"))
        np.testing.assert_array_equal(small.sel(event=event)["mine_value"], np.nansum(f) * np.nansum(e) * g)
        np.testing.assert_allclose(small.sel(event=event)["many_value"], np.nansum(f) * np.nansum(e), rtol=1e-6)
    also = two["jungfrau"].sd.apply(lambda frame, i0: np.nansum(frame) / i0, i0=two["i0"].chunk(event=6)).compute()
    pairs = zip(two["jungfrau"].values, two["i0"].values, strict=True)
    np.testing.assert_array_equal(also["value"], [np.nansum(f) / i for f, i in pairs])


def test_a_frame_without_segments_is_missing(two: Any) -> None:
    there = np.ones((12, 1), bool)
    there[3] = False
    epix = two["epix"].compute().assign_coords(present=(("event", "segment"), there))
    small = xs.apply(both, jungfrau=two["jungfrau"], epix=epix, i0=two["i0"]).compute()
    assert str(small["missing"].sel(event=epix.event[3]).values) == "epix"
    assert (small["missing"] == "").sum() == 11


def test_chunks_of_several_detectors_are_read_once(two: Any) -> None:
    reads: dict[str, list[int]] = {"jungfrau": [], "epix": []}

    def counted(name: str, chunk: int) -> xr.DataArray:
        def read(block: Any, block_info: Any = None) -> Any:
            reads[name].append(block_info[0]["chunk-location"][0])
            return block

        held = two[name].compute()
        source = da.from_array(held.values, chunks=(chunk, -1, -1, -1))
        return held.copy(data=source.map_blocks(read, dtype=held.dtype, meta=np.empty((0,) * 4, held.dtype)))

    fast, slow = counted("jungfrau", 6), counted("epix", 2)
    mine = xs.record(lambda frame, epix: np.nansum(frame) + np.nansum(epix), beside={"epix": slow})
    fast.sd.reduce({"mine": mine, "again": mine, "rows": xs.projection("row")}).compute(scheduler="synchronous")
    assert sorted(reads["jungfrau"]) == list(range(7))
    assert sorted(reads["epix"]) == list(range(6))


def test_what_cannot_be_joined_is_refused(two: Any) -> None:
    far = two["epix"].assign_coords(event=two["epix"].event + np.timedelta64(1, "h"))
    for make, text in (
        (lambda: xs.apply(both, jungfrau=two["jungfrau"], epix=far, i0=two["i0"]), "no event in common"),
        (lambda: xs.apply(both, jungfrau=two["jungfrau"], epix=3, i0=two["i0"]), "nothing that belongs to events"),  # type: ignore[arg-type]
        (lambda: xs.apply(both, i0=two["i0"]), "takes each of them by name"),
        (lambda: xs.apply(both, variance=True, jungfrau=two["jungfrau"], i0=two["i0"]), "takes each of them by name"),
        (lambda: two["jungfrau"].sd.apply(both, epix=two["epix"].drop_vars("event")), "no labels"),
        (lambda: xs.apply(two["jungfrau"]), "neither a record nor a function"),
    ):
        with pytest.raises((ParameterError, DataError), match=text):
            make()


def above(limit: float) -> Any:
    def chosen(frame: Any) -> dict[str, Any]:
        return {"high": frame[frame > limit], "profile": np.nansum(frame, axis=(0, 1))}

    return chosen


@pytest.mark.parametrize("limit", [20.0, 0.5, -1.0])
def test_an_array_whose_length_differs_is_a_list(cal: xr.DataArray, limit: float) -> None:
    """A frame of ones gives none or all of its pixels, a frame of other values another number of them."""
    found = cal.sd.apply(above(limit)).compute()
    assert not found.failed.any(), found.error.values
    assert found.profile.dims == ("event", "profile_0")
    for values, frame in zip(found.high.values, cal.values, strict=True):
        np.testing.assert_array_equal(values, frame[frame > limit])
        assert values.dtype == np.float32


def test_an_event_that_differs_all_the_same_is_told_what_to_return(cal: xr.DataArray) -> None:
    length = cal[3].compute()

    def odd(frame: Any) -> Any:
        return np.ones(5 if np.array_equal(frame, length, equal_nan=True) else 4)

    found = cal.sd.apply(odd).compute()
    assert found.failed.values.tolist() == [False] * 3 + [True] + [False] * 5
    assert found.error.values[3] == "ValueError: value has shape (5,) instead of (4,); a list may have any length"


def test_a_frame_that_a_function_does_not_take_does_not_disturb(cal: xr.DataArray) -> None:
    def normalised(frame: Any) -> Any:
        sums = np.nansum(frame, axis=(0, 1))
        assert sums.any(), "only zeros"
        return sums / np.nansum(frame)

    found = cal.sd.apply(normalised).compute()
    np.testing.assert_allclose(found.value.sum("value_0"), 1.0, rtol=1e-5)


def test_arguments_that_do_not_fit_are_named(two: Any) -> None:
    fast, slow, i0 = two["jungfrau"], two["epix"], two["i0"]

    def ratio(jungfrau: Any, epix: Any, i0: Any) -> Any:
        return np.nansum(jungfrau) / np.nansum(epix) / i0

    with pytest.raises(ParameterError, match=r"missing a required argument: 'i0'[\s\S]*jungfrau, epix, i0") as told:
        xs.apply(ratio, jungfrau=fast, epix=slow)
    assert "xs.apply(ratio, jungfrau=..., epix=..., i0=...)" in str(told.value)
    with pytest.raises(ParameterError, match=r"given jungfrau, epx, i0"):
        xs.apply(ratio, jungfrau=fast, epx=slow, i0=i0)
    with pytest.raises(ParameterError, match=r"missing a required argument: 'i0'") as told:
        fast.sd.apply(ratio, epix=slow, outputs={"value": "f8"})
    assert ".sd.apply(ratio, epix=..., i0=...)" in str(told.value)
    with pytest.raises(ParameterError, match=r"\.sd\.apply\(function, epix=\.\.\., i0=\.\.\.\)"):
        fast.sd.apply(ratio, beside={"epix": slow, "i0": i0})
    assert fast.sd.apply(ratio, epix=slow, i0=i0)["value"].notnull().any()


def test_a_function_in_a_chain_is_told_how_it_goes(cal: xr.DataArray) -> None:
    made = xs.droplet(5, 2) | xs.photon(9.5, image=True)
    for first in (
        xs.roi(xs.Box(segment=0)),
        xs.photon(9.5),
        made,
        made | xs.projection("row"),
        xs.straighten([0.0, 0.1]),
    ):
        with pytest.raises(TypeError, match=r"a function becomes a record[\s\S]*\| xs\.record\(lambda"):
            first | total
        with pytest.raises(TypeError, match="unsupported operand"):
            first | 3
    with pytest.raises(ParameterError, match=r"a function takes frames, and roi makes none"):
        xs.roi(xs.Box(segment=0)) | xs.record(total)
    found = cal.sd.apply(made | xs.record(lambda frame: np.nansum(frame)))["value"].compute()
    np.testing.assert_array_equal(found, cal.sd.apply(xs.droplet(5, 2) | xs.photon(9.5))["n_photons"])
    part = cal.sel(row=slice(0, 20), column=slice(0, 30)).sd.apply(lambda frame: np.nansum(frame))["value"]
    np.testing.assert_allclose(part, cal.compute()[:, :, :21, :31].sum(("segment", "row", "column")), rtol=1e-5)
