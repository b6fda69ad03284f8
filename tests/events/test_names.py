"""Event variables by one name: what is there, what is missing, what the user says."""

import json
import tomllib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray as xr

import xsmall as xs
from xsmall.events.name_rules import rules_of
from xsmall.events.names import BUILT_IN

HUTCHES = ["xpp", "xcs", "mfx", "cxi", "mec", "rix", "tmo", "ued", "euxfel"]


def small(**variables: Any) -> xr.Dataset:
    """Small data of four events; ``__`` in a name stands for what smalldata_tools has as a group."""
    times = np.datetime64("2026-01-01", "ns") + np.arange(4)
    data = {name.replace("__", "_"): ("event", x) for name, x in variables.items()}
    return xr.Dataset(data, coords={"event": times})


def missing(events: xr.Dataset) -> dict[str, str]:
    return json.loads(events.attrs.get("missing_variables", "{}"))


@pytest.mark.parametrize("hutch", HUTCHES)
def test_every_hutch_has_a_table_whose_rules_can_be_read(hutch: str) -> None:
    tables = tomllib.loads(BUILT_IN.read_text())
    for part in ("any", hutch):
        for name, given in tables[part].items():
            assert rules_of(name, given, hutch)
    events = xs.event_variables(small(x=np.zeros(4)), hutch)
    assert set(missing(events)) == {
        "i0", "xray_on", "laser_on", "delay", "tt_position", "tt_amplitude", "tt_fwhm", "photon_energy",
    }  # fmt: skip


def test_what_is_missing_is_said_and_never_guessed() -> None:
    events = xs.event_variables(small(ipm2__sum=[1.0, 2, 3, 4]), "xpp")
    assert "laser_on" not in events
    assert "xray_on" not in events
    assert "evr_code_91" in missing(events)["laser_on"]
    assert "laser_on" in missing(xs.event_variables(small(x=np.zeros(4)), "tmo"))


def test_the_first_of_the_sources_is_taken_and_named() -> None:
    events = xs.event_variables(small(ipm3__sum=[5.0, 6, 7, 8], ipm2__sum=[1.0, 2, 3, 4]), "xpp")
    assert events.i0.values.tolist() == [1, 2, 3, 4]
    assert events.i0.attrs["source"] == "ipm2.sum"
    assert events.ipm3_sum.values.tolist() == [5, 6, 7, 8]  # the source's own names stay


def test_codes_of_the_event_receiver() -> None:
    codes = {"evr__code_91": [0, 1, 0, 0], "evr__code_137": [1, 1, 0, 1]}
    events = xs.event_variables(small(**codes), "xpp")
    assert events.laser_on.values.tolist() == [True, False, True, True]
    assert events.xray_on.values.tolist() == [True, True, False, True]
    assert events.laser_on.dtype == bool
    unsure = xs.event_variables(small(evr__code_91=[0, 1, np.nan, 0]), "xpp")
    np.testing.assert_array_equal(unsure.laser_on, [1, 0, np.nan, 1])


def test_the_light_status_of_the_producer_comes_before_the_codes_of_the_hutch() -> None:
    events = xs.event_variables(small(evr__code_91=[0, 0, 0, 0], lightStatus__laser=[0, 1, 1, 0]), "xpp")
    assert events.laser_on.values.tolist() == [False, True, True, False]
    unsure = xs.event_variables(small(lightStatus__laser=[0, 1, -1, 0]), "xpp")
    np.testing.assert_array_equal(unsure.laser_on, [0, 1, np.nan, 0])


def test_a_time_tool_that_did_not_fit_is_nan() -> None:
    tool = {
        "tt__FLTPOS": [400.0, 0.0, 300.0, np.nan],
        "tt__FLTPOS_PS": [0.4, 0.1, 0.3, 0.2],
        "tt__AMPL": [1.0, 2, 3, 4],
    }
    events = xs.event_variables(small(**tool), "xcs")
    np.testing.assert_array_equal(events.tt_position, [0.4, np.nan, 0.3, np.nan])
    np.testing.assert_array_equal(events.tt_amplitude, [1, np.nan, 3, np.nan])
    assert events.tt_position.attrs["units"] == "ps"
    without_position = xs.event_variables(small(tt__FLTPOS_PS=[0.4, 0, 0.0, 0.2], tt__AMPL=[1.0, 0, 3, 4]), "xcs")
    np.testing.assert_array_equal(without_position.tt_position, [0.4, np.nan, 0.0, 0.2])
    np.testing.assert_array_equal(without_position.tt_amplitude, [1, np.nan, 3, 4])
    uncalibrated = xs.event_variables(small(tt__FLTPOS=[1.0, 2, 3, 4], tt__FLTPOS_PS=np.zeros(4)), "xcs")
    assert "tt_position" not in uncalibrated
    assert "without calibration" in missing(uncalibrated)["tt_position"]


def test_units_are_brought_to_ours() -> None:
    events = xs.event_variables(small(scan__lxt=[1e-12, 2e-12, -1e-12, 0]), "xpp")
    np.testing.assert_allclose(events.delay, [1, 2, -1, 0])
    keV = small(mono=[9.5, 9.6, 0.0, 9.5])
    energy = xs.event_variables(keV, "xpp", photon_energy={"source": "mono", "unit": "keV"}).photon_energy
    np.testing.assert_allclose(energy, [9500, 9600, np.nan, 9500])
    assert energy.attrs["units"] == "eV"
    keV.mono.attrs["units"] = "keV"
    np.testing.assert_allclose(xs.event_variables(keV, "xpp", photon_energy="mono").photon_energy[:2], [9500, 9600])


def test_a_delay_in_mm_is_refused_until_a_factor_is_given() -> None:
    stage = small(stage=[1.0, 2, 3, 4])
    stage.stage.attrs["units"] = "mm"
    with pytest.raises(xs.XsmallError, match=r"found:    mm"):
        xs.event_variables(stage, "xpp", delay="stage")
    events = xs.event_variables(stage, "xpp", delay={"source": "stage", "scale": 6.671})
    np.testing.assert_allclose(events.delay, 6.671 * np.arange(1, 5))


def test_the_user_overrides_in_a_line() -> None:
    data = small(
        ipm2__sum=[1.0, 2, 3, 4], ipm3__sum=[5.0, 6, 7, 8], evr__code_90=[1, 0, 0, 1], enc__values=[1.0, 2, 3, 4]
    )
    events = xs.event_variables(
        data,
        "xpp",
        i0="ipm3.sum",
        laser_on={"on": 90, "of": "evr"},
        diode="ipm2.sum",
        xray_on=[True, True, False, True],
    )
    assert events.i0.values.tolist() == [5, 6, 7, 8]
    assert events.laser_on.values.tolist() == [True, False, False, True]
    assert events.diode.values.tolist() == [1, 2, 3, 4]
    assert events.xray_on.values.tolist() == [True, True, False, True]
    assert "i0" not in xs.event_variables(data, "xpp", i0=None)


def test_what_is_there_stays_unless_a_rule_is_given() -> None:
    run = xs.simulate(20).run
    kept = xs.event_variables(run, "xpp")
    np.testing.assert_array_equal(kept.i0, run["events"].i0)
    other = xs.event_variables(run, "xpp", delay={"source": "scan_laser_delay", "unit": "ps"})
    np.testing.assert_array_equal(other.delay, run["events"].scan_laser_delay)


def test_values_of_the_user_join_by_label() -> None:
    data = small(x=np.zeros(4))
    own = xr.DataArray([4.0, 3.0, 1.0], dims="event", coords={"event": data.event.values[[3, 2, 0]]})
    np.testing.assert_array_equal(xs.event_variables(data, "xpp", i0=own).i0, [1, np.nan, 3, 4])


def test_a_table_of_ones_own(tmp_path: Path) -> None:
    mine = xs.save_hutch_table(tmp_path / "mine.toml")
    mine.write_text(mine.read_text() + '\n[my]\ni0 = "my.diode"\nlaser_on = { off = [42], of = "evr" }\n')
    data = small(my__diode=[1.0, 2, 3, 4], evr__code_42=[1, 0, 0, 0])
    events = xs.event_variables(data, "my", table=mine)
    assert events.laser_on.values.tolist() == [False, True, True, True]
    assert events.i0.attrs["source"] == "my.diode"
    with pytest.raises(xs.XsmallError, match="is there already"):
        xs.save_hutch_table(mine)
    mine.write_text("[xpp\n")
    with pytest.raises(xs.XsmallError, match=r"mine\.toml: no table"):
        xs.event_variables(data, "xpp", table=mine)
    with pytest.raises(xs.XsmallError, match="no rule of i0"):
        xs.event_variables(data, "a", table={"a": {"i0": {"sources": "x"}}})


@pytest.mark.parametrize(
    ("rule", "text"),
    [
        ({"i0": "ipm9.sum"}, "does not answer"),
        ({"laser_on": {"off": [91]}}, "does not answer"),
        ({"laser_on": {"off": []}}, "no event codes"),
        ({"laser_on": {"off": [91], "destination": 4}}, "invalid rule"),
        ({"i0": {"on": [91]}}, "invalid rule"),
        ({"delay": {"source": "ipm2.sum", "unit": "mm"}}, "invalid rule"),
        ({"i0": [1.0, 2.0]}, "one value for each event"),
        ({"i0": 7}, "one value for each event"),
    ],
)
def test_invalid_arguments_are_refused(rule: dict[str, Any], text: str) -> None:
    with pytest.raises(xs.XsmallError, match=text):
        xs.event_variables(small(ipm2__sum=np.zeros(4)), "xpp", **rule)


def test_a_hutch_is_named_or_known_by_the_experiment() -> None:
    data = small(ipm2__sum=[1.0, 2, 3, 4])
    with pytest.raises(xs.XsmallError, match='hutch="xpp"'):
        xs.event_variables(small(x=np.zeros(4)), "xxp")
    with pytest.raises(xs.XsmallError, match="which hutch"):
        xs.event_variables(data)
    with pytest.raises(xs.XsmallError, match="no table of this hutch"):
        xs.event_variables(data, "abc")
    assert "i0" in xs.event_variables(data.assign_attrs(experiment="xppl1030522"))
    with pytest.raises(xs.XsmallError, match="those of a run"):
        xs.event_variables(xs.simulate(4).run["jungfrau"], "xpp")


def test_the_accessor_has_it_too() -> None:
    assert small(ipm2__sum=np.ones(4)).sd.event_variables("xpp").i0.sum() == 4
