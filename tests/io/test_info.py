"""What ``describe`` says of a file is what is in it, and reading frames is not needed to say it."""

from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import xarray as xr

import xsmall as xs
from xsmall.errors import FileFormatError
from xsmall.io.info import describe
from xsmall.io.stores.runs import write_run


@pytest.mark.parametrize("kind", ["zarr", "h5"])
def test_a_raw_run_is_described_without_computing(
    tmp_path: Path, kind: str, computing_is_forbidden: Callable[[], object]
) -> None:
    path = write_run(xs.simulate(30).run, tmp_path / f"run.{kind}")
    with computing_is_forbidden():  # type: ignore[attr-defined]
        text = describe(path)
    assert text.startswith(f"run.{kind}: raw run, layout xsmall-run 2, ")
    assert "30 events from 2026-03-01T08:00:00.000 to 2026-03-01T08:00:00.241 UTC, 120 per second" in text
    assert "scan_laser_delay: -2 to 5 ps, 15 values" in text
    assert "detector jungfrau" in text
    assert "raw (event 30, segment 4, row 128, column 256) uint16 ADU, 7.50 MiB in chunks of 30 events" in text
    assert "i0 (event 30) float64" in text


def test_troubles_of_an_xtc2_file_are_told(tmp_path: Path, xtc2: ModuleType) -> None:
    tables = [xtc2.area(s) for s in range(2)]
    frames = xtc2.frames(3, 2)
    data = xtc2.start(*tables) + xtc2.event(2 << 32, tables, frames[0])
    data += xtc2.event((2 << 32) + 1, tables[:1], frames[1, :1], damage=1 << 5)
    data += xtc2.datagram(xtc2.L1, (2 << 32) + 2, xtc2.block(tables[0], frames[2, 0], 1, 0.0, names_id=0x999))
    data += xtc2.event((2 << 32) + 3, tables, frames[0])[:50]
    path = tmp_path / "a.xtc2"
    path.write_bytes(data)
    text = describe(path)
    assert "LCLS-II raw data (XTC2)" in text
    assert "experiment exp123, run 7" in text
    assert "3 events from 1990-01-01T00:00:02.000" in text
    assert "the last 50 bytes are left out" in text
    assert "1 event could not be understood" in text
    assert "0x999" in text
    assert "detector det (jungfrau)" in text
    assert "3 of 6 segments of events are missing" in text
    assert "2 events damaged" in text


@pytest.mark.parametrize("kind", ["zarr", "h5"])
def test_small_data_are_described_with_their_provenance(tmp_path: Path, kind: str) -> None:
    small = xr.Dataset(
        {
            "i0": ("event", np.arange(3.0), {"units": "mJ"}),
            "waxs_intensity": (("event", "q"), np.zeros((3, 5)), {"units": "keV"}),
        },
        {
            "event": np.array([0, 1, 2], "M8[s]").astype("M8[ns]"),
            "q": ("q", np.linspace(0.5, 2.5, 5), {"units": "angstrom-1"}),
            "laser_on": ("laser_on", [False, True]),
        },
    )
    text = describe(xs.save(small, tmp_path / f"small.{kind}"))
    assert f"small.{kind}: result, layout xsmall-result 2" in text
    assert "3 events from 1970-01-01T00:00:00.000 to 1970-01-01T00:00:02.000 UTC, 1 per second" in text
    assert "q: 5, 0.5 to 2.5 angstrom-1" in text
    assert "laser_on: 2, False, True" in text
    assert "waxs_intensity (event 3, q 5) float64 keV" in text
    assert "provenance" in text
    assert f"xsmall: {xs.__version__}" in text


def test_companions_of_a_cube_stand_with_their_variable(tmp_path: Path) -> None:
    names = ("i0", "i0_std", "i0_stderr", "i0_count")
    cube = xr.Dataset({n: ("delay", np.zeros(2)) for n in names} | {"count": ("delay", [3, 4])})
    text = describe(xs.save(cube, tmp_path / "cube.h5"))
    assert "i0 (delay 2) float64, with _std, _stderr, _count" in text
    assert "i0_std (delay" not in text
    assert "count (delay 2) int64" in text


@pytest.mark.parametrize("kind", ["zarr", "h5"])
def test_results_are_listed_in_one_order_with_what_events_are_binned_by(tmp_path: Path, kind: str) -> None:
    """A folder of Zarr is listed in any order by the file system."""
    sim = xs.simulate(40, shape=(1, 16, 32), seed=1)
    cal = sim.run["jungfrau/raw"].sd.calibrate(sim.constants)
    small = cal.sd.reduce({"spot": xs.roi(xs.Box(segment=0)), "rows": xs.projection("row")}).compute()
    lines = describe(xs.save(small, tmp_path / f"small.{kind}")).splitlines()
    assert lines.index("  variables") < lines.index("  event variables")
    assert lines[lines.index("  dims") + 1].startswith("    event: 40")
    assert "    i0 (event 40) float64" in lines[lines.index("  event variables") :]
    names = [line.split()[0] for line in lines[lines.index("  variables") + 1 : lines.index("  event variables")]]
    assert names == sorted(small.data_vars)

    cube = small.sd.cube({"laser_on": xs.categories()}, weights="i0", statistics="ratio")
    lines = describe(xs.save(cube, tmp_path / f"cube.{kind}")).splitlines()
    assert "  event variables" not in lines
    assert lines[lines.index("  dims") + 1].startswith("    laser_on: 2")
    names = [line.split()[0] for line in lines[lines.index("  variables") + 1 : lines.index("  provenance")]]
    assert names == sorted(["count", "i0", *small.data_vars])
    told = next(line for line in lines if line.startswith("    spot_sum ("))
    assert told.endswith(
        "with _std, _stderr, _count, _weight, _weight_std, _covariance, _ratio, _ratio_std, _ratio_stderr"
    )


def test_a_file_of_somebody_else_is_described_as_such(tmp_path: Path) -> None:
    xr.Dataset({"a": ("x", np.arange(4))}).to_netcdf(tmp_path / "a.nc")
    text = describe(tmp_path / "a.nc")
    assert "not written by xsmall" in text
    assert "a (x 4) int64" in text


def test_what_cannot_be_read_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("hello")
    (tmp_path / "a.h5").write_bytes(b"\x89HDF\r\n\x1a\n" + bytes(50))
    for name, message in (("a.txt", "not a run"), ("a.h5", "cannot be read"), ("b.h5", "no such file")):
        with pytest.raises(FileFormatError, match=message):
            describe(tmp_path / name)
