"""Detectors of every decoding alike: beside slow twins, read once in the pass of reductions, tables where needed."""

import gc
import pickle
import weakref
from collections import Counter
from collections.abc import Callable
from typing import Any, NamedTuple

import dask
import dask.array as da
import numpy as np
import pytest
import xarray as xr

import xsmall as xs
from tests.same_reduction import assert_same_reduction
from xsmall.calibration.common_mode.mode import CommonMode, Exclude, Subtract
from xsmall.calibration.reasons import DEFAULT_TRUST, own_reasons
from xsmall.calibration.tables import control_stages
from xsmall.cube.filling import Tile
from xsmall.detector.geometry.panel import Panel, PixelAxis
from xsmall.detector.types import Decoding, detector_type
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

        self.array = da.map_blocks(
            read, chunks=whole, dtype=values.dtype, meta=np.empty((0,) * values.ndim, values.dtype)
        )

    def once(self) -> bool:
        return len(self.reads) == self.array.npartitions and set(self.reads.values()) == {1}


KINDS = ["jungfrau", "epix10ka", "epixuhr", "fccd960", "epix100", "camera float", "agipd", "agipd analogue",
         "jungfrau_euxfel"]  # fmt: skip
"""A detector of every decoder, with one memory cell or several."""


class Detector(NamedTuple):
    """Frames of a detector with missing and damaged segments, what goes with them, and constants."""

    raw: xr.DataArray
    table: xr.Dataset
    gain: xr.DataArray | None
    adc: np.ndarray
    stage: np.ndarray
    """Gain stage of each value, -1 where it has none."""

    @property
    def beside(self) -> dict[str, Any]:
        return {} if self.gain is None else {"gain_stage": self.gain}

    def calibrate(self, **options: Any) -> Any:
        return xs.calibrate(self.raw, self.table, **self.beside, **options)

    def lazy(self, chunks: Any, of_gain: Any = None, table: xr.Dataset | None = None) -> "Detector":
        """The same with frames in chunks, and gain in others."""
        raw = self.raw.copy(data=self.raw.chunk(chunks).data)
        gain = None if self.gain is None else self.gain.chunk(of_gain or chunks)
        return self._replace(raw=raw, gain=gain, table=self.table if table is None else table)

    def counted(self, chunks: Any, of_gain: Any = None) -> "tuple[Detector, list[Counted]]":
        """The same with frames, and gain, that count how often they are read."""
        arrays = [Counted(self.raw.values, chunks)]
        gain = self.gain
        if gain is not None:
            arrays.append(Counted(gain.values, of_gain or chunks))
            gain = gain.copy(data=arrays[1].array)
        return self._replace(raw=self.raw.copy(data=arrays[0].array), gain=gain), arrays


def detector(kind: str, n: int = N) -> Detector:
    """Make frames and constants; of detectors with memory cells constants of four."""
    rng = np.random.default_rng(8)
    name, *how = kind.split()
    entry = detector_type(name)
    beside = entry.decoding is Decoding.BESIDE
    sizes = (len(CELLS), entry.n_stages, *SHAPE)
    table = xr.Dataset(
        {
            "pedestal": (TABLE, rng.normal(450, 50, sizes).astype("f4")),
            "offset": (TABLE, rng.normal(0, 5, sizes).astype("f4")),
            "gain": (TABLE, rng.uniform(5, 20, sizes).astype("f4")),
            "noise": (TABLE, rng.uniform(3, 30, sizes).astype("f4")),
            "status": (TABLE, np.where(rng.random(sizes) < 0.02, 4, 0).astype(np.uint32)),
            "threshold": (
                ("memory_cell", "threshold_number", *DIMS[1:]),
                np.sort(rng.uniform(5500, 8500, (len(CELLS), 2, *SHAPE)), axis=1).astype("f4"),
            ),
        },
        coords={"memory_cell": CELLS},
        attrs={"detector_type": name},
    )
    cell = rng.choice(range(1, 4), n) if beside else np.zeros(n, int)
    if not beside:
        table = table.drop_vars("threshold").isel(memory_cell=0, drop=True)
    present, damage = rng.random((n, SHAPE[0])) < 0.9, (rng.random((n, SHAPE[0])) < 0.1).astype(np.uint8)
    assert not present.all()
    assert damage.any()
    coords: dict[str, Any] = {"event": TIMES[:n], "present": (DIMS[:2], present), "damage": (DIMS[:2], damage)}
    adc = rng.integers(400, 1500, (n, *SHAPE)).astype(np.uint16)
    code = np.where(rng.random(adc.shape) < 0.7, 0, rng.integers(0, entry.n_codes, adc.shape))
    gain: Any = None
    stage = np.append(entry.stage_of_code or [0], [-1] * 4)[code]
    words = (adc << entry.data_shift) | (0 if beside else code.astype(np.uint16) << entry.code_shift)
    if entry.decoding is Decoding.CONTROL:
        bits = rng.choice([value for _, value, *_ in entry.control], SHAPE).astype(np.uint8)
        coords["gain_control"] = (DIMS[1:], bits)
        stage = np.zeros(adc.shape, int) - 1
        for mask, value, before, after in entry.control:
            stage = np.where((bits & mask) == value, np.where(code, after, before), stage)
    if beside:
        coords["memory_cell"] = ("event", CELLS[cell])
        gain = xr.DataArray(code.astype(np.uint8), dims=DIMS)
    if how == ["analogue"]:
        measured = rng.integers(5000, 9000, adc.shape).astype(np.uint16)
        gain = gain.copy(data=measured)
        stage = (measured[:, None] > table["threshold"].values[cell]).sum(axis=1)
    raw = xr.DataArray(words.astype("f4") if how == ["float"] else words.astype(np.uint16), dims=DIMS, coords=coords)
    raw = raw.assign_attrs(detector_type=name).rename("raw")
    panels = [Panel((0.01 * s, 0.0, 0.1), (1e-4, 0.0, 0.0), (0.0, 1e-4, 0.0), SHAPE[1:]) for s in range(SHAPE[0])]
    return Detector(raw.sd.assign_geometry(xs.Geometry.from_panels(panels)), table, gain, adc, stage)


def of_values(known: Detector, name: str) -> np.ndarray:
    """A constant of the memory cell and stage of each value; of values without a stage that of stage 0."""
    table = known.table[name]
    if "memory_cell" in table.dims:
        table = table.sel(memory_cell=known.raw["memory_cell"].values)
    of_events = np.broadcast_to(table.values, (len(known.adc), *table.shape[-4:]))
    return np.take_along_axis(of_events, np.maximum(known.stage, 0)[:, None], axis=1)[:, 0].astype("f8")


def bad_values(known: Detector) -> np.ndarray:
    """Which values are not to be trusted, one by one: no stage, status, or a segment that is missing or damaged."""
    entry = detector_type(known.raw.attrs["detector_type"])
    if entry.memory_cell:
        bad = of_values(known, "status") != 0
    else:
        bad = np.broadcast_to(
            (known.table["status"].values[list(entry.status_stages)] != 0).any(axis=0), known.adc.shape
        )
    gone = ~known.raw["present"].values | (known.raw["damage"].values != 0)
    return bad | (known.stage < 0) | gone[:, :, None, None]


@pytest.mark.parametrize("kind", KINDS)
def test_values_and_variances_are_those_of_a_slow_twin(kind: str) -> None:
    known = detector(kind)
    both = known.calibrate(variance="noise")
    bad = bad_values(known)
    assert 0.1 < bad.mean() < 0.9
    adu = known.adc - of_values(known, "pedestal") - of_values(known, "offset")
    gain = of_values(known, "gain")
    np.testing.assert_allclose(both["calibrated"], np.where(bad, np.nan, adu / gain), rtol=1e-4, atol=1e-3)
    spread = np.square(of_values(known, "noise") / gain)
    np.testing.assert_allclose(both["calibrated_variance"], np.where(bad, np.nan, spread), rtol=1e-4)
    np.testing.assert_array_equal(known.calibrate(), both["calibrated"])


@pytest.mark.parametrize("stages", [None, (0,), (1, 2)])
@pytest.mark.parametrize("n_sigma", [None, 60.0])
@pytest.mark.parametrize("kind", KINDS)
def test_the_common_mode_is_that_of_a_slow_twin(
    kind: str, n_sigma: float | None, stages: tuple[int, ...] | None
) -> None:
    known = detector(kind)
    entry = detector_type(known.raw.attrs["detector_type"])
    if entry.n_stages == 1 and stages == (1, 2):
        return
    bright = () if n_sigma is None else (Exclude(n_sigma=n_sigma),)
    mode = CommonMode(steps=(*bright, Subtract(name="row", rows=1, columns=32, min_count=3)), gain_stages=stages)
    adu = known.adc - of_values(known, "pedestal") - of_values(known, "offset")
    scale = np.array(entry.common_mode_scale or [1] * entry.n_stages)[np.maximum(known.stage, 0)]
    bad = bad_values(known)
    good = ~bad & np.isin(known.stage, range(entry.n_stages) if stages is None else stages)
    if n_sigma is not None:
        of_stage = np.full_like(known.stage, (stages or (0,))[0])
        if entry.decoding is Decoding.CONTROL:  # noise of the stage that a pixel is configured for
            of_stage = np.broadcast_to(control_stages(entry, known.raw["gain_control"].values)[0], known.stage.shape)
        good &= adu * scale < n_sigma * of_values(known._replace(stage=of_stage), "noise")
    units = (N, *SHAPE[:2], 2, 32)
    good_units, corrected = good.reshape(units), np.array(adu * scale).reshape(units)
    count = good_units.sum(axis=-1)
    enough = count >= 3
    corrected -= np.where(
        good_units & enough[..., None],
        np.ma.median(np.ma.array(corrected, mask=~good_units), axis=-1).filled(0)[..., None],
        0,
    )
    corrected = corrected.reshape(good.shape)
    corrected = corrected / scale
    cal = known.calibrate(common_mode=mode)
    np.testing.assert_allclose(cal, np.where(bad, np.nan, corrected / of_values(known, "gain")), rtol=1e-3, atol=2e-3)
    assert not np.array_equal(cal, known.calibrate(), equal_nan=True)
    if kind != "camera float":  # floats are taken as ADU
        alone = xs.common_mode(known.raw, mode, known.table, **known.beside)
        here = ~bad
        np.testing.assert_allclose(alone["corrected"].values[here], corrected[here], rtol=1e-4, atol=2e-2)
        gone = ~known.raw["present"].values | (known.raw["damage"].values != 0)
        np.testing.assert_array_equal(alone["row_n_pixels"], np.where(gone[:, :, None, None], 0, count))
    lazy = known.lazy({"event": 3, "segment": 1}, {"event": 2}, table=known.table.chunk(segment=1))
    xr.testing.assert_identical(lazy.calibrate(common_mode=mode).compute(), cal)


def as_floats(cal: Any) -> Any:
    """The same values as arrays in memory, which no engine can read raw."""
    return cal.copy(deep=True).compute()


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("variance", [False, True])
def test_reductions_read_words_and_gain_once_and_get_the_same_bits(
    kind: str, variance: bool, computing_is_forbidden: Callable[[], Any]
) -> None:
    known = detector(kind)
    options: dict[str, Any] = {"variance": True, "photon_energy": 9500.0} if variance else {}
    expected = xs.reduce(as_floats(known.calibrate(**options)), RECORDS)
    for chunks, of_gain in (
        ((5, 3, 8, 64), (5, 3, 8, 64)),
        ((4, 1, 8, 64), (2, 3, 4, 64)),
        ((N, 2, 4, 9), (N, 1, 8, 64)),
    ):
        lazy, counts = known.counted(chunks, of_gain)
        with computing_is_forbidden():
            small = xs.reduce(lazy._replace(table=known.table.chunk()).calibrate(**options), RECORDS)
        assert not any(c.reads for c in counts)
        assert_same_reduction(small.compute(), expected)
        assert all(c.once() for c in counts)


@pytest.mark.parametrize("kind", ["jungfrau", "epix10ka", "agipd"])
@pytest.mark.parametrize("variance", [False, True])
@pytest.mark.parametrize("rows", [8, 3])
def test_cubes_read_once_and_get_the_same_bits(
    kind: str, variance: bool, rows: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    known = detector(kind)
    options: dict[str, Any] = {"variance": True, "photon_energy": 9500.0} if variance else {}
    small = xr.Dataset({"delay": ("event", np.arange(N) % 3)}, {"event": TIMES})
    bins = {"delay": xs.categories([0, 1, 2])}
    expected = small.sd.cube(bins, images={"a": as_floats(known.calibrate(**options))})
    lazy, counts = known.counted((4, 3, 8, 64))
    if rows < SHAPE[1]:  # as where memory is short
        tiles = [
            Tile((s, s + 1), (r, min(r + rows, SHAPE[1]))) for s in range(SHAPE[0]) for r in range(0, SHAPE[1], rows)
        ]
        monkeypatch.setattr("xsmall.cube.tasks.tiles", lambda job, machine: tiles)
    found = small.sd.cube(bins, images={"a": lazy.calibrate(**options)})
    xr.testing.assert_identical(found.compute(), expected)
    if rows == SHAPE[1]:
        assert all(c.once() for c in counts)
    assert np.isfinite(found["a_variance" if variance else "a"].values).any()


@pytest.mark.parametrize("kind", ["epix10ka", "agipd"])
def test_what_is_persisted_or_partly_in_memory_gives_the_same_bits(kind: str) -> None:
    known = detector(kind)
    cal = known.calibrate(variance="noise")
    expected = xs.reduce(as_floats(cal), RECORDS)
    lazy = known.lazy({"event": 5}, {"event": 3})
    held = lazy._replace(raw=lazy.raw.persist())
    cases = [held, lazy]
    if known.gain is not None and lazy.gain is not None:
        of_gain = lazy._replace(gain=lazy.gain.persist())
        cases += [of_gain, known._replace(gain=lazy.gain), lazy._replace(gain=known.gain)]
    small = xr.Dataset({"delay": ("event", np.arange(N) % 3)}, {"event": TIMES})
    cubes = [
        small.sd.cube({"delay": xs.categories([0, 1, 2])}, images={"a": images}).compute()
        for images in (cal, held.calibrate(variance="noise"), cases[-1].calibrate(variance="noise").persist())
    ]
    for case in cases:
        found = case.calibrate(variance="noise")
        assert origin_of(found["calibrated"].data) is not None
        assert_same_reduction(xs.reduce(found, RECORDS).compute(), expected)
        assert_same_reduction(xs.reduce(found.persist(), RECORDS).compute(), expected)
    for other in cubes[1:]:
        xr.testing.assert_identical(other, cubes[0])


@pytest.mark.parametrize("kind", KINDS)
def test_constants_are_read_once_for_each_segment_that_is_walked(kind: str) -> None:
    known = detector(kind)
    counted = {name: Counted(v.values, (*v.shape[:-3], 1, *SHAPE[1:])) for name, v in known.table.data_vars.items()}
    table = known.table.assign({n: (known.table[n].dims, c.array, known.table[n].attrs) for n, c in counted.items()})
    if "analogue" not in kind:
        counted.pop("threshold", None)  # of codes nobody asks
    cal = known.lazy({"event": 3, "segment": 1}, table=table).calibrate(variance="noise")
    assert not any(c.reads for c in counted.values())
    np.testing.assert_array_equal(cal["calibrated"].isel(segment=[1]).values, known.calibrate().values[:, [1]])
    assert {at[-3:] for c in counted.values() for at in c.reads} == {(1, 0, 0)}
    dask.compute(xs.reduce(cal, RECORDS), cal, xs.average(cal))
    assert all(c.once() for c in counted.values())


@pytest.mark.parametrize("kind", ["jungfrau", "agipd"])
def test_the_graph_and_its_tasks_carry_rules_not_tables(kind: str) -> None:
    known = detector(kind)
    dims = known.table["pedestal"].dims
    shape = (300, 3, *SHAPE) if kind == "agipd" else (3, SHAPE[0], 256, 512)
    big = xr.Dataset(
        {
            name: (dims, da.full(shape, value, chunks=(*shape[:-3], 1, *shape[-2:]), dtype="f4"))
            for name, value in {"pedestal": 400.0, "gain": 20.0}.items()
        },
        attrs=known.table.attrs,
    )
    assert big.nbytes > 5e6
    frames = (N, *shape[-3:])
    raw = xr.DataArray(da.zeros(frames, chunks=(2, *frames[1:]), dtype="u2"), dims=DIMS, attrs=known.raw.attrs)
    gain = raw.copy(data=da.zeros(frames, chunks=(2, *frames[1:]), dtype="u1")) if kind == "agipd" else None
    if kind == "agipd":
        raw = raw.assign_coords(memory_cell=known.raw["memory_cell"])
    lazy = known._replace(raw=raw, gain=gain, table=big)
    cal, flags = lazy.calibrate(), xs.trust(raw, big, **lazy.beside)
    small = xs.reduce(cal, {"rows": xs.projection("row")})
    for result in (cal, small, flags):
        assert len(pickle.dumps(dict(result.__dask_graph__()))) < 250_000
    transform = origin_of(cal.data)
    assert transform is not None
    held = transform.transform.compute()
    small.compute()
    assert len(pickle.dumps(held)) < 30_000  # also when its tables are made
    assert pickle.loads(pickle.dumps(held)) is held


@pytest.mark.parametrize("kind", ["jungfrau", "agipd"])
def test_tables_do_not_live_as_long_as_the_graph(kind: str) -> None:
    known = detector(kind)
    cal = known.lazy({"event": 5}).calibrate()
    before = cal.compute()
    origin = origin_of(cal.data)
    assert origin is not None
    tables = weakref.ref(origin.transform.compute())
    assert tables() is not None  # what was used last stays
    for options in ({"unit": "ADU"}, {"unit": "photon", "photon_energy": 9500}):
        known.calibrate(**options)
    gc.collect()
    assert tables() is None
    xr.testing.assert_identical(cal.compute(), before)


@pytest.mark.parametrize("kind", ["epix10ka", "agipd analogue"])
def test_the_result_is_the_same_on_a_cluster(kind: str) -> None:
    distributed = pytest.importorskip("distributed")
    known = detector(kind)
    expected = xs.reduce(known.calibrate(variance="noise"), RECORDS)
    of_flags = xs.trust(known.raw, known.table, **known.beside)
    lazy = known.lazy({"event": 5})
    with distributed.Client(n_workers=1, threads_per_worker=2, processes=False, dashboard_address=":0") as client:
        cal = lazy._replace(table=known.table.chunk(segment=1)).calibrate(variance="noise")
        found = [client.compute(xs.reduce(cal, RECORDS)).result()]
        gain = None if lazy.gain is None else client.persist(lazy.gain)
        held = client.persist(known.table.chunk(segment=1))
        for words, table in (
            (client.persist(lazy.raw), known.table),
            (lazy.raw, held),
            (client.persist(lazy.raw), held),
        ):
            case = known._replace(raw=words, gain=gain, table=table)
            cal = case.calibrate(variance="noise")
            found += [xs.reduce(cal, RECORDS).compute(), xs.reduce(client.persist(cal), RECORDS).compute()]
            xr.testing.assert_identical(xs.trust(words, table, **case.beside).compute(), of_flags)
    for result in found:
        assert_same_reduction(result, expected)


@pytest.mark.parametrize("kind", ["jungfrau", "agipd"])
def test_a_module_that_lies_alone_is_calibrated_alone(kind: str) -> None:
    known = detector(kind)
    lazy, counts = known.counted((4, 1, 8, 64))
    cal = lazy.calibrate()
    assert cal.chunks == counts[0].array.chunks
    np.testing.assert_array_equal(cal.isel(segment=[2]).values, known.calibrate().values[:, [2]])
    assert {at[1] for c in counts for at in c.reads} == {2}


@pytest.mark.parametrize("kind", KINDS)
def test_flags_are_held_against_exactly_what_is_nan(kind: str, computing_is_forbidden: Callable[[], Any]) -> None:
    known = detector(kind)
    table = known.table
    for name, at, value in (("pedestal", (0, 0), np.nan), ("gain", (1, 3), 0), ("gain", (0, 5), np.inf)):
        table[name].values[..., 0, :, at[0], at[1]] = value
    mask = np.random.default_rng(0).random(SHAPE) < 0.9
    cal = known.calibrate(mask=mask)
    flags = xs.trust(known.raw, table, mask=mask, **known.beside)
    against = own_reasons(detector_type(known.raw.attrs["detector_type"]), DEFAULT_TRUST)
    np.testing.assert_array_equal((flags.values & int(against)) != 0, np.isnan(cal.values))
    assert ((flags.values & int(Reason.NOT_FINITE)) != 0).any()
    assert not (cal.values == 0).any()
    lazy = known.lazy({"event": 3, "segment": 2, "row": 5}, {"event": 4}, table=table.chunk(segment=1))
    with computing_is_forbidden():
        chunked = xs.trust(lazy.raw, lazy.table, mask=mask, **lazy.beside)
    assert chunked.chunks is not None
    xr.testing.assert_identical(chunked.compute(), flags)
    added = xr.DataArray(np.where(mask, 0, int(Reason.SHADOW)).astype(np.uint32), dims=DIMS[1:], attrs=flags.attrs)
    both = xs.trust(known.raw, table, mask=added, **known.beside).values
    np.testing.assert_array_equal((both & int(Reason.SHADOW)) != 0, np.broadcast_to(~mask, both.shape))


@pytest.mark.parametrize("kind", ["jungfrau", "fccd960", "epix100", "camera float", "agipd", "jungfrau_euxfel"])
def test_saturation_switching_and_a_users_function_make_nan_and_flags(kind: str) -> None:
    known = detector(kind)
    first = detector_type(known.raw.attrs["detector_type"]).stages[0]
    limits = {"saturation": {first: 1200}, "switching": {first: (450, 8000)}}
    user = lambda words, segment: (words % 7 == 0) & (segment == 1)  # noqa: E731
    chosen = ["default", "saturated", "near_switching"]
    plain = known.calibrate()
    cal = known.calibrate(trust=chosen, user=user, **limits)
    saturated = (known.stage == 0) & (known.adc >= 1200)
    near = (known.stage == 0) & ((known.adc < 450) | (known.adc > 8000))
    theirs = (known.raw.values % 7 == 0) & (np.arange(SHAPE[0]) == 1)[:, None, None]
    bad = np.isnan(plain.values) | saturated | near | theirs
    np.testing.assert_array_equal(cal.values, np.where(bad, np.nan, plain.values))
    flags = xs.trust(known.raw, known.table, user=user, **limits, **known.beside).values
    here = known.raw["present"].values[:, :, None, None]
    for reason, where in ((Reason.SATURATED, saturated), (Reason.NEAR_SWITCHING, near), (Reason.USER, theirs)):
        np.testing.assert_array_equal((flags & int(reason)) != 0, where & here)
    lazy = known.lazy({"event": 3, "segment": 2}).calibrate(trust=chosen, user=user, **limits)
    xr.testing.assert_identical(lazy.compute(), cal)
    xr.testing.assert_identical(known.calibrate(trust=["default"]), plain)


@pytest.mark.parametrize("kind", KINDS)
def test_a_slice_in_any_order_takes_its_own_constants(kind: str) -> None:
    known = detector(kind)
    labels = {d: np.arange(n) for d, n in zip(DIMS[1:], SHAPE, strict=True)}
    raw = known.raw.assign_coords(labels)
    gain = None if known.gain is None else known.gain.assign_coords(event=raw["event"], **labels)
    part = {"event": [6, 2, 9], "segment": [2, 0], "row": [7, 1, 2], "column": slice(60, 3, -3)}
    expected = known.calibrate().isel(part)
    shuffled = known._replace(raw=raw.isel(part), gain=None if gain is None else gain.isel(event=slice(None, None, -1)))
    np.testing.assert_array_equal(shuffled.calibrate(), expected)
    turned = known.table.isel(segment=[1, 2, 0]).assign_coords(segment=[1, 2, 0])
    np.testing.assert_array_equal(shuffled._replace(table=turned).calibrate(), expected)


@pytest.mark.parametrize("kind", ["jungfrau", "agipd"])
def test_padded_segments_are_flagged(kind: str) -> None:
    known = detector(kind)
    at = tuple(np.argwhere(known.raw["present"].values & (known.raw["damage"].values == 0))[0])
    known.raw.values[at] = 1234
    flags = xs.trust(known.raw, known.table, **known.beside).values
    padded = (flags & int(Reason.PADDED)) != 0
    assert padded[at].all()
    assert padded.sum() == padded[at].size
    assert np.isnan(known.calibrate().values[at]).all()


@pytest.mark.parametrize("kind", ["jungfrau", "agipd"])
def test_area_divides_by_the_size_of_pixels(kind: str) -> None:
    known = detector(kind)
    columns = PixelAxis(length=32, asics=2, joins=(3.0,), wide=2.0)
    wide = Panel((0.0, 0.0, 0.1), (2e-4, 0.0, 0.0), (0.0, 2e-4, 0.0), SHAPE[1:], columns=columns)
    placed = known._replace(raw=known.raw.sd.assign_geometry(xs.Geometry.from_panels([wide] * SHAPE[0])))
    plain = known.calibrate(variance="noise")
    both = placed.calibrate(area=True, variance="noise")
    sizes = np.where(np.isin(np.arange(SHAPE[2]), (31, 32)), 2, 1)
    np.testing.assert_allclose(both["calibrated"].values, plain["calibrated"].values / sizes, rtol=1e-6)
    spread = plain["calibrated_variance"].values / sizes**2
    np.testing.assert_allclose(both["calibrated_variance"].values, spread, rtol=1e-5)
    with pytest.raises(GeometryError):
        known._replace(raw=known.raw.drop_vars("geometry")).calibrate(area=True)
    with pytest.raises(ParameterError, match="counting statistics"):
        placed.calibrate(area=True, variance=True, photon_energy=9500)


@pytest.mark.parametrize("kind", KINDS)
def test_common_modes_by_themselves_are_the_same_for_any_chunking(kind: str) -> None:
    known = detector(kind)
    if kind == "camera float":
        known = known._replace(raw=known.raw.assign_attrs(units="ADU"))
    mode = CommonMode(steps=(Exclude(n_sigma=60), Subtract(name="row", rows=1, columns=32, min_count=3)))
    whole = xs.common_mode(known.raw, mode, known.table, **known.beside)
    lazy = known.lazy({"event": 3, "segment": 1}, {"event": 5}, table=known.table.chunk(segment=1))
    found = xs.common_mode(lazy.raw, mode, lazy.table, **lazy.beside)
    assert found["corrected"].chunks is not None
    xr.testing.assert_identical(found.compute(), whole)
    ranked = xs.compare_common_modes(lazy.raw, lazy.table, modes=[mode], **lazy.beside)
    xr.testing.assert_identical(
        ranked.compute(), xs.compare_common_modes(known.raw, known.table, modes=[mode], **known.beside)
    )
    gone = ~known.raw["present"].values | (known.raw["damage"].values != 0)
    np.testing.assert_array_equal(np.isnan(ranked["noise"].values), np.broadcast_to(gone, ranked["noise"].shape))
