"""Constants of psana's database over its web service: what holds for a run, what is kept, what is told."""

import hashlib
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import xarray as xr

import xsmall as xs
from tests.io.psana_service import EXPERIMENT, LONG, SHORT, Database, service
from xsmall.errors import CalibrationError, KeptConstantsWarning, ParameterError
from xsmall.io.constants.psana_database import psana_database

SHAPE = (3, 1, 512, 1024)
GEOMETRY = "IP 0 CAM 0 0 0 100000 90 0 0 0 0 0\nCAM 0 JUNGFRAU:V2 0 0 0 0 0 0 0 0 0 0"
NAMED = f"exp={EXPERIMENT},run=7"


@pytest.fixture
def database(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Database]:
    """A service with one detector: pedestals for several ranges of runs, a gain that only the detector has."""
    monkeypatch.setenv("XSMALL_CACHE", str(tmp_path / "kept"))
    with service() as (held, address):
        monkeypatch.setenv("LCLS_CALIB_HTTP", address)
        held.add("cdb_detnames", "jungfrau", long="jungfrau_other", short="jungfrau_000001")
        held.add("cdb_detnames", "jungfrau", long=LONG, short=SHORT)
        for level, (first, last) in {100: (0, "end"), 200: (5, "end"), 300: (5, 20), 400: (15, 16)}.items():
            held.add_array(f"cdb_{EXPERIMENT}", "pedestals", np.full(SHAPE, level, "f4"), first, last)
        held.add_array(f"cdb_{SHORT}", "pixel_gain", np.full(SHAPE, 41.5, "f4"), 900, "end", experiment="xpp1")
        held.add_array(f"cdb_{SHORT}", "pedestals", np.full(SHAPE, 9, "f4"), 900, "end", experiment="xpp1")
        held.add_text(f"cdb_{EXPERIMENT}", "geometry", GEOMETRY, 0, "end")
        yield held


@pytest.fixture
def files(tmp_path: Path, xtc2: ModuleType) -> Path:
    """A run of that detector."""
    table = xtc2.Table(0x10, "jungfrau", "raw", [("raw", "u2", 3)], "jungfrau", detector_id=LONG.split("_", 1)[1])
    folder = tmp_path / "xtc"
    folder.mkdir()
    frame = np.arange(1 << 19, dtype="u2").reshape(1, 512, 1024)
    body = xtc2.start(table, run=7, experiment=EXPERIMENT) + b"".join(
        xtc2.datagram(xtc2.L1, (2 << 32) + k, xtc2.block(table, frame % 16384)) for k in range(3)
    )
    (folder / f"{EXPERIMENT}-r0007-s000-c000.xtc2").write_bytes(body)
    return folder


@pytest.mark.parametrize(("run", "level"), [(3, 100), (7, 300), (15, 400), (17, 300), (21, 200), (99999, 200)])
def test_the_latest_first_run_and_then_the_narrowest_range_holds(database: Database, run: int, level: int) -> None:
    found = psana_database(LONG, EXPERIMENT, run)
    assert set(found) == {"pedestals", "pixel_gain", "geometry"}
    assert found["pedestals"][0].shape == SHAPE
    assert (found["pedestals"][0] == level).all()
    assert (found["pixel_gain"][0] == 41.5).all()
    assert found["geometry"][0] == GEOMETRY
    assert database.asked


def test_frames_say_which_constants_and_geometry_are_theirs(database: Database, files: Path) -> None:
    raw = xs.open_run(files)["jungfrau/raw"]
    assert raw.attrs["detector_id"] == LONG
    for constants in (
        xs.open_constants(raw),
        xs.open_constants(NAMED, detector="jungfrau", dir=files),
        xs.open_constants(NAMED, detector=LONG),
    ):
        assert constants.attrs["source"] == "psana database"
        assert tuple(constants.attrs["run_range"]) == (5, 20)
        assert (constants.pedestal == 300).all()
        assert (constants.gain == 41.5).all()
        np.testing.assert_allclose(raw.sd.calibrate(constants)[0, 0, 0, :3], (np.arange(3) - 300) / 41.5, rtol=1e-6)
    assert (xs.open_constants(raw, run=15).pedestal == 400).all()
    for geometry in (
        xs.open_geometry(raw),
        xs.open_geometry(NAMED, detector="jungfrau", dir=files),
        xs.open_geometry(NAMED, detector=LONG, psana=2),
    ):
        assert geometry == xs.Geometry.from_psana(GEOMETRY)
    assert raw.sd.assign_geometry(xs.open_geometry(raw)).z.mean() == pytest.approx(0.1)
    assert database.asked


def test_bytes_are_asked_for_once_and_what_holds_each_time(database: Database) -> None:
    psana_database(LONG, EXPERIMENT, 7)
    first = [path for path in database.asked if "gridfs" in path]
    assert len(first) == 3
    psana_database(LONG, EXPERIMENT, 7)
    assert [path for path in database.asked if "gridfs" in path] == first
    database.add_array(f"cdb_{EXPERIMENT}", "pedestals", np.full(SHAPE, 350, "f4"), 6, 8)  # a dark run comes in
    assert (psana_database(LONG, EXPERIMENT, 7)["pedestals"][0] == 350).all()


def test_what_was_kept_and_spoilt_is_asked_for_again(database: Database, tmp_path: Path) -> None:
    psana_database(LONG, EXPERIMENT, 7)
    kept = sorted((tmp_path / "kept/constants").glob("*.bin"))
    assert len(kept) == 3
    for file in kept:
        data = bytearray(file.read_bytes())
        data[40] ^= 1
        file.write_bytes(data)
    assert (psana_database(LONG, EXPERIMENT, 7)["pedestals"][0] == 300).all()
    assert len([path for path in database.asked if "gridfs" in path]) == 6


def test_without_a_network_what_was_named_before_is_taken_and_told(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = psana_database(LONG, EXPERIMENT, 7)
    asked = len(database.asked)
    monkeypatch.setattr("urllib.request.urlopen", _no_network)
    with pytest.warns(KeptConstantsWarning, match=f"{EXPERIMENT}, run 7, are those that it named on 20"):
        after = psana_database(LONG, EXPERIMENT, 7)
    assert len(database.asked) == asked
    np.testing.assert_array_equal(after["pedestals"][0], before["pedestals"][0])
    with pytest.raises(CalibrationError, match="cannot be reached"):
        psana_database(LONG, EXPERIMENT, 8)
    monkeypatch.setenv("XSMALL_CACHE", "0")
    with pytest.raises(CalibrationError, match="LCLS_CALIB_HTTP"):
        psana_database(LONG, EXPERIMENT, 7)


def _no_network(*_: object, **__: object) -> None:
    raise OSError("no route to host")


def test_nobody_at_the_address_is_told(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XSMALL_CACHE", str(tmp_path))
    for address in ("http://127.0.0.1:9", "file:///etc", "nonsense"):
        monkeypatch.setenv("LCLS_CALIB_HTTP", address)
        with pytest.raises(CalibrationError, match="cannot be reached"):
            psana_database(LONG, EXPERIMENT, 7)


def test_a_detector_is_known_by_its_short_name_and_by_some_of_its_panels(database: Database) -> None:
    database.add("cdb_detnames", "epix", long="epix_a1_b2_c3", short="epix_000007")
    database.add_array("cdb_epix_000007", "pedestals", np.ones((3, 4, 4), "f4"), 0, "end", longname="epix_a1_b2_c3")
    short = database.documents["cdb_epix_000007", SHORT]
    database.documents["cdb_epix_000007", "epix_000007"] = [d | {"detector": "epix_000007"} for d in short]
    for name in ("epix_a1_b2_c3", "epix_b2_c3", "epix_000007"):
        assert (psana_database(name, "mfx1", 1)["pedestals"][0] == 1).all()
    with pytest.raises(CalibrationError, match="no constants"):
        psana_database("epix_zz", "mfx1", 1)


@pytest.mark.parametrize("harm", ["short", "shape", "pickle", "type", "html"])
def test_what_the_service_gives_is_not_believed(database: Database, harm: str) -> None:
    key = f"cdb_{EXPERIMENT}", SHORT
    geometry = next(d for d in database.documents[key] if d["ctype"] == "geometry")
    for document in database.documents[key]:
        if document["ctype"] == "pedestals":
            data = f"cdb_{EXPERIMENT}", document["id_data"]
            if harm == "short":
                database.data[data] = database.data[data][:-4]
            elif harm == "shape":
                document["data_shape"] = "__import__('os').getcwd()"
            elif harm == "type":
                document["data_dtype"] = "object"
            elif harm == "pickle":
                document["data_type"] = "any"
            else:
                database.data[data] = b"<html>"
    if harm == "pickle":  # nothing is unpickled
        assert "pedestals" not in psana_database(LONG, EXPERIMENT, 7)
        assert psana_database(LONG, EXPERIMENT, 7)["geometry"][1]["id_data"] == geometry["id_data"]
        with pytest.raises(CalibrationError, match="no pedestals"):
            xs.open_constants(NAMED, detector=LONG)
    else:
        with pytest.raises(CalibrationError, match="'pedestals' in another size than it says"):
            psana_database(LONG, EXPERIMENT, 7)


def test_who_does_not_say_enough_is_told_what_to_type(database: Database, files: Path) -> None:
    raw = xs.open_run(files)["jungfrau/raw"]
    with pytest.raises(CalibrationError, match="no detector_id and no experiment"):
        xs.open_constants(xr.DataArray(np.zeros((1, 1, 2, 2))))
    with pytest.raises(ParameterError, match="detector= is for runs by number"):
        xs.open_constants(raw, detector="jungfrau")
    with pytest.raises(ParameterError, match="which detector"):
        xs.open_constants(NAMED)
    with pytest.raises(ParameterError, match="no detector of this name"):
        xs.open_constants(NAMED, detector="epix", dir=files)
    with pytest.raises(xs.XsmallError, match="no file of this experiment"):
        xs.open_constants(NAMED, detector="jungfrau", dir=files / "elsewhere")
    with pytest.raises(ParameterError, match="two numbers"):
        xs.open_constants(NAMED, detector=LONG, run=8)
    with pytest.raises(ParameterError, match="dir says nothing about constants of this source"):
        xs.open_constants({"pedestal": np.zeros((4, 4))}, detector_type="camera", dir=files)
    assert not database.asked
    database.documents.pop((f"cdb_{EXPERIMENT}", SHORT))
    with pytest.raises(CalibrationError, match="has no geometry"):
        xs.open_geometry(raw)


def test_the_name_of_what_is_kept_is_that_of_its_bytes(database: Database, tmp_path: Path) -> None:
    psana_database(LONG, EXPERIMENT, 7)
    for file in (tmp_path / "kept/constants").glob("*.bin"):
        data = file.read_bytes()
        assert hashlib.sha256(data[32:]).digest() == data[:32]
        assert file.stem.split("_")[-1] in str(database.data.keys())
