"""Calibration by memory cell joins the pass of reductions and cubes: read once, the same bits, tables where needed."""

import gc
import itertools
import pickle
import weakref
from collections import Counter
from collections.abc import Callable
from typing import Any

import dask
import dask.array as da
import numpy as np
import pytest
import xarray as xr

import xsmall as xs
from xsmall.calibration.common_mode.mode import CommonMode, Exclude, Subtract
from xsmall.cube.lanes import Tile
from xsmall.detector.geometry.panel import Panel, PixelAxis
from xsmall.engine.transform import origin_of
from xsmall.errors import GeometryError, ParameterError
from xsmall.vocabulary import Reason

DIMS = ("event", "segment", "row", "column")
TABLE = ("memory_cell", "gain_stage", *DIMS[1:])
CELLS = np.array([2, 5, 30, 31])
SHAPE = (3, 8, 64)
N = 14
TIMES = np.datetime64("2026-01-01", "ns") + np.arange(N)
RECORDS = {
    "spot": xs.roi(xs.Box(segment=1, row=(2, 6), column=(3, 40))),
    "ring": xs.azint(np.linspace(0.0, 4e-3, 5), quantity="radius"),
    "rows": xs.projection("row"),
}


class Counted:
    """An array behind dask that counts how often each of its chunks is read."""

    def __init__(self, values: np.ndarray, chunks: Any) -> None:
        self.reads: Counter[tuple[int, ...]] = Counter()
        whole = da.core.normalize_chunks(chunks, values.shape)

        def read(block_info: Any = None) -> np.ndarray:
            location = block_info[None]["array-location"]
            self.reads[tuple(start for start, _ in location)] += 1
            return values[tuple(slice(*part) for part in location)]

        self.array = da.map_blocks(read, chunks=whole, dtype=values.dtype, meta=np.empty((0,) * values.ndim, "u1"))

    def once(self) -> bool:
        return len(self.reads) == self.array.npartitions and set(self.reads.values()) == {1}


def detector(
    *, analogue: bool = False, n: int = N, shape: tuple[int, int, int] = SHAPE
) -> tuple[xr.DataArray, xr.DataArray, xr.Dataset]:
    """Frames with missing and damaged segments, gain codes or the analogue gain, constants of four memory cells."""
    rng = np.random.default_rng(8)
    words = rng.integers(4000, 9000, (n, *shape)).astype(np.uint16)
    sizes = (len(CELLS), 3, *shape)
    table = xr.Dataset(
        {
            "pedestal": (TABLE, rng.normal(4500, 50, sizes).astype("f4")),
            "gain": (TABLE, rng.uniform(5, 20, sizes).astype("f4")),
            "noise": (TABLE, rng.uniform(3, 30, sizes).astype("f4")),
            "status": (TABLE, np.where(rng.random(sizes) < 0.1, 4, 0).astype(np.uint32)),
            "threshold": (
                ("memory_cell", "threshold_number", *DIMS[1:]),
                np.sort(rng.uniform(5500, 8500, (len(CELLS), 2, *shape)), axis=1).astype("f4"),
            ),
        },
        coords={"memory_cell": CELLS},
        attrs={"detector_type": "agipd"},
    )
    present = rng.random((n, shape[0])) < 0.9
    damage = (rng.random((n, shape[0])) < 0.1).astype(np.uint8)
    assert not present.all()
    assert damage.any()
    coords = {
        "event": TIMES[:n],
        "memory_cell": ("event", rng.choice(CELLS[1:], n)),
        "present": (DIMS[:2], present),
        "damage": (DIMS[:2], damage),
    }
    raw = xr.DataArray(words, dims=DIMS, coords=coords, attrs={"detector_type": "agipd"}, name="raw")
    panels = [Panel((0.01 * s, 0.0, 0.1), (1e-4, 0.0, 0.0), (0.0, 1e-4, 0.0), shape[1:]) for s in range(shape[0])]
    raw = raw.sd.assign_geometry(xs.Geometry.from_panels(panels))
    codes = rng.choice([0, 0, 0, 1, 2, 3], (n, *shape)).astype(np.uint8)
    gain = rng.integers(5000, 9000, (n, *shape)).astype(np.uint16)
    return raw, xr.DataArray(gain if analogue else codes, dims=DIMS), table


def as_floats(cal: Any) -> Any:
    """The same values as arrays in memory, which no engine can read raw."""
    return cal.copy(deep=True).compute()


@pytest.mark.parametrize("analogue", [False, True])
@pytest.mark.parametrize("variance", [False, True])
def test_reductions_read_words_and_gain_once_and_get_the_same_bits(
    analogue: bool, variance: bool, computing_is_forbidden: Callable[[], Any]
) -> None:
    raw, gain, table = detector(analogue=analogue)
    options: dict[str, Any] = {"variance": True, "photon_energy": 9500.0} if variance else {}
    expected = xs.reduce(as_floats(xs.calibrate(raw, table, gain_stage=gain, **options)), RECORDS)
    for chunks, of_gain in (
        ((5, 3, 8, 64), (5, 3, 8, 64)),
        ((4, 1, 8, 64), (2, 3, 4, 64)),
        ((N, 2, 4, 9), (N, 1, 8, 64)),
    ):
        words, beside = Counted(raw.values, chunks), Counted(gain.values, of_gain)
        with computing_is_forbidden():
            cal = xs.calibrate(
                raw.copy(data=words.array), table.chunk(), gain_stage=gain.copy(data=beside.array), **options
            )
            small = xs.reduce(cal, RECORDS)
        assert not words.reads
        xr.testing.assert_identical(small.compute(), expected)
        assert words.once()
        assert beside.once()


@pytest.mark.parametrize("variance", [False, True])
@pytest.mark.parametrize("rows", [8, 3])
def test_cubes_read_once_and_get_the_same_bits(variance: bool, rows: int, monkeypatch: pytest.MonkeyPatch) -> None:
    raw, gain, table = detector()
    options: dict[str, Any] = {"variance": True, "photon_energy": 9500.0} if variance else {}
    small = xr.Dataset({"delay": ("event", np.arange(N) % 3)}, {"event": TIMES})
    bins = {"delay": xs.categories([0, 1, 2])}
    flat = as_floats(xs.calibrate(raw, table, gain_stage=gain, **options))
    expected = small.sd.cube(bins, images={"agipd": flat})
    words, beside = Counted(raw.values, (4, 3, 8, 64)), Counted(gain.values, (4, 3, 8, 64))
    cal = xs.calibrate(raw.copy(data=words.array), table, gain_stage=gain.copy(data=beside.array), **options)
    if rows < SHAPE[1]:  # as where memory is short
        tiles = [
            Tile((s, s + 1), (r, min(r + rows, SHAPE[1]))) for s in range(SHAPE[0]) for r in range(0, SHAPE[1], rows)
        ]
        monkeypatch.setattr("xsmall.cube.tasks.tiles", lambda job, machine: tiles)
    found = small.sd.cube(bins, images={"agipd": cal})
    xr.testing.assert_identical(found.compute(), expected)
    if rows == SHAPE[1]:
        assert words.once()
        assert beside.once()
    name = "agipd" if not variance else "agipd_variance"
    assert np.isfinite(found[name].values).any()


def test_what_is_persisted_or_partly_in_memory_gives_the_same_bits() -> None:
    raw, gain, table = detector()
    cal = xs.calibrate(raw, table, gain_stage=gain, variance="noise")
    expected = xs.reduce(as_floats(cal), RECORDS)
    lazy, beside = raw.copy(data=raw.chunk(event=5).data), gain.chunk(event=3)
    small = xr.Dataset({"delay": ("event", np.arange(N) % 3)}, {"event": TIMES})
    cubes = [
        small.sd.cube({"delay": xs.categories([0, 1, 2])}, images={"a": images}).compute()
        for images in (
            cal,
            xs.calibrate(lazy.persist(), table, gain_stage=beside, variance="noise"),
            xs.calibrate(raw, table, gain_stage=beside.persist(), variance="noise").persist(),
        )
    ]
    for words, of_gain in ((lazy.persist(), beside), (lazy, beside.persist()), (raw, beside), (lazy, gain)):
        found = xs.calibrate(words, table, gain_stage=of_gain, variance="noise")
        assert origin_of(found["calibrated"].data) is not None
        xr.testing.assert_identical(xs.reduce(found, RECORDS).compute(), expected)
        xr.testing.assert_identical(xs.reduce(found.persist(), RECORDS).compute(), expected)
    for other in cubes[1:]:
        xr.testing.assert_identical(other, cubes[0])


def test_constants_are_read_once_for_each_segment_that_is_walked() -> None:
    raw, gain, table = detector(analogue=True)
    counted = {name: Counted(v.values, (*v.shape[:2], 1, *SHAPE[1:])) for name, v in table.data_vars.items()}
    lazy = table.assign({name: (table[name].dims, c.array, table[name].attrs) for name, c in counted.items()})
    words, beside = raw.copy(data=raw.chunk(event=3, segment=1).data), gain.chunk(event=3, segment=1)
    cal = xs.calibrate(words, lazy, gain_stage=beside, variance="noise")
    one = cal["calibrated"].isel(segment=[1])
    eager = xs.calibrate(raw, table, gain_stage=gain)
    np.testing.assert_array_equal(one.values, eager.values[:, [1]])
    assert {at for c in counted.values() for at in c.reads} == {(0, 0, 1, 0, 0)}
    dask.compute(xs.reduce(cal, RECORDS), cal, xs.average(cal))
    assert all(c.once() for c in counted.values())


def test_the_graph_and_its_tasks_carry_rules_not_tables() -> None:
    raw, gain, table = detector()
    big = xr.Dataset(
        {
            name: (TABLE, da.full((300, 3, *SHAPE), value, chunks=(300, 3, 1, *SHAPE[1:]), dtype="f4"))
            for name, value in {"pedestal": 4000.0, "gain": 20.0}.items()
        },
        attrs=table.attrs,
    )
    assert big.nbytes > 5e6
    words = raw.copy(data=da.zeros(raw.shape, chunks=(2, *SHAPE), dtype="u2"))
    cal = xs.calibrate(words, big, gain_stage=gain.copy(data=da.zeros(raw.shape, chunks=(2, *SHAPE), dtype="u1")))
    small = xs.reduce(cal, RECORDS)
    flags = xs.trust(words, big, gain_stage=gain.copy(data=da.zeros(raw.shape, chunks=(2, *SHAPE), dtype="u1")))
    for lazy in (cal, small, flags):
        assert len(pickle.dumps(dict(lazy.__dask_graph__()))) < 250_000
    transform = origin_of(cal.data)
    assert transform is not None
    held = transform.transform.compute()
    small.compute()
    assert len(pickle.dumps(held)) < 20_000  # also when its tables are made
    assert pickle.loads(pickle.dumps(held)) is held


def test_tables_do_not_live_as_long_as_the_graph() -> None:
    raw, gain, table = detector()
    lazy = raw.copy(data=raw.chunk(event=5).data)
    cal = xs.calibrate(lazy, table, gain_stage=gain.chunk(event=5))
    before = cal.compute()
    origin = origin_of(cal.data)
    assert origin is not None
    tables = weakref.ref(origin.transform.compute())
    assert tables() is not None  # what was used last stays
    for options in ({"unit": "ADU"}, {"unit": "photon", "photon_energy": 9500}):
        xs.calibrate(raw, table, gain_stage=gain, **options)
    gc.collect()
    assert tables() is None
    xr.testing.assert_identical(cal.compute(), before)


def test_the_result_is_the_same_on_a_cluster() -> None:
    distributed = pytest.importorskip("distributed")
    raw, gain, table = detector(analogue=True)
    expected = xs.reduce(xs.calibrate(raw, table, gain_stage=gain, variance="noise"), RECORDS)
    lazy, beside = raw.copy(data=raw.chunk(event=5).data), gain.chunk(event=5)
    with distributed.Client(n_workers=1, threads_per_worker=2, processes=False, dashboard_address=":0") as client:
        cal = xs.calibrate(lazy, table.chunk(segment=1), gain_stage=beside, variance="noise")
        found = [client.compute(xs.reduce(cal, RECORDS)).result()]
        held = client.persist(table.chunk(segment=1))
        for words, constants in ((client.persist(lazy), table), (lazy, held), (client.persist(lazy), held)):
            cal = xs.calibrate(words, constants, gain_stage=client.persist(beside), variance="noise")
            found += [xs.reduce(cal, RECORDS).compute(), xs.reduce(client.persist(cal), RECORDS).compute()]
            flags = xs.trust(words, constants, gain_stage=client.persist(beside)).compute()
            xr.testing.assert_identical(flags, xs.trust(raw, table, gain_stage=gain))
    for result in found:
        xr.testing.assert_identical(result, expected)


def test_a_module_that_lies_alone_is_calibrated_alone() -> None:
    raw, gain, table = detector()
    words, beside = Counted(raw.values, (4, 1, 8, 64)), Counted(gain.values, (4, 1, 8, 64))
    cal = xs.calibrate(raw.copy(data=words.array), table, gain_stage=gain.copy(data=beside.array))
    assert cal.chunks == words.array.chunks
    expected = xs.calibrate(raw, table, gain_stage=gain).values[:, [2]]
    np.testing.assert_array_equal(cal.isel(segment=[2]).values, expected)
    assert {at[1] for at in (*words.reads, *beside.reads)} == {2}


@pytest.mark.parametrize("analogue", [False, True])
def test_flags_are_held_against_exactly_what_is_nan(analogue: bool) -> None:
    raw, gain, table = detector(analogue=analogue)
    table["pedestal"][1, :, 0, 0] = np.nan
    table["gain"][2, 0, 1, 3] = 0
    table["gain"][:, 0, 0, 5] = np.inf
    mask = np.random.default_rng(0).random(SHAPE) < 0.9
    cal = xs.calibrate(raw, table, gain_stage=gain, mask=mask)
    flags = xs.trust(raw, table, gain_stage=gain, mask=mask)
    np.testing.assert_array_equal(flags.values != 0, np.isnan(cal.values))
    assert ((flags.values & int(Reason.NOT_FINITE)) != 0).any()
    assert not (cal.values == 0).any()
    chunked = xs.trust(
        raw.copy(data=raw.chunk(event=3, segment=2, row=5).data), table.chunk(segment=1),
        gain_stage=gain.chunk(event=4), mask=mask,
    )  # fmt: skip
    assert chunked.chunks is not None
    xr.testing.assert_identical(chunked.compute(), flags)
    added = xr.DataArray(np.where(mask, 0, int(Reason.SHADOW)).astype(np.uint32), dims=DIMS[1:], attrs=flags.attrs)
    both = xs.trust(raw, table, gain_stage=gain, mask=added).values
    np.testing.assert_array_equal((both & int(Reason.SHADOW)) != 0, np.broadcast_to(~mask, both.shape))


def test_saturation_switching_and_a_users_function_make_nan_and_flags() -> None:
    raw, gain, table = detector()
    limits = {"saturation": {"HG": 8500, "MG": 8000}, "switching": {"HG": (4500, 16000)}}
    user = lambda words, segment: (words % 7 == 0) & (segment == 1)  # noqa: E731
    chosen = ["default", "saturated", "near_switching"]
    plain = xs.calibrate(raw, table, gain_stage=gain)
    cal = xs.calibrate(raw, table, gain_stage=gain, trust=chosen, user=user, **limits)
    words, code = raw.values, gain.values
    saturated = ((code == 0) & (words >= 8500)) | ((code == 1) & (words >= 8000))
    near = (code == 0) & ((words < 4500) | (words > 16000))
    theirs = (words % 7 == 0) & (np.arange(SHAPE[0]) == 1)[:, None, None]
    bad = np.isnan(plain.values) | saturated | near | theirs
    np.testing.assert_array_equal(cal.values, np.where(bad, np.nan, plain.values))
    flags = xs.trust(raw, table, gain_stage=gain, user=user, **limits).values
    here = raw.present.values[:, :, None, None]
    for reason, where in ((Reason.SATURATED, saturated), (Reason.NEAR_SWITCHING, near), (Reason.USER, theirs)):
        np.testing.assert_array_equal((flags & int(reason)) != 0, where & here)
    lazy = xs.calibrate(
        raw.copy(data=raw.chunk(event=3, segment=2).data), table, gain_stage=gain.chunk(event=3), trust=chosen,
        user=user, **limits,
    )  # fmt: skip
    xr.testing.assert_identical(lazy.compute(), cal)


def test_default_trust_is_the_same_by_its_name() -> None:
    raw, gain, table = detector()
    by_name = xs.calibrate(raw, table, gain_stage=gain, trust=["default"])
    xr.testing.assert_identical(by_name, xs.calibrate(raw, table, gain_stage=gain))


def test_area_divides_by_the_size_of_pixels() -> None:
    raw, gain, table = detector()
    columns = PixelAxis(length=32, asics=2, joins=(3.0,), wide=2.0)
    wide = Panel((0.0, 0.0, 0.1), (2e-4, 0.0, 0.0), (0.0, 2e-4, 0.0), SHAPE[1:], columns=columns)
    placed = raw.sd.assign_geometry(xs.Geometry.from_panels([wide] * SHAPE[0]))
    plain = xs.calibrate(raw, table, gain_stage=gain, variance="noise")
    both = xs.calibrate(placed, table, gain_stage=gain, area=True, variance="noise")
    sizes = np.where(np.isin(np.arange(SHAPE[2]), (31, 32)), 2, 1)
    np.testing.assert_allclose(both["calibrated"].values, plain["calibrated"].values / sizes, rtol=1e-6)
    spread = plain["calibrated_variance"].values / sizes**2
    np.testing.assert_allclose(both["calibrated_variance"].values, spread, rtol=1e-5)
    with pytest.raises(GeometryError):
        xs.calibrate(raw.drop_vars("geometry"), table, gain_stage=gain, area=True)
    with pytest.raises(ParameterError, match="counting statistics"):
        xs.calibrate(placed, table, gain_stage=gain, area=True, variance=True, photon_energy=9500)


def common_mode_by_hand(
    raw: xr.DataArray, gain: xr.DataArray, table: xr.Dataset, mode: CommonMode, n_sigma: float | None
) -> np.ndarray:
    """Median of each 32 columns of a row, from the good pixels in stage 0, off the pixels it was made of."""
    out = np.full(raw.shape, np.nan)
    cells = {int(c): i for i, c in enumerate(table.memory_cell.values)}
    for e, s in np.ndindex(*raw.shape[:2]):
        if not raw.present.values[e, s] or raw.damage.values[e, s]:
            continue
        c, code = cells[int(raw.memory_cell[e])], gain.values[e, s]
        pick = lambda name: np.choose(code, [*table[name].values[c, :, s], np.full(SHAPE[1:], np.nan)])  # noqa: E731, B023
        adu = raw.values[e, s].astype("f4") - pick("pedestal").astype("f4")
        good = (pick("status") == 0) & (code < 3)
        takes = good & (code == 0)
        if n_sigma is not None:
            takes &= adu < n_sigma * table.noise.values[c, 0, s]
        for r in range(SHAPE[1]):
            for first in range(0, SHAPE[2], 32):
                unit = (r, slice(first, first + 32))
                if takes[unit].any():
                    adu[unit] -= np.where(takes[unit], np.median(adu[unit][takes[unit]]), 0)
        out[e, s] = np.where(good, adu / pick("gain"), np.nan)
    return out


@pytest.mark.parametrize("n_sigma", [None, 60.0])
def test_a_common_mode_is_estimated_by_cell_and_stage(n_sigma: float | None) -> None:
    raw, gain, table = detector()
    rows = Subtract(name="row", rows=1, columns=32)
    bright = () if n_sigma is None else (Exclude(n_sigma=n_sigma),)
    mode = CommonMode(steps=(*bright, rows), gain_stages=(0,))
    cal = xs.calibrate(raw, table, gain_stage=gain, common_mode=mode)
    np.testing.assert_allclose(cal.values, common_mode_by_hand(raw, gain, table, mode, n_sigma), rtol=1e-4, atol=1e-3)
    plain = xs.calibrate(raw, table, gain_stage=gain)
    assert not np.array_equal(cal.values, plain.values, equal_nan=True)
    for nothing in (0, None, "recommended"):
        same = xs.calibrate(raw, table, gain_stage=gain, common_mode=nothing)
        np.testing.assert_array_equal(same.values, plain.values)
    lazy = xs.calibrate(
        raw.copy(data=raw.chunk(event=3, segment=1).data), table, gain_stage=gain.chunk(event=2), common_mode=mode
    )
    xr.testing.assert_identical(lazy.compute(), cal)
    expected = xs.reduce(as_floats(cal), RECORDS)
    xr.testing.assert_identical(xs.reduce(lazy, RECORDS).compute(), expected)


@pytest.mark.parametrize("stages", [None, (0,), (1, 2)])
def test_the_common_mode_by_itself_is_that_of_a_slow_twin(stages: tuple[int, ...] | None) -> None:
    raw, gain, table = detector()
    mode = CommonMode(steps=(Subtract(name="row", rows=1, columns=32, min_count=3),), gain_stages=stages)
    out = xs.common_mode(raw, mode, table, gain_stage=gain)
    for e, s, r, half in itertools.product(range(0, N, 3), range(3), range(8), range(2)):
        at = {"segment": s, "row": r, "column": slice(32 * half, 32 * half + 32)}
        cell, code = int(raw["memory_cell"][e]), gain.isel(event=e, **at)
        found = out["row_correction"].isel(event=e, segment=s, row_row=r, row_column=half)
        count = out["row_n_pixels"].isel(event=e, segment=s, row_row=r, row_column=half)
        here = bool(raw["present"][e, s]) and not raw["damage"][e, s]
        mine, values = table.sel(memory_cell=cell).isel(at), raw.isel(event=e, **at).values.astype("f8")
        stage = np.minimum(code.values, 2)
        adu = values - np.take_along_axis(mine["pedestal"].values, stage[None], 0)[0]
        good = (np.take_along_axis(mine["status"].values, stage[None], 0)[0] == 0) & (code.values < 3)
        used = good & np.isin(stage, range(3) if stages is None else stages)
        corrected = out["corrected"].isel(event=e, **at).values
        if not here:
            assert np.isnan(corrected).all()
            assert np.isnan(found)
            assert count == 0
            continue
        assert int(count) == used.sum()
        if used.sum() >= 3:
            median = np.median(adu[used])
            np.testing.assert_allclose(float(found), median, rtol=1e-5, atol=1e-3)
            expected = np.where(used, adu - median, adu)
        else:
            expected = adu
        np.testing.assert_allclose(corrected, np.where(code.values < 3, expected, np.nan), atol=2e-3)


def test_the_common_mode_of_cells_is_that_of_the_calibration_for_any_chunking() -> None:
    raw, gain, table = detector(analogue=True)
    steps = (Exclude(n_sigma=5), Subtract(name="row", rows=1, columns=32, min_count=3))
    mode = CommonMode(steps=steps, gain_stages=(0,))
    whole = xs.common_mode(raw, mode, table, gain_stage=gain)
    lazy = xs.common_mode(
        raw.copy(data=raw.chunk(event=3, segment=1).data), mode, table.chunk(segment=1), gain_stage=gain.chunk(event=5)
    )
    assert lazy["corrected"].chunks is not None
    xr.testing.assert_identical(lazy.compute(), whole)
    flat = table.drop_vars("gain")
    cal = xs.calibrate(raw, flat, gain_stage=gain, common_mode=mode, unit="ADU").values
    good = np.isfinite(cal)
    np.testing.assert_array_equal(whole["corrected"].values[good], cal[good])
    ranked = xs.compare_common_modes(raw, table, modes=[mode], gain_stage=gain)
    assert ranked["noise"].sizes["mode"] == 2
    assert np.isfinite(ranked["noise"].values[:, good.any(axis=(2, 3))]).all()
