"""Event variables by one name, of a raw run: codes, destinations, monitors, time tools."""

from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import dask.array as da
import numpy as np

import xsmall as xs


def words(*codes: int) -> np.ndarray:
    result = np.zeros(18, "u2")
    for code in codes:
        result[code // 16] |= 1 << (code % 16)
    return result


def raw_run(w: ModuleType, path: Path) -> Path:
    """Six events: the fourth without the timing detector, the fifth with a damaged monitor."""
    sent = [(137, 203), (137,), (203,), None, (137, 203), (137, 40)]
    ts = w.Table(0x30, "timing", "raw", [("ebeamDestn", "u1", 0), ("sequenceValues", "u2", 1)], "ts")
    fields = [("totalIntensityJoules", "f8", 0), ("peakAmplitude", "f8", 1)]
    monitor = w.Table(0x31, "MfxDg2BmMon", "raw", fields, "bmmon")
    tool = w.Table(0x32, "alvium_tt", "raw", [("value", "f8", 1)], "tt")
    out = w.start(ts, monitor, tool)
    for k, codes in enumerate(sent):
        parts = [] if codes is None else [w.block(ts, 4, words(*codes))]
        parts.append(w.block(monitor, 1.5 + k, np.zeros(4), damage=2 if k == 4 else 0))
        parts.append(w.block(tool, [0.0 if k == 2 else 400.0, 0.1 * k + 0.1, 30, 0.5, 0.1, 1]))
        out += w.datagram(w.L1, (2 << 32) + k, *parts)
    file = path / "mfx100-r0007-s000-c000.xtc2"
    file.write_bytes(out)
    return file


def test_a_raw_run_by_codes_monitors_and_time_tool(
    xtc2: ModuleType, tmp_path: Path, computing_is_forbidden: Callable[[], Any]
) -> None:
    run = xs.open_run(raw_run(xtc2, tmp_path))
    with computing_is_forbidden():
        events = xs.event_variables(run, "mfx", rate={"on": [40]})
        assert isinstance(events.i0.data, da.Array)
    np.testing.assert_array_equal(events.laser_on, [1, 0, 1, np.nan, 1, 0])
    np.testing.assert_array_equal(events.xray_on, [1, 1, 0, np.nan, 1, 1])
    assert events.rate.values.tolist()[5] == 1
    np.testing.assert_array_equal(events.i0, [1.5, 2.5, 3.5, 4.5, np.nan, 6.5])
    np.testing.assert_allclose(events.tt_position, [0.1, 0.2, np.nan, 0.4, 0.5, 0.6])
    np.testing.assert_array_equal(events.tt_amplitude, [0.5, 0.5, np.nan, 0.5, 0.5, 0.5])
    assert "delay" in events.attrs["missing_variables"]
    where = xs.event_variables(run, "rix").xray_on
    np.testing.assert_array_equal(where, [1, 1, 1, np.nan, 1, 1])


def test_a_detector_that_integrates_several_shots(xtc2: ModuleType, tmp_path: Path) -> None:
    w = xtc2
    fim = w.Table(0x30, "fim", "raw", [("sum", "f8", 0)], "fim")
    epix, andor = (w.area(k, names_id=0x40 + k, detector=name) for k, name in enumerate(("epix", "andor")))
    out = w.start(fim, epix, andor)
    for k in range(4, 21):
        parts = [w.block(fim, float(k))]
        parts += [w.block(epix, np.zeros((3, 4), "u2"), k, 0.0)] if k in (10, 20) else []
        parts += [w.block(andor, np.zeros((3, 4), "u2"), k, 0.0)] if k in (7, 10, 13, 16, 19) else []
        out += w.datagram(w.L1, (2 << 32) + k, *parts)
    file = tmp_path / "rix100-r0007-s000-c000.xtc2"
    file.write_bytes(out)
    run = xs.open_run(file)
    slow = xs.event_variables(run, "rix", i0="fim.sum").sd.integrate(into="epix")
    assert slow.n_events.values.tolist() == [7, 10]
    np.testing.assert_allclose(slow.i0, [7.0, 15.5])
    frames = run["epix/raw"].sel(event=slow.event)
    assert frames.present.all()
    assert xs.integrate(run, into="andor").attrs["tail_events"] == 1
