"""The script for psana1, run on a stand-in of psana1's interface, and raw HDF5 by plain h5py."""

import ast
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import h5py
import numpy as np
import pytest
import xarray as xr
import zarr

import xsmall as xs
from xsmall.cli import main as shell
from xsmall.io import export_lcls1 as script

N, SHAPE = 23, (2, 8, 8)
SECONDS = 1_500_000_000
GEOMETRY = "# a geometry"


def frame(k: int) -> np.ndarray:
    return np.random.default_rng(k).integers(0, 1 << 14, SHAPE).astype("u2")


class Event:
    """An event of the stand-in: number 5 has no frame, number 7 no event codes, number 9 no monitor."""

    def __init__(self, k: int) -> None:
        self.k = k

    def get(self, kind: Any) -> Any:
        del kind
        return SimpleNamespace(time=lambda: (SECONDS + self.k, 7), fiducials=lambda: 3 * self.k)


class Detector:
    def __init__(self, name: str) -> None:
        self.name = name

    def raw(self, event: Event) -> Any:
        return None if event.k == 5 else frame(event.k)

    def pedestals(self, event: Event) -> Any:
        return np.arange(3 * 128.0).reshape(3, 2, 8, 8)

    def rms(self, event: Event) -> Any:
        return np.ones((3, 2, 8, 8))

    def gain(self, event: Event) -> Any:
        return np.full((3, 2, 8, 8), 40.0)

    def offset(self, event: Event) -> Any:
        raise RuntimeError("no constants")

    def geometry(self, event: Event) -> Any:
        return SimpleNamespace(path=Detector.file)

    def eventCodes(self, event: Event) -> Any:  # the name that psana1 has
        return None if event.k == 7 else [137] + ([91] if event.k % 2 else []) + ([150] if event.k == 12 else [])

    def get(self, event: Event) -> Any:
        if event.k == 9:
            return None
        if self.name == "EBeam":
            return SimpleNamespace(
                ebeamPhotonEnergy=lambda: 9500.0 + event.k, ebeamCharge=lambda: 1.0, ebeamL3Energy=lambda: 2.0
            )
        return SimpleNamespace(
            TotalIntensity=lambda: event.k / 10, X_Position=lambda: 0.0, Y_Position=lambda: 0.0, peakA=lambda: None
        )

    def descriptions(self) -> list[str]:
        return ["lasDelay", ""]

    def values(self, event: Event) -> list[float]:
        return [0.1 * event.k, 1.0]

    def __call__(self, event: Event | None = None) -> Any:
        if self.name == "ControlData":
            return SimpleNamespace(pvControls=lambda: [SimpleNamespace(name=lambda: "lxt", value=lambda: 1e-12)])
        return {"TTSPEC:FLTPOS": 400.0, "TTSPEC:FLTPOS_PS": 0.2}.get(self.name, 4.0)


def stand_in(events: int, folder: Path, fails_at: int | None = None) -> Any:
    (folder / "geometry.data").write_text(GEOMETRY)
    Detector.file = str(folder / "geometry.data")
    names = ["jungfrau1M", "NoDetector.0:Evr.0", "XPP-SB2-BMMON", "EBeam", "XppEndstation.0:USDUSB.0", "ControlData"]
    epics = ["TTSPEC:FLTPOS", "TTSPEC:FLTPOS_PS", "TTSPEC:FLTPOSFWHM", "lxt"]

    def walk() -> Any:
        for k in range(events):
            if k == fails_at:
                raise KeyboardInterrupt
            yield Event(k)

    def det_names(kind: str = "detectors") -> list[tuple[str, str]]:
        return [(name, "") for name in (epics if kind == "epics" else names)]

    return SimpleNamespace(
        DataSource=lambda text: SimpleNamespace(events=walk, env=lambda: None),
        Detector=Detector,
        DetNames=det_names,
        EventId=object,
    )


def export(monkeypatch: pytest.MonkeyPatch, psana: Any, *words: str) -> int:
    monkeypatch.setitem(sys.modules, "psana", psana)
    monkeypatch.setattr(script, "BLOCK", 4)
    return script.main(["xppl1030522", "7", "--detector", "jungfrau1M", *words])


def test_a_run_of_lcls1_opens(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "run7.h5"
    assert export(monkeypatch, stand_in(N, tmp_path), "--out", str(path)) == 0
    run = xs.open_run(path)
    raw = run["jungfrau1M/raw"]
    assert raw.dims == ("event", "segment", "row", "column")
    assert raw.attrs["detector_type"] == "jungfrau"
    here = [k for k in range(N) if k != 5]
    np.testing.assert_array_equal(raw.values[here], np.stack([frame(k) for k in here]))
    np.testing.assert_array_equal(raw.present, np.repeat([[k != 5] for k in range(N)], 2, axis=1))
    times = (
        np.datetime64(SECONDS, "s").astype("M8[ns]") + np.arange(N) * np.timedelta64(1, "s") + np.timedelta64(7, "ns")
    )
    np.testing.assert_array_equal(raw.event, times)
    events = run["events"].to_dataset()
    np.testing.assert_array_equal(events.fiducial, 3 * np.arange(N))
    seen = np.where(np.arange(N) == 12, 1.0, 0.0)
    np.testing.assert_array_equal(events.evr_code_150, np.where(np.arange(N) == 7, np.nan, seen))
    named = xs.event_variables(run)
    assert named.laser_on.dtype == float
    np.testing.assert_array_equal(named.laser_on, [np.nan if k == 7 else float(k % 2 == 0) for k in range(N)])
    np.testing.assert_array_equal(named.i0, [np.nan if k == 9 else k / 10 for k in range(N)])
    np.testing.assert_array_equal(named.photon_energy, [np.nan if k == 9 else 9500 + k for k in range(N)])
    np.testing.assert_allclose(named.delay, np.ones(N))  # the scan variable, s brought to ps
    np.testing.assert_allclose(named.tt_position, 0.2)
    assert run["UserDataCfg/jungfrau1M"].to_dataset().ped.shape == (3, *SHAPE)
    with h5py.File(path) as file:
        assert file["jungfrau1M"].attrs["geometry_psana"] == GEOMETRY
    constants = xs.open_constants(path, detector="jungfrau1M", detector_type="jungfrau", gain="divide")
    cal = raw.sd.calibrate(constants)
    assert np.isnan(cal[5]).all()
    assert np.isfinite(cal[6]).any()


def test_a_job_that_was_stopped_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole, again = tmp_path / "whole.h5", tmp_path / "again.h5"
    export(monkeypatch, stand_in(N, tmp_path), "--out", str(whole))
    for stop in (6, 13):
        with pytest.raises(KeyboardInterrupt):
            export(monkeypatch, stand_in(N, tmp_path, fails_at=stop), "--out", str(again))
        assert not again.exists()
    assert export(monkeypatch, stand_in(N, tmp_path), "--out", str(again)) == 0
    a, b = xs.open_run(whole), xs.open_run(again)
    for where in ("events", "jungfrau1M"):
        one, other = (tree[where].to_dataset().compute() for tree in (a, b))
        xr.testing.assert_equal(one, other)
    assert sorted(p.name for p in tmp_path.glob("*.h5*")) == ["again.h5", "whole.h5"]


def test_jobs_share_a_run_by_ranges(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    paths = [tmp_path / "a.h5", tmp_path / "b.h5"]
    for path, events in zip(paths, ("0:10", "10:"), strict=True):
        assert export(monkeypatch, stand_in(N, tmp_path), "--out", str(path), "--events", events) == 0
    parts = [xs.open_run(path)["jungfrau1M/raw"] for path in paths]
    assert [len(part) for part in parts] == [10, 13]
    whole = xs.concat(parts)
    np.testing.assert_array_equal(whole[11], frame(11))


def test_what_cannot_be_done_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "run7.h5"
    assert export(monkeypatch, stand_in(0, tmp_path), "--out", str(path)) == 1
    assert "no event" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        export(monkeypatch, stand_in(N, tmp_path), "--out", str(path), "--events", "ten")
    export(monkeypatch, stand_in(N, tmp_path), "--out", str(path))
    assert export(monkeypatch, stand_in(N, tmp_path), "--out", str(path)) == 1
    assert "is there already" in capsys.readouterr().err
    with pytest.raises(KeyboardInterrupt):
        export(monkeypatch, stand_in(N, tmp_path, fails_at=9), "--out", str(tmp_path / "c.h5"))
    with pytest.raises(SystemExit, match="another export"):
        export(monkeypatch, stand_in(N, tmp_path), "--out", str(tmp_path / "c.h5"), "--events", "3:")
    (tmp_path / "c.h5.part").write_bytes(b"rot")
    assert export(monkeypatch, stand_in(N, tmp_path), "--out", str(tmp_path / "c.h5")) == 0
    assert "begun again" in capsys.readouterr().err


def test_the_script_is_of_python_3_6_and_needs_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "export.py"
    assert shell(["export-lcls1", str(path)]) == 0
    tree = ast.parse(path.read_text(), feature_version=(3, 6))
    found = {a.name for node in ast.walk(tree) if isinstance(node, ast.Import) for a in node.names}
    assert found == {"argparse", "os", "re", "sys", "h5py", "numpy", "psana"}
    assert shell(["export-lcls1", str(path)]) == 1  # nothing is replaced


def plain(path: Path, **more: Any) -> Path:
    """What twenty lines of h5py write."""
    times = np.datetime64("2026-03-01T08:00:00", "ns").astype("i8") + np.arange(6) * 8_333_333
    with h5py.File(path, "w") as file:
        file.attrs["experiment"], file.attrs["run"] = "xppl1030522", 7
        for group in ("events", "camera"):
            file[f"{group}/event"] = times
            file[f"{group}/event"].attrs["units"] = "nanoseconds since 1970-01-01"
        file["events/i0"] = np.arange(6.0)
        file["camera/raw"] = np.arange(6 * 64, dtype="u2").reshape(6, 1, 8, 8)
        file["camera/present"] = np.ones((6, 1), bool)
        file["camera/mask"] = np.ones((1, 8, 8), "u1")
        file["camera/temperature"] = np.ones((6, 3))
        for name, data in more.items():
            where = name.replace("__", "/")
            if where in file:
                del file[where]
            if data is not None:
                file[where] = data
        file.attrs["xsmall_layout"] = "xsmall-run 2"
    return path


def test_files_without_dimension_scales_open(tmp_path: Path) -> None:
    run = xs.open_run(plain(tmp_path / "a.h5"))
    raw = run["camera/raw"]
    assert raw.dims == ("event", "segment", "row", "column")
    assert raw.present.dtype == bool
    assert raw.segment.values.tolist() == [0]
    assert run["camera/mask"].dims == ("segment", "row", "column")
    assert run["camera/temperature"].dims == ("event", "temperature_1")
    assert run["events"].to_dataset().i0.sel(event=raw.event[3]) == 3
    roi = raw.sd.roi(xs.Box(row=(0, 2), column=(0, 2)))
    np.testing.assert_array_equal(roi["sum"].values.ravel(), raw.values[:, 0, :2, :2].sum((1, 2)))


@pytest.mark.parametrize(
    ("more", "text"),
    [
        ({"camera__raw": np.zeros((6, 8, 8))}, "no detector"),
        ({"camera__event": None}, "no event beside raw"),
        ({"camera__event": np.arange(5)}, "5"),
        ({"events__event": None}, "no event"),
        ({"camera__present": np.ones((5, 1), bool)}, r"(?s)/camera/present does not fit.*\(5, 1\).*\(6, 1\)"),
        ({"camera__present": np.ones((6, 2), bool)}, "(?s)conflicting sizes.*write what has another length again"),
        ({"camera__damage": np.ones(6, "u2").reshape(1, 6)}, "/camera/damage does not fit"),
        ({"events__run": np.ones(7, int)}, "/events/run does not fit"),
    ],
)
def test_plain_files_that_say_too_little_are_refused(tmp_path: Path, more: dict[str, Any], text: str) -> None:
    with pytest.raises(xs.XsmallError, match=text):
        xs.open_run(plain(tmp_path / "a.h5", **more))


def test_event_variables_of_another_length_are_left_out_by_name(tmp_path: Path) -> None:
    more = {"events__i0": np.ones(5), "events__wave": np.ones((5, 3)), "camera__axis": np.arange(4.0)}
    run = xs.open_run(plain(tmp_path / "a.h5", **more))
    assert run["events"].attrs["left_out"] == "i0: 5 values for 6 events; wave: 5 values for 6 events"
    assert not set(run["events"].data_vars)
    assert run["camera/axis"].dims == ("axis_0",)
    with pytest.raises(KeyError, match="i0: 5 values for 6 events"):
        run["events/i0"]


def by_zarr(path: Path, *, named: bool = True, **more: Any) -> Path:
    """What as many lines of zarr write."""
    dims = {"event": ("event",), "raw": ("event", "segment", "row", "column"), "present": ("event", "segment")}
    held = {"event": np.arange(6), "raw": np.ones((6, 2, 4, 4), "u2"), "present": np.ones((6, 2), bool)}
    held["present"][3, 1] = False
    root = zarr.create_group(path, zarr_format=3)
    camera = root.create_group("camera")
    for name, data in (held | more).items():
        camera.create_array(name, data=data, dimension_names=dims[name] if named else None)
    root.attrs["xsmall_layout"] = "xsmall-run 2"
    return path


def test_flags_of_stores_by_zarr_alone_are_heeded(tmp_path: Path) -> None:
    raw = xs.open_run(by_zarr(tmp_path / "a.zarr"))["camera/raw"]
    assert not raw.present.values[3, 1]
    n = raw.sd.roi({"a": xs.Box(segment=1, row=(0, 4), column=(0, 4))})["n_valid"]
    assert n.values[:, 0].tolist() == [16, 16, 16, 0, 16, 16]
    for name, how, text in (
        ("b", {"present": np.ones((5, 2), bool)}, "(?s)conflicting sizes.*write what has another length again"),
        ("c", {"named": False}, "(?s)do this: .*dimension_names="),
    ):
        with pytest.raises(xs.XsmallError, match=text):
            xs.open_run(by_zarr(tmp_path / f"{name}.zarr", **how))
