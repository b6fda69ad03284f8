"""Real files: every value of every datagram equals psana's, and the labelled run holds the same values."""

import importlib.util
import os
import pickle
import subprocess
import sys
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray as xr

import xsmall as xs
from xsmall.detector.gain_control import gain_control
from xsmall.io.files import identify
from xsmall.io.sources.xtc2.format import Enumeration, Service
from xsmall.io.sources.xtc2.index import _BytesInMemory, contents
from xsmall.io.sources.xtc2.kept import index_of

pytestmark = pytest.mark.validation

FILES = [
    "jungfrau05M_mfx101332224_run7.xtc2",
    "epix10kaquad_ueddaq02_run109.xtc2",
    *(f"{d}/xpptut15-r0014-s00{s}-c000.xtc2" for d in ("fakesteps", "multi-seg-epics") for s in (0, 1)),
    *(f"{d}/smalldata/xpptut15-r0014-s00{s}-c000.smd.xtc2" for d in ("fakesteps", "multi-seg-epics") for s in (0, 1)),
]
WHOLE_RUNS = [
    ("fakesteps", 10, 14),
    ("multi-seg-epics", 15, 30),
    ("mixed_rate", 100, 2640),
    ("intg_det", 17, 24),
    ("chunking", 15, 360),
    ("multirun_w_new_config", 5, 5),
]
"""Folders of public runs with their events, and how many values of fields there are: see :func:`place_of`."""
Datagrams = list[tuple[int, int, dict[tuple[str, int, str, str], Any]]]


def place_of(name: str, shared: Path) -> Path:
    """Where a file or folder is: among the reference data, or in a checkout of slac-lcls/lcls2 (XSMALL_TEST_LCLS2)."""
    checkout = Path(os.environ.get("XSMALL_TEST_LCLS2", "not-said")) / "psana" / "psana" / "tests" / "test_data"
    place = next((p / name for p in (shared / "data" / "xtc2", checkout) if (p / name).exists()), None)
    if place is None:
        pytest.skip(f"{name}: set XSMALL_TEST_LCLS2 to a checkout of slac-lcls/lcls2")
    return place


@pytest.fixture(scope="session")
def psana(shared: Path, tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], tuple[Path, Datagrams]]:
    """Give the path of a real file, and all that psana sees in it."""
    if importlib.util.find_spec("psana") is None:
        pytest.skip("psana is not installed: python -m pip install 'xsmall[psana]'")

    @cache
    def dump(name: str) -> tuple[Path, Datagrams]:
        path, out = place_of(name, shared), tmp_path_factory.mktemp("psana") / "dump.pkl"
        script = Path(__file__).parents[2] / "psana_dump.py"
        subprocess.run([sys.executable, script, path, out], check=True, capture_output=True, timeout=120)
        return path, pickle.loads(out.read_bytes())

    return dump


def assert_same(ours: Any, theirs: Any, what: object) -> None:
    if isinstance(theirs, tuple):
        assert isinstance(ours, Enumeration), what
        assert ours.value == theirs[0], what
        assert dict(ours.labels) == theirs[1], what
        return
    if isinstance(theirs, np.ndarray):
        assert ours.dtype == theirs.dtype, what
    np.testing.assert_array_equal(ours, theirs, err_msg=str(what))


@pytest.mark.parametrize("name", FILES)
def test_every_value_of_every_datagram_equals_that_of_psana(name: str, psana: Callable[..., Any]) -> None:
    path, theirs = psana(name)
    index = index_of((identify(path),))
    events = zip(index.offset.tolist(), index.size.tolist(), index.layout.tolist(), strict=True)
    ours = [(t.datagram.offset, t.datagram.time, index.read(t)) for t in index.transitions]
    for k, (offset, size, layout) in enumerate(events):
        held = _BytesInMemory(str(path), offset, index.chain.read(offset, size))
        datagram = next(t.datagram for t in index.transitions)._replace(offset=offset, size=size)
        tables = index.tables[index.layouts[layout].configure]
        ours.append((offset, int(index.time[k]), list(contents(held, datagram, tables))))
    ours.sort(key=lambda row: row[0])
    assert [time for _, time, _ in ours] == [time for _, time, _ in theirs]
    compared = 0
    for (offset, _, found), (_, _, expected) in zip(ours, theirs, strict=True):
        # psana merges the tables of one (detector, segment, alg), as these files have them for configuration
        merged = {(c.names.detector, c.names.segment, c.names.alg, f): v for c in found for f, v in c.values.items()}
        assert merged.keys() == expected.keys(), offset
        for key, value in expected.items():
            assert_same(merged[key], value, (offset, key))
            compared += 1
    assert compared > 0


@pytest.mark.parametrize("name", [f for f in FILES if "smalldata" not in f])
def test_the_labelled_run_holds_the_values_of_psana(name: str, psana: Callable[..., Any]) -> None:
    path, datagrams = psana(name)
    run = xs.open_run(path)
    l1 = [(time, values) for service, time, values in datagrams if service == Service.L1_ACCEPT]
    events = run["events"].to_dataset()
    np.testing.assert_array_equal(events.psana_timestamp, [time for time, _ in l1])
    for k, (_, values) in enumerate(l1):
        for (detector, segment, _, field), value in values.items():
            if detector in run.children:
                node = run[detector].to_dataset()
                found = node[field].isel(event=k).sel(segment=segment).values
                np.testing.assert_array_equal(found, np.squeeze(value))
                assert bool(node.present.isel(event=k).sel(segment=segment))
            else:
                assert events[f"{detector}_{field}"].values[k] == value
    held: dict[str, Any] = {}
    compared = 0
    position = 0
    for service, _, values in datagrams:
        for (detector, _, alg, field), value in values.items():
            if (detector, alg) in (("scan", "raw"), ("epics", "raw")):
                held[f"scan_{field}" if detector == "scan" else field] = value
        if service == Service.L1_ACCEPT:
            for field, value in held.items():
                np.testing.assert_array_equal(events[field].values[position], value)
                compared += 1
            position += 1
    if "s000" in name:  # the other stream never gets a value of scan
        assert compared > 0


@pytest.mark.parametrize(("folder", "events", "values"), WHOLE_RUNS)
def test_a_whole_run_is_built_as_psana_builds_it(
    folder: str, events: int, values: int, psana: Callable[..., Any]
) -> None:
    path, theirs = psana(folder)
    number = None if folder != "multirun_w_new_config" else 1  # psana gives the first run of several alone
    run = xs.open_run(path, run=number)
    assert run["events"].sizes["event"] == len(theirs) == events
    assert run["events"].psana_timestamp.values.tolist() == [time for time, _, _ in theirs]
    nodes = {name: node.to_dataset().load() for name, node in run.children.items() if "present" in node.coords}
    compared = 0
    for k, (_, step, streams) in enumerate(theirs):
        assert run["events"].step.values[k] == step
        there = {key[0] for of_stream in streams for key in of_stream or {}}
        assert there == {name for name, node in nodes.items() if node.present.values[k].any()}
        for (detector, segment, _, field), value in (x for of_stream in streams for x in (of_stream or {}).items()):
            found = nodes[detector][field].isel(event=k).sel(segment=segment)
            number_of = value
            if isinstance(value, tuple):  # an enumeration: its number, and the words for all numbers
                number_of, words = value
                told = zip(found.attrs["flag_values"].tolist(), found.attrs["flag_meanings"].split(), strict=True)
                assert dict(told) == words
            np.testing.assert_array_equal(found.values, np.squeeze(number_of))
            compared += 1
    assert compared == values


@pytest.mark.parametrize("name", FILES[:2])
def test_the_configuration_holds_the_values_of_psana(name: str, psana: Callable[..., Any]) -> None:
    path, datagrams = psana(name)
    run = xs.open_run(path)
    values = next(values for service, _, values in datagrams if service == Service.CONFIGURE)
    for (detector, segment, alg, field), value in values.items():
        assert alg == "config"
        node = run[f"{detector}/config"].to_dataset()
        if isinstance(value, tuple):
            assert node.attrs[f"{field}.value"] == value[0]
            assert node.attrs[field] == value[1][value[0]]
        elif field in node:
            dim = "segment" if "segment" in node[field].dims else "config_segment"
            np.testing.assert_array_equal(node[field].sel({dim: segment}), value)
        else:
            assert node.attrs[field] == value


def test_the_time_of_an_event_is_that_of_psana(shared: Path) -> None:
    det = xr.open_dataset(shared / "data" / "xtc2" / FILES[0], engine="xtc2")
    assert det.psana_timestamp.values[0] == 4776162079372773723
    assert det.event.values[0] == np.datetime64("2025-03-28T19:08:11.582256987")


def test_gain_control_bits_equal_those_of_psana(shared: Path, tmp_path: Path) -> None:
    if importlib.util.find_spec("psana") is None:
        pytest.skip("psana is not installed: python -m pip install 'xsmall[psana]'")
    script = (
        "import sys, types, runpy; sys.argv[1:] = []\n"
        f"runpy.run_path({str(Path(__file__).parents[2] / 'psana_dump.py')!r})['stand_in_for_mpi']()\n"
        "import numpy as np\n"
        "from psana.detector.UtilsEpix10ka import cbits_config_epix10ka\n"
        "r = np.random.default_rng(3); out = {}\n"
        "for k, rows in enumerate((176, 178)):\n"
        "    c = types.SimpleNamespace(asicPixelConfig=r.integers(0, 16, (4, rows, 192), dtype='u1'),\n"
        "        trbit=np.array([k, 1 - k, 1, 0], 'u1'))\n"
        "    out[f'c{k}'], out[f't{k}'] = c.asicPixelConfig.copy(), c.trbit\n"
        "    c.asicPixelConfig = c.asicPixelConfig[:, :176]  # psana takes no calibration rows\n"
        "    out[f'b{k}'] = cbits_config_epix10ka(c)\n"
        f"np.savez({str(tmp_path / 'bits.npz')!r}, **out)\n"
    )
    subprocess.run([sys.executable, "-c", script], check=True, capture_output=True, timeout=120)
    with np.load(tmp_path / "bits.npz") as oracle:
        for k in range(2):
            np.testing.assert_array_equal(gain_control(oracle[f"c{k}"], oracle[f"t{k}"]), oracle[f"b{k}"])
    bits = xs.open_run(shared / "data" / "xtc2" / FILES[1])["epixquad/raw"].gain_control
    assert bits.dims == ("segment", "row", "column")
    assert np.unique(bits).tolist() == [8]  # every pixel is configured to fixed low gain
